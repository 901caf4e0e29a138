//! Credentials are masked whatever their name and place, including those created while a sandbox is open.

use crate::as_both;
use crate::rig::{Rig, folder, out, spec};
use crate::run::{Run, repository, transaction};
use crate::tree;
use forge_ports::WorkspaceStore as _;
use forge_ports::sandbox::{Error, PathErrorKind};
use forge_sandbox::BackendOptions;
use std::fs;
use std::path::Path;

const KEY: &str =
    "-----BEGIN OPENSSH PRIVATE KEY-----\nHUNTER2HUNTER2HUNTER2HUNTER2\n-----END OPENSSH PRIVATE KEY-----\n";

/// Fills a repository with keys in odd places among so many other files that they are read in the background.
fn with_keys(repo: &Path) -> [&'static str; 5] {
    for number in 0..60 {
        let path = repo.join(format!("docs/{number}.txt"));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "Text that is long enough to be looked into.\n").unwrap();
    }
    let keys = [
        ("deploy_key", KEY.to_owned()),
        ("docs/notes.txt", KEY.to_owned()),
        ("docs/server.crt", format!("-----BEGIN CERTIFICATE-----\nAAAA\n{KEY}")),
        ("node_modules/x/.env", "T=HUNTER2".to_owned()),
        ("target/debug/key", KEY.to_owned()),
    ];
    for (path, text) in &keys {
        fs::create_dir_all(repo.join(path).parent().unwrap()).unwrap();
        fs::write(repo.join(path), text).unwrap();
    }
    keys.map(|(path, _)| path)
}

/// Lists the files below a directory that contain the secret.
fn holding(place: &Path) -> String {
    let found = std::process::Command::new("grep").args(["-r", "-l", "HUNTER2"]).arg(place).output().unwrap();
    String::from_utf8_lossy(&found.stdout).into_owned()
}

async fn denied(run: &Run, path: &str) {
    let read = run.room().read_file(path, 0, 1000).await;
    assert!(matches!(read, Err(Error::Path { kind: PathErrorKind::Denied, .. })), "{path}: {read:?}");
}

as_both! {
    async fn a_key_is_covered_whatever_it_is_called() {
        for copies in [false, true] {
            let (repo, data) = (repository(), folder());
            let keys = with_keys(repo.path());
            fs::hard_link(repo.path().join("deploy_key"), repo.path().join("src/plain.rs")).unwrap();
            let options = BackendOptions { copies, ..crate::rig::options(data.path()) };
            let mut run = Run::with(options, transaction(repo.path())).await;
            let read = run.sh("cat $(find . -type f -not -path './.git/*') 2>/dev/null | grep -c HUNTER2 || true; \
                cp -r target copied 2>/dev/null || true; echo x > docs/1.txt").await;
            assert_eq!(read, "0\n");
            for path in keys.iter().chain(&["src/plain.rs"]) {
                if !copies {
                    denied(&run, path).await;
                }
                assert!(run.room().report().masked.contains(&(*path).to_owned()), "{path}");
            }
            let state = run.snapshot().await;
            // Another sandbox of the run masks them at once.
            run.reopen(None).await;
            assert_eq!(run.sh("cat deploy_key docs/notes.txt src/plain.rs 2>/dev/null | wc -c").await, "0\n");
            assert_eq!(run.apply(None, Some(state)).await.unwrap().iter().filter(|p| *p == "docs/1.txt").count(), 1);
            assert_eq!(fs::read_to_string(repo.path().join("deploy_key")).unwrap(), KEY);
            assert_eq!(holding(data.path()), "");
        }
    }

    async fn inplace_keys_are_covered_and_not_kept() {
        let (repo, data) = (repository(), folder());
        with_keys(repo.path());
        let mut run = Run::new(data.path(), spec(repo.path(), "native")).await;
        assert_eq!(run.sh("cat deploy_key docs/notes.txt target/debug/key 2>/dev/null | wc -c; echo y > a.txt").await, "0\n");
        run.snapshot().await;
        run.close();
        assert_eq!(holding(data.path()), "");
    }

    async fn names_like_those_of_forges_own_files_hide_nothing() {
        for mode in ["transaction", "copies", "inplace"] {
            let (repo, data) = (repository(), folder());
            fs::create_dir_all(repo.path().join("src/.forge-tmp-x")).unwrap();
            fs::write(repo.path().join("src/.forge-tmp-x/.env"), "T=HUNTER2").unwrap();
            fs::write(repo.path().join(".forge-tmp-key"), KEY).unwrap();
            let before = tree::of(repo.path());
            let inplace = mode == "inplace";
            let spec = if inplace { spec(repo.path(), "native") } else { transaction(repo.path()) };
            let options = BackendOptions { copies: mode == "copies", ..crate::rig::options(data.path()) };
            let mut run = Run::with(options, spec).await;
            let made = [
                ".forge-tmp-1/sub/x",
                ".forge-tmp-apply-old-ca978112ca1bbdcafac231b3",
                ".forge-tmp-start-1",
                ".forge-tmp-start-2",
                "src/.forge-tmp-restore-1",
                "src/deep/.forge-tmp-conftest.py",
            ];
            let script = format!(
                "cat .forge-tmp-key src/.forge-tmp-x/.env 2>/dev/null | grep -c HUNTER2 || true; \
                 mkdir -p .forge-tmp-1/sub; for path in {}; do echo made > $path; done",
                made.join(" ")
            );
            assert_eq!(run.sh(&script).await, "0\n", "{mode}");
            let state = run.snapshot().await;
            let changes = run.changes(None, Some(state)).await;
            for path in made {
                assert!(changes.iter().any(|(changed, _)| changed == path), "{mode}: {path}: {changes:?}");
            }
            run.reopen(Some(state)).await;
            assert_eq!(run.sh(&format!("cat {}", made.join(" "))).await, "made\n".repeat(made.len()), "{mode}");
            if !inplace {
                run.apply(None, Some(state)).await.unwrap();
            }
            assert_eq!(fs::read_to_string(repo.path().join(made[5])).unwrap(), "made\n", "{mode}");
            run.apply(Some(state), None).await.unwrap();
            assert_eq!(tree::contents(&tree::of(repo.path())), tree::contents(&before), "{mode}");
        }
    }

    async fn what_a_person_puts_there_meanwhile_is_covered_and_what_the_run_makes_is_not() {
        for mode in ["transaction", "inplace"] {
            let (repo, data) = (repository(), folder());
            fs::write(repo.path().join(".netrc"), "HUNTER2").unwrap();
            let inplace = mode == "inplace";
            let spec = if inplace { spec(repo.path(), "native") } else { transaction(repo.path()) };
            let mut run = Run::new(data.path(), spec).await;
            assert_eq!(run.sh("ls; echo OWN=1 > src/.env; cat src/.env").await.lines().last(), Some("OWN=1"), "{mode}");
            fs::write(repo.path().join(".env"), "T=HUNTER2").unwrap();
            assert_eq!(run.sh("cat .env 2>/dev/null | wc -c; cat src/.env").await, "0\nOWN=1\n", "{mode}");
            assert!(run.room().report().masked.contains(&".env".to_owned()), "{mode}");
            // A clone, and a key in an existing file: the next request is for a file.
            fs::create_dir_all(repo.path().join("clone/deep")).unwrap();
            fs::write(repo.path().join("clone/deep/any"), KEY).unwrap();
            fs::write(repo.path().join("a.txt"), KEY).unwrap();
            for path in ["clone/deep/any", "a.txt", ".env", ".netrc"] {
                denied(&run, path).await;
            }
            // Saved as editors do: another file replaces it.
            fs::write(repo.path().join(".netrc.new"), "HUNTER2 again").unwrap();
            fs::rename(repo.path().join(".netrc.new"), repo.path().join(".netrc")).unwrap();
            denied(&run, ".netrc").await;
            assert_eq!(run.sh("cat .netrc clone/deep/any 2>/dev/null | grep -c HUNTER2 || true; cat src/.env").await, "0\nOWN=1\n");
            run.room().write_file("own/.env", b"OWN=2").await.unwrap();
            assert_eq!(run.room().read_file("own/.env", 0, 10).await.unwrap().bytes, b"OWN=2", "{mode}");
            let state = run.snapshot().await;
            fs::write(repo.path().join("late.key"), "HUNTER2").unwrap();
            run.reopen(None).await;
            if !inplace {
                denied(&run, "late.key").await;
            }
            assert_eq!(run.sh("cat own/.env").await, "OWN=2", "{mode}");
            run.close();
            assert_eq!(holding(data.path()), "", "{mode}");
            if !inplace {
                let changed = run.apply(None, Some(state)).await.unwrap();
                assert_eq!(changed, ["own", "own/.env", "src/.env"]);
            }
        }
    }

    async fn a_folder_with_a_covered_file_is_moved_and_the_box_lost() {
        for inplace in [false, true] {
            let (repo, data) = (repository(), folder());
            fs::create_dir_all(repo.path().join("conf/keys")).unwrap();
            fs::write(repo.path().join("conf/keys/.env"), "T=HUNTER2").unwrap();
            fs::write(repo.path().join("conf/keys/any"), KEY).unwrap();
            let spec = if inplace { spec(repo.path(), "native") } else { transaction(repo.path()) };
            let mut run = Run::new(data.path(), spec).await;
            run.sh("mv conf moved 2>/dev/null || true; cat moved/keys/.env moved/keys/any 2>/dev/null | grep HUNTER2 && exit 1; true").await;
            let state = run.snapshot().await;
            run.reopen(None).await;
            assert_eq!(run.sh("cat */keys/.env */keys/any 2>/dev/null | grep -c HUNTER2 || true").await, "0\n", "inplace: {inplace}");
            let diff = run.backends.workspaces().diff(&run.spec, run.id, None, Some(state)).await.unwrap();
            assert!(!diff.contains("HUNTER2"), "{diff}");
        }
    }

    async fn what_git_has_of_a_covered_file_is_said() {
        let (repo, data) = (repository(), folder());
        fs::write(repo.path().join(".env"), "T=HUNTER2").unwrap();
        tree::git(repo.path(), &["add", "-f", ".env"]);
        tree::git(repo.path(), &["commit", "-q", "-m", "second"]);
        let run = Run::new(data.path(), transaction(repo.path())).await;
        let warnings = run.room().report().warnings;
        assert!(warnings.iter().any(|w| w.contains("git's history contains") && w.contains(".env")), "{warnings:?}");
    }
}

#[test]
fn a_workspace_without_isolation_hides_late_files_from_its_file_tools() {
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let rig = Rig::new("process").await;
        assert_eq!(out(&rig.sh("echo OWN=1 > .envrc; cat .envrc").await), "OWN=1\n");
        fs::write(rig.path("any"), KEY).unwrap();
        fs::write(rig.path(".env"), "T=HUNTER2").unwrap();
        for path in ["any", ".env"] {
            let read = rig.room.read_file(path, 0, 1000).await;
            assert!(matches!(read, Err(Error::Path { kind: PathErrorKind::Denied, .. })), "{path}: {read:?}");
        }
        assert!(rig.room.read_file(".envrc", 0, 10).await.is_ok());
    });
}
