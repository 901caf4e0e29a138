//! Attempts on terminals: typing into one that another process reads.

use super::AttemptOutcome;
use super::syscalls::errno_text;
use rustix::fs::{Mode, OFlags};
use std::os::fd::{AsRawFd as _, OwnedFd};

/// Makes a new terminal the controlling one and types into it, as a command could do with the user's terminal.
pub(super) fn type_into_terminal() -> AttemptOutcome {
    let Ok((_leader, follower)) = open_pty_pair() else {
        return AttemptOutcome::NotApplicable("no pseudo-terminal can be created here".to_owned());
    };
    const TIOCSCTTY: u64 = 0x540E;
    // Otherwise, closing the terminal would end this process.
    super::ignore_term();
    let _ = rustix::process::setsid();
    let _ = terminal_ioctl(&follower, TIOCSCTTY, &mut [0; 8]);
    let tried = [
        ("TIOCSTI", 0x5412, b"x\0\0\0\0\0\0\0"),
        ("TIOCLINUX", 0x541C, b"\x03\0\0\0\0\0\0\0"),
        ("TIOCSETD", 0x5423, b"\0\0\0\0\0\0\0\0"),
    ];
    AttemptOutcome::worst(tried.map(|(name, request, bytes)| {
        match terminal_ioctl(&follower, request, &mut bytes.clone()) {
            Ok(()) => AttemptOutcome::Failed(format!("{name} worked")),
            // EIO: the kernel's own switch for TIOCSTI. ENOTTY: not that kind of terminal.
            Err(errno) if [libc::EPERM, libc::EACCES, libc::EIO, libc::ENOTTY].contains(&errno) => {
                AttemptOutcome::Passed(format!("{name}: {}", errno_text(errno)))
            }
            Err(errno) => {
                AttemptOutcome::Failed(format!("{name} was not refused but failed: {}", errno_text(errno)))
            }
        }
    }))
}

/// Opens the controlling terminal, which a command must not have.
pub(super) fn open_controlling() -> AttemptOutcome {
    match rustix::fs::open(c"/dev/tty", OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty()) {
        Ok(_) => AttemptOutcome::Failed("there is a controlling terminal".to_owned()),
        Err(errno) => AttemptOutcome::Passed(errno.to_string()),
    }
}

fn open_pty_pair() -> Result<(OwnedFd, OwnedFd), i32> {
    const TIOCSPTLCK: u64 = 0x4004_5431;
    const TIOCGPTN: u64 = 0x8004_5430;
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let leader =
        rustix::fs::open(c"/dev/ptmx", flags, Mode::empty()).map_err(rustix::io::Errno::raw_os_error)?;
    terminal_ioctl(&leader, TIOCSPTLCK, &mut [0; 8])?;
    let mut number = [0u8; 8];
    terminal_ioctl(&leader, TIOCGPTN, &mut number)?;
    let number = u32::from_ne_bytes([number[0], number[1], number[2], number[3]]);
    let path = format!("/dev/pts/{number}");
    let follower = rustix::fs::open(path, flags, Mode::empty()).map_err(rustix::io::Errno::raw_os_error)?;
    Ok((leader, follower))
}

fn terminal_ioctl(terminal: &OwnedFd, request: u64, bytes: &mut [u8; 8]) -> Result<(), i32> {
    // SAFETY: the requests of this file read or write at most four bytes at the pointer; `bytes` has eight and lives
    // across the call.
    let result = unsafe { libc::syscall(libc::SYS_ioctl, terminal.as_raw_fd(), request, bytes.as_mut_ptr()) };
    if result < 0 { Err(std::io::Error::last_os_error().raw_os_error().unwrap_or(0)) } else { Ok(()) }
}
