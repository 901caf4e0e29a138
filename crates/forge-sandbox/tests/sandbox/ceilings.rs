//! Bounds on what a host reads of a workspace that a command filled, and stopping of such reads.

use crate::as_both;
use crate::rig::folder;
use crate::run::{Run, repository, transaction};
use forge_ports::WorkspaceStore as _;
use forge_ports::sandbox::Error;
use forge_sandbox::{BackendOptions, Backends};
use forge_types::{RunId, SandboxSpec, WorkspaceLimits, WorkspaceMode};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Longer than anything here takes, unless it hangs.
const HANG: Duration = Duration::from_secs(120);

#[track_caller]
fn ceiling<T>(result: Result<T, Error>, setting: &str) {
    match result {
        Err(Error::Ceiling { why }) if why.contains(setting) => {}
        Err(other) => panic!("{setting}: {other}"),
        Ok(_) => panic!("{setting}: it was let through"),
    }
}

async fn in_time<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(HANG, work).await.expect("it ends in time")
}

/// Returns whether there is an unfinished file of a store below `data`.
fn half_made(data: &Path) -> bool {
    let mut waiting = vec![PathBuf::from(data)];
    while let Some(folder) = waiting.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(".new-") {
                return true;
            }
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                waiting.push(entry.path());
            }
        }
    }
    false
}

async fn until(what: &str, ready: impl Fn() -> bool) {
    let begun = Instant::now();
    while !ready() {
        assert!(begun.elapsed() < HANG, "{what}");
        tokio::task::yield_now().await;
    }
}

async fn meets_each_ceiling(options: fn(&Path) -> BackendOptions) {
    let (repo, data) = (repository(), folder());
    let run = Run::with(options(data.path()), transaction(repo.path())).await;
    let before = run.snapshot().await;
    run.sh("truncate -s 8T x").await;
    ceiling(in_time(run.room().snapshot()).await, "workspace.max_file_size");
    run.sh("rm x; i=0; while [ $i -lt 300 ]; do mkdir d; cd -P d; i=$((i+1)); done").await;
    ceiling(in_time(run.room().snapshot()).await, "workspace.max_depth");
    run.sh("rm -rf d").await;
    assert_eq!(run.snapshot().await, before, "what was kept before is there, and the workspace goes on");
}

/// Opens a run with a file in its workspace that takes hours to hash.
async fn long(options: BackendOptions, repo: &Path) -> Run {
    let mut spec = transaction(repo);
    spec.workspace = WorkspaceLimits { file_bytes: 1 << 50, ..spec.workspace };
    let run = Run::with(options, spec).await;
    run.snapshot().await;
    run.sh("truncate -s 8T x").await;
    run
}

fn small(repo: &Path, mode: WorkspaceMode) -> SandboxSpec {
    let workspace = WorkspaceLimits { paths: 20, file_bytes: 1 << 20, ..WorkspaceLimits::default() };
    SandboxSpec { workspace, mode, ..transaction(repo) }
}

async fn refused(data: &Path, spec: &SandboxSpec) -> Result<(), Error> {
    use forge_ports::Sandbox as _;
    let backends = Backends::new(crate::rig::options(data));
    in_time(backends.open(spec, RunId::generate(), None)).await.map(drop)
}

as_both! {
    async fn a_hole_and_a_deep_tree_are_refused_by_name() {
        meets_each_ceiling(crate::rig::options).await;
    }

    async fn a_copy_refuses_them_too() {
        meets_each_ceiling(|data| BackendOptions { copies: true, ..crate::rig::options(data) }).await;
    }

    async fn a_long_snapshot_is_stopped_by_name_of_its_run_and_by_being_dropped() {
        let (repo, data) = (repository(), folder());
        let run = Arc::new(long(crate::rig::options(data.path()), repo.path()).await);
        let own = run.clone();
        let taken = tokio::spawn(async move { own.room().snapshot().await });
        until("the snapshot is under way", || half_made(data.path())).await;
        run.backends.workspaces().stop_run_work(RunId::generate());
        assert!(!taken.is_finished(), "another run's stop is none of its business");
        run.backends.workspaces().stop_run_work(run.id);
        assert!(matches!(in_time(taken).await.unwrap(), Err(Error::Stopped)));
        let own = run.clone();
        let taken = tokio::spawn(async move { own.room().snapshot().await });
        until("the next one is under way", || half_made(data.path())).await;
        taken.abort();
        until("nothing is left of it", || !half_made(data.path())).await;
        run.sh("rm x").await;
        in_time(run.room().snapshot()).await.unwrap();
    }

    async fn a_repository_above_a_ceiling_is_refused_before_a_box_is_made() {
        let (repo, data) = (folder(), folder());
        (0..20).for_each(|n| std::fs::write(repo.path().join(n.to_string()), "").unwrap());
        refused(data.path(), &small(repo.path(), WorkspaceMode::Transaction)).await.unwrap();
        std::fs::write(repo.path().join("one-more"), "").unwrap();
        for mode in [WorkspaceMode::Transaction, WorkspaceMode::Inplace] {
            ceiling(refused(data.path(), &small(repo.path(), mode)).await, "workspace.max_paths");
        }
        // A large file is reported at once if all of it would have to be saved or copied.
        std::fs::remove_file(repo.path().join("one-more")).unwrap();
        std::fs::OpenOptions::new().write(true).open(repo.path().join("7")).unwrap().set_len(1 << 40).unwrap();
        refused(data.path(), &small(repo.path(), WorkspaceMode::Transaction)).await.unwrap();
        ceiling(refused(data.path(), &small(repo.path(), WorkspaceMode::Inplace)).await, "workspace.max_file_size");
    }
}
