//! The lock that allows one apply at a time per repository.

use super::Error;
use super::error::ApplyContext;
use crate::TreeRoot;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use std::fs::File;
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

/// Locks `repository` for an apply, among all processes that use the same lock directory. Creates the directory if it is
/// missing. The lock file is named by the device and inode number of the repository and is never removed.
pub fn lock_repository(repository: &TreeRoot, folder: &Path, wait: LockWait) -> Result<RepoLockGuard, Error> {
    let stamp = repository.stamp().apply_context("inspect", repository.path())?;
    std::fs::create_dir_all(folder).apply_context("create", folder)?;
    let path = folder.join(format!("{:x}-{:x}.apply", stamp.dev, stamp.ino));
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
            Err(Errno::WOULDBLOCK) => return Err(Error::Busy { path: repository.path().to_owned() }),
            Err(error) => return Err(error).apply_context("lock", &path),
        }
    }
}
