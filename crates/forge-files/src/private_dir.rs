//! Directories that only this user can enter.

use crate::remove;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Mode of a private directory.
const PRIVATE_DIR_MODE: Mode = Mode::RWXU;
const DIRECTORY_FLAGS: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Reasons why a directory cannot be private.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NotPrivate {
    /// The directory belongs to another user.
    #[error(
        "{} belongs to user {owner}, who could change what is kept there; remove it, or name another directory",
        path.display()
    )]
    Foreign {
        /// Path as given.
        path: PathBuf,
        /// User ID of the owner.
        owner: u32,
    },
    /// The path is not a directory.
    #[error("{} is not a directory; remove it", path.display())]
    NoDirectory {
        /// Path as given.
        path: PathBuf,
    },
    /// A system call failed.
    #[error("cannot create the private directory {}: {source}", path.display())]
    Io {
        /// Path as given.
        path: PathBuf,
        /// Underlying error.
        source: io::Error,
    },
}

/// A directory of this user that no other user can enter.
#[derive(Debug)]
pub struct PrivateDir {
    path: PathBuf,
    opened: OwnedFd,
}

impl PrivateDir {
    /// Opens the directory at `path` if it belongs to this user, or creates it together with its missing ancestors.
    /// Owner and mode are checked on the descriptor; a link in its place is not followed.
    ///
    /// # Errors
    /// [`NotPrivate`] if the path belongs to another user or is not a directory, or a system call fails.
    pub fn open_or_create(path: &Path) -> Result<Self, NotPrivate> {
        let failed = |errno: Errno| NotPrivate::Io { path: path.to_owned(), source: errno.into() };
        match rustix::fs::mkdirat(CWD, path, PRIVATE_DIR_MODE) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(Errno::NOENT) => {
                use std::os::unix::fs::DirBuilderExt as _;
                let mut builder = std::fs::DirBuilder::new();
                let made = builder.recursive(true).mode(PRIVATE_DIR_MODE.as_raw_mode()).create(path);
                made.map_err(|source| NotPrivate::Io { path: path.to_owned(), source })?;
            }
            Err(errno) => return Err(failed(errno)),
        }
        Self::open(path)
    }

    /// Opens the existing directory at `path` if it belongs to this user.
    ///
    /// # Errors
    /// As [`Self::open_or_create`].
    pub fn open(path: &Path) -> Result<Self, NotPrivate> {
        let named = || path.to_owned();
        let failed = |errno: Errno| NotPrivate::Io { path: named(), source: errno.into() };
        let opened = match rustix::fs::openat(CWD, path, DIRECTORY_FLAGS, Mode::empty()) {
            Ok(opened) => opened,
            Err(Errno::NOTDIR | Errno::LOOP) => return Err(NotPrivate::NoDirectory { path: named() }),
            Err(errno) => {
                let found = rustix::fs::statat(CWD, path, rustix::fs::AtFlags::SYMLINK_NOFOLLOW);
                return Err(match found {
                    Ok(stat) if !remove::is_own(stat.st_uid) => {
                        NotPrivate::Foreign { path: named(), owner: stat.st_uid }
                    }
                    _ => failed(errno),
                });
            }
        };
        let stat = rustix::fs::fstat(&opened).map_err(failed)?;
        if !remove::is_own(stat.st_uid) {
            return Err(NotPrivate::Foreign { path: named(), owner: stat.st_uid });
        }
        if stat.st_mode & 0o777 != PRIVATE_DIR_MODE.as_raw_mode() {
            rustix::fs::fchmod(&opened, PRIVATE_DIR_MODE).map_err(failed)?;
        }
        Ok(Self { path: named(), opened })
    }

    /// Creates the directory `name` in `parent`, for example in the user's runtime directory. `parent` must exist,
    /// belong to this user and not be writable by others; this is checked first.
    ///
    /// # Errors
    /// As [`Self::open_or_create`], for either directory.
    pub fn open_or_create_below(parent: &Path, name: &str) -> Result<Self, NotPrivate> {
        let failed = |source: io::Error| NotPrivate::Io { path: parent.to_owned(), source };
        let opened =
            rustix::fs::openat(CWD, parent, DIRECTORY_FLAGS, Mode::empty()).map_err(|e| failed(e.into()))?;
        let stat = rustix::fs::fstat(&opened).map_err(|errno| failed(errno.into()))?;
        if !remove::is_own(stat.st_uid) {
            return Err(NotPrivate::Foreign { path: parent.to_owned(), owner: stat.st_uid });
        }
        if stat.st_mode & 0o022 != 0 {
            return Err(failed(io::Error::other("others can write to it")));
        }
        Self::open_or_create(&parent.join(name))
    }

    /// Creates this user's directory in one shared by all users, for example the one for files in memory. Its name
    /// contains the user ID, so a user who takes the name first only causes an error for this user.
    ///
    /// # Errors
    /// As [`Self::open_or_create`].
    pub fn for_user(shared: &Path) -> Result<Self, NotPrivate> {
        Self::open_or_create(&Self::user_path(shared))
    }

    /// Returns the path of [`Self::for_user`].
    #[must_use]
    pub fn user_path(shared: &Path) -> PathBuf {
        shared.join(format!("forge-{}", rustix::process::geteuid().as_raw()))
    }

    /// Returns the path as given.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl AsFd for PrivateDir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.opened.as_fd()
    }
}
