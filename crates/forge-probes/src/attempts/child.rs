//! Work in a separate process, and processes that press on limits.

use forge_sys::{self as sys, ForkSide};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::time::{Duration, Instant};

/// The end of a child that did not return an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChildEnd {
    /// The child could not be started; contains the error number.
    NotStarted(i32),
    /// The child was ended by this signal.
    Signal(i32),
    /// The child ended by itself.
    Silent,
    /// The child exceeded its time limit.
    TimedOut,
}

/// Runs `work` in a forked child for at most `limit` and returns its result.
///
/// # Errors
/// The way in which the child ended instead.
///
/// # Panics
/// This process has more than one thread: a fork would then leave locks behind that are never released.
pub fn in_child(limit: Duration, work: impl FnOnce() -> Vec<u8>) -> Result<Vec<u8>, ChildEnd> {
    assert_eq!(thread_count(), 1, "children must be forked by a single-threaded process");
    let refused = |error: &io::Error| ChildEnd::NotStarted(error.raw_os_error().unwrap_or(libc::EIO));
    let (mut read, mut write) = io::pipe().map_err(|e| refused(&e))?;
    let pid = match sys::fork(0).map_err(|e| refused(&e))? {
        ForkSide::Parent(pid) => pid,
        ForkSide::Child => {
            drop(read);
            // The child dies with its parent, so that no attempt outlives the prober.
            let _ = sys::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong, 0);
            let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
            let sent = done.ok().and_then(|bytes| {
                let length = u32::try_from(bytes.len()).ok()?.to_le_bytes();
                write.write_all(&[&length[..], &bytes].concat()).ok()
            });
            sys::exit_now(i32::from(sent.is_none()))
        }
    };
    drop(write);
    let answer = receive_answer(&mut read, limit);
    if answer.is_err() {
        sys::kill(pid, if answer == Err(ChildEnd::TimedOut) { libc::SIGKILL } else { 0 });
    }
    let status = sys::reap(pid, 0).ok().flatten().map_or(0, |reaped| reaped.status);
    match answer {
        Err(ChildEnd::Silent) if libc::WIFSIGNALED(status) => Err(ChildEnd::Signal(libc::WTERMSIG(status))),
        other => other,
    }
}

fn thread_count() -> usize {
    std::fs::read_dir("/proc/self/task").map_or(1, Iterator::count)
}

/// Reads a length and that many bytes, but not to the end, because a grandchild may still hold the pipe.
fn receive_answer(pipe: &mut io::PipeReader, limit: Duration) -> Result<Vec<u8>, ChildEnd> {
    let deadline = Instant::now() + limit;
    let (mut bytes, mut piece) = (Vec::new(), [0u8; 4096]);
    loop {
        if let Some((length, rest)) = bytes.split_first_chunk::<4>() {
            let length = u32::from_le_bytes(*length) as usize;
            if rest.len() >= length {
                return Ok(rest[..length].to_vec());
            }
        }
        let left = deadline.saturating_duration_since(Instant::now());
        let time = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(left.subsec_nanos()),
        };
        let mut wait = [PollFd::from_borrowed_fd(pipe.as_fd(), PollFlags::IN)];
        match poll(&mut wait, Some(&time)) {
            Ok(0) => return Err(ChildEnd::TimedOut),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return Err(ChildEnd::Silent),
        }
        match pipe.read(&mut piece) {
            Ok(0) => return Err(ChildEnd::Silent),
            Ok(read) => bytes.extend_from_slice(&piece[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return Err(ChildEnd::Silent),
        }
    }
}

/// Forks children that only wait, until the kernel refuses or there are `most`. Returns their IDs and the error number
/// of a refusal.
#[must_use]
pub fn fork_until_refused(most: usize) -> (Vec<i32>, Option<i32>) {
    let mut children = Vec::new();
    while children.len() < most {
        match sys::fork(0) {
            Ok(ForkSide::Parent(pid)) => children.push(pid),
            Ok(ForkSide::Child) => loop {
                sys::pause();
            },
            Err(error) => return (children, error.raw_os_error()),
        }
    }
    (children, None)
}

/// Forks this number of children; each does `work` and then only waits.
///
/// # Errors
/// The error number of the first refused fork; the children before it keep running.
pub fn fork_each(count: usize, work: impl Fn()) -> Result<Vec<i32>, i32> {
    let mut children = Vec::new();
    for _ in 0..count {
        match sys::fork(0) {
            Ok(ForkSide::Parent(pid)) => children.push(pid),
            Ok(ForkSide::Child) => {
                work();
                loop {
                    sys::pause();
                }
            }
            Err(error) => return Err(error.raw_os_error().unwrap_or(0)),
        }
    }
    Ok(children)
}

/// Reaps one child of this process if any has ended, and returns whether one had.
#[must_use]
pub fn reap_one() -> bool {
    matches!(sys::reap(-1, libc::WNOHANG), Ok(Some(_)))
}

/// Takes a name that is not valid text and forbids others to inspect this process, as far as permitted.
pub fn obscure_process() {
    // SAFETY: the name is a C string that lives across the call, which copies it; the other call takes integers.
    unsafe {
        libc::prctl(libc::PR_SET_NAME, c"\xff\xfe) Z".as_ptr());
        libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0);
    }
}

/// Kills and reaps the children of [`fork_until_refused`].
pub fn end_children(children: &[i32]) {
    for pid in children {
        sys::kill(*pid, libc::SIGKILL);
        let _ = sys::reap(*pid, 0);
    }
}

/// Runs a fork bomb, in which every process starts more as long as it can. Use only in a sandbox with a process limit.
pub fn fork_bomb() -> ! {
    loop {
        let _ = sys::fork(0);
    }
}

/// Makes this process ignore TERM, INT and HUP.
pub fn ignore_term() {
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
        // SAFETY: SIG_IGN installs no handler.
        unsafe {
            libc::signal(signal, libc::SIG_IGN);
        }
    }
}

/// Replaces the three standard streams by copies of `file`.
pub fn replace_streams(file: &std::os::fd::OwnedFd) {
    for stream in 0..3 {
        // SAFETY: dup2 takes two integers. The streams are never owned by a value that would close them twice.
        unsafe {
            libc::dup2(file.as_raw_fd(), stream);
        }
    }
}

/// Continues as a daemon after two forks and in a new session. Returns `Some(())` in the first process and `None` in
/// the daemon.
///
/// # Errors
/// The kernel refuses the fork.
pub fn daemonize() -> io::Result<Option<()>> {
    if let ForkSide::Parent(pid) = sys::fork(0)? {
        let _ = sys::reap(pid, 0);
        return Ok(Some(()));
    }
    let _ = rustix::process::setsid();
    match sys::fork(0) {
        Ok(ForkSide::Child) => Ok(None),
        Ok(ForkSide::Parent(_)) => sys::exit_now(0),
        Err(_) => sys::exit_now(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // The test runner has threads, so the fork itself is tested by the sandbox's suite with a single-threaded helper.
    #[test]
    fn an_answer_is_read_by_its_length_and_no_answer_is_told_from_it() {
        let (mut read, mut write) = io::pipe().unwrap();
        write.write_all(&[3, 0, 0, 0, b'a', b'b', b'c']).unwrap();
        assert_eq!(receive_answer(&mut read, Duration::from_secs(5)), Ok(b"abc".to_vec()));
        assert_eq!(receive_answer(&mut read, Duration::from_millis(1)), Err(ChildEnd::TimedOut));
        drop(write);
        assert_eq!(receive_answer(&mut read, Duration::from_secs(5)), Err(ChildEnd::Silent));
    }
}
