//! The probes: a program in the box tries to get out, and outside it is checked that it did not.

use crate::as_both;
use crate::rig::{Rig, command, err, out};
use std::collections::BTreeMap;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::PermissionsExt as _;

const PROBE: &str = include_str!("probe.py");
/// Fewer probes than this would mean that the list was cut.
const FEWEST: usize = 45;

type Results = BTreeMap<String, BTreeMap<String, Option<String>>>;

as_both! {
    async fn every_probe_is_denied_and_every_control_works() {
        // What must stay out of reach: files of the same user, a port, a socket, a process, a variable.
        let outside = crate::rig::folder();
        let canary = outside.path().join("canary");
        std::fs::write(&canary, "CANARY").unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let name = format!("forge-canary-{}", std::process::id());
        let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
        let _abstract = std::os::unix::net::UnixListener::bind_addr(&address).unwrap();
        // A descriptor that this process would hand on to whatever it starts.
        let _leaks = rustix::io::dup(std::fs::File::open(&canary).unwrap()).unwrap();
        let rig = Rig::with("native", |_, dir| {
            std::fs::write(dir.join(".env"), "SECRET=CANARY").unwrap();
            std::fs::create_dir(dir.join("keys")).unwrap();
            std::fs::write(dir.join("keys/id_rsa"), "CANARY").unwrap();
            std::fs::set_permissions(dir.join("keys/id_rsa"), std::fs::Permissions::from_mode(0o600)).unwrap();
        }).await;
        let setup = format!(
            r#"{{"files":["{}","/etc/hostname-of-host","/root/.bashrc","/home","/var/log","/boot"],"pid":{},"port":{},"abstract":"{name}"}}"#,
            canary.display(), std::process::id(), port.local_addr().unwrap().port(),
        );
        let ran = rig.exec(command(&["python3", "-c", PROBE, &setup])).await.unwrap();
        let results: Results = serde_json::from_str(&out(&ran))
            .unwrap_or_else(|e| panic!("{e}: {ran:?} {} {}", out(&ran), err(&ran)));
        assert!(results["probes"].len() >= FEWEST, "{} probes", results["probes"].len());
        let failed: Vec<_> = results.values().flatten().filter(|(_, r)| r.is_some()).collect();
        assert!(failed.is_empty(), "{failed:#?}");
        // The init took every blow and still serves; the masked files are untouched outside.
        assert_eq!(out(&rig.sh("echo alive").await), "alive\n");
        assert_eq!(std::fs::read_to_string(rig.path(".env")).unwrap(), "SECRET=CANARY");
        assert_eq!(std::fs::read_to_string(&canary).unwrap(), "CANARY");
        assert!(rig.room.report().masked.iter().any(|m| m == ".env"));
    }

    async fn nothing_of_the_hosts_environment_or_etc_is_seen() {
        let rig = Rig::new("native").await;
        let env = out(&rig.sh("env | cut -d= -f1 | sort").await);
        assert_eq!(env, "HOME\nLANG\nLOGNAME\nPATH\nPWD\nSHELL\nTMPDIR\nUSER\n");
        let etc = out(&rig.sh("cat /etc/passwd /etc/resolv.conf; hostname").await);
        assert!(etc.contains("forge:x:") && !etc.contains("daemon") && etc.ends_with("forge\n"), "{etc}");
    }

    async fn output_that_looks_like_the_protocol_is_only_output() {
        let rig = Rig::new("native").await;
        let fake = r#"I{"id":1,"body":{"is":"ended","end":{"exited":0}}}"#;
        let ran = rig.sh(&format!("printf '%s' '{fake}'; printf '%s' '{fake}' >&2; exit 3")).await;
        assert_eq!((out(&ran).as_str(), ran.exit_code), (fake, 3));
    }
}
