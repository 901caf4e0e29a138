//! Opening regular files without blocking and without opening anything else.

use crate::error::{Error, SpecialFileKind};
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, open as open_path, openat2};
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::path::Path;

/// Flags for a handle that does not open the file itself, so no pipe blocks and no device is triggered.
const HANDLE_FLAGS: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);

/// Opens the regular file at `path` for reading. Symbolic links are followed because the caller named the path.
///
/// # Errors
/// [`Error::NotFound`], [`Error::NotRegular`] for anything but a regular file, or a system error.
pub fn open(path: &Path) -> Result<File, Error> {
    let handle =
        open_path(path, HANDLE_FLAGS, Mode::empty()).map_err(|errno| Error::from_errno(path, errno))?;
    reopen_regular(path, &handle)
}

/// Opens the regular file at `relative` below the directory `root` for reading. Neither the file nor a directory
/// between it and `root` may be a symbolic link, and `..` cannot leave `root`.
///
/// `root` itself may be reached through links because the caller named it.
///
/// # Errors
/// As [`open`]; [`Error::Link`] for a symbolic link or a path that leaves `root`.
pub fn open_within(root: &Path, relative: &Path) -> Result<File, Error> {
    let directory = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let opened = rustix::fs::openat(CWD, root, directory, Mode::empty());
    open_below(opened.map_err(|errno| Error::from_errno(&root.join(relative), errno))?, root, relative)
}

/// Opens a file like [`open_within`], below a directory that the caller has open. Its path `root` is for messages.
///
/// # Errors
/// As [`open_within`].
pub fn open_below(directory: impl AsFd, root: &Path, relative: &Path) -> Result<File, Error> {
    let shown = root.join(relative);
    let fail = |errno| Error::from_errno(&shown, errno);
    let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    // With `O_PATH | O_NOFOLLOW`, `NO_SYMLINKS` would return a handle to the link itself; without `O_NOFOLLOW`, links
    // are refused.
    let handle = openat2(directory, relative, HANDLE_FLAGS, Mode::empty(), beneath).map_err(fail)?;
    reopen_regular(&shown, &handle)
}

/// Opens the file behind a handle if it is a regular file. The file that is checked is the one that is opened.
pub(crate) fn reopen_regular(path: &Path, handle: &OwnedFd) -> Result<File, Error> {
    let stat = fstat(handle).map_err(|errno| Error::from_errno(path, errno))?;
    if let Some(error) = special_file_error(path, FileType::from_raw_mode(stat.st_mode)) {
        return Err(error);
    }
    // `NONBLOCK`: do not wait for a lease that another process holds on the file.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let by_handle = format!("/proc/self/fd/{}", handle.as_raw_fd());
    let file = open_path(by_handle, flags, Mode::empty()).map_err(|errno| Error::from_errno(path, errno))?;
    Ok(file.into())
}

/// Returns the error for anything that is not a regular file.
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
