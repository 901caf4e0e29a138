//! The lock that allows one apply at a time per repository.

use super::Error;
use super::error::ApplyContext;
use forge_types::Digest;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// The behaviour if another apply is in progress.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LockWait {
    /// Wait until it ends.
    Yes,
    /// Return [`Error::Busy`].
    No,
}

/// A lock that is held until it is dropped or its process ends.
#[derive(Debug)]
pub struct RepoLockGuard {
    _file: File,
}

/// Locks `repository` for an apply, among all processes that use the same lock directory. Creates the
/// directory if it is missing. The lock file is named by a digest of the repository's path and is never removed.
pub fn lock_repository(repository: &Path, folder: &Path, wait: LockWait) -> Result<RepoLockGuard, Error> {
    let real = repository.canonicalize().apply_context("find", repository)?;
    std::fs::create_dir_all(folder).apply_context("create", folder)?;
    let digest = Digest::of_bytes(real.as_os_str().as_bytes()).to_string();
    let path = folder.join(format!("{}.apply", &digest[..32]));
    let file = File::options().create(true).append(true).open(&path).apply_context("open", &path)?;
    let how = if wait == LockWait::Yes {
        FlockOperation::LockExclusive
    } else {
        FlockOperation::NonBlockingLockExclusive
    };
    loop {
        match flock(&file, how) {
            Ok(()) => return Ok(RepoLockGuard { _file: file }),
            Err(Errno::INTR) => {}
            Err(Errno::WOULDBLOCK) => return Err(Error::Busy { path: repository.to_owned() }),
            Err(error) => return Err(error).apply_context("lock", &path),
        }
    }
}
