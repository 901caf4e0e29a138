//! The host's git, and what it may see of the host's repositories.
//!
//! Some hundred configuration keys of a repository can name programs, files and addresses, and git obeys them. So the
//! host's git is never started on a repository: it works in a [git directory of Forge's own](scratch_repository) that
//! contains only the repository's objects. References are read and written by [Forge itself](refs), the result of a run
//! is imported as a pack and a reference, and no network address is involved.
//!
//! [`Repository::find`] locates the parts of a repository; git data of another repository is never one of them.

mod directory;
mod format;
mod refs;
mod repository;
mod run;
mod scratch_repository;
#[cfg(test)]
mod tests;

pub use directory::{FileId, RepoDirectory, WorkTree};
pub use refs::RepositoryHeads;
pub use repository::{GitData, Repository, normalize_path};
pub use scratch_repository::{DIRECTORY_KIND, IncomingPack, ScratchRepository};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Reasons why the host's git or a repository cannot be used.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages explain the fields")]
pub enum Error {
    /// The directory is not a repository.
    #[error(
        "{} is not a git repository, so there is no branch to put the result on",
        repo.display()
    )]
    NoRepository { repo: PathBuf },
    /// Part of the git data is not as required.
    #[error("cannot use the git repository: {} {why}", path.display())]
    Refused { path: PathBuf, why: String },
    /// A file of the git data could not be read.
    #[error("cannot use the git repository: {0}")]
    File(#[from] forge_files::Error),
    /// A system call failed.
    #[error("cannot use the git repository: {}: {source}", path.display())]
    Io { path: PathBuf, source: std::io::Error },
    /// Git is not installed.
    #[error("git, which branches need, is not installed on this machine")]
    NoGit,
    /// Git could not be started or waited for.
    #[error("cannot start git: {source}")]
    Start { source: std::io::Error },
    /// Git exceeded its time limit.
    #[error("`git {what}` did not end within {} s and was killed", limit.as_secs())]
    TooLong { what: String, limit: Duration },
    /// Git exceeded its output limit.
    #[error("`git {what}` printed more than {limit} bytes and was killed")]
    TooMuch { what: String, limit: usize },
    /// The work was stopped.
    #[error("stopped")]
    Stopped,
    /// Git rejected the result.
    #[error("the repository {} rejected the result: {why}", repo.display())]
    NotTaken { repo: PathBuf, why: String },
}

impl Error {
    fn refused(path: &Path, why: impl Into<String>) -> Self {
        Self::Refused { path: path.to_owned(), why: why.into() }
    }
}

/// Checks that work has not been stopped.
fn check_stopped(bounds: &forge_tree::WorkBounds) -> Result<(), Error> {
    bounds.check_stopped().map_err(|_| Error::Stopped)
}

impl From<Error> for forge_ports::sandbox::Error {
    fn from(error: Error) -> Self {
        let why = error.to_string();
        match error {
            Error::Stopped => Self::Stopped,
            Error::NoRepository { .. } | Error::Refused { .. } | Error::NoGit => Self::NoBranch { why },
            _ => Self::View { why },
        }
    }
}
