//! Sandbox backends: the boxes in which everything happens that a model asks for.
//!
//! `native` isolates through `forge-jail`; `process` isolates nothing and must be allowed by name. Walks of the
//! workspace run in the box by the same binary, and so does the box's init: a `main` that opens boxes begins with
//! [`helper_main`]. What this crate does not know: tools, models, configuration, and what a command is for.

mod capture;
pub mod docker;
mod door;
pub mod egress;
mod images;
mod masks;
mod native;
mod once;
mod paths;
mod process;
mod room;
mod stream;
mod verify;
mod view;
mod walk;

use docker::{Docker, Kind};
use forge_ports::sandbox::Error;
use forge_ports::{Sandbox, Workspace, async_trait};
use forge_types::{Layer, RunId, SandboxSpec, SnapshotId};
pub use native::Native;
pub use process::Process;
use std::sync::Arc;
pub use walk::WALKER;

/// All backends; the specification names the one that is used.
#[derive(Clone, Debug)]
pub struct Backends {
    native: Native,
    docker: Docker,
    podman: Docker,
    process: Process,
}

impl Default for Backends {
    fn default() -> Self {
        let engine = |kind| Docker::new(docker::Options::new(kind));
        Self {
            native: Native::default(),
            docker: engine(Kind::Docker),
            podman: engine(Kind::Podman),
            process: Process,
        }
    }
}

impl Backends {
    /// The backends of this machine. The running binary is the boxes' init.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The backends with another binary as the boxes' init: for programs whose own `main` cannot begin with
    /// [`helper_main`], such as test runners.
    #[must_use]
    pub fn with_exe(exe: impl Into<std::path::PathBuf>) -> Self {
        let exe = exe.into();
        let engine = |kind| {
            Docker::new(docker::Options { exe: exe.clone(), ..docker::Options::new(kind) })
        };
        Self {
            docker: engine(Kind::Docker),
            podman: engine(Kind::Podman),
            native: Native::with_exe(exe.clone()),
            process: Process,
        }
    }

    /// The backends with container engines at other places, each with its own options.
    #[must_use]
    pub fn with_engine(mut self, options: docker::Options) -> Self {
        match options.kind {
            Kind::Docker => self.docker = Docker::new(options),
            Kind::Podman => self.podman = Docker::new(options),
        }
        self
    }

    /// The isolation of this machine, else that of an engine, and never less.
    async fn any(
        &self,
        spec: &SandboxSpec,
        run: RunId,
        at: Option<SnapshotId>,
    ) -> Result<Arc<dyn Workspace>, Error> {
        let mut lacking = Vec::new();
        let backends: [&dyn Sandbox; 3] = [&self.native, &self.docker, &self.podman];
        for backend in backends {
            match backend.open(spec, run, at).await {
                Err(Error::Missing { missing }) => lacking.extend(missing),
                opened => return opened,
            }
        }
        Err(Error::Missing { missing: lacking })
    }
}

#[async_trait]
impl Sandbox for Backends {
    async fn probe(&self) -> Vec<Layer> {
        self.native.probe().await
    }

    async fn open(
        &self,
        spec: &SandboxSpec,
        run: RunId,
        at: Option<SnapshotId>,
    ) -> Result<Arc<dyn Workspace>, Error> {
        match spec.backend.as_str() {
            // Each of these means the isolation of this machine, and never less.
            "native" | "bwrap" => self.native.open(spec, run, at).await,
            "docker" => self.docker.open(spec, run, at).await,
            "podman" => self.podman.open(spec, run, at).await,
            "auto" => self.any(spec, run, at).await,
            "process" => self.process.open(spec, run, at).await,
            other => {
                let missing = format!(
                    "there is no sandbox backend `{other}` in this build (there are: native, docker, podman, process)"
                );
                Err(Error::Missing { missing: vec![missing] })
            }
        }
    }
}

/// Removes what boxes left behind whose owner died: control groups. Returns their paths.
pub fn prune() -> Vec<std::path::PathBuf> {
    forge_jail::prune()
}

/// Answers as the init of a box or as one of the programs that run inside it, if the binary was started under such a
/// name.
///
/// Must be the first thing that `main` does, before any thread starts. Gives the exit code to end with, or `None` for
/// an ordinary start; as init it does not return.
pub fn helper_main(arguments: &[String]) -> Option<i32> {
    let (name, rest) = arguments.split_first()?;
    if name == forge_jail::INIT_ARGV0 {
        forge_jail::init_main();
    }
    // An engine names a static binary by its path.
    if name.rsplit('/').next() == Some(forge_jail::CONTAINED_ARGV0) {
        forge_jail::contained_main();
    }
    (name == WALKER).then(|| walk::answer(rest.first().map(String::as_str)))
}
