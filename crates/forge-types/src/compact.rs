//! Compaction: a summary replaces the oldest part of a conversation (MEM-4).

use crate::{FinishReason, Money, Payload, Timestamp, Usage};
use serde::{Deserialize, Serialize};

/// A range of consecutive messages of a conversation: positions `from` (inclusive) to `until` (exclusive).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessageSpan {
    /// The first position.
    pub from: u32,
    /// The position after the last.
    pub until: u32,
}

impl MessageSpan {
    /// Returns whether `place` is in this range.
    pub const fn holds(self, place: u32) -> bool {
        self.from <= place && place < self.until
    }

    /// Returns the number of messages.
    pub const fn len(self) -> u32 {
        self.until.saturating_sub(self.from)
    }

    /// Returns whether the range is empty.
    pub const fn is_empty(self) -> bool {
        self.len() == 0
    }
}

/// The reason why a conversation is compacted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CompactCause {
    /// The prompt exceeds its share of the context window (`memory.trigger_ratio`).
    Grown,
    /// The provider rejected the prompt as too long.
    Overflow,
}

/// The model that is asked for a summary.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SummaryCall {
    /// Index of the plan's target to call.
    pub target: u32,
    /// Maximum number of tokens of the summary.
    pub max_tokens: u64,
    /// Estimated prompt tokens.
    pub input_estimate: u64,
    /// Earliest time at which the call may be sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Timestamp>,
}

/// A request to summarise part of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compaction {
    /// The messages that the summary replaces, oldest first. A call is never separated from its results.
    pub gone: Vec<MessageSpan>,
    /// The reason for the compaction.
    pub cause: CompactCause,
    /// The attempt, from 1.
    pub attempt: u32,
    /// The model call that makes the summary; `None`: the summary is extracted from the messages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ask: Option<SummaryCall>,
    /// Maximum size of the summary's text in bytes.
    pub room: u64,
    /// Maximum size of the messages' text in the summary request, in bytes.
    pub most: u64,
    /// The reason why no model is called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// The author of a summary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SummaryBy {
    /// A model.
    Model,
    /// No model: the summary is an extract of the messages.
    Extract,
}

/// Cost of a model call that makes a summary.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SummaryCost {
    /// The model as the provider names it.
    pub model: String,
    /// Tokens used.
    pub usage: Usage,
    /// Milliseconds from sending to the last byte.
    pub latency_ms: u64,
    /// The reason why the reply ended.
    pub finish: FinishReason,
    /// Cost of the call; `None` if the price is unknown.
    pub cost: Option<Money>,
}

/// A summary that is not yet part of the conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConversationSummary {
    /// The text.
    pub text: Payload,
    /// The author of the summary.
    pub by: SummaryBy,
    /// The reason why the summary is an extract.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// Cost of the model call, even if its reply was unusable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked: Option<SummaryCost>,
}

/// Rules for the use of a model's context window; frozen with the plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContextRule {
    /// Percentage of the window above which a prompt is compacted.
    #[serde(default = "ContextRule::percent")]
    pub compact_percent: u8,
    /// The tool that looks up compacted messages; offered after the first compaction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recall: Option<crate::ToolSpec>,
}

impl ContextRule {
    const fn percent() -> u8 {
        60
    }
}

impl Default for ContextRule {
    fn default() -> Self {
        Self { compact_percent: Self::percent(), recall: None }
    }
}
