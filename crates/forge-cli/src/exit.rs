//! Exit codes (SPEC 24): the one place where they stand.

use forge_types::RunStatus;
use std::process::ExitCode;

/// How the program ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CliExit {
    /// It worked.
    Done,
    /// It did not.
    Failed,
    /// What was typed or configured is wrong.
    Usage,
    /// A limit ended the run.
    TimedOut,
    /// The run was cancelled by somebody else.
    Cancelled,
    /// The run waits for something, and nobody is there to answer.
    Waiting,
    /// A signal ended it (Ctrl-C).
    Signal,
    /// A command in a box ended with this.
    Code(u8),
}

impl CliExit {
    /// The number.
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::TimedOut => 3,
            Self::Cancelled => 4,
            Self::Waiting => 5,
            Self::Signal => 130,
            Self::Code(code) => code,
        }
    }

    /// What a run's last status means. `by_signal`: this process was told to stop by a signal.
    pub(crate) const fn from_run_status(status: RunStatus, by_signal: bool) -> Self {
        match status {
            RunStatus::Completed => Self::Done,
            RunStatus::Cancelled if by_signal => Self::Signal,
            RunStatus::Cancelled => Self::Cancelled,
            RunStatus::TimedOut => Self::TimedOut,
            RunStatus::Waiting => Self::Waiting,
            RunStatus::Failed | RunStatus::Pending | RunStatus::Running => Self::Failed,
        }
    }
}

impl From<CliExit> for ExitCode {
    fn from(exit: CliExit) -> Self {
        Self::from(exit.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_completed_run_exits_with_zero() {
        let zero: Vec<_> = RunStatus::ALL
            .into_iter()
            .filter(|status| CliExit::from_run_status(*status, false).code() == 0)
            .collect();
        assert_eq!(zero, [RunStatus::Completed]);
    }

    #[test]
    fn codes_are_those_of_the_specification() {
        let code = |status| CliExit::from_run_status(status, false).code();
        assert_eq!(code(RunStatus::Failed), 1);
        assert_eq!(CliExit::Usage.code(), 2);
        assert_eq!(code(RunStatus::TimedOut), 3);
        assert_eq!(code(RunStatus::Cancelled), 4);
        assert_eq!(CliExit::from_run_status(RunStatus::Cancelled, true).code(), 130);
        assert_eq!(code(RunStatus::Waiting), 5);
    }
}
