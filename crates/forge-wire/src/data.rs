//! The data of each kind of wire event.

use super::WireKind;
use forge_types::{
    ErrorInfo, FinishReason, LimitKind, Payload, RejectedCandidate, RouteStage, RunSource, RunStatus,
    TaskKind, Tier, Timestamp, ToolArguments, Usage, WaitingFor,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Returns whether a count is zero, so that it is left out.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde calls")]
pub(crate) const fn is_zero(count: &u64) -> bool {
    *count == 0
}

macro_rules! wire_data {
    ($($(#[$doc:meta])* $variant:ident = $name:literal),* $(,)?) => {
        /// The data of a wire event, by kind.
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(tag = "kind", content = "data")]
        pub enum WireData {
            $($(#[$doc])* #[serde(rename = $name)] $variant($variant)),*
        }

        impl WireData {
            /// Returns the kind.
            pub const fn kind(&self) -> WireKind {
                match self { $(Self::$variant(_) => WireKind::$variant),* }
            }
        }
    };
}

wire_data! {
    /// A run was created.
    RunCreated = "run.created",
    /// A worker claimed the run.
    RunStarted = "run.started",
    /// The status of the run changed.
    RunChanged = "run.changed",
    /// The run ended.
    RunFinished = "run.finished",
    /// A turn began.
    IterationStarted = "iteration.started",
    /// A turn ended.
    IterationCompleted = "iteration.completed",
    /// A model was chosen.
    ModelRouted = "model.routed",
    /// A model call started.
    ModelRequested = "model.requested",
    /// A model answered.
    ModelCompleted = "model.completed",
    /// A model call failed.
    ModelFailed = "model.failed",
    /// A model called a tool.
    ToolCalled = "tool.called",
    /// A tool call completed.
    ToolCompleted = "tool.completed",
    /// The state of the sandbox changed.
    SandboxChanged = "sandbox.changed",
    /// A command started.
    ExecStarted = "exec.started",
    /// A command ended.
    ExecCompleted = "exec.completed",
    /// The run waits for an external event.
    WaitRequested = "wait.requested",
    /// The wait ended.
    WaitResolved = "wait.resolved",
    /// A guard rejected an action.
    GuardChecked = "guard.checked",
    /// A budget is nearly or fully used.
    BudgetChanged = "budget.changed",
}

/// Tokens of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenTotals {
    /// All prompt tokens.
    pub input: u64,
    /// Reply tokens.
    pub output: u64,
    /// The sum of both.
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
    /// The source of the run.
    pub source: RunSource,
}

/// `run.started`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunStarted {
    /// The process that claimed the run (`host:pid`).
    pub worker_id: String,
    /// Number of claims, including this one.
    pub attempt: u32,
}

/// `run.changed`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunChanged {
    /// The previous status.
    pub from: RunStatus,
    /// The new status.
    pub to: RunStatus,
    /// The new phase.
    pub phase: String,
    /// The previous phase.
    pub previous_phase: String,
    /// The condition that the run waits for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting_for: Option<WaitingFor>,
    /// The reason, for display.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// `run.finished`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunFinished {
    /// The final status.
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
    /// Dollars spent on calls with known prices.
    pub cost_usd: f64,
    /// Milliseconds worked on the run, excluding waits.
    pub duration_ms: u64,
    /// The first paths that differ from the baseline.
    pub files_modified: Vec<String>,
    /// The number of such paths that are not listed.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub files_omitted: u64,
}

/// `iteration.started`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IterationStarted {
    /// The turn, from 1.
    pub n: u32,
    /// The limit, if known.
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
    /// The kind of work.
    pub task_type: TaskKind,
    /// The estimated difficulty of the task.
    pub tier: Tier,
    /// The stage that made the choice.
    pub stage: RouteStage,
    /// The reason for the choice.
    pub reason: String,
    /// All candidates that were not chosen.
    pub rejected: Vec<RejectedCandidate>,
}

/// `model.requested`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelRequested {
    /// The provider.
    pub provider: String,
    /// The model.
    pub model: String,
    /// The attempt of this turn, from 1.
    pub attempt: u32,
    /// Messages of the conversation in the request, excluding the system prompt.
    pub messages: u64,
    /// Tools offered.
    pub tools: u64,
    /// Milliseconds until the call is sent, if a retry is delayed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay_ms: Option<u64>,
}

/// `model.completed`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelCompleted {
    /// The provider.
    pub provider: String,
    /// The model that answered, by the provider's name for it.
    pub model: String,
    /// Tokens used.
    pub usage: Usage,
    /// Dollars; absent if the price is unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost_usd: Option<f64>,
    /// Milliseconds from the send to the last byte.
    pub latency_ms: u64,
    /// The reason why the reply ended.
    pub finish: FinishReason,
    /// The complete text of the reply; live frames carried it in parts.
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
    /// The error's kind; `cancelled`, `interrupted` or `outcome_unknown` if the call was ended externally.
    pub reason: String,
    /// The error and the next step for the user.
    pub message: String,
    /// Whether a retry may succeed.
    pub retryable: bool,
    /// Milliseconds until the next call, or the delay that the provider requested.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_in_ms: Option<u64>,
    /// The next model as `provider/model`, if it is a different one.
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
    /// Whether the tool succeeded.
    pub ok: bool,
    /// The exit code, if a command ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// Characters of the complete output.
    pub output_chars: u64,
    /// Whether the output is truncated.
    pub truncated: bool,
    /// Duration in milliseconds.
    pub duration_ms: u64,
    /// The error's kind, if the tool failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The first 200 characters of the error.
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
    /// The sandbox's id.
    pub id: String,
    /// Whether the sandbox was restarted after it had died.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restarted: Option<bool>,
}

/// `exec.started`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecStarted {
    /// The command line.
    pub command: String,
    /// Attempts before this one.
    pub retry_number: u32,
    /// The sandbox's id.
    pub sandbox_id: String,
}

/// `exec.completed`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExecCompleted {
    /// The exit code; absent if the command did not exit.
    pub exit_code: Option<i32>,
    /// Whether a timeout ended the command.
    pub timed_out: bool,
    /// Peak memory use, if measured.
    pub memory_mb: Option<f64>,
    /// Duration in milliseconds.
    pub duration_ms: u64,
}

/// `wait.requested`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitRequested {
    /// The condition that the run waits for.
    pub waiting_for: WaitingFor,
    /// The end of the wait, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// The reason, for display.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// `wait.resolved`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitResolved {
    /// The condition that the run waited for.
    pub waiting_for: WaitingFor,
    /// The source of the end of the wait.
    pub by: String,
    /// `resume` or `end`.
    pub decision: String,
}

/// `guard.checked`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuardChecked {
    /// The guard: `command`, `policy` or `egress`.
    pub guard: String,
    /// The checked object: a tool, or `host:port`.
    pub name: String,
    /// `allow`, `warn`, `redact` or `deny`.
    pub verdict: String,
    /// The reason.
    pub detail: String,
}

/// The unit of a budget.
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
    /// Returns the name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tokens => "tokens",
            Self::Cost => "cost",
            Self::Commands => "commands",
            Self::Time => "time",
        }
    }
}

/// The level of a budget's use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BudgetLevel {
    /// The budget is nearly used.
    Alert,
    /// The budget is fully used.
    Exceeded,
}

/// `budget.changed`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BudgetChanged {
    /// The budget.
    pub budget: BudgetKind,
    /// The used amount, in the budget's unit (tokens, dollars, commands, milliseconds).
    pub used: f64,
    /// The allowed amount.
    pub limit: f64,
    /// The level.
    pub level: BudgetLevel,
}

/// Returns the arguments as JSON; a text if they are not a JSON object.
pub(crate) fn arguments_value(arguments: &ToolArguments) -> Value {
    arguments.parsed().map_or_else(|_| Value::String(arguments.to_string()), |map| Value::Object(map.clone()))
}

/// Returns the text, or a reference to it if stored. Callers that need the full text load payloads before
/// projecting.
pub(crate) fn payload_text(payload: &Payload) -> String {
    match payload {
        Payload::Inline(text) => text.clone(),
        Payload::Stored { blob, chars, .. } => format!("[{chars} characters, stored as {blob}]"),
    }
}
