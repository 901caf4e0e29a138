//! The size limit of the next reply, chosen so that no ceiling can be exceeded (LOOP-3).
//!
//! The worst case of a call (whole prompt uncached, whole allowance used) is reserved before the call. The allowance
//! shrinks to fit; if too little is left, the limit is reached. Whether a prompt fits a window is an estimate, but the
//! reservation is an upper bound: no token is shorter than a byte.

use forge_types::{
    AgentPlanRef, CostRule, ErrorInfo, ErrorKind, LimitKind, ModelTarget, Money, NextStep, RunLimits,
    RunState, SharedPlan,
};

/// The smallest useful size of a reply, in tokens.
pub(crate) const MIN_REPLY_TOKENS: u64 = 256;
/// The allowance if the configuration sets none.
const DEFAULT_REPLY_TOKENS: u64 = 4_096;

/// Tokens that a provider may add to a request: per request including tools, and per message.
const REQUEST_OVERHEAD_TOKENS: u64 = 256;
const TOKENS_PER_MESSAGE: u64 = 16;
const TOKENS_PER_TOOL: u64 = 200;

/// The budget of the next call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowance {
    /// Estimated prompt tokens.
    pub input: u64,
    /// Reply tokens.
    pub output: u64,
    /// The worst case in money, if the price is known.
    pub reserve: Option<Money>,
}

/// The reason why no call may be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BudgetRefusal {
    /// A limit was reached.
    Limit(LimitKind, String),
    /// Another error forbids the call.
    Error(ErrorInfo),
}

/// Returns the limits in force: the plan's, unless they were raised.
pub fn limits(state: &RunState, plan: &SharedPlan) -> RunLimits {
    state.limits.unwrap_or(plan.limits)
}

/// Estimates the prompt's tokens: the provider's last count plus a third of the bytes added since, or a third of all
/// bytes. Three bytes per token is a safe estimate for source code.
pub fn estimate_input(state: &RunState, plan: AgentPlanRef<'_>, target: u32) -> u64 {
    match state.last_measured_prompt.filter(|_| state.target == target) {
        Some((tokens, bytes)) => tokens + state.message_bytes.saturating_sub(bytes).div_ceil(3),
        None => {
            let tools: usize = plan
                .agent
                .offered_tools(state.compact.times)
                .map(|t| t.prompt_signature().len() * 2 + 60)
                .sum();
            (plan.agent.system.len() as u64 + tools as u64 + state.message_bytes).div_ceil(3)
        }
    }
}

/// Returns an upper bound of the prompt's tokens: the provider's last count, if any, plus one token per byte added
/// since.
pub fn bound_input(state: &RunState, plan: AgentPlanRef<'_>, target: u32) -> u64 {
    match state.last_measured_prompt.filter(|_| state.target == target) {
        Some((tokens, bytes)) => match state.message_bytes.saturating_sub(bytes) {
            0 => tokens,
            added => tokens + added + REQUEST_OVERHEAD_TOKENS,
        },
        None => {
            let tools = plan.agent.offered_tools(state.compact.times).map(|tool| {
                let words: usize = tool.params.iter().map(|p| p.name.len() + p.description.len()).sum();
                (tool.name.len() + tool.description.len() + words) as u64 + TOKENS_PER_TOOL
            });
            let messages = state.messages.len() as u64 * TOKENS_PER_MESSAGE;
            plan.agent.system.len() as u64
                + tools.sum::<u64>()
                + state.message_bytes
                + messages
                + REQUEST_OVERHEAD_TOKENS
        }
    }
}

/// Returns the tokens of the next prompt based on a token-by-token count, which is close but not exact. The provider's
/// own last count is used for the messages it covered, the count `tokens` only for those added since.
pub fn adjusted_count(state: &RunState, target: u32, tokens: u64) -> u64 {
    let margin = tokens / 32 + 64;
    match state.last_measured_prompt.filter(|_| state.target == target) {
        None => tokens + margin,
        Some((measured, bytes)) => {
            let added = state.message_bytes.saturating_sub(bytes);
            let share = u128::from(tokens) * u128::from(added) / u128::from(state.message_bytes.max(1));
            let share = u64::try_from(share).unwrap_or(tokens);
            measured + if added == 0 { 0 } else { share + margin }
        }
    }
}

/// Returns the allowance of the next call to the plan's target `at`.
///
/// # Errors
/// [`BudgetRefusal`] if a ceiling leaves too little for the call.
pub fn call_allowance(state: &RunState, plan: AgentPlanRef<'_>, at: u32) -> Result<Allowance, BudgetRefusal> {
    let limits = limits(state, plan.shared);
    let target = plan.agent.target_at(at);
    let input = estimate_input(state, plan, at);
    let mut output = plan.agent.settings.max_tokens.unwrap_or(DEFAULT_REPLY_TOKENS);
    output = output.saturating_mul(1 << state.truncated_replies.min(2));
    output = output.min(target.facts.max_output.unwrap_or(u64::MAX).max(MIN_REPLY_TOKENS));
    let smallest = MIN_REPLY_TOKENS.min(output);

    output = output.min(fit_window(target, input, smallest)?);
    let left = limits.max_tokens.saturating_sub(state.usage.counted()).saturating_sub(input);
    if left < smallest {
        return Err(BudgetRefusal::Limit(LimitKind::Tokens, token_message(state, &limits, input)));
    }
    output = output.min(left);

    let Some(price) = target.facts.price else {
        return match plan.shared.cost_rule {
            CostRule::Strict => Err(BudgetRefusal::Error(unknown_price_error(target))),
            CostRule::Default | CostRule::AllowUnknown => Ok(Allowance { input, output, reserve: None }),
        };
    };
    let money = limits.max_cost.minus(state.cost).minus(state.reserved_total());
    let bound = bound_input(state, plan, at).max(input);
    let for_reply = money.minus(price.worst_case(bound, 0)).0;
    if price.output > 0 {
        let affordable = u64::try_from(for_reply / price.output).unwrap_or(0);
        output = output.min(affordable);
    }
    if for_reply < 0 || output < smallest {
        return Err(BudgetRefusal::Limit(LimitKind::Cost, cost_message(state, &limits)));
    }
    Ok(Allowance { input, output, reserve: Some(price.worst_case(bound, output)) })
}

fn fit_window(target: &ModelTarget, input: u64, smallest: u64) -> Result<u64, BudgetRefusal> {
    let room = target.facts.window.saturating_sub(input);
    if room < smallest {
        let what = format!(
            "the conversation has grown to about {input} tokens and {} takes {}. Split the task, or choose a \
             model with a larger window",
            target.route, target.facts.window
        );
        let error = ErrorInfo::fatal(ErrorKind::ContextOverflow, what);
        return Err(BudgetRefusal::Error(error.with_next_steps([NextStep::ChooseModel])));
    }
    Ok(room)
}

fn token_message(state: &RunState, limits: &RunLimits, input: u64) -> String {
    format!(
        "token limit reached: {} of {} tokens are used and the next request needs about {input}",
        state.usage.counted(),
        limits.max_tokens
    )
}

fn cost_message(state: &RunState, limits: &RunLimits) -> String {
    format!(
        "cost limit reached: {} of {} are spent and the next call could exceed the limit",
        state.cost, limits.max_cost
    )
}

fn unknown_price_error(target: &ModelTarget) -> ErrorInfo {
    ErrorInfo::fatal(
        ErrorKind::BudgetExceeded,
        format!(
            "the price of {} is unknown, so your cost ceiling can't be enforced. Choose another model, \
             or allow it with cost.allow_unknown = true",
            target.route
        ),
    )
}

/// Returns the message for a run that used up its turns.
pub fn iterations_message(limits: &RunLimits) -> String {
    format!("agent loop exceeded maximum iterations ({})", limits.max_iterations)
}
