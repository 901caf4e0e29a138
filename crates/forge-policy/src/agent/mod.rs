//! The decider of agents.
//!
//! [`next_step`] starts model calls and tool calls, refuses calls, or finishes the run. The loop ends if and only if a
//! reply contains no tool calls and was not cut off (LOOP-1).

mod judge;
mod turn;

pub(crate) use turn::next_turn;

use crate::lifecycle::DecisionInput;
use crate::router;
use forge_types::{AgentPlanRef, Decision};

/// Returns the next step of a running agent.
pub fn next_step(input: DecisionInput<'_>, plan: AgentPlanRef<'_>) -> Decision {
    let DecisionInput { state, cooldowns, now, .. } = input;
    if !state.calls.is_empty() {
        return router::detect_repetition(state, plan).unwrap_or_else(|| judge::next_calls(state, plan));
    }
    if plan.agent.executor.answers_with_tool_output() {
        router::next_step(state, plan, cooldowns, now)
    } else {
        turn::next_turn(state, plan, cooldowns, now)
    }
}
