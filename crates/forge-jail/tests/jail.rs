//! Boxes as their users see them: as root and, run again under another id, as an ordinary user.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "tests start themselves again as another user"
)]

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc;

use forge_jail::{
    Answer, End, Ended, Error, Exec, FaultKind, FileKind, Jail, JailSpec, Layer, Leftovers, Links, Network,
    Raw, Removal, Replace, Reply, Request, State, Sync,
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
        program: None,
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

    fn masked_paths_hold_nothing_and_stay_where_they_are() {
        let b = Boxed::with(|spec, dir| {
            fs::write(dir.join(".env"), "SECRET=1").unwrap();
            fs::create_dir_all(dir.join("conf/keys")).unwrap();
            fs::write(dir.join("conf/keys/id_rsa"), "SECRET").unwrap();
            fs::write(dir.join("seen"), "SEEN").unwrap();
            std::os::unix::fs::symlink("seen", dir.join("link")).unwrap();
            spec.masked = [".env", "conf/keys", "absent/file", "link"].map(Raw::from).into();
        });
        let done = b.sh("cat .env; cat conf/keys/id_rsa; ls conf/keys; rm -f .env; mv .env x; ln .env y; chmod 644 .env; \
            echo new > .env; cat seen link");
        assert!(!done.out.contains("SECRET"), "{}", done.out);
        assert_eq!(done.out, "SEENSEEN");
        assert_eq!(b.read(".env"), Err(FaultKind::Denied));
        assert_eq!(b.read("conf/keys/id_rsa"), Err(FaultKind::Denied));
        assert_eq!(b.write(".env", "x"), Err(FaultKind::Denied));
        assert_eq!(b.read("seen").unwrap(), "SEEN");
        assert_eq!(fs::read_to_string(b.path(".env")).unwrap(), "SECRET=1");
    }

    fn only_regular_files_inside_are_opened_and_nothing_blocks() {
        let b = Boxed::new();
        let done = b.sh("mkfifo fifo; mkdir dir; echo text > file; ln -s file good; ln -s /etc/passwd bad; ln -s ../.. up;
            ln -s nowhere dangling; ln -s loop loop; ln -s /dev/zero zero;
            python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"sock\")'");
        assert_eq!(done.end.end, End::Exited(0), "{}", done.err);
        assert_eq!(b.read("good").unwrap(), "text\n");
        assert_eq!(b.read("dir/../file").unwrap(), "text\n");
        assert_eq!(b.read("fifo"), Err(FaultKind::NotRegular(FileKind::Fifo)));
        assert_eq!(b.read("dir"), Err(FaultKind::NotRegular(FileKind::Dir)));
        assert_eq!(b.read("sock"), Err(FaultKind::NotRegular(FileKind::Socket)));
        for outside in ["bad", "zero", "up/x", "../x", "/etc/passwd", "dir/../../x", "good/../../x"] {
            let kind = b.read(outside).unwrap_err();
            assert!(matches!(kind, FaultKind::Outside | FaultKind::NotDir), "{outside}: {kind:?}");
        }
        assert_eq!(b.read("dangling"), Err(FaultKind::NotFound));
        assert_eq!(b.read("loop"), Err(FaultKind::Loop));
        assert_eq!(b.read(""), Err(FaultKind::BadPath));
        assert_eq!(b.read("a\0b"), Err(FaultKind::BadPath));
        let stat = |path: &str, links| match b.file(Request::Stat { path: path.into(), links }).unwrap().reply {
            Reply::Stat { stat } => stat,
            other => panic!("{other:?}"),
        };
        assert_eq!(stat("bad", Links::Keep).kind, FileKind::Symlink);
        assert_eq!(stat("good", Links::Follow).size, 5);
    }

    fn writing_follows_links_that_stay_inside_and_keeps_modes() {
        let b = Boxed::new();
        b.sh("echo old > file; chmod 751 file; mkdir d; ln -s ../file d/link; ln -s nowhere dangling; ln -s /tmp/x out;
            mkdir folder; mkfifo fifo");
        b.write("d/link", "new").unwrap();
        assert_eq!(fs::read_to_string(b.path("file")).unwrap(), "new");
        assert!(fs::symlink_metadata(b.path("d/link")).unwrap().is_symlink());
        assert_eq!(fs::metadata(b.path("file")).unwrap().mode() & 0o7777, 0o751);
        b.write("fresh", "x").unwrap();
        assert_eq!(fs::metadata(b.path("fresh")).unwrap().mode() & 0o7777, 0o644);
        assert_eq!(b.write("dangling", "x"), Err(FaultKind::Dangling));
        assert_eq!(b.write("out", "x"), Err(FaultKind::Outside));
        assert_eq!(b.write("../x", "x"), Err(FaultKind::Outside));
        assert_eq!(b.write("..", "x"), Err(FaultKind::Outside));
        assert_eq!(b.write("/x", "x"), Err(FaultKind::Outside));
        assert_eq!(b.write("none/x", "x"), Err(FaultKind::NotFound));
        assert_eq!(b.write("folder", "x"), Err(FaultKind::NotRegular(FileKind::Dir)));
        assert_eq!(b.write("fifo", "x"), Err(FaultKind::NotRegular(FileKind::Fifo)));
        assert!(fs::read_dir(b.dir.path()).unwrap().all(|e| !e.unwrap().file_name().to_string_lossy().contains("forge")));
    }

    fn folders_are_made_moved_and_removed() {
        let b = Boxed::new();
        b.file(Request::MakeDirs { path: "a/b/c".into() }).unwrap();
        b.file(Request::MakeDirs { path: "a/b/c/".into() }).unwrap();
        assert_eq!(b.file(Request::MakeDirs { path: "../x".into() }).unwrap_err(), FaultKind::Outside);
        b.write("a/file", "x").unwrap();
        let to = |from: &str, to: &str, replace| {
            b.file(Request::Rename { from: from.into(), to: to.into(), replace }).map(drop)
        };
        to("a/file", "a/b/moved", Replace::No).unwrap();
        b.write("a/file", "y").unwrap();
        assert_eq!(to("a/file", "a/b/moved", Replace::No), Err(FaultKind::Exists));
        assert_eq!(to("a/file", "../x", Replace::Yes), Err(FaultKind::Outside));
        let remove = |path: &str, what| b.file(Request::Remove { path: path.into(), what }).map(drop);
        assert_eq!(remove("a", Removal::EmptyDir), Err(FaultKind::NotEmpty));
        assert_eq!(remove("a", Removal::File), Err(FaultKind::NotRegular(FileKind::Dir)));
        b.sh("chmod 000 a/b/c a/b");
        remove("a", Removal::Tree).unwrap();
        assert!(!b.path("a").exists());
        let deep = b.sh("python3 -c '
import os
for i in range(1500):
    os.mkdir(\"d\"); os.mkdir(\"e\"); os.chdir(\"d\")'");
        assert_eq!(deep.end.end, End::Exited(0), "{}", deep.err);
        remove("d", Removal::Tree).unwrap();
        remove("e", Removal::Tree).unwrap();
        assert_eq!(fs::read_dir(b.dir.path()).unwrap().count(), 0);
    }

    fn a_command_that_takes_too_long_is_ended_with_all_it_started() {
        let b = Boxed::new();
        let mut slow = exec(&["sh", "-c", "trap '' TERM; (setsid sleep 1000 &) ; echo started; while :; do sleep 1; done"]);
        slow.timeout_ms = Some(300);
        let done = b.exec(slow).unwrap();
        assert_eq!((done.end.end, done.out.as_str()), (End::TimedOut, "started\n"));
        assert_eq!(b.sh("cat /proc/[0-9]*/comm").out.matches("sleep").count(), 0);
    }

    fn nothing_outlives_its_command_unless_asked_for() {
        let b = Boxed::new();
        // Holds stdout open in a process of another session, twice removed.
        let done = b.sh("(setsid sh -c 'sleep 1000 & sleep 1000' &) ; echo first");
        assert_eq!(done.out, "first\n");
        assert_eq!(b.sh("cat /proc/[0-9]*/comm").out.matches("sleep").count(), 0);
        let mut server = exec(&["sh", "-c", "setsid sleep 1000 >/dev/null 2>&1 & echo kept"]);
        server.leftovers = Leftovers::Keep;
        assert_eq!(b.exec(server).unwrap().out, "kept\n");
        let seen = b.sh("until grep -qsx sleep /proc/[0-9]*/comm; do :; done; echo seen");
        assert_eq!(seen.out, "seen\n");
    }

    fn commands_run_side_by_side_and_can_be_cancelled() {
        let b = Boxed::new();
        let (give, take) = mpsc::channel();
        let null = File::create("/dev/null").unwrap();
        let long = exec(&["sh", "-c", "touch running; exec sleep 1000"]);
        let id = b.jail.submit(Request::Exec(long), &[null.as_fd(), null.as_fd()], move |a| give.send(a).unwrap());
        assert_eq!(b.sh("until [ -e running ]; do :; done; echo beside").out, "beside\n");
        b.jail.call(Request::Cancel { target: id }, &[]).unwrap();
        let Reply::Ended(ended) = take.recv().unwrap().unwrap().reply else { panic!("no end") };
        assert_eq!(ended.end, End::Cancelled);
    }

    fn what_cannot_be_started_is_said() {
        let b = Boxed::new();
        fs::write(b.path("data"), "x").unwrap();
        let errno = |argv: &[&str]| match b.exec(exec(argv)) {
            Err(Error::Start(fault)) => fault.errno,
            other => panic!("started: {}", other.is_ok()),
        };
        assert_eq!(errno(&["no-such-program"]), libc_errno::ENOENT);
        assert_eq!(errno(&["./data"]), libc_errno::EACCES);
        assert_eq!(errno(&[]), libc_errno::ENOENT);
        let mut outside = exec(&["true"]);
        outside.cwd = "../..".into();
        assert!(matches!(b.exec(outside), Err(Error::Start(_))));
    }

    fn environment_and_arguments_are_what_was_given() {
        let b = Boxed::with(|spec, _| spec.env.push(("NAMED".into(), "yes".into())));
        let mut show = exec(&["env"]);
        show.env = vec![("EXTRA".into(), "1".into()), ("HOME".into(), "/tmp".into())];
        let out = b.exec(show).unwrap().out;
        let mut names: Vec<_> = out.lines().filter_map(|l| l.split('=').next()).collect();
        names.sort_unstable();
        assert_eq!(names, ["EXTRA", "HOME", "LANG", "LOGNAME", "NAMED", "PATH", "SHELL", "TMPDIR", "USER"]);
        assert!(out.contains("HOME=/tmp\n"));
        // Larger than a packet: travels another way.
        let long = "x".repeat(100_000);
        assert_eq!(b.exec(exec(&["printf", "%s", &long])).unwrap().out.len(), 100_000);
        let odd = Exec { argv: vec!["printf".into(), "%s".into(), Raw(vec![0xff, b'a'])], ..exec(&[]) };
        assert_eq!(b.exec(odd).unwrap().out, "\u{fffd}a");
    }

    fn memory_and_processes_are_limited() {
        let b = Boxed::with(|spec, _| {
            spec.limits.memory_bytes = 96 << 20;
            spec.limits.pids = 64;
        });
        let hog = b.sh("python3 -c '
l = []
while True: l.append(bytearray(1 << 20))' || true");
        assert!(!hog.out.contains("x"));
        let shared = b.sh("python3 -c '
import mmap, time
m = mmap.mmap(-1, 512 << 20)
for i in range(0, 512 << 20, 4096): m[i] = 1
print(\"got it all\")
time.sleep(5)
print(\"kept it\")'");
        assert!(shared.end.oom && !shared.out.contains("kept"), "{:?} {}", shared.end, shared.out);
        let bomb = b.sh("python3 -c '
import os, time
n = 0
try:
    while True:
        if os.fork() == 0: time.sleep(60); os._exit(0)
        n += 1
except OSError: print(n)'");
        let forks: u32 = bomb.out.trim().parse().unwrap_or_else(|_| panic!("{} {}", bomb.out, bomb.err));
        assert!((5..64).contains(&forks), "{forks}");
        assert_eq!(b.sh("echo alive").out, "alive\n");
    }

    fn the_network_is_loopback_only() {
        let b = Boxed::new();
        let done = b.sh("python3 -c '
import socket
s = socket.create_server((\"127.0.0.1\", 0))
c = socket.create_connection(s.getsockname())
print(\"loopback\")
for to in ((\"1.1.1.1\", 53), (\"169.254.169.254\", 80)):
    try: socket.create_connection(to, 2); print(\"OUT\")
    except OSError as e: print(e.errno)'");
        assert_eq!(done.out, "loopback\n101\n101\n", "{}", done.err);
    }

    fn the_hosts_network_is_had_only_when_asked_for() {
        let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = server.local_addr().unwrap().port();
        let name = format!("forge-jail-test-{}", std::process::id());
        let address = <std::os::unix::net::SocketAddr as std::os::linux::net::SocketAddrExt>::from_abstract_name(&name);
        let _abstract = std::os::unix::net::UnixListener::bind_addr(&address.unwrap()).unwrap();
        let script = format!("python3 -c '
import socket
def attempt(family, to):
    try: socket.socket(family).connect(to); print(1)
    except OSError: print(0)
attempt(socket.AF_INET, (\"127.0.0.1\", {port}))
attempt(socket.AF_UNIX, \"\\0{name}\")'");
        assert_eq!(Boxed::new().sh(&script).out, "0\n0\n");
        let open = Boxed::with(|spec, _| spec.network = Network::Host);
        let done = open.sh(&script);
        let scoped = open.jail.layers().iter().any(|l| l.layer == Layer::Landlock && matches!(l.state, State::Enforced { .. }));
        assert_eq!(done.out, if scoped { "1\n0\n" } else { "1\n1\n" }, "{}", done.err);
        let net = open.jail.layers().into_iter().find(|l| l.layer == Layer::NetNamespace).unwrap();
        assert!(matches!(net.state, State::Degraded { .. }));
    }

    fn the_init_holds_nothing_of_the_host() {
        let b = Boxed::new();
        let folder = format!("/proc/{}/fd", b.jail.init_pid());
        // Only root can look; the answer is the same for an ordinary user's box.
        for link in fs::read_dir(folder).into_iter().flatten() {
            let target = fs::read_link(link.unwrap().path()).unwrap();
            let target = target.to_string_lossy();
            let harmless = ["socket:", "anon_inode:", "/dev/null"].iter().any(|p| target.starts_with(p))
                || target == "/workspace" || target == b.dir.path().to_string_lossy() || target == "/";
            assert!(harmless, "{target}");
        }
        let environ = fs::read(format!("/proc/{}/environ", b.jail.init_pid())).unwrap_or_default();
        assert!(environ.iter().all(|byte| *byte == 0));
    }

    fn a_machine_without_user_namespaces_is_refused_by_name() {
        if rustix::process::geteuid().is_root() {
            return;
        }
        // In a user namespace of its own the number of further ones can be set to none.
        let output = Command::new("unshare")
            .args(["--user", "--map-root-user", "sh", "-c"])
            .arg("echo 0 > /proc/sys/user/max_user_namespaces && exec \"$0\" --exact refused_here --ignored --nocapture")
            .arg(std::env::current_exe().unwrap())
            .env(AGAIN, init_exe())
            .output()
            .unwrap();
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(text.contains("user.max_user_namespaces"), "{text}");
        assert!(text.contains("user namespace: missing"), "{text}");
    }

    fn a_dead_box_says_so() {
        let b = Boxed::new();
        b.jail.call(Request::Ping, &[]).unwrap();
        assert_eq!(b.sh("kill -9 1; kill -TERM 1; echo tried").out, "tried\n");
        b.jail.call(Request::Ping, &[]).unwrap();
        let _ = b.jail.call(Request::Shutdown, &[]);
        assert!(matches!(b.exec(exec(&["true"])), Err(Error::Died(_))));
        assert!(b.jail.dead().is_some());
    }

    fn control_groups_go_with_the_box() {
        let label = format!("gone{}", std::process::id());
        let b = Boxed::with(|spec, _| spec.label.clone_from(&label));
        let by_group = b.jail.layers().iter().any(|l| l.layer == Layer::Memory
            && matches!(&l.state, State::Enforced { how } if how.starts_with("cgroup")));
        assert_eq!(!groups(&label).is_empty(), by_group);
        drop(b);
        assert!(groups(&label).is_empty());
        forge_jail::prune();
    }

    fn a_description_that_makes_no_sense_is_refused() {
        let refused = |change: fn(&mut JailSpec)| {
            let mut spec = JailSpec::new("x", "/srv");
            change(&mut spec);
            Jail::spawn(&spec, &init_exe()).err().map(|e| e.to_string()).unwrap_or_default()
        };
        assert!(refused(|s| s.workspace = "/".into()).contains("whole machine"));
        assert!(refused(|s| s.workspace = "relative".into()).contains("not absolute"));
        assert!(refused(|s| s.limits.memory_bytes = 1).contains("16 MiB"));
        let absent = refused(|s| s.workspace = "/no/such/folder".into());
        assert!(absent.contains("/no/such/folder"), "{absent}");
        let error = Jail::spawn(&JailSpec::new("x", "/srv"), Path::new("/bin/true")).unwrap_err().to_string();
        assert!(error.contains("init_main"), "{error}");
    }

    fn the_box_dies_with_its_holder() {
        let held = workspace();
        let mut holder = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "hold_a_box", "--ignored", "--nocapture"])
            .env("FORGE_JAIL_TEST_HOLD", held.path())
            .env(AGAIN, init_exe())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = std::io::BufRead::lines(std::io::BufReader::new(holder.stdout.take().unwrap()));
        let pid = lines.find_map(|l| l.unwrap().split_once("init ").and_then(|(_, p)| p.parse::<i32>().ok())).unwrap();
        let init = rustix::process::pidfd_open(
            rustix::process::Pid::from_raw(pid).unwrap(), rustix::process::PidfdFlags::empty()).unwrap();
        holder.kill().unwrap();
        holder.wait().unwrap();
        let mut wait = [rustix::event::PollFd::new(&init, rustix::event::PollFlags::IN)];
        let limit = rustix::event::Timespec { tv_sec: 10, tv_nsec: 0 };
        assert_eq!(rustix::event::poll(&mut wait, Some(&limit)).unwrap(), 1, "the init lives on");
        forge_jail::prune();
    }
}

#[test]
#[ignore = "started by a_machine_without_user_namespaces_is_refused_by_name"]
fn refused_here() {
    let dir = workspace();
    if let Err(error) = Jail::spawn(&JailSpec::new("refused", dir.path()), &init_exe()) {
        assert_eq!(error.missing(), [Layer::UserNamespace]);
        println!("{error}");
    }
}

#[test]
#[ignore = "started by the_box_dies_with_its_holder"]
fn hold_a_box() {
    let Some(path) = std::env::var_os("FORGE_JAIL_TEST_HOLD") else { return };
    let jail = Jail::spawn(&JailSpec::new("held", PathBuf::from(path)), &init_exe()).unwrap();
    println!("\ninit {}", jail.init_pid());
    let (_give, take) = mpsc::channel::<()>();
    let _ = take.recv();
}

mod libc_errno {
    pub(super) const ENOENT: i32 = 2;
    pub(super) const EACCES: i32 = 13;
}

/// Control groups whose name carries `label`.
fn groups(label: &str) -> Vec<PathBuf> {
    fn search(dir: &Path, label: &str, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|t| t.is_dir()) {
                if entry.file_name().to_string_lossy().ends_with(label) {
                    found.push(entry.path());
                }
                search(&entry.path(), label, found);
            }
        }
    }
    let mut found = Vec::new();
    search(Path::new("/sys/fs/cgroup"), label, &mut found);
    found
}
