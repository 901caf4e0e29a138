//! Creation of runs, and events that no turn of the loop appends.

use super::{CachedNewRun, RunEngine};
use crate::Error;
use crate::transaction::JournalTransaction;
use forge_ports::journal::Blob;
use forge_ports::queue::Lease;
use forge_types::{Event, EventKind, Message, Payload, Plan, RunCreation, RunId, RunSource, RunState};
use forge_wire::{PlanFacts, Projector};
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
        let (text, cleaned) = self.redacted_plan(plan)?;
        let plan = cleaned.as_ref().unwrap_or(plan);
        let blob = Blob::new(text.into_bytes());
        let created = RunCreation {
            task: Payload::Inline(new.task),
            repo: new.repo,
            pipeline: "solo".to_owned(),
            source: new.source,
            history: new.history,
            root: run,
            plan: blob.digest,
            correlation_id: correlation_id(run),
        };
        let now = self.parts.clock.now();
        let mut transaction = JournalTransaction::new(RunState::new(run), now, plan, &self.parts.redactor);
        transaction.add_blob(blob);
        transaction.push(EventKind::Created(Box::new(created)))?;
        let batch = transaction.into_batch(now, None);
        let created = batch.events.first().cloned();
        self.parts.journal.append(batch).await?;
        if let Some(created) = created {
            self.cache_new_run(plan, &created);
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

    /// Returns the text of a plan, and the plan itself if it contained a key: a prompt or an address in the
    /// configuration may.
    fn redacted_plan(&self, plan: &Plan) -> Result<(String, Option<Plan>), Error> {
        let unwritten =
            |error: serde_json::Error| Error::Internal { what: format!("a plan can't be written: {error}") };
        let text = serde_json::to_string(plan).map_err(unwritten)?;
        match self.parts.redactor.redacted_text(&text) {
            Some(clean) => {
                let plan = serde_json::from_str(&clean).map_err(unwritten)?;
                Ok((clean, Some(plan)))
            }
            None => Ok((text, None)),
        }
    }

    /// Caches a run that was just created, with its only event.
    fn cache_new_run(&self, plan: &Plan, created: &Event) {
        let mut projector = Projector::new(created.run, Some(PlanFacts::from(plan)));
        if projector.project(created).is_ok() {
            *self.new_run.lock() = Some(CachedNewRun { plan: plan.clone(), projector });
        }
    }
}

/// Returns sixteen hex digits from the random part of the run's id.
fn correlation_id(run: RunId) -> String {
    let hex: String = run.to_string().chars().filter(|c| *c != '-').collect();
    hex.chars().skip(16).collect()
}
