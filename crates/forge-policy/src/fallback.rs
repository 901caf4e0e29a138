//! Who is asked when a model can't be had (PROV-9): the plan's targets in order, each within its tries.
//!
//! Each turn begins with the first target that is not left alone, so a run comes back to its own model as soon as that
//! model's cooldown is over. Within a turn nobody is gone back to.

use crate::cooldown;
use crate::retry::{self, Next as Retry};
use forge_types::{Cooldown, ErrorInfo, Plan, Rejected, RunState, TargetRef, Timestamp, Tried};
use std::fmt;
use std::time::Duration;

/// A turn is parked at most so often in a row.
const MOST_PARKS: u32 = 5;
/// Nobody is waited for longer than this.
const LONGEST_PARK: Duration = Duration::from_secs(24 * 60 * 60);

/// What to do about the next call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Ask one of the plan's targets.
    Ask {
        /// Which.
        target: u32,
        /// Not before.
        not_before: Option<Timestamp>,
        /// Those before it in the plan, and why they were passed over.
        passed: Vec<Rejected>,
    },
    /// Nobody can be asked before this time: let go of everything until then.
    Park {
        /// Until when.
        until: Timestamp,
        /// Why, in words for a person.
        reason: String,
    },
    /// Nobody is left.
    Fail(ErrorInfo),
}

/// All that the choice depends on.
#[derive(Clone, Copy, Debug)]
pub struct Ladder<'a> {
    /// The run.
    pub state: &'a RunState,
    /// Its plan, which holds the targets and the rule for tries.
    pub plan: &'a Plan,
    /// Providers that are left alone.
    pub cooling: &'a [Cooldown],
    /// Targets that can't take this request, and why.
    pub unfit: &'a [(u32, ErrorInfo)],
    /// The time.
    pub now: Timestamp,
}

/// Nobody is left to ask (`FallbackExhausted`): each candidate with the reason against it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exhausted(pub Vec<Rejected>);

impl fmt::Display for Exhausted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no model is left to ask (FallbackExhausted)")?;
        for (n, one) in self.0.iter().enumerate() {
            let mark = if n == 0 { ": " } else { "; " };
            write!(f, "{mark}{}/{}: {}", one.provider, one.model, one.reason)?;
        }
        f.write_str(". `forge models` shows who can be asked again and when")
    }
}

impl Ladder<'_> {
    /// Who is asked at the beginning of a turn.
    pub fn first(&self) -> Next {
        match self.available() {
            Some(target) => self.ask(target, None),
            None => self.nobody(None),
        }
    }

    /// What follows from the last failure of a turn.
    pub fn after(&self, error: &ErrorInfo) -> Next {
        let Self { state, plan, .. } = *self;
        let seed = retry::seed(state.run, state.next_effect, state.failures);
        let next = retry::next(&plan.retry, state.failures, state.delayed_ms, error, seed, self.now);
        let other = self.available();
        match (next, other) {
            (Retry::Abort, _) => Next::Fail(self.given_up(error)),
            // Another run has found out meanwhile that there is no use in asking again.
            (Retry::TryAt(_), Some(target)) if self.cooldown(state.target).is_some() => {
                self.ask(target, None)
            }
            (Retry::TryAt(at), _) => {
                Next::Ask { target: state.target, not_before: Some(at), passed: Vec::new() }
            }
            (Retry::AskedToWait(_) | Retry::UsedUp, Some(target)) => self.ask(target, None),
            (Retry::AskedToWait(_) | Retry::UsedUp, None) => self.nobody(Some(error)),
        }
    }

    fn ask(&self, target: u32, not_before: Option<Timestamp>) -> Next {
        let before = self.numbered().take_while(|(at, _)| *at != target);
        let passed = before.map(|(at, one)| Rejected::new(one.route, self.reason(at))).collect();
        Next::Ask { target, not_before, passed }
    }

    /// The first target that was not tried in this turn, can take the request, and is not left alone.
    fn available(&self) -> Option<u32> {
        let fits = |at: u32| {
            !self.state.tried.iter().any(|tried| tried.target == at)
                && !self.unfit.iter().any(|(unfit, _)| *unfit == at)
                && self.cooldown(at).is_none()
        };
        self.numbered().map(|(at, _)| at).find(|at| fits(*at))
    }

    /// The cooldown that keeps a target from being asked. A single candidate knows none, nor does a turn that a
    /// person insists on.
    fn cooldown(&self, at: u32) -> Option<&Cooldown> {
        let free = self.plan.fallbacks.is_empty() || self.state.insists;
        let provider = &self.plan.target(at).route.provider;
        cooldown::holding(self.cooling, provider, self.now).filter(|_| !free)
    }

    fn numbered(&self) -> impl Iterator<Item = (u32, TargetRef<'_>)> {
        (0..).zip(self.plan.targets())
    }

    /// Nobody can be asked now: wait for whoever said or is known to come back, or give up.
    fn nobody(&self, error: Option<&ErrorInfo>) -> Next {
        let back = self.numbered().filter_map(|(at, _)| self.back_at(at)).min();
        let bearable = |until: &Timestamp| until.since(self.now) <= LONGEST_PARK;
        match back.filter(bearable) {
            Some(until) if self.state.parks < MOST_PARKS => {
                let why = match error {
                    Some(error) if self.plan.fallbacks.is_empty() => error.message.clone(),
                    _ => self.exhausted().to_string(),
                };
                let reason = format!("{why}: asked to wait until {until}. `forge resume` goes on at once");
                Next::Park { until, reason }
            }
            _ => Next::Fail(match error {
                Some(error) => self.given_up(error),
                None => self.all_left_alone(),
            }),
        }
    }

    /// When a target that failed or is left alone can be asked again, if that is known.
    fn back_at(&self, at: u32) -> Option<Timestamp> {
        let cap = self.plan.retry.cap_ms;
        let asked = self.tried(at).and_then(|tried| {
            let after = tried.error.retry_after_ms.filter(|after| *after > cap && tried.error.retryable)?;
            Some(tried.at.after(Duration::from_millis(after)))
        });
        let cooled = self.cooldown(at).filter(|_| self.tried(at).is_none());
        let cooled = cooled.filter(|cooldown| retriable(cooldown)).map(|cooldown| cooldown.until);
        asked.or(cooled)
    }

    fn tried(&self, at: u32) -> Option<&Tried> {
        self.state.tried.iter().find(|tried| tried.target == at)
    }

    /// Why a target is not asked.
    fn reason(&self, at: u32) -> String {
        if let Some(tried) = self.tried(at) {
            let tries =
                if tried.failures == 1 { "1 try".into() } else { format!("{} tries", tried.failures) };
            return format!("{} after {tries}: {}", tried.error.kind, tried.error.message);
        }
        if let Some((_, error)) = self.unfit.iter().find(|(unfit, _)| *unfit == at) {
            return error.message.clone();
        }
        match self.cooldown(at) {
            Some(cooldown) => format!("left alone until {} ({})", cooldown.until, cooldown.reason),
            None => "not asked".to_owned(),
        }
    }

    fn exhausted(&self) -> Exhausted {
        Exhausted(self.numbered().map(|(at, one)| Rejected::new(one.route, self.reason(at))).collect())
    }

    fn given_up(&self, error: &ErrorInfo) -> ErrorInfo {
        let last = self.plan.target(self.state.target).route;
        let message = if error.retryable && !self.plan.fallbacks.is_empty() {
            self.exhausted().to_string()
        } else if self.state.failures > 1 {
            format!("{last} failed {} times; the last time: {}", self.state.failures, error.message)
        } else {
            error.message.clone()
        };
        ErrorInfo { message, ..error.clone() }
    }

    fn all_left_alone(&self) -> ErrorInfo {
        let kind = self.numbered().find_map(|(at, _)| self.cooldown(at)).map(|cooldown| cooldown.reason);
        let kind = kind.or_else(|| self.unfit.first().map(|(_, error)| error.kind));
        ErrorInfo::fatal(kind.unwrap_or(forge_types::ErrorKind::Unavailable), self.exhausted().to_string())
    }
}

/// Whether waiting can help: a key that was refused is refused again.
fn retriable(cooldown: &Cooldown) -> bool {
    use forge_types::ErrorKind::{Auth, Billing, Format};
    !matches!(cooldown.reason, Auth | Billing | Format)
}
