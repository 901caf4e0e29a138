//! Directories into which files are written by name, never through a symbolic link.

use crate::error::Error;
use crate::open::{reopen_regular, special_file_error};
use crate::read::read_from;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, RenameFlags, ResolveFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Attempts at finding a free draft name; a taken name belongs to another process.
const MAX_DRAFT_TRIES: u32 = 16;
/// Mode of newly created directories.
const PRIVATE_DIR_MODE: Mode = Mode::RWXU;
/// Mode of files that only their owner may read.
pub const OWNER_ONLY_MODE: u32 = 0o600;

/// An open directory. Later changes to its path have no effect on it.
#[derive(Debug)]
pub struct Directory {
    handle: OwnedFd,
    path: PathBuf,
}

impl Directory {
    /// Opens the directory at `path`. Links are followed because the caller named the path.
    ///
    /// # Errors
    /// [`Error::NotFound`] or a system error.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let handle = rustix::fs::open(path, directory_flags(), Mode::empty());
        let handle = handle.map_err(|errno| Error::from_errno(path, errno))?;
        Ok(Self { handle, path: path.to_owned() })
    }

    /// Opens a directory like [`Directory::open`], creating missing components with access for this user only.
    ///
    /// # Errors
    /// As [`Directory::open`].
    pub fn open_or_create(path: &Path) -> Result<Self, Error> {
        use std::os::unix::fs::DirBuilderExt as _;
        let made = std::fs::DirBuilder::new().recursive(true).mode(PRIVATE_DIR_MODE.bits()).create(path);
        made.map_err(|source| Error::from_io(path, source))?;
        Self::open(path)
    }

    /// Opens the directory at `relative` below `root` without following symbolic links below `root`.
    ///
    /// # Errors
    /// As [`Directory::open`]; [`Error::Link`] with the path of the link.
    pub fn open_within(root: &Path, relative: &Path) -> Result<Self, Error> {
        let base = Self::open(root)?;
        if relative.components().all(|part| part == Component::CurDir) {
            return Ok(base);
        }
        base.open_below(relative)
    }

    /// Opens a directory like [`Directory::open_within`], creating components missing below `root` with access for this
    /// user only.
    ///
    /// # Errors
    /// As [`Directory::open_within`].
    pub fn open_or_create_within(root: &Path, relative: &Path) -> Result<Self, Error> {
        let mut here = Self::open(root)?;
        for part in relative.components().filter(|part| *part != Component::CurDir) {
            let part = Path::new(part.as_os_str());
            here = match here.open_below(part) {
                Err(Error::NotFound { path }) => {
                    match rustix::fs::mkdirat(&here.handle, part, PRIVATE_DIR_MODE) {
                        Ok(()) | Err(Errno::EXIST) => {}
                        Err(errno) => return Err(Error::from_errno(&path, errno)),
                    }
                    here.open_below(part).map_err(|error| match error {
                        // The name is taken by something that is not a directory.
                        Error::NotFound { path } => Error::from_errno(&path, Errno::EXIST),
                        other => other,
                    })?
                }
                other => other?,
            };
        }
        Ok(here)
    }

    fn open_below(&self, relative: &Path) -> Result<Self, Error> {
        let path = self.path.join(relative);
        let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let opened = rustix::fs::openat2(&self.handle, relative, directory_flags(), Mode::empty(), beneath);
        match opened {
            Ok(handle) => Ok(Self { handle, path }),
            Err(errno) => match Error::from_errno(&path, errno) {
                Error::Link { path } => {
                    Err(Error::Link { path: find_symlink_below(&self.path, relative).unwrap_or(path) })
                }
                other => Err(other),
            },
        }
    }

    /// Returns the path under which the directory was opened.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns whether an entry with this name exists, and checks that it is a regular file.
    ///
    /// # Errors
    /// [`Error::Link`] or [`Error::NotRegular`] if the entry is not a regular file.
    pub fn contains_file(&self, name: &str) -> Result<bool, Error> {
        Ok(self.file_mode(name)?.is_some())
    }

    /// Returns the permissions of a file, or `None` if it does not exist.
    ///
    /// # Errors
    /// As [`Directory::contains_file`].
    pub fn file_mode(&self, name: &str) -> Result<Option<u32>, Error> {
        let path = self.path.join(name);
        let stat = match rustix::fs::statat(&self.handle, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(Error::from_errno(&path, errno)),
        };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Symlink => Err(Error::Link { path }),
            kind => match special_file_error(&path, kind) {
                Some(error) => Err(error),
                None => Ok(Some(stat.st_mode & 0o777)),
            },
        }
    }

    /// Reads a file of at most `max_bytes`.
    ///
    /// # Errors
    /// As [`crate::read_within`].
    pub fn read_file(&self, name: &str, max_bytes: u64) -> Result<Vec<u8>, Error> {
        let path = self.path.join(name);
        // Distinguishes links from other special files before anything is opened.
        if !self.contains_file(name)? {
            return Err(Error::NotFound { path });
        }
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let handle = rustix::fs::openat(&self.handle, name, flags, Mode::empty());
        let handle = handle.map_err(|errno| Error::from_errno(&path, errno))?;
        read_from(&path, reopen_regular(&path, &handle)?, max_bytes)
    }

    /// Writes a new file.
    ///
    /// # Errors
    /// A system error, including one for a name that is already taken by anything.
    pub fn create_file(&self, name: &str, bytes: &[u8], mode: u32) -> Result<(), Error> {
        let path = self.path.join(name);
        let mut file = self.create_new(name, mode).map_err(|errno| Error::from_errno(&path, errno))?;
        file.write_all(bytes).map_err(|source| Error::from_io(&path, source))
    }

    /// Replaces a file atomically: even after a crash it has either the old or the new content.
    ///
    /// # Errors
    /// As [`Directory::contains_file`], or a system error. The file is unchanged in that case.
    pub fn replace_file(&self, name: &str, bytes: &[u8], mode: u32) -> Result<(), Error> {
        self.contains_file(name)?;
        let path = self.path.join(name);
        let (draft, mut file) = self.create_draft(name)?;
        let written = (|| {
            file.write_all(bytes)?;
            rustix::fs::fchmod(&file, Mode::from_raw_mode(mode))?;
            file.sync_all()?;
            rustix::fs::renameat(&self.handle, draft.as_str(), &self.handle, name)?;
            Ok(())
        })();
        if written.is_err() {
            let _ = rustix::fs::unlinkat(&self.handle, draft.as_str(), AtFlags::empty());
        }
        written.map_err(|source| Error::from_io(&path, source))?;
        // Without this, a power failure may lose the new name; not every file system supports it.
        let _ = rustix::fs::fsync(&self.handle);
        Ok(())
    }

    /// Renames a file without overwriting anything.
    ///
    /// # Errors
    /// A system error, including one for a new name that is already taken.
    pub fn rename_file(&self, from: &str, to: &str) -> Result<(), Error> {
        let renamed = rustix::fs::renameat_with(&self.handle, from, &self.handle, to, RenameFlags::NOREPLACE);
        renamed.map_err(|errno| Error::from_errno(&self.path.join(to), errno))
    }

    /// Opens a file for appending; a missing one is created.
    ///
    /// # Errors
    /// [`Error::Link`], [`Error::NotRegular`], or a system error.
    pub fn open_append_file(&self, name: &str, mode: u32) -> Result<File, Error> {
        let path = self.path.join(name);
        let fail = |errno| Error::from_errno(&path, errno);
        // Distinguishes links from other special files before anything is opened; `NONBLOCK` never waits for a pipe.
        self.contains_file(name)?;
        let flags = OFlags::WRONLY
            | OFlags::APPEND
            | OFlags::CREATE
            | OFlags::NOFOLLOW
            | OFlags::NONBLOCK
            | OFlags::CLOEXEC;
        let file: File =
            rustix::fs::openat(&self.handle, name, flags, Mode::from_raw_mode(mode)).map_err(fail)?.into();
        let kind = FileType::from_raw_mode(rustix::fs::fstat(&file).map_err(fail)?.st_mode);
        special_file_error(&path, kind).map_or(Ok(file), Err)
    }

    /// Opens the lock file of another file, creating it if necessary.
    ///
    /// # Errors
    /// [`Error::Link`], [`Error::NotRegular`], or a system error.
    pub fn open_lock_file(&self, name: &str) -> Result<File, Error> {
        let path = self.path.join(name);
        let fail = |errno| Error::from_errno(&path, errno);
        // Read and write: opening a pipe for only one of them blocks or fails while the other end is closed.
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(OWNER_ONLY_MODE);
        let file: File = rustix::fs::openat(&self.handle, name, flags, mode).map_err(fail)?.into();
        let kind = FileType::from_raw_mode(rustix::fs::fstat(&file).map_err(fail)?.st_mode);
        special_file_error(&path, kind).map_or(Ok(file), Err)
    }

    fn create_draft(&self, name: &str) -> Result<(String, File), Error> {
        static NEXT_DRAFT: AtomicU64 = AtomicU64::new(0);
        let mut tries = 0;
        loop {
            let number = NEXT_DRAFT.fetch_add(1, Ordering::Relaxed);
            let draft = format!(".{name}.{}-{number}.tmp", std::process::id());
            match self.create_new(&draft, OWNER_ONLY_MODE) {
                Ok(file) => return Ok((draft, file)),
                Err(Errno::EXIST) if tries < MAX_DRAFT_TRIES => tries += 1,
                Err(errno) => return Err(Error::from_errno(&self.path.join(draft), errno)),
            }
        }
    }

    fn create_new(&self, name: &str, mode: u32) -> Result<File, Errno> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(&self.handle, name, flags, Mode::from_raw_mode(mode))?.into())
    }
}

/// Returns the first symbolic link on the path from `root`, for error messages.
#[must_use]
pub fn find_symlink_below(root: &Path, relative: &Path) -> Option<PathBuf> {
    let mut here = root.to_owned();
    relative.components().find_map(|part| {
        here.push(part);
        here.symlink_metadata().is_ok_and(|meta| meta.is_symlink()).then(|| here.clone())
    })
}

const fn directory_flags() -> OFlags {
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC)
}
