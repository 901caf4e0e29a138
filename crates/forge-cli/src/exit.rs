//! Exit codes (SPEC 24), defined only in this module.

use forge_types::RunStatus;
use std::process::ExitCode;

/// Outcomes of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CliExit {
    /// Success.
    Done,
    /// Failure.
    Failed,
    /// Wrong usage or configuration.
    Usage,
    /// A limit ended the run.
    TimedOut,
    /// Another process cancelled the run.
    Cancelled,
    /// The run is waiting, and no user can answer.
    Waiting,
    /// A signal such as Ctrl-C ended the run.
    Signal,
    /// Exit code of a command in a sandbox.
    Code(u8),
}

impl CliExit {
    /// Returns the exit code.
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

    /// Maps the final status of a run to an outcome. `by_signal`: this process received a signal.
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
