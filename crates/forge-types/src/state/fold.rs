//! Application of events to the state. Pure: equal events give equal states.

use super::calls::admit_calls;
use super::{
    ApplyOutcome, CallState, ChildState, FailedTarget, LastReply, OpenEffect, RunEnding, RunState, ToolStep,
};
use crate::{
    Effect, EffectId, ErrorInfo, Event, EventKind, FinishReason, HistoryDirection, Message, MessagePart,
    ModelCall, ModelReply, Money, Outcome, Payload, RunCommand, RunStatus, SandboxState, Seq, SnapshotId,
    Timestamp, ToolAccess, ToolOutput, ToolRun, WaitingFor,
};
use std::time::Duration;

/// Instruction to the model after its reply was truncated at the token limit.
const CONTINUE_PROMPT: &str = "Your reply was cut off at the token limit. Continue exactly where it stopped.";
/// Result for the model of a writing call that was interrupted by the death of its process.
const INTERRUPTED_NOTE: &str = "interrupted: the process that ran this call died. Whether it took effect, in whole or \
     in part, is not known. Look at the files before you repeat it.";
const UNKNOWN_NOTE: &str = "Check on the server whether the call took effect before you repeat it.";
const CANCELLED_NOTE: &str = "cancelled before it ended";
/// Maximum number of characters of a call's arguments in a step.
const MAX_STEP_CHARS: usize = 120;
/// LOOP-6: delay before the single retry of a call after a transient sandbox fault.
const READ_RETRY_DELAY: Duration = Duration::from_secs(2);

/// An event that does not follow the journal it claims to continue.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("event {found} follows event {last}: the journal has a gap or belongs to another run")]
pub struct OutOfOrder {
    last: Seq,
    found: Seq,
}

impl RunState {
    /// Folds a whole journal.
    ///
    /// # Errors
    /// Returns [`OutOfOrder`] at the first event that does not follow its predecessor.
    pub fn replay<'a>(
        run: crate::RunId,
        events: impl IntoIterator<Item = &'a Event>,
    ) -> Result<Self, OutOfOrder> {
        let mut state = Self::new(run);
        for event in events {
            state.apply(event)?;
        }
        Ok(state)
    }

    /// Applies an event.
    ///
    /// # Errors
    /// Returns [`OutOfOrder`] if the event does not follow the last one; the state is then unchanged.
    pub fn apply(&mut self, event: &Event) -> Result<(), OutOfOrder> {
        if event.seq != self.seq.next() || event.run != self.run {
            return Err(OutOfOrder { last: self.seq, found: event.seq });
        }
        self.seq = event.seq;
        self.at = event.at;
        match &event.kind {
            EventKind::Created(created) => {
                created.history.iter().for_each(|message| self.push_message(message.clone()));
                self.push_pinned(Message::user(created.task.clone()));
                self.created = Some(created.clone());
                self.created_at = event.at;
            }
            EventKind::Claimed { attempt, .. } => {
                self.attempt = *attempt;
                self.started_at.get_or_insert(event.at);
            }
            EventKind::Commanded { command, .. } => self.apply_command(command),
            EventKind::Intended { effect, what, reserved, key: _, snapshot } => {
                self.start_effect(*effect, what, event.at);
                let open = OpenEffect {
                    what: what.clone(),
                    since: event.at,
                    reserved: *reserved,
                    snapshot: *snapshot,
                };
                self.open.insert(*effect, open);
            }
            EventKind::Settled { effect, outcome, snapshot } => {
                self.settle_effect(*effect, outcome, *snapshot, event.at);
            }
            EventKind::ToolCallRejected { call_id, error, .. } => {
                let found = self.calls.iter().position(|c| c.call.id == *call_id && !c.is_done());
                if let Some(at) = found {
                    self.finish_call(at, Payload::Inline(error.message.clone()), false);
                }
                self.close_turn();
            }
            EventKind::SandboxChanged { state, report } => {
                if let Some(report) = report {
                    self.sandbox = Some(report.clone());
                }
                if *state == SandboxState::Died {
                    self.sandbox_losses += 1;
                }
            }
            EventKind::Compacted { .. } => self.apply_compaction(&event.kind),
            EventKind::EgressRecorded { records } => {
                records.iter().for_each(|record| self.history.record_egress(record))
            }
            EventKind::Restored { to, direction: travel, applied } => {
                self.apply_restore(*to, *travel, *applied)
            }
            EventKind::Applied { to, outcome } => {
                if let ApplyOutcome::Done { .. } | ApplyOutcome::Published { .. } = outcome {
                    self.history.applied = Some(*to);
                }
                self.history.outcome = Some(outcome.clone());
            }
            EventKind::StatusChanged { to, waiting_for, until, .. } => {
                if self.change_status(*to, event.at) {
                    self.waiting_for = *waiting_for;
                    self.parked_count += u32::from(*waiting_for == Some(WaitingFor::Retry));
                    self.wait_until = *until;
                }
            }
            EventKind::Finished { .. } => self.finish_run(&event.kind, event.at),
        }
        Ok(())
    }

    fn finish_run(&mut self, kind: &EventKind, at: Timestamp) {
        let EventKind::Finished { status, limit, error, files_modified, files_omitted, snapshot, answer } =
            kind
        else {
            return;
        };
        if let Some(answer) = answer {
            self.answer = vec![answer.clone()];
        }
        if let Some(snapshot) = snapshot {
            self.history.current = Some(*snapshot);
            self.has_unsaved_changes = false;
        }
        if self.change_status(*status, at) {
            self.ending = Some(RunEnding {
                limit: *limit,
                error: error.clone(),
                files_modified: files_modified.clone(),
                files_omitted: *files_omitted,
                at,
            });
        }
    }

    /// Changes the status if the transition is allowed. Returns whether it is.
    fn change_status(&mut self, to: RunStatus, at: Timestamp) -> bool {
        let Ok(to) = self.status.to(to) else { return false };
        if let Some(since) = self.wait_since.take() {
            self.waited_ms += at.millis_since(since);
        }
        if self.status == RunStatus::Waiting && to == RunStatus::Running {
            // The wait is over: attempts start from zero.
            self.failures = 0;
            self.last_error = None;
            self.tried.clear();
            self.delayed_ms = 0;
            self.ignore_cooldowns = self.resume && self.waiting_for == Some(WaitingFor::Retry);
        }
        if to == RunStatus::Waiting {
            self.wait_since = Some(at);
        }
        self.status = to;
        self.waiting_for = None;
        self.wait_until = None;
        self.resume = false;
        true
    }

    fn apply_command(&mut self, command: &RunCommand) {
        match command {
            RunCommand::Cancel { by } => {
                self.cancel.get_or_insert_with(|| by.clone());
            }
            RunCommand::Steer { text } => self.steering.push(text.clone()),
            // Settles the effect that waits for the child, in an event of its own.
            RunCommand::ChildEnded { .. } => {}
            RunCommand::Pause => self.pause = true,
            RunCommand::Resume { limits } => {
                self.pause = false;
                self.resume = self.status == RunStatus::Waiting;
                if limits.is_some() {
                    self.limits = *limits;
                }
            }
        }
    }

    fn apply_restore(&mut self, to: SnapshotId, travel: HistoryDirection, applied: bool) {
        let history = &mut self.history;
        match travel {
            HistoryDirection::Undo => history.undone.extend(history.current),
            HistoryDirection::Redo => drop(history.undone.pop()),
        }
        history.current = Some(to);
        if applied {
            history.applied = Some(to);
        }
        self.has_unsaved_changes = false;
    }

    fn start_effect(&mut self, effect: EffectId, what: &Effect, at: Timestamp) {
        match what {
            Effect::CallModel(call) => self.begin_model_call(call, at),
            Effect::RunTool(run) => self.begin_tool(effect, run),
            Effect::Compact(compaction) => self.begin_compaction(compaction),
            Effect::StartRun(child) => {
                let state = ChildState { run: child.run, attempt: child.attempt, end: None };
                self.children.insert(child.node.clone(), state);
            }
        }
        self.next_effect = EffectId(self.next_effect.0.max(effect.0 + 1));
    }

    fn begin_model_call(&mut self, call: &ModelCall, at: Timestamp) {
        if call.iteration != self.iterations {
            self.iterations = call.iteration;
            self.tries = 0;
            if matches!(self.last_reply, Some(last) if last.finish == FinishReason::Length && !last.has_calls && !last.empty)
            {
                self.push_message(Message::user(CONTINUE_PROMPT));
            }
            for text in std::mem::take(&mut self.steering) {
                self.push_pinned(Message::user(text));
            }
            self.last_reply = None;
        }
        self.tries = call.attempt;
        self.delayed_ms += call.not_before.map_or(0, |time| time.millis_since(at));
        if call.target != self.target {
            self.target = call.target;
            self.failures = 0;
            // Another model has a different tokenizer.
            self.last_measured_prompt = None;
        }
    }

    fn begin_tool(&mut self, effect: EffectId, run: &ToolRun) {
        self.tools.calls += u64::from(run.attempt == 1);
        self.tools.shell_commands += u32::from(run.access == ToolAccess::Exec && run.attempt == 1);
        if let Some(pending) = self.calls.iter_mut().find(|c| c.call.id == run.call.id) {
            pending.state = CallState::Running(effect);
        }
    }

    /// Accepts exactly one outcome per intent: a second one, or one without an intent, is ignored.
    fn settle_effect(
        &mut self,
        effect: EffectId,
        outcome: &Outcome,
        snapshot: Option<SnapshotId>,
        at: Timestamp,
    ) {
        let Some(open) = self.open.remove(&effect) else { return };
        match &open.what {
            Effect::CallModel(call) => self.settle_model(call, outcome, at),
            Effect::Compact(_) => self.settle_compaction(outcome),
            Effect::StartRun(child) => self.settle_child(&child.node, outcome),
            Effect::RunTool(run) => {
                self.record_tool_effect(effect, run, &open, outcome, snapshot, at);
                self.settle_tool(effect, run, outcome, open.snapshot.is_some(), at);
            }
        }
    }

    fn settle_model(&mut self, call: &ModelCall, outcome: &Outcome, at: Timestamp) {
        match outcome {
            Outcome::Replied { reply, cost } => self.apply_reply(call, reply, *cost),
            Outcome::ModelFailed { error } => {
                self.failures += 1;
                self.last_error = Some(error.clone());
                self.ignore_cooldowns = false;
                self.record_failure(call.target, error, at);
            }
            _ => {}
        }
    }

    fn settle_child(&mut self, node: &str, outcome: &Outcome) {
        let (Some(child), Outcome::RunEnded { end }) = (self.children.get_mut(node), outcome) else { return };
        self.usage = self.usage.plus(&end.usage);
        self.cost = self.cost.plus(end.cost);
        self.cost_known &= end.cost_known;
        child.end = Some(end.clone());
    }

    fn record_failure(&mut self, target: u32, error: &ErrorInfo, at: Timestamp) {
        match self.tried.iter_mut().find(|tried| tried.target == target) {
            Some(tried) => {
                *tried = FailedTarget { target, failures: tried.failures + 1, error: error.clone(), at };
            }
            None => self.tried.push(FailedTarget { target, failures: 1, error: error.clone(), at }),
        }
    }

    fn apply_reply(&mut self, call: &ModelCall, reply: &ModelReply, cost: Option<Money>) {
        self.usage = self.usage.plus(&reply.usage);
        self.cost = self.cost.plus(cost.unwrap_or_default());
        self.cost_known &= cost.is_some();
        if reply.usage.known {
            self.last_measured_prompt = Some((reply.usage.input, self.message_bytes));
        }
        let cut = reply.finish == FinishReason::Length;
        // A reply that ended in an error without tool calls is not an answer either.
        let empty =
            reply.is_empty() || (reply.finish == FinishReason::Error && reply.tool_calls().next().is_none());
        let mut parts = reply.parts.clone();
        self.calls = admit_calls(&mut parts, &mut self.call_ids, call.iteration, cut);
        self.collect_answer(&parts, cut);
        self.last_reply = Some(LastReply { finish: reply.finish, has_calls: !self.calls.is_empty(), empty });
        self.failures = 0;
        self.last_error = None;
        self.tried.clear();
        self.delayed_ms = 0;
        self.parked_count = 0;
        self.ignore_cooldowns = false;
        self.truncated_replies = if cut { self.truncated_replies + 1 } else { 0 };
        self.empty_replies = if empty { self.empty_replies + 1 } else { 0 };
        if !empty {
            self.push_message(Message { role: crate::Role::Assistant, parts });
        }
    }

    fn collect_answer(&mut self, parts: &[MessagePart], cut: bool) {
        let continues = self.truncated_replies > 0 && self.calls.is_empty();
        if !continues {
            self.answer.clear();
        }
        if self.calls.is_empty() || !cut {
            self.answer.extend(parts.iter().filter_map(|part| match &part.kind {
                crate::PartKind::Text { text } => Some(text.clone()),
                _ => None,
            }));
        }
    }

    /// Records the effect of a tool run on the workspace.
    fn record_tool_effect(
        &mut self,
        effect: EffectId,
        run: &ToolRun,
        open: &OpenEffect,
        outcome: &Outcome,
        after: Option<SnapshotId>,
        at: Timestamp,
    ) {
        let Some(before) = open.snapshot else { return };
        self.history.beginning.get_or_insert(before);
        self.history.current.get_or_insert(before);
        match (outcome, after) {
            (Outcome::Interrupted | Outcome::SandboxLost { .. }, Some(left)) => self.history.aside.push(left),
            (_, Some(snapshot)) => {
                let about = run.call.arguments.chars().take(MAX_STEP_CHARS).collect();
                let tool = run.call.name.clone();
                self.history.push_step(ToolStep { effect, tool, about, snapshot, at });
            }
            (_, None) => self.has_unsaved_changes = true,
        }
    }

    /// Sets the result of a tool run. If `restorable`, the workspace is restored to its state before the run, so the
    /// run can be repeated.
    fn settle_tool(
        &mut self,
        effect: EffectId,
        run: &ToolRun,
        outcome: &Outcome,
        restorable: bool,
        at: Timestamp,
    ) {
        let found = self.calls.iter().position(|c| c.state == CallState::Running(effect));
        let Some(index) = found else { return };
        let again = (run.access.repeatable() || restorable) && self.cancel.is_none();
        if let Outcome::SandboxLost { why } = outcome {
            self.sandbox_loss = Some(why.clone());
        }
        let mut retry = |not_before| {
            self.calls[index].state = CallState::Waiting { tries: run.attempt, not_before };
        };
        match outcome {
            Outcome::ToolDone { output } => self.apply_output(index, output),
            Outcome::Interrupted if again => retry(None),
            Outcome::SandboxLost { .. } if again && run.attempt < 2 => {
                retry(Some(at.after(READ_RETRY_DELAY)))
            }
            Outcome::Interrupted => self.finish_call(index, INTERRUPTED_NOTE.into(), false),
            Outcome::Unknown { why } => {
                self.finish_call(index, format!("outcome unknown: {why}. {UNKNOWN_NOTE}").into(), false);
            }
            Outcome::SandboxLost { why } => {
                let text = format!("the sandbox went away ({why}). {INTERRUPTED_NOTE}");
                self.finish_call(index, text.into(), false);
            }
            _ => self.finish_call(index, CANCELLED_NOTE.into(), false),
        }
        self.close_turn();
    }

    fn apply_output(&mut self, index: usize, output: &ToolOutput) {
        self.tools.total_ms += output.duration_ms;
        self.finish_call(index, output.content.clone(), output.is_ok());
    }
}
