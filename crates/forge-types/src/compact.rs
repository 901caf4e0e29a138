//! Compaction: the oldest part of a conversation gives way to its summary (MEM-4).

use crate::{FinishReason, Money, Payload, Timestamp, Usage};
use serde::{Deserialize, Serialize};

/// Messages of a conversation that follow one another: the places from `from` to before `until`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessageSpan {
    /// The first place.
    pub from: u32,
    /// The place after the last.
    pub until: u32,
}

impl MessageSpan {
    /// Whether a place is one of these.
    pub const fn holds(self, place: u32) -> bool {
        self.from <= place && place < self.until
    }

    /// How many there are.
    pub const fn len(self) -> u32 {
        self.until.saturating_sub(self.from)
    }

    /// Whether there are none.
    pub const fn is_empty(self) -> bool {
        self.len() == 0
    }
}

/// Why a conversation is compacted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CompactCause {
    /// Its prompt has grown beyond the share of the window that it may fill (`memory.trigger_ratio`).
    Grown,
    /// The provider refused it as too long.
    Overflow,
}

/// The model that is asked for a summary.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SummaryCall {
    /// Which of the plan's targets.
    pub target: u32,
    /// The summary's allowance in tokens.
    pub max_tokens: u64,
    /// Tokens of the prompt, estimated.
    pub input_estimate: u64,
    /// Not to be sent before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Timestamp>,
}

/// The making of a summary.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compaction {
    /// The messages that it takes the place of, oldest first. Never a call without its results.
    pub gone: Vec<MessageSpan>,
    /// Why.
    pub cause: CompactCause,
    /// The try, from 1.
    pub attempt: u32,
    /// Whom to ask for it; nobody: it is an extract of the texts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ask: Option<SummaryCall>,
    /// Bytes that its text may have.
    pub room: u64,
    /// Bytes that the text of the messages may have in the request for it.
    pub most: u64,
    /// Why nobody is asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// Who made a summary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SummaryBy {
    /// A model.
    Model,
    /// Nobody: it is an extract.
    Extract,
}

/// What asking a model for a summary took.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SummaryCost {
    /// The model as the provider names it.
    pub model: String,
    /// Tokens.
    pub usage: Usage,
    /// Milliseconds from sending to the last byte.
    pub latency_ms: u64,
    /// Why the reply ended.
    pub finish: FinishReason,
    /// What it cost; `None` if the price is unknown.
    pub cost: Option<Money>,
}

/// A summary, before it joins the conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConversationSummary {
    /// The text.
    pub text: Payload,
    /// Who made it.
    pub by: SummaryBy,
    /// Why it is an extract.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// What asking a model took, even if its answer was of no use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked: Option<SummaryCost>,
}

/// How the window of a model is used; frozen with the plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContextRule {
    /// Share of the window in percent above which a prompt is compacted.
    #[serde(default = "ContextRule::percent")]
    pub compact_percent: u8,
    /// The tool that looks up what was compacted, offered once something was.
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
