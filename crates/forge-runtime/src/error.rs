//! Errors of the runtime.

use forge_ports::journal;
use forge_ports::queue::ClaimError;
use forge_types::{ErrorClass, RunId};

/// An error of the runtime.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The journal could not be read or written.
    #[error(transparent)]
    Journal(#[from] journal::Error),
    /// The run could not be claimed.
    #[error(transparent)]
    Claim(#[from] ClaimError),
    /// There is no run with this id.
    #[error("there is no run {id}. `forge list` shows all runs")]
    NoSuchRun {
        /// The id that was given.
        id: String,
    },
    /// The beginning of an id matches several runs.
    #[error("`{prefix}` matches several runs: {}", runs.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))]
    Ambiguous {
        /// The beginning that was given.
        prefix: String,
        /// Some of the matching runs.
        runs: Vec<RunId>,
    },
    /// The journal of the run is damaged.
    #[error(
        "the journal of run {run} is damaged: {damage}. `forge status {run}` shows what is still readable"
    )]
    Damaged {
        /// The run.
        run: RunId,
        /// A description of the damage.
        damage: String,
    },
    /// The request is invalid.
    #[error("{what}")]
    Invalid {
        /// The fault, and what to do instead.
        what: String,
    },
    /// The run can't take this command in its present state.
    #[error("run {run} is {status}: {why}")]
    WrongState {
        /// The run.
        run: RunId,
        /// The run's status.
        status: forge_types::RunStatus,
        /// The consequence for the command.
        why: String,
    },
    /// An error of the sandbox or a workspace.
    #[error(transparent)]
    Sandbox(#[from] forge_ports::sandbox::Error),
    /// No model can be chosen.
    #[error(transparent)]
    Route(#[from] forge_policy::route::Error),
    /// The run directory can't be written.
    #[error("{path} can't be written: {why}")]
    Output {
        /// The file.
        path: String,
        /// The reason that the system gives.
        why: String,
    },
    /// A bug in forge itself.
    #[error("internal error in forge: {what}")]
    Internal {
        /// A description of the bug.
        what: String,
    },
}

impl Error {
    /// Returns the class of the error, which determines how to react to it.
    pub const fn class(&self) -> ErrorClass {
        match self {
            Self::Journal(error) => error.class(),
            Self::Claim(ClaimError::Store(error)) => error.class(),
            Self::Sandbox(error) => error.class(),
            Self::Claim(ClaimError::Held { .. }) => ErrorClass::Denied,
            Self::Claim(ClaimError::Lock { .. }) => ErrorClass::Unavailable,
            Self::NoSuchRun { .. }
            | Self::Ambiguous { .. }
            | Self::Invalid { .. }
            | Self::WrongState { .. }
            | Self::Route(_) => ErrorClass::Invalid,
            Self::Damaged { .. } | Self::Output { .. } | Self::Internal { .. } => ErrorClass::Fatal,
        }
    }
}

impl From<forge_engine::Error> for Error {
    fn from(error: forge_engine::Error) -> Self {
        match error {
            forge_engine::Error::Journal(error) => Self::Journal(error),
            forge_engine::Error::Claim(error) => Self::Claim(error),
            forge_engine::Error::NoSuchRun { run } => Self::NoSuchRun { id: run.to_string() },
            forge_engine::Error::Damaged { run, damage } => Self::Damaged { run, damage },
            forge_engine::Error::Internal { what } => Self::Internal { what },
        }
    }
}
