//! Directories that nobody but this user can enter.

use crate::remove;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// The mode of such a directory.
const PRIVATE_DIR_MODE: Mode = Mode::RWXU;
const DIRECTORY_FLAGS: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Reasons why a directory cannot be private.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NotPrivate {
    /// Somebody else made it.
    #[error(
        "{} belongs to user {owner}, who could change what is kept there; remove it, or name another directory",
        path.display()
    )]
    Foreign {
        /// The path as it was given.
        path: PathBuf,
        /// The user's id.
        owner: u32,
    },
    /// Something else is in its place.
    #[error("{} is no directory, so nothing can be kept there; remove it", path.display())]
    NoDirectory {
        /// The path as it was given.
        path: PathBuf,
    },
    /// The system refused.
    #[error("cannot make the private directory {}: {source}", path.display())]
    Io {
        /// The path as it was given.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A directory of this user that nobody else can enter.
#[derive(Debug)]
pub struct PrivateDir {
    path: PathBuf,
    opened: OwnedFd,
}

impl PrivateDir {
    /// Makes the directory at `path`, or takes the one that is there if it belongs to this user; what is above it is
    /// made as well. Owner and mode are looked at on the descriptor, a link in its place is not followed.
    ///
    /// # Errors
    /// [`NotPrivate`] when it belongs to somebody else, is no directory, or the system refuses.
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

    /// Takes the directory at `path`, if one of this user is there.
    ///
    /// # Errors
    /// As [`Self::make`].
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

    /// Makes the directory `name` in `parent`, a directory of this user that nobody else can write to, such as the
    /// user's runtime directory: it is looked at before, and nothing is made where it is not there.
    ///
    /// # Errors
    /// As [`Self::make`], about either of them.
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

    /// Makes this user's own directory in one that all users share, such as that for files in memory. Its name has the
    /// user's id in it: who took it before gets an error of this user, and nothing else.
    ///
    /// # Errors
    /// As [`Self::make`].
    pub fn for_user(shared: &Path) -> Result<Self, NotPrivate> {
        Self::open_or_create(&Self::user_path(shared))
    }

    /// Where [`Self::of_user`] is.
    #[must_use]
    pub fn user_path(shared: &Path) -> PathBuf {
        shared.join(format!("forge-{}", rustix::process::geteuid().as_raw()))
    }

    /// Its path as it was given.
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
