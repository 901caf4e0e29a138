//! Attempts that consist of system calls only.

use super::{AttemptOutcome, EscapeAttempt};
use std::ffi::CStr;
use std::os::fd::AsRawFd as _;

/// Size of a buffer for the output of any call in this file: each writes a structure or a few dozen bytes.
const CALL_BUFFER_BYTES: usize = 4096;

/// An argument of a system call.
pub(super) enum SyscallArg<'a> {
    /// A number, a flag or a descriptor.
    Number(i64),
    /// A path or name.
    Text(&'a CStr),
    /// A structure, or space for one; [`CALL_BUFFER_BYTES`] bytes.
    Buffer(&'a mut [u8; CALL_BUFFER_BYTES]),
}

impl From<i32> for SyscallArg<'_> {
    fn from(number: i32) -> Self {
        Self::Number(number.into())
    }
}

impl From<i64> for SyscallArg<'_> {
    fn from(number: i64) -> Self {
        Self::Number(number)
    }
}

impl<'a> From<&'a CStr> for SyscallArg<'a> {
    fn from(text: &'a CStr) -> Self {
        Self::Text(text)
    }
}

impl<'a> From<&'a mut [u8; CALL_BUFFER_BYTES]> for SyscallArg<'a> {
    fn from(room: &'a mut [u8; CALL_BUFFER_BYTES]) -> Self {
        Self::Buffer(room)
    }
}

/// Makes a raw system call and returns its result or error number.
///
/// Only for calls that take integers, C strings and structures smaller than [`CALL_BUFFER_BYTES`] that contain no
/// pointers (or none through which the kernel writes).
pub(super) fn raw_syscall(number: libc::c_long, arguments: [SyscallArg<'_>; 6]) -> Result<i64, i32> {
    let words = arguments.map(|argument| match argument {
        SyscallArg::Number(number) => number,
        SyscallArg::Text(text) => text.as_ptr().expose_provenance() as i64,
        SyscallArg::Buffer(room) => room.as_mut_ptr().expose_provenance() as i64,
    });
    // SAFETY: pointers among the words come from borrows that live across the call: C strings end with NUL, buffers are
    // larger than any structure that the calls of this module read or write. The calls are a fixed list of this module,
    // made in a process with one thread; none of them changes memory other than the buffers.
    let result = unsafe { libc::syscall(number, words[0], words[1], words[2], words[3], words[4], words[5]) };
    if result == -1 { Err(std::io::Error::last_os_error().raw_os_error().unwrap_or(0)) } else { Ok(result) }
}

/// Makes a call with fewer than six arguments; missing ones are zero.
macro_rules! call {
    ($number:ident $(, $argument:expr)*) => {
        $crate::attempts::syscalls::raw_syscall(libc::$number, $crate::attempts::syscalls::pad_args([$($crate::attempts::syscalls::SyscallArg::from($argument)),*]))
    };
}
pub(super) use call;

pub(super) fn pad_args<const N: usize>(given: [SyscallArg<'_>; N]) -> [SyscallArg<'_>; 6] {
    let mut given = given.into_iter();
    std::array::from_fn(|_| given.next().unwrap_or(SyscallArg::Number(0)))
}

/// Error numbers that count as a refusal: the kernel or the filter rejected the call before processing it.
pub(super) const REFUSAL_ERRNOS: &[i32] = &[libc::EPERM, libc::EACCES, libc::ENOSYS];

pub(super) fn judge_call(name: &str, result: Result<i64, i32>, refusals: &[i32]) -> AttemptOutcome {
    match result {
        Err(errno) if refusals.contains(&errno) => {
            AttemptOutcome::Passed(format!("{name}: {}", errno_text(errno)))
        }
        Err(errno) => {
            AttemptOutcome::Failed(format!("{name} was not refused but failed: {}", errno_text(errno)))
        }
        Ok(value) => AttemptOutcome::Failed(format!("{name} worked (returned {value})")),
    }
}

/// Returns the message of an error number.
pub(super) fn errno_text(errno: i32) -> String {
    std::io::Error::from_raw_os_error(errno).to_string()
}

/// Expects that every call of the list is refused.
macro_rules! refused {
    ($($number:ident ( $($argument:expr),* $(,)? ));+ $(;)?) => {
        AttemptOutcome::worst([$(judge_call(
            stringify!($number).trim_start_matches("SYS_"),
            call!($number $(, $argument)*),
            REFUSAL_ERRNOS,
        )),+])
    };
}

pub(super) fn attempt_call(what: &EscapeAttempt) -> AttemptOutcome {
    let outcome = attempt_namespaces(what)
        .or_else(|| attempt_kernel_calls(what))
        .or_else(|| attempt_nodes_and_limits(what))
        .or_else(|| attempt_admin_calls(what));
    outcome.unwrap_or_else(|| AttemptOutcome::Untested("this processor has no such call".to_owned()))
}

const CURRENT_DIR_FD: i32 = libc::AT_FDCWD;

fn attempt_namespaces(what: &EscapeAttempt) -> Option<AttemptOutcome> {
    let room = &mut [0u8; CALL_BUFFER_BYTES];
    Some(match what {
        EscapeAttempt::UnshareUser => refused!(SYS_unshare(libc::CLONE_NEWUSER)),
        EscapeAttempt::UnshareMount => refused!(SYS_unshare(libc::CLONE_NEWNS)),
        EscapeAttempt::UnshareOthers => AttemptOutcome::worst(
            [
                libc::CLONE_NEWNET,
                libc::CLONE_NEWPID,
                libc::CLONE_NEWUTS,
                libc::CLONE_NEWIPC,
                libc::CLONE_NEWCGROUP,
            ]
            .map(|flag| refused!(SYS_unshare(flag))),
        ),
        EscapeAttempt::CloneNewUser => judge_clone(
            call!(SYS_clone, libc::CLONE_NEWUSER | libc::SIGCHLD),
            "clone with a new user namespace",
        ),
        EscapeAttempt::Clone3NewUser => {
            // struct clone_args: flags first, the exit signal fifth; 88 bytes in its third version.
            room[..8].copy_from_slice(&i64::from(libc::CLONE_NEWUSER).to_ne_bytes());
            room[32..40].copy_from_slice(&i64::from(libc::SIGCHLD).to_ne_bytes());
            judge_clone(call!(SYS_clone3, room, 88), "clone3 with a new user namespace")
        }
        EscapeAttempt::Setns => {
            let own = std::fs::File::open("/proc/self/ns/net");
            let init = call!(SYS_pidfd_open, 1).unwrap_or(-1);
            let own = own.as_ref().map_or(-1, |file| file.as_raw_fd());
            refused!(SYS_setns(own, 0); SYS_setns(init, libc::CLONE_NEWNS))
        }
        EscapeAttempt::Mount => {
            // Over a separate directory, so that success would hide nothing else.
            let _ = std::fs::create_dir_all("/tmp/forge-probe-mount");
            let (tmpfs, place) = (c"tmpfs", c"/tmp/forge-probe-mount");
            refused!(
                SYS_mount(tmpfs, place, tmpfs);
                SYS_mount(c"/", place, tmpfs, 4096);
                SYS_mount(c"/proc", place, c"proc")
            )
        }
        // Asks to expire it: the permission check is the same, and a mount in use stays.
        EscapeAttempt::UmountProc => refused!(SYS_umount2(c"/proc", libc::MNT_EXPIRE)),
        EscapeAttempt::UmountCover(path) => refused!(SYS_umount2(path.as_c_str(), libc::MNT_EXPIRE)),
        EscapeAttempt::Fsopen => refused!(SYS_fsopen(c"tmpfs", 0); SYS_fspick(CURRENT_DIR_FD, c"/", 0)),
        EscapeAttempt::OpenTree => refused!(SYS_open_tree(CURRENT_DIR_FD, c"/", 1)),
        EscapeAttempt::MoveMount => {
            refused!(SYS_move_mount(CURRENT_DIR_FD, c"/tmp", CURRENT_DIR_FD, c"/dev", 0))
        }
        EscapeAttempt::MountSetattr => refused!(SYS_mount_setattr(CURRENT_DIR_FD, c"/", 0, room, 32)),
        EscapeAttempt::Chroot => refused!(SYS_chroot(c"/tmp")),
        EscapeAttempt::PivotRoot => refused!(SYS_pivot_root(c"/tmp", c"/tmp")),
        _ => return None,
    })
}

/// Judges a clone; a child of a clone that should have been refused ends at once.
fn judge_clone(result: Result<i64, i32>, name: &str) -> AttemptOutcome {
    if result == Ok(0) {
        forge_sys::exit_now(0);
    }
    judge_call(name, result, REFUSAL_ERRNOS)
}

fn attempt_kernel_calls(what: &EscapeAttempt) -> Option<AttemptOutcome> {
    const PTRACE_ATTACH: i32 = 16;
    const PTRACE_SEIZE: i32 = 0x4206;
    let (room, more) = (&mut [0u8; CALL_BUFFER_BYTES], &mut [0u8; CALL_BUFFER_BYTES]);
    let parent = rustix::process::getppid().map_or(1, |pid| pid.as_raw_nonzero().get());
    Some(match what {
        EscapeAttempt::Ptrace => refused!(
            SYS_ptrace(0);
            SYS_ptrace(PTRACE_ATTACH, 1);
            SYS_ptrace(PTRACE_SEIZE, parent)
        ),
        EscapeAttempt::PidfdGetfd => {
            let init = call!(SYS_pidfd_open, 1).unwrap_or(-1);
            let parent = call!(SYS_pidfd_open, parent).unwrap_or(-1);
            refused!(SYS_pidfd_getfd(init, 0); SYS_pidfd_getfd(parent, 0))
        }
        EscapeAttempt::Kcmp => {
            let own = i64::from(rustix::process::getpid().as_raw_nonzero().get());
            refused!(SYS_kcmp(1, own); SYS_kcmp(i64::from(parent), own))
        }
        EscapeAttempt::Bpf => {
            // An array of one number.
            for (at, word) in [2u32, 4, 8, 1].into_iter().enumerate() {
                room[at * 4..at * 4 + 4].copy_from_slice(&word.to_ne_bytes());
            }
            refused!(SYS_bpf(0, room, 128))
        }
        EscapeAttempt::Perf => {
            // A software clock of this process alone.
            room[..4].copy_from_slice(&1u32.to_ne_bytes());
            room[4..8].copy_from_slice(&128u32.to_ne_bytes());
            refused!(SYS_perf_event_open(room, 0, -1, -1))
        }
        EscapeAttempt::Userfaultfd => refused!(SYS_userfaultfd(0); SYS_userfaultfd(1)),
        EscapeAttempt::IoUring => refused!(
            SYS_io_uring_setup(8, room);
            SYS_io_uring_enter(0);
            SYS_io_uring_register(0)
        ),
        EscapeAttempt::AddKey => refused!(SYS_add_key(c"user", c"forge-probe", c"x", 1, -3)),
        EscapeAttempt::RequestKey => refused!(SYS_request_key(c"user", c"forge-probe")),
        EscapeAttempt::Keyctl => refused!(SYS_keyctl(0, -3); SYS_keyctl(0, -4)),
        EscapeAttempt::Fanotify => refused!(SYS_fanotify_init(0); SYS_fanotify_init(0x200)),
        EscapeAttempt::SecretMemory => refused!(SYS_memfd_secret(0)),
        EscapeAttempt::Personality => refused!(SYS_personality(0x4_0000); SYS_personality(0x40_0000)),
        EscapeAttempt::OpenByHandle => {
            room[..4].copy_from_slice(&128u32.to_ne_bytes());
            let named = refused!(SYS_name_to_handle_at(CURRENT_DIR_FD, c"/workspace", &mut *room, more, 0));
            // An ext4 handle of the root directory: eight bytes, inode 2.
            room.fill(0);
            for (at, word) in [8u32, 1, 2, 0].into_iter().enumerate() {
                room[at * 4..at * 4 + 4].copy_from_slice(&word.to_ne_bytes());
            }
            AttemptOutcome::worst([named, refused!(SYS_open_by_handle_at(CURRENT_DIR_FD, room, 0))])
        }
        _ => return None,
    })
}

/// Attempts on device nodes and limits.
fn attempt_nodes_and_limits(what: &EscapeAttempt) -> Option<AttemptOutcome> {
    let (room, more) = (&mut [0u8; CALL_BUFFER_BYTES], &mut [0u8; CALL_BUFFER_BYTES]);
    Some(match what {
        EscapeAttempt::MakeDevice => {
            AttemptOutcome::worst([c"/workspace/node", c"/tmp/node", c"/dev/shm/node"].map(|place| {
                // The null device, the first disk, and device 0 of overlays.
                refused!(
                    SYS_mknodat(CURRENT_DIR_FD, place, 0o020_666, 0x103);
                    SYS_mknodat(CURRENT_DIR_FD, place, 0o060_666, 0xFE00);
                    SYS_mknodat(CURRENT_DIR_FD, place, 0o020_666, 0)
                )
            }))
        }
        EscapeAttempt::MakeWhiteout => {
            let places = [
                (c"/workspace/forge-probe-whiteout", c"/workspace/forge-probe-renamed"),
                (c"/tmp/forge-probe-whiteout", c"/tmp/forge-probe-renamed"),
            ];
            AttemptOutcome::worst(places.map(|(from, to)| {
                const RENAME_WHITEOUT: i32 = 4;
                let made = call!(SYS_mknodat, CURRENT_DIR_FD, from, 0o100_644);
                let outcome = match made {
                    Ok(_) => {
                        refused!(SYS_renameat2(CURRENT_DIR_FD, from, CURRENT_DIR_FD, to, RENAME_WHITEOUT))
                    }
                    Err(errno) => AttemptOutcome::Untested(errno_text(errno)),
                };
                for left in [from, to] {
                    let _ = call!(SYS_unlinkat, CURRENT_DIR_FD, left, 0);
                }
                outcome
            }))
        }
        EscapeAttempt::SetMark => {
            const RLIMIT_RTTIME: i32 = 15;
            refused!(SYS_prlimit64(0, RLIMIT_RTTIME, &mut *room, 0); SYS_prlimit64(0, RLIMIT_RTTIME, &mut *room, 0, 0, 0))
        }
        EscapeAttempt::LimitsOfInit => refused!(
            SYS_prlimit64(1, 7, 0, room);
            SYS_sched_setaffinity(1, 8, more);
            SYS_setpriority(0, 1, 19)
        ),
        _ => return None,
    })
}

/// Attempts on the administrator's calls. Magic numbers are wrong and times are the present one, so that a call which
/// passes the permission check still changes nothing.
fn attempt_admin_calls(what: &EscapeAttempt) -> Option<AttemptOutcome> {
    let room = &mut [0u8; CALL_BUFFER_BYTES];
    Some(match what {
        EscapeAttempt::LoadModule => refused!(
            SYS_init_module(0, 0, c"");
            SYS_finit_module(-1, c"");
            SYS_delete_module(c"forge-probe-no-such-module")
        ),
        #[cfg(target_arch = "x86_64")]
        EscapeAttempt::Kexec => {
            refused!(SYS_kexec_load(0, 0, 0, -1); SYS_kexec_file_load(-1, -1, 0, c"", -1))
        }
        #[cfg(not(target_arch = "x86_64"))]
        EscapeAttempt::Kexec => refused!(SYS_kexec_load(0, 0, 0, -1)),
        EscapeAttempt::Reboot => refused!(SYS_reboot(1, 2, 3)),
        EscapeAttempt::Syslog => refused!(SYS_syslog(3, room, 64); SYS_syslog(8, 0, 1)),
        EscapeAttempt::SetClock => {
            let _ = call!(SYS_clock_gettime, 0, &mut *room);
            let clock = refused!(SYS_clock_settime(0, &mut *room));
            let (seconds, rest) =
                (i64::from_ne_bytes(read_word(room, 0)), i64::from_ne_bytes(read_word(room, 8)));
            room[..8].copy_from_slice(&seconds.to_ne_bytes());
            room[8..16].copy_from_slice(&(rest / 1000).to_ne_bytes());
            AttemptOutcome::worst([clock, refused!(SYS_settimeofday(room, 0))])
        }
        EscapeAttempt::Swap => {
            refused!(SYS_swapon(c"/tmp/forge-probe-none", 0); SYS_swapoff(c"/tmp/forge-probe-none"))
        }
        EscapeAttempt::SetHostname => {
            refused!(SYS_sethostname(c"escaped", 7); SYS_setdomainname(c"escaped", 7))
        }
        EscapeAttempt::Accounting => {
            refused!(SYS_acct(c"/tmp/forge-probe-none"); SYS_quotactl(0x80_0003, c"/dev/vda", 0, room))
        }
        #[cfg(target_arch = "x86_64")]
        EscapeAttempt::IoPorts => refused!(SYS_iopl(3); SYS_ioperm(0x80, 1, 1)),
        #[cfg(not(target_arch = "x86_64"))]
        EscapeAttempt::IoPorts => AttemptOutcome::NotApplicable("this processor has no I/O ports".to_owned()),
        EscapeAttempt::GainCapability => {
            // Version 3 of the call: a header of two words, then two records of three.
            let head = &mut [0u8; CALL_BUFFER_BYTES];
            head[..4].copy_from_slice(&0x2008_0522_u32.to_ne_bytes());
            room[..24].fill(0xFF);
            refused!(SYS_capset(head, room))
        }
        _ => return None,
    })
}

fn read_word(room: &[u8; CALL_BUFFER_BYTES], at: usize) -> [u8; 8] {
    std::array::from_fn(|byte| room[at + byte])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_refusal_is_a_refusal() {
        assert!(matches!(judge_call("x", Err(libc::EPERM), REFUSAL_ERRNOS), AttemptOutcome::Passed(_)));
        assert!(matches!(judge_call("x", Err(libc::EINVAL), REFUSAL_ERRNOS), AttemptOutcome::Failed(_)));
        assert!(matches!(judge_call("x", Ok(0), REFUSAL_ERRNOS), AttemptOutcome::Failed(_)));
        let worst = AttemptOutcome::worst([
            AttemptOutcome::Passed("a".to_owned()),
            AttemptOutcome::Failed("b".to_owned()),
        ]);
        assert_eq!(worst, AttemptOutcome::Failed("b".to_owned()));
        assert!(matches!(AttemptOutcome::worst([]), AttemptOutcome::Untested(_)));
    }
}
