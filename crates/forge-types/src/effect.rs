//! Effects of a run and their outcomes.

use crate::{
    ChildEnd, ChildRun, Compaction, ConversationSummary, Digest, ErrorInfo, ModelReply, Money,
    RejectedCandidate, RunId, Timestamp, ToolAccess, ToolCall, ToolOutput,
};
use serde::{Deserialize, Serialize};

/// A call of a model. The request itself follows from the run's state and its plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelCall {
    /// The turn, from 1.
    pub iteration: u32,
    /// The attempt of this turn, from 1.
    pub attempt: u32,
    /// Maximum number of tokens of the reply.
    pub max_tokens: u64,
    /// Earliest time at which the call may be sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Timestamp>,
    /// Estimated prompt tokens; the money reserved for the call assumes that none of them are cached.
    pub input_estimate: u64,
    /// Index of the plan's target to call: 0 is the route, then its fallbacks.
    #[serde(default, skip_serializing_if = "is_first")]
    pub target: u32,
    /// Targets that precede this one in the plan, with the reason why each was skipped.
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
    /// Resources that the tool uses.
    pub access: ToolAccess,
    /// The attempt of this call, from 1.
    pub attempt: u32,
    /// Earliest time at which the tool may start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Timestamp>,
}

impl ToolRun {
    /// Returns whether the tool acts on something outside of the run's workspace, which cannot be undone.
    pub fn is_outside(&self) -> bool {
        self.access == ToolAccess::Network
    }

    /// Returns the key by which a server recognises that a request is a repetition of an earlier one, if the tool acts
    /// [outside](Self::is_outside). All attempts at one tool call have the same key, and no other call of any run has it.
    pub fn idempotency_key(&self, run: RunId) -> Option<String> {
        const KEY_DIGITS: usize = 32;
        self.is_outside().then(|| {
            let digest = Digest::of_bytes(format!("{run}/{}", self.call.id).as_bytes()).to_string();
            digest[..KEY_DIGITS].to_owned()
        })
    }
}

/// An action of a run that reaches outside of its state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "effect", rename_all = "snake_case")]
pub enum Effect {
    /// Calls the model.
    CallModel(ModelCall),
    /// Runs a tool.
    RunTool(ToolRun),
    /// Summarises the oldest part of the conversation.
    Compact(Compaction),
    /// Starts a child run and waits for its end.
    StartRun(ChildRun),
}

impl Effect {
    /// Returns whether the effect acts on something outside of the run's workspace and cannot be undone.
    pub fn is_outside(&self) -> bool {
        matches!(self, Self::RunTool(run) if run.is_outside())
    }

    /// Returns the [idempotency key](ToolRun::idempotency_key) of a tool run.
    pub fn idempotency_key(&self, run: RunId) -> Option<String> {
        match self {
            Self::RunTool(tool) => tool.idempotency_key(run),
            Self::CallModel(_) | Self::Compact(_) | Self::StartRun(_) => None,
        }
    }

    /// Returns the earliest time at which the effect may start.
    pub const fn not_before(&self) -> Option<Timestamp> {
        match self {
            Self::CallModel(call) => call.not_before,
            Self::StartRun(child) => child.not_before,
            Self::RunTool(run) => run.not_before,
            Self::Compact(compaction) => match &compaction.ask {
                Some(ask) => ask.not_before,
                None => None,
            },
        }
    }
}

/// The outcome of an effect: exactly one per intent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// The model answered.
    Replied {
        /// The reply.
        reply: ModelReply,
        /// Cost of the call; `None` if the price is unknown.
        cost: Option<Money>,
    },
    /// The model call failed.
    ModelFailed {
        /// The error.
        error: ErrorInfo,
    },
    /// The tool returned a result, which may report a failure.
    ToolDone {
        /// The result.
        output: ToolOutput,
    },
    /// The summary is ready.
    Summarised {
        /// The summary and its cost.
        summary: ConversationSummary,
    },
    /// The child run ended.
    RunEnded {
        /// The end of the child run.
        end: ChildEnd,
    },
    /// The sandbox was lost before or while the tool ran.
    SandboxLost {
        /// The known cause.
        why: String,
    },
    /// The effect was cancelled before it ended.
    Cancelled,
    /// The process that performed the effect died; its progress is unknown.
    Interrupted,
    /// The effect reached outside of the workspace, and whether it took place can't be learned.
    Unknown {
        /// The reason.
        why: String,
    },
}
