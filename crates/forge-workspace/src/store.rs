//! Operations on the workspaces of runs outside any sandbox: comparing, restoring, applying, removing.

use super::apply_index::IndexEntry;
use super::apply_marker::InterruptedApply;
use super::layout::{WorkspaceLayout, WorkspaceMeta};
use super::offline::{OfflineAccess, OfflineWorkspace};
use super::open::{POLL_INTERVAL, open_for_work, retry_while_busy};
use super::publish::{BranchPublisher, delete_branch};
use super::repos::OpenRepo;
use super::{RunWorkspace, WorkspaceStorage, interrupted, repos};
use crate::active_work::{self, ActiveWork};
use crate::blocking::run_blocking;
use forge_ports::sandbox::Error;
use forge_ports::workspace_store::{ApplyReport, MergePolicy, PublishedBranch, SnapshotUsage};
use forge_ports::{Sandbox, SnapshotStorage, Workspace, WorkspaceStore, async_trait};
use forge_snapshot::{ObjectStore, WorkBounds};
use forge_types::{
    NetworkPolicy, RunId, SandboxSpec, SnapshotId, Timestamp, WorkspaceChange, WorkspaceLimits,
};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

/// Longest time of one step of a commit, milliseconds.
const COMMIT_TIMEOUT_MS: u64 = 1_800_000;

/// Longest time that the last writes of a sandbox may take to land after it has ended.
const WRITE_DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// The workspaces of runs on this machine while no sandbox is open on them.
#[derive(Clone, Debug)]
pub struct LocalWorkspaces<S> {
    storage: WorkspaceStorage,
    /// Sandbox in which the git commands of a branch's commit run.
    sandbox: S,
}

impl<S> LocalWorkspaces<S> {
    /// Returns the workspaces kept in `storage`; `sandbox` runs the git commands of a branch's commit.
    pub const fn new(storage: WorkspaceStorage, sandbox: S) -> Self {
        Self { storage, sandbox }
    }
}

#[async_trait]
impl<S: Sandbox> WorkspaceStore for LocalWorkspaces<S> {
    async fn compare(
        &self,
        spec: &SandboxSpec,
        run: RunId,
        from: Option<SnapshotId>,
        to: Option<SnapshotId>,
    ) -> Result<Vec<WorkspaceChange>, Error> {
        if from == to {
            return Ok(Vec::new());
        }
        let work = move |store: &WorkspaceStorage, bounds: &WorkBounds| {
            Ok(OfflineWorkspace::open(store, run, OfflineAccess::Read, bounds)?.compare(from, to)?)
        };
        retry_while_busy(&self.storage, run, spec.workspace, work).await
    }

    async fn diff(
        &self,
        spec: &SandboxSpec,
        run: RunId,
        from: Option<SnapshotId>,
        to: Option<SnapshotId>,
    ) -> Result<String, Error> {
        if from == to {
            return Ok(String::new());
        }
        let work = move |store: &WorkspaceStorage, bounds: &WorkBounds| {
            Ok(OfflineWorkspace::open(store, run, OfflineAccess::Read, bounds)?.diff(from, to)?)
        };
        retry_while_busy(&self.storage, run, spec.workspace, work).await
    }

    async fn restore(&self, spec: &SandboxSpec, run: RunId, to: Option<SnapshotId>) -> Result<(), Error> {
        let (spec, limits) = (spec.clone(), spec.workspace);
        let work = move |store: &WorkspaceStorage, bounds: &WorkBounds| {
            let place = WorkspaceLayout::for_run(&store.workspaces, run);
            if to.is_none() && place.load_meta()?.is_none() {
                // The run has not begun, so its workspace is at the baseline.
                return Ok(());
            }
            let (repos, _locks, _) = open_for_work(store, &spec, run, bounds)?;
            Ok(RunWorkspace::prepare(store, &spec, repos, run, None, bounds)?.restore(to, bounds)?)
        };
        retry_while_busy(&self.storage, run, limits, work).await
    }

    async fn apply(
        &self,
        spec: &SandboxSpec,
        run: RunId,
        from: Option<SnapshotId>,
        to: Option<SnapshotId>,
        merge: MergePolicy,
    ) -> Result<ApplyReport, Error> {
        if from == to {
            return Ok(ApplyReport::default());
        }
        let (spec, limits) = (spec.clone(), spec.workspace);
        let work = move |store: &WorkspaceStorage, bounds: &WorkBounds| {
            let closed = OfflineWorkspace::open(store, run, OfflineAccess::ChangeNamed(&spec), bounds)?;
            Ok(closed.apply(from, to, merge, store)?)
        };
        retry_while_busy(&self.storage, run, limits, work).await
    }

    async fn publish(
        &self,
        spec: &SandboxSpec,
        run: RunId,
        to: SnapshotId,
        message: &str,
    ) -> Result<Option<PublishedBranch>, Error> {
        // A stop at any moment of the operation ends all that follows.
        let wanted = ActiveWork::new(run);
        let asked = spec.clone();
        let work = move |store: &WorkspaceStorage, bounds: &WorkBounds| {
            let closed = OfflineWorkspace::open(store, run, OfflineAccess::Read, bounds)?;
            let repos = repos::open_same_repos(&closed.meta, &asked)?;
            repos::check_disjoint(store, &repos)?;
            // Commits made by the run count as well, so git data is included.
            let changed: Vec<bool> =
                closed.repo_deltas(Some(to))?.iter().map(|delta| !delta.is_empty()).collect();
            Ok((closed.meta, repos, changed))
        };
        let (meta, repos, changed) = retry_while_busy(&self.storage, run, spec.workspace, work).await?;
        if !changed.contains(&true) {
            return Ok(None);
        }
        let limits = spec.workspace;
        let is_stopped = wanted.work_bounds(limits).check_stopped();
        is_stopped.map_err(|error| super::workspace_error(&error))?;
        let mut own = spec.clone();
        own.network = NetworkPolicy::Off;
        own.limits.command_ms = own.limits.command_ms.max(COMMIT_TIMEOUT_MS);
        let room = self.sandbox.open(&own, run, Some(to)).await?;
        let published = publish_all(
            room.as_ref(),
            (&wanted, limits),
            (&meta, &repos),
            &changed,
            (run, message),
            &self.storage.temporary,
        )
        .await;
        drop(room);
        // Git touches objects that already exist: restore the workspace to what the snapshot contains.
        let put_back = super::prepare_workspace(&self.storage, spec, run, Some(to)).await;
        match published {
            // The branch exists, and that is what counts. The next use of the workspace restores it as well.
            Ok(Some(published)) => Ok(Some(published)),
            Ok(None) => put_back.map(|_| None),
            Err(error) => Err(error),
        }
    }

    async fn revert_partial_apply(&self, run: RunId) -> Result<bool, Error> {
        let work = move |store: &WorkspaceStorage, bounds: &WorkBounds| {
            let place = WorkspaceLayout::for_run(&store.workspaces, run);
            let Some(interrupted) = InterruptedApply::load(&place) else { return Ok(false) };
            let closed = OfflineWorkspace::open(store, run, OfflineAccess::ChangeRecorded, bounds)?;
            let entry = IndexEntry::for_run(store, run);
            match interrupted::revert_completely(&closed, &interrupted, store) {
                Ok(()) => InterruptedApply::remove(&place, &entry),
                Err(Error::Stopped) => return Err(Error::Stopped.into()),
                Err(error) => {
                    // The run's record contains the error, and other runs are not refused because of it.
                    entry.remove();
                    return Err(error.into());
                }
            }
            Ok(true)
        };
        retry_while_busy(&self.storage, run, WorkspaceLimits::NONE, work).await
    }

    fn stop_run_work(&self, run: RunId) {
        active_work::stop_run_work(run);
    }
}

#[async_trait]
impl<S: Sandbox> SnapshotStorage for LocalWorkspaces<S> {
    async fn usage(&self) -> Result<Vec<SnapshotUsage>, Error> {
        let store = self.storage.clone();
        run_blocking(move || {
            let entries = match std::fs::read_dir(&store.workspaces) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
                Err(error) => {
                    return Err(Error::View { why: format!("{}: {error}", store.workspaces.display()) });
                }
                Ok(entries) => entries,
            };
            let run = |entry: std::fs::DirEntry| entry.file_name().to_str()?.parse::<RunId>().ok();
            let mut usage: Vec<SnapshotUsage> =
                entries.flatten().filter_map(run).filter_map(|run| workspace_usage(&store, run)).collect();
            usage.sort_by_key(|usage| usage.run);
            Ok(usage)
        })
        .await
    }

    async fn remove_snapshots(&self, run: RunId) -> Result<u64, Error> {
        let work = move |store: &WorkspaceStorage, _: &WorkBounds| {
            let place = WorkspaceLayout::for_run(&store.workspaces, run);
            if place.objects_dir(0).exists() {
                // Fails while a sandbox is open on it.
                drop(ObjectStore::open(&place.objects_dir(0))?);
            }
            // The metadata is removed first: without it, whatever remains after a crash is no workspace.
            let _ = std::fs::remove_file(place.root_dir().join("meta.json"));
            let begun = Instant::now();
            let mut freed = forge_files::remove_tree(place.root_dir());
            // Writes of a sandbox that has just ended, such as its manifest, may land after the removal has passed.
            while place.root_dir().exists() && begun.elapsed() < WRITE_DRAIN_TIMEOUT {
                std::thread::park_timeout(POLL_INTERVAL);
                freed += forge_files::remove_tree(place.root_dir());
            }
            // The run's own directory is removed too if nothing else is in it.
            let _ = place.root_dir().parent().map(std::fs::remove_dir);
            Ok(freed)
        };
        retry_while_busy(&self.storage, run, WorkspaceLimits::NONE, work).await
    }
}

/// Creates the branch in each changed repository: in all of them or in none.
async fn publish_all(
    room: &dyn Workspace,
    (wanted, limits): (&ActiveWork, WorkspaceLimits),
    (meta, repos): (&WorkspaceMeta, &[OpenRepo]),
    changed: &[bool],
    (run, message): (RunId, &str),
    temporary: &Path,
) -> Result<Option<PublishedBranch>, Error> {
    let mut first: Option<PublishedBranch> = None;
    let mut done: Vec<&OpenRepo> = Vec::new();
    for (index, repo) in repos.iter().enumerate().filter(|(index, _)| changed[*index]) {
        let masked =
            meta.masks.iter().filter(|mask| mask.repo == index).filter_map(super::FileMask::rel_path);
        let publish = BranchPublisher {
            sandbox: room,
            work: wanted,
            temporary,
            bounds: wanted.work_bounds(limits),
            directory: &repo.record.name,
            repo,
            run,
            message,
            masked: masked.map(|path| path.as_path().to_owned()).collect(),
        };
        match publish.publish().await {
            Ok(Some(published)) => {
                done.push(repo);
                first.get_or_insert(published);
            }
            Ok(None) => {}
            Err(error) => {
                // All of them or none.
                let branch = format!("forge/{run}");
                let left: Vec<String> = done.iter().filter_map(|repo| delete_branch(repo, &branch)).collect();
                if left.is_empty() {
                    return Err(error);
                }
                return Err(Error::View { why: format!("{error}; {}", left.join("; ")) });
            }
        }
    }
    Ok(first)
}

/// Returns the disk usage of a run's workspace, if there is one.
fn workspace_usage(store: &WorkspaceStorage, run: RunId) -> Option<SnapshotUsage> {
    let place = WorkspaceLayout::for_run(&store.workspaces, run);
    place.root_dir().is_dir().then(|| {
        let written = [
            place.root_dir().to_owned(),
            place.objects_dir(0),
            place.objects_dir(0).join("pack"),
            place.upper_dir(0),
        ];
        let at = written.iter().filter_map(|path| std::fs::metadata(path).ok());
        let at = at.map(|meta| meta.mtime() * 1_000_000 + meta.mtime_nsec() / 1000).max().unwrap_or(0);
        SnapshotUsage {
            run,
            bytes: forge_files::count_tree_bytes(place.root_dir()),
            at: Timestamp::from_micros(at),
        }
    })
}
