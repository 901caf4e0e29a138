//! The step after a dispatched tool: the end of the run, or one more model call (LOOP-8).

use super::reply::wants_more;
use super::{BACKEND_DOWN, NO_REPLY, REPEATED_STEP};
use crate::{agent, lifecycle};
use forge_types::{
    AgentPlanRef, CallState, Cooldown, Decision, ErrorInfo, ErrorKind, Executor, LimitKind, Message,
    MessagePart, PartKind, Payload, Role, RunFinish, RunState, RunStatus, Timestamp, ToolResultPart,
};

/// The result of a router run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentResult {
    /// The answer, or one of the fixed sentences.
    pub output: String,
    /// The tool that produced the output, if one was dispatched.
    pub tool: Option<String>,
    /// Number of dispatched tools.
    pub steps: u32,
    /// Whether the output is an answer.
    pub ok: bool,
    /// The error, if the output is no answer.
    pub error: Option<String>,
}

impl AgentResult {
    /// Returns the result of a run with texts loaded.
    pub fn from_state(state: &RunState) -> Self {
        let output: String = state.answer.iter().filter_map(Payload::inline_text).collect();
        let error = state.ending.as_ref().and_then(|ending| ending.error.as_ref());
        Self {
            output,
            tool: last_result(state).map(|(_, result)| result.name.clone()),
            steps: count_steps(state),
            ok: state.status == RunStatus::Completed,
            error: error.map(|error| error.message.clone()),
        }
    }
}

/// Decides the step after the last one; asks the model if nothing ends the run.
pub fn next_step(state: &RunState, plan: AgentPlanRef<'_>, cooling: &[Cooldown], now: Timestamp) -> Decision {
    if let Some(decision) = after_step(state, plan) {
        return decision;
    }
    let mut decision = agent::next_turn(state, plan, cooling, now);
    if let Some(finish) = &mut decision.finish
        && state.last_error.is_some()
        && finish.status == RunStatus::Failed
    {
        finish.answer = Some(BACKEND_DOWN.into());
    }
    decision
}

/// Returns the end of the run that follows from its last step, or `None` if the run continues.
fn after_step(state: &RunState, plan: AgentPlanRef<'_>) -> Option<Decision> {
    if !state.open.is_empty() || state.last_error.is_some() || !state.steering.is_empty() {
        return None;
    }
    let reply = state.last_reply?;
    if reply.empty || !reply.has_calls {
        let text = format!("{} returned neither a tool nor an answer", plan.agent.first.route);
        return Some(fail_with_answer(ErrorKind::RouterParse, text, NO_REPLY.into()));
    }
    let (call, result) = last_result(state)?;
    let more = wants_more(call) && matches!(plan.agent.executor, Executor::Router { .. });
    if more && count_steps(state) < max_steps(plan) {
        return None;
    }
    if !result.ok || result.content.is_empty() {
        let fixed = format!("Tool error: {}", result.name);
        let kind = if result.ok { ErrorKind::EmptyOutput } else { ErrorKind::Execution };
        let text = match result.content.inline_text().map(str::trim) {
            Some(why) if !why.is_empty() => format!("{fixed}: {why}"),
            _ => fixed.clone(),
        };
        return Some(fail_with_answer(kind, text, fixed.into()));
    }
    if more {
        let message =
            format!("the router asked for more than {} (router.max_steps)", format_steps(max_steps(plan)));
        let mut decision = lifecycle::reach_limit(state, plan.shared, LimitKind::Steps, message);
        if let Some(finish) = &mut decision.finish {
            finish.answer = Some(result.content.clone());
        }
        return Some(decision);
    }
    let answer = Some(result.content.clone());
    let finish = RunFinish { status: RunStatus::Completed, limit: None, error: None, answer };
    Some(Decision { finish: Some(finish), ..Decision::default() })
}

fn format_steps(steps: u32) -> String {
    if steps == 1 { "one step".to_owned() } else { format!("{steps} steps") }
}

const fn max_steps(plan: AgentPlanRef<'_>) -> u32 {
    match &plan.agent.executor {
        Executor::Router { max_steps, .. } => *max_steps,
        _ => 1,
    }
}

/// Ends the run if it would dispatch a step that it already dispatched (LOOP-8).
pub fn detect_repetition(state: &RunState, plan: AgentPlanRef<'_>) -> Option<Decision> {
    if !matches!(plan.agent.executor, Executor::Router { .. }) {
        return None;
    }
    let before = |pending: &forge_types::PendingCall| {
        let call = &pending.call;
        let same = |old: &forge_types::ToolCall| {
            old.id != call.id && old.name == call.name && old.arguments == call.arguments
        };
        matches!(pending.state, CallState::Waiting { tries: 0, .. })
            && state.messages.iter().any(|message| message.tool_calls().any(same))
    };
    state
        .calls
        .iter()
        .any(before)
        .then(|| fail_with_answer(ErrorKind::LoopGuard, REPEATED_STEP.to_owned(), REPEATED_STEP.into()))
}

fn fail_with_answer(kind: ErrorKind, message: String, answer: Payload) -> Decision {
    let error = Some(ErrorInfo::fatal(kind, message));
    let finish = RunFinish { status: RunStatus::Failed, limit: None, error, answer: Some(answer) };
    Decision { finish: Some(finish), ..Decision::default() }
}

fn count_steps(state: &RunState) -> u32 {
    let tools = state.messages.iter().filter(|message| message.role == Role::Tool).count();
    u32::try_from(tools).unwrap_or(u32::MAX)
}

/// Returns the last call and its result.
fn last_result(state: &RunState) -> Option<(&MessagePart, &ToolResultPart)> {
    let result = state.messages.iter().rev().flat_map(|message| tool_results(message)).next()?;
    let is_its =
        |part: &&MessagePart| matches!(&part.kind, PartKind::Call(call) if call.id == result.call_id);
    let call = state.messages.iter().rev().flat_map(|message| &message.parts).find(is_its)?;
    Some((call, result))
}

fn tool_results(message: &Message) -> impl Iterator<Item = &ToolResultPart> {
    message.parts.iter().filter_map(|part| match &part.kind {
        PartKind::Result(result) => Some(result),
        _ => None,
    })
}
