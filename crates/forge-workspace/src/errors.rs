//! Why a view is not there, and errors of the snapshots in the port's words.

use forge_ports::sandbox::Error;

/// Why a view is not there.
#[derive(Debug)]
pub enum OpenError {
    /// An earlier box of the run is still ending.
    Busy(Error),
    /// It can't be had.
    Failed(Error),
}

impl From<Error> for OpenError {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl From<forge_snapshot::Error> for OpenError {
    fn from(error: forge_snapshot::Error) -> Self {
        match error {
            forge_snapshot::Error::Busy { .. } => Self::Busy(workspace_error(&error)),
            error => Self::Failed(workspace_error(&error)),
        }
    }
}

impl OpenError {
    /// The reason as an error.
    pub fn into_error(self) -> Error {
        match self {
            Self::Busy(error) | Self::Failed(error) => error,
        }
    }
}

/// An error of the snapshots in the port's words.
pub fn workspace_error(error: &forge_snapshot::Error) -> Error {
    match error {
        forge_snapshot::Error::Ceiling { .. } => Error::Ceiling { why: error.to_string() },
        forge_snapshot::Error::Stopped => Error::Stopped,
        error => Error::View { why: error.to_string() },
    }
}
