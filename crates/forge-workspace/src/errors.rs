//! Reasons why a workspace is unavailable, and snapshot errors as errors of the port.

use forge_ports::sandbox::Error;

/// A reason why a workspace is unavailable.
#[derive(Debug)]
pub enum OpenError {
    /// An earlier sandbox of the run is still ending.
    Busy(Error),
    /// The workspace cannot be opened.
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
    /// Returns the reason as an error.
    pub fn into_error(self) -> Error {
        match self {
            Self::Busy(error) | Self::Failed(error) => error,
        }
    }
}

/// Converts an error of the snapshots to the port's error.
pub fn workspace_error(error: &forge_snapshot::Error) -> Error {
    match error {
        forge_snapshot::Error::Ceiling { .. } => Error::Ceiling { why: error.to_string() },
        forge_snapshot::Error::Stopped => Error::Stopped,
        error => Error::View { why: error.to_string() },
    }
}
