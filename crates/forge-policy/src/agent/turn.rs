//! The next model call, or the end of the run.

use super::{Decision, Start, park, reach_limit};
use crate::budget::{self, Allowance, Refusal};
use crate::retry::{self, Next};
use forge_types::{
    Effect, ErrorInfo, ErrorKind, Finish, LastReply, LimitKind, ModelCall, Plan, RunState, RunStatus,
    Timestamp, WaitingFor,
};

/// All calls of the last reply have their results: ask the model, try again, or end.
pub(super) fn next_turn(state: &RunState, plan: &Plan, now: Timestamp) -> Decision {
    if !state.open.is_empty() {
        return Decision::default();
    }
    if let Some(error) = &state.last_error {
        return after_failure(state, plan, error, now);
    }
    if state.iterations > 0 && state.last_reply.is_none() {
        // The call of this turn was interrupted before it had an outcome of its own.
        return ask(state, plan, state.iterations, None);
    }
    match state.last_reply.and_then(|reply| after_reply(state, plan, reply)) {
        Some(decision) => decision,
        None => ask(state, plan, state.iterations + 1, None),
    }
}

/// How the run ends with this reply; `None` if it goes on.
fn after_reply(state: &RunState, plan: &Plan, reply: LastReply) -> Option<Decision> {
    if reply.empty && state.empties > 1 {
        let text = format!("{} gave an empty or broken reply twice in a row. Try another model", plan.route);
        return Some(Decision::failing(ErrorInfo::fatal(ErrorKind::MalformedResponse, text)));
    }
    if reply.finish == Finish::Length && state.cuts > 1 {
        let text = "the reply was cut off at the token limit twice in a row. Raise model.max_tokens, or split \
                    the task";
        return Some(Decision::failing(ErrorInfo::fatal(ErrorKind::MalformedResponse, text)));
    }
    let answered = !reply.has_calls && !reply.empty && reply.finish != Finish::Length;
    (answered && state.steering.is_empty()).then(|| Decision::finishing(RunStatus::Completed, None, None))
}

fn after_failure(state: &RunState, plan: &Plan, error: &ErrorInfo, now: Timestamp) -> Decision {
    let seed = retry::seed(state.run, state.next_effect, state.failures);
    match retry::next(&plan.retry, state.failures, error, seed, now) {
        Next::TryAt(at) => ask(state, plan, state.iterations, Some(at)),
        Next::ParkUntil(until) => {
            let reason =
                format!("{}: asked to wait until {until}. `forge resume` goes on at once", error.message);
            Decision::recording(park(state, WaitingFor::Retry, Some(until), reason))
        }
        Next::GiveUp => Decision::failing(give_up(state, plan, error)),
    }
}

fn give_up(state: &RunState, plan: &Plan, error: &ErrorInfo) -> ErrorInfo {
    let message = if state.failures > 1 {
        format!("{} failed {} times; the last time: {}", plan.route, state.failures, error.message)
    } else {
        error.message.clone()
    };
    ErrorInfo { message, ..error.clone() }
}

fn ask(state: &RunState, plan: &Plan, iteration: u32, not_before: Option<Timestamp>) -> Decision {
    let limits = budget::limits(state, plan);
    if iteration > limits.max_iterations {
        return reach_limit(state, plan, LimitKind::Iterations, budget::iterations_message(&limits));
    }
    if !state.is_whole() {
        let text = "a tool call has no result, or two: the conversation can't be sent. This is a fault in forge; \
                    the journal holds what led to it";
        return Decision::failing(ErrorInfo::fatal(ErrorKind::LoopGuard, text));
    }
    match budget::allow(state, plan) {
        Ok(Allowance { input, output, reserve }) => {
            let attempt = if iteration == state.iterations { state.tries + 1 } else { 1 };
            let call =
                ModelCall { iteration, attempt, max_tokens: output, not_before, input_estimate: input };
            let start = Start { effect: state.next_effect, what: Effect::CallModel(call), reserved: reserve };
            Decision { start: vec![start], ..Decision::default() }
        }
        Err(Refusal::Limit(limit, message)) => reach_limit(state, plan, limit, message),
        Err(Refusal::Error(error)) => Decision::failing(error),
    }
}
