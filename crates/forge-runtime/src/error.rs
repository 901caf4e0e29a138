//! What can go wrong with running runs.

use forge_ports::journal;
use forge_ports::queue::ClaimError;
use forge_types::{ErrorClass, RunId};

/// An error of the runtime.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The journal could not be read or written.
    #[error(transparent)]
    Journal(#[from] journal::Error),
    /// The run could not be taken.
    #[error(transparent)]
    Claim(#[from] ClaimError),
    /// There is no run with this id.
    #[error("there is no run {id}. `forge list` shows those there are")]
    NoSuchRun {
        /// What was given.
        id: String,
    },
    /// The beginning of an id fits several runs.
    #[error("`{prefix}` is the beginning of several runs: {}", runs.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))]
    Ambiguous {
        /// What was given.
        prefix: String,
        /// Some of the runs it fits.
        runs: Vec<RunId>,
    },
    /// The journal of the run is damaged.
    #[error("the journal of run {run} is damaged: {damage}. `forge status {run}` shows what can be read")]
    Damaged {
        /// The run.
        run: RunId,
        /// What is damaged.
        damage: String,
    },
    /// What was asked for makes no sense.
    #[error("{what}")]
    Invalid {
        /// What, and what to do instead.
        what: String,
    },
    /// The run can't take this command as it stands.
    #[error("run {run} is {status}: {why}")]
    WrongState {
        /// The run.
        run: RunId,
        /// Its status.
        status: forge_types::RunStatus,
        /// What that means for the command.
        why: String,
    },
    /// The sandbox or a workspace.
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
        /// What the system says.
        why: String,
    },
    /// A fault in forge itself.
    #[error("a fault in forge: {what}")]
    Internal {
        /// What.
        what: String,
    },
}

impl Error {
    /// What can be done about it.
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
