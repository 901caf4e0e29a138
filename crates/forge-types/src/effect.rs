//! What a run does to the world, and what came of it.

use crate::{
    Compaction, ConversationSummary, ErrorInfo, ModelReply, Money, RejectedCandidate, Timestamp, ToolAccess,
    ToolCall, ToolOutput,
};
use serde::{Deserialize, Serialize};

/// A call of a model. The request itself follows from the run's state and its plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelCall {
    /// The turn, from 1.
    pub iteration: u32,
    /// The try of this turn, from 1.
    pub attempt: u32,
    /// The reply's allowance in tokens.
    pub max_tokens: u64,
    /// Not to be sent before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Timestamp>,
    /// Prompt tokens, estimated; what was reserved for it counts them all as uncached.
    pub input_estimate: u64,
    /// Which of the plan's targets is asked: 0 is its route, then its fallbacks.
    #[serde(default, skip_serializing_if = "is_first")]
    pub target: u32,
    /// Those of the targets that would have come before it, and why they were passed over.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub passed: Vec<RejectedCandidate>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
const fn is_first(target: &u32) -> bool {
    *target == 0
}

/// A run of a tool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolRun {
    /// The call; its id is unique in the run, its name canonical.
    pub call: ToolCall,
    /// What the tool touches.
    pub access: ToolAccess,
    /// The try of this call, from 1.
    pub attempt: u32,
    /// Not to be started before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Timestamp>,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "effect", rename_all = "snake_case")]
pub enum Effect {
    /// Ask the model.
    CallModel(ModelCall),
    /// Run a tool.
    RunTool(ToolRun),
    /// Summarise the oldest part of the conversation.
    Compact(Compaction),
}

impl Effect {
    /// The time before which it must not start.
    pub const fn not_before(&self) -> Option<Timestamp> {
        match self {
            Self::CallModel(call) => call.not_before,
            Self::RunTool(run) => run.not_before,
            Self::Compact(compaction) => match &compaction.ask {
                Some(ask) => ask.not_before,
                None => None,
            },
        }
    }
}

/// What came of an effect: exactly one per intent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// The model answered.
    Replied {
        /// The answer.
        reply: ModelReply,
        /// What it cost; `None` if the price is unknown.
        cost: Option<Money>,
    },
    /// The model call failed.
    ModelFailed {
        /// Why.
        error: ErrorInfo,
    },
    /// The tool gave a result, be it a failure.
    ToolDone {
        /// The result.
        output: ToolOutput,
    },
    /// There is a summary.
    Summarised {
        /// What it says and took.
        summary: ConversationSummary,
    },
    /// The sandbox went away while the tool ran or before it could.
    SandboxLost {
        /// What is known of it.
        why: String,
    },
    /// It was cancelled before it ended.
    Cancelled,
    /// The process that performed it died; how far it came is not known.
    Interrupted,
}
