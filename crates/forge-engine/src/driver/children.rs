//! Child runs: their creation with the intent that starts them, their cancellation, and the report of a child's end to its
//! parent.

use super::RunDriver;
use super::create::{NewRun, creation_batch};
use crate::Error;
use crate::transaction::JournalTransaction;
use forge_policy::child;
use forge_ports::journal::{self, SentCommand};
use forge_types::{ChildEnd, ChildRun, CommandId, EffectId, Outcome, ParentRun, RunCommand, RunId, RunState};

impl RunDriver {
    /// Adds the creation of a child run to the transaction that holds the intent of its start, so that there is never one
    /// without the other.
    pub(super) fn create_child(
        &self,
        draft: &mut JournalTransaction<'_>,
        effect: EffectId,
        child: &ChildRun,
    ) -> Result<(), Error> {
        let missing = || Error::Internal { what: format!("the plan has no node `{}`", child.node) };
        let node = child::find_node(&self.plan, &child.node).ok_or_else(missing)?;
        let state = draft.state();
        let created = state.created.as_ref().ok_or_else(missing)?;
        let new = NewRun {
            task: node.task.clone(),
            repo: created.repo.clone(),
            source: created.source,
            history: Vec::new(),
        };
        let plan = child::child_plan(state, &self.plan, node);
        let (batch, _) = creation_batch(&self.parts, child.run, Some((state, effect)), new, &plan)?;
        draft.add_child(batch);
        Ok(())
    }

    /// Asks a child run to end. Repeating it has no effect.
    pub(super) async fn cancel_child(&self, child: RunId) -> Result<(), journal::Error> {
        let by = format!("run {}", self.state().run);
        self.parts.journal.send_command(child, cancel_id(child), RunCommand::Cancel { by }).await
    }
}

/// Records a command of the inbox. One that reports the end of a child settles the effect that waits for it.
pub(super) fn record_command(
    draft: &mut JournalTransaction<'_>,
    id: CommandId,
    command: RunCommand,
) -> Result<(), Error> {
    let ended = match &command {
        RunCommand::ChildEnded { effect, end } => Some((*effect, end.clone())),
        _ => None,
    };
    draft.push(forge_types::EventKind::Commanded { id, command })?;
    draft.take_command(id);
    match ended {
        Some((effect, end)) if draft.state().open.contains_key(&effect) => {
            draft.settle_effect(effect, Outcome::RunEnded { end: *end }, None)
        }
        _ => Ok(()),
    }
}

/// Reports the end of a run to its parent, if it has one, with the transaction that holds the end.
pub(super) fn report_end(draft: &mut JournalTransaction<'_>) {
    let state = draft.state();
    let parent = state.created.as_ref().and_then(|created| created.parent);
    if let (Some(ParentRun { run: to, effect }), true) = (parent, state.status.is_terminal()) {
        let command = RunCommand::ChildEnded { effect, end: Box::new(child_end(state)) };
        let id = end_id(state.run);
        draft.send_command(SentCommand { to, id, command });
    }
}

fn child_end(state: &RunState) -> ChildEnd {
    ChildEnd {
        status: state.status,
        answer: state.answer.clone(),
        error: state.ending.as_ref().and_then(|ending| ending.error.clone()),
        usage: state.usage,
        cost: state.cost,
        cost_known: state.cost_known,
    }
}

/// Returns the identifier of the only command by which a child reports its end.
const fn end_id(child: RunId) -> CommandId {
    CommandId::from_u128(child.as_u128())
}

/// Returns the identifier of the only command by which a parent cancels a child.
const fn cancel_id(child: RunId) -> CommandId {
    CommandId::from_u128(!child.as_u128())
}
