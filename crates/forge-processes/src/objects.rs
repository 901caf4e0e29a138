//! System V objects of the sandbox: they belong to no process and outlive their creator. Where the kernel does not let
//! the sandbox's user limit them, those above the sandbox's share are removed.

use std::fs;

use crate::process_files::first_number;
use forge_sys as sys;

/// Divisor of the sandbox's memory that gives the share of such objects.
pub const MEMORY_SHARE_DIVISOR: u64 = 4;
/// Kernel memory for an object, a semaphore and a message, in addition to the contents.
const OBJECT_BYTES: u64 = 256;
const SEMAPHORE_BYTES: u64 = 64;
const MESSAGE_BYTES: u64 = 64;

/// The System V objects that are visible.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ObjectScope {
    /// Only those of the sandbox.
    Own,
    /// Those of other users as well; they must not be removed.
    Shared,
}

/// A System V object.
#[derive(Debug, PartialEq, Eq)]
struct IpcObject {
    kind: IpcObjectKind,
    id: i32,
    bytes: u64,
}

/// The kind of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum IpcObjectKind {
    /// Shared memory that no process has attached; attached memory counts in its processes.
    Segment,
    Queue,
    Semaphores,
}

/// Removes the largest objects until the others fit into the share of a sandbox with this much memory; returns the
/// remaining bytes.
pub fn trim_to_share(memory_bytes: u64) -> u64 {
    let mut all = list_objects();
    let mut total: u64 = all.iter().map(|object| object.bytes).sum();
    if total <= memory_bytes / MEMORY_SHARE_DIVISOR {
        return total;
    }
    all.sort_by_key(|object| std::cmp::Reverse(object.bytes));
    for object in all {
        if total <= memory_bytes / MEMORY_SHARE_DIVISOR {
            break;
        }
        let removed = match object.kind {
            IpcObjectKind::Segment => sys::remove_segment(object.id),
            IpcObjectKind::Queue => sys::remove_queue(object.id),
            IpcObjectKind::Semaphores => sys::remove_semaphores(object.id),
        };
        if removed.is_ok() {
            total -= object.bytes;
        }
    }
    total
}

/// Returns the ids of attached segments, each with its bytes in memory or swap.
pub fn attached_segments() -> Vec<(u64, u64)> {
    let text = fs::read("/proc/sysvipc/shm").unwrap_or_default();
    parse_rows(&text, |number| {
        let attached = number(b"nattch")? > 0;
        attached.then_some((number(b"shmid")?, number(b"rss")? + number(b"swap")?))
    })
}

fn list_objects() -> Vec<IpcObject> {
    let read = |name: &str| fs::read(format!("/proc/sysvipc/{name}")).unwrap_or_default();
    let mut all = parse_objects(&read("shm"), IpcObjectKind::Segment);
    all.extend(parse_objects(&read("msg"), IpcObjectKind::Queue));
    all.extend(parse_objects(&read("sem"), IpcObjectKind::Semaphores));
    all
}

/// Parses the objects in a list of the kernel.
fn parse_objects(text: &[u8], kind: IpcObjectKind) -> Vec<IpcObject> {
    parse_rows(text, |number| {
        let (id, bytes) = match kind {
            IpcObjectKind::Segment if number(b"nattch")? > 0 => return None,
            IpcObjectKind::Segment => (number(b"shmid")?, number(b"rss")? + number(b"swap")?),
            IpcObjectKind::Queue => {
                (number(b"msqid")?, number(b"cbytes")? + number(b"qnum")? * MESSAGE_BYTES)
            }
            IpcObjectKind::Semaphores => (number(b"semid")?, number(b"nsems")? * SEMAPHORE_BYTES),
        };
        Some(IpcObject { kind, id: i32::try_from(id).ok()?, bytes: bytes + OBJECT_BYTES })
    })
}

/// Reads the rows of a kernel list with column names in its first line; `read` gets a function that looks up a column.
fn parse_rows<T>(text: &[u8], read: impl Fn(&dyn Fn(&[u8]) -> Option<u64>) -> Option<T>) -> Vec<T> {
    let mut lines = text.split(|byte| *byte == b'\n');
    let names: Vec<&[u8]> = split_columns(lines.next().unwrap_or_default()).collect();
    let rows = lines.filter_map(|line| {
        let fields: Vec<&[u8]> = split_columns(line).collect();
        let number = |wanted: &[u8]| {
            let column = names.iter().position(|name| *name == wanted)?;
            fields.get(column).and_then(|field| first_number(field))
        };
        read(&number)
    });
    rows.collect()
}

fn split_columns(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(u8::is_ascii_whitespace).filter(|field| !field.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_the_kernel_are_read_by_their_columns() {
        let segments = b"       key      shmid perms                  size  cpid  lpid nattch   uid   gid  cuid  cgid      atime      dtime      ctime                   rss                  swap
         0          3  1600               8388608  9  9      0     0     0     0     0 1 2 3               8388608                     0
         0          4  1600               8388608  9  9      1     0     0     0     0 1 2 3               8388608                     0\n";
        let found = parse_objects(segments, IpcObjectKind::Segment);
        assert_eq!(
            found,
            [IpcObject { kind: IpcObjectKind::Segment, id: 3, bytes: (8 << 20) + OBJECT_BYTES }]
        );
        let queues = b"       key      msqid perms      cbytes       qnum lspid lrpid   uid   gid  cuid  cgid      stime      rtime      ctime\n 0 7 600 100 2 1 1 0 0 0 0 0 0 0\n";
        assert_eq!(
            parse_objects(queues, IpcObjectKind::Queue)[0].bytes,
            100 + 2 * MESSAGE_BYTES + OBJECT_BYTES
        );
        let sets = b"       key      semid perms      nsems   uid   gid  cuid  cgid      otime      ctime\n 0 2 600 32000 0 0 0 0 0 0\n";
        assert_eq!(
            parse_objects(sets, IpcObjectKind::Semaphores)[0].bytes,
            32000 * SEMAPHORE_BYTES + OBJECT_BYTES
        );
        assert_eq!(parse_objects(b"", IpcObjectKind::Queue), []);
    }
}
