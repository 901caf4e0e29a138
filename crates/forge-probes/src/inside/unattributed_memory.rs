//! Memory that is not part of any process's resident size, or belongs to processes that hide.

use crate::attempts::{self, AttemptOutcome};
use crate::host_facts::{probe_failed, probe_passed, probe_untested};
use rustix::fs::MemfdFlags;
use rustix::net::sockopt::set_socket_send_buffer_size;
use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// Factor by which attempts exceed a limit.
pub(super) const LIMIT_FACTOR: u64 = 3;

const CHUNK_BYTES: usize = 1 << 20;
/// Time for which memory is held, because the supervisor measures at intervals.
const HOLD_DURATION: Duration = Duration::from_secs(10);

/// Allocates memory of this process itself. When the kernel kills a process for exceeding the sandbox's limit, it
/// considers nothing else, and the small init must not be the largest process.
fn resident_ballast() -> Vec<u8> {
    std::hint::black_box(vec![0xA5; 24 * CHUNK_BYTES])
}

/// Holds the memory until this process is killed or the time is up.
fn hold_memory(mib: u64, limit: u64) -> AttemptOutcome {
    let begun = Instant::now();
    while begun.elapsed() < HOLD_DURATION {
        let _ = rustix::thread::nanosleep(&rustix::thread::Timespec { tv_sec: 0, tv_nsec: 20_000_000 });
    }
    probe_failed(format!("{mib} MiB where {} are allowed", limit >> 20))
}

pub(super) fn fill_memory_files(limit: u64) -> AttemptOutcome {
    let piece = resident_ballast();
    let piece = &piece[..CHUNK_BYTES];
    let (mut files, mut mib) = (Vec::new(), 0);
    while mib << 20 < limit * LIMIT_FACTOR {
        let file = match rustix::fs::memfd_create(c"forge-probe", MemfdFlags::CLOEXEC) {
            Ok(file) => file,
            Err(error) => return probe_untested(error),
        };
        for _ in 0..8 {
            match rustix::io::write(&file, piece) {
                Ok(written) if written == CHUNK_BYTES => mib += 1,
                Ok(_) => return probe_passed(format!("after {mib} MiB")),
                Err(error) => return probe_passed(format!("after {mib} MiB: {error}")),
            }
        }
        files.push(file);
    }
    hold_memory(mib, limit)
}

pub(super) fn fill_sockets(limit: u64) -> AttemptOutcome {
    let piece = resident_ballast();
    let piece = &piece[..16 << 10];
    let (mut pairs, mut bytes) = (Vec::new(), 0u64);
    while bytes < limit * LIMIT_FACTOR {
        let pair = UnixStream::pair().and_then(|(near, far)| {
            // As much as the host permits.
            let _ = set_socket_send_buffer_size(&near, 8 << 20);
            near.set_nonblocking(true).map(|()| (near, far))
        });
        let (mut near, far) = match pair {
            Ok(pair) => pair,
            Err(error) => return probe_passed(format!("after {} MiB: {error}", bytes >> 20)),
        };
        let before = bytes;
        while bytes < limit * LIMIT_FACTOR {
            match near.write(piece) {
                Ok(written) => bytes += written as u64,
                Err(_) => break,
            }
        }
        if bytes == before {
            return probe_passed(format!("after {} MiB no more data is accepted", bytes >> 20));
        }
        pairs.push((near, far));
    }
    hold_memory(bytes >> 20, limit)
}

/// Fills memory in several processes, each below its own limit.
pub(super) fn fill_hidden_processes(limit: u64) -> AttemptOutcome {
    let bytes = usize::try_from(limit / 2).unwrap_or(usize::MAX);
    let count = usize::try_from(LIMIT_FACTOR * 2).unwrap_or(1);
    let work = || {
        attempts::obscure_process();
        let mut memory: Vec<u8> = Vec::new();
        if memory.try_reserve_exact(bytes).is_ok() {
            memory.resize(bytes, 0xA5);
        }
        std::mem::forget(std::hint::black_box(memory));
    };
    let children = match attempts::fork_each(count, work) {
        Ok(children) => children,
        Err(errno) => return probe_untested(std::io::Error::from_raw_os_error(errno)),
    };
    let begun = Instant::now();
    while begun.elapsed() < HOLD_DURATION {
        // Killing a single one of them is enough.
        if attempts::reap_one() {
            attempts::end_children(&children);
            return probe_passed("one of them was ended");
        }
        let _ = rustix::thread::nanosleep(&rustix::thread::Timespec { tv_sec: 0, tv_nsec: 20_000_000 });
    }
    attempts::end_children(&children);
    probe_failed(format!("{count} processes with {} MiB each where {} are allowed", bytes >> 20, limit >> 20))
}
