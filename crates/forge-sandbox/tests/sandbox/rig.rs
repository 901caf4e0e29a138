//! Test fixtures: a sandbox around a new directory, and a second run of a test as an ordinary user.

use forge_ports::sandbox::{BackgroundPolicy, Error, ExecResult, ExecSpec, InheritedEnv};
use forge_ports::{Sandbox, Workspace};
use forge_sandbox::{BackendOptions, Backends};
use forge_types::{ApplyPolicy, NetworkPolicy, RunId, SandboxLimits, SandboxSpec, WorkspaceMode};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

/// Id of the ordinary user of these tests, without an account.
const USER: u32 = 4243;
/// Variable with the path of the helper's copy, for the test that runs as the ordinary user.
const HELPER: &str = "FORGE_SANDBOX_TEST_HELPER";

/// A sandbox around a new directory.
pub(crate) struct Rig {
    pub(crate) room: Arc<dyn Workspace>,
    pub(crate) dir: Folder,
    pub(crate) spec: SandboxSpec,
    pub(crate) run: RunId,
    pub(crate) backends: Backends,
    /// Data directory of the backends; dropped last.
    _data: Folder,
}

pub(crate) fn helper() -> PathBuf {
    let here = || PathBuf::from(env!("CARGO_BIN_EXE_forge-sandbox-helper"));
    std::env::var_os(HELPER).map_or_else(here, PathBuf::from)
}

/// A new directory that is removed with its contents when dropped, even while a sandbox on it is still ending.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let begun = std::time::Instant::now();
        while self.0.exists() && begun.elapsed() < Duration::from_secs(10) {
            forge_files::remove_tree(&self.0);
        }
    }
}

pub(crate) fn folder() -> Folder {
    let open = fs::Permissions::from_mode(0o755);
    let made = tempfile::Builder::new().prefix("forge-sandbox-").permissions(open).tempdir().unwrap();
    Folder(made.keep())
}

pub(crate) fn spec(repo: &Path, backend: &str) -> SandboxSpec {
    SandboxSpec {
        backend: backend.to_owned(),
        repo: repo.to_owned(),
        more_repos: Vec::new(),
        mode: WorkspaceMode::Inplace,
        apply: ApplyPolicy::Never,
        image: None,
        network: NetworkPolicy::Off,
        limits: SandboxLimits::default(),
        workspace: forge_types::WorkspaceLimits::default(),
        reveal: Vec::new(),
        env: Vec::new(),
        read_only: Vec::new(),
        writable: Vec::new(),
        programs: None,
        allow_unisolated: true,
    }
}

/// Creates backends with all their data below `data`.
pub(crate) fn backends(data: &Path) -> Backends {
    Backends::new(options(data))
}

pub(crate) fn options(data: &Path) -> BackendOptions {
    BackendOptions { exe: Some(helper()), ..BackendOptions::under_directory(data) }
}

impl Rig {
    pub(crate) async fn new(backend: &str) -> Self {
        Self::with(backend, |_, _| {}).await
    }

    pub(crate) async fn with(backend: &str, change: impl FnOnce(&mut SandboxSpec, &Path)) -> Self {
        let dir = folder();
        let mut spec = spec(dir.path(), backend);
        change(&mut spec, dir.path());
        let (data, run) = (folder(), RunId::generate());
        let backends = backends(data.path());
        let room = backends.open(&spec, run, None).await.expect("the box opens");
        Self { room, dir, spec, run, backends, _data: data }
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

pub(crate) fn command(argv: &[&str]) -> ExecSpec {
    ExecSpec {
        argv: argv.iter().map(|a| (*a).to_owned()).collect(),
        cwd: String::new(),
        env: BTreeMap::new(),
        timeout: Duration::from_secs(60),
        keep_bytes: 1 << 20,
        inherited_env: InheritedEnv::All,
        stdin: None,
        background: BackgroundPolicy::Kill,
        also: Vec::new(),
    }
}

pub(crate) fn out(result: &ExecResult) -> String {
    String::from_utf8_lossy(&result.stdout.bytes).into_owned()
}

pub(crate) fn err(result: &ExecResult) -> String {
    String::from_utf8_lossy(&result.stderr.bytes).into_owned()
}

/// Returns whether the current user can open sandboxes. If not, that is reported prominently, and is a failure under
/// CI.
fn boxes_can_be_had() -> bool {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (dir, data) = (folder(), folder());
    let backends = backends(data.path());
    match runtime.block_on(backends.open(&spec(dir.path(), "native"), RunId::generate(), None)) {
        Err(error @ Error::Missing { .. }) => {
            let said = format!("NOT TESTED: no box can be had here: {error}");
            assert!(std::env::var_os("CI").is_none(), "{said}");
            eprintln!("{said}");
            false
        }
        _ => true,
    }
}

/// Runs `body` as the current user and, if that is root, the same test again as an ordinary user.
pub(crate) fn both(name: &str, body: fn()) {
    if boxes_can_be_had() {
        body();
    }
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let place = folder();
    let copy = |from: &Path, to: &str| {
        let to = place.path().join(to);
        fs::copy(from, &to).unwrap();
        to
    };
    let test = copy(&std::env::current_exe().unwrap(), "test");
    let helper = copy(&helper(), "helper");
    let output = Command::new(test)
        .args(["--exact", name, "--nocapture"])
        .env(HELPER, helper)
        .env("TMPDIR", "/tmp")
        .current_dir("/")
        .uid(USER)
        .gid(USER)
        .output()
        .unwrap();
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && text.contains("1 passed"), "as user {USER}:\n{text}");
    for line in text.lines().filter(|l| l.contains("NOT TESTED")) {
        eprintln!("as user {USER}: {line}");
    }
}

/// Declares tests that run as root and as an ordinary user; each is an async function.
#[macro_export]
macro_rules! as_both {
    ($(async fn $name:ident() $body:block)*) => {$(
        #[test]
        fn $name() {
            fn body() {
                tokio::runtime::Runtime::new().unwrap().block_on(async $body);
            }
            let module = module_path!().split_once("::").map_or("", |(_, m)| m);
            $crate::rig::both(&format!("{module}::{}", stringify!($name)), body);
        }
    )*};
}
