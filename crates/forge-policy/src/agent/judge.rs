//! Selection of the tool calls of a reply that run now, wait, or are refused.
//!
//! Reads run in parallel; calls that write or run a command run alone, in call order. No call sees a workspace that
//! another call is changing, so results mean what the model assumes.

use crate::budget;
use crate::guard;
use forge_types::{
    AgentPlanRef, CallState, Decision, Effect, EffectId, EffectStart, ErrorInfo, ErrorKind, EventKind,
    PendingCall, RunState, ToolAccess, ToolCall, ToolCallVerdict, ToolRun, ToolSpec,
};

/// Maximum number of reads in flight.
const MAX_PARALLEL_READS: usize = 8;

pub(super) fn next_calls(state: &RunState, plan: AgentPlanRef<'_>) -> Decision {
    let mut decision = Decision::default();
    let mut reads = 0;
    for (index, pending) in state.calls.iter().enumerate() {
        match &pending.state {
            CallState::Done(_) => {}
            CallState::Running(effect) => {
                if !runs_read(state, *effect) {
                    break;
                }
                reads += 1;
            }
            CallState::Waiting { tries, not_before } => {
                let tool = match judge(state, plan, index, pending, *tries) {
                    Ok(tool) => tool,
                    Err((verdict, error)) => {
                        decision.record.push(refusal_event(pending, verdict, error));
                        continue;
                    }
                };
                let alone = tool.access != ToolAccess::Read;
                if (alone && reads > 0) || reads >= MAX_PARALLEL_READS {
                    break;
                }
                let run = ToolRun {
                    call: ToolCall { name: tool.name.clone(), ..pending.call.clone() },
                    access: tool.access,
                    attempt: tries + 1,
                    not_before: *not_before,
                };
                let effect = EffectId(state.next_effect.0 + decision.start.len() as u64);
                decision.start.push(EffectStart { effect, what: Effect::RunTool(run), reserved: None });
                if alone {
                    break;
                }
                reads += 1;
            }
        }
    }
    decision
}

fn runs_read(state: &RunState, effect: EffectId) -> bool {
    state
        .open
        .get(&effect)
        .is_some_and(|open| matches!(&open.what, Effect::RunTool(run) if run.access == ToolAccess::Read))
}

fn refusal_event(pending: &PendingCall, verdict: ToolCallVerdict, error: ErrorInfo) -> EventKind {
    EventKind::ToolCallRejected {
        call_id: pending.call.id.clone(),
        tool: pending.call.name.clone(),
        verdict,
        error,
    }
}

type CallRefusal = (ToolCallVerdict, ErrorInfo);

fn refuse<T>(verdict: ToolCallVerdict, kind: ErrorKind, message: String) -> Result<T, CallRefusal> {
    Err((verdict, ErrorInfo::fatal(kind, message)))
}

fn judge<'p>(
    state: &RunState,
    plan: AgentPlanRef<'p>,
    index: usize,
    pending: &PendingCall,
    tries: u32,
) -> Result<&'p ToolSpec, CallRefusal> {
    let call = &pending.call;
    if pending.cut {
        let text = "not executed: your reply was cut off at the token limit, so this call may be incomplete. \
                    Send it again, in smaller pieces if it is long";
        return refuse(ToolCallVerdict::Malformed, ErrorKind::BadArguments, text.to_owned());
    }
    if pending.duplicate {
        let text = "not executed: another call of the same reply has the same id. Send this one again";
        return refuse(ToolCallVerdict::Malformed, ErrorKind::BadArguments, text.to_owned());
    }
    let most = budget::limits(state, plan.shared).max_tool_calls_per_turn as usize;
    if index >= most {
        let text = format!("not executed: at most {most} tool calls are taken from one reply. Ask for fewer");
        return refuse(ToolCallVerdict::Limit, ErrorKind::BudgetExceeded, text);
    }
    let tool = find_tool(plan, call)?;
    let arguments = call.arguments.parsed().or_else(|why| {
        let text = format!("not executed: {why}. Send the call again with {}", tool.prompt_signature());
        refuse(ToolCallVerdict::Malformed, ErrorKind::BadArguments, text)
    })?;
    if let Err(why) = tool.check_arguments(arguments) {
        let text = format!("not executed: {why}. The tool is {}", tool.prompt_signature());
        return refuse(ToolCallVerdict::Malformed, ErrorKind::BadArguments, text);
    }
    if tool.access == ToolAccess::Exec && tries == 0 {
        let line = arguments.get("command").and_then(|value| value.as_str()).unwrap_or_default();
        judge_command(state, plan, line)?;
    }
    Ok(tool)
}

fn find_tool<'p>(plan: AgentPlanRef<'p>, call: &ToolCall) -> Result<&'p ToolSpec, CallRefusal> {
    if let Some(tool) = plan.agent.find_tool(&call.name) {
        return Ok(tool);
    }
    let names: Vec<_> = plan.agent.tools.iter().map(|tool| tool.name.as_str()).collect();
    let there = names.join(", ");
    if plan.agent.disabled.contains(&call.name) {
        let text = format!("the tool `{}` is not enabled in this run. Available tools: {there}", call.name);
        return refuse(ToolCallVerdict::Malformed, ErrorKind::NotEnabled, text);
    }
    let text = format!("there is no tool `{}`. Available tools: {there}", call.name);
    refuse(ToolCallVerdict::Malformed, ErrorKind::UnknownTool, text)
}

fn judge_command(state: &RunState, plan: AgentPlanRef<'_>, line: &str) -> Result<(), CallRefusal> {
    let most = budget::limits(state, plan.shared).max_shell_commands;
    if state.tools.shell_commands >= most {
        let text = format!("Shell command budget exhausted ({most})");
        return refuse(ToolCallVerdict::Limit, ErrorKind::BudgetExceeded, text);
    }
    guard::command::check_command(line, &plan.agent.commands)
        .or_else(|why| refuse(ToolCallVerdict::Command, ErrorKind::Denied, why.to_string()))
}
