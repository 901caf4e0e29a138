//! The effect of each protection, shown by leaving it out: the same attempt fails in a full sandbox and succeeds in a
//! sandbox without it.

use std::fs;

use forge_jail::{
    DisabledProtection, Error, IsolationLayer, Jail, JailLayerState, JailRequest, JailSpec, RawBytes,
};

use crate::both;
use crate::rig::{Boxed, init_exe, weak_exe, workspace};

fn start(without: &[DisabledProtection]) -> Boxed {
    let dir = workspace();
    fs::write(dir.path().join(".env"), "SECRET").unwrap();
    let mut spec = JailSpec::new("weak", dir.path());
    spec.masked = vec![RawBytes::from(".env")];
    spec.hostname = "other-name".to_owned();
    spec.without = without.to_vec();
    Boxed { jail: Jail::spawn(&spec, &weak_exe()).expect("the box starts"), dir }
}

/// Returns a command that succeeds only without the protection, and other protections to leave out because they cover
/// the same hole. Commands that exit with 3 have a separate test: limits are shown by the report, the last two below.
fn attempt(weakness: DisabledProtection) -> (&'static str, &'static [DisabledProtection]) {
    match weakness {
        DisabledProtection::Seccomp => ("python3 -c 'import socket; socket.socket(16, 3)'", &[]),
        DisabledProtection::Landlock => (
            "python3 -c 'import socket; socket.socket(socket.AF_UNIX).connect(\"\\0OUTER-SOCKET\")'",
            &[DisabledProtection::NetNamespace],
        ),
        DisabledProtection::Capabilities => ("grep -q '^CapEff:.*[1-9a-f]' /proc/self/status", &[]),
        DisabledProtection::NoNewPrivs => ("grep -qx 'NoNewPrivs:.0' /proc/self/status", &[]),
        DisabledProtection::ProcHidden => ("cat /proc/interrupts", &[]),
        DisabledProtection::ReadOnlyProc => {
            ("echo 1000 > /proc/self/oom_score_adj", &[DisabledProtection::Landlock])
        }
        DisabledProtection::PidNamespace => ("test \"$$\" -gt 300", &[]),
        DisabledProtection::NetNamespace => ("test $(grep -c : /proc/self/net/dev) -gt 1", &[]),
        DisabledProtection::IpcNamespace => ("readlink /proc/self/ns/ipc | grep -q OUTER-IPC", &[]),
        DisabledProtection::UtsNamespace => ("test $(hostname) != other-name", &[]),
        DisabledProtection::ReadOnlySystem => ("touch /etc/made /made", &[]),
        DisabledProtection::Masks => ("grep -q SECRET .env", &[]),
        DisabledProtection::EnvironmentCleared => ("env | grep -q ^CARGO_MANIFEST_DIR=", &[]),
        DisabledProtection::Memory => ("exit 3", &[]),
        DisabledProtection::Pids => ("exit 3", &[]),
        DisabledProtection::KillBackground => ("exit 3", &[]),
        DisabledProtection::FilesBeneath => ("exit 3", &[]),
        DisabledProtection::Siblings => ("exit 3", &[]),
        DisabledProtection::Counts => ("exit 3", &[]),
        DisabledProtection::ProgramList => ("exit 3", &[]),
    }
}

both! {
    fn an_ordinary_init_leaves_nothing_out() {
        let mut spec = JailSpec::new("weak", workspace().path());
        for weakness in DisabledProtection::ALL {
            let dir = workspace();
            spec.roots[0].source = dir.path().into();
            spec.without = vec![*weakness];
            match Jail::spawn(&spec, &init_exe()) {
                Err(Error::Build { step, .. }) => assert!(step.contains(weakness.describe()), "{step}"),
                other => panic!("{weakness:?}: {:?}", other.map(|_| "started")),
            }
        }
    }

    fn what_is_left_out_is_reported_as_missing() {
        for weakness in DisabledProtection::ALL {
            let b = start(&[*weakness]);
            let layers = b.jail.layers();
            let of: Vec<_> = layers.iter().filter(|l| l.layer == weakness.layer()).collect();
            assert_eq!(of.len(), 1, "{weakness:?}: {of:?}");
            assert!(matches!(of[0].state, JailLayerState::Missing { .. }), "{weakness:?}: {}", of[0]);
            assert_eq!(b.sh("echo works").out, "works\n", "{weakness:?}");
        }
        let whole = start(&[]).jail.layers();
        assert!(whole.iter().all(|l| !matches!(l.layer, IsolationLayer::Measure(_))));
    }

    fn each_protection_stops_what_succeeds_without_it() {
        let inode = |name: &str| fs::read_link(format!("/proc/self/ns/{name}")).unwrap().display().to_string();
        let name = format!("forge-jail-weak-{}", std::process::id());
        let address = <std::os::unix::net::SocketAddr as std::os::linux::net::SocketAddrExt>::from_abstract_name(&name);
        let _outside = std::os::unix::net::UnixListener::bind_addr(&address.unwrap()).unwrap();
        for weakness in DisabledProtection::ALL {
            let (script, also) = attempt(*weakness);
            if script.ends_with("exit 3") {
                continue;
            }
            let script = script.replace("OUTER-IPC", &inode("ipc").replace(['[', ']'], ".")).replace("OUTER-SOCKET", &name);
            let all: Vec<_> = also.iter().chain([weakness]).copied().collect();
            let code = |b: Boxed| format!("{:?}", b.sh(&script).end.end);
            assert_ne!(code(start(also)), "Exited(0)", "{weakness:?}: succeeds in a whole box");
            assert_eq!(code(start(&all)), "Exited(0)", "{weakness:?}: fails although it was left out");
        }
    }

    fn requests_and_leftovers_without_their_walls() {
        let whole = start(&[]);
        whole.sh("(setsid sleep 1000 >/dev/null 2>&1 &)");
        assert_eq!(whole.sh("cat /proc/[0-9]*/comm").out.matches("sleep").count(), 0);
        let open = start(&[DisabledProtection::KillBackground]);
        open.sh("(setsid sleep 1000 >/dev/null 2>&1 &)");
        assert_eq!(open.sh("until grep -qsx sleep /proc/[0-9]*/comm; do :; done; echo there").out, "there\n");
        assert!(whole.read("../etc/hostname").is_err());
        let open = start(&[DisabledProtection::FilesBeneath]);
        assert_eq!(open.read("../etc/hostname").unwrap(), "other-name\n");
        assert_eq!(open.read("/etc/hostname").unwrap(), "other-name\n");
        let open = start(&[DisabledProtection::PidNamespace]);
        open.sh("(setsid sleep 1000 >/dev/null 2>&1 &)");
        open.jail.call(JailRequest::Ping, &[]).unwrap();
        assert!(open.jail.call(JailRequest::Freeze, &[]).is_err());
    }
}
