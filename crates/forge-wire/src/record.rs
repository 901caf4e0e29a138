//! The run directory's files as data (JRN-1): pure projections of a run for people and scripts.
//!
//! Nothing here is ever read back by the engine. Payloads that are stored by hash show where they are; whoever
//! wants their text loads it into the events and the state before.

use crate::{PlanFacts, Projector, TokenTotals, WireEvent, payload_text};
use forge_types::{
    ApplyOutcome, CallState, Effect, EgressRecord, ErrorInfo, Event, EventKind, LimitKind, Message,
    MessagePart, NetworkPolicy, Outcome, PartKind, PendingCall, Plan, Role, RunId, RunState, RunStatus,
    SandboxLayer, SandboxLimits, Savings, Timestamp, ToolCall, Transcript, WaitingFor, WorkspaceMode,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// A tool call as a run record holds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolInvocation {
    /// The tool.
    pub tool: String,
    /// The arguments; a text if they are not valid JSON.
    pub arguments: Value,
    /// What the model was told.
    pub result: String,
    /// The turn.
    pub iteration: u32,
    /// When it began.
    pub timestamp: Timestamp,
    /// How long it took.
    pub duration_ms: u64,
    /// Whether it worked.
    pub ok: bool,
}

/// Tokens in the run record's words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordTokens {
    /// All prompt tokens.
    pub prompt: u64,
    /// Reply tokens.
    pub completion: u64,
    /// Both.
    pub total: u64,
}

/// `run.json` (LOOP-4).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunRecord {
    /// The run.
    pub id: RunId,
    /// The task.
    pub task: String,
    /// The repository.
    pub repo_path: String,
    /// The pipeline.
    pub pipeline: String,
    /// The executor.
    pub executor: String,
    /// The resolved configuration, secrets masked.
    pub config: Value,
    /// Where it stands.
    pub status: RunStatus,
    /// What it waits for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting_for: Option<WaitingFor>,
    /// What it is at.
    pub phase: String,
    /// Turns.
    pub iterations: u32,
    /// Tokens.
    pub tokens: RecordTokens,
    /// Dollars spent on calls of known price.
    pub cost_usd: f64,
    /// Tool calls in the order in which they began.
    pub tool_invocations: Vec<ToolInvocation>,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it was first taken.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub completed_at: Option<Timestamp>,
    /// The error that ended it.
    pub error: Option<ErrorInfo>,
    /// The limit that ended it.
    pub limit: Option<LimitKind>,
}

/// The run record of a run in `state`, whose journal is `events`.
pub fn run_record(state: &RunState, plan: Option<&Plan>, events: &[Event]) -> RunRecord {
    let created = state.created.as_deref();
    let tokens = TokenTotals::from(state.usage);
    RunRecord {
        id: state.run,
        task: created.map_or_else(String::new, |c| payload_text(&c.task)),
        repo_path: created.map_or_else(String::new, |c| c.repo.to_string_lossy().into_owned()),
        pipeline: created.map_or_else(String::new, |c| c.pipeline.clone()),
        executor: "react".to_owned(),
        config: plan.map_or(Value::Null, |plan| plan.config.clone()),
        status: state.status,
        waiting_for: state.waiting_for,
        phase: state.phase().to_owned(),
        iterations: state.iterations,
        tokens: RecordTokens { prompt: tokens.input, completion: tokens.output, total: tokens.total },
        cost_usd: state.cost.as_usd(),
        tool_invocations: tool_invocations(state.run, events),
        created_at: state.created_at,
        started_at: state.started_at,
        completed_at: state.ending.as_ref().map(|ending| ending.at),
        error: state.ending.as_ref().and_then(|ending| ending.error.clone()),
        limit: state.ending.as_ref().and_then(|ending| ending.limit),
    }
}

/// All tool calls of a journal, refused ones included, in the order in which they began.
pub fn tool_invocations(run: RunId, events: &[Event]) -> Vec<ToolInvocation> {
    let mut state = RunState::new(run);
    let mut open = BTreeMap::new();
    let mut all: Vec<ToolInvocation> = Vec::new();
    for event in events {
        let refused = refused_call(&state, event);
        if state.apply(event).is_err() {
            break;
        }
        match &event.kind {
            EventKind::Intended { effect, what: Effect::RunTool(run), .. } => {
                open.insert(*effect, all.len());
                all.push(new_invocation(&run.call, state.iterations, event.at));
            }
            EventKind::Settled { effect, outcome, .. } => {
                if let Some(entry) = open.remove(effect).and_then(|at| all.get_mut(at)) {
                    settle_invocation(entry, outcome);
                }
            }
            EventKind::ToolCallRejected { error, .. } => {
                if let Some(call) = refused {
                    let mut entry = new_invocation(&call, state.iterations, event.at);
                    entry.result.clone_from(&error.message);
                    all.push(entry);
                }
            }
            _ => {}
        }
    }
    all
}

fn refused_call(state: &RunState, event: &Event) -> Option<ToolCall> {
    let EventKind::ToolCallRejected { call_id, .. } = &event.kind else { return None };
    let open = |pending: &&PendingCall| pending.call.id == *call_id && !pending.is_done();
    state.calls.iter().find(open).map(|pending| pending.call.clone())
}

fn new_invocation(call: &ToolCall, iteration: u32, timestamp: Timestamp) -> ToolInvocation {
    ToolInvocation {
        tool: call.name.clone(),
        arguments: parsed_arguments(call),
        result: String::new(),
        iteration,
        timestamp,
        duration_ms: 0,
        ok: false,
    }
}

fn settle_invocation(entry: &mut ToolInvocation, outcome: &Outcome) {
    match outcome {
        Outcome::ToolDone { output } => {
            entry.result = payload_text(&output.content);
            entry.duration_ms = output.duration_ms;
            entry.ok = output.is_ok();
        }
        Outcome::SandboxLost { why } => entry.result = format!("the sandbox went away: {why}"),
        Outcome::Interrupted => "interrupted".clone_into(&mut entry.result),
        _ => "cancelled".clone_into(&mut entry.result),
    }
}

fn parsed_arguments(call: &ToolCall) -> Value {
    call.parse_arguments().map_or_else(|_| Value::String(call.arguments.clone()), Value::Object)
}

/// A tool call in a line of `messages.jsonl`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessageCall {
    /// Its id.
    pub id: String,
    /// The tool.
    pub name: String,
    /// The arguments; a text if they are not valid JSON.
    pub arguments: Value,
    /// State of the provider that came with just this call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thought_signature: Option<String>,
}

/// A line of `messages.jsonl` (LOOP-5).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessageLine {
    /// Who speaks.
    pub role: Role,
    /// What is said.
    pub content: String,
    /// The call that a tool's message answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_call_id: Option<String>,
    /// The calls that the model made.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<MessageCall>,
}

/// The whole conversation of a journal, the system prompt first: messages that a summary took the place of stand where
/// they were said, and the summary after them.
pub fn all_message_lines(state: &RunState, plan: Option<&Plan>, events: &[Event]) -> Vec<MessageLine> {
    match Transcript::from_events(state.run, events) {
        Ok(entries) if state.compact.times > 0 => {
            let whole = RunState {
                messages: entries.into_iter().map(|entry| entry.message).collect(),
                calls: state.calls.clone(),
                ..RunState::new(state.run)
            };
            message_lines(&whole, plan)
        }
        _ => message_lines(state, plan),
    }
}

/// The conversation so far, the system prompt first; results of an unfinished turn that are known stand last.
pub fn message_lines(state: &RunState, plan: Option<&Plan>) -> Vec<MessageLine> {
    let system = plan.map(|plan| text_line(Role::System, plan.system.clone()));
    let done = state.calls.iter().filter_map(|pending| match &pending.state {
        CallState::Done(result) => Some(message_line(&Message::tool((**result).clone()))),
        _ => None,
    });
    system.into_iter().chain(state.messages.iter().map(|message| message_line(message))).chain(done).collect()
}

fn text_line(role: Role, content: String) -> MessageLine {
    MessageLine { role, content, tool_call_id: None, tool_calls: Vec::new() }
}

fn message_line(message: &Message) -> MessageLine {
    let mut line = text_line(message.role, String::new());
    for part in &message.parts {
        match &part.kind {
            PartKind::Text { text: said } => line.content.push_str(&payload_text(said)),
            PartKind::Result(result) => {
                line.content.push_str(&payload_text(&result.content));
                line.tool_call_id = Some(result.call_id.clone());
            }
            PartKind::Call(call) => line.tool_calls.push(message_call(call, part)),
            PartKind::Reasoning { .. } => {}
        }
    }
    line
}

fn message_call(call: &ToolCall, part: &MessagePart) -> MessageCall {
    MessageCall {
        id: call.id.clone(),
        name: call.name.clone(),
        arguments: parsed_arguments(call),
        thought_signature: part.opaque.as_ref().map(|opaque| opaque.data.clone()),
    }
}

/// The lines of `events.jsonl`.
pub fn wire_events(run: RunId, plan: Option<&Plan>, events: &[Event]) -> Vec<WireEvent> {
    Projector::new(run, plan.map(PlanFacts::from)).project_all(events)
}

/// Tool calls added up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolTotals {
    /// Calls that were run.
    pub calls: u64,
    /// Milliseconds per call on average.
    pub average_ms: u64,
    /// Commands of `run_shell` among them.
    pub shell_commands: u32,
}

/// The run's box.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SummarySandbox {
    /// The backend.
    pub backend: String,
    /// How the workspace is shown, with the reason for a fallback.
    #[serde(default)]
    pub view: String,
    /// The image that gives the root folder, if one was named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// What the box may reach; fixed when the run was created.
    #[serde(default)]
    pub network: NetworkPolicy,
    /// Limits; fixed when the run was created.
    #[serde(default)]
    pub limits: SandboxLimits,
    /// Each layer of isolation and whether it was in force.
    pub layers: Vec<SandboxLayer>,
    /// Workspace paths that tools could not see because they look like credentials.
    pub masked: Vec<String>,
    /// Things the user should know.
    pub warnings: Vec<String>,
    /// Hosts that the box reached or tried to reach.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub egress: Vec<EgressRecord>,
}

/// What the run did to its workspace, and what of it the repository holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SummaryWorkspace {
    /// How the repository is worked on.
    pub mode: WorkspaceMode,
    /// Steps that may have written, each with a snapshot.
    pub steps: u32,
    /// The step at which the workspace stands; `None`: at one that no step left.
    pub at_step: Option<u32>,
    /// Whether the repository lacks something of the result.
    pub pending: bool,
    /// What became of the last attempt to apply.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub apply: Option<ApplyOutcome>,
}

/// `summary.json`: what a run came to (CLI-3, OBS-3).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunSummary {
    /// The run.
    pub run_id: RunId,
    /// Where it stands.
    pub status: RunStatus,
    /// What it waits for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting_for: Option<WaitingFor>,
    /// The task.
    pub task: String,
    /// The repository.
    pub repo: String,
    /// The model's last words.
    pub answer: String,
    /// The error that ended it, or the last one of a run that waits.
    pub error: Option<ErrorInfo>,
    /// The limit that ended it.
    pub limit: Option<LimitKind>,
    /// Milliseconds worked on it, waiting not counted.
    pub duration_ms: u64,
    /// Turns.
    pub iterations: u32,
    /// The provider.
    pub provider: String,
    /// The model.
    pub model: String,
    /// Tokens.
    pub tokens: TokenTotals,
    /// Whether the provider reported them; otherwise they are estimates.
    pub tokens_known: bool,
    /// Dollars spent on calls of known price.
    pub cost_usd: f64,
    /// Whether the price of every call was known.
    pub cost_known: bool,
    /// What the reference model would have cost; absent where one of the prices is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub savings: Option<Savings>,
    /// Tool calls.
    pub tools: ToolTotals,
    /// Paths that differ from the beginning, by comparison of contents.
    pub files_modified: Vec<String>,
    /// The box, once it was opened.
    pub sandbox: Option<SummarySandbox>,
    /// The workspace.
    #[serde(default)]
    pub workspace: SummaryWorkspace,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it ended.
    pub completed_at: Option<Timestamp>,
}

/// What a run has come to at `now`; for one that ended `now` does not matter.
pub fn run_summary(state: &RunState, plan: Option<&Plan>, now: Timestamp) -> RunSummary {
    let created = state.created.as_deref();
    let ending = state.ending.as_ref();
    RunSummary {
        run_id: state.run,
        status: state.status,
        waiting_for: state.waiting_for,
        task: created.map_or_else(String::new, |c| payload_text(&c.task)),
        repo: created.map_or_else(String::new, |c| c.repo.to_string_lossy().into_owned()),
        answer: state.answer.iter().map(payload_text).collect(),
        error: ending.map_or_else(|| state.last_error.clone(), |ending| ending.error.clone()),
        limit: ending.and_then(|ending| ending.limit),
        duration_ms: state.worked_ms(now),
        iterations: state.iterations,
        provider: plan.map_or_else(String::new, |plan| plan.target_at(state.target).route.provider.clone()),
        model: plan.map_or_else(String::new, |plan| plan.target_at(state.target).route.model.clone()),
        tokens: state.usage.into(),
        tokens_known: state.usage.known,
        cost_usd: state.cost.as_usd(),
        cost_known: state.cost_known,
        savings: plan.and_then(|plan| compute_savings(state, plan)),
        tools: ToolTotals {
            calls: state.tools.calls,
            average_ms: state.tools.total_ms.checked_div(state.tools.calls).unwrap_or(0),
            shell_commands: state.tools.shell_commands,
        },
        files_modified: ending.map_or_else(Vec::new, |ending| ending.files_modified.clone()),
        sandbox: state.sandbox.as_ref().map(|report| SummarySandbox {
            backend: report.backend.clone(),
            view: report.view.clone(),
            image: plan.and_then(|plan| plan.sandbox.image.clone()),
            network: plan.map_or_else(NetworkPolicy::default, |plan| plan.sandbox.network.clone()),
            limits: plan.map_or_else(SandboxLimits::default, |plan| plan.sandbox.limits),
            layers: report.layers.clone(),
            masked: report.masked.clone(),
            warnings: report.warnings.clone(),
            egress: state.history.egress.clone(),
        }),
        workspace: workspace_summary(state, plan),
        created_at: state.created_at,
        completed_at: ending.map(|ending| ending.at),
    }
}

/// The comparison with the reference model, where both prices are known and something was used.
fn compute_savings(state: &RunState, plan: &Plan) -> Option<Savings> {
    let used = state.usage.input > 0 || state.usage.output > 0;
    let reference = plan.reference.as_ref().filter(|_| state.cost_known && used)?;
    Some(reference.savings(&state.usage, state.cost))
}

fn workspace_summary(state: &RunState, plan: Option<&Plan>) -> SummaryWorkspace {
    let history = &state.history;
    let mode = plan.map_or_else(WorkspaceMode::default, |plan| plan.sandbox.mode);
    let steps = u32::try_from(history.steps.len()).unwrap_or(u32::MAX);
    SummaryWorkspace {
        mode,
        steps,
        at_step: history.current_step(),
        pending: mode != WorkspaceMode::Inplace && history.is_pending(),
        apply: history.outcome.clone(),
    }
}
