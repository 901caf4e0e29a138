//! Opening the view of a run when another box of it may still be ending, or is dead and still held.

use super::layout::WorkspaceLayout;
use super::{OpenError, RunWorkspace, WorkspaceStorage, lock};
use crate::active_work;
use forge_ports::sandbox::Error;
use forge_snapshot::{Tracker, WorkBounds};
use forge_types::{RunId, SandboxSpec, SnapshotId, WorkspaceLimits};
use std::any::Any;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

/// A view that is open in a box. Once the box is dead another one may have it, whoever still holds the dead one.
pub struct WorkspaceHandle {
    workspace: Mutex<Option<Arc<RunWorkspace>>>,
    is_dead: Box<dyn Fn() -> bool + Send + Sync>,
}

/// The views that are open in this process.
static OPEN_WORKSPACES: Mutex<Vec<Weak<WorkspaceHandle>>> = Mutex::new(Vec::new());

impl WorkspaceHandle {
    /// A view for a box that is dead, with everything in it, once `over` says so.
    pub fn new(view: Arc<RunWorkspace>, over: Box<dyn Fn() -> bool + Send + Sync>) -> Arc<Self> {
        let slot = Arc::new(Self { workspace: Mutex::new(Some(view)), is_dead: over });
        let mut open = OPEN_WORKSPACES.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|slot| slot.strong_count() > 0);
        open.push(Arc::downgrade(&slot));
        slot
    }

    /// The view, if no other box took it over.
    pub fn run_workspace(&self) -> Option<Arc<RunWorkspace>> {
        self.workspace.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl RunWorkspace {
    /// The folder of the host that is removed with the view.
    pub fn workspace_dir(&self) -> &Path {
        self.layout.root_dir()
    }
}

/// Lets go of what dead boxes of a run still hold.
fn release_if_dead(store: &WorkspaceStorage, run: RunId) {
    let place = WorkspaceLayout::for_run(&store.workspaces, run);
    let open: Vec<_> = {
        let open = OPEN_WORKSPACES.lock().unwrap_or_else(PoisonError::into_inner);
        open.iter().filter_map(Weak::upgrade).collect()
    };
    for slot in open {
        let mine = slot.run_workspace().is_some_and(|view| view.layout.root_dir() == place.root_dir());
        if mine && (slot.is_dead)() {
            slot.workspace.lock().unwrap_or_else(PoisonError::into_inner).take();
        }
    }
}

/// How long an earlier box of the run may take to end.
const SANDBOX_EXIT_TIMEOUT: Duration = Duration::from_secs(15);
/// How often is looked whether it has.
pub(super) const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// Does something with a view off the runtime's threads, once boxes of the run that are ending have ended.
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
    /// Takes note of that a copy which was just made belongs to the box's user by now.
    pub fn record_owner_change(&self) -> std::io::Result<()> {
        let mut trackers = self.trackers.lock().unwrap_or_else(PoisonError::into_inner);
        let mut new = trackers.iter_mut().filter(|_| self.is_new);
        let adopt = |tracker: &mut Tracker| {
            tracker.set_bounds(&self.own);
            tracker.adopt_owner()
        };
        new.try_for_each(adopt).map_err(std::io::Error::other)
    }
}

/// How long the kernel may take to be done with a box whose process was killed.
const INIT_EXIT_TIMEOUT: Duration = Duration::from_millis(500);

/// Waits for the end of a box of the run whose process was killed: until the kernel is done with it, a command may
/// still write. Only where something was left there can have been one.
fn wait_for_init_exit(place: &WorkspaceLayout, run: RunId) {
    let (begun, label) = (Instant::now(), run.to_string());
    while place.root_dir().exists()
        && forge_jail::is_jail_alive(&label)
        && begun.elapsed() < INIT_EXIT_TIMEOUT
    {
        std::thread::park_timeout(POLL_INTERVAL);
    }
}

/// What must be dropped after a box has ended.
pub(crate) type SandboxResources = Vec<Box<dyn Any + Send + Sync>>;

/// [`View::prepare`] off the runtime's threads. With the view comes what must be dropped after the box: the lock of
/// repositories that are changed directly.
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

/// As [`prepare`], with what follows on it, and without a way back to the runtime in between.
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
        let locks = lock::lock_direct_repos(store, &spec, run)?;
        wait_for_init_exit(&WorkspaceLayout::for_run(&store.workspaces, run), run);
        let view = RunWorkspace::prepare(store, &spec, run, at, bounds)?;
        // What is tried again never came so far.
        let then = then.lock().unwrap_or_else(PoisonError::into_inner).take();
        let then = then.expect("a view is prepared once");
        Ok(then(view, vec![Box::new(locks)], bounds))
    };
    retry_while_busy(store, run, limits, work).await?
}
