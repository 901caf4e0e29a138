//! A repository, or a directory around it, that another user exchanges for a link or for another directory while Forge
//! works with it: what Forge changes and shows is the directory that the run began with, or it refuses.

use crate::as_both;
use crate::rig::{Folder, folder};
use crate::run::{Run, repository, transaction};
use crate::tree::{self, Tree};
use forge_ports::WorkspaceStore as _;
use forge_ports::sandbox::Error;
use forge_types::SnapshotId;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

const REPLACED: &str = "no longer the directory that the run began with";

/// Two equal repositories; `link` leads to the second.
struct Places {
    top: Folder,
    other: Tree,
}

impl Places {
    fn new() -> Self {
        let top = folder();
        for name in ["repo", "other"] {
            fs::rename(repository().path(), top.path().join(name)).unwrap();
            fs::write(top.path().join(name).join("name"), name).unwrap();
        }
        symlink(top.path().join("other"), top.path().join("link")).unwrap();
        let other = tree::of(&top.path().join("other"));
        Self { top, other }
    }

    fn repo(&self) -> std::path::PathBuf {
        self.top.path().join("repo")
    }

    fn exchange(&self) {
        exchange(&self.repo(), &self.top.path().join("link"));
    }

    fn assert_other_untouched(&self) {
        let other = self.top.path().join("other");
        assert_eq!(tree::of(&other), self.other, "{}", other.display());
    }
}

fn exchange(one: &Path, two: &Path) {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    renameat_with(CWD, one, CWD, two, RenameFlags::EXCHANGE).unwrap();
}

/// Leaves what an apply that is killed at its beginning leaves.
fn leave_killed_apply(data: &Path, run: &Run, to: SnapshotId) {
    let marker = format!(r#"{{"from":null,"to":"{to}","learned":[]}}"#);
    fs::write(data.join(format!("runs/{}/view/applying.json", run.id)), marker).unwrap();
}

fn refusal<T>(refused: Result<T, Error>) -> String {
    refused.err().expect("a refusal").to_string()
}

as_both! {
    async fn a_killed_apply_is_reverted_in_the_runs_own_directory_only() {
        let (places, data) = (Places::new(), folder());
        let before = tree::contents(&tree::of(&places.repo()));
        let mut run = Run::new(data.path(), transaction(&places.repo())).await;
        run.sh("echo new > new; echo more >> a.txt").await;
        let state = run.snapshot().await;
        run.close();
        let workspaces = run.backends.workspaces();
        leave_killed_apply(data.path(), &run, state);
        places.exchange();
        let why = refusal(workspaces.revert_partial_apply(run.id).await);
        assert!(why.contains(REPLACED), "{why}");
        places.assert_other_untouched();
        places.exchange();
        assert!(workspaces.revert_partial_apply(run.id).await.unwrap());
        assert_eq!(tree::contents(&tree::of(&places.repo())), before);
    }
}
