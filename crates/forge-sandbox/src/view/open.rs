//! Opening the view of a run when another box of it may still be ending, or is dead and still held.

use super::place::Place;
use super::{Store, Unready, View, lock};
use crate::wanted;
use forge_ports::sandbox::Error;
use forge_snapshot::{Bounds, Tracker};
use forge_types::{RunId, SandboxSpec, SnapshotId, WorkspaceLimits};
use std::any::Any;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

/// A view that is open in a box. Once the box is dead another one may have it, whoever still holds the dead one.
pub(crate) struct Slot {
    view: Mutex<Option<Arc<View>>>,
    over: Box<dyn Fn() -> bool + Send + Sync>,
}

/// The views that are open in this process.
static OPEN: Mutex<Vec<Weak<Slot>>> = Mutex::new(Vec::new());

impl Slot {
    /// A view for a box that is dead, with everything in it, once `over` says so.
    pub(crate) fn new(view: Arc<View>, over: Box<dyn Fn() -> bool + Send + Sync>) -> Arc<Self> {
        let slot = Arc::new(Self { view: Mutex::new(Some(view)), over });
        let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|slot| slot.strong_count() > 0);
        open.push(Arc::downgrade(&slot));
        slot
    }

    /// The view, if no other box took it over.
    pub(crate) fn view(&self) -> Option<Arc<View>> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl View {
    /// The folder of the host that is removed with the view.
    pub(crate) fn place(&self) -> &Path {
        self.place.path()
    }
}

/// Lets go of what dead boxes of a run still hold.
fn let_go(store: &Store, run: RunId) {
    let place = Place::of(&store.views, run);
    let open: Vec<_> = {
        let open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        open.iter().filter_map(Weak::upgrade).collect()
    };
    for slot in open {
        let mine = slot.view().is_some_and(|view| view.place.path() == place.path());
        if mine && (slot.over)() {
            slot.view.lock().unwrap_or_else(PoisonError::into_inner).take();
        }
    }
}

/// How long an earlier box of the run may take to end.
const ENDING: Duration = Duration::from_secs(15);
/// How often is looked whether it has.
pub(super) const LOOK: Duration = Duration::from_millis(5);

/// Does something with a view off the runtime's threads, once boxes of the run that are ending have ended.
pub(super) async fn patiently<T: Send + 'static>(
    store: &Store,
    run: RunId,
    limits: WorkspaceLimits,
    work: impl Fn(&Store, &Bounds) -> Result<T, Unready> + Clone + Send + 'static,
) -> Result<T, Error> {
    let begun = Instant::now();
    loop {
        let (own, work) = (store.clone(), work.clone());
        match wanted::within(run, limits, move |bounds| Ok(work(&own, bounds))).await? {
            Ok(done) => return Ok(done),
            Err(Unready::Busy(_)) if begun.elapsed() < ENDING => {
                let_go(store, run);
                tokio::time::sleep(LOOK).await;
            }
            Err(unready) => return Err(unready.error()),
        }
    }
}

impl View {
    /// Takes note of that a copy which was just made belongs to the box's user by now.
    pub(crate) fn given(&self) -> std::io::Result<()> {
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
const DYING: Duration = Duration::from_millis(500);

/// Waits for the end of a box of the run whose process was killed: until the kernel is done with it, a command may
/// still write. Only where something was left there can have been one.
fn outlive(place: &Place, run: RunId) {
    let (begun, label) = (Instant::now(), run.to_string());
    while place.path().exists() && forge_jail::box_lives(&label) && begun.elapsed() < DYING {
        std::thread::park_timeout(LOOK);
    }
}

/// What must be dropped after a box has ended.
pub(crate) type Keep = Vec<Box<dyn Any + Send + Sync>>;

/// [`View::prepare`] off the runtime's threads. With the view comes what must be dropped after the box: the lock of
/// repositories that are changed directly.
pub(crate) async fn prepare(
    store: &Store,
    spec: &SandboxSpec,
    run: RunId,
    at: Option<SnapshotId>,
) -> Result<(View, Keep), Error> {
    let begin = |view: View, keep, _: &Bounds| {
        view.begin_saving();
        Ok((view, keep))
    };
    prepare_then(store, spec, run, at, begin).await
}

/// As [`prepare`], with what follows on it, and without a way back to the runtime in between.
pub(crate) async fn prepare_then<T: Send + 'static>(
    store: &Store,
    spec: &SandboxSpec,
    run: RunId,
    at: Option<SnapshotId>,
    then: impl FnOnce(View, Keep, &Bounds) -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let (spec, limits) = (spec.clone(), spec.workspace);
    let then = Arc::new(Mutex::new(Some(then)));
    let work = move |store: &Store, bounds: &Bounds| {
        let locks = lock::direct(store, &spec, run)?;
        outlive(&Place::of(&store.views, run), run);
        let view = View::prepare(store, &spec, run, at, bounds)?;
        // What is tried again never came so far.
        let then = then.lock().unwrap_or_else(PoisonError::into_inner).take();
        let then = then.expect("a view is prepared once");
        Ok(then(view, vec![Box::new(locks)], bounds))
    };
    patiently(store, run, limits, work).await?
}
