//! Opening a run's workspace while an earlier sandbox of the run is still ending, or is dead but still referenced.

use super::layout::WorkspaceLayout;
use super::repos::OpenRepo;
use super::{OpenError, RunWorkspace, WorkspaceStorage, interrupted, lock, repos};
use crate::active_work;
use forge_ports::sandbox::Error;
use forge_snapshot::apply::RepoLockGuard;
use forge_snapshot::{Tracker, WorkBounds};
use forge_types::{RunId, SandboxSpec, SnapshotId, WorkspaceLimits};
use parking_lot::Mutex;
use std::any::Any;
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// A workspace that is open in a sandbox. Once that sandbox is dead another one may take the workspace, even if
/// references to the dead one remain.
pub struct WorkspaceHandle {
    workspace: Mutex<Option<Arc<RunWorkspace>>>,
    is_dead: Box<dyn Fn() -> bool + Send + Sync>,
}

/// Workspaces that are open in this process.
static OPEN_WORKSPACES: Mutex<Vec<Weak<WorkspaceHandle>>> = Mutex::new(Vec::new());

impl WorkspaceHandle {
    /// Creates the handle of `view`. The sandbox and everything in it are dead once `over` returns true.
    pub fn new(view: Arc<RunWorkspace>, over: Box<dyn Fn() -> bool + Send + Sync>) -> Arc<Self> {
        let slot = Arc::new(Self { workspace: Mutex::new(Some(view)), is_dead: over });
        let mut open = OPEN_WORKSPACES.lock();
        open.retain(|slot| slot.strong_count() > 0);
        open.push(Arc::downgrade(&slot));
        slot
    }

    /// Returns the workspace, unless another sandbox has taken it over.
    pub fn run_workspace(&self) -> Option<Arc<RunWorkspace>> {
        self.workspace.lock().clone()
    }
}

impl RunWorkspace {
    /// Returns the host directory that is removed with the workspace.
    pub fn workspace_dir(&self) -> &Path {
        self.layout.root_dir()
    }
}

/// Releases the workspace that dead sandboxes of a run still hold.
fn release_if_dead(store: &WorkspaceStorage, run: RunId) {
    let place = WorkspaceLayout::for_run(&store.workspaces, run);
    let open: Vec<_> = {
        let open = OPEN_WORKSPACES.lock();
        open.iter().filter_map(Weak::upgrade).collect()
    };
    for slot in open {
        let mine = slot.run_workspace().is_some_and(|view| view.layout.root_dir() == place.root_dir());
        if mine && (slot.is_dead)() {
            slot.workspace.lock().take();
        }
    }
}

/// Longest time that an earlier sandbox of the run may take to end.
const SANDBOX_EXIT_TIMEOUT: Duration = Duration::from_secs(15);
/// Interval between checks that it has ended.
pub(super) const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// Runs work on a workspace off the runtime's threads, retrying while sandboxes of the run are ending.
pub(super) async fn retry_while_busy<T: Send + 'static>(
    store: &WorkspaceStorage,
    run: RunId,
    limits: WorkspaceLimits,
    work: impl Fn(&WorkspaceStorage, &WorkBounds) -> Result<T, OpenError> + Clone + Send + 'static,
) -> Result<T, Error> {
    let begun = Instant::now();
    loop {
        let (own, work) = (store.clone(), work.clone());
        match active_work::run_bounded(run, limits, move |bounds| Ok(work(&own, bounds))).await? {
            Ok(done) => return Ok(done),
            Err(OpenError::Busy(_)) if begun.elapsed() < SANDBOX_EXIT_TIMEOUT => {
                release_if_dead(store, run);
                tokio::time::sleep(POLL_INTERVAL).await;
            }
            Err(unready) => return Err(unready.into_error()),
        }
    }
}

impl RunWorkspace {
    /// Adds warnings to the report on the workspace.
    fn add_warnings(&mut self, warnings: Vec<String>) {
        self.meta.warnings.extend(warnings);
    }

    /// Records that a copy that was just made now belongs to the sandbox's user.
    pub fn record_owner_change(&self) -> std::io::Result<()> {
        let mut trackers = self.trackers.lock();
        let mut new = trackers.iter_mut().filter(|_| self.is_new);
        let adopt = |tracker: &mut Tracker| {
            tracker.set_bounds(&self.own);
            tracker.adopt_owner()
        };
        new.try_for_each(adopt).map_err(std::io::Error::other)
    }
}

/// Longest time that the kernel may take to tear down a sandbox after its process was killed.
const INIT_EXIT_TIMEOUT: Duration = Duration::from_millis(500);

/// Waits until the kernel has torn down a sandbox of the run that was killed: until then a command may still write.
/// Without a workspace directory there was no such sandbox.
fn wait_for_init_exit(place: &WorkspaceLayout, run: RunId) {
    let (begun, label) = (Instant::now(), run.to_string());
    while place.root_dir().exists()
        && forge_processes::init_name::is_jail_alive(&label)
        && begun.elapsed() < INIT_EXIT_TIMEOUT
    {
        std::thread::park_timeout(POLL_INTERVAL);
    }
}

/// Open repositories, the locks of those that are changed directly, and notes for the user.
type OpenForWork = (Vec<OpenRepo>, Vec<Arc<RepoLockGuard>>, Vec<String>);

/// Opens the repositories of a run, after undoing applies to them that were interrupted, and locks those that the run
/// changes directly.
pub(super) fn open_for_work(
    store: &WorkspaceStorage,
    spec: &SandboxSpec,
    run: RunId,
    bounds: &WorkBounds,
) -> Result<OpenForWork, OpenError> {
    let repos = repos::open_run_repos(&WorkspaceLayout::for_run(&store.workspaces, run), spec)?;
    let notes = interrupted::undo_interrupted_applies(store, &repos, bounds)?;
    let locks = lock::lock_direct_repos(store, spec, &repos, run)?;
    if !locks.is_empty() && interrupted::has_interrupted_applies(store, &repos)? {
        let why = "another run was being applied when this one began; begin it again".to_owned();
        return Err(OpenError::Busy(Error::View { why }));
    }
    Ok((repos, locks, notes))
}

/// Resources that must be dropped after a sandbox has ended.
pub(crate) type SandboxResources = Vec<Box<dyn Any + Send + Sync>>;

/// Runs [`RunWorkspace::prepare`] off the runtime's threads. The returned locks of repositories that are changed
/// directly must be dropped after the sandbox.
pub async fn prepare_workspace(
    store: &WorkspaceStorage,
    spec: &SandboxSpec,
    run: RunId,
    at: Option<SnapshotId>,
) -> Result<(RunWorkspace, SandboxResources), Error> {
    let begin = |view: RunWorkspace, keep, _: &WorkBounds| {
        view.start_saving_baseline();
        Ok((view, keep))
    };
    prepare_workspace_then(store, spec, run, at, begin).await
}

/// Does the same as [`prepare_workspace`], then runs `then` without returning to the runtime in between.
pub async fn prepare_workspace_then<T: Send + 'static>(
    store: &WorkspaceStorage,
    spec: &SandboxSpec,
    run: RunId,
    at: Option<SnapshotId>,
    then: impl FnOnce(RunWorkspace, SandboxResources, &WorkBounds) -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let (spec, limits) = (spec.clone(), spec.workspace);
    let then = Arc::new(Mutex::new(Some(then)));
    let work = move |store: &WorkspaceStorage, bounds: &WorkBounds| {
        let (repos, locks, notes) = open_for_work(store, &spec, run, bounds)?;
        wait_for_init_exit(&WorkspaceLayout::for_run(&store.workspaces, run), run);
        let mut view = RunWorkspace::prepare(store, &spec, repos, run, at, bounds)?;
        view.add_warnings(notes);
        // An attempt that is retried fails before this point.
        let then = then.lock().take();
        let then = then.expect("a workspace is prepared once");
        Ok(then(view, vec![Box::new(locks)], bounds))
    };
    retry_while_busy(store, run, limits, work).await?
}
