//! Fallback to other models when one is unavailable (PROV-9): the plan's targets in order, each with its own tries.
//!
//! Each turn starts with the first target that is not in cooldown, so a run returns to its own model as soon as that
//! model's cooldown is over. Within a turn no target is tried twice.

use crate::cooldown;
use crate::retry::{self, RetryDecision as Retry};
use forge_types::{
    AgentPlanRef, Cooldown, ErrorInfo, FailedTarget, ModelTarget, NextStep, RejectedCandidate, RunState,
    Timestamp,
};
use std::fmt;
use std::time::Duration;

/// Maximum number of times in a row that a turn is parked.
const MAX_PARKS: u32 = 5;
/// Longest time that a run is parked.
const MAX_PARK_DURATION: Duration = Duration::from_secs(24 * 60 * 60);

/// The decision about the next call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FallbackStep {
    /// Ask one of the plan's targets.
    Ask {
        /// The index of the target.
        target: u32,
        /// Earliest time of the call.
        not_before: Option<Timestamp>,
        /// Targets earlier in the plan, and the reasons for skipping them.
        skipped: Vec<RejectedCandidate>,
    },
    /// No target is available before this time: park the run until then.
    Park {
        /// End of the wait.
        until: Timestamp,
        /// The reason, worded for people.
        reason: String,
    },
    /// No target is left.
    Fail(ErrorInfo),
}

/// The inputs of the choice.
#[derive(Clone, Copy, Debug)]
pub struct FallbackChain<'a> {
    /// The run.
    pub state: &'a RunState,
    /// The run's plan, which holds the targets and the retry rule.
    pub plan: AgentPlanRef<'a>,
    /// Cooldowns of providers.
    pub cooldowns: &'a [Cooldown],
    /// Targets that can't take this request, with the reasons.
    pub unfit: &'a [(u32, ErrorInfo)],
    /// The time.
    pub now: Timestamp,
}

/// The error when no target is left (`FallbackExhausted`): each candidate with the reason for skipping it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FallbackExhausted(pub Vec<RejectedCandidate>);

impl fmt::Display for FallbackExhausted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no model is available (FallbackExhausted)")?;
        for (n, one) in self.0.iter().enumerate() {
            let mark = if n == 0 { ": " } else { "; " };
            write!(f, "{mark}{}/{}: {}", one.provider, one.model, one.reason)?;
        }
        Ok(())
    }
}

impl FallbackChain<'_> {
    /// Chooses the target at the beginning of a turn.
    pub fn first_step(&self) -> FallbackStep {
        match self.available_target() {
            Some(target) => self.ask_target(target, None),
            None => self.park_or_fail(None),
        }
    }

    /// Decides the step after the last failure of a turn.
    pub fn step_after_failure(&self, error: &ErrorInfo) -> FallbackStep {
        let Self { state, plan, .. } = *self;
        let seed = retry::stable_seed(state.run, state.next_effect, state.failures);
        let next =
            retry::decide_retry(&plan.agent.retry, state.failures, state.delayed_ms, error, seed, self.now);
        let other = self.available_target();
        match (next, other) {
            (Retry::Abort, _) => FallbackStep::Fail(self.final_error(error)),
            // Another run has meanwhile put the provider into cooldown, so asking again is useless.
            (Retry::TryAt(_), Some(target)) if self.target_cooldown(state.target).is_some() => {
                self.ask_target(target, None)
            }
            (Retry::TryAt(at), _) => {
                FallbackStep::Ask { target: state.target, not_before: Some(at), skipped: Vec::new() }
            }
            (Retry::AskedToWait(_) | Retry::UsedUp, Some(target)) => self.ask_target(target, None),
            (Retry::AskedToWait(_) | Retry::UsedUp, None) => self.park_or_fail(Some(error)),
        }
    }

    fn ask_target(&self, target: u32, not_before: Option<Timestamp>) -> FallbackStep {
        let before = self.numbered_targets().take_while(|(at, _)| *at != target);
        let passed =
            before.map(|(at, one)| RejectedCandidate::new(&one.route, self.skip_reason(at))).collect();
        FallbackStep::Ask { target, not_before, skipped: passed }
    }

    /// Returns the first target that was not tried in this turn, can take the request, and is not in cooldown.
    fn available_target(&self) -> Option<u32> {
        let fits = |at: u32| {
            !self.state.tried.iter().any(|tried| tried.target == at)
                && !self.unfit.iter().any(|(unfit, _)| *unfit == at)
                && self.target_cooldown(at).is_none()
        };
        self.numbered_targets().map(|(at, _)| at).find(|at| fits(*at))
    }

    /// Returns the cooldown that blocks a target. Cooldowns are ignored for a single candidate and when the user asks
    /// to.
    fn target_cooldown(&self, at: u32) -> Option<&Cooldown> {
        let free = self.plan.agent.fallbacks.is_empty() || self.state.ignore_cooldowns;
        let provider = &self.plan.agent.target_at(at).route.provider;
        cooldown::active_cooldown(self.cooldowns, provider, self.now).filter(|_| !free)
    }

    fn numbered_targets(&self) -> impl Iterator<Item = (u32, &ModelTarget)> {
        (0..).zip(self.plan.agent.targets())
    }

    /// Decides when no target is available now: waits for the first one known to become available, or gives up.
    fn park_or_fail(&self, error: Option<&ErrorInfo>) -> FallbackStep {
        let back = self.numbered_targets().filter_map(|(at, _)| self.available_at(at)).min();
        let bearable = |until: &Timestamp| until.since(self.now) <= MAX_PARK_DURATION;
        match back.filter(bearable) {
            Some(until) if self.state.parked_count < MAX_PARKS => {
                let why = match error {
                    Some(error) if self.plan.agent.fallbacks.is_empty() => error.message.clone(),
                    _ => self.exhausted_error().to_string(),
                };
                let reason = format!("{why}: asked to wait until {until}");
                FallbackStep::Park { until, reason }
            }
            _ => FallbackStep::Fail(match error {
                Some(error) => self.final_error(error),
                None => self.all_in_cooldown_error(),
            }),
        }
    }

    /// Returns when a failed or cooling target becomes available again, if known.
    fn available_at(&self, at: u32) -> Option<Timestamp> {
        let cap = self.plan.agent.retry.cap_ms;
        let asked = self.find_tried(at).and_then(|tried| {
            let after = tried.error.retry_after_ms.filter(|after| *after > cap && tried.error.retryable)?;
            Some(tried.at.after(Duration::from_millis(after)))
        });
        let cooled = self.target_cooldown(at).filter(|_| self.find_tried(at).is_none());
        let cooled = cooled.filter(|cooldown| is_retriable(cooldown)).map(|cooldown| cooldown.until);
        asked.or(cooled)
    }

    fn find_tried(&self, at: u32) -> Option<&FailedTarget> {
        self.state.tried.iter().find(|tried| tried.target == at)
    }

    /// Returns the reason for skipping a target.
    fn skip_reason(&self, at: u32) -> String {
        if let Some(tried) = self.find_tried(at) {
            let tries =
                if tried.failures == 1 { "1 try".into() } else { format!("{} tries", tried.failures) };
            return format!("{} after {tries}: {}", tried.error.kind, tried.error.message);
        }
        if let Some((_, error)) = self.unfit.iter().find(|(unfit, _)| *unfit == at) {
            return error.message.clone();
        }
        match self.target_cooldown(at) {
            Some(cooldown) => format!("in cooldown until {} ({})", cooldown.until, cooldown.reason),
            None => "not asked".to_owned(),
        }
    }

    fn exhausted_error(&self) -> FallbackExhausted {
        FallbackExhausted(
            self.numbered_targets()
                .map(|(at, one)| RejectedCandidate::new(&one.route, self.skip_reason(at)))
                .collect(),
        )
    }

    fn final_error(&self, error: &ErrorInfo) -> ErrorInfo {
        let last = &self.plan.agent.target_at(self.state.target).route;
        if error.retryable && !self.plan.agent.fallbacks.is_empty() {
            return self.exhaust(error.clone());
        }
        let mut error = error.clone();
        if self.state.failures > 1 {
            error.message =
                format!("{last} failed {} times; the last time: {}", self.state.failures, error.message);
        }
        error
    }

    fn all_in_cooldown_error(&self) -> ErrorInfo {
        let kind = self
            .numbered_targets()
            .find_map(|(at, _)| self.target_cooldown(at))
            .map(|cooldown| cooldown.reason);
        let kind = kind.or_else(|| self.unfit.first().map(|(_, error)| error.kind));
        self.exhaust(ErrorInfo::fatal(kind.unwrap_or(forge_types::ErrorKind::Unavailable), String::new()))
    }

    /// Returns the error with the message that no target is left.
    fn exhaust(&self, error: ErrorInfo) -> ErrorInfo {
        let message = self.exhausted_error().to_string();
        ErrorInfo { message, ..error }.with_next_steps([NextStep::ShowModels])
    }
}

/// Returns whether waiting can help: a rejected key will be rejected again.
fn is_retriable(cooldown: &Cooldown) -> bool {
    use forge_types::ErrorKind::{Auth, Billing, Format};
    !matches!(cooldown.reason, Auth | Billing | Format)
}
