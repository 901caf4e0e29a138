//! Attempts that are nothing but system calls.

use super::{Attempt, Outcome};
use std::ffi::CStr;
use std::os::fd::AsRawFd as _;

/// Room for whatever a call of this file writes: each writes a structure or a few dozen bytes.
const ROOM: usize = 4096;

/// An argument of a call.
pub(super) enum Arg<'a> {
    /// A number, a flag, a descriptor.
    Number(i64),
    /// A path or name.
    Text(&'a CStr),
    /// A structure, or room for one; at least [`ROOM`] bytes.
    Room(&'a mut [u8; ROOM]),
}

impl From<i32> for Arg<'_> {
    fn from(number: i32) -> Self {
        Self::Number(number.into())
    }
}

impl From<i64> for Arg<'_> {
    fn from(number: i64) -> Self {
        Self::Number(number)
    }
}

impl<'a> From<&'a CStr> for Arg<'a> {
    fn from(text: &'a CStr) -> Self {
        Self::Text(text)
    }
}

impl<'a> From<&'a mut [u8; ROOM]> for Arg<'a> {
    fn from(room: &'a mut [u8; ROOM]) -> Self {
        Self::Room(room)
    }
}

/// A raw system call: its result, or the error number.
///
/// Only for calls that take integers, C strings and structures below [`ROOM`] bytes that hold no pointers of their own
/// (or none that the kernel writes through).
pub(super) fn raw_call(number: libc::c_long, arguments: [Arg<'_>; 6]) -> Result<i64, i32> {
    let words = arguments.map(|argument| match argument {
        Arg::Number(number) => number,
        Arg::Text(text) => text.as_ptr().expose_provenance() as i64,
        Arg::Room(room) => room.as_mut_ptr().expose_provenance() as i64,
    });
    // SAFETY: pointers among the words come from borrows that live across the call: C strings end with NUL, rooms are
    // larger than any structure that the calls of this module read or write. The calls are a fixed list of this
    // module, made in a process of one thread; none of them changes memory other than the rooms.
    let result = unsafe { libc::syscall(number, words[0], words[1], words[2], words[3], words[4], words[5]) };
    if result == -1 { Err(std::io::Error::last_os_error().raw_os_error().unwrap_or(0)) } else { Ok(result) }
}

/// A call with fewer than six arguments; what is left over is zero.
macro_rules! call {
    ($number:ident $(, $argument:expr)*) => {
        $crate::attempts::calls::raw_call(libc::$number, $crate::attempts::calls::padded([$($crate::attempts::calls::Arg::from($argument)),*]))
    };
}
pub(super) use call;

pub(super) fn padded<const N: usize>(given: [Arg<'_>; N]) -> [Arg<'_>; 6] {
    let mut given = given.into_iter();
    std::array::from_fn(|_| given.next().unwrap_or(Arg::Number(0)))
}

/// What counts as a refusal: the kernel or the filter said no before it looked at what was asked.
pub(super) const REFUSALS: &[i32] = &[libc::EPERM, libc::EACCES, libc::ENOSYS];

pub(super) fn judged(name: &str, result: Result<i64, i32>, refusals: &[i32]) -> Outcome {
    match result {
        Err(errno) if refusals.contains(&errno) => Outcome::Held(format!("{name}: {}", said(errno))),
        Err(errno) => Outcome::Broke(format!("{name} was not refused but failed: {}", said(errno))),
        Ok(value) => Outcome::Broke(format!("{name} worked (returned {value})")),
    }
}

/// An error number in words.
pub(super) fn said(errno: i32) -> String {
    std::io::Error::from_raw_os_error(errno).to_string()
}

/// Every call of the list must be refused.
macro_rules! refused {
    ($($number:ident ( $($argument:expr),* $(,)? ));+ $(;)?) => {
        Outcome::worst([$(judged(
            stringify!($number).trim_start_matches("SYS_"),
            call!($number $(, $argument)*),
            REFUSALS,
        )),+])
    };
}

pub(super) fn attempt(what: &Attempt) -> Outcome {
    let outcome = namespaces(what)
        .or_else(|| kernel(what))
        .or_else(|| nodes_and_limits(what))
        .or_else(|| machine(what));
    outcome.unwrap_or_else(|| Outcome::Untested("there is no such call on this processor".to_owned()))
}

const HERE: i32 = libc::AT_FDCWD;

fn namespaces(what: &Attempt) -> Option<Outcome> {
    let room = &mut [0u8; ROOM];
    Some(match what {
        Attempt::UnshareUser => refused!(SYS_unshare(libc::CLONE_NEWUSER)),
        Attempt::UnshareMount => refused!(SYS_unshare(libc::CLONE_NEWNS)),
        Attempt::UnshareOthers => Outcome::worst(
            [
                libc::CLONE_NEWNET,
                libc::CLONE_NEWPID,
                libc::CLONE_NEWUTS,
                libc::CLONE_NEWIPC,
                libc::CLONE_NEWCGROUP,
            ]
            .map(|flag| refused!(SYS_unshare(flag))),
        ),
        Attempt::CloneNewUser => {
            cloned(call!(SYS_clone, libc::CLONE_NEWUSER | libc::SIGCHLD), "clone with a new user namespace")
        }
        Attempt::Clone3NewUser => {
            // struct clone_args: flags first, the exit signal fifth; 88 bytes in its third version.
            room[..8].copy_from_slice(&i64::from(libc::CLONE_NEWUSER).to_ne_bytes());
            room[32..40].copy_from_slice(&i64::from(libc::SIGCHLD).to_ne_bytes());
            cloned(call!(SYS_clone3, room, 88), "clone3 with a new user namespace")
        }
        Attempt::Setns => {
            let own = std::fs::File::open("/proc/self/ns/net");
            let init = call!(SYS_pidfd_open, 1).unwrap_or(-1);
            let own = own.as_ref().map_or(-1, |file| file.as_raw_fd());
            refused!(SYS_setns(own, 0); SYS_setns(init, libc::CLONE_NEWNS))
        }
        Attempt::Mount => {
            // Over a folder of its own: if it worked nothing else would be hidden.
            let _ = std::fs::create_dir_all("/tmp/forge-probe-mount");
            let (tmpfs, place) = (c"tmpfs", c"/tmp/forge-probe-mount");
            refused!(
                SYS_mount(tmpfs, place, tmpfs);
                SYS_mount(c"/", place, tmpfs, 4096);
                SYS_mount(c"/proc", place, c"proc")
            )
        }
        // Asks to expire it: allowed or not is answered in the same way, and a mount in use stays.
        Attempt::UmountProc => refused!(SYS_umount2(c"/proc", libc::MNT_EXPIRE)),
        Attempt::UmountCover(path) => refused!(SYS_umount2(path.as_c_str(), libc::MNT_EXPIRE)),
        Attempt::Fsopen => refused!(SYS_fsopen(c"tmpfs", 0); SYS_fspick(HERE, c"/", 0)),
        Attempt::OpenTree => refused!(SYS_open_tree(HERE, c"/", 1)),
        Attempt::MoveMount => refused!(SYS_move_mount(HERE, c"/tmp", HERE, c"/dev", 0)),
        Attempt::MountSetattr => refused!(SYS_mount_setattr(HERE, c"/", 0, room, 32)),
        Attempt::Chroot => refused!(SYS_chroot(c"/tmp")),
        Attempt::PivotRoot => refused!(SYS_pivot_root(c"/tmp", c"/tmp")),
        _ => return None,
    })
}

/// The child of a clone that should not have worked ends at once.
fn cloned(result: Result<i64, i32>, name: &str) -> Outcome {
    if result == Ok(0) {
        forge_sys::exit_now(0);
    }
    judged(name, result, REFUSALS)
}

fn kernel(what: &Attempt) -> Option<Outcome> {
    const ATTACH: i32 = 16;
    const SEIZE: i32 = 0x4206;
    let (room, more) = (&mut [0u8; ROOM], &mut [0u8; ROOM]);
    let parent = rustix::process::getppid().map_or(1, |pid| pid.as_raw_nonzero().get());
    Some(match what {
        Attempt::Ptrace => refused!(
            SYS_ptrace(0);
            SYS_ptrace(ATTACH, 1);
            SYS_ptrace(SEIZE, parent)
        ),
        Attempt::PidfdGetfd => {
            let init = call!(SYS_pidfd_open, 1).unwrap_or(-1);
            let parent = call!(SYS_pidfd_open, parent).unwrap_or(-1);
            refused!(SYS_pidfd_getfd(init, 0); SYS_pidfd_getfd(parent, 0))
        }
        Attempt::Kcmp => {
            let own = i64::from(rustix::process::getpid().as_raw_nonzero().get());
            refused!(SYS_kcmp(1, own); SYS_kcmp(i64::from(parent), own))
        }
        Attempt::Bpf => {
            // An array of one number.
            for (at, word) in [2u32, 4, 8, 1].into_iter().enumerate() {
                room[at * 4..at * 4 + 4].copy_from_slice(&word.to_ne_bytes());
            }
            refused!(SYS_bpf(0, room, 128))
        }
        Attempt::Perf => {
            // A software clock, of this process alone.
            room[..4].copy_from_slice(&1u32.to_ne_bytes());
            room[4..8].copy_from_slice(&128u32.to_ne_bytes());
            refused!(SYS_perf_event_open(room, 0, -1, -1))
        }
        Attempt::Userfaultfd => refused!(SYS_userfaultfd(0); SYS_userfaultfd(1)),
        Attempt::IoUring => refused!(
            SYS_io_uring_setup(8, room);
            SYS_io_uring_enter(0);
            SYS_io_uring_register(0)
        ),
        Attempt::AddKey => refused!(SYS_add_key(c"user", c"forge-probe", c"x", 1, -3)),
        Attempt::RequestKey => refused!(SYS_request_key(c"user", c"forge-probe")),
        Attempt::Keyctl => refused!(SYS_keyctl(0, -3); SYS_keyctl(0, -4)),
        Attempt::Fanotify => refused!(SYS_fanotify_init(0); SYS_fanotify_init(0x200)),
        Attempt::SecretMemory => refused!(SYS_memfd_secret(0)),
        Attempt::Personality => refused!(SYS_personality(0x4_0000); SYS_personality(0x40_0000)),
        Attempt::OpenByHandle => {
            room[..4].copy_from_slice(&128u32.to_ne_bytes());
            let named = refused!(SYS_name_to_handle_at(HERE, c"/workspace", &mut *room, more, 0));
            // A handle as ext4 writes it, of the root folder: eight bytes, inode 2.
            room.fill(0);
            for (at, word) in [8u32, 1, 2, 0].into_iter().enumerate() {
                room[at * 4..at * 4 + 4].copy_from_slice(&word.to_ne_bytes());
            }
            Outcome::worst([named, refused!(SYS_open_by_handle_at(HERE, room, 0))])
        }
        _ => return None,
    })
}

/// Devices' nodes, and limits.
fn nodes_and_limits(what: &Attempt) -> Option<Outcome> {
    let (room, more) = (&mut [0u8; ROOM], &mut [0u8; ROOM]);
    Some(match what {
        Attempt::MakeDevice => {
            Outcome::worst([c"/workspace/node", c"/tmp/node", c"/dev/shm/node"].map(|place| {
                // The null device, the first disk, and device 0 of overlays.
                refused!(
                    SYS_mknodat(HERE, place, 0o020_666, 0x103);
                    SYS_mknodat(HERE, place, 0o060_666, 0xFE00);
                    SYS_mknodat(HERE, place, 0o020_666, 0)
                )
            }))
        }
        Attempt::MakeWhiteout => {
            let places = [
                (c"/workspace/forge-probe-whiteout", c"/workspace/forge-probe-renamed"),
                (c"/tmp/forge-probe-whiteout", c"/tmp/forge-probe-renamed"),
            ];
            Outcome::worst(places.map(|(from, to)| {
                const WHITEOUT: i32 = 4;
                let made = call!(SYS_mknodat, HERE, from, 0o100_644);
                let outcome = match made {
                    Ok(_) => refused!(SYS_renameat2(HERE, from, HERE, to, WHITEOUT)),
                    Err(errno) => Outcome::Untested(said(errno)),
                };
                for left in [from, to] {
                    let _ = call!(SYS_unlinkat, HERE, left, 0);
                }
                outcome
            }))
        }
        Attempt::SetMark => {
            const REAL_TIME: i32 = 15;
            refused!(SYS_prlimit64(0, REAL_TIME, &mut *room, 0); SYS_prlimit64(0, REAL_TIME, &mut *room, 0, 0, 0))
        }
        Attempt::LimitsOfInit => refused!(
            SYS_prlimit64(1, 7, 0, room);
            SYS_sched_setaffinity(1, 8, more);
            SYS_setpriority(0, 1, 19)
        ),
        _ => return None,
    })
}

/// What belongs to the administrator. Magic numbers are wrong and times are the present one, so that a call which
/// came past the check still changes nothing.
fn machine(what: &Attempt) -> Option<Outcome> {
    let room = &mut [0u8; ROOM];
    Some(match what {
        Attempt::LoadModule => refused!(
            SYS_init_module(0, 0, c"");
            SYS_finit_module(-1, c"");
            SYS_delete_module(c"forge-probe-no-such-module")
        ),
        #[cfg(target_arch = "x86_64")]
        Attempt::Kexec => refused!(SYS_kexec_load(0, 0, 0, -1); SYS_kexec_file_load(-1, -1, 0, c"", -1)),
        #[cfg(not(target_arch = "x86_64"))]
        Attempt::Kexec => refused!(SYS_kexec_load(0, 0, 0, -1)),
        Attempt::Reboot => refused!(SYS_reboot(1, 2, 3)),
        Attempt::Syslog => refused!(SYS_syslog(3, room, 64); SYS_syslog(8, 0, 1)),
        Attempt::SetClock => {
            let _ = call!(SYS_clock_gettime, 0, &mut *room);
            let clock = refused!(SYS_clock_settime(0, &mut *room));
            let (seconds, rest) = (i64::from_ne_bytes(first(room, 0)), i64::from_ne_bytes(first(room, 8)));
            room[..8].copy_from_slice(&seconds.to_ne_bytes());
            room[8..16].copy_from_slice(&(rest / 1000).to_ne_bytes());
            Outcome::worst([clock, refused!(SYS_settimeofday(room, 0))])
        }
        Attempt::Swap => {
            refused!(SYS_swapon(c"/tmp/forge-probe-none", 0); SYS_swapoff(c"/tmp/forge-probe-none"))
        }
        Attempt::SetHostname => refused!(SYS_sethostname(c"escaped", 7); SYS_setdomainname(c"escaped", 7)),
        Attempt::Accounting => {
            refused!(SYS_acct(c"/tmp/forge-probe-none"); SYS_quotactl(0x80_0003, c"/dev/vda", 0, room))
        }
        #[cfg(target_arch = "x86_64")]
        Attempt::IoPorts => refused!(SYS_iopl(3); SYS_ioperm(0x80, 1, 1)),
        #[cfg(not(target_arch = "x86_64"))]
        Attempt::IoPorts => Outcome::Absent("this processor has no I/O ports".to_owned()),
        Attempt::GainCapability => {
            // Version 3 of the call: a header of two words, then two records of three.
            let head = &mut [0u8; ROOM];
            head[..4].copy_from_slice(&0x2008_0522_u32.to_ne_bytes());
            room[..24].fill(0xFF);
            refused!(SYS_capset(head, room))
        }
        _ => return None,
    })
}

fn first(room: &[u8; ROOM], at: usize) -> [u8; 8] {
    std::array::from_fn(|byte| room[at + byte])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_refusal_is_a_refusal() {
        assert!(matches!(judged("x", Err(libc::EPERM), REFUSALS), Outcome::Held(_)));
        assert!(matches!(judged("x", Err(libc::EINVAL), REFUSALS), Outcome::Broke(_)));
        assert!(matches!(judged("x", Ok(0), REFUSALS), Outcome::Broke(_)));
        let worst = Outcome::worst([Outcome::Held("a".to_owned()), Outcome::Broke("b".to_owned())]);
        assert_eq!(worst, Outcome::Broke("b".to_owned()));
        assert!(matches!(Outcome::worst([]), Outcome::Untested(_)));
    }
}
