//! The container backends against real engines (`scripts/docker.sh up`) and against a fake one.
//!
//! A missing engine is reported prominently, and is a failure with `FORGE_DOCKER=1`.

use crate::engine::{Engine, IMAGE, Made, Rig, engines, member, said};
use crate::rig::{command, err, folder, out, spec};
use forge_ports::Sandbox as _;
use forge_ports::sandbox::{Error, PathErrorKind};
use forge_sandbox::docker::EngineKind;
use forge_sandbox::images::{ImageFlavor as ImageKind, find_image, make_image};
use forge_types::{NetworkPolicy, RunId, SandboxLayerState, SandboxSpec, WorkspaceMode};
use std::time::Duration;

/// Runs an async body against each available engine.
fn on_engines(body: impl AsyncFn(Engine)) {
    on(engines(), body);
}

fn on(engines: impl IntoIterator<Item = Engine>, body: impl AsyncFn(Engine)) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for engine in engines {
        runtime.block_on(body(engine));
    }
}

#[test]
fn commands_run_as_nobody_in_particular_with_nothing_of_the_hosts() {
    on_engines(async |engine| {
        let rig = Rig::new(&engine).await;
        let ran = rig.sh("pwd; hostname; echo $HOME; echo hi > f; echo oops >&2; exit 3").await;
        assert_eq!((out(&ran).as_str(), err(&ran).as_str()), ("/workspace\nforge\n/tmp/home\n", "oops\n"));
        assert_eq!(ran.exit_code, 3);
        assert_eq!(std::fs::read_to_string(rig.path("f")).unwrap(), "hi\n");
        let status = out(&rig.sh("cat /proc/self/status").await);
        let field = |name: &str| {
            let line = status.lines().find(|l| l.starts_with(name)).unwrap();
            line.split_whitespace().nth(1).unwrap().to_owned()
        };
        for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
            assert_eq!(field(set), "0000000000000000", "{set}");
        }
        assert_eq!((field("NoNewPrivs:").as_str(), field("Seccomp:").as_str()), ("1", "2"));
        assert_ne!(field("Uid:"), "0");
        let telling =
            "cat /proc/kallsyms /proc/key-users /proc/interrupts /proc/config.gz 2>/dev/null | wc -c";
        assert_eq!(out(&rig.sh(telling).await), "0\n", "of the machine nothing is told");
        let env = out(&rig.sh("env | cut -d= -f1 | sort").await);
        assert_eq!(env, "HOME\nLANG\nLOGNAME\nPATH\nPWD\nSHELL\nTMPDIR\nUSER\n");
        // Files created in the sandbox belong to the owner of the repository.
        let owner = |path| std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(path).unwrap());
        assert_eq!(owner(rig.path("f")), owner(rig.path("")));
        // None of them can grant that owner's rights.
        assert_ne!(rig.sh("chmod 4755 f").await.exit_code, 0);
        assert_eq!(out(&rig.sh("chmod 755 f && stat -c %a f").await), "755\n");
    });
}

#[test]
fn ends_of_commands_are_a_shells() {
    on_engines(async |engine| {
        let rig = Rig::new(&engine).await;
        assert_eq!(rig.sh("kill -SEGV $$").await.exit_code, 139);
        assert_eq!(rig.exec(command(&["no-such-program"])).await.unwrap().exit_code, 127);
        let mut spin = command(&["sh", "-c", "trap '' TERM; echo spinning; while :; do :; done"]);
        spin.timeout = Duration::from_millis(300);
        let ran = rig.exec(spin).await.unwrap();
        assert_eq!((ran.exit_code, ran.timed_out, out(&ran).as_str()), (124, true, "spinning\n"));
        let ran = rig
            .sh("(setsid sh -c 'sleep 1000 & exec sleep 1000' &) ; (nohup sleep 1000 &) ; echo done")
            .await;
        assert_eq!((ran.exit_code, out(&ran).as_str()), (0, "done\n"));
        assert_eq!(out(&rig.sh("cat /proc/[0-9]*/comm | grep -c sleep").await), "0\n");
        let mut flood = command(&["sh", "-c", "echo first; head -c 50000000 /dev/zero; echo; echo last"]);
        flood.keep_bytes = 64 << 10;
        let ran = rig.exec(flood).await.unwrap();
        assert_eq!(ran.stdout.total, 50_000_012);
        assert!(ran.stdout.is_truncated() && ran.stdout.bytes.ends_with(b"last\n"));
    });
}

#[test]
fn limits_hold_and_the_box_survives_them() {
    on_engines(async |engine| {
        let rig = Rig::with(&engine, |spec, _| {
            spec.limits.memory_bytes = 128 << 20;
            spec.limits.pids = 100;
            spec.limits.tmp_bytes = 8 << 20;
            spec.limits.cpus = Some(1.0);
        })
        .await;
        let greedy = "
held = []
while True: held.append(bytearray(b'x' * (1 << 20)))";
        let ran = rig.exec(command(&["python3", "-c", greedy])).await.unwrap();
        assert!(ran.out_of_memory || err(&ran).contains("MemoryError"), "{ran:?}");
        let mut bomb = command(&["sh", "-c", "bomb() { bomb | bomb & }; (bomb) & while :; do :; done"]);
        bomb.timeout = Duration::from_secs(2);
        let ran = rig.exec(bomb).await.unwrap();
        assert!(ran.timed_out, "{ran:?}");
        let full = rig.sh("head -c 50000000 /dev/zero > /tmp/big; stat -c %s /tmp/big; rm /tmp/big").await;
        assert_eq!(out(&full), "8388608\n");
        assert_eq!(out(&rig.sh("touch /usr/x /etc/x /x; echo alive").await), "alive\n");
        let layers = rig.room.report().layers;
        for name in ["memory limit", "process limit", "cpu limit", "seccomp", "pid namespace", "capabilities"]
        {
            let layer = layers.iter().find(|l| l.name == name).unwrap();
            assert_eq!(layer.state, SandboxLayerState::Enforced, "{name}");
        }
    });
}

#[test]
fn files_and_walks_are_those_of_a_native_box() {
    on_engines(async |engine| {
        let rig = Rig::with(&engine, |_, dir| {
            std::fs::write(dir.join(".env"), "SECRET=CANARY").unwrap();
            std::fs::create_dir(dir.join("sub")).unwrap();
            std::fs::write(dir.join("sub/id_rsa"), "CANARY").unwrap();
            std::os::unix::fs::symlink("/etc/passwd", dir.join("out")).unwrap();
        })
        .await;
        rig.room.write_file("a/b/c.txt", b"needle in a file\n").await.unwrap();
        assert_eq!(rig.room.read_file("/workspace/a/b/c.txt", 7, 4).await.unwrap().bytes, b"in a");
        let found = rig.room.find_files("*.txt", 10).await.unwrap();
        assert_eq!(found.items.iter().map(|e| e.path.as_str()).collect::<Vec<_>>(), ["a/b/c.txt"]);
        assert!(rig.room.list_directory("", 1, 10).await.unwrap().items.iter().any(|e| e.path == "a"));
        let kind = |error: Error| match error {
            Error::Path { kind, .. } => kind,
            other => panic!("{other}"),
        };
        assert_eq!(kind(rig.room.read_file("out", 0, 10).await.unwrap_err()), PathErrorKind::Escapes);
        assert_eq!(
            kind(rig.room.read_file("../etc/passwd", 0, 10).await.unwrap_err()),
            PathErrorKind::Escapes
        );
        // Credentials are masked for files and commands, and unchanged outside.
        assert_eq!(kind(rig.room.read_file(".env", 0, 10).await.unwrap_err()), PathErrorKind::Denied);
        let ran = rig.sh("cat .env sub/id_rsa; rm -f .env sub/id_rsa; mv .env x").await;
        assert!(!out(&ran).contains("CANARY"), "{}", out(&ran));
        assert_eq!(std::fs::read_to_string(rig.path("sub/id_rsa")).unwrap(), "CANARY");
        assert_eq!(rig.room.report().masked, [".env", "sub/id_rsa"]);
        rig.room.remove_file("a/b/c.txt").await.unwrap();
        assert!(!rig.path("a/b/c.txt").exists());
    });
}

#[test]
fn keys_and_files_that_come_to_be_are_covered_in_a_container() {
    const KEY: &str = "-----BEGIN PRIVATE KEY-----\nCANARYCANARYCANARYCANARY\n-----END PRIVATE KEY-----\n";
    on_engines(async |engine| {
        let rig = Rig::with(&engine, |_, dir| std::fs::write(dir.join("deploy.txt"), KEY).unwrap()).await;
        let ran = rig.sh("cat deploy.txt; echo OWN > .envrc; cat .envrc").await;
        assert_eq!(out(&ran), "OWN\n");
        std::fs::write(rig.path(".env"), "SECRET=CANARY").unwrap();
        std::fs::write(rig.path("late"), KEY).unwrap();
        let ran = rig.sh("cat .env late; cat .envrc").await;
        assert_eq!(out(&ran), "OWN\n");
        assert_eq!(rig.room.report().masked, ["deploy.txt", ".env", "late"]);
        assert!(rig.room.read_file("late", 0, 10).await.is_err());
    });
}

#[test]
fn a_private_view_is_shown_to_a_container_and_keeps_its_steps() {
    on_engines(async |engine| {
        let rig = Rig::with(&engine, |spec, dir| {
            spec.mode = WorkspaceMode::Transaction;
            std::fs::write(dir.join("kept"), "as it was").unwrap();
            std::fs::write(dir.join(".env"), "SECRET=CANARY").unwrap();
        })
        .await;
        assert_eq!(rig.room.report().view, "copy (an overlay cannot be mounted in a container)");
        let ran = rig.sh("cat kept .env; echo changed > kept; echo new > new; ls -a").await;
        assert!(!out(&ran).contains("CANARY"), "{}", out(&ran));
        let first = rig.room.snapshot().await.unwrap();
        assert_eq!(rig.sh("echo again > kept").await.exit_code, 0);
        assert_ne!(first, rig.room.snapshot().await.unwrap());
        assert_eq!(std::fs::read_to_string(rig.path("kept")).unwrap(), "as it was");
        assert!(!rig.path("new").exists());
        // The same run, restored to a step: another sandbox of it resumes from there.
        let rig = rig.again(&engine, Some(first)).await;
        assert_eq!(out(&rig.sh("cat kept new").await), "changed\nnew\n");
        assert_eq!(rig.sh("echo more >> new").await.exit_code, 0);
    });
}

#[test]
fn a_box_reaches_no_network_unless_it_was_asked_for() {
    on_engines(async |engine| {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let number = port.local_addr().unwrap().port();
        let dial =
            format!("import socket; socket.create_connection(('127.0.0.1', {number}), 2); print('reached')");
        let rig = Rig::new(&engine).await;
        assert_eq!(out(&rig.sh("tail -n +3 /proc/net/dev | wc -l").await), "1\n");
        assert_ne!(rig.exec(command(&["python3", "-c", &dial])).await.unwrap().exit_code, 0);
        let own = "import socket; s = socket.create_server(('127.0.0.1', 0)); \
                   socket.create_connection(s.getsockname()); print('loopback')";
        assert_eq!(out(&rig.exec(command(&["python3", "-c", own])).await.unwrap()), "loopback\n");
        let rig = Rig::with(&engine, |spec, _| spec.network = NetworkPolicy::Host).await;
        assert_eq!(out(&rig.exec(command(&["python3", "-c", &dial])).await.unwrap()), "reached\n");
    });
}

#[test]
fn the_end_of_a_box_or_of_its_owner_is_the_end_of_its_container() {
    on_engines(async |engine| {
        let rig = Rig::new(&engine).await;
        let id = rig.room.report().id;
        assert!(engine.containers().contains(&id));
        drop(rig);
        engine.until_gone(&id);
        // The owner is killed while a command runs.
        let mut owner = crate::engine::owner(&engine);
        let id = owner.id.clone();
        assert!(engine.containers().contains(&id));
        owner.kill();
        engine.until_gone(&id);
        let mounts = std::fs::read_to_string("/proc/mounts").unwrap();
        for place in [engine.place.path(), owner.place.path()] {
            assert!(!mounts.contains(place.to_str().unwrap()), "{mounts}");
        }
    });
}

#[test]
fn leftovers_of_dead_owners_are_removed_by_their_label_and_others_kept() {
    on_engines(async |engine| {
        let living = Rig::new(&engine).await;
        let dead = engine.leftover();
        let removed = engine.backends().engine_backend(engine.kind).remove_stale_containers().await.unwrap();
        assert!(removed.iter().any(|run| run == "left-behind"), "{removed:?}");
        let here = engine.containers();
        assert!(!here.contains(&dead) && here.contains(&living.room.report().id), "{here:?}");
        assert_eq!(out(&living.sh("echo alive").await), "alive\n");
    });
}

#[test]
fn a_user_of_the_engines_group_gets_the_own_id_and_others_are_told_what_to_do() {
    member(
        "docker::a_user_of_the_engines_group_gets_the_own_id_and_others_are_told_what_to_do",
        async |engine| {
            let rig = Rig::new(&engine).await;
            let own = rustix::process::geteuid().as_raw();
            assert_eq!(out(&rig.sh("id -u; echo x > f").await), format!("{own}\n"));
            assert_eq!(std::fs::read_to_string(rig.path("f")).unwrap(), "x\n");
            let id = rig.room.report().id;
            drop(rig);
            engine.until_gone(&id);
        },
    );
}

#[test]
fn what_is_missing_is_named_with_a_way_out() {
    on_engines(async |engine| {
        let dir = folder();
        let open = async |image: &str| {
            let spec = SandboxSpec { image: Some(image.to_owned()), ..spec(dir.path(), engine.kind.name()) };
            said(engine.backends().open(&spec, RunId::generate(), None).await)
        };
        let text = open("no-such-image:1").await;
        assert!(text.contains("no-such-image:1") && text.contains("pull"), "{text}");
        let text = open("forge-sandbox:nothing").await;
        assert!(text.contains("has no image `forge-sandbox:nothing`"), "{text}");
    });
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let dir = folder();
        let text = crate::engine::refusal(dir.path(), "unix:///nowhere/docker.sock").await;
        assert!(
            text.contains("/nowhere/docker.sock") && text.contains("not running") && text.contains("start"),
            "{text}"
        );
        let text = crate::engine::refusal(dir.path(), "tcp://192.0.2.1:2375").await;
        assert!(text.contains("not on this machine"), "{text}");
    });
}

#[test]
fn an_engine_that_cannot_do_it_says_so() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let dir = folder();
        let against = async |made: Made| {
            let host = made.serve(dir.path());
            crate::engine::refusal(dir.path(), &host).await
        };
        let text = against(Made { api: "1.40", ..Made::default() }).await;
        assert!(text.contains("too old") && text.contains("20.10"), "{text}");
        let text = against(Made { architecture: "s390x", ..Made::default() }).await;
        assert!(text.contains("s390x") && text.contains("amd64"), "{text}");
        let text =
            against(Made { create: "write /var/lib/x: no space left on device", ..Made::default() }).await;
        assert!(text.contains("no space left"), "{text}");
        let text = against(Made { create: "Conflict of something", ..Made::default() }).await;
        assert!(text.contains("creating a container") && text.contains("Conflict"), "{text}");
    });
}

#[test]
fn what_an_engine_can_do_is_found_out() {
    on_engines(async |engine| {
        let layers = engine.backends().engine_backend(engine.kind).probe_layers().await;
        assert_eq!(layers[0].state, SandboxLayerState::Enforced, "{layers:?}");
    });
    let place = folder();
    let absent = crate::engine::backends(EngineKind::Podman, "/nowhere.sock", place.path());
    let layers = tokio::runtime::Runtime::new()
        .unwrap()
        .block_on(absent.engine_backend(EngineKind::Podman).probe_layers());
    assert!(
        matches!(&layers[0].state, SandboxLayerState::Absent(why) if why.contains("podman")),
        "{layers:?}"
    );
}

#[test]
fn an_image_of_an_engine_becomes_the_root_folder_of_a_native_box() {
    // Hundreds of megabytes for each engine.
    let most = if std::env::var_os("FORGE_SOAK").is_some() { 2 } else { 1 };
    on(engines().into_iter().take(most), async |engine| {
        let (data, dir) = (folder(), folder());
        let images = data.path().join("images");
        let lines = std::sync::Mutex::new(Vec::new());
        let say = |line: &str| lines.lock().unwrap().push(line.to_owned());
        let host = Some(engine.host());
        // Podman knows a locally built image by this name.
        let name = if engine.kind == EngineKind::Podman { "localhost/forge-test:latest" } else { IMAGE };
        let made =
            make_image(&images, host, ImageKind::Python, Some(name), Some("mine"), &say).await.unwrap();
        assert!(made[0].contains("images/mine") && made.len() == 1, "{made:?}");
        assert!(lines.lock().unwrap().iter().any(|l| l.contains("exporting") && l.contains(name)));
        assert!(find_image(&images, "mine").unwrap().join("usr/bin/python3").exists());
        assert!(find_image(&images, "latest").is_ok());
        let spec = SandboxSpec { image: Some("mine".to_owned()), ..spec(dir.path(), "native") };
        let room = crate::rig::backends(data.path()).open(&spec, RunId::generate(), None).await.unwrap();
        let ran = room.exec(command(&["python3", "-c", "print('from the image')"]), &()).await.unwrap();
        assert_eq!(out(&ran), "from the image\n", "{}", err(&ran));
        let text = make_image(&images, host, ImageKind::Node, Some("no-such-image:1"), None, &say)
            .await
            .unwrap_err();
        assert!(text.to_string().contains("no-such-image:1"), "{text}");
        assert_eq!(std::fs::read_dir(&images).unwrap().count(), 2);
    });
}

/// Takes minutes, and needs the network: `cargo test -p forge-sandbox --test sandbox made_of_packages -- --ignored`.
#[test]
#[ignore = "fetches hundreds of packages"]
fn an_image_is_made_of_packages_for_native_boxes_and_for_engines() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let (data, dir) = (folder(), folder());
        let images = data.path().join("images");
        let say = |line: &str| println!("{line}");
        let made = make_image(&images, None, ImageKind::Python, None, None, &say).await.unwrap();
        println!("{made:#?}");
        let tools = "git --version && rg --version && jq --version && cc --version && python3 -m venv /tmp/v && \
                     ruff --version && pytest --version && mypy --version";
        let spec = SandboxSpec { image: Some("python".to_owned()), ..spec(dir.path(), "native") };
        let room = crate::rig::backends(data.path()).open(&spec, RunId::generate(), None).await.unwrap();
        let ran = room.exec(command(&["sh", "-c", tools]), &()).await.unwrap();
        assert_eq!(ran.exit_code, 0, "{} {}", out(&ran), err(&ran));
        for engine in engines().into_iter().filter(|e| e.kind == EngineKind::Docker) {
            assert!(made.iter().any(|line| line.contains("forge-sandbox:python")), "{made:?}");
            let rig = Rig::with(&engine, |spec, _| spec.image = None).await;
            assert_eq!(rig.sh(tools).await.exit_code, 0);
        }
    });
}

/// Acts as an owner that is killed: opens a sandbox, prints its id, and runs a command that does not end.
#[test]
#[ignore = "started by another test"]
fn an_owner() {
    let Some(engine) = crate::engine::told() else { return };
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let rig = Rig::new(&engine).await;
        println!("box {}", rig.room.report().id);
        let _ = rig.exec(command(&["sh", "-c", "setsid sleep 1000 & exec sleep 1000"])).await;
    });
}
