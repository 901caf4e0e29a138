//! The one loop that drives every run: fold, decide, append, start and cancel effects, wait, fold.

mod boxes;
mod draft;
mod perform;
mod survey;
mod turn;

pub use boxes::BoxKeeper;

use crate::Error;
use crate::blobs::BlobCache;
use crate::live::LiveSink;
use crate::redact::Redactor;
use forge_policy::agent::{self, Decision};
use forge_ports::journal::Checkpoint;
use forge_ports::queue::{ItemStatus, Lease};
use forge_ports::sandbox::Manifest;
use forge_ports::{Clock, Journal, Model, Queue, Sandbox};
use forge_tools::Registry;
use forge_types::wire::{PlanFacts, Projector};
use forge_types::{EffectId, Event, Outcome, Plan, RunId, RunState, RunStatus, Seq};
use std::collections::HashMap;
use std::sync::Arc;
use tokio::task::{self, JoinSet};

/// The version of [`RunState`] as checkpoints hold it; raised whenever its shape changes.
const STATE_VERSION: u32 = 1;
/// Events between two checkpoints.
const CHECKPOINT_EVERY: u64 = 200;

/// The adapters that the loop drives. Tests put other ones in.
#[derive(Clone)]
pub struct Parts {
    /// The journal.
    pub journal: Arc<dyn Journal>,
    /// Who works on which run.
    pub queue: Arc<dyn Queue>,
    /// The models.
    pub model: Arc<dyn Model>,
    /// The tools.
    pub tools: Arc<Registry>,
    /// The sandbox backends.
    pub sandbox: Arc<dyn Sandbox>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Takes secrets out of everything that is journalled or shown.
    pub redactor: Arc<Redactor>,
}

/// Drives runs with these parts.
#[derive(Clone)]
pub struct Engine {
    parts: Parts,
    worker: String,
}

impl Engine {
    /// An engine; `worker` names this process in journals (`host:pid`).
    pub fn new(parts: Parts, worker: String) -> Self {
        Self { parts, worker }
    }

    /// Works on a run until it ends or is parked, and gives its state then.
    ///
    /// # Errors
    /// If a live process works on it, or its journal can't be read or written.
    pub async fn drive(&self, run: RunId, live: Arc<dyn LiveSink>) -> Result<RunState, Error> {
        let lease = self.parts.queue.claim(run).await?;
        let result = self.drive_leased(run, lease.as_ref(), live).await;
        let status = match &result {
            Ok(state) if state.status.is_terminal() => ItemStatus::Completed,
            _ => ItemStatus::Queued,
        };
        let finished = self.parts.queue.finish(lease, status).await;
        let state = result?;
        finished?;
        Ok(state)
    }

    async fn drive_leased(
        &self,
        run: RunId,
        lease: &dyn Lease,
        live: Arc<dyn LiveSink>,
    ) -> Result<RunState, Error> {
        let (state, plan, projector) = load(self.parts.journal.as_ref(), run).await?;
        if state.status.is_terminal() {
            return Ok(state);
        }
        let blobs = Arc::new(BlobCache::new(self.parts.journal.clone()));
        let plan = Arc::new(plan);
        let keeper = Arc::new(BoxKeeper::new(self.parts.sandbox.clone(), plan.sandbox.clone(), run));
        let mut drive = Drive {
            parts: self.parts.clone(),
            plan,
            state,
            projector,
            live,
            blobs,
            keeper,
            tasks: JoinSet::new(),
            names: HashMap::new(),
            handles: HashMap::new(),
            since_checkpoint: 0,
            survey: None,
            manifest: None,
        };
        let ended = match drive.run(&self.worker, lease.attempt()).await {
            Ok(()) => Ok(()),
            Err(Error::Journal(error)) => drive.record_failure(error).await,
            Err(error) => Err(error),
        };
        drive.tasks.shutdown().await;
        drive.keeper.close().await;
        ended.map(|()| drive.state)
    }
}

/// Reads a run's state, its plan and a projector that stands at the same event.
///
/// # Errors
/// If there is no such run, or its journal can't be read to its end: a run is never driven from a damaged journal.
pub(crate) async fn load(journal: &dyn Journal, run: RunId) -> Result<(RunState, Plan, Projector), Error> {
    let pages = journal.read(run, Seq(0), 0).await?;
    if let Some(damage) = pages.damage {
        return Err(Error::Damaged { run, damage });
    }
    let events = pages.events;
    let created = events.first().and_then(created_plan).ok_or(Error::NoSuchRun { id: run.to_string() })?;
    let plan: Plan = serde_json::from_slice(&journal.blob(created).await?)
        .map_err(|error| Error::Damaged { run, damage: format!("its plan can't be read: {error}") })?;
    let state =
        RunState::replay(run, &events).map_err(|error| Error::Damaged { run, damage: error.to_string() })?;
    let mut projector = Projector::new(run, Some(PlanFacts::from(&plan)));
    projector.project_all(&events);
    Ok((state, plan, projector))
}

fn created_plan(event: &Event) -> Option<forge_types::Digest> {
    match &event.kind {
        forge_types::EventKind::Created(created) => Some(created.plan),
        _ => None,
    }
}

/// One run while this process works on it.
struct Drive {
    parts: Parts,
    plan: Arc<Plan>,
    state: RunState,
    projector: Projector,
    live: Arc<dyn LiveSink>,
    blobs: Arc<BlobCache>,
    keeper: Arc<BoxKeeper>,
    tasks: JoinSet<(EffectId, Outcome)>,
    names: HashMap<task::Id, EffectId>,
    handles: HashMap<EffectId, task::AbortHandle>,
    since_checkpoint: u64,
    /// The look at the workspace that began with the box.
    survey: Option<task::JoinHandle<Option<Manifest>>>,
    /// The manifest of the beginning, while it is at hand.
    manifest: Option<Manifest>,
}

impl Drive {
    fn decide(&self, state: &RunState) -> Decision {
        agent::decide(state, &self.plan, self.parts.clock.now())
    }

    fn checkpoint(&mut self, state: &RunState, appended: u64) -> Option<Checkpoint> {
        self.since_checkpoint += appended;
        let due = self.since_checkpoint >= CHECKPOINT_EVERY;
        if !due {
            return None;
        }
        self.since_checkpoint = 0;
        let bytes = serde_json::to_vec(state).ok()?;
        Some(Checkpoint { seq: state.seq, version: STATE_VERSION, state: bytes })
    }

    fn ended(&self) -> bool {
        self.state.status.is_terminal()
            || (self.state.status == RunStatus::Waiting && self.state.open.is_empty())
    }
}
