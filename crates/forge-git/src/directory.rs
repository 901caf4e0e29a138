//! A directory of a repository, accessed by its descriptor. Nothing in it is reached through a symbolic link, and new
//! entries get the owner of the directory.

use crate::Error;
use rustix::fs::{Access, AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;
use std::ffi::{CString, OsStr};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// Prefix of git's names for incomplete packs, which git removes eventually.
const TEMPORARY_PREFIX: &str = "tmp_";
/// Kind of the name of an incomplete pack.
const PACK_KIND: &str = "pack";

/// Returns a name for a temporary file among the packs. It lets git's own cleanup find the file if this process is killed.
pub(crate) fn temporary_name() -> String {
    format!("{TEMPORARY_PREFIX}{}", forge_files::owned_temp_name(PACK_KIND))
}

/// Returns whether a name is that of a temporary file of a process that no longer exists.
pub(crate) fn is_stale_temporary(name: &str) -> bool {
    name.strip_prefix(TEMPORARY_PREFIX).is_some_and(|own| forge_files::is_stale(own, PACK_KIND))
}

/// Flags for opening a directory.
pub(super) const DIRECTORY_FLAGS: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Device and inode number of a file.
pub type FileId = (u64, u64);

/// A working directory that the caller has open.
#[derive(Clone, Copy, Debug)]
pub struct WorkTree<'a> {
    /// Path without links: for messages, and what git data elsewhere must name.
    pub path: &'a Path,
    /// The open directory, through which everything in it is reached.
    pub fd: BorrowedFd<'a>,
}

/// An open directory.
#[derive(Debug)]
pub struct RepoDirectory {
    fd: OwnedFd,
    path: PathBuf,
}

impl AsFd for RepoDirectory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// An entry of a directory.
pub(super) struct RepoDirEntry {
    pub(super) name: CString,
    pub(super) kind: FileType,
}

impl RepoDirEntry {
    pub(super) fn name_bytes(&self) -> &[u8] {
        self.name.as_bytes()
    }

    pub(super) fn name_os_str(&self) -> &OsStr {
        OsStr::from_bytes(self.name.as_bytes())
    }
}

impl RepoDirectory {
    /// Returns a working directory.
    pub(super) fn of_work_tree(tree: WorkTree<'_>) -> Result<Self, Error> {
        let fd = tree.fd.try_clone_to_owned();
        let fd = fd.map_err(|source| Error::Io { path: tree.path.to_owned(), source })?;
        Ok(Self { fd, path: tree.path.to_owned() })
    }

    /// Opens the directory at an absolute path, in which nothing may be a link.
    pub(super) fn open_without_links(path: &Path) -> Result<Self, Error> {
        let top = Self::open(Path::new("/"))?;
        let below = path.strip_prefix("/").unwrap_or(path);
        top.open_below(below)?.ok_or_else(|| errno_to_error(path, Errno::NOENT))
    }

    /// Returns another handle of the directory.
    pub(super) fn try_clone(&self) -> Result<Self, Error> {
        let fd = self.fd.try_clone().map_err(|source| Error::Io { path: self.path.clone(), source })?;
        Ok(Self { fd, path: self.path.clone() })
    }

    /// Opens the directory at a path, the last part of which may be no link.
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let fd = rustix::fs::openat(CWD, path, DIRECTORY_FLAGS, Mode::empty());
        Ok(Self { fd: fd.map_err(|errno| errno_to_error(path, errno))?, path: path.to_owned() })
    }

    /// Opens a directory below this one without following links. Returns `None` if it does not exist.
    pub(super) fn open_below(&self, relative: impl AsRef<Path>) -> Result<Option<Self>, Error> {
        let path = self.path.join(&relative);
        let how = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let mut opened =
            rustix::fs::openat2(&self.fd, relative.as_ref(), DIRECTORY_FLAGS, Mode::empty(), how);
        if matches!(opened, Err(Errno::NOSYS | Errno::PERM)) {
            // Kernels before 5.6, and seccomp filters that do not know the system call: open one component at a time.
            opened = relative
                .as_ref()
                .iter()
                .try_fold(self.fd.try_clone().map_err(|_| Errno::MFILE), |at, name| {
                    Ok(rustix::fs::openat(at?, name, DIRECTORY_FLAGS, Mode::empty()))
                })
                .and_then(|last| last);
        }
        match opened {
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(errno_to_error(&path, errno)),
            Ok(fd) => Ok(Some(Self { fd, path })),
        }
    }

    /// Opens a directory like [`RepoDirectory::open_below`], creating it if missing. `name` is a single component.
    pub(super) fn open_or_create(&self, name: &str) -> Result<Self, Error> {
        if let Some(there) = self.open_below(name)? {
            return Ok(there);
        }
        let path = self.path.join(name);
        let around = self.stat()?;
        match rustix::fs::mkdirat(&self.fd, name, Mode::from_raw_mode(0o700)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno_to_error(&path, errno)),
        }
        let made = self.open_below(name)?.ok_or_else(|| errno_to_error(&path, Errno::NOENT))?;
        // The owner of this directory may have put another directory there, which must not change hands.
        if made.stat()?.st_uid != rustix::process::geteuid().as_raw() || !made.is_empty()? {
            return Ok(made);
        }
        inherit_permissions(&made.fd, &around, around.st_mode & 0o7777)
            .map_err(|errno| errno_to_error(&path, errno))?;
        Ok(made)
    }

    /// Lists the entries, sorted by name. Returns `None` if there are more than `limit`.
    pub(super) fn list_entries(&self, limit: usize) -> Result<Option<Vec<RepoDirEntry>>, Error> {
        let failed = |errno| errno_to_error(&self.path, errno);
        let mut entries = Vec::new();
        for entry in Dir::read_from(&self.fd).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            if entries.len() == limit {
                return Ok(None);
            }
            let mut kind = entry.file_type();
            if kind == FileType::Unknown {
                // Not every file system reports the type.
                let stat = rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
                kind = FileType::from_raw_mode(stat.st_mode);
            }
            entries.push(RepoDirEntry { name: name.to_owned(), kind });
        }
        entries.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        Ok(Some(entries))
    }

    fn is_empty(&self) -> Result<bool, Error> {
        Ok(self.list_entries(0)?.is_some())
    }

    /// Creates a new file for writing, with the permissions of files in this directory and the directory's owner.
    pub(super) fn create_file(&self, name: &str, mode: u32) -> Result<File, Error> {
        let path = self.path.join(name);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let around = self.stat()?;
        let file = rustix::fs::openat(&self.fd, name, flags, Mode::from_raw_mode(0o600))
            .map_err(|errno| errno_to_error(&path, errno))?;
        inherit_permissions(&file, &around, around.st_mode & mode)
            .map_err(|errno| errno_to_error(&path, errno))?;
        Ok(file.into())
    }

    /// Creates a new file for writing like [`RepoDirectory::create_file`], as a second name of a file `aside`, by which it
    /// is found if this process is killed. Where links are not possible, it has no second name.
    pub(super) fn create_linked_file(
        &self,
        name: &str,
        mode: u32,
        aside: &Self,
        second_name: &str,
    ) -> Result<File, Error> {
        let path = self.path.join(name);
        let failed = |errno| errno_to_error(&path, errno);
        let file = aside.create_file(second_name, mode)?;
        let around = self.stat()?;
        let linked = inherit_permissions(&file, &around, around.st_mode & mode)
            .and_then(|()| rustix::fs::linkat(&aside.fd, second_name, &self.fd, name, AtFlags::empty()));
        match linked {
            Ok(()) => {
                let stat = rustix::fs::fstat(&file).map_err(failed)?;
                let named = rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
                // In a directory of another user the name can have been given to another file.
                if (named.st_dev, named.st_ino) == (stat.st_dev, stat.st_ino) {
                    return Ok(file);
                }
                Err(Error::refused(&path, "was exchanged by another program"))
            }
            Err(Errno::XDEV | Errno::PERM | Errno::MLINK | Errno::OPNOTSUPP | Errno::NOSYS) => {
                aside.remove_file(second_name)?;
                self.create_file(name, mode)
            }
            Err(errno) => {
                let _ = aside.remove_file(second_name);
                Err(failed(errno))
            }
        }
    }

    /// Returns the device and inode of an entry, and whether it has several names; `None` if it does not exist.
    pub(super) fn entry_identity(&self, name: &str) -> Option<(u64, u64, bool)> {
        let stat = rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        Some((stat.st_dev, stat.st_ino, stat.st_nlink > 1))
    }

    /// Opens a regular file for reading. It must belong to `uid` (`None`: this process's user) and have no other name,
    /// because a hard link could point to a file that only this process may read.
    pub(super) fn open_file(&self, name: &str, uid: Option<u32>) -> Result<File, Error> {
        let path = self.path.join(name);
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.fd, name, flags, Mode::empty());
        let file = file.map_err(|errno| errno_to_error(&path, errno))?;
        let stat = rustix::fs::fstat(&file).map_err(|errno| errno_to_error(&path, errno))?;
        let owner = uid.unwrap_or_else(|| rustix::process::geteuid().as_raw());
        let regular = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        if !regular || stat.st_uid != owner || stat.st_nlink != 1 {
            return Err(Error::refused(&path, "is not a file that git wrote"));
        }
        Ok(file.into())
    }

    /// Renames a file, replacing an existing one.
    pub(super) fn rename_file(&self, from: &str, to: &str) -> Result<(), Error> {
        rustix::fs::renameat(&self.fd, from, &self.fd, to)
            .map_err(|errno| errno_to_error(&self.path.join(to), errno))
    }

    /// Removes a file if it exists.
    pub(super) fn remove_file(&self, name: &str) -> Result<(), Error> {
        match rustix::fs::unlinkat(&self.fd, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(errno_to_error(&self.path.join(name), errno)),
        }
    }

    /// Checks that this process may create entries in this directory.
    pub(super) fn check_writable(&self) -> Result<(), Error> {
        let wanted = Access::WRITE_OK | Access::EXEC_OK;
        rustix::fs::accessat(&self.fd, ".", wanted, AtFlags::EACCESS).map_err(|errno| {
            Error::refused(&self.path, format!("can't be written to ({})", std::io::Error::from(errno)))
        })
    }

    /// Removes a directory if it is empty.
    pub(super) fn remove_empty(&self, name: &str) {
        let _ = rustix::fs::unlinkat(&self.fd, name, AtFlags::REMOVEDIR);
    }

    /// Syncs the directory's entries to disk.
    pub(super) fn sync_names(&self) -> Result<(), Error> {
        rustix::fs::fsync(&self.fd).map_err(|errno| errno_to_error(&self.path, errno))
    }

    /// Returns the path by which the directory was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the directory's device and inode number.
    pub fn identity(&self) -> Option<FileId> {
        self.stat().ok().map(|stat| (stat.st_dev, stat.st_ino))
    }

    /// Returns the metadata of an entry, links themselves included; `None` if it does not exist.
    pub(super) fn stat_entry(&self, name: &str) -> Option<Stat> {
        rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW).ok()
    }

    /// Returns the device and inode number of an entry that is a regular file or a directory.
    pub fn file_or_directory(&self, name: &str) -> Option<FileId> {
        let stat = self.stat_entry(name)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        matches!(kind, FileType::RegularFile | FileType::Directory).then_some((stat.st_dev, stat.st_ino))
    }

    /// Opens the regular file at a path below this directory without following links.
    pub(super) fn open_regular(&self, relative: &Path) -> Result<File, forge_files::Error> {
        forge_files::open_below(&self.fd, &self.path, relative)
    }

    /// Reads a file like [`RepoDirectory::open_regular`].
    pub(super) fn read(&self, relative: &Path, max_bytes: u64) -> Result<Vec<u8>, forge_files::Error> {
        forge_files::read_below(&self.fd, &self.path, relative, max_bytes)
    }

    /// Reads a text like [`RepoDirectory::read`].
    pub(super) fn read_text(&self, relative: &str, max_bytes: u64) -> Result<String, forge_files::Error> {
        forge_files::read_text_below(&self.fd, &self.path, Path::new(relative), max_bytes)
    }

    /// Reads a small text file of the directory, and returns its device and inode number as well.
    pub fn read_identified(&self, name: &str, max_bytes: u64) -> Option<(String, FileId)> {
        let file = self.open_regular(Path::new(name)).ok()?;
        let stat = rustix::fs::fstat(&file).ok()?;
        let bytes = forge_files::read_from(&self.path.join(name), file, max_bytes).ok()?;
        Some((String::from_utf8(bytes).ok()?, (stat.st_dev, stat.st_ino)))
    }

    /// Returns whether this is the same directory as another one.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.identity().is_some() && self.identity() == other.identity()
    }

    /// Returns the type of the file that an entry is or, if it is a link, leads to.
    pub(super) fn target_type(&self, name: &OsStr) -> FileType {
        let stat = rustix::fs::statat(&self.fd, name, AtFlags::empty());
        stat.map_or(FileType::Unknown, |stat| FileType::from_raw_mode(stat.st_mode))
    }

    pub(super) fn stat(&self) -> Result<Stat, Error> {
        rustix::fs::fstat(&self.fd).map_err(|errno| errno_to_error(&self.path, errno))
    }
}

/// Gives a new file the given mode and, as root, the owner of the surrounding directory.
fn inherit_permissions(new: impl AsFd, around: &Stat, mode: u32) -> rustix::io::Result<()> {
    if rustix::process::geteuid().is_root() {
        let (uid, gid) =
            (rustix::process::Uid::from_raw(around.st_uid), rustix::process::Gid::from_raw(around.st_gid));
        rustix::fs::fchown(&new, Some(uid), Some(gid))?;
    }
    rustix::fs::fchmod(new, Mode::from_raw_mode(mode))
}

fn errno_to_error(path: &Path, errno: Errno) -> Error {
    match errno {
        Errno::LOOP | Errno::XDEV => {
            Error::refused(path, "contains a symbolic link, which is not followed there")
        }
        Errno::NOTDIR => Error::refused(path, "is not a directory"),
        errno => Error::Io { path: path.to_owned(), source: errno.into() },
    }
}
