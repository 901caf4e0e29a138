//! Contents of the run directory's files (JRN-1): pure projections of a run for people and scripts.
//!
//! The engine never reads these files. A payload stored by hash is shown as a reference; a caller that needs its
//! text loads it into the events and the state first.

use crate::data::is_zero;
use crate::{PlanFacts, Projector, TokenTotals, WireEvent, arguments_value, payload_text};
use forge_types::{
    ApplyOutcome, CallState, Effect, EgressRecord, ErrorInfo, Event, EventKind, LimitKind, Message,
    MessagePart, NetworkPolicy, Outcome, PartKind, PendingCall, Plan, Role, RunId, RunState, RunStatus,
    SandboxLayer, SandboxLimits, Savings, Timestamp, ToolCall, Transcript, WaitingFor, WorkspaceMode,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// A tool call in a run record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolInvocation {
    /// The tool.
    pub tool: String,
    /// The arguments; a text if they are not valid JSON.
    pub arguments: Value,
    /// The result that the model received.
    pub result: String,
    /// The turn.
    pub iteration: u32,
    /// Time of the start.
    pub timestamp: Timestamp,
    /// Duration in milliseconds.
    pub duration_ms: u64,
    /// Whether the tool succeeded.
    pub ok: bool,
}

/// Token counts, named as in the run record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordTokens {
    /// All prompt tokens.
    pub prompt: u64,
    /// Reply tokens.
    pub completion: u64,
    /// The sum of both.
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
    /// The resolved configuration with redacted secrets.
    pub config: Value,
    /// The status.
    pub status: RunStatus,
    /// The condition that the run waits for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting_for: Option<WaitingFor>,
    /// The phase.
    pub phase: String,
    /// Turns.
    pub iterations: u32,
    /// Tokens.
    pub tokens: RecordTokens,
    /// Dollars spent on calls with known prices.
    pub cost_usd: f64,
    /// Tool calls in the order of their start.
    pub tool_invocations: Vec<ToolInvocation>,
    /// Time of creation.
    pub created_at: Timestamp,
    /// Time of the first claim.
    pub started_at: Option<Timestamp>,
    /// Time of the end.
    pub completed_at: Option<Timestamp>,
    /// The error that ended it.
    pub error: Option<ErrorInfo>,
    /// The limit that ended it.
    pub limit: Option<LimitKind>,
}

/// Builds the run record of a run from its `state` and its journal, `events`.
pub fn run_record(state: &RunState, plan: Option<&Plan>, events: &[Event]) -> RunRecord {
    let created = state.created.as_deref();
    let tokens = TokenTotals::from(state.usage);
    RunRecord {
        id: state.run,
        task: created.map_or_else(String::new, |c| payload_text(&c.task)),
        repo_path: created.map_or_else(String::new, |c| c.repo.to_string_lossy().into_owned()),
        pipeline: created.map_or_else(String::new, |c| c.pipeline.clone()),
        executor: "react".to_owned(),
        config: plan.map_or(Value::Null, |plan| plan.shared.config.clone()),
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

/// Returns all tool calls of a journal, including rejected ones, in the order of their start.
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
        arguments: arguments_value(&call.arguments),
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
        Outcome::Unknown { why } => entry.result = format!("outcome unknown: {why}"),
        _ => "cancelled".clone_into(&mut entry.result),
    }
}

/// A tool call in a line of `messages.jsonl`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessageCall {
    /// The call's id.
    pub id: String,
    /// The tool.
    pub name: String,
    /// The arguments; a text if they are not valid JSON.
    pub arguments: Value,
    /// Provider state that belongs to this call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thought_signature: Option<String>,
}

/// A line of `messages.jsonl` (LOOP-5).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessageLine {
    /// The speaker.
    pub role: Role,
    /// The text.
    pub content: String,
    /// The call that a tool's message answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_call_id: Option<String>,
    /// The calls that the model made.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<MessageCall>,
}

/// Returns the complete conversation of a journal, preceded by the system prompt: summarised messages at their
/// original positions, followed by their summary.
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

/// Returns the current conversation, preceded by the system prompt and followed by the results so far of an
/// unfinished turn.
pub fn message_lines(state: &RunState, plan: Option<&Plan>) -> Vec<MessageLine> {
    let agent = plan.and_then(Plan::agent);
    let system = agent.map(|plan| text_line(Role::System, plan.agent.system.clone()));
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
        arguments: arguments_value(&call.arguments),
        thought_signature: part.opaque.as_ref().map(|opaque| opaque.data.clone()),
    }
}

/// Returns the lines of `events.jsonl`.
pub fn wire_events(run: RunId, plan: Option<&Plan>, events: &[Event]) -> Vec<WireEvent> {
    Projector::new(run, plan.map(PlanFacts::from)).project_all(events)
}

/// Totals of the tool calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolTotals {
    /// Executed calls.
    pub calls: u64,
    /// Average duration of a call in milliseconds.
    pub average_ms: u64,
    /// `run_shell` commands among them.
    pub shell_commands: u32,
}

/// The run's sandbox.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SummarySandbox {
    /// The backend.
    pub backend: String,
    /// The kind of workspace, with the reason for a fallback.
    #[serde(default)]
    pub view: String,
    /// The image for the root directory, if specified.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// The network access of the sandbox; fixed when the run is created.
    #[serde(default)]
    pub network: NetworkPolicy,
    /// Resource limits; fixed when the run is created.
    #[serde(default)]
    pub limits: SandboxLimits,
    /// The isolation layers and their states.
    pub layers: Vec<SandboxLayer>,
    /// Workspace paths that were masked because they look like credentials.
    pub masked: Vec<String>,
    /// Warnings for the user.
    pub warnings: Vec<String>,
    /// Hosts that the sandbox reached or tried to reach.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub egress: Vec<EgressRecord>,
}

/// The changes of the run to its workspace, and their application to the repository.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SummaryWorkspace {
    /// The way in which the repository is modified.
    pub mode: WorkspaceMode,
    /// Steps that may have written, each with a snapshot.
    pub steps: u32,
    /// The step that produced the current workspace; `None` if no step did.
    pub at_step: Option<u32>,
    /// Whether the result is not fully applied to the repository.
    pub pending: bool,
    /// The outcome of the last attempt to apply.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub apply: Option<ApplyOutcome>,
}

/// `summary.json`: the result of a run (CLI-3, OBS-3).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunSummary {
    /// The run.
    pub run_id: RunId,
    /// The status.
    pub status: RunStatus,
    /// The condition that the run waits for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting_for: Option<WaitingFor>,
    /// The task.
    pub task: String,
    /// The repository.
    pub repo: String,
    /// The model's answer.
    pub answer: String,
    /// The error that ended the run, or the last error of a waiting run.
    pub error: Option<ErrorInfo>,
    /// The limit that ended it.
    pub limit: Option<LimitKind>,
    /// Milliseconds worked on the run, excluding waits.
    pub duration_ms: u64,
    /// Turns.
    pub iterations: u32,
    /// The provider.
    pub provider: String,
    /// The model.
    pub model: String,
    /// Tokens.
    pub tokens: TokenTotals,
    /// Whether the provider reported the tokens; otherwise they are estimates.
    pub tokens_known: bool,
    /// Dollars spent on calls with known prices.
    pub cost_usd: f64,
    /// Whether the price of every call was known.
    pub cost_known: bool,
    /// Cost with the reference model; absent if one of the prices is unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub savings: Option<Savings>,
    /// Tool calls.
    pub tools: ToolTotals,
    /// The first paths with contents that differ from the baseline.
    pub files_modified: Vec<String>,
    /// The number of such paths that are not listed.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub files_omitted: u64,
    /// The sandbox, once opened.
    pub sandbox: Option<SummarySandbox>,
    /// The workspace.
    #[serde(default)]
    pub workspace: SummaryWorkspace,
    /// Time of creation.
    pub created_at: Timestamp,
    /// Time of the end.
    pub completed_at: Option<Timestamp>,
}

/// Returns the result of a run at `now`, which is irrelevant for a run that has ended.
pub fn run_summary(state: &RunState, plan: Option<&Plan>, now: Timestamp) -> RunSummary {
    let created = state.created.as_deref();
    let ending = state.ending.as_ref();
    let route = plan.and_then(|plan| plan.route_at(state.target));
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
        provider: route.map_or_else(String::new, |route| route.provider.clone()),
        model: route.map_or_else(String::new, |route| route.model.clone()),
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
        files_omitted: ending.map_or(0, |ending| ending.files_omitted),
        sandbox: state.sandbox.as_ref().map(|report| SummarySandbox {
            backend: report.backend.clone(),
            view: report.view.clone(),
            image: plan.and_then(|plan| plan.shared.sandbox.image.clone()),
            network: plan.map_or_else(NetworkPolicy::default, |plan| plan.shared.sandbox.network.clone()),
            limits: plan.map_or_else(SandboxLimits::default, |plan| plan.shared.sandbox.limits),
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

/// Compares the cost with the reference model, if both prices are known and tokens were used.
fn compute_savings(state: &RunState, plan: &Plan) -> Option<Savings> {
    let used = state.usage.input > 0 || state.usage.output > 0;
    let reference = plan.agent()?.agent.reference.as_ref().filter(|_| state.cost_known && used)?;
    Some(reference.savings(&state.usage, state.cost))
}

fn workspace_summary(state: &RunState, plan: Option<&Plan>) -> SummaryWorkspace {
    let history = &state.history;
    let mode = plan.map_or_else(WorkspaceMode::default, |plan| plan.shared.sandbox.mode);
    let steps = u32::try_from(history.steps.len()).unwrap_or(u32::MAX);
    SummaryWorkspace {
        mode,
        steps,
        at_step: history.current_step(),
        pending: mode != WorkspaceMode::Inplace && history.is_pending(),
        apply: history.outcome.clone(),
    }
}
