//! The next model call, or the end of the run.

use super::{Decision, Start, park, reach_limit};
use crate::budget::{self, Allowance, Refusal};
use crate::compact;
use crate::fallback::{Ladder, Next};
use forge_types::{
    CompactCause, Cooldown, Effect, ErrorInfo, ErrorKind, Finish, LastReply, LimitKind, ModelCall, Plan,
    RunState, RunStatus, Timestamp, WaitingFor,
};

/// All calls of the last reply have their results: ask the model, try again, or end.
pub(crate) fn next_turn(state: &RunState, plan: &Plan, cooling: &[Cooldown], now: Timestamp) -> Decision {
    if !state.open.is_empty() {
        return Decision::default();
    }
    if let Some(decision) = compact::under_way(state, plan, now) {
        return decision;
    }
    let asking = Asking { state, plan, cooling, now };
    if state.last_error.is_some() {
        let shorter = compact::answers(state)
            .then(|| compact::begin(state, plan, state.target, CompactCause::Overflow))
            .flatten();
        return shorter.unwrap_or_else(|| asking.ask(state.iterations).still_too_long(state));
    }
    if state.iterations > 0 && state.last_reply.is_none() {
        // The call of this turn was interrupted before it had an outcome of its own.
        return asking.ask(state.iterations);
    }
    match state.last_reply.and_then(|reply| after_reply(state, plan, reply)) {
        Some(decision) => decision,
        None => asking.ask(state.iterations + 1),
    }
}

/// How the run ends with this reply; `None` if it goes on.
fn after_reply(state: &RunState, plan: &Plan, reply: LastReply) -> Option<Decision> {
    if reply.empty && state.empties > 1 {
        let text = format!(
            "{} gave an empty or broken reply twice in a row. Try another model",
            plan.target(state.target).route
        );
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

impl Decision {
    /// Says that a conversation was compacted in vain, if that is how the run ends.
    fn still_too_long(mut self, state: &RunState) -> Self {
        let error = self.finish.as_mut().and_then(|finish| finish.error.as_mut());
        if let Some(error) = error.filter(|error| error.kind == ErrorKind::ContextOverflow) {
            error.message += match state.compact.overflowed == Some(state.iterations) {
                true => ". The oldest part of the conversation was summarised once, and it is still too long",
                false => ". Nothing of the conversation can be summarised",
            };
        }
        self
    }
}

/// What the next call depends on.
#[derive(Clone, Copy)]
struct Asking<'a> {
    state: &'a RunState,
    plan: &'a Plan,
    cooling: &'a [Cooldown],
    now: Timestamp,
}

impl Asking<'_> {
    /// Asks the model, or whoever takes its place.
    fn ask(self, iteration: u32) -> Decision {
        let Self { state, plan, .. } = self;
        let limits = budget::limits(state, plan);
        if iteration > limits.max_iterations {
            return reach_limit(state, plan, LimitKind::Iterations, budget::iterations_message(&limits));
        }
        if !state.is_whole() {
            let text = "a tool call has no result, or two: the conversation can't be sent. This is a fault in \
                        forge; the journal holds what led to it";
            return Decision::failing(ErrorInfo::fatal(ErrorKind::LoopGuard, text));
        }
        let mut unfit = Vec::new();
        loop {
            let (target, not_before, passed) = match self.next(&unfit) {
                Next::Ask { target, not_before, passed } => (target, not_before, passed),
                Next::Park { until, reason } => {
                    return Decision::recording(park(state, WaitingFor::Retry, Some(until), reason));
                }
                Next::Fail(error) => {
                    let shorter = unfit.first().and_then(|(target, _)| self.shorter(*target));
                    return shorter.unwrap_or_else(|| Decision::failing(error));
                }
            };
            let Allowance { input, output, reserve } = match budget::allow(state, plan, target) {
                Ok(allowance) => {
                    if compact::is_due(state, plan, target)
                        && let Some(shorter) = self.shorter(target)
                    {
                        return shorter;
                    }
                    allowance
                }
                Err(Refusal::Limit(limit, message)) => return reach_limit(state, plan, limit, message),
                // Its own model rather than another with a larger window; another rather than less of the conversation.
                Err(Refusal::Error(error)) if target == 0 && error.kind == ErrorKind::ContextOverflow => {
                    if let Some(shorter) = self.shorter(target) {
                        return shorter;
                    }
                    if plan.fallbacks.is_empty() {
                        return Decision::failing(error);
                    }
                    unfit.push((target, error));
                    continue;
                }
                Err(Refusal::Error(error)) if plan.fallbacks.is_empty() => return Decision::failing(error),
                Err(Refusal::Error(error)) => {
                    unfit.push((target, error));
                    continue;
                }
            };
            let attempt = if iteration == state.iterations { state.tries + 1 } else { 1 };
            let call = ModelCall {
                iteration,
                attempt,
                max_tokens: output,
                not_before,
                input_estimate: input,
                target,
                passed,
            };
            let start = Start { effect: state.next_effect, what: Effect::CallModel(call), reserved: reserve };
            return Decision { start: vec![start], ..Decision::default() };
        }
    }

    /// The conversation made to fit the window of a target, if that can be done.
    fn shorter(self, target: u32) -> Option<Decision> {
        compact::begin(self.state, self.plan, target, CompactCause::Grown)
    }

    /// Whom to ask, if those that are `unfit` can't take this request.
    fn next(self, unfit: &[(u32, ErrorInfo)]) -> Next {
        let Self { state, plan, cooling, now } = self;
        let ladder = Ladder { state, plan, cooling, unfit, now };
        let unfit_now = unfit.iter().any(|(target, _)| *target == state.target);
        match &state.last_error {
            // The call was cut off before it had an outcome of its own: it is made again.
            Some(_) if !unfit_now && state.failures == 0 => {
                Next::Ask { target: state.target, not_before: None, passed: Vec::new() }
            }
            Some(error) if !unfit_now => ladder.after(error),
            _ => ladder.first(),
        }
    }
}
