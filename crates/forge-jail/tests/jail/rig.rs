//! The base of the tests: a sandbox around a fresh directory, and the same test again as an ordinary user.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc;

use forge_jail::{
    BackgroundProcesses, Error, ExecOutcome, FaultKind, Jail, JailCommand, JailReply, JailRequest, JailSpec,
    RawBytes, ReplaceExisting, ReplyWithFd, SyncToDisk,
};

/// The ordinary user of these tests: an id without an account.
const USER: u32 = 4242;
pub(crate) const AGAIN: &str = "FORGE_JAIL_TEST_INIT";

pub(crate) struct Ran {
    pub(crate) end: ExecOutcome,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// A sandbox around a fresh directory.
pub(crate) struct Boxed {
    pub(crate) jail: Jail,
    pub(crate) dir: tempfile::TempDir,
}

pub(crate) fn init_exe() -> PathBuf {
    std::env::var_os(AGAIN)
        .map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_forge-jail-init")), PathBuf::from)
}

/// The init that can leave out protections. As another user it is a copy next to the other one.
pub(crate) fn weak_exe() -> PathBuf {
    std::env::var_os(AGAIN).map_or_else(
        || PathBuf::from(env!("CARGO_BIN_EXE_forge-jail-weak-init")),
        |init| PathBuf::from(init).with_file_name("weak"),
    )
}

pub(crate) fn workspace() -> tempfile::TempDir {
    tempfile::Builder::new()
        .prefix("forge-jail-")
        .permissions(fs::Permissions::from_mode(0o755))
        .tempdir()
        .unwrap()
}

impl Boxed {
    pub(crate) fn new() -> Self {
        Self::with(|_, _| {})
    }

    pub(crate) fn with(change: impl FnOnce(&mut JailSpec, &Path)) -> Self {
        let dir = workspace();
        let mut spec = JailSpec::new("test", dir.path());
        change(&mut spec, dir.path());
        let jail = Jail::spawn(&spec, &init_exe()).expect("the box starts");
        Self { jail, dir }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn sh(&self, script: &str) -> Ran {
        self.exec(exec(&["sh", "-c", script])).expect("the command starts")
    }

    pub(crate) fn exec(&self, exec: JailCommand) -> Result<Ran, Error> {
        let (mut out, out_end) = std::io::pipe().unwrap();
        let (mut err, err_end) = std::io::pipe().unwrap();
        let (give, take) = mpsc::channel();
        self.jail.submit(JailRequest::Exec(exec), &[out_end.as_fd(), err_end.as_fd()], move |answer| {
            give.send(answer).unwrap();
        });
        drop((out_end, err_end));
        let errors = std::thread::spawn(move || {
            let mut text = Vec::new();
            err.read_to_end(&mut text).unwrap();
            String::from_utf8_lossy(&text).into_owned()
        });
        let mut text = Vec::new();
        out.read_to_end(&mut text).unwrap();
        match take.recv().unwrap()?.reply {
            JailReply::Ended(end) => {
                Ok(Ran { end, out: String::from_utf8_lossy(&text).into_owned(), err: errors.join().unwrap() })
            }
            other => panic!("not an end: {other:?}"),
        }
    }

    pub(crate) fn file(&self, request: JailRequest) -> Result<ReplyWithFd, FaultKind> {
        self.jail.call(request, &[]).map_err(|error| match error {
            Error::File(fault) => fault.kind,
            other => panic!("{other}"),
        })
    }

    pub(crate) fn write(&self, path: &str, text: &str) -> Result<(), FaultKind> {
        let answer = self.file(JailRequest::CreateTemp { path: path.into(), mode: 0o644 })?;
        let JailReply::Temp { token, .. } = answer.reply else { panic!("{:?}", answer.reply) };
        File::from(answer.fd.unwrap()).write_all(text.as_bytes()).unwrap();
        self.file(JailRequest::CommitTemp { token, replace: ReplaceExisting::Yes, sync: SyncToDisk::No })
            .map(drop)
    }

    pub(crate) fn read(&self, path: &str) -> Result<String, FaultKind> {
        let answer = self.file(JailRequest::OpenRead { path: path.into() })?;
        let mut text = String::new();
        File::from(answer.fd.unwrap()).read_to_string(&mut text).unwrap();
        Ok(text)
    }
}

pub(crate) fn exec(argv: &[&str]) -> JailCommand {
    JailCommand {
        program: None,
        argv: argv.iter().map(|a| RawBytes::from(*a)).collect(),
        cwd: RawBytes::default(),
        env: Vec::new(),
        timeout_ms: Some(20_000),
        inherited_env: None,
        stdin: None,
        background: BackgroundProcesses::Kill,
        also: Vec::new(),
    }
}

/// Returns whether the current user can start sandboxes. If not, this is printed, and is a failure under CI.
fn boxes_can_be_had() -> bool {
    let dir = workspace();
    match Jail::spawn(&JailSpec::new("probe", dir.path()), &init_exe()) {
        Err(error @ Error::Refused(_)) => {
            assert!(std::env::var_os("CI").is_none(), "NOT TESTED: {error}");
            println!("NOT TESTED: {error}");
            false
        }
        _ => true,
    }
}

/// Runs `body` as the current user and, when that is root, the same test again as an ordinary user.
pub(crate) fn both(name: &str, body: fn()) {
    if boxes_can_be_had() {
        body();
    }
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let place = workspace();
    let copy = |from: &Path, to: &str| {
        let to = place.path().join(to);
        fs::copy(from, &to).unwrap();
        to
    };
    let test = copy(&std::env::current_exe().unwrap(), "test");
    let init = copy(&init_exe(), "init");
    copy(&weak_exe(), "weak");
    let output = Command::new(test)
        .args(["--exact", name, "--nocapture"])
        .env(AGAIN, init)
        .env("TMPDIR", "/tmp")
        .current_dir("/")
        .uid(USER)
        .gid(USER)
        .output()
        .unwrap();
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && text.contains("1 passed"), "as user {USER}:\n{text}");
}

/// Tests that run as root and as an ordinary user.
#[macro_export]
macro_rules! both {
    ($(fn $name:ident() $body:block)*) => {$(
        #[test]
        fn $name() {
            fn body() $body
            let module = module_path!().split_once("::").map_or("", |(_, m)| m);
            $crate::rig::both(&format!("{module}::{}", stringify!($name)), body);
        }
    )*};
}
