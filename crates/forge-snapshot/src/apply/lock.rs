//! One apply at a time per repository.

use super::Error;
use super::error::Doing;
use forge_types::Digest;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Whether to wait for another apply to end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wait {
    /// Until it has.
    Yes,
    /// No: [`Error::Busy`].
    No,
}

/// Holds the lock until it is dropped or its process ends.
#[derive(Debug)]
pub struct Guard {
    _file: File,
}

/// Locks `repository` for an apply, among all processes that use the same `folder` for their locks. The folder is
/// made if it is missing; the file in it is named by a digest of the repository's path and stays.
pub fn lock(repository: &Path, folder: &Path, wait: Wait) -> Result<Guard, Error> {
    let real = repository.canonicalize().doing("find", repository)?;
    std::fs::create_dir_all(folder).doing("make", folder)?;
    let digest = Digest::of(real.as_os_str().as_bytes()).to_string();
    let path = folder.join(format!("{}.apply", &digest[..32]));
    let file = File::options().create(true).append(true).open(&path).doing("open", &path)?;
    let how = if wait == Wait::Yes {
        FlockOperation::LockExclusive
    } else {
        FlockOperation::NonBlockingLockExclusive
    };
    loop {
        match flock(&file, how) {
            Ok(()) => return Ok(Guard { _file: file }),
            Err(Errno::INTR) => {}
            Err(Errno::WOULDBLOCK) => return Err(Error::Busy { path: repository.to_owned() }),
            Err(error) => return Err(error).doing("lock", &path),
        }
    }
}
