//! The loop that drives every run: fold, decide, append, start and cancel effects, wait, fold.

mod budget;
mod children;
mod create;
mod finish;
mod provider_outcomes;
mod stoppable;
mod turn;

pub use create::NewRun;
pub use finish::{apply_outcome, commit_message};

use crate::Error;
use crate::effects::EffectResult;
use crate::heartbeat::run_renewed;
use crate::live::{CutText, LiveSink};
use crate::load::{checkpoint_of, load_run_state};
use crate::parts::EngineParts;
use crate::payload_cache::PayloadCache;
use crate::sandbox_session::SandboxSession;
use forge_policy::DecisionInput;
use forge_ports::Workspace;
use forge_ports::journal::{self, Checkpoint, WatchScope};
use forge_ports::queue::{ItemStatus, Lease};
use forge_ports::sandbox::Error as SandboxError;
use forge_types::{
    Cooldown, Decision, Effect, EffectId, Event, Plan, RunId, RunState, RunStatus, SnapshotId, Timestamp,
    WorkspaceMode,
};
use forge_wire::Projector;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::{self, JoinSet};

/// The number of events between two checkpoints.
const CHECKPOINT_INTERVAL_EVENTS: u64 = 200;

/// The time until a worker claims a run again on which the work ended with an error.
const FAILURE_DELAY: Duration = Duration::from_secs(10);

/// An engine that drives runs with these adapters.
#[derive(Clone)]
pub struct RunEngine {
    parts: EngineParts,
    worker: String,
    /// The run that this process created last, cached so that it need not be read back.
    new_run: Arc<Mutex<Option<CachedNewRun>>>,
}

/// A run that was created and never claimed.
struct CachedNewRun {
    plan: Plan,
    projector: Projector,
}

impl RunEngine {
    /// Creates an engine; `worker` names this process in journals (`host:pid`).
    pub fn new(parts: EngineParts, worker: String) -> Self {
        Self { parts, worker, new_run: Arc::default() }
    }

    /// Takes a run from the cache. Valid only for the first claim: until then no other process appends to the
    /// run.
    fn pop_new_run(&self, run: RunId) -> Option<CachedNewRun> {
        let mut fresh = self.new_run.lock();
        fresh.take_if(|fresh| fresh.projector.state().run == run)
    }

    /// Works on a run until it ends or is parked, and returns its state.
    ///
    /// # Errors
    /// If a live process works on the run, or its journal can't be read or written.
    pub async fn drive(&self, run: RunId, live: Arc<dyn LiveSink>) -> Result<RunState, Error> {
        // Reading the journal and opening the sandbox while the claim is written saves two waits. If the run
        // was claimed before, the state read here may be outdated by the time the claim holds.
        let (lease, taken_up) =
            tokio::join!(self.parts.queue.claim(run), self.load_run(run, OpenTiming::Now));
        let lease = lease?;
        let taken_up = match taken_up {
            Ok(taken_up) if lease.attempt() == 1 => Ok(taken_up),
            early => {
                // Two sandboxes of one run would interfere with each other.
                if let Ok(early) = early {
                    early.session.close().await;
                }
                self.load_run(run, OpenTiming::Later).await
            }
        };
        self.drive_loaded(lease, taken_up, live).await
    }

    /// Works on a claimed run until it ends or is parked, and returns its state.
    ///
    /// # Errors
    /// If its journal can't be read or written.
    pub async fn drive_claimed(
        &self,
        lease: Box<dyn Lease>,
        live: Arc<dyn LiveSink>,
    ) -> Result<RunState, Error> {
        let when = if lease.attempt() == 1 { OpenTiming::Now } else { OpenTiming::Later };
        let taken_up = self.load_run(lease.run_id(), when).await;
        self.drive_loaded(lease, taken_up, live).await
    }

    async fn drive_loaded(
        &self,
        lease: Box<dyn Lease>,
        taken_up: Result<LoadedRun, Error>,
        live: Arc<dyn LiveSink>,
    ) -> Result<RunState, Error> {
        let result = match taken_up {
            Ok(taken_up) => {
                let work = self.drive_leased(lease.as_ref(), taken_up, live);
                run_renewed(lease.as_ref(), self.parts.clock.as_ref(), work).await
            }
            Err(error) => Err(error),
        };
        let status = match &result {
            Ok((state, _)) if state.status.is_terminal() => ItemStatus::Completed,
            Ok((_, wake)) => ItemStatus::Parked { until: *wake },
            // It would probably fail again at once.
            Err(_) => ItemStatus::Parked { until: Some(self.parts.clock.now().after(FAILURE_DELAY)) },
        };
        let finished = self.parts.queue.finish(lease, status).await;
        let (state, _) = result?;
        finished?;
        Ok(state)
    }

    async fn load_run(&self, run: RunId, when: OpenTiming) -> Result<LoadedRun, Error> {
        let (plan, projector) = match (when, self.pop_new_run(run)) {
            (OpenTiming::Now, Some(CachedNewRun { plan, projector })) => (plan, projector),
            _ => load_run_state(self.parts.journal.as_ref(), run).await?,
        };
        let keeper = SandboxSession::new(self.parts.sandbox.clone(), plan.shared.sandbox.clone(), run);
        keeper.set_restore_point(restore_point(&plan, projector.state()));
        if matches!(when, OpenTiming::Now) && projector.state().attempt == 0 && plan.needs_sandbox() {
            let commands = self.parts.journal.watch(WatchScope::Commands(run));
            // A run that is cancelled this early ends in order once its journal is read.
            tokio::select! {
                biased;
                () = keeper.try_open() => {}
                () = stoppable::wait_for_cancel(self.parts.journal.as_ref(), run, commands) => {}
            }
        }
        Ok(LoadedRun { plan, projector, session: keeper })
    }

    /// Returns the state of the run and, if it is parked, the time at which it goes on by itself.
    async fn drive_leased(
        &self,
        lease: &dyn Lease,
        LoadedRun { plan, projector, session: keeper }: LoadedRun,
        live: Arc<dyn LiveSink>,
    ) -> Result<(RunState, Option<Timestamp>), Error> {
        if projector.state().status.is_terminal() {
            return Ok((projector.state().clone(), None));
        }
        let blobs = Arc::new(PayloadCache::new(self.parts.journal.clone()));
        let plan = Arc::new(plan);
        let mut drive = RunDriver {
            commands: self.parts.journal.watch(WatchScope::Commands(projector.state().run)),
            parts: self.parts.clone(),
            plan,
            fence: lease.fence(),
            projector,
            live,
            blobs,
            session: Arc::new(keeper),
            tasks: JoinSet::new(),
            names: HashMap::new(),
            handles: HashMap::new(),
            since_checkpoint: 0,
            entered: false,
            opened: None,
            baseline_task: None,
            baseline: None,
            too_large: false,
            cooldowns: Vec::new(),
            cut_text: CutText::default(),
        };
        let run = drive.state().run;
        let ended = tokio::select! {
            ended = drive.run(&self.worker, lease.attempt()) => ended,
            () = lease.lost() => Err(journal::Error::LeaseLost { run }.into()),
        };
        let ended = match ended {
            Ok(wake) => Ok(wake),
            Err(Error::Journal(error)) => drive.record_failure(error).await.map(|()| None),
            Err(error) => Err(error),
        };
        drive.abort_baseline();
        drive.tasks.shutdown().await;
        drive.session.close().await;
        ended.map(|wake| (drive.projector.state().clone(), wake))
    }
}

/// Returns the snapshot to restore when the sandbox of a run is opened. A workspace of the run's own is always
/// restored to its last snapshot. A repository edited in place may also hold the user's changes and stays as it
/// is.
fn restore_point(plan: &Plan, state: &RunState) -> Option<SnapshotId> {
    match plan.shared.sandbox.mode {
        WorkspaceMode::Transaction | WorkspaceMode::Branch => state.history.current.or_else(|| {
            // The first step that may write was interrupted: back to the baseline.
            state.open.values().find_map(|open| open.snapshot)
        }),
        WorkspaceMode::Inplace => None,
    }
}

/// A run loaded from its journal.
struct LoadedRun {
    plan: Plan,
    projector: Projector,
    session: SandboxSession,
}

/// The time at which the sandbox of a new run is opened.
#[derive(Clone, Copy)]
enum OpenTiming {
    /// The sandbox is opened at once.
    Now,
    /// The sandbox is opened when an effect needs it.
    Later,
}

/// A run that this process works on.
struct RunDriver {
    parts: EngineParts,
    /// A counter that changes with new commands.
    commands: watch::Receiver<u64>,
    plan: Arc<Plan>,
    /// The fencing number of this process's lease.
    fence: u64,
    projector: Projector,
    live: Arc<dyn LiveSink>,
    blobs: Arc<PayloadCache>,
    session: Arc<SandboxSession>,
    tasks: JoinSet<(EffectId, EffectResult)>,
    names: HashMap<task::Id, EffectId>,
    handles: HashMap<EffectId, task::AbortHandle>,
    since_checkpoint: u64,
    /// Whether this process has begun to use the sandbox.
    entered: bool,
    /// A sandbox that was opened but not yet reported, as its report takes a moment to be complete.
    opened: Option<Arc<dyn Workspace>>,
    /// The task that takes the baseline snapshot while the model generates its first reply.
    baseline_task: Option<task::JoinHandle<Result<SnapshotId, SandboxError>>>,
    /// The baseline snapshot, until the intent of the first step that may write contains it.
    baseline: Option<SnapshotId>,
    /// Whether the workspace exceeds a ceiling; then no further snapshot is tried.
    too_large: bool,
    /// The cooldowns of providers as of this turn.
    cooldowns: Vec<Cooldown>,
    /// Withheld text of a reply that was cut off.
    cut_text: CutText,
}

impl RunDriver {
    fn decide(&self, state: &RunState) -> Decision {
        let now = self.parts.clock.now();
        (self.parts.decide)(DecisionInput { state, plan: &self.plan, cooldowns: &self.cooldowns, now })
    }

    /// Returns the run's state as of its journal.
    fn state(&self) -> &RunState {
        self.projector.state()
    }

    /// Returns a checkpoint of the state after these events, if one is due.
    fn due_checkpoint(&mut self, events: &[Event]) -> Option<Checkpoint> {
        self.since_checkpoint += events.len() as u64;
        if self.since_checkpoint < CHECKPOINT_INTERVAL_EVENTS {
            return None;
        }
        self.since_checkpoint = 0;
        let mut projector = self.projector.clone();
        projector.project_all(events);
        checkpoint_of(&projector)
    }

    fn is_ended(&self) -> bool {
        let state = self.state();
        let only_children = state.open.values().all(|open| matches!(open.what, Effect::StartRun(_)));
        state.status.is_terminal()
            || (state.status == RunStatus::Waiting && only_children)
            || state.waits_for_children()
    }
}
