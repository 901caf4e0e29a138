//! What belongs to each kind of wire event that can occur.

use super::WireKind;
use forge_types::{
    ErrorInfo, FinishReason, LimitKind, RejectedCandidate, RouteStage, RunSource, RunStatus, TaskKind, Tier,
    Timestamp, Usage, WaitingFor,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

macro_rules! wire_data {
    ($($(#[$doc:meta])* $variant:ident = $name:literal),* $(,)?) => {
        /// The data of a wire event by its kind.
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(tag = "kind", content = "data")]
        pub enum WireData {
            $($(#[$doc])* #[serde(rename = $name)] $variant($variant)),*
        }

        impl WireData {
            /// The kind.
            pub const fn kind(&self) -> WireKind {
                match self { $(Self::$variant(_) => WireKind::$variant),* }
            }
        }
    };
}

wire_data! {
    /// A run exists.
    RunCreated = "run.created",
    /// A worker took it.
    RunStarted = "run.started",
    /// Its status changed.
    RunChanged = "run.changed",
    /// It ended.
    RunFinished = "run.finished",
    /// A turn began.
    IterationStarted = "iteration.started",
    /// A turn ended.
    IterationCompleted = "iteration.completed",
    /// A model was chosen.
    ModelRouted = "model.routed",
    /// A model is asked.
    ModelRequested = "model.requested",
    /// A model answered.
    ModelCompleted = "model.completed",
    /// A model call failed.
    ModelFailed = "model.failed",
    /// A model called a tool.
    ToolCalled = "tool.called",
    /// A tool call has its result.
    ToolCompleted = "tool.completed",
    /// The box changed its state.
    SandboxChanged = "sandbox.changed",
    /// A command began.
    ExecStarted = "exec.started",
    /// A command ended.
    ExecCompleted = "exec.completed",
    /// The run waits for something outside.
    WaitRequested = "wait.requested",
    /// What it waited for came.
    WaitResolved = "wait.resolved",
    /// A guard refused something.
    GuardChecked = "guard.checked",
    /// A budget is nearly or wholly used.
    BudgetChanged = "budget.changed",
}

/// Tokens of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenTotals {
    /// All prompt tokens.
    pub input: u64,
    /// Reply tokens.
    pub output: u64,
    /// Both.
    pub total: u64,
}

impl From<Usage> for TokenTotals {
    fn from(usage: Usage) -> Self {
        Self { input: usage.input, output: usage.output, total: usage.input.saturating_add(usage.output) }
    }
}

/// `run.created`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunCreated {
    /// The task.
    pub task: String,
    /// The pipeline's name.
    pub pipeline: String,
    /// The repository.
    pub repo: String,
    /// Where the run came from.
    pub source: RunSource,
}

/// `run.started`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunStarted {
    /// Which process took it (`host:pid`).
    pub worker_id: String,
    /// How often it was taken, this time included.
    pub attempt: u32,
}

/// `run.changed`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunChanged {
    /// Status before.
    pub from: RunStatus,
    /// Status now.
    pub to: RunStatus,
    /// What the run is at now.
    pub phase: String,
    /// What it was at.
    pub previous_phase: String,
    /// What it waits for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting_for: Option<WaitingFor>,
    /// Why, in words for a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// `run.finished`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunFinished {
    /// How it ended.
    pub status: RunStatus,
    /// The limit that ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<LimitKind>,
    /// The error that ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorInfo>,
    /// Turns.
    pub iterations: u32,
    /// Tokens.
    pub tokens: TokenTotals,
    /// Dollars spent on calls of known price.
    pub cost_usd: f64,
    /// Milliseconds worked on it, waiting not counted.
    pub duration_ms: u64,
    /// Paths that differ from the beginning.
    pub files_modified: Vec<String>,
}

/// `iteration.started`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IterationStarted {
    /// The turn, from 1.
    pub n: u32,
    /// The limit, if it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<u32>,
}

/// `iteration.completed`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IterationCompleted {
    /// The turn.
    pub n: u32,
    /// Tool calls in it.
    pub tool_calls: u32,
    /// Tokens used in it.
    pub tokens: u64,
}

/// `model.routed`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelRouted {
    /// The provider.
    pub provider: String,
    /// The model.
    pub model: String,
    /// What kind of work it is for.
    pub task_type: TaskKind,
    /// How hard the task is taken to be.
    pub tier: Tier,
    /// The stage that made the choice.
    pub stage: RouteStage,
    /// Why.
    pub reason: String,
    /// Everybody who was not taken.
    pub rejected: Vec<RejectedCandidate>,
}

/// `model.requested`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelRequested {
    /// The provider.
    pub provider: String,
    /// The model.
    pub model: String,
    /// The try of this turn, from 1.
    pub attempt: u32,
    /// Messages of the conversation in the request, the system prompt not counted.
    pub messages: u64,
    /// Tools offered.
    pub tools: u64,
    /// Milliseconds until it is sent, where a retry waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay_ms: Option<u64>,
}

/// `model.completed`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelCompleted {
    /// The provider.
    pub provider: String,
    /// The model that answered, as the provider names it.
    pub model: String,
    /// Tokens.
    pub usage: Usage,
    /// Dollars; absent if the price is unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost_usd: Option<f64>,
    /// Milliseconds from sending to the last byte.
    pub latency_ms: u64,
    /// Why the reply ended.
    pub finish: FinishReason,
    /// The reply's text, of which live frames were the beginnings.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub text: String,
}

/// `model.failed`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelFailed {
    /// The provider.
    pub provider: String,
    /// The model.
    pub model: String,
    /// The error's kind; `cancelled` or `interrupted` if it was ended from outside.
    pub reason: String,
    /// What happened and what to do next.
    pub message: String,
    /// Whether trying again may help.
    pub retryable: bool,
    /// Milliseconds until somebody is asked again, or that the provider asked to wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_in_ms: Option<u64>,
    /// Who is asked next, as `provider/model`, if that is somebody else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// `tool.called`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolCalled {
    /// The call's id.
    pub call_id: String,
    /// The tool.
    pub tool: String,
    /// The arguments; a text if they are not valid JSON.
    pub arguments: Value,
    /// The turn.
    pub iteration: u32,
}

/// `tool.completed`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolCompleted {
    /// The call's id.
    pub call_id: String,
    /// The tool.
    pub tool: String,
    /// Whether it worked.
    pub ok: bool,
    /// The exit code, if a command ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// Characters of the whole output.
    pub output_chars: u64,
    /// Whether something of it was left out.
    pub truncated: bool,
    /// How long it took.
    pub duration_ms: u64,
    /// The error's kind, if it did not work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The first 200 characters of what went wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// `sandbox.changed`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxChanged {
    /// `idle`, `running` or `stopped`.
    pub state: String,
    /// The backend.
    pub backend: String,
    /// The box's id.
    pub id: String,
    /// Whether it was started again after it had gone away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restarted: Option<bool>,
}

/// `exec.started`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecStarted {
    /// The command line.
    pub command: String,
    /// Tries before this one.
    pub retry_number: u32,
    /// The box's id.
    pub sandbox_id: String,
}

/// `exec.completed`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExecCompleted {
    /// The exit code; absent if the command never got that far.
    pub exit_code: Option<i32>,
    /// Whether a time limit ended it.
    pub timed_out: bool,
    /// Most memory used, where it was measured.
    pub memory_mb: Option<f64>,
    /// How long it took.
    pub duration_ms: u64,
}

/// `wait.requested`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitRequested {
    /// For what.
    pub waiting_for: WaitingFor,
    /// Until when, if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// Why, in words for a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// `wait.resolved`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitResolved {
    /// For what it had waited.
    pub waiting_for: WaitingFor,
    /// Who ended the wait.
    pub by: String,
    /// `resume` or `end`.
    pub decision: String,
}

/// `guard.checked`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuardChecked {
    /// Which guard: `command` or `policy`.
    pub guard: String,
    /// What it looked at: the tool.
    pub name: String,
    /// `allow`, `warn`, `redact` or `deny`.
    pub verdict: String,
    /// Why.
    pub detail: String,
}

/// What a budget counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BudgetKind {
    /// Tokens.
    Tokens,
    /// Dollars.
    Cost,
    /// Commands of `run_shell`.
    Commands,
    /// Milliseconds.
    Time,
}

impl BudgetKind {
    /// The name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tokens => "tokens",
            Self::Cost => "cost",
            Self::Commands => "commands",
            Self::Time => "time",
        }
    }
}

/// How far a budget is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BudgetLevel {
    /// Nearly.
    Alert,
    /// Wholly.
    Exceeded,
}

/// `budget.changed`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BudgetChanged {
    /// Which budget.
    pub budget: BudgetKind,
    /// How much is used, in the budget's unit (tokens, dollars, commands, milliseconds).
    pub used: f64,
    /// How much there is.
    pub limit: f64,
    /// How far that is.
    pub level: BudgetLevel,
}
