//! Creation of runs, and events that no turn of the loop appends.

use super::{CachedNewRun, RunEngine};
use crate::Error;
use crate::parts::EngineParts;
use crate::transaction::JournalTransaction;
use forge_ports::journal::{Batch, Blob};
use forge_ports::queue::{Lease, QueueEntry};
use forge_types::{
    EffectId, Event, EventKind, Message, ParentRun, Payload, Plan, RunCreation, RunId, RunSource, RunState,
    Work,
};
use forge_wire::{PlanFacts, Projector};
use std::borrow::Cow;
use std::path::PathBuf;

/// A run to be created.
#[derive(Clone, Debug)]
pub struct NewRun {
    /// The task in the user's words.
    pub task: String,
    /// The repository.
    pub repo: PathBuf,
    /// The source of the run.
    pub source: RunSource,
    /// The earlier messages of the conversation that the run continues.
    pub history: Vec<Message>,
}

impl RunEngine {
    /// Creates a run with a frozen plan. The run is pending until a process drives it.
    ///
    /// # Errors
    /// If the journal can't be written; nothing is stored then.
    pub async fn create(&self, new: NewRun, plan: &Plan) -> Result<RunId, Error> {
        let run = RunId::generate();
        let (batch, plan) = creation_batch(&self.parts, run, None, new, plan)?;
        let created = batch.events.first().cloned();
        self.parts.journal.append(batch).await?;
        if let Some(created) = created {
            self.cache_new_run(plan.as_ref(), &created);
        }
        Ok(run)
    }

    /// Appends one event to a run under a lease on it, and returns the resulting state.
    ///
    /// # Errors
    /// If the journal can't be written.
    pub async fn append_event(
        &self,
        lease: &dyn Lease,
        state: &RunState,
        plan: &Plan,
        kind: EventKind,
    ) -> Result<RunState, Error> {
        let now = self.parts.clock.now();
        let mut transaction =
            JournalTransaction::new(state.clone(), now, plan, &self.parts.redactor).with_fence(lease.fence());
        transaction.push(kind)?;
        let state = transaction.state().clone();
        self.parts.journal.append(transaction.into_batch(now, None)).await?;
        Ok(state)
    }

    /// Caches a run that was just created, with its only event.
    fn cache_new_run(&self, plan: &Plan, created: &Event) {
        let mut projector = Projector::new(created.run, Some(PlanFacts::from(plan)));
        if projector.project(created).is_ok() {
            *self.new_run.lock() = Some(CachedNewRun { plan: plan.clone(), projector });
        }
    }
}

/// Returns the batch that creates a run and queues it, and the plan as it is stored. A child is part of the tree and of
/// the correlation of its parent; `parent` is the state of that run with the effect that starts the child.
pub(super) fn creation_batch<'a>(
    parts: &EngineParts,
    run: RunId,
    parent: Option<(&RunState, EffectId)>,
    new: NewRun,
    plan: &'a Plan,
) -> Result<(Batch, Cow<'a, Plan>), Error> {
    let (text, plan) = redacted_plan(parts, plan)?;
    let blob = Blob::new(text.into_bytes());
    let above = parent.and_then(|(state, _)| state.created.as_ref());
    let root = above.map_or(run, |above| above.root);
    let created = RunCreation {
        task: Payload::Inline(new.task),
        repo: new.repo,
        pipeline: pipeline_name(&plan.work).to_owned(),
        source: new.source,
        history: new.history,
        parent: parent.map(|(state, effect)| ParentRun { run: state.run, effect }),
        root,
        plan: blob.digest,
        correlation_id: above.map_or_else(|| correlation_id(run), |above| above.correlation_id.clone()),
    };
    let now = parts.clock.now();
    let mut transaction = JournalTransaction::new(RunState::new(run), now, &plan, &parts.redactor);
    transaction.add_blob(blob);
    transaction.push(EventKind::Created(Box::new(created)))?;
    transaction.enqueue(QueueEntry { root, ..QueueEntry::new(run) });
    Ok((transaction.into_batch(now, None), plan))
}

const fn pipeline_name(work: &Work) -> &'static str {
    match work {
        Work::Agent(_) => "solo",
        Work::Pipeline(_) => "pipeline",
    }
}

/// Returns the text of a plan, and the plan as the text has it: a prompt or an address in the configuration may contain a
/// key.
fn redacted_plan<'a>(parts: &EngineParts, plan: &'a Plan) -> Result<(String, Cow<'a, Plan>), Error> {
    let unwritten =
        |error: serde_json::Error| Error::Internal { what: format!("a plan can't be written: {error}") };
    let text = serde_json::to_string(plan).map_err(unwritten)?;
    match parts.redactor.redacted_text(&text) {
        Some(clean) => {
            let plan = serde_json::from_str(&clean).map_err(unwritten)?;
            Ok((clean, Cow::Owned(plan)))
        }
        None => Ok((text, Cow::Borrowed(plan))),
    }
}

/// Returns sixteen hex digits from the random part of the run's id.
fn correlation_id(run: RunId) -> String {
    let hex: String = run.to_string().chars().filter(|c| *c != '-').collect();
    hex.chars().skip(16).collect()
}
