//! The git of the host, and the repositories of the host as it may see them.
//!
//! A repository's configuration can name programs, files and addresses by some hundred keys, and git obeys it. So no
//! git on the host is ever started on a repository: it works in a [git directory of Forge's own](private), which shows
//! it the repository's objects and nothing else. References are read and written [here](refs), the result of a run
//! enters as a pack and a reference, and no address is part of any of it.
//!
//! What a repository consists of is found by [`Repository::find`]: git data of another repository is never part of it.

mod directory;
mod format;
mod refs;
mod repository;
mod run;
mod scratch_repository;
#[cfg(test)]
mod tests;

pub use refs::RepositoryHeads;
pub use repository::{GitData, Repository, normalize_path};
pub use scratch_repository::{DIRECTORY_KIND, IncomingPack, ScratchRepository};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Why the host's git, or a repository, can't be worked with.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say what the fields are")]
pub enum Error {
    /// The directory is no repository.
    #[error(
        "{} is not a git repository, so there is no branch to put the result on; use `--workspace transaction`",
        repo.display()
    )]
    NoRepository { repo: PathBuf },
    /// Something in the git data is not as it has to be.
    #[error("the git repository can't be used: {} {why}", path.display())]
    Refused { path: PathBuf, why: String },
    /// A file of the git data was not read.
    #[error("the git repository can't be used: {0}")]
    File(#[from] forge_files::Error),
    /// The system refused.
    #[error("the git repository can't be used: {}: {source}", path.display())]
    Io { path: PathBuf, source: std::io::Error },
    /// There is no git.
    #[error(
        "there is no git on this machine, which a branch needs; install it or use `--workspace transaction`"
    )]
    NoGit,
    /// It could not be started or waited for.
    #[error("git can't be started: {source}")]
    Start { source: std::io::Error },
    /// It did not end.
    #[error("`git {what}` did not end within {} s and was killed", limit.as_secs())]
    TooLong { what: String, limit: Duration },
    /// It printed too much.
    #[error("`git {what}` printed more than {limit} bytes and was killed")]
    TooMuch { what: String, limit: usize },
    /// It did not accept what it was given.
    #[error("the repository {} did not take the result: {why}", repo.display())]
    NotTaken { repo: PathBuf, why: String },
}

impl Error {
    fn refused(path: &Path, why: impl Into<String>) -> Self {
        Self::Refused { path: path.to_owned(), why: why.into() }
    }
}

impl From<Error> for forge_ports::sandbox::Error {
    fn from(error: Error) -> Self {
        Self::View { why: error.to_string() }
    }
}
