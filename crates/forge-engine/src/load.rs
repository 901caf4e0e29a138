//! Reading a run's state from its journal and its newest checkpoint.

use crate::Error;
use forge_ports::Journal;
use forge_ports::journal::Checkpoint;
use forge_types::{Event, Plan, RunId, Seq};
use forge_wire::{PlanFacts, Projector};

/// The version of [`Projector`] in checkpoints; raised whenever its shape or its fold changes.
const STATE_VERSION: u32 = 4;

/// Reads a run's plan and projects its journal to the end, starting at the newest checkpoint, so that a long
/// journal need not be read from its beginning.
///
/// # Errors
/// If there is no such run, or its journal can't be read to its end: a run is never driven from a damaged
/// journal.
pub async fn load_run_state(journal: &dyn Journal, run: RunId) -> Result<(Plan, Projector), Error> {
    let damaged = |damage: String| Error::Damaged { run, damage };
    let checkpoint =
        journal.latest_checkpoint(run).await?.and_then(|checkpoint| restore_checkpoint(&checkpoint));
    let (after, known) = match checkpoint {
        Some(projector) => (projector.state().seq, Some(projector)),
        None => (Seq(0), None),
    };
    let pages = journal.read_events(run, after, 0).await?;
    if let Some(damage) = pages.damage {
        return Err(damaged(damage));
    }
    let digest = match &known {
        Some(projector) => projector.state().created.as_ref().map(|created| created.plan),
        None => pages.events.first().and_then(plan_digest),
    };
    let digest = digest.ok_or(Error::NoSuchRun { id: run.to_string() })?;
    let plan = Plan::from_json(&journal.read_blob(digest).await?)
        .map_err(|error| damaged(format!("its plan can't be read: {error}")))?;
    let mut projector = known.unwrap_or_else(|| Projector::new(run, Some(PlanFacts::from(&plan))));
    for event in &pages.events {
        projector.project(event).map_err(|error| damaged(error.to_string()))?;
    }
    Ok((plan, projector))
}

/// Restores a checkpoint. One of another version, or an unreadable one, is ignored: the journal holds
/// everything.
fn restore_checkpoint(checkpoint: &Checkpoint) -> Option<Projector> {
    if checkpoint.version != STATE_VERSION {
        return None;
    }
    let projector: Projector = serde_json::from_slice(&checkpoint.state).ok()?;
    (projector.state().seq == checkpoint.seq).then_some(projector)
}

fn plan_digest(event: &Event) -> Option<forge_types::Digest> {
    match &event.kind {
        forge_types::EventKind::Created(created) => Some(created.plan),
        _ => None,
    }
}

/// Returns a checkpoint of this state.
pub(crate) fn checkpoint_of(projector: &Projector) -> Option<Checkpoint> {
    let state = serde_json::to_vec(projector).ok()?;
    Some(Checkpoint { seq: projector.state().seq, version: STATE_VERSION, state })
}
