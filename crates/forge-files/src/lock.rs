//! Files that Forge itself keeps: locks, and directories made durable.

use crate::error::Error;
use crate::open::special_file_error;
use rustix::fs::{FileType, Mode, OFlags, fstat};
use std::fs::File;
use std::path::Path;

/// Opens the file at `path` for reading and writing, made with mode 0600 if it is not there, to be locked or rewritten.
/// Its content stays. No symbolic link is followed, and a pipe or device in its place is refused without waiting.
///
/// # Errors
/// [`Error::Link`], [`Error::NotRegular`], and the system's own.
pub fn open_or_create(path: &Path) -> Result<File, Error> {
    let fail = |errno| Error::from_errno(path, errno);
    // Read and write: a pipe that is opened for one of the two waits or fails for want of the other side.
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file: File = rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR).map_err(fail)?.into();
    let kind = FileType::from_raw_mode(fstat(&file).map_err(fail)?.st_mode);
    special_file_error(path, kind).map_or(Ok(file), Err)
}

/// Makes the names in a directory durable.
///
/// # Errors
/// The system's own; not every file system can do it.
pub fn sync_directory(path: &Path) -> std::io::Result<()> {
    // A pipe in its place would be waited for without this.
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::fsync(rustix::fs::open(path, flags, Mode::empty())?)?)
}
