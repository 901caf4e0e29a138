//! The agent's decider: determines the next step of a run.
//!
//! [`decide`] is called after every fold until it returns nothing new. It starts model calls and tool calls, refuses
//! calls, cancels effects, parks the run or finishes it. The loop ends if and only if a reply contains no tool calls
//! and was not cut off (LOOP-1).

mod judge;
mod turn;

pub(crate) use turn::next_turn;

use crate::{budget, router};
use forge_types::{
    ApplyPolicy, Cooldown, Decision, ErrorInfo, EventKind, LimitKind, NextStep, OnLimit, Plan, RunState,
    RunStatus, Timestamp, WaitingFor, WorkspaceMode,
};
use std::time::Duration;

/// Decides the next step of a run at the time `now`, with no provider in cooldown.
pub fn decide(state: &RunState, plan: &Plan, now: Timestamp) -> Decision {
    decide_with_cooldowns(state, plan, &[], now)
}

/// Decides the next step of a run at the time `now`, with these cooldowns of providers.
pub fn decide_with_cooldowns(
    state: &RunState,
    plan: &Plan,
    cooling: &[Cooldown],
    now: Timestamp,
) -> Decision {
    match state.status {
        RunStatus::Pending => decide_pending(state),
        RunStatus::Waiting => decide_waiting(state, now),
        RunStatus::Running => decide_running(state, plan, cooling, now),
        RunStatus::Completed | RunStatus::Failed | RunStatus::Cancelled | RunStatus::TimedOut => {
            Decision::default()
        }
    }
}

fn decide_pending(state: &RunState) -> Decision {
    if state.cancel.is_some() {
        return Decision::with_finish(RunStatus::Cancelled, None, None);
    }
    Decision::with_event(status_change(state, RunStatus::Running))
}

fn decide_waiting(state: &RunState, now: Timestamp) -> Decision {
    if state.cancel.is_some() {
        return Decision::with_finish(RunStatus::Cancelled, None, None);
    }
    let over =
        state.waiting_for == Some(WaitingFor::Retry) && state.wait_until.is_some_and(|until| now >= until);
    if state.resume || over {
        return Decision::with_event(status_change(state, RunStatus::Running));
    }
    Decision { wake: state.wait_until, ..Decision::default() }
}

fn decide_running(state: &RunState, plan: &Plan, cooling: &[Cooldown], now: Timestamp) -> Decision {
    if state.cancel.is_some() {
        return stop_open_effects(state, || Decision::with_finish(RunStatus::Cancelled, None, None));
    }
    let limits = budget::limits(state, plan);
    let worked = state.worked_ms(now);
    if worked >= limits.max_duration_ms {
        let message =
            format!("time limit reached: {} s of work (runtime.max_pipeline_duration_ms)", worked / 1000);
        return stop_open_effects(state, || reach_limit(state, plan, LimitKind::WallClock, message));
    }
    if state.sandbox_losses > 1 {
        return stop_open_effects(state, || {
            let why = state.sandbox_loss.as_deref().unwrap_or("no reason is known");
            let text = format!("the sandbox went away twice, the last time: {why}. The work so far is kept");
            let error = ErrorInfo::fatal(forge_types::ErrorKind::Died, text);
            Decision::with_failure(error.with_next_steps([NextStep::CheckSetup]))
        });
    }
    let left = Duration::from_millis(limits.max_duration_ms - worked);
    let mut decision = if state.pause {
        decide_pause(state)
    } else if state.calls.is_empty() {
        if plan.executor.answers_with_tool_output() {
            router::next_step(state, plan, cooling, now)
        } else {
            turn::next_turn(state, plan, cooling, now)
        }
    } else {
        router::detect_repetition(state, plan).unwrap_or_else(|| judge::next_calls(state, plan))
    };
    decision.wake = Some(now.after(left));
    decision
}

fn decide_pause(state: &RunState) -> Decision {
    if !state.open.is_empty() {
        return Decision::default();
    }
    Decision::with_event(park_event(state, WaitingFor::Paused, None, "on request".to_owned()))
}

/// Cancels the effects in flight first: each intent gets its outcome before the run ends.
fn stop_open_effects(state: &RunState, then: impl FnOnce() -> Decision) -> Decision {
    if state.open.is_empty() {
        return then();
    }
    Decision { cancel: state.open.keys().copied().collect(), ..Decision::default() }
}

/// The use of a run's result when the run ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResultDisposition {
    /// Applied to the repository.
    Apply,
    /// Committed on a branch of its own.
    Publish,
    /// Kept in the run's own workspace.
    Leave,
}

/// Returns the use of the result of a run that ends with `status`. Only results of completed runs are applied, and only
/// if there is something to apply.
pub fn result_disposition(state: &RunState, plan: &Plan, status: RunStatus) -> ResultDisposition {
    let auto = status == RunStatus::Completed && plan.sandbox.apply == ApplyPolicy::Auto;
    if !auto || !state.history.is_pending() {
        return ResultDisposition::Leave;
    }
    match plan.sandbox.mode {
        WorkspaceMode::Transaction => ResultDisposition::Apply,
        WorkspaceMode::Branch => ResultDisposition::Publish,
        WorkspaceMode::Inplace => ResultDisposition::Leave,
    }
}

/// Ends the run at a limit, or parks it if the configuration asks for that.
pub fn reach_limit(state: &RunState, plan: &Plan, limit: LimitKind, message: String) -> Decision {
    if budget::limits(state, plan).on_limit == OnLimit::Wait {
        return Decision::with_event(park_event(state, WaitingFor::Budget, None, message));
    }
    let raisable = matches!(limit, LimitKind::Tokens | LimitKind::Cost);
    let error = ErrorInfo::fatal(forge_types::ErrorKind::BudgetExceeded, message)
        .with_next_steps(raisable.then_some(NextStep::RaiseLimit { limit }));
    Decision::with_finish(RunStatus::TimedOut, Some(limit), Some(error))
}

fn status_change(state: &RunState, to: RunStatus) -> EventKind {
    EventKind::StatusChanged { from: state.status, to, waiting_for: None, until: None, reason: None }
}

fn park_event(
    state: &RunState,
    waiting_for: WaitingFor,
    until: Option<Timestamp>,
    reason: String,
) -> EventKind {
    EventKind::StatusChanged {
        from: state.status,
        to: RunStatus::Waiting,
        waiting_for: Some(waiting_for),
        until,
        reason: Some(reason),
    }
}
