//! Domain types of Forge: the data that makes up a run, without any I/O.
//!
//! A run is a journal of [`Event`]s, and [`RunState`] is its fold. Everything here is plain data: this crate depends
//! on no clock, environment, async runtime or storage.

mod child;
mod command;
mod compact;
mod decision;
mod effect;
mod egress;
mod error;
mod event;
mod executor;
mod id;
mod limits;
mod listing;
mod memory;
mod message;
mod model;
mod money;
mod next_step;
mod plan;
mod routing;
mod sandbox;
mod state;
mod status;
mod time;
mod tool;
mod tool_arguments;
mod usage;

pub use child::{ChildEnd, ChildRun, ParentRun};
pub use command::RunCommand;
pub use compact::{
    CompactCause, Compaction, ContextRule, ConversationSummary, MessageSpan, SummaryBy, SummaryCall,
    SummaryCost,
};
pub use decision::{Decision, EffectStart, RunFinish};
pub use effect::{Effect, ModelCall, Outcome, ToolRun};
pub use egress::{BadEntry, EgressRecord, EgressRules, EgressVerdict, KeySwap};
pub use error::{ErrorClass, ErrorInfo, ErrorKind};
pub use event::{Event, EventKind, HistoryDirection, RunCreation, RunSource, ToolCallVerdict};
pub use executor::{Executor, ToolLayer};
pub use id::{CommandId, Digest, EffectId, IdError, RunId, Seq};
pub use limits::{LimitKind, OnLimit, RunLimits};
pub use listing::{ChangeList, MAX_LISTED_BYTES, MAX_LISTED_PATHS, truncate_listing};
pub use memory::{ChatMessage, MemoryFact};
pub use message::{
    MAX_MESSAGE_CHARS, Message, MessagePart, OpaqueState, PartKind, Payload, Role, ToolCall, ToolResultPart,
};
pub use model::{
    EmbedRequest, Embeddings, FinishReason, JsonFormat, ModelReply, ModelRequest, ModelRoute, ModelSettings,
    OnSchemaMismatch, ReplyFormat,
};
pub use money::{Money, Price};
pub use next_step::NextStep;
pub use plan::{
    AccountCeiling, AgentPlan, AgentPlanRef, CommandRules, CostRule, MemoryGuard, ModelFacts, ModelTarget,
    PipelineNode, PipelinePlan, Plan, PullRequestRules, RemoteRepository, RetryRule, SharedPlan, Work,
};
pub use routing::{
    Cooldown, ReferenceModel, RejectedCandidate, RouteStage, RoutingChoice, Savings, StageVerdict, TaskKind,
    Tier, WeightRow,
};
pub use sandbox::{
    ApplyConflict, ApplyPolicy, ChangeKind, NetworkPolicy, SandboxLayer, SandboxLayerState, SandboxLimits,
    SandboxReport, SandboxSpec, SandboxState, SnapshotId, WorkspaceChange, WorkspaceLimits, WorkspaceMode,
};
pub use state::{
    ApplyOutcome, CallState, ChildState, CompactionState, FailedTarget, LastReply, OpenEffect, OutOfOrder,
    Passage, PendingCall, RecallNotice, RunEnding, RunState, ToolRecord, ToolStep, Transcript,
    TranscriptEntry, WorkspaceHistory, summary_message,
};
pub use status::{InvalidTransition, RunStatus, WaitingFor};
pub use time::Timestamp;
pub use tool::{ParamSpec, ParamType, ParameterSchema, ToolAccess, ToolCategory, ToolOutput, ToolSpec};
pub use tool_arguments::ToolArguments;
pub use usage::Usage;
