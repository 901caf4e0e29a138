//! The agent's decider: what a run does next.
//!
//! [`decide`] is called after every fold until it decides nothing new. It starts model calls and tool calls, refuses
//! calls, cancels what must end, parks the run or finishes it. The loop ends if and only if a reply holds no tool
//! calls and was not cut (LOOP-1).

mod judge;
mod turn;

pub(crate) use turn::next_turn;

use crate::{budget, router};
use forge_types::{
    ApplyPolicy, Cooldown, Effect, EffectId, ErrorInfo, EventKind, LimitKind, Money, OnLimit, Payload, Plan,
    RunState, RunStatus, Timestamp, WaitingFor, WorkspaceMode,
};
use std::time::Duration;

/// An effect to start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    /// Its name.
    pub effect: EffectId,
    /// What it is.
    pub what: Effect,
    /// Money to reserve for it.
    pub reserved: Option<Money>,
}

/// How a run is to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finish {
    /// The last status.
    pub status: RunStatus,
    /// The limit that ended it.
    pub limit: Option<LimitKind>,
    /// The error that ended it.
    pub error: Option<ErrorInfo>,
    /// The answer, where it is not the text of the last reply.
    pub answer: Option<Payload>,
}

/// What happens next. Everything in it goes into the journal before anything is done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// Refused calls and changes of status.
    pub record: Vec<EventKind>,
    /// Effects to start.
    pub start: Vec<Start>,
    /// Effects to cancel; each still gets its outcome.
    pub cancel: Vec<EffectId>,
    /// The end of the run.
    pub finish: Option<Finish>,
    /// When to decide again if nothing else happens.
    pub wake: Option<Timestamp>,
}

impl Decision {
    /// Whether it holds nothing that belongs into the journal.
    pub fn is_quiet(&self) -> bool {
        self.record.is_empty() && self.start.is_empty() && self.finish.is_none()
    }

    fn recording(event: EventKind) -> Self {
        Self { record: vec![event], ..Self::default() }
    }

    fn finishing(status: RunStatus, limit: Option<LimitKind>, error: Option<ErrorInfo>) -> Self {
        Self { finish: Some(Finish { status, limit, error, answer: None }), ..Self::default() }
    }

    pub(crate) fn failing(error: ErrorInfo) -> Self {
        Self::finishing(RunStatus::Failed, None, Some(error))
    }
}

/// Decides what a run does next at the time `now`, if no provider is left alone.
pub fn decide(state: &RunState, plan: &Plan, now: Timestamp) -> Decision {
    decide_beside(state, plan, &[], now)
}

/// Decides what a run does next at the time `now`, while these providers are left alone.
pub fn decide_beside(state: &RunState, plan: &Plan, cooling: &[Cooldown], now: Timestamp) -> Decision {
    match state.status {
        RunStatus::Pending => begin(state),
        RunStatus::Waiting => wait(state, now),
        RunStatus::Running => run(state, plan, cooling, now),
        RunStatus::Completed | RunStatus::Failed | RunStatus::Cancelled | RunStatus::TimedOut => {
            Decision::default()
        }
    }
}

fn begin(state: &RunState) -> Decision {
    if state.cancel.is_some() {
        return Decision::finishing(RunStatus::Cancelled, None, None);
    }
    Decision::recording(status_change(state, RunStatus::Running))
}

fn wait(state: &RunState, now: Timestamp) -> Decision {
    if state.cancel.is_some() {
        return Decision::finishing(RunStatus::Cancelled, None, None);
    }
    let over =
        state.waiting_for == Some(WaitingFor::Retry) && state.wait_until.is_some_and(|until| now >= until);
    if state.resume || over {
        return Decision::recording(status_change(state, RunStatus::Running));
    }
    Decision { wake: state.wait_until, ..Decision::default() }
}

fn run(state: &RunState, plan: &Plan, cooling: &[Cooldown], now: Timestamp) -> Decision {
    if state.cancel.is_some() {
        return stop(state, || Decision::finishing(RunStatus::Cancelled, None, None));
    }
    let limits = budget::limits(state, plan);
    let worked = state.worked_ms(now);
    if worked >= limits.max_duration_ms {
        let message =
            format!("time limit reached: {} s of work (runtime.max_pipeline_duration_ms)", worked / 1000);
        return stop(state, || reach_limit(state, plan, LimitKind::WallClock, message));
    }
    if state.sandbox_losses > 1 {
        return stop(state, || {
            let why = state.sandbox_loss.as_deref().unwrap_or("no reason is known");
            let text = format!(
                "the sandbox went away twice, the last time: {why}. What was done until then is kept. `forge doctor` \
                 checks it"
            );
            Decision::failing(ErrorInfo::fatal(forge_types::ErrorKind::Died, text))
        });
    }
    let left = Duration::from_millis(limits.max_duration_ms - worked);
    let mut decision = if state.pause {
        pause(state)
    } else if state.calls.is_empty() {
        if plan.executor.dispatches() {
            router::next(state, plan, cooling, now)
        } else {
            turn::next_turn(state, plan, cooling, now)
        }
    } else {
        router::repeated(state, plan).unwrap_or_else(|| judge::next_calls(state, plan))
    };
    decision.wake = Some(now.after(left));
    decision
}

fn pause(state: &RunState) -> Decision {
    if !state.open.is_empty() {
        return Decision::default();
    }
    Decision::recording(park(state, WaitingFor::Paused, None, "paused; `forge resume` goes on".to_owned()))
}

/// Ends what is in flight first: each intent gets its outcome before the run ends.
fn stop(state: &RunState, then: impl FnOnce() -> Decision) -> Decision {
    if state.open.is_empty() {
        return then();
    }
    Decision { cancel: state.open.keys().copied().collect(), ..Decision::default() }
}

/// What becomes of a result when its run ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closing {
    /// It is applied to the repository.
    Apply,
    /// It becomes a commit on a branch of its own.
    Publish,
    /// It stays in the run's own workspace.
    Leave,
}

/// What becomes of the result of a run that ends with `status`. Only what completed is applied, and only where there
/// is something to apply.
pub fn closing(state: &RunState, plan: &Plan, status: RunStatus) -> Closing {
    let auto = status == RunStatus::Completed && plan.sandbox.apply == ApplyPolicy::Auto;
    if !auto || !state.history.is_pending() {
        return Closing::Leave;
    }
    match plan.sandbox.mode {
        WorkspaceMode::Transaction => Closing::Apply,
        WorkspaceMode::Branch => Closing::Publish,
        WorkspaceMode::Inplace => Closing::Leave,
    }
}

/// A limit is reached: the run ends, or waits where the configuration says so.
pub fn reach_limit(state: &RunState, plan: &Plan, limit: LimitKind, message: String) -> Decision {
    if budget::limits(state, plan).on_limit == OnLimit::Wait {
        return Decision::recording(park(state, WaitingFor::Budget, None, message));
    }
    let error = ErrorInfo::fatal(forge_types::ErrorKind::BudgetExceeded, message);
    Decision::finishing(RunStatus::TimedOut, Some(limit), Some(error))
}

fn status_change(state: &RunState, to: RunStatus) -> EventKind {
    EventKind::StatusChanged { from: state.status, to, waiting_for: None, until: None, reason: None }
}

fn park(state: &RunState, waiting_for: WaitingFor, until: Option<Timestamp>, reason: String) -> EventKind {
    EventKind::StatusChanged {
        from: state.status,
        to: RunStatus::Waiting,
        waiting_for: Some(waiting_for),
        until,
        reason: Some(reason),
    }
}
