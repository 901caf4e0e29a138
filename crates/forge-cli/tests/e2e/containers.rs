//! A container engine, if one answers on this machine.

use crate::harness::skip;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;

/// The small image that `scripts/docker.sh up` makes.
pub(crate) const IMAGE: &str = "forge-test:latest";

/// Flags of a run that works in a container.
pub(crate) const FLAGS: [&str; 4] = ["--sandbox-backend", "docker", "--sandbox-image", IMAGE];

/// The Docker Engine.
pub(crate) struct Docker {
    host: String,
}

/// The engine, if it answers and has the image; else a line in the log of skipped tests, or with `FORGE_DOCKER=1` a
/// failure.
#[allow(clippy::disallowed_methods, reason = "how the runner of the tests tells them of engines")]
pub(crate) fn docker(what: &str) -> Option<Docker> {
    let host =
        std::env::var("FORGE_TEST_DOCKER").unwrap_or_else(|_| "unix:///var/run/docker.sock".to_owned());
    let engine = Docker { host };
    let missing = match engine.ask(&format!("/v1.41/images/{IMAGE}/json")) {
        Ok(answer) if answer.contains("\"Id\"") => return Some(engine),
        Ok(_) => format!("docker has no image {IMAGE} (scripts/docker.sh up)"),
        Err(error) => format!("{}: {error} (scripts/docker.sh up)", engine.host),
    };
    assert!(std::env::var("FORGE_DOCKER").as_deref() != Ok("1"), "{what}: {missing}");
    skip(what, &missing);
    None
}

impl Docker {
    /// Where it listens.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// All containers of Forge's, as the engine describes them.
    pub(crate) fn containers(&self) -> String {
        let filter = "%7B%22label%22%3A%5B%22forge.run_id%22%5D%7D";
        self.ask(&format!("/v1.41/containers/json?all=1&filters={filter}")).expect("the engine answers")
    }

    /// One request of the engine's API, as Docker documents it.
    fn ask(&self, path: &str) -> std::io::Result<String> {
        let mut stream = UnixStream::connect(Path::new(self.host.trim_start_matches("unix://")))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: e\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }
}
