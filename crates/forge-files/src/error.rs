//! Reasons why a file could not be read.

use rustix::io::Errno;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// A kind of file that is not a regular file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are self-explanatory")]
pub enum SpecialFileKind {
    Directory,
    NamedPipe,
    Socket,
    Device,
    SymbolicLink,
    Other,
}

impl fmt::Display for SpecialFileKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Directory => "a directory",
            Self::NamedPipe => "a named pipe",
            Self::Socket => "a socket",
            Self::Device => "a device",
            Self::SymbolicLink => "a symbolic link",
            Self::Other => "no file",
        })
    }
}

/// An error for a file that was not read, with its path and the reason.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The path does not exist.
    #[error("{} does not exist", path.display())]
    NotFound {
        /// Path as given.
        path: PathBuf,
    },
    /// The path is not a regular file.
    #[error("{} is {found}, not a regular file", path.display())]
    NotRegular {
        /// Path as given.
        path: PathBuf,
        /// Kind of file found.
        found: SpecialFileKind,
    },
    /// The path, or a component below the trusted directory, is a symbolic link.
    #[error("{} leads through a symbolic link, which is not followed here; put a regular file or directory in its place", path.display())]
    Link {
        /// Path as given.
        path: PathBuf,
    },
    /// The file is larger than the caller accepts.
    #[error("{} is larger than {limit} bytes", path.display())]
    TooLarge {
        /// Path as given.
        path: PathBuf,
        /// Maximum number of bytes accepted.
        limit: u64,
    },
    /// The file is not UTF-8 text.
    #[error("{} is not UTF-8 text", path.display())]
    NotText {
        /// Path as given.
        path: PathBuf,
    },
    /// A system call failed.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// Path as given.
        path: PathBuf,
        /// Underlying error.
        source: io::Error,
    },
}

impl Error {
    /// Returns whether the path does not exist.
    #[must_use]
    pub const fn is_absent(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }

    /// Returns the reason without the path, for messages that name the path themselves.
    #[must_use]
    pub fn reason(&self) -> String {
        match self {
            Self::NotFound { .. } => "no such file".to_owned(),
            Self::NotRegular { found, .. } => format!("{found}, not a regular file"),
            Self::Link { .. } => "the path contains a symbolic link, which is not followed here".to_owned(),
            Self::TooLarge { limit, .. } => format!("larger than {limit} bytes"),
            Self::NotText { .. } => "not UTF-8 text".to_owned(),
            Self::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                "no permission to read it".to_owned()
            }
            Self::Io { source, .. } => source.to_string(),
        }
    }

    /// Converts the error into one of the standard library, for callers that return those.
    #[must_use]
    pub fn into_io_error(self) -> io::Error {
        match self {
            Self::NotFound { .. } => io::Error::new(io::ErrorKind::NotFound, self),
            Self::Io { source, .. } => source,
            Self::NotText { .. } => io::Error::new(io::ErrorKind::InvalidData, self),
            other => io::Error::other(other),
        }
    }

    pub(crate) fn from_errno(path: &Path, errno: Errno) -> Self {
        let path = path.to_owned();
        match errno {
            Errno::NOENT | Errno::NOTDIR => Self::NotFound { path },
            Errno::LOOP | Errno::XDEV => Self::Link { path },
            errno => Self::Io { path, source: errno.into() },
        }
    }

    pub(crate) fn from_io(path: &Path, source: io::Error) -> Self {
        Self::Io { path: path.to_owned(), source }
    }
}
