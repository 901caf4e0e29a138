//! Sources of mounts: paths of the host that may have to lead to a certain file or directory.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use forge_jail_protocol::FileIdentity;

/// Opens a host path as the source of a mount. With an identity it must lead to that file or directory, and no symbolic
/// link is followed: another user may have put one there since the caller examined it.
pub(crate) fn open_source(source: &Path, identity: Option<FileIdentity>) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let Some(identity) = identity else {
        return Ok(rustix::fs::open(source, flags, Mode::empty())?);
    };
    let opened = rustix::fs::openat2(CWD, source, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS)?;
    let stat = rustix::fs::fstat(&opened)?;
    if (FileIdentity { dev: stat.st_dev, ino: stat.st_ino }) != identity {
        return Err(Errno::STALE.into());
    }
    Ok(opened)
}
