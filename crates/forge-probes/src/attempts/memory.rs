//! Attempts on memory: that of other processes, and that of files through the process's own memory.

use super::AttemptOutcome;
use super::syscalls::{REFUSAL_ERRNOS, errno_text, judge_call};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::FileExt as _;

/// Reads or writes memory of the init and of the parent.
pub(super) fn access_other_memory(number: libc::c_long) -> AttemptOutcome {
    let parent = rustix::process::getppid().map_or(1, |pid| pid.as_raw_nonzero().get());
    AttemptOutcome::worst([1, parent].map(|pid| {
        let (here, there) = ([0u8; 8], [0u8; 8]);
        let local = libc::iovec { iov_base: here.as_ptr().cast_mut().cast(), iov_len: here.len() };
        // The parent is a copy of this process, so the address is valid there too.
        let remote = libc::iovec { iov_base: there.as_ptr().cast_mut().cast(), iov_len: there.len() };
        // SAFETY: both vectors and the local bytes live across the call, which reads or writes eight bytes of `here`
        // and of another process. A write stores the bytes that are already there, zeroes over an unused buffer.
        let result = unsafe {
            libc::syscall(number, pid, &raw const local, 1usize, &raw const remote, 1usize, 0usize)
        };
        std::hint::black_box((&here, &there));
        let result = if result < 0 { Err(last_errno()) } else { Ok(result) };
        judge_call("memory of another process", result, REFUSAL_ERRNOS)
    }))
}

fn last_errno() -> i32 {
    io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

/// Maps a system file read-only and writes to it through `/proc/self/mem`, which ignores the protection of the map. The
/// write may reach a private copy, but the file must not change.
pub(super) fn write_read_only_map() -> AttemptOutcome {
    const MAPPED_PROGRAM: &str = "/usr/bin/env";
    let Ok(file) = File::open(MAPPED_PROGRAM) else {
        return AttemptOutcome::NotApplicable(format!("{MAPPED_PROGRAM} does not exist"));
    };
    let mut before = [0u8; 4];
    if file.read_exact_at(&mut before, 0).is_err() {
        return AttemptOutcome::Untested(format!("{MAPPED_PROGRAM} could not be read"));
    }
    let mut outcomes = Vec::new();
    for kind in [libc::MAP_PRIVATE, libc::MAP_SHARED] {
        // SAFETY: maps a page of an open file for reading, at any address; nothing else is at the returned address.
        let page =
            unsafe { libc::mmap(std::ptr::null_mut(), 4096, libc::PROT_READ, kind, file.as_raw_fd(), 0) };
        if page == libc::MAP_FAILED {
            return AttemptOutcome::Untested(format!(
                "{MAPPED_PROGRAM} could not be mapped: {}",
                errno_text(last_errno())
            ));
        }
        let written = File::options()
            .write(true)
            .open("/proc/self/mem")
            .and_then(|memory| memory.write_at(b"XXXX", page.addr() as u64));
        // SAFETY: the page was mapped above and nothing points into it.
        unsafe { libc::munmap(page, 4096) };
        let mut after = [0u8; 4];
        let same = file.read_exact_at(&mut after, 0).is_ok() && before == after;
        outcomes.push(match (same, written) {
            (false, _) => {
                AttemptOutcome::Failed(format!("{MAPPED_PROGRAM} was changed through its read-only map"))
            }
            (true, Ok(_)) => AttemptOutcome::Passed("the write stayed in a private copy".to_owned()),
            (true, Err(error)) => AttemptOutcome::Passed(error.to_string()),
        });
    }
    AttemptOutcome::worst(outcomes)
}
