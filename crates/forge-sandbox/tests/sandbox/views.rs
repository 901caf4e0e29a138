//! The workspace as a transaction: isolation, snapshots, undo and redo, apply, branches, and that nothing stays behind.

use crate::as_both;
use crate::rig::{Rig, command, folder, out, spec};
use crate::tree::{self, Tree};
use forge_ports::sandbox::{Conflict, Error, ExecSpec, Leftovers};
use forge_ports::views::Merge;
use forge_ports::{Sandbox as _, Views as _, Workspace};
use forge_sandbox::{Backends, Options};
use forge_types::{ChangeKind, RunId, SandboxSpec, SnapshotId, WorkspaceMode};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A run on a repository.
struct Run {
    backends: Backends,
    spec: SandboxSpec,
    id: RunId,
    room: Option<Arc<dyn Workspace>>,
}

impl Run {
    async fn new(data: &Path, spec: SandboxSpec) -> Self {
        Self::with(crate::rig::options(data), spec).await
    }

    async fn with(options: Options, spec: SandboxSpec) -> Self {
        let (backends, id) = (Backends::new(options), RunId::generate());
        let room = backends.open(&spec, id, None).await.expect("the box opens");
        Self { backends, spec, id, room: Some(room) }
    }

    fn room(&self) -> &Arc<dyn Workspace> {
        self.room.as_ref().unwrap()
    }

    async fn sh(&self, script: &str) -> String {
        let ran = self.room().exec(command(&["sh", "-c", script]), &()).await.expect("the command runs");
        assert_eq!(ran.exit_code, 0, "{script}: {}", String::from_utf8_lossy(&ran.stderr.bytes));
        out(&ran)
    }

    async fn snapshot(&self) -> SnapshotId {
        self.room().snapshot().await.expect("a snapshot is taken")
    }

    fn close(&mut self) {
        self.room = None;
    }

    async fn reopen(&mut self, at: Option<SnapshotId>) {
        self.close();
        self.room = Some(self.backends.open(&self.spec, self.id, at).await.expect("the box opens again"));
    }

    async fn changes(&self, from: Option<SnapshotId>, to: Option<SnapshotId>) -> Vec<(String, ChangeKind)> {
        let changes = self.backends.compare(&self.spec, self.id, from, to).await.unwrap();
        changes.into_iter().map(|change| (change.path, change.kind)).collect()
    }

    async fn apply(&self, from: Option<SnapshotId>, to: Option<SnapshotId>) -> Result<Vec<String>, Error> {
        let applied = self.backends.apply(&self.spec, self.id, from, to, Merge::No).await?;
        Ok(applied.changed.into_iter().map(|change| change.path).collect())
    }

    /// What the box shows, taken by a program in it.
    async fn inside(&self) -> String {
        self.sh(tree::SCRIPT).await
    }
}

fn transaction(repo: &Path) -> SandboxSpec {
    SandboxSpec { mode: WorkspaceMode::Transaction, ..spec(repo, "native") }
}

/// A small repository with a bit of everything.
fn repository() -> tempfile::TempDir {
    let dir = folder();
    let repo = dir.path();
    for (path, text) in [
        ("a.txt", "one\ntwo\nthree\n"),
        ("src/lib.rs", "pub fn f() {}\n"),
        ("src/deep/er/x", "x"),
        (".gitignore", "target/\n*.log\n"),
        ("target/out.o", "built"),
        ("run.log", "log"),
    ] {
        let path = repo.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    fs::create_dir(repo.join("empty")).unwrap();
    fs::hard_link(repo.join("a.txt"), repo.join("linked.txt")).unwrap();
    std::os::unix::fs::symlink("src/lib.rs", repo.join("link")).unwrap();
    fs::write(repo.join("large.bin"), vec![7_u8; 400_000]).unwrap();
    tree::git(repo, &["init", "-q", "-b", "main"]);
    tree::git(repo, &["add", "-A"]);
    tree::git(repo, &["commit", "-q", "-m", "first"]);
    dir
}

/// Where git data is told from everything else.
fn without_git(tree: &Tree) -> Tree {
    tree.iter()
        .filter(|(path, _)| !path.starts_with(".git"))
        .map(|(path, what)| (path.clone(), what.clone()))
        .collect()
}

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

async fn transaction_is_isolated(options: fn(&Path) -> Options) {
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
    // What a dead attempt leaves is gone after it is put back.
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
    // Applied, taken back, applied again.
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
    assert!(run.backends.remove(run.id).await.unwrap() > 0);
    assert!(!data.path().join("runs").join(run.id.to_string()).join("view").exists());
}

as_both! {
    async fn a_transaction_is_isolated_undone_and_applied() {
        transaction_is_isolated(crate::rig::options).await;
    }

    async fn a_copy_does_the_same() {
        transaction_is_isolated(|data| Options { copies: true, ..crate::rig::options(data) }).await;
    }
}
