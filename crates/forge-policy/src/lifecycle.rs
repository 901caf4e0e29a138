//! The decisions that every run has in common, regardless of its work: its start, a cancel, a pause, its time limit, the
//! loss of its sandbox, the use of its result.

use crate::budget;
use forge_types::{
    ApplyPolicy, Cooldown, Decision, ErrorInfo, ErrorKind, EventKind, LimitKind, NextStep, OnLimit, Plan,
    RunState, RunStatus, SharedPlan, Timestamp, WaitingFor, WorkspaceMode,
};
use std::time::Duration;

/// The input of a decision.
#[derive(Clone, Copy, Debug)]
pub struct DecisionInput<'a> {
    /// The state of the run.
    pub state: &'a RunState,
    /// The frozen plan of the run.
    pub plan: &'a Plan,
    /// The providers in cooldown.
    pub cooldowns: &'a [Cooldown],
    /// The current time.
    pub now: Timestamp,
}

/// Decides the next step of a run. `next_step` decides for the work while the run is in progress and nothing else
/// takes precedence.
pub fn decide_with(
    input: DecisionInput<'_>,
    next_step: impl FnOnce(DecisionInput<'_>) -> Decision,
) -> Decision {
    match input.state.status {
        RunStatus::Pending => decide_pending(input.state),
        RunStatus::Waiting => decide_waiting(input.state, input.now),
        RunStatus::Running => decide_running(input, next_step),
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

fn decide_running(
    input: DecisionInput<'_>,
    next_step: impl FnOnce(DecisionInput<'_>) -> Decision,
) -> Decision {
    let DecisionInput { state, plan, now, .. } = input;
    if state.cancel.is_some() {
        return stop_open_effects(state, || Decision::with_finish(RunStatus::Cancelled, None, None));
    }
    let limits = budget::limits(state, &plan.shared);
    let worked = state.worked_ms(now);
    if worked >= limits.max_duration_ms {
        let message =
            format!("time limit reached: {} s of work (runtime.max_pipeline_duration_ms)", worked / 1000);
        return stop_open_effects(state, || reach_limit(state, &plan.shared, LimitKind::WallClock, message));
    }
    if state.sandbox_losses > 1 {
        return stop_open_effects(state, || {
            let why = state.sandbox_loss.as_deref().unwrap_or("no reason is known");
            let text = format!("the sandbox went away twice, the last time: {why}. The work so far is kept");
            let error = ErrorInfo::fatal(ErrorKind::Died, text);
            Decision::with_failure(error.with_next_steps([NextStep::CheckSetup]))
        });
    }
    let left = Duration::from_millis(limits.max_duration_ms - worked);
    let mut decision = if state.pause { decide_pause(state) } else { next_step(input) };
    decision.wake = Some(now.after(left));
    decision
}

fn decide_pause(state: &RunState) -> Decision {
    // Child runs in flight continue; no further one starts.
    if !state.open.is_empty() && !state.waits_for_children() {
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
pub fn result_disposition(state: &RunState, plan: &SharedPlan, status: RunStatus) -> ResultDisposition {
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
pub fn reach_limit(state: &RunState, plan: &SharedPlan, limit: LimitKind, message: String) -> Decision {
    if budget::limits(state, plan).on_limit == OnLimit::Wait {
        return Decision::with_event(park_event(state, WaitingFor::Budget, None, message));
    }
    let raisable = matches!(limit, LimitKind::Tokens | LimitKind::Cost);
    let error = ErrorInfo::fatal(ErrorKind::BudgetExceeded, message)
        .with_next_steps(raisable.then_some(NextStep::RaiseLimit { limit }));
    Decision::with_finish(RunStatus::TimedOut, Some(limit), Some(error))
}

fn status_change(state: &RunState, to: RunStatus) -> EventKind {
    EventKind::StatusChanged { from: state.status, to, waiting_for: None, until: None, reason: None }
}

pub(crate) fn park_event(
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
