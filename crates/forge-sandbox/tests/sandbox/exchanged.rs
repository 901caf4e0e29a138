//! A repository, or a directory around it, that another user exchanges for a link or for another directory while Forge
//! works with it: what Forge changes and shows is the directory that the run began with, or it refuses.

use crate::as_both;
use crate::rig::{Folder, folder};
use crate::run::{Run, repository, transaction};
use crate::tree::{self, Tree};
use crate::undo::times;
use forge_ports::Sandbox as _;
use forge_ports::WorkspaceStore as _;
use forge_ports::sandbox::Error;
use forge_ports::workspace_store::MergePolicy;
use forge_testkit::exchange::ExchangeLoop;
use forge_types::{RunId, SandboxSpec, SnapshotId, WorkspaceMode};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

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

    fn repo(&self) -> PathBuf {
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

fn exchange_repeatedly(one: PathBuf, two: PathBuf) -> ExchangeLoop {
    ExchangeLoop::start(move || exchange(&one, &two))
}

/// Does everything with a run that opens its repository, while that is exchanged. Returns how much succeeded.
async fn work_while_exchanged(places: &Places, data: &Path, mode: WorkspaceMode) -> usize {
    let spec = SandboxSpec { mode, ..transaction(&places.repo()) };
    let mut done = 0;
    let exchanging = || exchange_repeatedly(places.repo(), places.top.path().join("link"));
    let (backends, id) = (forge_sandbox::Backends::new(crate::rig::options(data)), RunId::generate());
    let working = exchanging();
    let opened = backends.open(&spec, id, None).await;
    let Ok(room) = opened else { return done };
    let run = Run { backends, spec, id, room: Some(room) };
    assert_eq!(run.sh("cat name; echo $$ > new; echo more >> a.txt").await, "repo");
    let Ok(state) = run.room().snapshot().await else { return done };
    let Run { backends, spec, id, room } = run;
    drop(room);
    done += 1;
    let workspaces = backends.workspaces();
    // What a previous apply did is undone with the same care.
    for _ in 0..3 {
        let changed = match mode {
            WorkspaceMode::Transaction => {
                let applied = workspaces.apply(&spec, id, None, Some(state), MergePolicy::No).await.is_ok();
                leave_killed_apply(data, id, state);
                workspaces.revert_partial_apply(id).await.is_ok() || applied
            }
            WorkspaceMode::Branch => workspaces.publish(&spec, id, state, "What was done").await.is_ok(),
            WorkspaceMode::Inplace => workspaces.restore(&spec, id, None).await.is_ok(),
        };
        done += usize::from(changed);
        places.assert_other_untouched();
    }
    drop(working);
    done
}

/// Leaves what an apply that is killed at its beginning leaves.
fn leave_killed_apply(data: &Path, run: RunId, to: SnapshotId) {
    let marker = format!(r#"{{"from":null,"to":"{to}","learned":[]}}"#);
    fs::write(data.join(format!("runs/{run}/view/applying.json")), marker).unwrap();
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
        leave_killed_apply(data.path(), run.id, state);
        places.exchange();
        let why = refusal(workspaces.revert_partial_apply(run.id).await);
        assert!(why.contains(REPLACED), "{why}");
        places.assert_other_untouched();
        places.exchange();
        assert!(workspaces.revert_partial_apply(run.id).await.unwrap());
        assert_eq!(tree::contents(&tree::of(&places.repo())), before);
    }

    async fn a_link_in_its_place_is_refused_by_every_operation() {
        for mode in [WorkspaceMode::Transaction, WorkspaceMode::Branch, WorkspaceMode::Inplace] {
            let (places, data) = (Places::new(), folder());
            let spec = SandboxSpec { mode, ..transaction(&places.repo()) };
            let mut run = Run::new(data.path(), spec).await;
            run.sh("echo new > new").await;
            let state = run.snapshot().await;
            run.close();
            let (workspaces, spec) = (run.backends.workspaces(), &run.spec);
            places.exchange();
            for refused in [
                refusal(run.backends.open(spec, run.id, Some(state)).await),
                refusal(workspaces.apply(spec, run.id, None, Some(state), MergePolicy::No).await),
                refusal(workspaces.restore(spec, run.id, None).await),
                refusal(workspaces.publish(spec, run.id, state, "What was done").await),
            ] {
                assert!(refused.contains(REPLACED), "{mode:?}: {refused}");
            }
            let new = refusal(run.backends.open(spec, RunId::generate(), None).await);
            assert!(new.contains("a symbolic link put in its path is not followed"), "{new}");
            // What is stored can still be compared.
            assert!(!run.changes(None, Some(state)).await.is_empty());
            places.assert_other_untouched();
        }
    }

    async fn a_repository_that_is_exchanged_all_the_time_is_the_only_one_shown_and_changed() {
        for mode in [WorkspaceMode::Transaction, WorkspaceMode::Branch, WorkspaceMode::Inplace] {
            let (places, mut done) = (Places::new(), 0);
            let rounds = times(8, 150);
            // On a busy machine the moments in between are rare; no more than these are waited for.
            for round in 0..40 * rounds {
                if round >= rounds && done > 0 {
                    break;
                }
                let data = folder();
                done += work_while_exchanged(&places, data.path(), mode).await;
                places.assert_other_untouched();
            }
            assert!(done > 0, "{mode:?}: nothing succeeds in between");
        }
    }

    async fn git_data_elsewhere_that_is_exchanged_shows_nothing_of_another_place() {
        let top = folder();
        let at = |name: &str| top.path().join(name);
        fs::rename(repository().path(), at("main")).unwrap();
        tree::git(&at("main"), &["worktree", "add", "-q", at("tree").to_str().unwrap()]);
        let secret = at("main/.git/refs/secret");
        // What this user may read and nobody else, under each of the names.
        for name in ["private", "private/refs", "private/.git/refs"].map(at) {
            fs::create_dir_all(&name).unwrap();
            fs::write(name.join("secret"), "hunter2").unwrap();
        }
        for (number, name) in ["main/.git/refs", "main/.git", "main"].into_iter().enumerate() {
            let link = at(name).with_file_name(format!("link-{number}"));
            symlink(at("private"), &link).unwrap();
            let mut opened = 0;
            for _ in 0..times(10, 200) {
                let (data, working) = (folder(), exchange_repeatedly(at(name), link.clone()));
                let backends = forge_sandbox::Backends::new(crate::rig::options(data.path()));
                let id = RunId::generate();
                let room = backends.open(&transaction(&at("tree")), id, None).await.ok();
                drop(working);
                let run = Run { backends, spec: transaction(&at("tree")), id, room };
                if run.room.is_some() {
                    let shown = run.sh(&format!("cat {} 2>&1 || true", secret.display())).await;
                    assert!(!shown.contains("hunter2"), "{name} was exchanged");
                    opened += 1;
                }
            }
            assert!(opened > 0, "{name}: nothing succeeds in between");
        }
    }
}
