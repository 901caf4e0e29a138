//! File operations on the workspace: through the sandbox and, by the same rules, without one.

use crate::as_both;
use crate::rig::{Rig, backends, command, out, spec};
use forge_ports::Sandbox as _;
use forge_ports::sandbox::{EntryKind, Error, PathErrorKind, SearchSpec};
use forge_types::{RunId, SandboxLayerState};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;

fn kind<T>(result: Result<T, Error>) -> Option<PathErrorKind> {
    match result {
        Err(Error::Path { kind, .. }) => Some(kind),
        _ => None,
    }
}

async fn text(rig: &Rig, path: &str) -> String {
    String::from_utf8(rig.room.read_file(path, 0, 1 << 20).await.unwrap().bytes).unwrap()
}

fn search(pattern: &str) -> SearchSpec {
    SearchSpec {
        pattern: pattern.to_owned(),
        path: String::new(),
        glob: None,
        max_matches: 100,
        max_files: 100,
    }
}

async fn files_are_read_and_written(backend: &str) {
    let rig = Rig::new(backend).await;
    let owner = fs::metadata(rig.dir.path()).unwrap();
    rig.room.write_file("src/deep/new.txt", b"first").await.unwrap();
    rig.room.write_file("/workspace/src/deep/new.txt", b"second line\n").await.unwrap();
    assert_eq!(text(&rig, "./src/deep/../deep/new.txt").await, "second line\n");
    let part = rig.room.read_file("src/deep/new.txt", 7, 4).await.unwrap();
    assert_eq!((part.bytes.as_slice(), part.size, part.mode), (&b"line"[..], 12, 0o644));
    assert_eq!(rig.room.read_file("src/deep/new.txt", 100, 4).await.unwrap().bytes, b"");
    for made in ["src", "src/deep", "src/deep/new.txt"] {
        let made = fs::metadata(rig.path(made)).unwrap();
        assert_eq!((made.uid(), made.gid()), (owner.uid(), owner.gid()));
    }
    rig.sh("printf x > tool; chmod 755 tool; ln -s tool link; ln -s none dangling; ln -s /etc/hostname out; ln -s .. up").await;
    rig.room.write_file("link", b"y").await.unwrap();
    assert_eq!(fs::read_to_string(rig.path("tool")).unwrap(), "y");
    assert_eq!(fs::metadata(rig.path("tool")).unwrap().mode() & 0o777, 0o755);
    assert!(fs::symlink_metadata(rig.path("link")).unwrap().is_symlink());
    assert_eq!(kind(rig.room.write_file("dangling", b"z").await), Some(PathErrorKind::Escapes));
    assert_eq!(kind(rig.room.write_file("out", b"z").await), Some(PathErrorKind::Escapes));
    assert_eq!(kind(rig.room.write_file("up/escaped", b"z").await), Some(PathErrorKind::Escapes));
    assert_eq!(kind(rig.room.write_file("src", b"z").await), Some(PathErrorKind::IsDirectory));
    assert_eq!(kind(rig.room.write_file("tool/x", b"z").await), Some(PathErrorKind::NotDirectory));
    assert!(rig.room.write_file("", b"z").await.is_err());
    let left: Vec<_> = fs::read_dir(rig.dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(!left.iter().any(|n| n.to_string_lossy().contains("forge")), "{left:?}");
}

async fn paths_never_leave(backend: &str) {
    let rig = Rig::new(backend).await;
    rig.sh("ln -s /etc/passwd file; ln -s / root; ln -s ../../../.. many; mkdir d; ln -s d inside; echo ok > d/f").await;
    for path in [
        "../x",
        "/etc/passwd",
        "file",
        "root/etc/passwd",
        "many/etc/passwd",
        "d/../../x",
        "/workspace/../etc/passwd",
    ] {
        assert_eq!(kind(rig.room.read_file(path, 0, 10).await), Some(PathErrorKind::Escapes), "{path}");
        assert_eq!(kind(rig.room.write_file(path, b"x").await), Some(PathErrorKind::Escapes), "{path}");
    }
    assert_eq!(text(&rig, "inside/f").await, "ok\n");
    assert!(rig.room.read_file("a\0b", 0, 10).await.is_err());
    for path in ["..", "/etc", "root", "many"] {
        assert!(rig.room.list_directory(path, 1, 10).await.is_err(), "{path}");
        assert!(
            rig.room.search_contents(SearchSpec { path: path.to_owned(), ..search("root") }).await.is_err(),
            "{path}"
        );
        let mut there = command(&["pwd"]);
        there.cwd = path.to_owned();
        assert!(rig.exec(there).await.is_err(), "{path}");
    }
    let mut below = command(&["cat", "f"]);
    below.cwd = "/workspace/d".to_owned();
    assert_eq!(out(&rig.exec(below).await.unwrap()), "ok\n");
}

async fn special_files_are_named_and_never_waited_for(backend: &str) {
    let rig = Rig::new(backend).await;
    rig.sh("mkfifo fifo; mkdir dir; ln -s loop loop; ln -s /dev/zero zero; truncate -s 100G sparse;
        python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"sock\")'")
        .await;
    let soon = Duration::from_secs(30);
    for (path, wanted) in [
        ("fifo", PathErrorKind::Special),
        ("sock", PathErrorKind::Special),
        ("dir", PathErrorKind::IsDirectory),
        ("zero", PathErrorKind::Escapes),
        ("loop", PathErrorKind::Escapes),
        ("absent", PathErrorKind::NotFound),
    ] {
        let read = tokio::time::timeout(soon, rig.room.read_file(path, 0, 10)).await.expect("does not wait");
        assert_eq!(kind(read), Some(wanted), "{path}");
    }
    assert_eq!(kind(rig.room.write_file("fifo", b"x").await), Some(PathErrorKind::Special));
    let sparse = rig.room.read_file("sparse", 99 << 30, 16).await.unwrap();
    assert_eq!((sparse.size, sparse.bytes.len()), (100 << 30, 16));
    let found = tokio::time::timeout(soon, rig.room.search_contents(search("needle"))).await;
    assert!(found.expect("does not wait").unwrap().items.is_empty());
    let listed = rig.room.list_directory("", 1, 100).await.unwrap();
    assert_eq!(listed.items.iter().filter(|e| e.kind == EntryKind::Special).count(), 2);
}

async fn walks_see_the_tree(backend: &str) {
    let rig = Rig::new(backend).await;
    for (path, body) in [
        ("a.py", "x = 'needle'\n"),
        ("b/c.rs", "// nothing\n// needle\n"),
        ("ignored/d.py", "needle"),
        (".gitignore", "ignored/\n"),
        (".hidden/e.txt", "needle"),
    ] {
        rig.room.write_file(path, body.as_bytes()).await.unwrap();
    }
    fs::create_dir(rig.path(".git")).unwrap();
    fs::write(rig.path(".git/config"), "needle").unwrap();
    fs::write(rig.path("binary"), b"\0\0needle").unwrap();
    fs::write(rig.path(std::str::from_utf8(b"new\nline.txt").unwrap()), "needle").unwrap();
    let found = rig.room.search_contents(search("need.e")).await.unwrap();
    let at: Vec<_> = found.items.iter().map(|m| (m.path.as_str(), m.line)).collect();
    assert_eq!(at, [(".hidden/e.txt", 1), ("a.py", 1), ("b/c.rs", 2), ("new\nline.txt", 1)]);
    let only = rig
        .room
        .search_contents(SearchSpec { glob: Some("*.rs".to_owned()), max_matches: 1, ..search("//") })
        .await
        .unwrap();
    assert!(only.more && only.items.len() == 1 && only.items[0].path == "b/c.rs");
    assert!(matches!(rig.room.search_contents(search("(")).await, Err(Error::Invalid { .. })));
    let python = rig.room.find_files("**/*.py", 10).await.unwrap();
    assert_eq!(python.items.iter().map(|e| e.path.as_str()).collect::<Vec<_>>(), ["a.py"]);
    let top = rig.room.list_directory(".", 1, 4).await.unwrap();
    assert!(top.more && top.items.len() == 4);
    let deep = rig.room.list_directory("/workspace/b", 3, 10).await.unwrap();
    assert_eq!(deep.items.iter().map(|e| e.path.as_str()).collect::<Vec<_>>(), ["b/c.rs"]);
}

async fn masked_files_are_hidden_from_file_tools(backend: &str) {
    let rig = Rig::with(backend, |spec, dir| {
        fs::write(dir.join(".env"), "TOKEN=needle\n").unwrap();
        fs::write(dir.join(".env.example"), "TOKEN=needle\n").unwrap();
        std::os::unix::fs::symlink(".env", dir.join("alias")).unwrap();
        spec.reveal = vec![".env.example".to_owned()];
    })
    .await;
    for path in [".env", "alias"] {
        assert_eq!(kind(rig.room.read_file(path, 0, 10).await), Some(PathErrorKind::Denied), "{path}");
        assert_eq!(kind(rig.room.write_file(path, b"x").await), Some(PathErrorKind::Denied), "{path}");
    }
    assert_eq!(text(&rig, ".env.example").await, "TOKEN=needle\n");
    let found = rig.room.search_contents(search("needle")).await.unwrap();
    assert_eq!(found.items.iter().map(|m| m.path.as_str()).collect::<Vec<_>>(), [".env.example"]);
    assert_eq!(rig.room.report().masked, [".env"]);
    assert_eq!(fs::read_to_string(rig.path(".env")).unwrap(), "TOKEN=needle\n");
}

as_both! {
    async fn a_result_is_not_applied_to_a_repository_that_has_come_to_contain_the_data_directory() {
        use crate::run::{Run, repository, transaction};
        use forge_ports::WorkspaceStore as _;
        use forge_ports::workspace_store::MergePolicy;
        let (repo, place) = (repository(), crate::rig::folder());
        let data = place.path().join("data");
        fs::create_dir(&data).unwrap();
        let mut run = Run::new(&data, transaction(repo.path())).await;
        run.sh("echo new > new.txt").await;
        let state = run.snapshot().await;
        run.close();
        // The data moves into the repository, with a link where it was.
        let moved = repo.path().join("data");
        fs::rename(&data, &moved).unwrap();
        std::os::unix::fs::symlink(&moved, &data).unwrap();
        let views = run.backends.workspaces();
        let applied = views.apply(&run.spec, run.id, None, Some(state), MergePolicy::No).await;
        assert!(applied.unwrap_err().to_string().contains("belongs to forge"));
        let opened = run.backends.open(&run.spec, run.id, Some(state)).await.map(drop);
        assert!(opened.unwrap_err().to_string().contains("belongs to forge"));
        assert!(!repo.path().join("new.txt").exists());
    }

    async fn native_files() { files_are_read_and_written("native").await; }
    async fn native_paths() { paths_never_leave("native").await; }
    async fn native_special() { special_files_are_named_and_never_waited_for("native").await; }
    async fn native_walks() { walks_see_the_tree("native").await; }
    async fn native_masks() { masked_files_are_hidden_from_file_tools("native").await; }

    async fn a_folder_swapped_for_a_link_leads_nowhere() {
        let rig = Rig::new("native").await;
        let outside = crate::rig::folder();
        let target = outside.path().display().to_string();
        let swap = format!("
import os, time
os.mkdir('real'); os.symlink('{target}', 'link')
end = time.time() + 2
while time.time() < end:
    os.rename('real', 'd'); os.rename('d', 'real')
    os.rename('link', 'd'); os.rename('d', 'link')");
        let swapping = rig.exec(command(&["python3", "-c", &swap]));
        let writing = async {
            let begun = std::time::Instant::now();
            while begun.elapsed() < Duration::from_millis(1900) {
                let _ = rig.room.write_file("d/file", b"x").await;
                let _ = rig.room.read_file("d/file", 0, 1).await;
            }
        };
        let (swapped, ()) = tokio::join!(swapping, writing);
        assert!(swapped.is_ok());
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    }

    async fn a_box_that_died_says_so_and_another_can_be_opened() {
        let rig = Rig::new("native").await;
        let id = rig.room.report().id;
        let init = id.rsplit_once('/').unwrap().1.parse().unwrap();
        rustix::process::kill_process(rustix::process::Pid::from_raw(init).unwrap(), rustix::process::Signal::KILL).unwrap();
        loop {
            match rig.exec(command(&["true"])).await {
                Err(Error::Died { .. }) => break,
                Ok(_) => {}
                Err(other) => panic!("{other}"),
            }
        }
        assert!(matches!(rig.room.read_file("x", 0, 1).await, Err(Error::Died { .. })));
        assert!(matches!(rig.room.list_directory("", 1, 1).await, Err(Error::Died { .. })));
        let again = rig.backends.open(&rig.spec, rig.run, None).await.unwrap();
        assert_eq!(again.exec(command(&["true"]), &()).await.unwrap().exit_code, 0);
    }

    async fn the_report_says_what_holds() {
        let rig = Rig::new("native").await;
        let report = rig.room.report();
        assert_eq!(report.backend, "native");
        for name in ["user namespace", "mount namespace", "pid namespace", "network namespace", "seccomp", "capabilities"] {
            let layer = report.layers.iter().find(|l| l.name == name).unwrap();
            assert_eq!(layer.state, SandboxLayerState::Enforced, "{name}");
        }
        assert!(report.layers.iter().any(|l| l.name == "memory limit"));
        assert!(!rig.backends.probe_layers().await.is_empty());
    }

    async fn toolchains_are_seen_at_their_own_place_and_read_only() {
        let tools = crate::rig::folder();
        let bin = tools.path().join("bin");
        fs::create_dir(&bin).unwrap();
        fs::write(bin.join("tool"), "#!/bin/sh\necho tool ran").unwrap();
        fs::write(tools.path().join("credentials.toml"), "SECRET").unwrap();
        use std::os::unix::fs::PermissionsExt as _;
        fs::set_permissions(bin.join("tool"), fs::Permissions::from_mode(0o755)).unwrap();
        let place = tools.path().display().to_string();
        let path = format!("{place}/bin:/usr/bin:/bin");
        let folder = tools.path().to_owned();
        let rig = Rig::with("native", |spec, _| {
            spec.read_only = vec![folder, "/no/such/toolchain".into()];
            spec.env = vec![("PATH".to_owned(), path)];
        }).await;
        let ran = rig.sh(&format!("tool; touch {place}/bin/x || echo read-only; cat {place}/credentials.toml")).await;
        assert_eq!(out(&ran), "tool ran\nread-only\n");
    }
}

#[tokio::test]
async fn process_files() {
    files_are_read_and_written("process").await;
}

#[tokio::test]
async fn process_paths() {
    paths_never_leave("process").await;
}

#[tokio::test]
async fn process_special() {
    special_files_are_named_and_never_waited_for("process").await;
}

#[tokio::test]
async fn process_walks() {
    walks_see_the_tree("process").await;
}

#[tokio::test]
async fn process_masks() {
    masked_files_are_hidden_from_file_tools("process").await;
}

#[tokio::test]
async fn process_ends_daemons_and_commands_that_take_too_long() {
    let rig = Rig::new("process").await;
    let ran = rig.sh("echo $$ > shell; (setsid sh -c 'echo $$ > daemon; exec sleep 1000' &); until [ -s daemon ]; do :; done; echo done").await;
    assert_eq!(out(&ran), "done\n");
    let pid: i32 = fs::read_to_string(rig.path("daemon")).unwrap().trim().parse().unwrap();
    let alive = || fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|s| !s.contains(") Z "));
    while alive() {}
    let mut spin = command(&["sh", "-c", "trap '' TERM; while :; do :; done"]);
    spin.timeout = Duration::from_millis(200);
    let ran = rig.exec(spin).await.unwrap();
    assert_eq!((ran.exit_code, ran.timed_out), (124, true));
}

#[tokio::test]
async fn less_isolation_is_never_chosen_silently() {
    let dir = crate::rig::folder();
    let mut refused = spec(dir.path(), "process");
    refused.allow_unisolated = false;
    let data = crate::rig::folder();
    let backends = backends(data.path());
    let missing = |result: Result<_, Error>| match result {
        Err(Error::Missing { missing }) => missing[0].what.clone(),
        _ => panic!("opened"),
    };
    assert!(missing(backends.open(&refused, RunId::generate(), None).await).contains("allow_unisolated"));
    assert!(
        missing(backends.open(&spec(dir.path(), "kubernetes"), RunId::generate(), None).await)
            .contains("kubernetes")
    );
    let absent = spec(&dir.path().join("absent"), "native");
    assert!(matches!(backends.open(&absent, RunId::generate(), None).await, Err(Error::Startup { .. })));
}
