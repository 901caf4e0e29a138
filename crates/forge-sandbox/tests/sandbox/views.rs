//! The workspace as a transaction: isolation, snapshots, apply, several runs and several repositories.

use crate::as_both;
use crate::rig::{folder, spec};
use crate::run::{Run, repository, transaction, without_git};
use crate::tree::{self, Tree};
use forge_ports::sandbox::{ApplyConflict, BackgroundPolicy, Error};
use forge_ports::workspace_store::MergePolicy;
use forge_ports::{Sandbox as _, SnapshotStorage as _, WorkspaceStore as _};
use forge_sandbox::BackendOptions;
use forge_types::{ChangeKind, SandboxSpec, WorkspaceMode};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

const MESS: &str = "
printf 'one\\nTWO\\nthree\\n' > a.txt
rm -rf src/deep
mkdir -p new/folder && echo hi > new/folder/file
chmod 755 src/lib.rs
ln -sfn a.txt link
echo more >> run.log
rm target/out.o
head -c 700000 /dev/urandom > large.bin
mkfifo pipe
git -c user.name=x -c user.email=x@x add -A
git -c user.name=x -c user.email=x@x commit -q -m second
mv src moved
";

async fn transaction_is_isolated(options: fn(&Path) -> BackendOptions) {
    let (repo, data) = (repository(), folder());
    let before = tree::of(repo.path());
    let mut run = Run::with(options(data.path()), transaction(repo.path())).await;
    let beginning = run.inside().await;
    let first = run.snapshot().await;
    assert_eq!(first, run.snapshot().await, "nothing changed");
    run.sh(MESS).await;
    let after = run.inside().await;
    assert_ne!(after, beginning);
    let second = run.snapshot().await;
    assert_ne!(first, second);
    assert_eq!(tree::of(repo.path()), before, "the repository is as it was while the run works");
    let changes = run.changes(None, Some(second)).await;
    let kind = |path: &str| changes.iter().find(|(p, _)| p == path).map(|(_, kind)| *kind);
    assert_eq!(kind("a.txt"), Some(ChangeKind::Modified), "{changes:?}");
    assert_eq!(kind("new/folder/file"), Some(ChangeKind::Added), "{changes:?}");
    assert_eq!(kind("src/lib.rs"), Some(ChangeKind::Removed), "{changes:?}");
    assert_eq!(kind("moved/lib.rs"), Some(ChangeKind::Added), "{changes:?}");
    assert_eq!(kind("target/out.o"), Some(ChangeKind::Removed), "{changes:?}");
    assert!(!changes.iter().any(|(path, _)| path.contains(".git/")), "{changes:?}");
    // Restoring a step removes what a dead attempt left.
    run.sh("echo partial > a.txt; rm -rf new; echo x > .forge-tmp-1").await;
    run.reopen(Some(second)).await;
    assert_eq!(run.inside().await, after);
    // Undo and redo.
    run.reopen(Some(first)).await;
    assert_eq!(run.inside().await, beginning);
    run.reopen(Some(second)).await;
    assert_eq!(run.inside().await, after);
    assert_eq!(run.snapshot().await, second, "equal workspaces give equal snapshots");
    run.close();
    assert_eq!(tree::of(repo.path()), before, "the repository is byte for byte as it was");
    // Applied, undone, applied again.
    run.apply(None, Some(second)).await.unwrap();
    let applied = tree::of(repo.path());
    assert_eq!(fs::read_to_string(repo.path().join("new/folder/file")).unwrap(), "hi\n");
    assert!(!repo.path().join("src/lib.rs").exists() && repo.path().join("moved/lib.rs").exists());
    let git = |tree: &Tree| {
        tree.iter()
            .filter(|(p, _)| p.starts_with(".git/"))
            .map(|(p, w)| (p.clone(), w.clone()))
            .collect::<Tree>()
    };
    assert_eq!(git(&applied), git(&before), "git's own data is never applied");
    run.apply(Some(second), None).await.unwrap();
    assert_eq!(tree::contents(&without_git(&tree::of(repo.path()))), tree::contents(&without_git(&before)));
    run.apply(None, Some(second)).await.unwrap();
    assert_eq!(tree::contents(&tree::of(repo.path())), tree::contents(&applied));
    assert!(run.backends.workspaces().remove_snapshots(run.id).await.unwrap() > 0);
    assert!(!data.path().join("runs").join(run.id.to_string()).join("view").exists());
}

as_both! {
    async fn a_transaction_is_isolated_undone_and_applied() {
        transaction_is_isolated(crate::rig::options).await;
    }

    async fn a_copy_does_the_same() {
        transaction_is_isolated(|data| BackendOptions { copies: true, ..crate::rig::options(data) }).await;
    }

    async fn several_runs_and_a_person_do_not_disturb_one_another() {
        let (repo, data) = (repository(), folder());
        let path = |name: &str| repo.path().join(name);
        let mut one = Run::new(data.path(), transaction(repo.path())).await;
        let mut two = Run::new(data.path(), transaction(repo.path())).await;
        one.sh("echo 1 > one.txt; sed -i s/one/ONE/ a.txt").await;
        two.sh("test ! -e one.txt; echo 2 > two.txt; sed -i s/three/THREE/ a.txt").await;
        // A user writes at the same time.
        fs::write(path("person.txt"), "p").unwrap();
        let (first, second) = (one.snapshot().await, two.snapshot().await);
        assert_eq!(one.apply(None, Some(first)).await.unwrap(), ["a.txt", "one.txt"]);
        // The second run finds the first one's change.
        let before = tree::of(repo.path());
        let Err(Error::Conflicts { conflicts, .. }) = two.apply(None, Some(second)).await else { panic!("no conflict") };
        assert!(matches!(conflicts.as_slice(), [ApplyConflict { path, merges: true, .. }] if path == "a.txt"), "{conflicts:?}");
        assert_eq!(tree::of(repo.path()), before, "nothing was changed");
        let merged = two.merge(None, Some(second), MergePolicy::Clean).await.unwrap();
        assert_eq!(merged.merged, ["a.txt"]);
        assert_eq!(fs::read_to_string(path("a.txt")).unwrap(), "ONE\ntwo\nTHREE\n");
        // Undoing a merge restores what the user had.
        two.apply(Some(second), None).await.unwrap();
        assert_eq!(fs::read_to_string(path("a.txt")).unwrap(), "ONE\ntwo\nthree\n");
        assert!(!path("two.txt").exists() && path("person.txt").exists());
        fs::write(path("a.txt"), "other\n").unwrap();
        let Err(Error::Conflicts { conflicts, .. }) = two.merge(None, Some(second), MergePolicy::Clean).await
            else { panic!("no conflict") };
        assert!(!conflicts[0].merges, "{conflicts:?}");
    }

    async fn several_repositories_are_one_workspace() {
        let (one, two, data) = (repository(), repository(), folder());
        let (a, b) = (one.path().join("x"), two.path().join("x"));
        for place in [&a, &b] {
            fs::create_dir(place).unwrap();
            fs::write(place.join("f"), "old\n").unwrap();
        }
        let spec = SandboxSpec { more_repos: vec![b.clone()], ..transaction(&a) };
        let mut run = Run::new(data.path(), spec).await;
        assert_eq!(run.sh("ls").await, "x\nx-2\n");
        let beginning = run.inside().await;
        run.sh("echo new > x/f; echo new > x-2/f; echo more > x-2/g").await;
        let (now, state) = (run.inside().await, run.snapshot().await);
        let changes = run.changes(None, Some(state)).await;
        let paths: Vec<_> = changes.iter().map(|(path, _)| path.as_str()).collect();
        assert_eq!(paths, ["x-2/f", "x-2/g", "x/f"]);
        let diff = run.backends.workspaces().diff(&run.spec, run.id, None, Some(state)).await.unwrap();
        assert!(diff.contains("--- a/x-2/f\n+++ b/x-2/f\n@@ -1 +1 @@\n-old\n+new\n"), "{diff}");
        run.close();
        run.backends.workspaces().restore(&run.spec, run.id, None).await.unwrap();
        run.reopen(None).await;
        assert_eq!(run.inside().await, beginning);
        run.reopen(Some(state)).await;
        assert_eq!(run.inside().await, now);
        run.close();
        // All repositories or none.
        fs::write(b.join("f"), "person\n").unwrap();
        let Err(Error::Conflicts { conflicts, .. }) = run.apply(None, Some(state)).await else { panic!("no conflict") };
        assert_eq!(conflicts.iter().map(|c| c.path.as_str()).collect::<Vec<_>>(), ["x-2/f"]);
        assert_eq!(fs::read_to_string(a.join("f")).unwrap(), "old\n");
        fs::write(b.join("f"), "old\n").unwrap();
        run.apply(None, Some(state)).await.unwrap();
        assert_eq!(fs::read_to_string(a.join("f")).unwrap() + &fs::read_to_string(b.join("g")).unwrap(), "new\nmore\n");
    }

    async fn a_background_process_stands_still_while_a_snapshot_is_taken() {
        let (repo, data) = (repository(), folder());
        let mut run = Run::new(data.path(), transaction(repo.path())).await;
        let writer = "
import os
fd, n = os.open('big', os.O_RDWR | os.O_CREAT), 0
while True:
    n = (n + 1) % 256
    os.pwrite(fd, bytes([n]) * (4 << 20), 0)";
        let mut start = crate::rig::command(&["sh", "-c", "python3 -c \"$1\" & until [ -s big ]; do :; done", "sh", writer]);
        start.background = BackgroundPolicy::Keep;
        run.room().exec(start, &()).await.unwrap();
        let state = run.snapshot().await;
        // The process continues.
        let sum = "python3 -c 'print(open(\"big\", \"rb\").read(1)[0])'";
        let before = run.sh(sum).await;
        while run.sh(sum).await == before {}
        run.reopen(Some(state)).await;
        assert_eq!(run.sh("python3 -c 'd = open(\"big\", \"rb\").read(); print(len(d), len(set(d)))'").await, "4194304 1\n");
        assert_eq!(run.sh("pgrep -c python3 || true").await, "0\n", "it ended with its box");
    }

    async fn inplace_changes_the_repository_and_can_be_undone() {
        let (repo, data) = (repository(), folder());
        let before = tree::of(repo.path());
        let mut run = Run::new(data.path(), spec(repo.path(), "native")).await;
        assert_eq!(run.room().report().view, "direct");
        let (state, beginning) = (run.snapshot().await, run.inside().await);
        run.sh("echo x > a.txt; rm -r src; mkdir fresh; echo y > fresh/y; chmod 700 empty; git rm -q --cached link").await;
        let (later, now) = (run.snapshot().await, run.inside().await);
        assert_eq!(fs::read_to_string(repo.path().join("fresh/y")).unwrap(), "y\n");
        // Another run that would change the repository at the same time is refused.
        let other = run.backends.open(&run.spec, forge_types::RunId::generate(), None).await;
        assert!(matches!(other, Err(Error::View { why }) if why.contains("directly")));
        run.close();
        run.backends.workspaces().restore(&run.spec, run.id, Some(state)).await.unwrap();
        assert_eq!(tree::contents(&tree::of(repo.path())), tree::contents(&before));
        run.reopen(Some(later)).await;
        assert_eq!(run.inside().await, now);
        run.reopen(Some(state)).await;
        assert_eq!(run.inside().await, beginning);
        run.close();
        run.backends.workspaces().restore(&run.spec, run.id, None).await.unwrap();
        assert_eq!(tree::contents(&tree::of(repo.path())), tree::contents(&before));
    }

    async fn rights_are_not_lent_by_what_is_applied() {
        let (repo, data) = (repository(), folder());
        let mut run = Run::new(data.path(), transaction(repo.path())).await;
        run.sh("echo x > tool; chmod 6755 tool a.txt; echo y > plain; stat -c %a tool").await;
        let state = run.snapshot().await;
        let applied = run.merge(None, Some(state), MergePolicy::No).await.unwrap();
        assert_eq!(applied.notes, ["setuid and setgid were left out of a.txt, tool"]);
        let mode = |name: &str| fs::metadata(repo.path().join(name)).unwrap().permissions().mode() & 0o7777;
        assert_eq!((mode("tool"), mode("a.txt")), (0o755, 0o755));
        run.reopen(Some(state)).await;
        assert_eq!(run.sh("stat -c %a tool").await, "6755\n", "the view keeps what was done in it");
    }

    async fn masked_files_are_no_part_of_a_transaction() {
        for copies in [false, true] {
            let (repo, data) = (repository(), folder());
            fs::create_dir(repo.path().join("conf")).unwrap();
            fs::write(repo.path().join("conf/.env"), "TOKEN=hunter2").unwrap();
            let options = BackendOptions { copies, ..crate::rig::options(data.path()) };
            let mut run = Run::with(options, transaction(repo.path())).await;
            assert_eq!(run.room().report().masked, ["conf/.env"]);
            run.sh("! cat conf/.env; echo x > a.txt; mv conf moved || true; echo OWN=1 > .env").await;
            let state = run.snapshot().await;
            let diff = run.backends.workspaces().diff(&run.spec, run.id, None, Some(state)).await.unwrap();
            assert!(!diff.contains("hunter2") && diff.contains("OWN=1"), "{diff}");
            run.apply(None, Some(state)).await.unwrap();
            assert_eq!(fs::read_to_string(repo.path().join("conf/.env")).unwrap(), "TOKEN=hunter2");
            assert_eq!(fs::read_to_string(repo.path().join(".env")).unwrap(), "OWN=1\n");
            let kept = std::process::Command::new("grep").args(["-r", "-l", "hunter2"]).arg(data.path()).output().unwrap();
            assert!(kept.stdout.is_empty(), "{}", String::from_utf8_lossy(&kept.stdout));
        }
    }

    async fn odd_repositories_work_or_are_refused_in_words() {
        let data = folder();
        // A missing path; a file; a repository that contains the data directory.
        let gone = folder().path().join("gone");
        let file = repository();
        for (path, wanted) in [(gone, "No such file"), (file.path().join("a.txt"), "ot a directory"), ("/tmp".into(), "belongs to forge")] {
            let backends = crate::rig::backends(data.path());
            let error = backends.open(&transaction(&path), forge_types::RunId::generate(), None).await.err().unwrap();
            assert!(error.to_string().contains(wanted), "{error}");
        }
        // Directories and files without read or search permission.
        let repo = repository();
        for (name, mode) in [("src", 0o500), ("src/deep", 0o000), ("run.log", 0o000)] {
            fs::set_permissions(repo.path().join(name), fs::Permissions::from_mode(mode)).unwrap();
        }
        let mut run = Run::new(data.path(), transaction(repo.path())).await;
        run.sh("echo y > y").await;
        let state = run.snapshot().await;
        assert_eq!(run.apply(None, Some(state)).await.unwrap(), ["y"]);
        fs::set_permissions(repo.path().join("src/deep"), fs::Permissions::from_mode(0o700)).unwrap();
        fs::set_permissions(repo.path().join("src"), fs::Permissions::from_mode(0o700)).unwrap();
        // A repository that was replaced by another directory.
        let repo = repository();
        let mut run = Run::new(data.path(), transaction(repo.path())).await;
        let state = run.snapshot().await;
        run.close();
        fs::rename(repo.path(), repo.path().with_extension("old")).unwrap();
        let open = async |run: &Run| run.backends.open(&run.spec, run.id, Some(state)).await.err().unwrap().to_string();
        assert!(open(&run).await.contains("No such file"));
        fs::create_dir(repo.path()).unwrap();
        assert!(open(&run).await.contains("no longer the directory"), "{}", open(&run).await);
        fs::remove_dir_all(repo.path().with_extension("old")).unwrap();
    }

    async fn git_data_that_lies_elsewhere_is_read_only_and_never_stops_a_box() {
        let (repo, data) = (repository(), folder());
        let place = folder();
        let worktree = place.path().join("tree");
        tree::git(repo.path(), &["worktree", "add", "-q", worktree.to_str().unwrap()]);
        let run = Run::new(data.path(), transaction(&worktree)).await;
        assert_eq!(run.sh("echo z >> a.txt; git status --porcelain; git log --format=%s; git diff --stat | tail -1").await,
            " M a.txt\nfirst\n 1 file changed, 1 insertion(+)\n");
        assert!(run.room().report().warnings.iter().any(|w| w.contains("read-only in the sandbox")));
        // A link, and a file with arbitrary text.
        for kind in ["link", "text"] {
            let odd = folder();
            let dot = odd.path().join(".git");
            match kind {
                "link" => std::os::unix::fs::symlink(repo.path().join(".git"), &dot).unwrap(),
                _ => fs::write(&dot, "gitdir: /etc\n").unwrap(),
            }
            let run = Run::new(data.path(), transaction(odd.path())).await;
            assert_eq!(run.sh("echo ok").await, "ok\n");
            assert_eq!(run.room().report().warnings.len(), 1, "{kind}");
        }
    }
}

#[tokio::test]
async fn files_of_several_owners_get_a_copy_as_root() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let (repo, data) = (repository(), folder());
    std::os::unix::fs::chown(repo.path().join("a.txt"), Some(4244), Some(4244)).unwrap();
    std::os::unix::fs::chown(repo.path().join("src"), Some(4244), Some(4244)).unwrap();
    let before = tree::of(repo.path());
    let mut run = Run::new(data.path(), transaction(repo.path())).await;
    assert_eq!(run.room().report().view, "copy (files of several owners)");
    run.sh("echo changed > a.txt; echo new > src/new").await;
    let state = run.snapshot().await;
    assert_eq!(tree::of(repo.path()), before);
    run.apply(None, Some(state)).await.unwrap();
    use std::os::unix::fs::MetadataExt as _;
    assert_eq!(fs::metadata(repo.path().join("a.txt")).unwrap().uid(), 4244, "who owned it owns it still");
}

#[tokio::test]
async fn a_process_without_walls_works_on_a_copy() {
    let (repo, data) = (repository(), folder());
    let before = tree::of(repo.path());
    let spec = SandboxSpec { mode: WorkspaceMode::Transaction, ..spec(repo.path(), "process") };
    let mut run = Run::new(data.path(), spec).await;
    assert!(run.room().report().view.starts_with("copy"));
    let (first, beginning) = (run.snapshot().await, run.inside().await);
    run.sh("echo changed > a.txt; rm -r src; git -c user.name=x -c user.email=x commit -qam second").await;
    let (second, now) = (run.snapshot().await, run.inside().await);
    assert_eq!(tree::of(repo.path()), before);
    run.reopen(Some(first)).await;
    assert_eq!(run.inside().await, beginning);
    run.reopen(Some(second)).await;
    assert_eq!(run.inside().await, now);
    run.apply(None, Some(second)).await.unwrap();
    assert_eq!(fs::read_to_string(repo.path().join("a.txt")).unwrap(), "changed\n");
}
