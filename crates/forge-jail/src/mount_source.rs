//! Sources of mounts: paths of the host in which another user may put links and other directories.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use forge_jail_protocol::FileIdentity;

const SOURCE_FLAGS: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);

/// Opens a host path as the source of a mount. With an identity it must lead to that file or directory, and no symbolic
/// link is followed.
pub(crate) fn open_source(source: &Path, identity: Option<FileIdentity>) -> io::Result<OwnedFd> {
    match identity {
        None => Ok(rustix::fs::open(source, SOURCE_FLAGS, Mode::empty())?),
        Some(identity) => open_identified(source, identity),
    }
}

/// Opens an entry of a certain directory, a file or directory and no symbolic link, as the source of a mount.
pub(crate) fn open_entry(source: &Path, directory: FileIdentity) -> io::Result<OwnedFd> {
    let (Some(parent), Some(name)) = (source.parent(), source.file_name()) else {
        return Err(Errno::INVAL.into());
    };
    let parent = open_identified(parent, directory)?;
    let opened = rustix::fs::openat(&parent, name, SOURCE_FLAGS | OFlags::NOFOLLOW, Mode::empty())?;
    match FileType::from_raw_mode(rustix::fs::fstat(&opened)?.st_mode) {
        FileType::RegularFile | FileType::Directory => Ok(opened),
        _ => Err(Errno::LOOP.into()),
    }
}

fn open_identified(path: &Path, identity: FileIdentity) -> io::Result<OwnedFd> {
    let opened = rustix::fs::openat2(CWD, path, SOURCE_FLAGS, Mode::empty(), ResolveFlags::NO_SYMLINKS)?;
    let stat = rustix::fs::fstat(opened.as_fd())?;
    if (FileIdentity { dev: stat.st_dev, ino: stat.st_ino }) != identity {
        return Err(Errno::STALE.into());
    }
    Ok(opened)
}
