//! The kernel's descriptions of files and errors, in the terms of the protocol.

use rustix::fs::{FileType, RawMode, Stat};
use rustix::io::Errno;

use forge_jail_protocol::{FaultKind, FileStat, JailFileKind};

pub(super) fn fault_kind(errno: Errno) -> FaultKind {
    match errno {
        Errno::NOENT => FaultKind::NotFound,
        // A mount point, such as a masked file, cannot be replaced or removed.
        Errno::ACCESS | Errno::PERM | Errno::BUSY | Errno::ROFS => FaultKind::Denied,
        Errno::XDEV => FaultKind::Outside,
        Errno::LOOP => FaultKind::Loop,
        Errno::NOTDIR => FaultKind::NotDir,
        Errno::EXIST => FaultKind::Exists,
        Errno::NOTEMPTY => FaultKind::NotEmpty,
        Errno::NOSPC | Errno::DQUOT => FaultKind::Full,
        Errno::NAMETOOLONG | Errno::INVAL => FaultKind::BadPath,
        other => FaultKind::Os(other.raw_os_error()),
    }
}

pub(super) fn file_kind(mode: RawMode) -> JailFileKind {
    match FileType::from_raw_mode(mode) {
        FileType::RegularFile => JailFileKind::File,
        FileType::Directory => JailFileKind::Dir,
        FileType::Symlink => JailFileKind::Symlink,
        FileType::Fifo => JailFileKind::Fifo,
        FileType::Socket => JailFileKind::Socket,
        _ => JailFileKind::Device,
    }
}

pub(super) fn file_stat(stat: &Stat) -> FileStat {
    FileStat {
        kind: file_kind(stat.st_mode),
        size: u64::try_from(stat.st_size).unwrap_or(0),
        mode: stat.st_mode & 0o7777,
        mtime_ns: stat.st_mtime.saturating_mul(1_000_000_000).saturating_add(stat_mtime_ns(stat)),
        links: link_count(stat),
    }
}

#[allow(clippy::useless_conversion, reason = "the field's width depends on the architecture")]
fn link_count(stat: &Stat) -> u64 {
    u64::from(stat.st_nlink)
}

fn stat_mtime_ns(stat: &Stat) -> i64 {
    i64::try_from(stat.st_mtime_nsec).unwrap_or(0)
}
