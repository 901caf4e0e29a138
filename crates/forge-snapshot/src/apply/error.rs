//! Errors of an apply.

use crate::RelPath;
use crate::host::NodeKind;
use forge_types::ErrorClass;
use rustix::io::Errno;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// The reason why an apply failed. The repository is unchanged, except after [`Error::Unfinished`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The repository differs from the expected state.
    #[error("{}", format_conflicts(.0))]
    Conflicts(Vec<PathConflict>),
    /// The file system of the repository is read-only.
    #[error("cannot apply: {} is on a read-only file system; nothing was changed", path.display())]
    ReadOnly {
        /// The path.
        path: PathBuf,
    },
    /// No space or quota is left on the file system of the repository.
    #[error("cannot apply: no space left while writing {}; nothing was changed, free some space and try again",
            path.display())]
    Full {
        /// The path.
        path: PathBuf,
    },
    /// The user lacks the permission.
    #[error("cannot apply: no permission to {doing} {}; nothing was changed", path.display())]
    Denied {
        /// The operation.
        doing: &'static str,
        /// The path.
        path: PathBuf,
    },
    /// The host rejects the change although the permission bits allow it.
    #[error("cannot apply: {} cannot be changed; it may be immutable (see lsattr) or owned by another user; \
             nothing was changed", path.display())]
    Protected {
        /// The path.
        path: PathBuf,
    },
    /// Replacing the file would make the current user its owner.
    #[error("cannot apply: {} belongs to another user (uid {uid}) and would lose its owner; nothing was changed, \
             apply as that user or as root", path.display())]
    Owner {
        /// The path.
        path: PathBuf,
        /// The owner.
        uid: u32,
    },
    /// A file of a third user in a repository of another user, which only root could change.
    #[error("cannot apply: {} belongs to uid {uid}, and the repository to uid {owner}; root changes there only what the \
             repository's owner owns; nothing was changed, change the owner with chown and try again", path.display())]
    ThirdOwner {
        /// The path.
        path: PathBuf,
        /// The owner of the file.
        uid: u32,
        /// The owner of the repository.
        owner: u32,
    },
    /// Another process applies to this repository.
    #[error("another apply to {} is in progress; try again when it has ended", path.display())]
    Busy {
        /// The repository.
        path: PathBuf,
    },
    /// The store of the run failed.
    #[error("cannot apply: {0}")]
    Store(#[from] crate::Error),
    /// The observer stopped the apply.
    #[error("the apply was stopped, and nothing was changed: {source}")]
    Stopped {
        /// The cause.
        source: io::Error,
    },
    /// The host rejected an operation.
    #[error("cannot apply: cannot {doing} {}: {source}; nothing was changed", path.display())]
    Io {
        /// The operation.
        doing: &'static str,
        /// The path.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// An apply failed and could not be undone completely.
    #[error("{}", format_unfinished(cause, left))]
    Unfinished {
        /// The cause of the failure.
        cause: Box<Error>,
        /// Paths that were not restored, with the current locations of their original files.
        left: Vec<(PathBuf, PathBuf)>,
    },
}

impl Error {
    /// Returns the possible reaction to the error.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Conflicts(_) => ErrorClass::Invalid,
            Self::Denied { .. } | Self::Protected { .. } | Self::Owner { .. } | Self::ThirdOwner { .. } => {
                ErrorClass::Denied
            }
            Self::ReadOnly { .. } | Self::Full { .. } => ErrorClass::Unavailable,
            Self::Busy { .. } => ErrorClass::Retry { after: None },
            Self::Store(error) => error.class(),
            Self::Stopped { .. } | Self::Io { .. } | Self::Unfinished { .. } => ErrorClass::Fatal,
        }
    }

    pub(super) fn single_conflict(path: &RelPath, why: ConflictReason) -> Self {
        Self::Conflicts(vec![PathConflict { path: path.clone(), why, merge: Mergeable::No }])
    }
}

/// Adds the operation and the path to a host error.
pub(super) trait ApplyContext<T> {
    fn apply_context(self, doing: &'static str, path: &Path) -> Result<T, Error>;
}

impl<T, E: Into<io::Error>> ApplyContext<T> for Result<T, E> {
    fn apply_context(self, doing: &'static str, path: &Path) -> Result<T, Error> {
        self.map_err(|error| {
            let source = match crate::Error::from_wrapped(error.into()) {
                Ok(own) => return Error::Store(own),
                Err(source) => source,
            };
            let path = path.to_owned();
            match Errno::from_io_error(&source) {
                Some(Errno::ROFS) => Error::ReadOnly { path },
                Some(Errno::NOSPC | Errno::DQUOT) => Error::Full { path },
                Some(Errno::ACCESS) => Error::Denied { doing, path },
                Some(Errno::PERM) => Error::Protected { path },
                _ => Error::Io { doing, path, source },
            }
        })
    }
}

/// A path at which the repository differs from the expected state.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PathConflict {
    /// The path.
    pub path: RelPath,
    /// The difference.
    pub why: ConflictReason,
    /// Whether both changes can be merged.
    pub merge: Mergeable,
}

impl fmt::Display for PathConflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.why)?;
        match self.merge {
            Mergeable::No => Ok(()),
            Mergeable::Clean => f.write_str(" (both changes can be merged)"),
            Mergeable::Conflicting { hunks: 1 } => f.write_str(" (both changed the same lines)"),
            Mergeable::Conflicting { hunks } => write!(f, " (both changed the same lines in {hunks} places)"),
        }
    }
}

/// The result of a three-way merge of a conflict.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mergeable {
    /// The changes merge cleanly.
    Clean,
    /// Both sides changed the same lines.
    Conflicting {
        /// Number of conflicting places.
        hunks: usize,
    },
    /// The conflict is not about text.
    No,
}

/// The reference point of a change in the repository.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ChangedSince {
    /// The beginning of the run.
    Baseline,
    /// The last apply.
    Applied,
    /// The current apply, which was in progress.
    Now,
}

/// The difference of a path.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ConflictReason {
    /// The content differs.
    Changed {
        /// The reference point.
        since: ChangedSince,
    },
    /// The permission bits differ.
    Permissions {
        /// The reference point.
        since: ChangedSince,
    },
    /// The path was deleted.
    Deleted {
        /// The reference point.
        since: ChangedSince,
    },
    /// The file type differs.
    Retyped {
        /// The expected type.
        was: NodeKind,
        /// The current type.
        is: NodeKind,
    },
    /// The path exists but did not before.
    New {
        /// The current type.
        is: NodeKind,
    },
    /// An ancestor is no longer a directory.
    Above {
        /// The ancestor.
        directory: RelPath,
        /// The ancestor's current type; `None`: deleted.
        is: Option<NodeKind>,
    },
    /// A directory that is to be replaced contains an entry unknown to the run.
    Holds {
        /// The entry.
        entry: RelPath,
    },
}

/// Returns the name of a file type with its article.
const fn kind_with_article(kind: NodeKind) -> &'static str {
    match kind {
        NodeKind::File => "a file",
        NodeKind::Dir => "a directory",
        NodeKind::Symlink => "a symbolic link",
        NodeKind::Fifo => "a named pipe",
        NodeKind::Whiteout | NodeKind::Other => "a socket or a device",
    }
}

impl fmt::Display for ChangedSince {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Baseline => "since the run began",
            Self::Applied => "since the last apply",
            Self::Now => "just now",
        })
    }
}

impl fmt::Display for ConflictReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Changed { since } => write!(f, "changed in the repository {since}"),
            Self::Permissions { since } => write!(f, "permissions changed in the repository {since}"),
            Self::Deleted { since } => write!(f, "deleted in the repository {since}"),
            Self::Retyped { was, is } => write!(
                f,
                "changed from {} to {} in the repository",
                kind_with_article(*was),
                kind_with_article(*is)
            ),
            Self::New { is: NodeKind::File } => {
                f.write_str("a new file exists at this path in the repository")
            }
            Self::New { is } => write!(f, "{} exists at this path in the repository", kind_with_article(*is)),
            Self::Above { directory: folder, is: None } => {
                write!(f, "its directory {folder} was deleted in the repository")
            }
            Self::Above { directory: folder, is: Some(is) } => {
                write!(f, "its directory {folder} is now {} in the repository", kind_with_article(*is))
            }
            Self::Holds { entry } => {
                write!(f, "is a directory to be replaced, but contains {entry}, which is unknown to the run")
            }
        }
    }
}

fn format_conflicts(conflicts: &[PathConflict]) -> String {
    let count = conflicts.len();
    let paths = if count == 1 { "1 path".to_owned() } else { format!("{count} paths") };
    let mut text = format!("cannot apply: the repository changed at {paths}; nothing was changed");
    for conflict in conflicts {
        text.push_str(&format!("\n  {conflict}"));
    }
    text
}

fn format_unfinished(cause: &Error, left: &[(PathBuf, PathBuf)]) -> String {
    let mut text = format!("{cause}\nbut not everything could be restored; the original of");
    for (path, held) in left {
        text.push_str(&format!("\n  {} is now {}", path.display(), held.display()));
    }
    text
}
