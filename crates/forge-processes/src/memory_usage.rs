//! Memory of a sandbox's processes, as far as /proc reports it: their own memory, and the kernel memory for their
//! descriptors.
//!
//! Everything in /proc is read as bytes: programs choose their names. Memory that belongs to no process and no
//! descriptor is limited elsewhere (see [`crate::objects`]) or not at all; docs/sandbox.md lists it.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::process_files::{first_number, process_ids, process_mark};
use crate::sockets::SocketDiag;

/// Size of a full pipe, and of one created when the user had very many.
const PIPE_BYTES: u64 = 64 << 10;
const SMALL_PIPE_BYTES: u64 = 8 << 10;
/// Number of a user's pipes that have the full size (`fs.pipe-user-pages-soft`).
const MAX_FULL_PIPES: u64 = 1024;
/// Kernel memory for a thread: its stack and its tables.
const THREAD_BYTES: u64 = 32 << 10;
/// Kernel memory for an open descriptor, and in addition for a socket and for an empty memory file.
const DESCRIPTOR_BYTES: u64 = 512;
const SOCKET_BYTES: u64 = 2 << 10;
const MEMORY_FILE_BYTES: u64 = 1 << 10;
/// Kernel memory for a system call filter of the greatest length, compiled. Processes that inherited a filter share it,
/// but nothing tells that.
const FILTER_BYTES: u64 = 160 << 10;
/// Kernel memory for one descriptor that an epoll set watches.
const WATCH_BYTES: u64 = 256;
/// Descriptors that cost more than a little kernel memory, by the prefix of their links.
const COSTLY_DESCRIPTORS: &[(&[u8], u64)] =
    &[(b"anon_inode:inotify", 1 << 20), (b"/dev/ptmx", 128 << 10), (b"/dev/pts/", 128 << 10)];

/// The result of one measurement.
#[derive(Debug, Default)]
pub struct MemoryUsage {
    processes: Vec<ProcessUsage>,
    /// Memory files by device and inode: bytes, and the command of a process that has it open.
    files: HashMap<(u64, u64), (u64, Option<u64>)>,
    pipes: HashMap<(u64, u64), Option<u64>>,
    /// Sockets by inode.
    sockets: HashMap<u64, Option<u64>>,
    /// Bytes in sockets, and for descriptors of other kinds.
    elsewhere: Vec<(Option<u64>, u64)>,
    /// Processes with unreadable descriptors.
    pub hidden: Vec<i32>,
}

/// One process of the sandbox.
#[derive(Debug)]
struct ProcessUsage {
    mark: Option<u64>,
    /// The directory that describes its memory: that of another thread if the first one is dead.
    proc_dir: PathBuf,
    /// Private memory; after a fork another process may still have the same pages.
    anonymous: u64,
    /// Memory that several processes may map.
    shared: u64,
    /// Kernel memory for the process, memory locked by it, and its swapped memory.
    kernel_bytes: u64,
}

/// Bytes by command; those of no known command are under `None`.
pub type BytesByCommand = HashMap<Option<u64>, u64>;

/// The memory in use, with memory that several processes share counted once.
#[derive(Debug, Default)]
pub struct ExactUsage {
    /// The bytes of each command.
    pub shares: BytesByCommand,
    /// The part of the total in shared memory and memory files, in bytes.
    pub shared: u64,
}

impl MemoryUsage {
    /// Measures all processes once.
    ///
    /// `own_filters` is the number of system call filters that every process has from its start.
    pub fn measure(sockets: Option<&SocketDiag>, own_filters: u64) -> Self {
        let mut held = Self::default();
        for pid in process_ids() {
            held.add_process(pid, own_filters);
        }
        if let Some(sockets) = sockets {
            let known = &held.sockets;
            let of = |inode: u64| known.get(&inode).copied();
            let queued = sockets.queued_bytes(of);
            held.elsewhere.extend(queued);
        }
        held
    }

    fn add_process(&mut self, pid: i32, own_filters: u64) {
        let Some((place, status)) = living_thread(pid) else { return };
        let mark = process_mark(pid);
        let field = |name: &str| kib_field_bytes(&status, name);
        let threads = field_value(&status, "Threads:").unwrap_or(1);
        let filters = match threads {
            ..=1 => filter_count(&status).saturating_sub(own_filters),
            _ => thread_filters(pid, own_filters),
        };
        self.processes.push(ProcessUsage {
            mark,
            anonymous: field("RssAnon:"),
            shared: field("RssShmem:"),
            kernel_bytes: field("VmPTE:")
                + field("VmSwap:")
                + field("VmLck:")
                + threads * THREAD_BYTES
                + filters * FILTER_BYTES,
            proc_dir: place.clone(),
        });
        match fs::read_dir(place.join("fd")) {
            Ok(entries) => {
                let mut count = 0;
                for entry in entries.flatten() {
                    self.add_descriptor(&place, &entry.path(), mark);
                    count += 1;
                }
                self.elsewhere.push((mark, count * DESCRIPTOR_BYTES));
            }
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                // A process that is just exiting looks the same; it has no memory any more.
                if living_thread(pid).is_some() {
                    self.hidden.push(pid);
                }
            }
            Err(_) => {}
        }
    }

    fn add_descriptor(&mut self, place: &Path, path: &Path, mark: Option<u64>) {
        let Ok(link) = fs::read_link(path) else { return };
        let link = link.as_os_str().as_bytes();
        let numbered = |kind: &[u8]| link.strip_prefix(kind).and_then(first_number);
        if let Some(inode) = numbered(b"socket:[") {
            self.sockets.insert(inode, mark);
        } else if let Some(inode) = numbered(b"pipe:[") {
            self.pipes.insert((0, inode), mark);
        } else if link.starts_with(b"anon_inode:[eventpoll]") {
            if let Some(number) = path.file_name() {
                let text = fs::read(place.join("fdinfo").join(number)).unwrap_or_default();
                let lines = text.iter().filter(|byte| **byte == b'\n').count() as u64;
                self.elsewhere.push((mark, lines * WATCH_BYTES));
            }
        } else if let Some((_, bytes)) = COSTLY_DESCRIPTORS.iter().find(|(kind, _)| link.starts_with(kind)) {
            self.elsewhere.push((mark, *bytes));
        } else if link.starts_with(b"/") && !link.starts_with(b"/dev/") || link.starts_with(b"/dev/shm/") {
            // A memory file, or a named pipe.
            let Ok(meta) = fs::metadata(path) else { return };
            let key = (meta.dev(), meta.ino());
            if link.starts_with(b"/memfd:") {
                self.files.insert(key, (meta.blocks() * 512, mark));
            } else if meta.file_type().is_fifo() {
                self.pipes.insert(key, mark);
            }
        }
    }

    /// Returns an upper bound: shared memory counts in each of its processes, and memory files count in addition.
    pub fn upper_bound_bytes(&self) -> u64 {
        let processes = self.processes.iter().map(|p| p.anonymous + p.shared + p.kernel_bytes).sum::<u64>();
        processes + self.descriptor_bytes().map(|(_, bytes)| bytes).sum::<u64>()
    }

    /// Returns the memory of each command; shared memory is divided among its processes. This walks page tables.
    pub fn measure_exactly(&self) -> ExactUsage {
        let mut shares = BytesByCommand::new();
        let mut total_shared: u64 = self.files.values().map(|(bytes, _)| *bytes).sum();
        for process in &self.processes {
            let read = |name: &str| fs::read(process.proc_dir.join(name)).ok();
            let rollup = read("smaps_rollup").filter(|text| field_value(text, "Pss_Anon:").is_some());
            let (own, shared) = match rollup {
                Some(text) => {
                    let shared = kib_field_bytes(&text, "Pss_Shmem:");
                    // Mapped memory files are counted by their descriptors, if a process has them open.
                    let twice = if shared > 0 && !self.files.is_empty() {
                        self.mapped_file_bytes(process)
                    } else {
                        0
                    };
                    (kib_field_bytes(&text, "Pss_Anon:"), shared.saturating_sub(twice))
                }
                None => (process.anonymous, process.shared),
            };
            total_shared += shared;
            *shares.entry(process.mark).or_default() += own + shared + process.kernel_bytes;
        }
        for (mark, bytes) in self.descriptor_bytes() {
            *shares.entry(mark).or_default() += bytes;
        }
        ExactUsage { shares, shared: total_shared }
    }

    /// Returns the directories of `/proc` that describe the memory of each process, with its command.
    pub fn proc_dirs(&self) -> impl Iterator<Item = (&Path, Option<u64>)> {
        self.processes.iter().map(|process| (process.proc_dir.as_path(), process.mark))
    }

    /// Returns the inodes of the memory files that processes have open.
    pub fn open_files(&self) -> impl Iterator<Item = u64> + '_ {
        self.files.keys().map(|(_, inode)| *inode)
    }

    /// Returns the kernel memory for descriptors, each with the command of one process that has it open.
    fn descriptor_bytes(&self) -> impl Iterator<Item = (Option<u64>, u64)> + '_ {
        let pipes = self
            .pipes
            .values()
            .zip(0u64..)
            .map(|(mark, nth)| (*mark, if nth < MAX_FULL_PIPES { PIPE_BYTES } else { SMALL_PIPE_BYTES }));
        let files = self.files.values().map(|(bytes, mark)| (*mark, *bytes + MEMORY_FILE_BYTES));
        let sockets = self.sockets.values().map(|mark| (*mark, SOCKET_BYTES));
        files.chain(pipes).chain(sockets).chain(self.elsewhere.iter().copied())
    }

    /// Returns the process's proportional share of the mapped memory files that are also open somewhere.
    fn mapped_file_bytes(&self, process: &ProcessUsage) -> u64 {
        let text = fs::read(process.proc_dir.join("smaps")).unwrap_or_default();
        let open: HashSet<u64> = self.files.keys().map(|(_, inode)| *inode).collect();
        let (mut counts, mut bytes) = (false, 0);
        for line in text.split(|byte| *byte == b'\n') {
            if line.first().is_some_and(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte)) {
                // Range, permissions, offset, device, inode, name.
                let inode = line.split(|byte| *byte == b' ').nth(4).and_then(first_number);
                let file = line.windows(7).any(|part| part == b"/memfd:");
                counts = file && inode.is_some_and(|inode| open.contains(&inode));
            } else if counts && line.starts_with(b"Pss:") {
                bytes += kib_field_bytes(line, "Pss:");
            }
        }
        bytes
    }
}

/// Finds a thread of a process that has memory, and its status: the first thread can be dead while others live.
fn living_thread(pid: i32) -> Option<(PathBuf, Vec<u8>)> {
    let status = |place: &Path| {
        let text = fs::read(place.join("status")).ok()?;
        field_value(&text, "VmSize:").is_some().then_some(text)
    };
    let place = PathBuf::from(format!("/proc/{pid}"));
    if let Some(text) = status(&place) {
        return Some((place, text));
    }
    let threads = fs::read_dir(place.join("task")).ok()?.flatten().map(|thread| thread.path());
    threads.into_iter().find_map(|thread| status(&thread).map(|text| (thread, text)))
}

/// Returns the number of system call filters in a status of a process or thread, including inherited ones.
pub(crate) fn filter_count(status: &[u8]) -> u64 {
    field_value(status, "Seccomp_filters:").unwrap_or(0)
}

/// Returns the number of system call filters of all threads of a process beyond the first `own_filters` of each: every
/// thread can have filters of its own.
fn thread_filters(pid: i32, own_filters: u64) -> u64 {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let statuses = threads.filter_map(|thread| fs::read(thread.path().join("status")).ok());
    statuses.map(|status| filter_count(&status).saturating_sub(own_filters)).sum()
}

/// Returns the number after a name at the beginning of a line.
pub(crate) fn field_value(text: &[u8], name: &str) -> Option<u64> {
    let lines = text.split(|byte| *byte == b'\n');
    lines.filter_map(|line| line.strip_prefix(name.as_bytes())).find_map(first_number)
}

/// Returns a field given in kB, in bytes.
pub(crate) fn kib_field_bytes(text: &[u8], name: &str) -> u64 {
    field_value(text, name).unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_from_bytes() {
        let status = b"Name:\t\xff\xfe\nRssAnon:\t     132 kB\nThreads:\t3\n";
        assert_eq!(
            (
                kib_field_bytes(status, "RssAnon:"),
                field_value(status, "Threads:"),
                kib_field_bytes(status, "VmPTE:")
            ),
            (132 << 10, Some(3), 0)
        );
    }

    #[test]
    fn a_memory_file_counts_once_whether_it_is_mapped_or_not() {
        let name = std::ffi::CString::new("forge-test").unwrap();
        let file = rustix::fs::memfd_create(&name, rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        rustix::io::write(&file, &vec![1; 4 << 20]).unwrap();
        let own = PathBuf::from("/proc/self");
        let mut held = MemoryUsage::default();
        let entries = fs::read_dir("/proc/self/fd").unwrap().flatten();
        entries.for_each(|entry| held.add_descriptor(&own, &entry.path(), Some(1)));
        let bytes: u64 = held.files.values().map(|(bytes, _)| bytes).sum();
        assert!(bytes >= 4 << 20, "{held:?}");
        assert!(held.descriptor_bytes().any(|(mark, bytes)| mark == Some(1) && bytes >= 4 << 20));
    }
}
