//! Attempts to leave a box, made from inside: each a system call that must be refused there.
//!
//! The attempts are a closed list: nobody can make an arbitrary call through this module. Each is made so that its
//! success would do as little as possible (a wrong magic number, the present time), and should be made in a process
//! of its own ([`in_child`]), because some successes change the caller for good. [`host`] makes the other side: things
//! of the host that no attempt may reach.

mod child;
pub mod host;
mod isolation;
mod memory;
mod syscalls;
mod terminal;

use serde::{Deserialize, Serialize};
use std::os::fd::RawFd;

pub use isolation::share_memory;

pub use child::{
    ChildEnd, daemonize, end_children, fork_bomb, fork_each, fork_until_refused, ignore_term, in_child,
    obscure_process, reap_one, replace_streams,
};

/// What became of an attempt, or of something that must work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state", content = "detail")]
pub enum AttemptOutcome {
    /// It was refused as it must be (or works, where it must work); in words, how.
    Passed(String),
    /// It succeeded, or the kernel did more than refuse it; in words, what it could do.
    Failed(String),
    /// There is nothing here to try it on; in words, what is not there.
    NotApplicable(String),
    /// It could not be found out; in words, why. Never as good as [`Outcome::Held`].
    Untested(String),
}

impl AttemptOutcome {
    /// The words.
    #[must_use]
    pub fn detail(&self) -> &str {
        let (Self::Passed(text) | Self::Failed(text) | Self::NotApplicable(text) | Self::Untested(text)) =
            self;
        text
    }

    /// The first of several that did not hold, or the last.
    #[must_use]
    pub fn worst(outcomes: impl IntoIterator<Item = Self>) -> Self {
        let mut last = Self::Untested("nothing was tried".to_owned());
        for outcome in outcomes {
            if !matches!(outcome, Self::Passed(_)) {
                return outcome;
            }
            last = outcome;
        }
        last
    }
}

/// One attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are those of the system calls or of what is tried")]
pub enum EscapeAttempt {
    UnshareUser,
    UnshareMount,
    UnshareOthers,
    CloneNewUser,
    Clone3NewUser,
    Setns,
    Mount,
    UmountProc,
    /// Takes the cover off a masked file.
    UmountCover(std::ffi::CString),
    Fsopen,
    OpenTree,
    MoveMount,
    MountSetattr,
    Chroot,
    PivotRoot,
    OpenByHandle,
    MakeDevice,
    /// Leaves a device's node behind by renaming a file.
    MakeWhiteout,
    /// Sets the limit by which the init tells commands apart.
    SetMark,
    Ptrace,
    ProcessVmRead,
    ProcessVmWrite,
    PidfdGetfd,
    Kcmp,
    Bpf,
    Perf,
    Userfaultfd,
    IoUring,
    AddKey,
    RequestKey,
    Keyctl,
    LoadModule,
    Kexec,
    Reboot,
    Syslog,
    SetClock,
    Personality,
    Swap,
    SetHostname,
    Fanotify,
    SecretMemory,
    Accounting,
    IoPorts,
    LimitsOfInit,
    ThirtyTwoBitCalls,
    X32Calls,
    TypeIntoTerminal,
    ControllingTerminal,
    RawSocket,
    PacketSocket,
    NetlinkSocket,
    VsockSocket,
    OtherSockets,
    OtherProtocols,
    BecomeRoot,
    GainCapability,
    /// Finds the shared memory with this key.
    SharedMemory(i32),
    /// Finds the message queue with this key.
    MessageQueue(i32),
    /// Opens the POSIX message queue of this name.
    PosixQueue(String),
    /// Sends TERM to this process id of the host, and 0 to its neighbours.
    SignalHost(i32),
    /// Sends signals to the init.
    SignalInit,
    /// Walks out through these descriptors.
    LeaveByFolder(Vec<RawFd>),
    /// Writes through `/proc/self/mem` over a read-only map of a file.
    MemoryOverReadOnlyMap,
    /// Counts Landlock's layers.
    LandlockInForce,
}

/// Makes the attempt. Some leave the process changed if they succeed: see [`in_child`].
#[must_use]
pub fn make_attempt(what: &EscapeAttempt) -> AttemptOutcome {
    use EscapeAttempt as A;
    match what {
        A::ThirtyTwoBitCalls => isolation::thirty_two_bit_calls(),
        A::X32Calls => isolation::x32_calls(),
        A::TypeIntoTerminal => terminal::type_into_terminal(),
        A::ControllingTerminal => terminal::open_controlling(),
        A::SignalHost(pid) => isolation::signal_host(*pid),
        A::SignalInit => isolation::signal_init(),
        A::LeaveByFolder(fds) => isolation::leave_by_directory(fds),
        A::MemoryOverReadOnlyMap => memory::write_read_only_map(),
        A::LandlockInForce => isolation::landlock_in_force(),
        A::BecomeRoot => isolation::become_root(),
        A::SharedMemory(key) => isolation::find_ipc("shared memory", libc::SYS_shmget, *key),
        A::MessageQueue(key) => isolation::find_ipc("message queue", libc::SYS_msgget, *key),
        A::PosixQueue(name) => isolation::find_posix_queue(name),
        A::ProcessVmRead => memory::access_other_memory(libc::SYS_process_vm_readv),
        A::ProcessVmWrite => memory::access_other_memory(libc::SYS_process_vm_writev),
        A::VsockSocket => isolation::open_sockets(&[libc::AF_VSOCK]),
        A::NetlinkSocket => isolation::open_sockets(&[libc::AF_NETLINK]),
        A::PacketSocket => isolation::open_sockets(&[libc::AF_PACKET]),
        A::RawSocket => isolation::open_raw_sockets(),
        A::OtherSockets => isolation::open_sockets(isolation::OTHER_FAMILIES),
        A::OtherProtocols => isolation::open_other_protocols(),
        other => syscalls::attempt_call(other),
    }
}

/// Executes a file by a descriptor and a path at once. If that works, this process is that program.
#[must_use]
pub fn execute_at(path: &std::ffi::CStr) -> AttemptOutcome {
    syscalls::judge_call(
        "execveat",
        syscalls::call!(SYS_execveat, libc::AT_FDCWD, path, 0, 0, 0),
        syscalls::REFUSAL_ERRNOS,
    )
}

/// The version of Landlock this kernel speaks; 0 when it has none.
#[must_use]
pub fn landlock_abi() -> u32 {
    forge_sys::landlock_abi()
}
