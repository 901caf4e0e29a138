//! Attempts on terminals: typing into one that somebody else reads.

use super::Outcome;
use super::calls::said;
use rustix::fs::{Mode, OFlags};
use std::os::fd::{AsRawFd as _, OwnedFd};

/// Makes a terminal of its own the controlling one and types into it, as a command would into the user's.
pub(super) fn type_into() -> Outcome {
    let Ok((_leader, follower)) = pair() else {
        return Outcome::Absent("no pseudo-terminal can be made here".to_owned());
    };
    const TIOCSCTTY: u64 = 0x540E;
    // The terminal's end is this process's end otherwise.
    super::ignore_term();
    let _ = rustix::process::setsid();
    let _ = ioctl(&follower, TIOCSCTTY, &mut [0; 8]);
    let tried = [
        ("TIOCSTI", 0x5412, b"x\0\0\0\0\0\0\0"),
        ("TIOCLINUX", 0x541C, b"\x03\0\0\0\0\0\0\0"),
        ("TIOCSETD", 0x5423, b"\0\0\0\0\0\0\0\0"),
    ];
    Outcome::worst(tried.map(|(name, request, bytes)| match ioctl(&follower, request, &mut bytes.clone()) {
        Ok(()) => Outcome::Broke(format!("{name} worked")),
        // EIO: the kernel's own switch for TIOCSTI. ENOTTY: not that kind of terminal.
        Err(errno) if [libc::EPERM, libc::EACCES, libc::EIO, libc::ENOTTY].contains(&errno) => {
            Outcome::Held(format!("{name}: {}", said(errno)))
        }
        Err(errno) => Outcome::Broke(format!("{name} was not refused but failed: {}", said(errno))),
    }))
}

/// Opens the controlling terminal: a command has none.
pub(super) fn controlling() -> Outcome {
    match rustix::fs::open(c"/dev/tty", OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty()) {
        Ok(_) => Outcome::Broke("there is a controlling terminal".to_owned()),
        Err(errno) => Outcome::Held(errno.to_string()),
    }
}

fn pair() -> Result<(OwnedFd, OwnedFd), i32> {
    const TIOCSPTLCK: u64 = 0x4004_5431;
    const TIOCGPTN: u64 = 0x8004_5430;
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let leader =
        rustix::fs::open(c"/dev/ptmx", flags, Mode::empty()).map_err(rustix::io::Errno::raw_os_error)?;
    ioctl(&leader, TIOCSPTLCK, &mut [0; 8])?;
    let mut number = [0u8; 8];
    ioctl(&leader, TIOCGPTN, &mut number)?;
    let number = u32::from_ne_bytes([number[0], number[1], number[2], number[3]]);
    let path = format!("/dev/pts/{number}");
    let follower = rustix::fs::open(path, flags, Mode::empty()).map_err(rustix::io::Errno::raw_os_error)?;
    Ok((leader, follower))
}

fn ioctl(terminal: &OwnedFd, request: u64, bytes: &mut [u8; 8]) -> Result<(), i32> {
    // SAFETY: the requests of this file read or write at most four bytes at the pointer; `bytes` has eight and lives
    // across the call.
    let result = unsafe { libc::syscall(libc::SYS_ioctl, terminal.as_raw_fd(), request, bytes.as_mut_ptr()) };
    if result < 0 { Err(std::io::Error::last_os_error().raw_os_error().unwrap_or(0)) } else { Ok(()) }
}
