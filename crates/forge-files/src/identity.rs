//! File identities that stay unique until the machine is restarted.

use rustix::fs::{AtFlags, StatxFlags};
use std::os::fd::BorrowedFd;

/// The identity of an open file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FileIdentity {
    device: (u32, u32),
    inode: u64,
    /// Birth time, which distinguishes files with a reused inode number. `None` if the file system does not record it.
    born: Option<(i64, u32)>,
    /// Mount ID; `None` before Linux 5.8.
    mount: Option<u64>,
    pub(crate) uid: u32,
    pub(crate) mode: u16,
}

impl FileIdentity {
    /// Reads the identity of an open file.
    pub(crate) fn of_file(file: BorrowedFd<'_>) -> Option<Self> {
        let wanted = StatxFlags::BASIC_STATS | StatxFlags::BTIME | StatxFlags::MNT_ID;
        let found = rustix::fs::statx(file, c"", AtFlags::EMPTY_PATH, wanted).ok()?;
        let has = |what: StatxFlags| found.stx_mask & what.bits() != 0;
        Some(Self {
            device: (found.stx_dev_major, found.stx_dev_minor),
            inode: found.stx_ino,
            born: has(StatxFlags::BTIME).then_some((found.stx_btime.tv_sec, found.stx_btime.tv_nsec)),
            mount: has(StatxFlags::MNT_ID).then_some(found.stx_mnt_id),
            uid: found.stx_uid,
            mode: found.stx_mode,
        })
    }

    /// Returns whether both identities denote the same file.
    pub(crate) fn is_same_file(&self, other: &Self) -> bool {
        self.is_same_mount(other) && (self.inode, self.born) == (other.inode, other.born)
    }

    /// Returns whether both files are on the same mount.
    pub(crate) fn is_same_mount(&self, other: &Self) -> bool {
        (self.device, self.mount) == (other.device, other.mount)
    }
}
