//! One lock per run: a file that its owner holds locked. The system frees it however the process dies, so that
//! no lease needs a timeout.
//!
//! The file contains the name of its owner. Releasing a lock removes the file; a process that opened it before
//! and then locks a file that is no longer there tries again. Checking for the holder of a lock takes the lock
//! briefly; checks and claims take turns under a second lock, so that no claim fails because of a check. Child
//! processes inherit none of these locks: std opens files close-on-exec.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use forge_types::RunId;

/// The longest owner name that is read back, in bytes.
const MAX_OWNER_BYTES: u64 = 300;

/// The directory of locks.
#[derive(Clone, Debug)]
pub(crate) struct LockDirectory {
    dir: PathBuf,
}

/// A held lock. Dropping it frees the run and removes the file.
#[derive(Debug)]
pub(crate) struct RunLock {
    path: PathBuf,
    /// The open file that holds the lock.
    _file: File,
}

/// The outcome of an attempt to take a lock.
#[derive(Debug)]
pub(crate) enum LockAttempt {
    /// The lock is now held by the caller.
    Locked(RunLock),
    /// The lock is held by another owner, which is named.
    Held(String),
}

impl LockDirectory {
    pub(crate) fn new(data_dir: &Path) -> Self {
        Self { dir: data_dir.join("locks") }
    }

    pub(crate) fn path(&self, run: RunId) -> PathBuf {
        self.dir.join(format!("{run}.lock"))
    }

    /// Takes the lock of a run for `owner`, or returns its current holder.
    pub(crate) fn try_lock(&self, run: RunId, owner: &str) -> io::Result<LockAttempt> {
        self.create_directory()?;
        let _turn = self.lock_turn()?;
        let path = self.path(run);
        loop {
            let mut file = open_lock_file(&path)?;
            match file.try_lock() {
                Err(TryLockError::WouldBlock) => return Ok(LockAttempt::Held(read_owner(&mut file)?)),
                Err(TryLockError::Error(error)) => return Err(error),
                Ok(()) if !is_same_file(&file, &path)? => {}
                Ok(()) => {
                    file.set_len(0)?;
                    file.write_all(owner.as_bytes())?;
                    return Ok(LockAttempt::Locked(RunLock { path, _file: file }));
                }
            }
        }
    }

    /// Returns the holder of a run's lock.
    pub(crate) fn holder(&self, run: RunId) -> io::Result<Option<String>> {
        let path = self.path(run);
        if !path.exists() {
            return Ok(None);
        }
        let _turn = self.lock_turn()?;
        // Opened under the turn lock, so that it is closed, and its own shared lock released, before that lock.
        let mut file = match forge_files::open(&path) {
            Ok(file) => file,
            Err(error) if error.is_absent() => return Ok(None),
            Err(error) => return Err(error.into_io_error()),
        };
        match file.try_lock_shared() {
            Ok(()) => Ok(None),
            Err(TryLockError::WouldBlock) => read_owner(&mut file).map(Some),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    fn create_directory(&self) -> io::Result<()> {
        if self.dir.is_dir() {
            return Ok(());
        }
        DirBuilder::new().recursive(true).mode(0o700).create(&self.dir)
    }

    /// Waits for the turn lock, which is held until the file is closed.
    fn lock_turn(&self) -> io::Result<File> {
        let path = self.dir.join("turn");
        let file = open_lock_file(&path)?;
        file.lock()?;
        Ok(file)
    }
}

fn open_lock_file(path: &Path) -> io::Result<File> {
    forge_files::open_or_create(path).map_err(forge_files::Error::into_io_error)
}

impl Drop for RunLock {
    fn drop(&mut self) {
        // Removed while still locked, so that this can't be the file of another owner.
        let _ = fs::remove_file(&self.path);
    }
}

/// Returns whether the open file is the one now at `path`.
fn is_same_file(file: &File, path: &Path) -> io::Result<bool> {
    let open = file.metadata()?;
    match fs::metadata(path) {
        Ok(there) => Ok(there.ino() == open.ino() && there.dev() == open.dev()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn read_owner(file: &mut File) -> io::Result<String> {
    let mut bytes = Vec::new();
    file.take(MAX_OWNER_BYTES).read_to_end(&mut bytes)?;
    let owner = String::from_utf8_lossy(&bytes).trim().to_owned();
    Ok(if owner.is_empty() { "another process".to_owned() } else { owner })
}
