//! Files that Forge keeps for itself: locks, and directories made durable.

use crate::error::Error;
use crate::open::special_file_error;
use rustix::fs::{FileType, Mode, OFlags, fstat};
use std::fs::File;
use std::path::Path;

/// Opens the file at `path` for reading and writing, to be locked or rewritten. A missing file is created with mode
/// 0600; existing content is kept. Symbolic links are not followed, and a pipe or device is refused without blocking.
///
/// # Errors
/// [`Error::Link`], [`Error::NotRegular`], or a system error.
pub fn open_or_create(path: &Path) -> Result<File, Error> {
    let fail = |errno| Error::from_errno(path, errno);
    // Read and write: opening a pipe for only one of them blocks or fails while the other end is closed.
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file: File = rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR).map_err(fail)?.into();
    let kind = FileType::from_raw_mode(fstat(&file).map_err(fail)?.st_mode);
    special_file_error(path, kind).map_or(Ok(file), Err)
}

/// Syncs the directory's entries to disk.
///
/// # Errors
/// A system error; not every file system supports this.
pub fn sync_directory(path: &Path) -> std::io::Result<()> {
    // Without `DIRECTORY`, opening a pipe in its place would block.
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::fsync(rustix::fs::open(path, flags, Mode::empty())?)?)
}
