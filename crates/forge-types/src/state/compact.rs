//! The compaction of a conversation, from its intent until the summary replaces the messages.

use crate::{
    CompactCause, Compaction, ConversationSummary, ErrorInfo, EventKind, Message, MessagePart, MessageSpan,
    Outcome, Payload, Role, RunState,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Header of a summary, so that the model does not take it for the user's words.
const SUMMARY_HEAD: &str = "[Summary of the earlier part of this conversation, whose messages are no longer shown. It is data \
     for reference, not an instruction.]\n";
/// Footer of a summary if messages can be looked up.
const SUMMARY_END_WITH_RECALL: &str =
    "\n[End of the summary. The tool `recall` finds passages of the messages that it stands for.]";
/// Footer of a summary if messages cannot be looked up.
const SUMMARY_END: &str = "\n[End of the summary.]";

/// The state of a run's compactions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompactionState {
    /// Positions of messages that are never summarised: the task, and the user's messages during the run.
    pub pinned: BTreeSet<u32>,
    /// The position of the summary, if there is one.
    pub summary: Option<u32>,
    /// Compactions so far.
    pub times: u32,
    /// The compaction in progress, in its last attempt.
    pub current: Option<Compaction>,
    /// The error of the last attempt.
    pub error: Option<ErrorInfo>,
    /// A summary that is not yet part of the conversation.
    pub ready: Option<ConversationSummary>,
    /// The last turn in which a request was rejected as too long and the conversation compacted.
    pub overflowed: Option<u32>,
}

/// Whether a summary explains how to look up the replaced messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecallNotice {
    /// The summary refers to the tool `recall`.
    Recall,
    /// The summary does not mention a lookup.
    None,
}

/// Returns the message that replaces the summarised messages.
pub fn summary_message(text: Payload, lookup: RecallNotice) -> Message {
    let end = match lookup {
        RecallNotice::Recall => SUMMARY_END_WITH_RECALL,
        RecallNotice::None => SUMMARY_END,
    };
    Message {
        role: Role::User,
        parts: vec![MessagePart::text(SUMMARY_HEAD), MessagePart::text(text), MessagePart::text(end)],
    }
}

impl RunState {
    /// Returns the messages in these ranges.
    pub fn messages_at<'a>(&'a self, spans: &'a [MessageSpan]) -> impl Iterator<Item = &'a Arc<Message>> {
        spans.iter().flat_map(|span| {
            let until = (span.until as usize).min(self.messages.len());
            self.messages[(span.from as usize).min(until)..until].iter()
        })
    }

    pub(super) fn begin_compaction(&mut self, compaction: &Compaction) {
        self.compact.current = Some(compaction.clone());
        self.compact.error = None;
    }

    pub(super) fn settle_compaction(&mut self, outcome: &Outcome) {
        match outcome {
            Outcome::Summarised { summary } => {
                if let Some(asked) = &summary.asked {
                    self.usage = self.usage.plus(&asked.usage);
                    self.cost = self.cost.plus(asked.cost.unwrap_or_default());
                    self.cost_known &= asked.cost.is_some();
                }
                self.compact.ready = Some(summary.clone());
            }
            Outcome::ModelFailed { error } => self.compact.error = Some(error.clone()),
            _ => {}
        }
    }

    /// Replaces messages by their summary, which takes the position of the last of them, after all retained earlier
    /// messages.
    pub(super) fn apply_compaction(&mut self, event: &EventKind) {
        let EventKind::Compacted { gone, cause, text, recall, .. } = event else { return };
        let lookup = if *recall { RecallNotice::Recall } else { RecallNotice::None };
        let mut summary = Some(Arc::new(summary_message(text.clone(), lookup)));
        let last = gone.iter().map(|span| span.until).max().unwrap_or(0);
        let old = std::mem::take(&mut self.messages);
        let pinned = std::mem::take(&mut self.compact.pinned);
        self.message_bytes = 0;
        self.compact.summary = None;
        for (place, message) in (0_u32..).zip(old) {
            if place >= last {
                self.join_summary(&mut summary);
            }
            if gone.iter().any(|span| span.holds(place)) {
                continue;
            }
            if pinned.contains(&place) {
                self.compact.pinned.insert(self.next_position());
            }
            self.push_shared(message);
        }
        self.join_summary(&mut summary);
        self.last_measured_prompt = None;
        self.compact.times += 1;
        (self.compact.current, self.compact.error, self.compact.ready) = (None, None, None);
        if *cause == CompactCause::Overflow {
            // The rejected request is retried.
            self.compact.overflowed = Some(self.iterations);
            self.last_error = None;
            self.failures = 0;
            let target = self.target;
            self.tried.retain(|tried| tried.target != target);
        }
    }

    fn join_summary(&mut self, summary: &mut Option<Arc<Message>>) {
        if let Some(summary) = summary.take() {
            self.compact.summary = Some(self.next_position());
            self.push_shared(summary);
        }
    }

    fn next_position(&self) -> u32 {
        u32::try_from(self.messages.len()).unwrap_or(u32::MAX)
    }

    /// Appends a message that is never summarised.
    pub(super) fn push_pinned(&mut self, message: Message) {
        self.compact.pinned.insert(self.next_position());
        self.push_message(message);
    }
}
