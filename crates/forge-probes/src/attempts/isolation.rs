//! Attempts on the isolation layers themselves: other architectures' calls, sockets, signals, identities, Landlock's
//! own state.

use super::AttemptOutcome;
use super::syscalls::{REFUSAL_ERRNOS, SyscallArg, call, errno_text, judge_call, pad_args};
use forge_sys as sys;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, RawFd};

/// Makes a call of the 32-bit table, in which numbers have other meanings than the filter assumes. The filter kills the
/// process.
#[cfg(target_arch = "x86_64")]
pub(super) fn thirty_two_bit_calls() -> AttemptOutcome {
    const SYS_GETPID_32: i32 = 20;
    let mut result = SYS_GETPID_32;
    // SAFETY: the 32-bit getpid takes no arguments and touches no memory; the kernel keeps all registers but eax and,
    // in some versions, r8 to r11, which are declared as lost.
    unsafe {
        std::arch::asm!("int 0x80", inlateout("eax") result, out("r8") _, out("r9") _, out("r10") _, out("r11") _);
    }
    if result > 0 {
        AttemptOutcome::Failed("a 32-bit call was executed".to_owned())
    } else {
        judge_call("int 0x80", Err(-result), REFUSAL_ERRNOS)
    }
}

/// Other processors' kernels have no second call table that a running program could use.
#[cfg(not(target_arch = "x86_64"))]
pub(super) fn thirty_two_bit_calls() -> AttemptOutcome {
    AttemptOutcome::NotApplicable("this processor has no such instruction".to_owned())
}

/// Makes a call with the bit of the x32 table.
#[cfg(target_arch = "x86_64")]
pub(super) fn x32_calls() -> AttemptOutcome {
    const X32_SYSCALL_BIT: libc::c_long = 0x4000_0000;
    let zero = || pad_args::<0>([]);
    let result = super::syscalls::raw_syscall(X32_SYSCALL_BIT | libc::SYS_getpid, zero());
    judge_call("x32 getpid", result, REFUSAL_ERRNOS)
}

/// Only x86-64 has the x32 table.
#[cfg(not(target_arch = "x86_64"))]
pub(super) fn x32_calls() -> AttemptOutcome {
    AttemptOutcome::NotApplicable("this processor has no such calls".to_owned())
}

/// Socket families without an attempt of their own: Bluetooth, CAN, algorithms, IEEE 802.15.4, XDP, TIPC, key, NFC, and
/// others that a build never needs.
pub(super) const OTHER_FAMILIES: &[i32] = &[
    libc::AF_BLUETOOTH,
    libc::AF_CAN,
    libc::AF_ALG,
    36,
    libc::AF_XDP,
    libc::AF_TIPC,
    libc::AF_KEY,
    libc::AF_NFC,
    libc::AF_RDS,
    libc::AF_PPPOX,
    41,
    42,
    43,
];

/// Opens sockets of these families, of every type.
pub(super) fn open_sockets(families: &[i32]) -> AttemptOutcome {
    const SOCKET_REFUSAL_ERRNOS: &[i32] = &[
        libc::EPERM,
        libc::EACCES,
        libc::ENOSYS,
        libc::EAFNOSUPPORT,
        libc::EPROTONOSUPPORT,
        libc::ESOCKTNOSUPPORT,
    ];
    let kinds = [libc::SOCK_STREAM, libc::SOCK_DGRAM, libc::SOCK_RAW, libc::SOCK_SEQPACKET];
    let each = families.iter().flat_map(|family| kinds.map(|kind| (*family, kind)));
    AttemptOutcome::worst(each.map(|(family, kind)| {
        let name = format!("socket of family {family} and kind {kind}");
        judge_call(&name, call!(SYS_socket, family, kind), SOCKET_REFUSAL_ERRNOS)
    }))
}

/// Protocols that few kernels support and that load modules where they do: DCCP, L2TP, SCTP, UDP-Lite, SMC, MPTCP.
const OTHER_PROTOCOLS: [i32; 6] = [33, 115, 132, 136, 256, 262];

/// Opens internet sockets of these protocols.
pub(super) fn open_other_protocols() -> AttemptOutcome {
    const PROTOCOL_REFUSAL_ERRNOS: &[i32] =
        &[libc::EPERM, libc::EPROTONOSUPPORT, libc::ESOCKTNOSUPPORT, libc::EAFNOSUPPORT];
    let kinds = [libc::SOCK_STREAM, libc::SOCK_DGRAM, libc::SOCK_SEQPACKET];
    let families = [libc::AF_INET, libc::AF_INET6];
    let each = OTHER_PROTOCOLS.into_iter().flat_map(|p| families.map(|f| (f, p)));
    let each = each.flat_map(|(family, protocol)| kinds.map(|kind| (family, kind, protocol)));
    AttemptOutcome::worst(each.map(|(family, kind, protocol)| {
        let name = format!("socket of family {family}, kind {kind} and protocol {protocol}");
        judge_call(&name, call!(SYS_socket, family, kind, protocol), PROTOCOL_REFUSAL_ERRNOS)
    }))
}

/// Opens sockets that send hand-made packets.
pub(super) fn open_raw_sockets() -> AttemptOutcome {
    let tried = [
        (libc::AF_INET, libc::SOCK_RAW, 1),
        (libc::AF_INET, libc::SOCK_RAW, 255),
        (libc::AF_INET6, libc::SOCK_RAW, 58),
    ];
    AttemptOutcome::worst(tried.map(|(family, kind, protocol)| {
        judge_call("raw socket", call!(SYS_socket, family, kind, protocol), REFUSAL_ERRNOS)
    }))
}

/// Sends TERM to a process of the host by its host ID, and checks whether that ID exists.
pub(super) fn signal_host(pid: i32) -> AttemptOutcome {
    AttemptOutcome::worst([(pid, libc::SIGTERM), (pid, 0)].map(|(pid, signal)| {
        match call!(SYS_kill, pid, signal) {
            Ok(_) => AttemptOutcome::Failed("a process of the host was signalled".to_owned()),
            Err(errno) => AttemptOutcome::Passed(errno_text(errno)),
        }
    }))
}

/// Sends signals to the init, which must survive; the caller checks that afterwards.
pub(super) fn signal_init() -> AttemptOutcome {
    for signal in [libc::SIGTERM, libc::SIGHUP, libc::SIGSEGV, libc::SIGSTOP, libc::SIGKILL] {
        sys::kill(1, signal);
    }
    AttemptOutcome::Passed("the init survived".to_owned())
}

/// Makes each descriptor the working directory and looks for the host's files from there.
pub(super) fn leave_by_directory(fds: &[RawFd]) -> AttemptOutcome {
    for fd in fds {
        // SAFETY: the numbers were open when this process started, which closes none of them; a number that is not
        // open any more only makes the call fail.
        let folder = unsafe { BorrowedFd::borrow_raw(*fd) };
        if rustix::process::fchdir(folder.as_fd()).is_ok() {
            return AttemptOutcome::Failed(format!("descriptor {fd} leads to a directory outside"));
        }
    }
    AttemptOutcome::Passed(format!("{} descriptors were inherited, none is a directory", fds.len()))
}

/// Tries every way to become another user or group.
pub(super) fn become_root() -> AttemptOutcome {
    let groups = [0u32; 1024];
    let mut room = [0u8; 4096];
    for (bytes, group) in room.chunks_exact_mut(4).zip(groups) {
        bytes.copy_from_slice(&group.to_ne_bytes());
    }
    let tried = [
        ("setuid", call!(SYS_setuid, 0)),
        ("setgid", call!(SYS_setgid, 0)),
        ("setresuid", call!(SYS_setresuid, 0, 0, 0)),
        ("setresgid", call!(SYS_setresgid, 0, 0, 0)),
        ("setgroups", call!(SYS_setgroups, 1, &mut room)),
        ("chown", call!(SYS_fchownat, libc::AT_FDCWD, c"/tmp", 0, 0)),
    ];
    // EINVAL: the sandbox has no such user.
    const IDENTITY_REFUSAL_ERRNOS: &[i32] =
        &[libc::EPERM, libc::EINVAL, libc::EACCES, libc::ENOSYS, libc::EROFS];
    AttemptOutcome::worst(tried.map(|(name, result)| judge_call(name, result, IDENTITY_REFUSAL_ERRNOS)))
}

/// Looks for a System V object of the host by its key.
pub(super) fn find_ipc(name: &str, number: libc::c_long, key: i32) -> AttemptOutcome {
    match super::syscalls::raw_syscall(
        number,
        pad_args([SyscallArg::from(key), SyscallArg::from(0), SyscallArg::from(0)]),
    ) {
        Ok(_) => AttemptOutcome::Failed(format!("the host's {name} was found")),
        Err(errno) if [libc::ENOENT, libc::ENOSYS, libc::EPERM].contains(&errno) => {
            AttemptOutcome::Passed(errno_text(errno))
        }
        Err(errno) => AttemptOutcome::Failed(format!("the host's {name} exists here: {}", errno_text(errno))),
    }
}

/// Creates and removes a small shared memory segment, a semaphore set and a message queue.
///
/// # Errors
/// An error of the kernel.
pub fn share_memory() -> io::Result<()> {
    const IPC_CREATE_FLAGS: i32 = 0o1600;
    let made = [
        (call!(SYS_shmget, 0, 1 << 20, IPC_CREATE_FLAGS), libc::SYS_shmctl),
        (call!(SYS_semget, 0, 10, IPC_CREATE_FLAGS), libc::SYS_semctl),
        (call!(SYS_msgget, 0, IPC_CREATE_FLAGS), libc::SYS_msgctl),
    ];
    for (id, control) in made {
        let id = id.map_err(io::Error::from_raw_os_error)?;
        let remove = [SyscallArg::from(id), SyscallArg::from(0), SyscallArg::from(libc::IPC_RMID)];
        let other = [SyscallArg::from(id), SyscallArg::from(libc::IPC_RMID), SyscallArg::from(0)];
        let arguments = if control == libc::SYS_semctl { remove } else { other };
        super::syscalls::raw_syscall(control, pad_args(arguments)).map_err(io::Error::from_raw_os_error)?;
    }
    Ok(())
}

/// Looks for a POSIX message queue of the host.
pub(super) fn find_posix_queue(name: &str) -> AttemptOutcome {
    let Ok(name) = CString::new(name) else {
        return AttemptOutcome::Untested("the name is not valid".to_owned());
    };
    match call!(SYS_mq_open, name.as_c_str(), libc::O_RDONLY) {
        Ok(_) => AttemptOutcome::Failed("the host's message queue was opened".to_owned()),
        Err(errno) if [libc::ENOENT, libc::ENOSYS, libc::EPERM].contains(&errno) => {
            AttemptOutcome::Passed(errno_text(errno))
        }
        Err(errno) => {
            AttemptOutcome::Failed(format!("the host's message queue exists here: {}", errno_text(errno)))
        }
    }
}

/// Checks indirectly whether Landlock is in force, because it cannot be queried: it allows 16 layers, so if 16 more
/// fit, there were none.
pub(super) fn landlock_in_force() -> AttemptOutcome {
    const MAX_LANDLOCK_LAYERS: usize = 16;
    const ACCESS_MAKE_BLOCK: u64 = 1 << 11;
    // A process may restrict itself with Landlock only after this promise.
    let _ = sys::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0);
    let layered = || -> io::Result<()> {
        let ruleset = sys::landlock_ruleset(ACCESS_MAKE_BLOCK, 0, 0, 1)?;
        sys::landlock_enforce(ruleset.as_fd())
    };
    for layer in 0..MAX_LANDLOCK_LAYERS {
        match layered() {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(libc::E2BIG) => {
                return AttemptOutcome::Passed(format!(
                    "in force: {} of {MAX_LANDLOCK_LAYERS} layers",
                    MAX_LANDLOCK_LAYERS - layer
                ));
            }
            // Not the version decides: where no control group counts memory, a sandbox does not tell it.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EOPNOTSUPP)) => {
                return AttemptOutcome::NotApplicable("this kernel has no Landlock".to_owned());
            }
            Err(error) => return AttemptOutcome::Untested(error.to_string()),
        }
    }
    AttemptOutcome::Failed("no Landlock layer is in force".to_owned())
}
