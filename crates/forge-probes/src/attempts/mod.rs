//! Attempts to escape from a sandbox, made inside it: system calls that must be refused there.
//!
//! The attempts are a closed list, so this module cannot be used to make arbitrary calls. Each is designed to have as
//! little effect as possible if it succeeds (a wrong magic number, the present time), and should be made in a separate
//! process ([`in_child`]) because some successes change the caller permanently. [`host`] creates the counterpart:
//! objects of the host that no attempt may reach.

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

/// The result of an attempt, or of an operation that must work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state", content = "detail")]
pub enum AttemptOutcome {
    /// The attempt was refused, or the operation works, as required; with a description.
    Passed(String),
    /// The attempt succeeded, or the kernel did more than refuse it; with a description of the effect.
    Failed(String),
    /// The attempt is not possible here; with a description of what is missing.
    NotApplicable(String),
    /// The result could not be determined; with the reason. Never as good as [`AttemptOutcome::Passed`].
    Untested(String),
}

impl AttemptOutcome {
    /// Returns the description.
    #[must_use]
    pub fn detail(&self) -> &str {
        let (Self::Passed(text) | Self::Failed(text) | Self::NotApplicable(text) | Self::Untested(text)) =
            self;
        text
    }

    /// Returns the first outcome that is not passed, or the last one.
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

/// An attempt.
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
    /// Unmounts the mask of a masked file.
    UmountCover(std::ffi::CString),
    Fsopen,
    OpenTree,
    MoveMount,
    MountSetattr,
    Chroot,
    PivotRoot,
    OpenByHandle,
    MakeDevice,
    /// Creates a device node by renaming a file with a whiteout.
    MakeWhiteout,
    /// Sets the limit by which the init distinguishes commands.
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
    /// Opens the POSIX message queue with this name.
    PosixQueue(String),
    /// Sends TERM and 0 to the process with this ID on the host.
    SignalHost(i32),
    /// Sends signals to the init.
    SignalInit,
    /// Leaves the sandbox through these descriptors.
    LeaveByFolder(Vec<RawFd>),
    /// Writes through `/proc/self/mem` over a read-only map of a file.
    MemoryOverReadOnlyMap,
    /// Counts Landlock's layers.
    LandlockInForce,
}

/// Makes the attempt. Some change the process if they succeed: see [`in_child`].
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

/// Executes a file given by both a descriptor and a path. If that succeeds, the program replaces this process.
#[must_use]
pub fn execute_at(path: &std::ffi::CStr) -> AttemptOutcome {
    syscalls::judge_call(
        "execveat",
        syscalls::call!(SYS_execveat, libc::AT_FDCWD, path, 0, 0, 0),
        syscalls::REFUSAL_ERRNOS,
    )
}

/// Returns the Landlock version of this kernel; 0 if it has none.
#[must_use]
pub fn landlock_abi() -> u32 {
    forge_sys::landlock_abi()
}
