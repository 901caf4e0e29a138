//! Reasons why a file was not read.

use rustix::io::Errno;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Something that is not a regular file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
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

/// A file that was not read, with its path and the reason.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Nothing is at the path.
    #[error("{} does not exist", path.display())]
    NotFound {
        /// The path as it was given.
        path: PathBuf,
    },
    /// Something other than a regular file is at the path.
    #[error("{} is {found}, not a regular file", path.display())]
    NotRegular {
        /// The path as it was given.
        path: PathBuf,
        /// What is there.
        found: SpecialFileKind,
    },
    /// A symbolic link is at the path, or on the way to it from the trusted directory.
    #[error("{} leads through a symbolic link, which is not followed here; put a regular file or directory in its place", path.display())]
    Link {
        /// The path as it was given.
        path: PathBuf,
    },
    /// The file holds more bytes than the caller accepts.
    #[error("{} is larger than {limit} bytes", path.display())]
    TooLarge {
        /// The path as it was given.
        path: PathBuf,
        /// The most bytes that are accepted.
        limit: u64,
    },
    /// The file is not UTF-8 text.
    #[error("{} is not UTF-8 text", path.display())]
    NotText {
        /// The path as it was given.
        path: PathBuf,
    },
    /// The system refused.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The path as it was given.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl Error {
    /// Tells whether nothing is at the path.
    #[must_use]
    pub const fn is_absent(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }

    /// The reason without the path, for messages that name the path themselves.
    #[must_use]
    pub fn reason(&self) -> String {
        match self {
            Self::NotFound { .. } => "no such file".to_owned(),
            Self::NotRegular { found, .. } => format!("{found}, not a regular file"),
            Self::Link { .. } => "a symbolic link is on the way, which is not followed here".to_owned(),
            Self::TooLarge { limit, .. } => format!("larger than {limit} bytes"),
            Self::NotText { .. } => "bytes that are not UTF-8".to_owned(),
            Self::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                "no permission to read it".to_owned()
            }
            Self::Io { source, .. } => source.to_string(),
        }
    }

    /// The same reason as an error of the standard library, for callers that return those.
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
