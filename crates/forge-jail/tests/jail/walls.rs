//! The isolation, start and end of a sandbox.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc;

use forge_jail::{Error, IsolationLayer, Jail, JailLayerState, JailRequest, JailSpec, NetworkAccess};

use crate::both;
use crate::rig::{AGAIN, Boxed, exec, init_exe, workspace};

both! {
    fn every_required_layer_is_reported_as_enforced() {
        let layers = Boxed::new().jail.layers();
        for layer in [
            IsolationLayer::UserNamespace, IsolationLayer::MountNamespace, IsolationLayer::PidNamespace, IsolationLayer::NetNamespace,
            IsolationLayer::IpcNamespace, IsolationLayer::UtsNamespace, IsolationLayer::Seccomp, IsolationLayer::Capabilities, IsolationLayer::Pids,
        ] {
            let report = layers.iter().find(|l| l.layer == layer).expect("reported");
            assert!(matches!(report.state, JailLayerState::Enforced { .. }), "{report}");
        }
        assert!(layers.iter().any(|l| l.layer == IsolationLayer::Memory));
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
        let open = Boxed::with(|spec, _| spec.network = NetworkAccess::Host);
        let done = open.sh(&script);
        let scoped = open.jail.layers().iter().any(|l| l.layer == IsolationLayer::Landlock && matches!(l.state, JailLayerState::Enforced { .. }));
        assert_eq!(done.out, if scoped { "1\n0\n" } else { "1\n1\n" }, "{}", done.err);
        let net = open.jail.layers().into_iter().find(|l| l.layer == IsolationLayer::NetNamespace).unwrap();
        assert!(matches!(net.state, JailLayerState::Degraded { .. }));
    }

    fn the_init_holds_nothing_of_the_host() {
        let b = Boxed::new();
        let folder = format!("/proc/{}/fd", b.jail.init_pid());
        // Only root can read these; the answer is the same for an ordinary user's sandbox.
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
        // In a separate user namespace the number of further ones can be set to zero.
        let output = Command::new("unshare")
            .args(["--user", "--map-root-user", "sh", "-c"])
            .arg("echo 0 > /proc/sys/user/max_user_namespaces && exec \"$0\" --exact walls::refused_here --ignored --nocapture")
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
        b.jail.call(JailRequest::Ping, &[]).unwrap();
        assert_eq!(b.sh("kill -9 1; kill -TERM 1; echo tried").out, "tried\n");
        b.jail.call(JailRequest::Ping, &[]).unwrap();
        let _ = b.jail.call(JailRequest::Shutdown, &[]);
        assert!(matches!(b.exec(exec(&["true"])), Err(Error::Died(_))));
        assert!(b.jail.death_reason().is_some());
    }

    fn control_groups_go_with_the_box() {
        let label = format!("gone{}", std::process::id());
        let b = Boxed::with(|spec, _| spec.label.clone_from(&label));
        let by_group = b.jail.layers().iter().any(|l| l.layer == IsolationLayer::Memory
            && matches!(&l.state, JailLayerState::Enforced { how } if how.starts_with("cgroup")));
        assert_eq!(!groups(&label).is_empty(), by_group);
        drop(b);
        assert!(groups(&label).is_empty());
        forge_jail::prune_stale_groups();
    }

    fn groups_of_dead_owners_are_found_below_other_groups() {
        // An owner that cannot be alive: above the largest possible process id.
        let name = format!("forge-4194304-1-0-orphan{}", std::process::id());
        let outer = format!("other{}", std::process::id());
        for hierarchy in ["memory", "pids", "cpu", "unified"] {
            let outer = Path::new("/sys/fs/cgroup").join(hierarchy).join(&outer);
            let orphan = outer.join("a/b/c/d/e/f/g").join(&name);
            if fs::create_dir_all(&orphan).is_err() {
                continue;
            }
            let removed = forge_jail::prune_stale_groups();
            // Another process that starts a sandbox or prunes at this moment may have been first.
            assert!(!orphan.exists(), "{removed:?}");
            for folder in orphan.ancestors().skip(1).take_while(|f| f.starts_with(&outer)) {
                fs::remove_dir(folder).unwrap();
            }
        }
    }

    fn a_description_that_makes_no_sense_is_refused() {
        let refused = |change: fn(&mut JailSpec)| {
            let mut spec = JailSpec::new("x", "/srv");
            change(&mut spec);
            Jail::spawn(&spec, &init_exe()).err().map(|e| e.to_string()).unwrap_or_default()
        };
        assert!(refused(|s| s.roots[0].source = "/".into()).contains("whole machine"));
        assert!(refused(|s| s.roots[0].source = "relative".into()).contains("not absolute"));
        assert!(refused(|s| s.limits.memory_bytes = 1).contains("16 MiB"));
        let absent = refused(|s| s.roots[0].source = "/no/such/folder".into());
        assert!(absent.contains("/no/such/folder"), "{absent}");
        let error = Jail::spawn(&JailSpec::new("x", "/srv"), Path::new("/bin/true")).unwrap_err().to_string();
        assert!(error.contains("init_main"), "{error}");
    }

    fn the_box_dies_with_its_holder() {
        let held = workspace();
        let mut holder = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "walls::hold_a_box", "--ignored", "--nocapture"])
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
        forge_jail::prune_stale_groups();
    }
}

#[test]
#[ignore = "started by a_machine_without_user_namespaces_is_refused_by_name"]
fn refused_here() {
    let dir = workspace();
    if let Err(error) = Jail::spawn(&JailSpec::new("refused", dir.path()), &init_exe()) {
        assert_eq!(error.missing_layers(), [IsolationLayer::UserNamespace]);
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

/// Returns the control groups with `label` in their name.
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
