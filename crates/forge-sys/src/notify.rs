//! System calls that wait for another thread's answer: seccomp's notifications, as in seccomp_unotify(2).

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use super::check_result;

/// Room for the kernel's own records, which may grow beyond those known here, in 8-byte words.
const MAX_RECORD_WORDS: usize = 64;

/// A system call that waits for an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotifiedCall {
    /// The number that identifies it in the answer.
    pub id: u64,
    /// The thread that made it, as this process sees it.
    pub thread: u32,
    /// The system call number.
    pub number: i32,
    /// The arguments of the call.
    pub arguments: [u64; 6],
}

/// The answer to a waiting call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallAnswer {
    /// The kernel executes the call.
    Continue,
    /// The call fails with this error number.
    Errno(i32),
}

/// Permanently installs a seccomp program on this thread and returns the descriptor on which its notifications arrive.
///
/// # Errors
/// When the kernel does not support notifications, or the thread already has a filter with a listener (`EBUSY`).
pub fn install_listener(program: &[libc::sock_filter]) -> io::Result<OwnedFd> {
    let fprog = libc::sock_fprog {
        len: u16::try_from(program.len()).map_err(io::Error::other)?,
        filter: program.as_ptr().cast_mut(),
    };
    let install = |flags: libc::c_ulong| {
        // SAFETY: `fprog` describes a live slice; the kernel copies it and does not write to it.
        check_result(unsafe {
            libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const fprog)
        })
    };
    // A call that is being answered can then only be interrupted by a fatal signal (Linux 5.19).
    let patient = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
    let fd = match install(patient) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            install(libc::SECCOMP_FILTER_FLAG_NEW_LISTENER)?
        }
        other => other?,
    };
    let fd = RawFd::try_from(fd).map_err(io::Error::other)?;
    // Wakes the answering thread on the processor of the caller, which waits anyway (Linux 6.6); works without it too.
    const SYNC_WAKE_UP: libc::c_ulong = 1;
    // SAFETY: the call takes a number; a kernel that does not know it refuses.
    unsafe { libc::ioctl(fd, libc::SECCOMP_IOCTL_NOTIF_SET_FLAGS, SYNC_WAKE_UP) };
    // SAFETY: the kernel just returned this descriptor, nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Waits for the next call; `None` when it was abandoned before it could be read.
///
/// # Errors
/// When the descriptor is not one of [`install_listener`], or no thread is left that could call.
pub fn next_call(listener: BorrowedFd<'_>) -> io::Result<Option<NotifiedCall>> {
    let mut record = [0u64; MAX_RECORD_WORDS];
    // SAFETY: the record is zeroed, as the kernel demands, aligned as its fields are, and larger than the kernel's.
    let got =
        unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV, record.as_mut_ptr()) };
    match check_result(got.into()) {
        Ok(_) => {}
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EINTR)) => return Ok(None),
        Err(error) => return Err(error),
    }
    // SAFETY: the kernel filled the record with a `seccomp_notif`, which is integers only; it is large enough and
    // aligned for it.
    let told = unsafe { record.as_ptr().cast::<libc::seccomp_notif>().read() };
    Ok(Some(NotifiedCall { id: told.id, thread: told.pid, number: told.data.nr, arguments: told.data.args }))
}

/// Answers a call. A call that was abandoned meanwhile is no error.
///
/// # Errors
/// When the descriptor is not one of [`install_listener`].
pub fn answer_call(listener: BorrowedFd<'_>, id: u64, answer: CallAnswer) -> io::Result<()> {
    const CONTINUE_FLAG: u32 = 1;
    let (error, flags) = match answer {
        CallAnswer::Continue => (0, CONTINUE_FLAG),
        CallAnswer::Errno(errno) => (-errno.abs(), 0),
    };
    let mut record = [0u64; MAX_RECORD_WORDS];
    let said = libc::seccomp_notif_resp { id, val: 0, error, flags };
    // SAFETY: the record is aligned and large enough for a `seccomp_notif_resp`.
    unsafe { record.as_mut_ptr().cast::<libc::seccomp_notif_resp>().write(said) };
    // SAFETY: the kernel reads one record of its own size from there, which is at most as large.
    let sent =
        unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND, record.as_mut_ptr()) };
    match check_result(sent.into()) {
        Err(error) if error.raw_os_error() != Some(libc::ENOENT) => Err(error),
        _ => Ok(()),
    }
}
