//! Compaction: when a conversation outgrows the window of its model, a summary replaces its oldest part (MEM-4).
//!
//! [`select`] chooses the messages to replace, [`text`] builds the request for a summary and the extract used without
//! one, and this module decides the time. A compaction is an effect with an outcome of its own; the replaced messages
//! stay in the journal, where [`lookup`] finds them.

pub mod lookup;
mod select;
pub mod text;

use crate::budget;
use crate::retry;
use forge_types::{
    AgentPlanRef, CompactCause, Compaction, CostRule, Decision, Effect, EffectStart, ErrorKind, EventKind,
    ModelSettings, Money, RunState, SummaryCall, Timestamp,
};

/// Maximum size of a summary in tokens (MEM-4).
const MAX_SUMMARY_TOKENS: u64 = 1_024;
/// Maximum size of a summary within the conversation, in bytes.
const MAX_SUMMARY_BYTES: u64 = 6_000;
/// Maximum number of model calls per summary.
const MAX_SUMMARY_TRIES: u32 = 2;
/// Minimum size of a text worth summarising with a model, in bytes.
const MIN_SOURCE_BYTES: u64 = 400;
/// Overhead of a request for a summary: bytes in addition to the text, including what a provider adds in tokens.
const REQUEST_OVERHEAD_BYTES: u64 = 1_500;

/// Returns the settings of a call for a summary.
pub(crate) const fn summary_settings(max_tokens: u64, timeout_ms: u64) -> ModelSettings {
    ModelSettings { max_tokens: Some(max_tokens), temperature: Some(0.3), top_p: None, timeout_ms }
}

/// Returns the maximum size of a summary for the target's window, in bytes. After a refusal as too long the real window
/// is smaller than assumed, so the conversation must become much shorter.
fn max_summary_bytes(state: &RunState, plan: AgentPlanRef<'_>, target: u32, cause: CompactCause) -> u64 {
    let room = MAX_SUMMARY_BYTES.min(plan.agent.target_at(target).facts.window.saturating_mul(3) / 8);
    match cause {
        CompactCause::Grown => room,
        CompactCause::Overflow => room.min(state.message_bytes / 8),
    }
}

/// Returns whether the prompt of the next call exceeds its share of the target's window.
pub fn is_due(state: &RunState, plan: AgentPlanRef<'_>, target: u32) -> bool {
    let window = u128::from(plan.agent.target_at(target).facts.window);
    let input = u128::from(budget::estimate_input(state, plan, target));
    plan.agent.executor.asks_model() && input * 100 > window * u128::from(plan.agent.context.compact_percent)
}

/// Starts a compaction, if a summary of some messages would free space.
pub fn start_compaction(
    state: &RunState,
    plan: AgentPlanRef<'_>,
    target: u32,
    cause: CompactCause,
) -> Option<Decision> {
    if !plan.agent.executor.asks_model() {
        return None;
    }
    let (gone, bytes) = select::replaced_spans(state, plan, target, cause)?;
    let room = max_summary_bytes(state, plan, target, cause);
    let mut compaction = Compaction { gone, cause, attempt: 1, ask: None, room, most: 0, note: None };
    let reserved = match summary_call(state, plan, target, bytes, None) {
        Ok((call, most, reserved)) => {
            compaction.ask = Some(call);
            compaction.most = most;
            reserved
        }
        Err(why) => {
            compaction.note = Some(why);
            None
        }
    };
    Some(compaction_decision(state, compaction, reserved))
}

/// Decides the next step of a compaction in progress; `None` if there is none.
pub(crate) fn continue_compaction(
    state: &RunState,
    plan: AgentPlanRef<'_>,
    now: Timestamp,
) -> Option<Decision> {
    let current = state.compact.current.as_ref()?;
    if let Some(summary) = &state.compact.ready {
        let event = EventKind::Compacted {
            gone: current.gone.clone(),
            cause: current.cause,
            by: summary.by,
            text: summary.text.clone(),
            recall: plan.agent.context.recall.is_some(),
            note: summary.note.clone(),
        };
        return Some(Decision { record: vec![event], ..Decision::default() });
    }
    let mut next = Compaction { attempt: current.attempt + 1, ..current.clone() };
    let Some(asked) = &current.ask else {
        // An interrupted extract is made again; one that failed would fail again.
        return Some(match &state.compact.error {
            Some(error) => Decision::with_failure(error.clone()),
            None => compaction_decision(state, next, None),
        });
    };
    let (not_before, why) = match &state.compact.error {
        None => (None, "the request to the model was interrupted twice".to_owned()),
        Some(error) => {
            let seed = retry::stable_seed(state.run, state.next_effect, current.attempt);
            let why = format!("the request to the model failed: {}", error.message);
            match retry::decide_retry(&plan.agent.retry, current.attempt, 0, error, seed, now) {
                retry::RetryDecision::TryAt(at) => (Some(at), why),
                _ => return Some(compaction_decision(state, without_model(next, why), None)),
            }
        }
    };
    if current.attempt >= MAX_SUMMARY_TRIES {
        return Some(compaction_decision(state, without_model(next, why), None));
    }
    let bytes = state.messages_at(&current.gone).map(|message| message.sent_bytes()).sum();
    match summary_call(state, plan, asked.target, bytes, not_before) {
        Ok((call, most, reserved)) => {
            (next.ask, next.most) = (Some(call), most);
            Some(compaction_decision(state, next, reserved))
        }
        Err(why) => Some(compaction_decision(state, without_model(next, why), None)),
    }
}

/// Turns the start of a compaction into an extract, for use when a ceiling shared by runs leaves no money for a model.
/// Other starts are returned unchanged.
pub fn without_money(start: EffectStart) -> EffectStart {
    match start.what {
        Effect::Compact(compaction) if compaction.ask.is_some() => {
            let compaction = without_model(compaction, "no money is left to ask a model".to_owned());
            EffectStart { what: Effect::Compact(compaction), reserved: None, ..start }
        }
        _ => start,
    }
}

fn without_model(compaction: Compaction, why: String) -> Compaction {
    Compaction { ask: None, note: Some(why), ..compaction }
}

fn compaction_decision(state: &RunState, compaction: Compaction, reserved: Option<Money>) -> Decision {
    let start = EffectStart { effect: state.next_effect, what: Effect::Compact(compaction), reserved };
    Decision { start: vec![start], ..Decision::default() }
}

/// Returns the call for a summary of this size, the bytes of source text in it, and its worst case in money; or the
/// reason why no model is asked. The call may use at most half of the remaining money, so that the run can continue.
fn summary_call(
    state: &RunState,
    plan: AgentPlanRef<'_>,
    at: u32,
    bytes: u64,
    not_before: Option<Timestamp>,
) -> Result<(SummaryCall, u64, Option<Money>), String> {
    let target = plan.agent.target_at(at);
    let window = target.facts.window;
    let max_tokens =
        MAX_SUMMARY_TOKENS.min(window / 8).min(target.facts.max_output.unwrap_or(u64::MAX)).max(1);
    let fits = window.saturating_sub(max_tokens).saturating_mul(3) * 85 / 100;
    // Each message also carries names and marks.
    let most = (bytes + bytes / 4 + MIN_SOURCE_BYTES).min(fits.saturating_sub(REQUEST_OVERHEAD_BYTES));
    if most < MIN_SOURCE_BYTES {
        return Err(format!("the window of {} is too small for the request", target.route));
    }
    let sent = most + REQUEST_OVERHEAD_BYTES;
    let input_estimate = sent.div_ceil(3);
    let limits = budget::limits(state, plan.shared);
    let left = limits.max_tokens.saturating_sub(state.usage.counted());
    if (input_estimate + max_tokens) * 2 > left {
        return Err("the token limit leaves too little to ask a model".to_owned());
    }
    let call = SummaryCall { target: at, max_tokens, input_estimate, not_before };
    match target.facts.price {
        None if plan.shared.cost_rule == CostRule::Strict => {
            Err(format!("the price of {} is unknown", target.route))
        }
        None => Ok((call, most, None)),
        Some(price) => {
            // No token is shorter than a byte.
            let worst = price.worst_case(sent, max_tokens);
            let left = limits.max_cost.minus(state.cost).minus(state.reserved_total());
            if worst.plus(worst) > left && worst > Money::ZERO {
                return Err("the cost limit leaves too little to ask a model".to_owned());
            }
            Ok((call, most, Some(worst)))
        }
    }
}

/// Returns whether to answer this failure with a compaction: only the first refusal as too long is.
pub(crate) fn answers_overflow(state: &RunState) -> bool {
    let too_long = state.last_error.as_ref().is_some_and(|error| error.kind == ErrorKind::ContextOverflow);
    too_long && state.compact.overflowed != Some(state.iterations)
}

#[cfg(test)]
mod tests;
