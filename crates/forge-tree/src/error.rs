//! What can go wrong with trees on disk, in words that say where and what to do next.

use crate::bounds::{CeilingExcess, WorkspaceCeiling};
use forge_types::{Digest, ErrorClass};
use std::io;
use std::path::{Path, PathBuf};

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file system has no room left. Nothing that was stored before is lost.
    #[error("no space left on the disk while writing {}; free some space and try again", path.display())]
    Full {
        /// What was being written.
        path: PathBuf,
    },
    /// The host refused an operation.
    #[error("cannot {doing} {}: {source}", path.display())]
    Io {
        /// What was being done, as in «cannot … PATH».
        doing: &'static str,
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file was written to while it was read.
    #[error("{} changed while it was read; stop what writes to it and try again", path.display())]
    Changed {
        /// Which.
        path: PathBuf,
    },
    /// Another process writes to this store.
    #[error("{} is in use by another process of forge; wait until it ends", path.display())]
    Busy {
        /// The folder of the store.
        path: PathBuf,
    },
    /// This store was opened for reading only.
    #[error("{} was opened for reading only", path.display())]
    ReadOnly {
        /// The folder of the store.
        path: PathBuf,
    },
    /// No content with this digest is stored.
    #[error("the content {digest} is not stored here; the snapshot cannot be used, choose another one")]
    Missing {
        /// Which.
        digest: Digest,
    },
    /// A content is larger than its reader allows.
    #[error("the content {digest} is {size} bytes long, more than the {limit} allowed here")]
    TooLarge {
        /// Which.
        digest: Digest,
        /// Its length in bytes.
        size: u64,
        /// The most that was allowed.
        limit: u64,
    },
    /// Stored data is not what was written.
    #[error("{what} is damaged; the snapshot cannot be used, choose another one")]
    Damaged {
        /// Which data.
        what: String,
    },
    /// What stood at a path when the run began is gone and was never stored.
    #[error("{} has changed outside since the run began, and what stood there was never needed before, so it was \
             not kept: it cannot be put back", path.display())]
    Lost {
        /// Which path.
        path: PathBuf,
    },
    /// A tree is larger than it may be.
    #[error("{} {} ({}); remove what is not needed, or raise the setting", path.display(), CeilingExcess(*ceiling, *limit),
            ceiling.setting_name())]
    Ceiling {
        /// Which ceiling.
        ceiling: WorkspaceCeiling,
        /// Where it is.
        limit: u64,
        /// The tree, or the file.
        path: PathBuf,
    },
    /// The work was ended from elsewhere.
    #[error("stopped before it was done")]
    Stopped,
}

impl Error {
    /// What can be done about it.
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

    /// An error of the host at `path`; a full disk becomes [`Error::Full`].
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
    /// The error of this crate that travelled as one of the host.
    pub fn from_wrapped(source: io::Error) -> Result<Self, io::Error> {
        source.downcast::<Self>()
    }

    /// A tree, or a file, at `path` exceeds a ceiling.
    pub fn ceiling_exceeded(ceiling: WorkspaceCeiling, limit: u64, path: &Path) -> Self {
        Self::Ceiling { ceiling, limit, path: path.to_owned() }
    }

    /// Names what is above a ceiling by its path in the repository: the directory that stores a workspace is internal.
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

/// Names what was being done, and where, in an error of the host.
pub trait IoContext<T> {
    /// `doing` completes the sentence «cannot … PATH».
    fn io_context(self, doing: &'static str, path: &Path) -> Result<T, Error>;
}

impl<T, E: Into<io::Error>> IoContext<T> for Result<T, E> {
    fn io_context(self, doing: &'static str, path: &Path) -> Result<T, Error> {
        self.map_err(|source| Error::from_io(doing, path, source))
    }
}
