//! Work in a process of its own, and processes that try the ceilings.

use forge_sys::{self as sys, ForkSide};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::time::{Duration, Instant};

/// How a child ended that did not give its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChildEnd {
    /// It could not be started, by this error number.
    NotStarted(i32),
    /// This signal ended it.
    Signal(i32),
    /// It ended by itself.
    Silent,
    /// Its time was up.
    TimedOut,
}

/// Runs `work` in a forked child and gives what it returned, at most for `limit`.
///
/// # Errors
/// How the child ended instead.
///
/// # Panics
/// If this process has more than one thread: a fork would then leave locks behind that nobody opens.
pub fn in_child(limit: Duration, work: impl FnOnce() -> Vec<u8>) -> Result<Vec<u8>, ChildEnd> {
    assert_eq!(thread_count(), 1, "children are forked by a process of one thread");
    let refused = |error: &io::Error| ChildEnd::NotStarted(error.raw_os_error().unwrap_or(libc::EIO));
    let (mut read, mut write) = io::pipe().map_err(|e| refused(&e))?;
    let pid = match sys::fork(0).map_err(|e| refused(&e))? {
        ForkSide::Parent(pid) => pid,
        ForkSide::Child => {
            drop(read);
            // Ends with whoever asked, so that no attempt outlives its box's helper.
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

/// Reads a length and so many bytes. Not to the end: a grandchild may still hold the pipe.
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

/// Forks children that only wait, until the kernel refuses or there are `most`. Gives their ids and the error number
/// that ended it, if one did.
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

/// Forks so many children, each of which does `work` and then only waits.
///
/// # Errors
/// The error number of the first fork that was refused; the children before it live.
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

/// Whether one of this process's children has ended; it is collected then.
#[must_use]
pub fn reap_one() -> bool {
    matches!(sys::reap(-1, libc::WNOHANG), Ok(Some(_)))
}

/// Takes a name that is no text, and forbids others to look into this process, as far as that is allowed.
pub fn obscure_process() {
    // SAFETY: the name is a C string that lives across the call, which copies it; the other call takes integers.
    unsafe {
        libc::prctl(libc::PR_SET_NAME, c"\xff\xfe) Z".as_ptr());
        libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0);
    }
}

/// Kills and reaps what [`fork_until_refused`] made.
pub fn end_children(children: &[i32]) {
    for pid in children {
        sys::kill(*pid, libc::SIGKILL);
        let _ = sys::reap(*pid, 0);
    }
}

/// A fork bomb: every process of it starts more as long as it can. Only ever in a box with a ceiling.
pub fn fork_bomb() -> ! {
    loop {
        let _ = sys::fork(0);
    }
}

/// From here on this process ignores TERM, INT and HUP.
pub fn ignore_term() {
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
        // SAFETY: SIG_IGN installs no handler.
        unsafe {
            libc::signal(signal, libc::SIG_IGN);
        }
    }
}

/// Makes the three streams copies of `file`.
pub fn replace_streams(file: &std::os::fd::OwnedFd) {
    for stream in 0..3 {
        // SAFETY: dup2 takes two integers. The streams are never owned by a value that would close them twice.
        unsafe {
            libc::dup2(file.as_raw_fd(), stream);
        }
    }
}

/// Goes on in a daemon: two forks and a new session away. The caller of the first process sees `Some(())`, the daemon
/// `None`.
///
/// # Errors
/// When the kernel refuses the fork.
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

    // The test runner has threads, so the fork itself is tried by the sandbox's suite, whose helper has none.
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
