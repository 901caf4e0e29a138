//! Other work on a repository to which a run was being applied when its process was killed: it begins with the repository
//! as it was before, and the run can be applied again.

use crate::as_both;
use crate::rig::{folder, options};
use crate::run::{Run, repository, transaction};
use crate::tree;
use forge_ports::workspace_store::MergePolicy;
use forge_ports::{Sandbox as _, WorkspaceStore as _};
use forge_types::{RunId, SandboxSpec, SnapshotId, WorkspaceMode};
use std::fs;
use std::path::Path;

/// A run that is applied, with the traces of an apply whose process was killed before its end.
async fn killed_while_applied(data: &Path, repo: &Path) -> (Run, SnapshotId) {
    let mut run = Run::new(data, transaction(repo)).await;
    run.sh("echo new > new; echo more >> a.txt; rm run.log").await;
    let state = run.snapshot().await;
    run.close();
    let workspaces = run.backends.workspaces();
    workspaces.apply(&run.spec, run.id, None, Some(state), MergePolicy::No).await.expect("it is applied");
    leave_traces(data, run.id, state);
    (run, state)
}

fn leave_traces(data: &Path, run: RunId, to: SnapshotId) {
    let marker = format!(r#"{{"from":null,"to":"{to}","learned":[]}}"#);
    fs::write(data.join(format!("runs/{run}/view/applying.json")), marker).unwrap();
    let index = data.join("locks/applying");
    fs::create_dir_all(&index).unwrap();
    std::os::unix::fs::symlink(data.join("runs"), index.join(run.to_string())).unwrap();
}

fn index(data: &Path) -> usize {
    fs::read_dir(data.join("locks/applying")).map_or(0, Iterator::count)
}

as_both! {
    async fn another_run_begins_with_the_repository_as_it_was() {
        for mode in [WorkspaceMode::Transaction, WorkspaceMode::Branch, WorkspaceMode::Inplace] {
            for copies in [false, true] {
                let (repo, data) = (repository(), folder());
                let before = tree::contents(&tree::of(repo.path()));
                let (run, state) = killed_while_applied(data.path(), repo.path()).await;
                let mut other = options(data.path());
                other.copies = copies;
                let mut other = Run::with(other, SandboxSpec { mode, ..transaction(repo.path()) }).await;
                assert_eq!(other.sh("cat run.log; cat new 2> /dev/null; grep more a.txt; :").await, "log", "{mode:?}");
                other.close();
                assert_eq!(tree::contents(&tree::of(repo.path())), before, "{mode:?}");
                assert_eq!(index(data.path()), 0);
                let workspaces = run.backends.workspaces();
                workspaces.apply(&run.spec, run.id, None, Some(state), MergePolicy::No).await.expect("again");
                assert_eq!(fs::read_to_string(repo.path().join("new")).unwrap(), "new\n");
                assert_eq!(index(data.path()), 0);
            }
        }
    }

    async fn a_run_on_several_repositories_begins_with_each_as_it_was() {
        let (repo, second, data) = (repository(), repository(), folder());
        let before = tree::contents(&tree::of(repo.path()));
        killed_while_applied(data.path(), repo.path()).await;
        let mut spec = transaction(second.path());
        spec.more_repos = vec![repo.path().to_owned()];
        let _other = Run::new(data.path(), spec).await;
        assert_eq!(tree::contents(&tree::of(repo.path())), before);
    }

    async fn a_run_on_a_directory_around_the_repository_begins_with_it_as_it_was() {
        let (top, data) = (folder(), folder());
        let repo = top.path().join("repo");
        fs::rename(repository().path(), &repo).unwrap();
        let before = tree::contents(&tree::of(&repo));
        killed_while_applied(data.path(), &repo).await;
        let _other = Run::new(data.path(), transaction(top.path())).await;
        assert_eq!(tree::contents(&tree::of(&repo)), before);
    }

    async fn a_run_on_another_repository_undoes_nothing() {
        let (repo, other, data) = (repository(), repository(), folder());
        killed_while_applied(data.path(), repo.path()).await;
        let after = tree::contents(&tree::of(repo.path()));
        let _other = Run::new(data.path(), transaction(other.path())).await;
        assert_eq!(tree::contents(&tree::of(repo.path())), after);
        assert_eq!(index(data.path()), 1);
    }

    async fn what_changed_since_stays_and_is_named() {
        let (repo, data) = (repository(), folder());
        killed_while_applied(data.path(), repo.path()).await;
        fs::write(repo.path().join("a.txt"), "by a person\n").unwrap();
        let mut other = Run::new(data.path(), transaction(repo.path())).await;
        let seen = other.sh("cat a.txt run.log; cat new 2> /dev/null; :").await;
        assert_eq!(seen, "by a person\nlog");
        let warnings = other.room().report().warnings;
        assert!(warnings.iter().any(|warning| warning.ends_with("changed since: a.txt")), "{warnings:?}");
        other.close();
    }

    async fn nothing_is_undone_while_the_applied_run_is_worked_on() {
        let (repo, data) = (repository(), folder());
        let (mut run, state) = killed_while_applied(data.path(), repo.path()).await;
        // Its own sandbox undoes it as well.
        run.reopen(Some(state)).await;
        assert_eq!(index(data.path()), 0);
        leave_traces(data.path(), run.id, state);
        let spec = transaction(repo.path());
        let refused = run.backends.open(&spec, RunId::generate(), None).await.err().expect("a refusal");
        assert!(refused.to_string().contains("is being applied"), "{refused}");
        run.close();
        run.backends.open(&spec, RunId::generate(), None).await.expect("it begins");
        assert_eq!(index(data.path()), 0);
    }
}
