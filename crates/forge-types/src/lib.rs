//! The nouns of Forge: what a run is made of, without any I/O.
//!
//! A run is a journal of [`Event`]s and [`RunState`] is its fold. Everything here is plain data: this crate
//! knows no clock, no environment, no async runtime and no storage.

mod command;
mod compact;
mod effect;
mod egress;
mod error;
mod event;
mod executor;
mod id;
mod limits;
mod memory;
mod message;
mod model;
mod money;
mod plan;
pub mod record;
mod routing;
mod sandbox;
mod state;
mod status;
mod time;
mod tool;
mod usage;
pub mod wire;

pub use command::Command;
pub use compact::{
    CompactCause, Compaction, ContextRule, Span, Summary, SummaryBy, SummaryCall, SummaryCost,
};
pub use effect::{Effect, ModelCall, Outcome, ToolRun};
pub use egress::{BadEntry, EgressRecord, EgressRules, EgressVerdict, KeySwap};
pub use error::{Class, ErrorInfo, ErrorKind};
pub use event::{Created, Event, EventKind, Source, Travel, Verdict};
pub use executor::{Executor, ToolLayer};
pub use id::{CommandId, Digest, EffectId, IdError, RunId, Seq};
pub use limits::{LimitKind, Limits, OnLimit};
pub use memory::{Fact, Said};
pub use message::{
    MOST_MESSAGE_CHARS, Message, Opaque, Part, PartKind, Payload, Role, ToolCall, ToolResultPart,
};
pub use model::{
    EmbedRequest, Embeddings, Finish, JsonFormat, ModelReply, ModelRequest, ModelSettings, ReplyFormat,
    Route, Unfit,
};
pub use money::{Money, Price};
pub use plan::{
    Ceiling, CommandRules, CostRule, MemoryGuard, ModelFacts, Plan, PullRequestRules, RemoteRepository,
    RetryRule, Target, TargetRef,
};
pub use routing::{
    Cooldown, Reference, Rejected, RouteStage, Routing, Savings, StageVerdict, TaskKind, Tier, WeightRow,
};
pub use sandbox::{
    ApplyPolicy, ChangeKind, Conflict, FileChange, Layer, LayerState, NetworkPolicy, SandboxLimits,
    SandboxReport, SandboxSpec, SandboxState, SnapshotId, WorkspaceLimits, WorkspaceMode,
};
pub use state::{
    ApplyOutcome, CallState, Compacting, Ending, Entry, History, LastReply, Lookup, OpenEffect, OutOfOrder,
    Passage, PendingCall, RunState, Step, ToolRecord, Transcript, Tried, summary_message,
};
pub use status::{InvalidTransition, RunStatus, WaitingFor};
pub use time::Timestamp;
pub use tool::{ParamSpec, ParamType, Parameters, ToolAccess, ToolCategory, ToolOutput, ToolSpec};
pub use usage::Usage;
