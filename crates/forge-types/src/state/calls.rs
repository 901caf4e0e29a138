//! Tool calls of the last reply, from their arrival until their results join the conversation.

use crate::{EffectId, Message, MessagePart, PartKind, Payload, RunState, ToolCall, ToolResultPart};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::sync::Arc;

/// The state of a tool call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CallState {
    /// Not started.
    Waiting {
        /// Attempts so far.
        tries: u32,
        /// Earliest time of the next attempt.
        not_before: Option<crate::Timestamp>,
    },
    /// In progress as this effect.
    Running(EffectId),
    /// Finished with this result.
    Done(Box<ToolResultPart>),
}

/// A tool call of the last reply.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingCall {
    /// The call; its id is unique in the run.
    pub call: ToolCall,
    /// Whether the reply uses this id twice.
    pub duplicate: bool,
    /// Whether the reply was truncated, in which case the call may be too.
    pub cut: bool,
    /// The state of the call.
    pub state: CallState,
}

impl PendingCall {
    /// Returns whether the call has a result.
    pub const fn is_done(&self) -> bool {
        matches!(self.state, CallState::Done(_))
    }
}

/// Makes the ids of a reply's tool calls unique within the run, and marks ids that the reply uses twice.
///
/// Some servers count from zero in every reply and some give no id, so an id seen in an *earlier* reply is only
/// renamed. A duplicate id within *one* reply is ambiguous: the later call is marked and not run.
pub(super) fn admit_calls(
    parts: &mut [MessagePart],
    used: &mut BTreeSet<Arc<str>>,
    turn: u32,
    cut: bool,
) -> Vec<PendingCall> {
    let mut here = BTreeSet::new();
    let mut pending = Vec::new();
    for part in parts {
        let PartKind::Call(call) = &mut part.kind else { continue };
        let duplicate = !call.id.is_empty() && !here.insert(call.id.clone());
        if call.id.is_empty() || used.contains(call.id.as_str()) {
            let stem = if call.id.is_empty() { "call".to_owned() } else { call.id.clone() };
            let fresh = (1_u32..)
                .map(|n| format!("{stem}_{turn}_{n}"))
                .find(|id| !used.contains(id.as_str()))
                .expect("an endless range holds an unused number");
            call.id = fresh;
        }
        used.insert(call.id.as_str().into());
        pending.push(PendingCall {
            call: call.clone(),
            duplicate,
            cut,
            state: CallState::Waiting { tries: 0, not_before: None },
        });
    }
    pending
}

impl RunState {
    /// Returns the pending call that runs as `effect`.
    pub fn call_of(&self, effect: EffectId) -> Option<&PendingCall> {
        self.calls.iter().find(|pending| pending.state == CallState::Running(effect))
    }

    pub(super) fn finish_call(&mut self, at: usize, content: Payload, ok: bool) {
        let Some(pending) = self.calls.get_mut(at) else { return };
        pending.state = CallState::Done(Box::new(ToolResultPart {
            call_id: pending.call.id.clone(),
            name: pending.call.name.clone(),
            content,
            ok,
        }));
    }

    /// Moves the results into the conversation, in call order, once all calls of the reply have one.
    pub(super) fn close_turn(&mut self) {
        if self.calls.is_empty() || !self.calls.iter().all(PendingCall::is_done) {
            return;
        }
        for pending in std::mem::take(&mut self.calls) {
            if let CallState::Done(result) = pending.state {
                self.push_message(Message::tool(*result));
            }
        }
    }

    pub(super) fn push_message(&mut self, message: Message) {
        self.push_shared(Arc::new(message));
    }

    pub(super) fn push_shared(&mut self, message: Arc<Message>) {
        self.message_bytes += message.sent_bytes();
        self.messages.push(message);
    }
}
