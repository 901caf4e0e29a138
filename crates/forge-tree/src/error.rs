//! Errors for trees on disk. Messages name the path and the next step for the user.

use crate::ceiling::{CeilingExcess, WorkspaceCeiling};
use forge_types::{Digest, ErrorClass};
use std::io;
use std::path::{Path, PathBuf};

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No space is left on the file system. Everything stored before is preserved.
    #[error("no space left on disk while writing {}; free some space and try again", path.display())]
    Full {
        /// The path that was being written.
        path: PathBuf,
    },
    /// The host rejected an operation.
    #[error("cannot {doing} {}: {source}", path.display())]
    Io {
        /// The operation, as in “cannot … PATH”.
        doing: &'static str,
        /// The path.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A file was modified while it was read.
    #[error("{} changed while it was read; stop the process that writes to it and try again", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// Another process has the store open for writing.
    #[error("{} is in use by another forge process; wait until it ends", path.display())]
    Busy {
        /// The directory of the store.
        path: PathBuf,
    },
    /// The store was opened read-only.
    #[error("{} was opened read-only", path.display())]
    ReadOnly {
        /// The directory of the store.
        path: PathBuf,
    },
    /// No content with this digest is stored.
    #[error("the content {digest} is not stored here; the snapshot cannot be used, choose another one")]
    Missing {
        /// The digest.
        digest: Digest,
    },
    /// A content is larger than its reader permits.
    #[error("the content {digest} has {size} bytes, more than the limit of {limit}")]
    TooLarge {
        /// The digest.
        digest: Digest,
        /// The size in bytes.
        size: u64,
        /// The maximum size.
        limit: u64,
    },
    /// Stored data is corrupt.
    #[error("{what} is damaged; the snapshot cannot be used, choose another one")]
    Damaged {
        /// A description of the data.
        what: String,
    },
    /// The baseline content of a path is gone and was never stored.
    #[error("{} was changed by another process since the run began, and its original content was never stored: \
             it cannot be restored", path.display())]
    Lost {
        /// The path.
        path: PathBuf,
    },
    /// A tree or file exceeds a ceiling.
    #[error("{} {} ({}); remove unneeded files or raise the setting", path.display(), CeilingExcess(*ceiling, *limit),
            ceiling.setting_name())]
    Ceiling {
        /// The ceiling.
        ceiling: WorkspaceCeiling,
        /// The limit.
        limit: u64,
        /// The tree or the file.
        path: PathBuf,
    },
    /// The work was stopped from outside.
    #[error("stopped before completion")]
    Stopped,
}

impl Error {
    /// Returns the possible reaction to the error.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Full { .. } | Self::Busy { .. } => ErrorClass::Unavailable,
            Self::Changed { .. } => ErrorClass::Retry { after: None },
            Self::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => ErrorClass::Denied,
            Self::Io { .. } | Self::Damaged { .. } | Self::Lost { .. } => ErrorClass::Fatal,
            Self::Missing { .. } | Self::TooLarge { .. } | Self::ReadOnly { .. } | Self::Ceiling { .. } => {
                ErrorClass::Invalid
            }
            Self::Stopped => ErrorClass::Retry { after: None },
        }
    }

    /// Creates an error from a host error at `path`; a full disk becomes [`Error::Full`].
    pub fn from_io(doing: &'static str, path: &Path, source: impl Into<io::Error>) -> Self {
        let source = match Self::from_wrapped(source.into()) {
            Ok(own) => return own,
            Err(source) => source,
        };
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full { path: path.to_owned() },
            _ => Self::Io { doing, path: path.to_owned(), source },
        }
    }
}

impl Error {
    /// Extracts an error of this crate that was wrapped in a host error.
    pub fn from_wrapped(source: io::Error) -> Result<Self, io::Error> {
        source.downcast::<Self>()
    }

    /// Creates an error for a tree or file at `path` that exceeds a ceiling.
    pub fn ceiling_exceeded(ceiling: WorkspaceCeiling, limit: u64, path: &Path) -> Self {
        Self::Ceiling { ceiling, limit, path: path.to_owned() }
    }

    /// Replaces the path in a ceiling error by the path in the repository, because the workspace's directory is
    /// internal.
    pub fn in_repository(self, workspace: &Path, repository: &Path) -> Self {
        match self {
            Self::Ceiling { ceiling, limit, path } => {
                let below = path.strip_prefix(workspace).ok().filter(|below| *below != Path::new(""));
                let path = match below {
                    Some(below) => repository.join(below),
                    None if path == workspace => repository.to_owned(),
                    None => path,
                };
                Self::Ceiling { ceiling, limit, path }
            }
            other => other,
        }
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        Self::other(error)
    }
}

/// Adds the operation and the path to a host error.
pub trait IoContext<T> {
    /// Adds `doing`, which completes the sentence “cannot … PATH”, and the path.
    fn io_context(self, doing: &'static str, path: &Path) -> Result<T, Error>;
}

impl<T, E: Into<io::Error>> IoContext<T> for Result<T, E> {
    fn io_context(self, doing: &'static str, path: &Path) -> Result<T, Error> {
        self.map_err(|source| Error::from_io(doing, path, source))
    }
}
