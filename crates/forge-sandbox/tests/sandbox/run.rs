//! A run on a repository, for the tests of workspaces.

use crate::rig::{Folder, command, folder, out, spec};
use crate::tree::{self, Tree};
use forge_ports::sandbox::Error;
use forge_ports::workspace_store::{ApplyReport, MergePolicy};
use forge_ports::{Sandbox as _, Workspace, WorkspaceStore as _};
use forge_sandbox::{BackendOptions, Backends};
use forge_types::{ChangeKind, RunId, SandboxSpec, SnapshotId, WorkspaceMode};
use std::fs;
use std::path::Path;
use std::sync::Arc;

/// A run on a repository.
pub(crate) struct Run {
    pub(crate) backends: Backends,
    pub(crate) spec: SandboxSpec,
    pub(crate) id: RunId,
    pub(crate) room: Option<Arc<dyn Workspace>>,
}

impl Run {
    pub(crate) async fn new(data: &Path, spec: SandboxSpec) -> Self {
        Self::with(crate::rig::options(data), spec).await
    }

    pub(crate) async fn with(options: BackendOptions, spec: SandboxSpec) -> Self {
        let (backends, id) = (Backends::new(options), RunId::generate());
        let room = backends.open(&spec, id, None).await.expect("the box opens");
        Self { backends, spec, id, room: Some(room) }
    }

    pub(crate) fn room(&self) -> &Arc<dyn Workspace> {
        self.room.as_ref().unwrap()
    }

    pub(crate) async fn sh(&self, script: &str) -> String {
        let ran = self.room().exec(command(&["sh", "-c", script]), &()).await.expect("the command runs");
        assert_eq!(ran.exit_code, 0, "{script}: {}", String::from_utf8_lossy(&ran.stderr.bytes));
        out(&ran)
    }

    pub(crate) async fn snapshot(&self) -> SnapshotId {
        self.room().snapshot().await.expect("a snapshot is taken")
    }

    pub(crate) fn close(&mut self) {
        self.room = None;
    }

    pub(crate) async fn reopen(&mut self, at: Option<SnapshotId>) {
        self.close();
        self.room = Some(self.backends.open(&self.spec, self.id, at).await.expect("the box opens again"));
    }

    pub(crate) async fn changes(
        &self,
        from: Option<SnapshotId>,
        to: Option<SnapshotId>,
    ) -> Vec<(String, ChangeKind)> {
        let changes = self.backends.workspaces().compare(&self.spec, self.id, from, to).await.unwrap();
        changes.into_iter().map(|change| (change.path, change.kind)).collect()
    }

    /// Applies the run after closing the sandbox.
    pub(crate) async fn apply(
        &mut self,
        from: Option<SnapshotId>,
        to: Option<SnapshotId>,
    ) -> Result<Vec<String>, Error> {
        let applied = self.merge(from, to, MergePolicy::No).await?;
        Ok(applied.changed.into_iter().map(|change| change.path).collect())
    }

    pub(crate) async fn merge(
        &mut self,
        from: Option<SnapshotId>,
        to: Option<SnapshotId>,
        merge: MergePolicy,
    ) -> Result<ApplyReport, Error> {
        self.close();
        self.backends.workspaces().apply(&self.spec, self.id, from, to, merge).await
    }

    /// Returns the contents of the workspace as a program in the sandbox sees them.
    pub(crate) async fn inside(&self) -> String {
        self.sh(tree::SCRIPT).await
    }
}

pub(crate) fn transaction(repo: &Path) -> SandboxSpec {
    SandboxSpec { mode: WorkspaceMode::Transaction, ..spec(repo, "native") }
}

/// Creates a small repository with a bit of everything.
pub(crate) fn repository() -> Folder {
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

/// Returns the tree without git data.
pub(crate) fn without_git(tree: &Tree) -> Tree {
    tree.iter()
        .filter(|(path, _)| !path.starts_with(".git"))
        .map(|(path, what)| (path.clone(), what.clone()))
        .collect()
}
