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
const OWNER_MOST: u64 = 300;

/// The folder of locks.
#[derive(Clone, Debug)]
pub(crate) struct Locks {
    dir: PathBuf,
}

/// A lock that is held. Dropping it frees the run and removes the file.
#[derive(Debug)]
pub(crate) struct Lock {
    path: PathBuf,
    /// Holds the lock by being open.
    _file: File,
}

/// What came of a try.
#[derive(Debug)]
pub(crate) enum Tried {
    /// It is ours.
    Locked(Lock),
    /// Somebody else's, and whose.
    Held(String),
}

impl Locks {
    pub(crate) fn new(data_dir: &Path) -> Self {
        Self { dir: data_dir.join("locks") }
    }

    pub(crate) fn path(&self, run: RunId) -> PathBuf {
        self.dir.join(format!("{run}.lock"))
    }

    /// Takes the lock of a run for `owner`, or says who has it.
    pub(crate) fn take(&self, run: RunId, owner: &str) -> io::Result<Tried> {
        self.make_folder()?;
        let _turn = self.turn()?;
        let path = self.path(run);
        loop {
            let mut file = open(&path)?;
            match file.try_lock() {
                Err(TryLockError::WouldBlock) => return Ok(Tried::Held(owner_of(&mut file)?)),
                Err(TryLockError::Error(error)) => return Err(error),
                Ok(()) if !is_there(&file, &path)? => {}
                Ok(()) => {
                    file.set_len(0)?;
                    file.write_all(owner.as_bytes())?;
                    return Ok(Tried::Locked(Lock { path, _file: file }));
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
        let _turn = self.turn()?;
        Self::look(&path)
    }

    /// The turn to try locks, kept so that nobody takes this one; `None` if somebody holds it.
    pub(crate) fn idle(&self, run: RunId) -> io::Result<Option<File>> {
        self.make_folder()?;
        let turn = self.turn()?;
        Ok(Self::look(&self.path(run))?.is_none().then_some(turn))
    }

    /// Who holds the lock at `path`. Only for whoever has the turn.
    fn look(path: &Path) -> io::Result<Option<String>> {
        // Opened after the turn began, so that it closes (and with it the look's own lock) before the turn ends.
        let mut file = match forge_files::open(path) {
            Ok(file) => file,
            Err(error) if error.is_absent() => return Ok(None),
            Err(error) => return Err(error.into_io()),
        };
        match file.try_lock_shared() {
            Ok(()) => Ok(None),
            Err(TryLockError::WouldBlock) => owner_of(&mut file).map(Some),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    fn make_folder(&self) -> io::Result<()> {
        if self.dir.is_dir() {
            return Ok(());
        }
        DirBuilder::new().recursive(true).mode(0o700).create(&self.dir)
    }

    /// Waits for the turn to try a lock; it lasts as long as the file is open.
    fn turn(&self) -> io::Result<File> {
        let path = self.dir.join("turn");
        let file = open(&path)?;
        file.lock()?;
        Ok(file)
    }
}

fn open(path: &Path) -> io::Result<File> {
    forge_files::open_or_create(path).map_err(forge_files::Error::into_io)
}

impl Drop for Lock {
    fn drop(&mut self) {
        // While it is still locked, so that this can't be the file of another owner.
        let _ = fs::remove_file(&self.path);
    }
}

/// Whether the open file is the one that stands at `path` now.
fn is_there(file: &File, path: &Path) -> io::Result<bool> {
    let open = file.metadata()?;
    match fs::metadata(path) {
        Ok(there) => Ok(there.ino() == open.ino() && there.dev() == open.dev()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn owner_of(file: &mut File) -> io::Result<String> {
    let mut bytes = Vec::new();
    file.take(OWNER_MOST).read_to_end(&mut bytes)?;
    let owner = String::from_utf8_lossy(&bytes).trim().to_owned();
    Ok(if owner.is_empty() { "another process".to_owned() } else { owner })
}
