//! Fixtures for the tests of the container backends: available engines and a fake one.

use crate::rig::{Folder, command, folder, helper, spec};
use forge_ports::sandbox::{Error, ExecResult, ExecSpec};
use forge_ports::{Sandbox as _, Workspace};
use forge_sandbox::Backends;
use forge_sandbox::docker::{EngineKind, EngineOptions};
use forge_types::{RunId, SandboxSpec, SnapshotId};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

/// Small image built by `scripts/docker.sh`.
pub(crate) const IMAGE: &str = "forge-test:latest";
/// Variable that passes kind and host of the engine to a test that is started again.
const TOLD: &str = "FORGE_SANDBOX_TEST_ENGINE";
/// An id without an account.
const USER: u32 = 4243;

/// An available engine.
pub(crate) struct Engine {
    pub(crate) kind: EngineKind,
    host: String,
    pub(crate) place: Folder,
}

/// Returns the engines of this machine that have the test image, and names each one that is missing.
pub(crate) fn engines() -> Vec<Engine> {
    let usual = [
        (EngineKind::Docker, "FORGE_TEST_DOCKER", "unix:///var/run/docker.sock"),
        (EngineKind::Podman, "FORGE_TEST_PODMAN", "unix:///tmp/forge-engines-0/podman.sock"),
    ];
    let hosts =
        usual.map(|(kind, name, place)| (kind, std::env::var(name).unwrap_or_else(|_| place.to_owned())));
    hosts.into_iter().filter_map(|(kind, host)| usable(Engine::new(kind, host))).collect()
}

fn usable(engine: Engine) -> Option<Engine> {
    let missing = match engine.ask("GET", &format!("/v1.41/images/{IMAGE}/json"), "") {
        Ok(answer) if answer.contains("\"Id\"") => return Some(engine),
        Ok(_) => format!("it has no image {IMAGE}"),
        Err(error) => error.to_string(),
    };
    let text = format!("{} backend: {}: {missing} (scripts/docker.sh up)", engine.kind, engine.host);
    let must =
        std::env::var_os("FORGE_DOCKER").is_some_and(|v| v == "1") && engine.kind == EngineKind::Docker;
    assert!(!must, "{text}");
    eprintln!("NOT TESTED: {text}");
    if let Some(log) = std::env::var_os("TEST_SKIP_LOG") {
        let mut log = std::fs::OpenOptions::new().append(true).create(true).open(log).unwrap();
        writeln!(log, "{text}").unwrap();
    }
    None
}

/// Returns the engine that another test passed to this one.
pub(crate) fn told() -> Option<Engine> {
    let told = std::env::var(TOLD).ok()?;
    let (kind, host) = told.split_once(' ')?;
    let kind = if kind == "podman" { EngineKind::Podman } else { EngineKind::Docker };
    Some(Engine::new(kind, host.to_owned()))
}

impl Engine {
    fn new(kind: EngineKind, host: String) -> Self {
        Self { kind, host, place: folder() }
    }

    pub(crate) fn backends(&self) -> Backends {
        backends(self.kind, &self.host, self.place.path())
    }

    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    fn socket(&self) -> &Path {
        Path::new(self.host.trim_start_matches("unix://"))
    }

    /// Sends one request of the engine's API, as Docker documents it.
    fn ask(&self, method: &str, path: &str, body: &str) -> std::io::Result<String> {
        let mut stream = UnixStream::connect(self.socket())?;
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: e\r\nConnection: close\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }

    /// Returns the ids of all containers of Forge's, as they are shown.
    pub(crate) fn containers(&self) -> Vec<String> {
        let path = "/v1.41/containers/json?all=1&filters=%7B%22label%22%3A%5B%22forge.run_id%22%5D%7D";
        let answer = self.ask("GET", path, "").unwrap();
        let ids = answer.split("\"Id\":\"").skip(1);
        ids.map(|rest| rest.chars().take(12).collect()).collect()
    }

    pub(crate) fn until_gone(&self, id: &str) {
        while self.containers().iter().any(|c| c == id) {
            std::thread::yield_now();
        }
    }

    /// Creates a container as a process leaves it that is killed between creating and starting it.
    pub(crate) fn leftover(&self) -> String {
        let body = format!(
            r#"{{"Image":"{IMAGE}","Cmd":["true"],"Labels":{{"forge.run_id":"left-behind","forge.owner_pid":"1",
            "forge.owner_started":"1","forge.owner_machine":"an-earlier-boot/1"}}}}"#
        );
        let answer = self.ask("POST", "/v1.41/containers/create", &body).unwrap();
        let (_, rest) = answer.split_once("\"Id\":\"").unwrap_or_else(|| panic!("{answer}"));
        rest.chars().take(12).collect()
    }
}

pub(crate) fn backends(kind: EngineKind, host: &str, place: &Path) -> Backends {
    let options = EngineOptions {
        exe: helper(),
        temp_dir: place.join("boxes"),
        host: Some(host.to_owned()),
        ..EngineOptions::new(kind, place)
    };
    crate::rig::backends(place).with_engine(options)
}

/// A sandbox in a container around a new directory.
pub(crate) struct Rig {
    pub(crate) room: Arc<dyn Workspace>,
    dir: Folder,
    spec: SandboxSpec,
    run: RunId,
}

impl Rig {
    pub(crate) async fn new(engine: &Engine) -> Self {
        Self::with(engine, |_, _| {}).await
    }

    pub(crate) async fn with(engine: &Engine, change: impl FnOnce(&mut SandboxSpec, &Path)) -> Self {
        let dir = folder();
        let mut spec = SandboxSpec { image: Some(IMAGE.to_owned()), ..spec(dir.path(), engine.kind.name()) };
        change(&mut spec, dir.path());
        let run = RunId::generate();
        let room = engine.backends().open(&spec, run, None).await.expect("the box opens");
        Self { room, dir, spec, run }
    }

    /// Opens another sandbox of the same run, restored to a snapshot, after this one has ended.
    pub(crate) async fn again(self, engine: &Engine, at: Option<SnapshotId>) -> Self {
        let Self { room, dir, spec, run } = self;
        drop(room);
        let room = engine.backends().open(&spec, run, at).await.expect("the box opens again");
        Self { room, dir, spec, run }
    }

    pub(crate) fn path(&self, below: &str) -> PathBuf {
        self.dir.path().join(below)
    }

    pub(crate) async fn sh(&self, script: &str) -> ExecResult {
        self.exec(command(&["sh", "-c", script])).await.expect("the command runs")
    }

    pub(crate) async fn exec(&self, spec: ExecSpec) -> Result<ExecResult, Error> {
        self.room.exec(spec, &()).await
    }
}

/// Another process with a sandbox in which a command runs.
pub(crate) struct Owner {
    child: Child,
    pub(crate) id: String,
    /// Directory with everything that the process makes, since it is killed.
    pub(crate) place: Folder,
}

impl Owner {
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

pub(crate) fn owner(engine: &Engine) -> Owner {
    let place = folder();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .env("TMPDIR", place.path())
        .args(["--exact", "docker::an_owner", "--ignored", "--nocapture"])
        .env(TOLD, format!("{} {}", engine.kind, engine.host))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let id =
        lines.map_while(Result::ok).find_map(|l| l.split_once("box ").map(|(_, id)| id.trim().to_owned()));
    Owner { child, id: id.expect("the owner opens a box"), place }
}

/// Runs `body` as an ordinary user who may use the docker engine, after checking the refusal of one who may not.
pub(crate) fn member(test: &str, body: impl AsyncFn(Engine)) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    if let Some(engine) = told() {
        match runtime.block_on(engine.backends().engine_backend(EngineKind::Docker).check_available()) {
            Ok(()) => runtime.block_on(body(engine)),
            Err(error) => println!("refused: {error}"),
        }
        return;
    }
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let Some(engine) = engines().into_iter().find(|e| e.kind == EngineKind::Docker) else { return };
    let group = std::fs::metadata(engine.socket()).unwrap().gid();
    let place = folder();
    let copy = |from: &Path, to: &str| {
        let to = place.path().join(to);
        std::fs::copy(from, &to).unwrap();
        to
    };
    let program = copy(&std::env::current_exe().unwrap(), "test");
    let helper = copy(&helper(), "helper");
    let ask = |gid: u32| {
        let output = Command::new(&program)
            .args(["--exact", test, "--nocapture"])
            .env("FORGE_SANDBOX_TEST_HELPER", &helper)
            .env(TOLD, format!("{} {}", engine.kind, engine.host))
            .current_dir("/")
            .uid(USER)
            .gid(gid)
            .output()
            .unwrap();
        let text =
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success() && text.contains("1 passed"), "{text}");
        text
    };
    assert!(!ask(group).contains("refused"));
    let text = ask(USER);
    assert!(
        text.contains("refused") && text.contains("permission denied") && text.contains("group"),
        "{text}"
    );
}

/// Returns the error of an opening that must fail.
pub(crate) fn said(opened: Result<Arc<dyn Workspace>, Error>) -> String {
    match opened {
        Ok(_) => panic!("a box was opened"),
        Err(error) => error.to_string(),
    }
}

/// Returns the error that the engine at `host` leads to.
pub(crate) async fn refusal(dir: &Path, host: &str) -> String {
    let spec = SandboxSpec { image: Some(IMAGE.to_owned()), ..spec(dir, "docker") };
    let place = folder();
    said(backends(EngineKind::Docker, host, place.path()).open(&spec, RunId::generate(), None).await)
}

/// A fake engine.
pub(crate) struct Made {
    pub(crate) api: &'static str,
    pub(crate) architecture: &'static str,
    /// Error message of the request to create a container.
    pub(crate) create: &'static str,
}

impl Default for Made {
    fn default() -> Self {
        Self { api: "1.41", architecture: "amd64", create: "no" }
    }
}

impl Made {
    /// Answers on a socket in `dir` for as long as the test runs.
    pub(crate) fn serve(self, dir: &Path) -> String {
        let socket = dir.join(format!("{}.sock", RunId::generate()));
        let listener = UnixListener::bind(&socket).unwrap();
        std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o666)).unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                self.answer(stream);
            }
        });
        format!("unix://{}", socket.display())
    }

    fn answer(&self, mut stream: UnixStream) {
        let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
        let Some(request) = lines.next() else { return };
        let (status, body) = if request.contains("/version") {
            (200, format!(r#"{{"Version":"1.0","ApiVersion":"{}","Arch":"amd64"}}"#, self.api))
        } else if request.contains("/info") {
            (200, "{}".to_owned())
        } else if request.contains("/images/") {
            (200, format!(r#"{{"Id":"x","Architecture":"{}"}}"#, self.architecture))
        } else {
            (500, format!(r#"{{"message":"{}"}}"#, self.create))
        };
        // The client may be gone by now, which only ends this answer.
        let _ = write!(
            stream,
            "HTTP/1.1 {status} x\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
    }
}
