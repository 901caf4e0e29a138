//! Why an apply did not happen.

use crate::RelPath;
use crate::host::NodeKind;
use forge_types::ErrorClass;
use rustix::io::Errno;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Why an apply did not happen. The repository is as it was, except after [`Error::Unfinished`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// What stands in the repository is not what the state to start from says.
    #[error("{}", format_conflicts(.0))]
    Conflicts(Vec<PathConflict>),
    /// The file system of the repository can't be written to.
    #[error("cannot apply: {} is on a file system that is read-only; nothing was changed", path.display())]
    ReadOnly {
        /// Where.
        path: PathBuf,
    },
    /// The file system of the repository, or a quota, has no room left.
    #[error("cannot apply: no space left while writing {}; nothing was changed, free some space and try again",
            path.display())]
    Full {
        /// Where.
        path: PathBuf,
    },
    /// This user may not do it.
    #[error("cannot apply: no permission to {doing} {}; nothing was changed", path.display())]
    Denied {
        /// What.
        doing: &'static str,
        /// Where.
        path: PathBuf,
    },
    /// The host forbids it although the permission bits allow it.
    #[error("cannot apply: {} may not be changed; it may be immutable (see lsattr) or somebody else's; \
             nothing was changed", path.display())]
    Protected {
        /// Where.
        path: PathBuf,
    },
    /// To replace the file would make it ours.
    #[error("cannot apply: {} belongs to another user (uid {uid}) and would lose its owner; nothing was changed, \
             apply as that user or as root", path.display())]
    Owner {
        /// Where.
        path: PathBuf,
        /// Whose it is.
        uid: u32,
    },
    /// Another process applies to this repository.
    #[error("another apply to {} is at work; try again when it has ended", path.display())]
    Busy {
        /// The repository.
        path: PathBuf,
    },
    /// The store of the run failed.
    #[error("cannot apply: {0}")]
    Store(#[from] crate::Error),
    /// Who watched the apply ended it.
    #[error("the apply was stopped, and nothing was changed: {source}")]
    Stopped {
        /// Why.
        source: io::Error,
    },
    /// The host refused something.
    #[error("cannot apply: cannot {doing} {}: {source}; nothing was changed", path.display())]
    Io {
        /// What.
        doing: &'static str,
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// An apply failed and not everything could be put back.
    #[error("{}", format_unfinished(cause, left))]
    Unfinished {
        /// Why it failed.
        cause: Box<Error>,
        /// What is not as it was: the path, and where what stood there is now.
        left: Vec<(PathBuf, PathBuf)>,
    },
}

impl Error {
    /// What can be done about it.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Conflicts(_) => ErrorClass::Invalid,
            Self::Denied { .. } | Self::Protected { .. } | Self::Owner { .. } => ErrorClass::Denied,
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

/// Names what was being done, and where, in an error of the host.
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

/// A path at which the repository is not what it should be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PathConflict {
    /// Where.
    pub path: RelPath,
    /// What is the matter.
    pub why: ConflictReason,
    /// Whether both changes can be had.
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

/// Whether a conflict would go away by a three-way merge.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mergeable {
    /// It would.
    Clean,
    /// Both sides changed the same lines.
    Conflicting {
        /// In so many places.
        hunks: usize,
    },
    /// Not a matter of lines of text.
    No,
}

/// Since when something stands otherwise.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ChangedSince {
    /// The run began.
    Baseline,
    /// It was applied last.
    Applied,
    /// A moment ago, while this apply was at work.
    Now,
}

/// What is the matter with a path.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ConflictReason {
    /// Other content.
    Changed {
        /// Since when.
        since: ChangedSince,
    },
    /// Other permission bits.
    Permissions {
        /// Since when.
        since: ChangedSince,
    },
    /// Nothing stands there any more.
    Deleted {
        /// Since when.
        since: ChangedSince,
    },
    /// Something else stands there.
    Retyped {
        /// What it was.
        was: NodeKind,
        /// What it is.
        is: NodeKind,
    },
    /// Something stands where nothing stood.
    New {
        /// What it is.
        is: NodeKind,
    },
    /// A folder above it is none any more.
    Above {
        /// That folder.
        directory: RelPath,
        /// What it is now; `None`: gone.
        is: Option<NodeKind>,
    },
    /// A folder that should become something else holds what the run knows nothing of.
    Holds {
        /// An entry of it.
        entry: RelPath,
    },
}

/// A kind of thing, in words.
const fn kind_with_article(kind: NodeKind) -> &'static str {
    match kind {
        NodeKind::File => "a file",
        NodeKind::Dir => "a folder",
        NodeKind::Symlink => "a symbolic link",
        NodeKind::Fifo => "a named pipe",
        NodeKind::Whiteout | NodeKind::Other => "a socket or a device",
    }
}

impl fmt::Display for ChangedSince {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Baseline => "since the run began",
            Self::Applied => "since it was applied last",
            Self::Now => "just now",
        })
    }
}

impl fmt::Display for ConflictReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Changed { since } => write!(f, "changed in the repository {since}"),
            Self::Permissions { since } => write!(f, "got other permissions in the repository {since}"),
            Self::Deleted { since } => write!(f, "deleted in the repository {since}"),
            Self::Retyped { was, is } => write!(
                f,
                "was {} and is {} in the repository now",
                kind_with_article(*was),
                kind_with_article(*is)
            ),
            Self::New { is: NodeKind::File } => f.write_str("a new file stands here in the repository"),
            Self::New { is } => write!(f, "{} stands here in the repository now", kind_with_article(*is)),
            Self::Above { directory: folder, is: None } => {
                write!(f, "its folder {folder} was deleted in the repository")
            }
            Self::Above { directory: folder, is: Some(is) } => {
                write!(f, "its folder {folder} is {} in the repository now", kind_with_article(*is))
            }
            Self::Holds { entry } => {
                write!(f, "is a folder that should go away and holds {entry}, which the run knows nothing of")
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
    let mut text = format!("{cause}\nbut not everything could be put back; what stood at");
    for (path, held) in left {
        text.push_str(&format!("\n  {} is now {}", path.display(), held.display()));
    }
    text
}
