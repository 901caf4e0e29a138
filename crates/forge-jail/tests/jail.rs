//! Boxes as their users see them: as root and, run again under another id, as an ordinary user.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc;

use forge_jail::{
    Answer, End, Ended, Error, Exec, FaultKind, FileKind, Jail, JailSpec, Layer, Leftovers, Links, Raw,
    Removal, Replace, Reply, Request, State, Sync,
};

/// The ordinary user of these tests: an id without an account.
const USER: u32 = 4242;
const AGAIN: &str = "FORGE_JAIL_TEST_INIT";

struct Ended2 {
    end: Ended,
    out: String,
    err: String,
}

/// A box around a fresh folder.
struct Boxed {
    jail: Jail,
    dir: tempfile::TempDir,
}

fn init_exe() -> PathBuf {
    std::env::var_os(AGAIN)
        .map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_forge-jail-init")), PathBuf::from)
}

fn workspace() -> tempfile::TempDir {
    tempfile::Builder::new()
        .prefix("forge-jail-")
        .permissions(fs::Permissions::from_mode(0o755))
        .tempdir()
        .unwrap()
}

impl Boxed {
    fn new() -> Self {
        Self::with(|_, _| {})
    }

    fn with(change: impl FnOnce(&mut JailSpec, &Path)) -> Self {
        let dir = workspace();
        let mut spec = JailSpec::new("test", dir.path());
        change(&mut spec, dir.path());
        let jail = Jail::spawn(&spec, &init_exe()).expect("the box starts");
        Self { jail, dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn sh(&self, script: &str) -> Ended2 {
        self.exec(exec(&["sh", "-c", script])).expect("the command starts")
    }

    fn exec(&self, exec: Exec) -> Result<Ended2, Error> {
        let (mut out, out_end) = std::io::pipe().unwrap();
        let (mut err, err_end) = std::io::pipe().unwrap();
        let (give, take) = mpsc::channel();
        self.jail.submit(Request::Exec(exec), &[out_end.as_fd(), err_end.as_fd()], move |answer| {
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
            Reply::Ended(end) => Ok(Ended2 {
                end,
                out: String::from_utf8_lossy(&text).into_owned(),
                err: errors.join().unwrap(),
            }),
            other => panic!("not an end: {other:?}"),
        }
    }

    fn file(&self, request: Request) -> Result<Answer, FaultKind> {
        self.jail.call(request, &[]).map_err(|error| match error {
            Error::File(fault) => fault.kind,
            other => panic!("{other}"),
        })
    }

    fn write(&self, path: &str, text: &str) -> Result<(), FaultKind> {
        let answer = self.file(Request::CreateTemp { path: path.into(), mode: 0o644 })?;
        let Reply::Temp { token, .. } = answer.reply else { panic!("{:?}", answer.reply) };
        File::from(answer.fd.unwrap()).write_all(text.as_bytes()).unwrap();
        self.file(Request::CommitTemp { token, replace: Replace::Yes, sync: Sync::No }).map(drop)
    }

    fn read(&self, path: &str) -> Result<String, FaultKind> {
        let answer = self.file(Request::OpenRead { path: path.into() })?;
        let mut text = String::new();
        File::from(answer.fd.unwrap()).read_to_string(&mut text).unwrap();
        Ok(text)
    }
}

fn exec(argv: &[&str]) -> Exec {
    Exec {
        argv: argv.iter().map(|a| Raw::from(*a)).collect(),
        cwd: Raw::default(),
        env: Vec::new(),
        timeout_ms: Some(20_000),
        leftovers: Leftovers::Kill,
    }
}

/// Runs `body` as whoever this is and, when that is root, the same test again as an ordinary user.
fn both(name: &str, body: fn()) {
    body();
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

macro_rules! both {
    ($($(#[$doc:meta])* fn $name:ident() $body:block)*) => {$(
        #[test]
        $(#[$doc])*
        fn $name() {
            fn body() $body
            both(stringify!($name), body);
        }
    )*};
}

both! {
    fn a_command_runs_and_says_how_it_ended() {
        let b = Boxed::new();
        let done = b.sh("echo out; echo err >&2; exit 7");
        assert_eq!((done.out.as_str(), done.err.as_str()), ("out\n", "err\n"));
        assert_eq!(done.end.end, End::Exited(7));
        assert_eq!(b.sh("kill -9 $$").end.end, End::Signaled(9));
        assert!(!done.end.oom);
        assert!(done.end.max_rss_kib > 100);
        println!("{:#?}", b.jail.layers());
    }

    fn every_required_layer_is_reported_as_enforced() {
        let layers = Boxed::new().jail.layers();
        for layer in [
            Layer::UserNamespace, Layer::MountNamespace, Layer::PidNamespace, Layer::NetNamespace,
            Layer::IpcNamespace, Layer::UtsNamespace, Layer::Seccomp, Layer::Capabilities, Layer::Pids,
        ] {
            let report = layers.iter().find(|l| l.layer == layer).expect("reported");
            assert!(matches!(report.state, State::Enforced { .. }), "{report}");
        }
        assert!(layers.iter().any(|l| l.layer == Layer::Memory));
    }

    fn files_made_inside_belong_to_the_workspaces_owner() {
        let b = Boxed::new();
        let owner = fs::metadata(b.dir.path()).unwrap();
        assert_eq!(b.sh("echo hi > made && mkdir d && id -u && stat -c %u:%g made").end.end, End::Exited(0));
        let made = fs::metadata(b.path("made")).unwrap();
        assert_eq!((made.uid(), made.gid()), (owner.uid(), owner.gid()));
        b.write("d/written", "text").unwrap();
        let written = fs::metadata(b.path("d/written")).unwrap();
        assert_eq!((written.uid(), written.gid()), (owner.uid(), owner.gid()));
        assert_ne!(b.sh("id -u").out, "0\n");
    }
}
