//! The status of a run and its transitions.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// The status of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunStatus {
    /// Stored, not yet claimed.
    #[default]
    Pending,
    /// In progress.
    Running,
    /// Parked until an external event.
    Waiting,
    /// Finished normally.
    Completed,
    /// Ended by an error.
    Failed,
    /// Ended by a cancel request.
    Cancelled,
    /// Ended by a limit.
    TimedOut,
}

/// The condition that a parked run waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WaitingFor {
    /// A person's answers.
    Question,
    /// A person's approval.
    Approval,
    /// An increased budget.
    Budget,
    /// The end of a long Retry-After.
    Retry,
    /// A `resume` command after a `pause`.
    Paused,
}

impl WaitingFor {
    /// Returns the name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Question => "question",
            Self::Approval => "approval",
            Self::Budget => "budget",
            Self::Retry => "retry",
            Self::Paused => "paused",
        }
    }
}

/// A transition that is not allowed and therefore has no effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the status of a run cannot change from {from} to {to}")]
pub struct InvalidTransition {
    /// The current status.
    pub from: RunStatus,
    /// The requested status.
    pub to: RunStatus,
}

impl RunStatus {
    /// All values, in the order of a run's life.
    pub const ALL: [Self; 7] = [
        Self::Pending,
        Self::Running,
        Self::Waiting,
        Self::Completed,
        Self::Failed,
        Self::Cancelled,
        Self::TimedOut,
    ];

    /// Returns whether the status is final.
    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled | Self::TimedOut)
    }

    /// Returns the name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Waiting => "waiting",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::TimedOut => "timed_out",
        }
    }

    /// Checks a transition. The only definition of the allowed transitions.
    ///
    /// # Errors
    /// Returns [`InvalidTransition`] if the transition is not allowed.
    pub const fn to(self, to: Self) -> Result<Self, InvalidTransition> {
        use RunStatus::{Cancelled, Completed, Failed, Pending, Running, TimedOut, Waiting};
        let allowed = match self {
            Pending => matches!(to, Running | Cancelled | Failed),
            Running => matches!(to, Waiting | Completed | Failed | Cancelled | TimedOut | Pending),
            Waiting => matches!(to, Running | Cancelled | TimedOut | Failed),
            Completed | Failed | Cancelled | TimedOut => false,
        };
        if allowed { Ok(to) } else { Err(InvalidTransition { from: self, to }) }
    }
}

impl fmt::Display for RunStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for RunStatus {
    type Err = crate::IdError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|status| status.name() == text)
            .ok_or_else(|| crate::IdError { what: "run status", text: text.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_changes_is_exactly_this() {
        let mut table = String::new();
        for from in RunStatus::ALL {
            let to: Vec<_> =
                RunStatus::ALL.into_iter().filter(|to| from.to(*to).is_ok()).map(RunStatus::name).collect();
            table += &format!("{from}: {}\n", to.join(" "));
        }
        assert_eq!(
            table,
            "pending: running failed cancelled\n\
             running: pending waiting completed failed cancelled timed_out\n\
             waiting: running failed cancelled timed_out\n\
             completed: \nfailed: \ncancelled: \ntimed_out: \n"
        );
    }
}
