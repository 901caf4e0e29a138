//! Shared memory that is in no page table: written by a process that has ended, or dropped with `MADV_DONTNEED`, while
//! another process still maps it, or in a memory file in transit through a socket.
//!
//! No process reports such pages, and the size of an anonymous shared mapping is not visible without privileges. Two
//! values are: the extent of each mapping (`/proc/PID/maps`), and the shared memory of the whole machine
//! (`/proc/meminfo`). The smaller of the mapped memory and the machine's gain since the sandbox started, minus the
//! memory already counted, is what the sandbox can hide. Gains of other programs count only against a sandbox that maps
//! as much.

use std::collections::HashMap;
use std::fs;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{MemfdFlags, major, minor};

use crate::memory_usage::{MemoryUsage, field_value, kib_field_bytes};
use crate::objects::{self, ObjectScope};

/// Divisor of the sandbox's memory that gives the gain below which maps are not read: reading them all costs too much.
const IGNORED_GAIN_DIVISOR: u64 = 4;
/// In-memory file systems with a size limit of their own.
const TMPFS_DIRECTORIES: &[&str] = &["/tmp", "/dev/shm"];
const TMPFS_MAGIC: u64 = 0x0102_1994;

/// Counts shared memory that no process reports.
#[derive(Debug)]
pub struct SharedMemoryCounter {
    /// The device of the kernel's own file system for shared memory, as maps spell it.
    device: Option<Vec<u8>>,
    /// The least memory that the rest of the machine has used so far, in bytes.
    floor_bytes: u64,
    /// The largest mapped extent of each file in memory, by inode, with the command of a process that maps it.
    extents: HashMap<u64, MappedExtent>,
}

/// A mapped file in memory.
#[derive(Debug, Clone, Copy)]
struct MappedExtent {
    bytes: u64,
    mark: Option<u64>,
}

/// An upper bound of the hidden memory.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct HiddenMemory {
    /// The machine's gain, in bytes; the memory that the sandbox itself reports is part of it.
    pub gained_bytes: u64,
    /// The memory mapped in the sandbox, or in transit between processes, at most; in bytes.
    pub mapped_bytes: u64,
    /// The command that maps most.
    pub mark: Option<u64>,
}

impl HiddenMemory {
    /// Returns the hidden bytes, at most, if the sandbox reports this much shared memory.
    pub fn bytes_beyond(&self, reported_bytes: u64) -> u64 {
        self.mapped_bytes.min(self.gained_bytes.saturating_sub(reported_bytes))
    }
}

impl SharedMemoryCounter {
    /// Starts to count, before the sandbox's first command.
    pub fn start() -> Self {
        Self { device: anonymous_device(), floor_bytes: used_elsewhere(), extents: HashMap::new() }
    }

    /// Measures the machine's gain and, if it is large enough to matter, all mappings.
    pub fn measure(&mut self, held: &MemoryUsage, limit_bytes: u64, objects: ObjectScope) -> HiddenMemory {
        let used = used_elsewhere();
        self.floor_bytes = self.floor_bytes.min(used);
        let gained_bytes = used - self.floor_bytes;
        let Some(device) = &self.device else { return HiddenMemory::default() };
        if gained_bytes <= limit_bytes / IGNORED_GAIN_DIVISOR {
            return HiddenMemory::default();
        }
        let mut found = HashMap::new();
        for (directory, mark) in held.proc_dirs() {
            // All threads share one map: `directory` is that of one of them.
            add_extents(&fs::read(directory.join("maps")).unwrap_or_default(), device, mark, &mut found);
        }
        // Open files are counted whole by their descriptors, and the kernel lists System V segments with their
        // contents.
        for inode in held.open_files() {
            found.remove(&inode);
        }
        if objects == ObjectScope::Own {
            for (id, bytes) in objects::attached_segments() {
                found.entry(id).and_modify(|extent: &mut MappedExtent| extent.bytes = bytes);
            }
        }
        for (inode, extent) in &mut found {
            if let Some(before) = self.extents.get(inode) {
                extent.bytes = extent.bytes.max(before.bytes);
            }
        }
        self.extents = found;
        if let Some(mark) =
            held.proc_dirs().find_map(|(directory, mark)| has_unreceived_fds(directory).then_some(mark))
        {
            // A descriptor in transit can be a memory file of any size.
            return HiddenMemory { gained_bytes, mapped_bytes: gained_bytes, mark };
        }
        HiddenMemory {
            gained_bytes,
            mapped_bytes: self.extents.values().map(|extent| extent.bytes).sum(),
            mark: self.extents.values().max_by_key(|extent| extent.bytes).and_then(|extent| extent.mark),
        }
    }
}

/// Returns whether a socket of a process holds descriptors that no process has received yet.
fn has_unreceived_fds(process: &Path) -> bool {
    let Ok(entries) = fs::read_dir(process.join("fd")) else { return false };
    entries.flatten().any(|entry| {
        let socket = fs::read_link(entry.path())
            .is_ok_and(|link| link.as_os_str().as_encoded_bytes().starts_with(b"socket:["));
        let text = || fs::read(process.join("fdinfo").join(entry.file_name())).unwrap_or_default();
        socket && field_value(&text(), "scm_fds:").is_some_and(|count| count > 0)
    })
}

/// Returns the device of unnamed files in memory, as `MAJOR:MINOR` in hexadecimal digits.
fn anonymous_device() -> Option<Vec<u8>> {
    let file = rustix::fs::memfd_create(c"forge-device", MemfdFlags::CLOEXEC).ok()?;
    let stat = rustix::fs::fstat(file.as_fd()).ok()?;
    Some(format!("{:02x}:{:02x}", major(stat.st_dev), minor(stat.st_dev)).into_bytes())
}

/// Returns the shared memory and swap used on the machine, without the sandbox's own `/tmp` and `/dev/shm`, in bytes.
fn used_elsewhere() -> u64 {
    let text = fs::read("/proc/meminfo").unwrap_or_default();
    let swapped = kib_field_bytes(&text, "SwapTotal:").saturating_sub(kib_field_bytes(&text, "SwapFree:"));
    let own: u64 = TMPFS_DIRECTORIES.iter().map(|path| tmpfs_bytes(Path::new(path))).sum();
    (kib_field_bytes(&text, "Shmem:") + swapped).saturating_sub(own)
}

fn tmpfs_bytes(path: &Path) -> u64 {
    let Ok(stat) = rustix::fs::statfs(path) else { return 0 };
    let positive = |number: i64| u64::try_from(number).unwrap_or(0);
    if positive(stat.f_type) != TMPFS_MAGIC {
        return 0;
    }
    stat.f_blocks.saturating_sub(stat.f_bfree) * positive(stat.f_bsize)
}

/// Adds the extents to which the files of a device are mapped, from a `maps` file of /proc.
fn add_extents(maps: &[u8], device: &[u8], mark: Option<u64>, found: &mut HashMap<u64, MappedExtent>) {
    for line in maps.split(|byte| *byte == b'\n') {
        // Range, permissions, offset, device, inode, name.
        let mut fields = line.split(u8::is_ascii_whitespace).filter(|field| !field.is_empty());
        let range = fields.next().and_then(parse_range);
        let offset = fields.nth(1).and_then(parse_hex);
        let (Some((start, end)), Some(offset), Some(found_device)) = (range, offset, fields.next()) else {
            continue;
        };
        let Some(inode) = fields.next().and_then(crate::process_files::first_number) else { continue };
        if found_device != device || inode == 0 {
            continue;
        }
        let bytes = offset.saturating_add(end.saturating_sub(start));
        let extent = found.entry(inode).or_insert(MappedExtent { bytes, mark });
        extent.bytes = extent.bytes.max(bytes);
    }
}

fn parse_range(text: &[u8]) -> Option<(u64, u64)> {
    let dash = text.iter().position(|byte| *byte == b'-')?;
    Some((parse_hex(&text[..dash])?, parse_hex(&text[dash + 1..])?))
}

fn parse_hex(text: &[u8]) -> Option<u64> {
    u64::from_str_radix(std::str::from_utf8(text).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_tell_how_far_each_file_in_memory_reaches() {
        let maps = b"7f0000000000-7f0000001000 rw-s 00003000 00:01 7   /dev/zero (deleted)\n\
            7f0000002000-7f0000004000 rw-s 00000000 00:01 7   /dev/zero (deleted)\n\
            7f0000005000-7f0000006000 rw-p 00000000 00:00 0   [heap]\n\
            7f0000007000-7f0000008000 r--s 00000000 08:01 7   /memfd:not\xff\n\
            7f0000009000-7f000000a000 rw-s 00000000 00:01 9   /memfd:x (deleted)\nodd\n";
        let mut found = HashMap::new();
        add_extents(maps, b"00:01", Some(3), &mut found);
        let mut extents: Vec<_> = found.iter().map(|(inode, extent)| (*inode, extent.bytes)).collect();
        extents.sort_unstable();
        assert_eq!(extents, [(7, 0x4000), (9, 0x1000)]);
    }

    #[test]
    fn hidden_is_what_is_mapped_and_gained_and_not_reported() {
        let hidden = HiddenMemory { gained_bytes: 100, mapped_bytes: 60, mark: None };
        assert_eq!((hidden.bytes_beyond(0), hidden.bytes_beyond(70), hidden.bytes_beyond(200)), (60, 30, 0));
    }
}
