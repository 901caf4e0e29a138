//! The next model call, or the end of the run.

use crate::budget::{self, Allowance, BudgetRefusal};
use crate::compact;
use crate::fallback::{FallbackChain, FallbackStep};
use crate::lifecycle::{park_event, reach_limit};
use forge_types::{
    AgentPlanRef, CompactCause, Cooldown, Decision, Effect, EffectStart, ErrorInfo, ErrorKind, FinishReason,
    LastReply, LimitKind, ModelCall, RunState, RunStatus, Timestamp, WaitingFor,
};

/// Continues once all calls of the last reply have results: asks the model, retries, or ends the run.
pub(crate) fn next_turn(
    state: &RunState,
    plan: AgentPlanRef<'_>,
    cooling: &[Cooldown],
    now: Timestamp,
) -> Decision {
    if !state.open.is_empty() {
        return Decision::default();
    }
    if let Some(decision) = compact::continue_compaction(state, plan, now) {
        return decision;
    }
    let asking = NextCall { state, plan, cooldowns: cooling, now };
    if state.last_error.is_some() {
        let shorter = compact::answers_overflow(state)
            .then(|| compact::start_compaction(state, plan, state.target, CompactCause::Overflow))
            .flatten();
        return shorter.unwrap_or_else(|| with_overflow_note(asking.decide_call(state.iterations), state));
    }
    if state.iterations > 0 && state.last_reply.is_none() {
        // The call of this turn was interrupted before it had an outcome.
        return asking.decide_call(state.iterations);
    }
    match state.last_reply.and_then(|reply| after_reply(state, plan, reply)) {
        Some(decision) => decision,
        None => asking.decide_call(state.iterations + 1),
    }
}

/// Returns the end of the run that follows from this reply, or `None` if the run continues.
fn after_reply(state: &RunState, plan: AgentPlanRef<'_>, reply: LastReply) -> Option<Decision> {
    if reply.empty && state.empty_replies > 1 {
        let text = format!(
            "{} gave an empty or broken reply twice in a row. Try another model",
            plan.agent.target_at(state.target).route
        );
        return Some(Decision::with_failure(ErrorInfo::fatal(ErrorKind::MalformedResponse, text)));
    }
    if reply.finish == FinishReason::Length && state.truncated_replies > 1 {
        let text = "the reply was cut off at the token limit twice in a row. Raise model.max_tokens, or split \
                    the task";
        return Some(Decision::with_failure(ErrorInfo::fatal(ErrorKind::MalformedResponse, text)));
    }
    let answered = !reply.has_calls && !reply.empty && reply.finish != FinishReason::Length;
    (answered && state.steering.is_empty()).then(|| Decision::with_finish(RunStatus::Completed, None, None))
}

/// Adds a note to the final error if the conversation was compacted in vain.
fn with_overflow_note(mut decision: Decision, state: &RunState) -> Decision {
    let error = decision.finish.as_mut().and_then(|finish| finish.error.as_mut());
    if let Some(error) = error.filter(|error| error.kind == ErrorKind::ContextOverflow) {
        error.message += match state.compact.overflowed == Some(state.iterations) {
            true => ". The oldest part of the conversation was summarised once, and it is still too long",
            false => ". Nothing of the conversation can be summarised",
        };
    }
    decision
}

/// The inputs of the next call.
#[derive(Clone, Copy)]
struct NextCall<'a> {
    state: &'a RunState,
    plan: AgentPlanRef<'a>,
    cooldowns: &'a [Cooldown],
    now: Timestamp,
}

impl NextCall<'_> {
    /// Decides the call to the model or to its fallback.
    fn decide_call(self, iteration: u32) -> Decision {
        let Self { state, plan, .. } = self;
        let limits = budget::limits(state, plan.shared);
        if iteration > limits.max_iterations {
            return reach_limit(
                state,
                plan.shared,
                LimitKind::Iterations,
                budget::iterations_message(&limits),
            );
        }
        if !state.is_consistent() {
            let text = "a tool call has no result, or two: the conversation can't be sent. This is a bug in forge; \
            the journal contains its cause";
            return Decision::with_failure(ErrorInfo::fatal(ErrorKind::LoopGuard, text));
        }
        let mut unfit = Vec::new();
        loop {
            let (target, not_before, passed) = match self.fallback_step(&unfit) {
                FallbackStep::Ask { target, not_before, skipped: passed } => (target, not_before, passed),
                FallbackStep::Park { until, reason } => {
                    return Decision::with_event(park_event(state, WaitingFor::Retry, Some(until), reason));
                }
                FallbackStep::Fail(error) => {
                    let shorter = unfit.first().and_then(|(target, _)| self.compact_for_target(*target));
                    return shorter.unwrap_or_else(|| Decision::with_failure(error));
                }
            };
            let Allowance { input, output, reserve } = match budget::call_allowance(state, plan, target) {
                Ok(allowance) => {
                    if compact::is_due(state, plan, target)
                        && let Some(shorter) = self.compact_for_target(target)
                    {
                        return shorter;
                    }
                    allowance
                }
                Err(BudgetRefusal::Limit(limit, message)) => {
                    return reach_limit(state, plan.shared, limit, message);
                }
                // Prefer the run's own model to one with a larger window, and another model to a shorter conversation.
                Err(BudgetRefusal::Error(error))
                    if target == 0 && error.kind == ErrorKind::ContextOverflow =>
                {
                    if let Some(shorter) = self.compact_for_target(target) {
                        return shorter;
                    }
                    if plan.agent.fallbacks.is_empty() {
                        return Decision::with_failure(error);
                    }
                    unfit.push((target, error));
                    continue;
                }
                Err(BudgetRefusal::Error(error)) if plan.agent.fallbacks.is_empty() => {
                    return Decision::with_failure(error);
                }
                Err(BudgetRefusal::Error(error)) => {
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
            let start =
                EffectStart { effect: state.next_effect, what: Effect::CallModel(call), reserved: reserve };
            return Decision { start: vec![start], ..Decision::default() };
        }
    }

    /// Starts compacting the conversation to fit the window of a target, if possible.
    fn compact_for_target(self, target: u32) -> Option<Decision> {
        compact::start_compaction(self.state, self.plan, target, CompactCause::Grown)
    }

    /// Chooses a target, excluding those that are `unfit` for this request.
    fn fallback_step(self, unfit: &[(u32, ErrorInfo)]) -> FallbackStep {
        let Self { state, plan, cooldowns: cooling, now } = self;
        let ladder = FallbackChain { state, plan, cooldowns: cooling, unfit, now };
        let unfit_now = unfit.iter().any(|(target, _)| *target == state.target);
        match &state.last_error {
            // The call was interrupted before it had an outcome, so it is repeated.
            Some(_) if !unfit_now && state.failures == 0 => {
                FallbackStep::Ask { target: state.target, not_before: None, skipped: Vec::new() }
            }
            Some(error) if !unfit_now => ladder.step_after_failure(error),
            _ => ladder.first_step(),
        }
    }
}
