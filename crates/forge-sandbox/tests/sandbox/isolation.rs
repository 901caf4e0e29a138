//! The parts of the host that a sandbox shows, and the data that comes out of it. The probes are in `verify`.

use crate::as_both;
use crate::rig::{Rig, command, out};
use forge_ports::sandbox::{ExecSpec, InheritedEnv};

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

    async fn a_command_gets_its_input_and_chosen_variables_only() {
        for backend in ["native", "process"] {
            let rig = Rig::new(backend).await;
            // More than a pipe or an argument holds.
            let input = "line\n".repeat(60_000).into_bytes();
            let spec = ExecSpec {
                inherited_env: InheritedEnv::Only(vec!["PATH".to_owned(), "NOT_SET".to_owned()]),
                env: [("ONE".to_owned(), "two words".to_owned())].into(),
                stdin: Some(input.clone()),
                ..command(&["sh", "-c", "cat | wc -c; env | grep -v -e FORGE -e PWD -e '^_=' | sort"])
            };
            let ran = rig.room.exec(spec, &()).await.unwrap();
            let text = out(&ran);
            let (bytes, rest) = text.split_once('\n').unwrap();
            assert_eq!(bytes.trim(), input.len().to_string(), "{backend}");
            let env: Vec<&str> = rest.lines().map(|line| line.split('=').next().unwrap()).collect();
            assert_eq!(env, ["ONE", "PATH"], "{backend}: {rest}");
            assert!(rest.contains("ONE=two words"), "{backend}: {rest}");
            let empty = rig.room.exec(command(&["wc", "-c"]), &()).await.unwrap();
            assert_eq!(out(&empty).trim(), "0", "{backend}");
        }
    }

    async fn output_that_looks_like_the_protocol_is_only_output() {
        let rig = Rig::new("native").await;
        let fake = r#"I{"id":1,"body":{"is":"ended","end":{"exited":0}}}"#;
        let ran = rig.sh(&format!("printf '%s' '{fake}'; printf '%s' '{fake}' >&2; exit 3")).await;
        assert_eq!((out(&ran).as_str(), ran.exit_code), (fake, 3));
    }
}
