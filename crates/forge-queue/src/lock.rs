//! A lock per run: a file that its owner holds locked. The system frees it when the process dies, in whatever
//! way, so that no lease has to time out.
//!
//! The file's text names the owner. A finished lock takes its file away; whoever opened that file before, and
//! gets the lock on what is no longer there, begins again. A look at who holds a lock has to take it for a
//! moment; looks and claims take turns behind one more lock, so that no claim fails because of a look.
//! Children that are started meanwhile inherit none of this: std opens files close-on-exec.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use forge_types::RunId;

/// The longest name of an owner that is read back, in bytes.
const MAX_OWNER_BYTES: u64 = 300;

/// The folder of locks.
#[derive(Clone, Debug)]
pub(crate) struct LockDirectory {
    dir: PathBuf,
}

/// A lock that is held. Dropping it frees the run and removes the file.
#[derive(Debug)]
pub(crate) struct RunLock {
    path: PathBuf,
    /// Holds the lock by being open.
    _file: File,
}

/// What came of a try.
#[derive(Debug)]
pub(crate) enum LockAttempt {
    /// It is ours.
    Locked(RunLock),
    /// Somebody else's, and whose.
    Held(String),
}

impl LockDirectory {
    pub(crate) fn new(data_dir: &Path) -> Self {
        Self { dir: data_dir.join("locks") }
    }

    pub(crate) fn path(&self, run: RunId) -> PathBuf {
        self.dir.join(format!("{run}.lock"))
    }

    /// Takes the lock of a run for `owner`, or says who has it.
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

    /// Who holds the lock of a run.
    pub(crate) fn holder(&self, run: RunId) -> io::Result<Option<String>> {
        let path = self.path(run);
        if !path.exists() {
            return Ok(None);
        }
        let _turn = self.lock_turn()?;
        Self::read_holder(&path)
    }

    /// The turn to try locks, kept so that nobody takes this one; `None` if somebody holds it.
    pub(crate) fn try_exclusive(&self, run: RunId) -> io::Result<Option<File>> {
        self.create_directory()?;
        let turn = self.lock_turn()?;
        Ok(Self::read_holder(&self.path(run))?.is_none().then_some(turn))
    }

    /// Who holds the lock at `path`. Only for whoever has the turn.
    fn read_holder(path: &Path) -> io::Result<Option<String>> {
        // Opened after the turn began, so that it closes (and with it the look's own lock) before the turn ends.
        let mut file = match forge_files::open(path) {
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

    /// Waits for the turn to try a lock; it lasts as long as the file is open.
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
        // While it is still locked, so that this can't be the file of another owner.
        let _ = fs::remove_file(&self.path);
    }
}

/// Whether the open file is the one that stands at `path` now.
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
