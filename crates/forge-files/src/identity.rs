//! What tells one directory from every other one, for as long as the machine runs.

use rustix::fs::{AtFlags, StatxFlags};
use std::os::fd::BorrowedFd;

/// A file as its descriptor names it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FileIdentity {
    device: (u32, u32),
    inode: u64,
    /// Inode numbers are given again after a removal; the time of birth is not. `None`: the file system keeps none.
    born: Option<(i64, u32)>,
    /// `None` before Linux 5.8.
    mount: Option<u64>,
    pub(crate) uid: u32,
    pub(crate) mode: u16,
}

impl FileIdentity {
    /// Looks at an open file.
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

    /// Whether both are one and the same file.
    pub(crate) fn is_same_file(&self, other: &Self) -> bool {
        self.is_same_mount(other) && (self.inode, self.born) == (other.inode, other.born)
    }

    /// Whether nothing was mounted between the two.
    pub(crate) fn is_same_mount(&self, other: &Self) -> bool {
        (self.device, self.mount) == (other.device, other.mount)
    }
}
