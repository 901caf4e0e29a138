//! Opening of regular files, without waiting and without opening anything else.

use crate::error::{Error, SpecialFileKind};
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, open as open_path, openat2};
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::path::Path;

/// A handle on whatever is at a path: nothing is opened by it, so no pipe waits and no device notices.
const HANDLE_FLAGS: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);

/// Opens the regular file at `path` for reading. Symbolic links are followed, as the caller named the path.
///
/// # Errors
/// [`Error::NotFound`], [`Error::NotRegular`] for anything that is not a regular file, and the system's own.
pub fn open(path: &Path) -> Result<File, Error> {
    let handle =
        open_path(path, HANDLE_FLAGS, Mode::empty()).map_err(|errno| Error::from_errno(path, errno))?;
    reopen_regular(path, &handle)
}

/// Opens the regular file at `relative` below the directory `root` for reading, through no symbolic link: neither the
/// file nor a directory on the way from `root` may be one, and `..` cannot leave `root`.
///
/// `root` itself may be reached through links, as the caller named it.
///
/// # Errors
/// As [`open`]; [`Error::Link`] for a symbolic link or a path that leaves `root`.
pub fn open_within(root: &Path, relative: &Path) -> Result<File, Error> {
    let shown = root.join(relative);
    let fail = |errno| Error::from_errno(&shown, errno);
    let directory = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::openat(CWD, root, directory, Mode::empty()).map_err(fail)?;
    let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    // `NO_SYMLINKS` with `O_PATH | O_NOFOLLOW` would give a handle on the link itself; without, the link is refused.
    let handle = openat2(root.as_fd(), relative, HANDLE_FLAGS, Mode::empty(), beneath).map_err(fail)?;
    reopen_regular(&shown, &handle)
}

/// Opens what a handle is on, if it is a regular file: the file that was looked at is the one that is opened.
pub(crate) fn reopen_regular(path: &Path, handle: &OwnedFd) -> Result<File, Error> {
    let stat = fstat(handle).map_err(|errno| Error::from_errno(path, errno))?;
    if let Some(error) = special_file_error(path, FileType::from_raw_mode(stat.st_mode)) {
        return Err(error);
    }
    // Not to wait for a lease that another process holds on the file.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let by_handle = format!("/proc/self/fd/{}", handle.as_raw_fd());
    let file = open_path(by_handle, flags, Mode::empty()).map_err(|errno| Error::from_errno(path, errno))?;
    Ok(file.into())
}

/// The error for anything that is not a regular file.
pub(crate) fn special_file_error(path: &Path, kind: FileType) -> Option<Error> {
    let found = match kind {
        FileType::RegularFile => return None,
        FileType::Directory => SpecialFileKind::Directory,
        FileType::Fifo => SpecialFileKind::NamedPipe,
        FileType::Socket => SpecialFileKind::Socket,
        FileType::CharacterDevice | FileType::BlockDevice => SpecialFileKind::Device,
        FileType::Symlink => SpecialFileKind::SymbolicLink,
        FileType::Unknown => SpecialFileKind::Other,
    };
    Some(Error::NotRegular { path: path.to_owned(), found })
}
