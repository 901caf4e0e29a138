//! The parts of the host that a sandbox shows, and the data that comes out of it. The probes are in `verify`.

use crate::as_both;
use crate::rig::{Rig, out};

as_both! {
    async fn masked_files_are_reported_and_stay_as_they_are() {
        let rig = Rig::with("native", |_, dir| {
            std::fs::write(dir.join(".env"), "SECRET=CANARY").unwrap();
        }).await;
        assert_eq!(out(&rig.sh("cat .env 2>/dev/null; echo x > .env; rm -f .env; echo done").await), "done\n");
        assert_eq!(std::fs::read_to_string(rig.path(".env")).unwrap(), "SECRET=CANARY");
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
