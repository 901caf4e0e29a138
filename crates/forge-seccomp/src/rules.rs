//! The rules: permitted and refused calls, with reasons. Calls that no rule names fail with `ENOSYS`.

use libc::{AF_INET, AF_INET6, AF_UNIX, EAFNOSUPPORT, ENOSYS, EPERM, EPROTONOSUPPORT, ESOCKTNOSUPPORT};

use super::{ArgumentTest, CallVerdict, Comparison, FixedVerdict, SyscallEntry, SyscallRule};

macro_rules! calls {
    ($($name:ident),+ $(,)?) => { &[$((stringify!($name), libc::$name)),+] };
}
pub(super) use calls;

pub(super) const fn allow(calls: &'static [SyscallEntry], why: &'static str) -> SyscallRule {
    SyscallRule { calls, verdict: CallVerdict::Allow, why }
}

pub(super) const fn refuse(calls: &'static [SyscallEntry], why: &'static str) -> SyscallRule {
    SyscallRule { calls, verdict: CallVerdict::Errno(EPERM), why }
}

pub(super) const fn refuse_if(
    calls: &'static [SyscallEntry],
    tests: &'static [ArgumentTest],
    why: &'static str,
) -> SyscallRule {
    SyscallRule { calls, verdict: CallVerdict::When(tests, FixedVerdict::Allow), why }
}

pub(super) const fn deny(arg: u32, mask: u32, is: Comparison) -> ArgumentTest {
    ArgumentTest { arg, mask, is, then: FixedVerdict::Errno(EPERM) }
}

pub(super) const ALL_BITS: u32 = u32::MAX;

/// Flags of `clone` that create a new namespace: mount, cgroup, uts, ipc, user, pid, net.
const NEW_NAMESPACE: u32 =
    0x0002_0000 | 0x0200_0000 | 0x0400_0000 | 0x0800_0000 | 0x1000_0000 | 0x2000_0000 | 0x4000_0000;

/// `renameat2` flag that leaves a character device 0:0 in place of the file.
const RENAME_WHITEOUT: u32 = 4;

/// Denies setuid and setgid among the permission bits.
pub(super) const fn no_setid_bits(arg: u32) -> ArgumentTest {
    deny(arg, 0o6000, Comparison::AnySet)
}

/// Allows an `open` with flags that create no file (neither `O_CREAT` nor `O_TMPFILE`), so that its mode is ignored.
pub(super) const fn creates_no_file(arg: u32) -> ArgumentTest {
    ArgumentTest { arg, mask: 0o100 | 0o20_000_000, is: Comparison::Equal(0), then: FixedVerdict::Allow }
}

/// Tests for permitted sockets: by family, type and protocol.
const SOCKET_TESTS: &[ArgumentTest] = &[
    ArgumentTest {
        arg: 0,
        mask: ALL_BITS,
        is: Comparison::NoneOf(&[AF_UNIX.cast_unsigned(), AF_INET.cast_unsigned(), AF_INET6.cast_unsigned()]),
        then: FixedVerdict::Errno(EAFNOSUPPORT),
    },
    // The socket type is in the low four bits; 3 is SOCK_RAW, 10 SOCK_PACKET.
    deny(1, SOCKET_KIND_MASK, Comparison::NoneOf(&[1, 2, 5])),
    ArgumentTest {
        arg: 0,
        mask: ALL_BITS,
        is: Comparison::Equal(AF_UNIX.cast_unsigned()),
        then: FixedVerdict::Allow,
    },
    // SOCK_SEQPACKET of the internet families is SCTP.
    ArgumentTest {
        arg: 1,
        mask: SOCKET_KIND_MASK,
        is: Comparison::Equal(5),
        then: FixedVerdict::Errno(ESOCKTNOSUPPORT),
    },
    // The default protocol, ICMP, TCP, UDP, ICMPv6. On this error, programs that prefer MPTCP fall back to TCP.
    ArgumentTest {
        arg: 2,
        mask: ALL_BITS,
        is: Comparison::NoneOf(&[0, 1, 6, 17, 58]),
        then: FixedVerdict::Errno(EPROTONOSUPPORT),
    },
];

/// The bits of a socket's type argument without the flags.
const SOCKET_KIND_MASK: u32 = 0xF;

/// All rules of the sandbox.
pub const JAIL_RULES: &[SyscallRule] = &[
    allow(
        calls![
            SYS_read,
            SYS_write,
            SYS_readv,
            SYS_writev,
            SYS_pread64,
            SYS_pwrite64,
            SYS_preadv,
            SYS_pwritev,
            SYS_preadv2,
            SYS_pwritev2,
            SYS_lseek,
            SYS_close,
            SYS_close_range,
            SYS_dup,
            SYS_dup3,
            SYS_fcntl,
            SYS_pipe2,
            SYS_sendfile,
            SYS_copy_file_range,
            SYS_splice,
            SYS_tee,
            SYS_vmsplice,
            SYS_readahead,
            SYS_fadvise64,
            SYS_fsync,
            SYS_fdatasync,
            SYS_sync,
            SYS_syncfs,
            SYS_sync_file_range,
            SYS_flock,
            SYS_ftruncate,
            SYS_truncate,
            SYS_fallocate
        ],
        "data of descriptors that the process already holds, or of files that the mounts and Landlock let it open",
    ),
    allow(
        calls![
            SYS_openat,
            SYS_openat2,
            SYS_newfstatat,
            SYS_fstat,
            SYS_statx,
            SYS_statfs,
            SYS_fstatfs,
            SYS_faccessat,
            SYS_faccessat2,
            SYS_readlinkat,
            SYS_getdents64,
            SYS_getcwd,
            SYS_chdir,
            SYS_fchdir,
            SYS_mkdirat,
            SYS_unlinkat,
            SYS_linkat,
            SYS_symlinkat,
            SYS_fchmod,
            SYS_fchmodat,
            SYS_fchown,
            SYS_fchownat,
            SYS_utimensat,
            SYS_umask,
            SYS_memfd_create,
            SYS_inotify_init1,
            SYS_inotify_add_watch,
            SYS_inotify_rm_watch,
            SYS_getxattr,
            SYS_lgetxattr,
            SYS_fgetxattr,
            SYS_listxattr,
            SYS_llistxattr,
            SYS_flistxattr,
            SYS_setxattr,
            SYS_lsetxattr,
            SYS_fsetxattr,
            SYS_removexattr,
            SYS_lremovexattr,
            SYS_fremovexattr
        ],
        "the file tree of the sandbox; ownership changes need capabilities that no process there has",
    ),
    #[cfg(target_arch = "x86_64")]
    allow(
        calls![
            SYS_open,
            SYS_creat,
            SYS_stat,
            SYS_lstat,
            SYS_access,
            SYS_readlink,
            SYS_getdents,
            SYS_mkdir,
            SYS_rmdir,
            SYS_unlink,
            SYS_rename,
            SYS_renameat,
            SYS_link,
            SYS_symlink,
            SYS_chmod,
            SYS_chown,
            SYS_lchown,
            SYS_utime,
            SYS_utimes,
            SYS_futimesat,
            SYS_dup2,
            SYS_pipe,
            SYS_poll,
            SYS_select,
            SYS_epoll_create,
            SYS_epoll_wait,
            SYS_epoll_ctl_old,
            SYS_epoll_wait_old,
            SYS_eventfd,
            SYS_signalfd,
            SYS_inotify_init,
            SYS_fork,
            SYS_vfork,
            SYS_alarm,
            SYS_pause,
            SYS_time,
            SYS_getpgrp,
            SYS_getrlimit,
            SYS_arch_prctl
        ],
        "older forms of calls that are allowed in their newer form",
    ),
    #[cfg(target_arch = "aarch64")]
    allow(calls![SYS_renameat], "older form of renameat2"),
    allow(
        calls![
            SYS_mmap,
            SYS_munmap,
            SYS_mremap,
            SYS_mprotect,
            SYS_brk,
            SYS_madvise,
            SYS_msync,
            SYS_mincore,
            SYS_mlock,
            SYS_mlock2,
            SYS_munlock,
            SYS_mlockall,
            SYS_munlockall,
            SYS_membarrier,
            SYS_pkey_alloc,
            SYS_pkey_free,
            SYS_pkey_mprotect,
            SYS_mseal,
            SYS_mbind,
            SYS_set_mempolicy,
            SYS_get_mempolicy
        ],
        "the process's own memory, bounded by the memory limit",
    ),
    allow(
        calls![
            SYS_execve,
            SYS_execveat,
            SYS_exit,
            SYS_exit_group,
            SYS_wait4,
            SYS_waitid,
            SYS_set_tid_address,
            SYS_set_robust_list,
            SYS_get_robust_list,
            SYS_rseq,
            SYS_futex,
            SYS_futex_waitv,
            SYS_restart_syscall,
            SYS_gettid,
            SYS_getpid,
            SYS_getppid,
            SYS_getpgid,
            SYS_setpgid,
            SYS_getsid,
            SYS_setsid,
            SYS_pidfd_open,
            SYS_pidfd_send_signal,
            SYS_kill,
            SYS_tkill,
            SYS_tgkill,
            SYS_rt_sigaction,
            SYS_rt_sigprocmask,
            SYS_rt_sigreturn,
            SYS_rt_sigpending,
            SYS_rt_sigtimedwait,
            SYS_rt_sigqueueinfo,
            SYS_rt_tgsigqueueinfo,
            SYS_rt_sigsuspend,
            SYS_sigaltstack,
            SYS_signalfd4
        ],
        "processes, threads and signals inside the pid namespace; the init ignores signals from inside",
    ),
    allow(
        calls![
            SYS_getuid,
            SYS_geteuid,
            SYS_getgid,
            SYS_getegid,
            SYS_getresuid,
            SYS_getresgid,
            SYS_getgroups,
            SYS_setuid,
            SYS_setgid,
            SYS_setreuid,
            SYS_setregid,
            SYS_setresuid,
            SYS_setresgid,
            SYS_setgroups,
            SYS_setfsuid,
            SYS_setfsgid,
            SYS_capget,
            SYS_capset,
            SYS_prctl,
            SYS_seccomp,
            SYS_landlock_create_ruleset,
            SYS_landlock_add_rule,
            SYS_landlock_restrict_self
        ],
        "the process's own identity, for which only one ID is mapped, and dropping of its own privileges",
    ),
    allow(
        calls![
            SYS_uname,
            SYS_sysinfo,
            SYS_times,
            SYS_getrusage,
            SYS_getcpu,
            SYS_getrandom,
            SYS_gettimeofday,
            SYS_clock_gettime,
            SYS_clock_getres,
            SYS_clock_nanosleep,
            SYS_nanosleep,
            SYS_getitimer,
            SYS_setitimer,
            SYS_timer_create,
            SYS_timer_settime,
            SYS_timer_gettime,
            SYS_timer_getoverrun,
            SYS_timer_delete,
            SYS_timerfd_create,
            SYS_timerfd_settime,
            SYS_timerfd_gettime,
            SYS_sched_yield,
            SYS_getpriority,
            SYS_ioprio_get,
            SYS_sched_getaffinity,
            SYS_sched_getscheduler,
            SYS_sched_getparam,
            SYS_sched_getattr,
            SYS_sched_get_priority_max,
            SYS_sched_get_priority_min,
            SYS_sched_rr_get_interval
        ],
        "clocks, timers and statistics of the process",
    ),
    allow(
        calls![
            SYS_ppoll,
            SYS_pselect6,
            SYS_epoll_create1,
            SYS_epoll_ctl,
            SYS_epoll_pwait,
            SYS_epoll_pwait2,
            SYS_eventfd2,
            SYS_io_setup,
            SYS_io_destroy,
            SYS_io_submit,
            SYS_io_cancel,
            SYS_io_getevents
        ],
        "waiting for descriptors, and the older asynchronous I/O that databases use",
    ),
    allow(
        calls![
            SYS_bind,
            SYS_listen,
            SYS_accept,
            SYS_accept4,
            SYS_connect,
            SYS_shutdown,
            SYS_getsockname,
            SYS_getpeername,
            SYS_getsockopt,
            SYS_setsockopt,
            SYS_sendto,
            SYS_recvfrom,
            SYS_sendmsg,
            SYS_recvmsg,
            SYS_sendmmsg,
            SYS_recvmmsg
        ],
        "sockets of the permitted families, in the sandbox's own network",
    ),
    SyscallRule {
        calls: calls![SYS_socket, SYS_socketpair],
        verdict: CallVerdict::When(SOCKET_TESTS, FixedVerdict::Allow),
        why: "unix, and TCP, UDP, ping of inet and inet6: vsock reaches a hypervisor, netlink and packet the \
              kernel's network; rarely used protocols (SCTP, UDP-Lite, DCCP, L2TP, SMC, MPTCP) load modules",
    },
    allow(
        calls![
            SYS_shmget,
            SYS_shmat,
            SYS_shmctl,
            SYS_shmdt,
            SYS_semget,
            SYS_semop,
            SYS_semctl,
            SYS_semtimedop,
            SYS_msgget,
            SYS_msgsnd,
            SYS_msgrcv,
            SYS_msgctl,
            SYS_mq_open,
            SYS_mq_unlink,
            SYS_mq_timedsend,
            SYS_mq_timedreceive,
            SYS_mq_notify,
            SYS_mq_getsetattr
        ],
        "System V and POSIX objects of the sandbox's own ipc namespace",
    ),
    refuse_if(
        calls![SYS_clone],
        &[deny(0, NEW_NAMESPACE, Comparison::AnySet)],
        "new processes and threads, but no new namespaces, which would give capabilities inside them",
    ),
    SyscallRule {
        calls: calls![SYS_clone3],
        verdict: CallVerdict::Errno(ENOSYS),
        why: "its flags are behind a pointer and cannot be checked; libc falls back to clone",
    },
    refuse_if(
        calls![SYS_ioctl],
        &[
            deny(1, ALL_BITS, Comparison::Equal(0x5412)),
            deny(1, ALL_BITS, Comparison::Equal(0x541C)),
            deny(1, ALL_BITS, Comparison::Equal(0x5423)),
        ],
        "TIOCSTI and TIOCLINUX type into a terminal that another process reads; TIOCSETD loads line disciplines",
    ),
    refuse_if(
        calls![SYS_personality],
        &[deny(0, ALL_BITS, Comparison::NoneOf(&[0, 8, ALL_BITS]))],
        "reading it and 32-bit uname are harmless; other values weaken address randomisation",
    ),
    refuse_if(
        calls![SYS_renameat2],
        &[deny(4, RENAME_WHITEOUT, Comparison::AnySet)],
        "files may be exchanged, but no whiteout, which is a device node, may be created",
    ),
    #[cfg(target_arch = "x86_64")]
    refuse_if(
        calls![SYS_mknod],
        &[deny(1, 0o170_000, Comparison::NoneOf(&[0, 0o010_000, 0o100_000, 0o140_000]))],
        "pipes, files and sockets, but no devices",
    ),
    refuse_if(
        calls![SYS_mknodat],
        &[deny(2, 0o170_000, Comparison::NoneOf(&[0, 0o010_000, 0o100_000, 0o140_000]))],
        "pipes, files and sockets, but no devices",
    ),
    refuse_if(
        calls![SYS_prlimit64],
        &[deny(0, ALL_BITS, Comparison::NoneOf(&[0]))],
        "own limits only: the init has the same user ID, and its limits must not change",
    ),
    #[cfg(target_arch = "x86_64")]
    allow(calls![SYS_setrlimit], "the process's own limits, which can only be lowered"),
    refuse_if(
        calls![SYS_sched_setaffinity, SYS_sched_setscheduler, SYS_sched_setparam, SYS_sched_setattr],
        &[deny(0, ALL_BITS, Comparison::Equal(1))],
        "scheduling of any process but the init",
    ),
    refuse_if(
        calls![SYS_setpriority, SYS_ioprio_set],
        &[
            deny(1, ALL_BITS, Comparison::Equal(1)),
            deny(0, ALL_BITS, Comparison::Equal(3)),
            deny(0, ALL_BITS, Comparison::Equal(2)),
        ],
        "own priority, but neither the init's nor that of all processes of the user ID",
    ),
    refuse(
        calls![SYS_ptrace, SYS_process_vm_readv, SYS_process_vm_writev, SYS_pidfd_getfd, SYS_kcmp],
        "access to other processes: the init has the same user ID",
    ),
    refuse(
        calls![
            SYS_mount,
            SYS_umount2,
            SYS_pivot_root,
            SYS_chroot,
            SYS_unshare,
            SYS_setns,
            SYS_fsopen,
            SYS_fsconfig,
            SYS_fsmount,
            SYS_fspick,
            SYS_open_tree,
            SYS_move_mount,
            SYS_mount_setattr,
            SYS_open_by_handle_at,
            SYS_name_to_handle_at
        ],
        "the isolation layers: mounts, roots and namespaces must not change",
    ),
    refuse(
        calls![
            SYS_bpf,
            SYS_perf_event_open,
            SYS_userfaultfd,
            SYS_memfd_secret,
            SYS_fanotify_init,
            SYS_fanotify_mark
        ],
        "large kernel interfaces with a history of vulnerabilities, or that hide memory or watch other processes",
    ),
    refuse(
        calls![SYS_add_key, SYS_request_key, SYS_keyctl],
        "keyrings are not namespaced and may contain secrets",
    ),
    SyscallRule {
        calls: calls![SYS_io_uring_setup, SYS_io_uring_enter, SYS_io_uring_register],
        verdict: CallVerdict::Errno(ENOSYS),
        why: "performs I/O that bypasses this filter; runtimes use a fallback when it is absent",
    },
    refuse(
        calls![
            SYS_init_module,
            SYS_finit_module,
            SYS_delete_module,
            SYS_kexec_load,
            SYS_reboot,
            SYS_swapon,
            SYS_swapoff,
            SYS_syslog,
            SYS_settimeofday,
            SYS_clock_settime,
            SYS_clock_adjtime,
            SYS_adjtimex,
            SYS_sethostname,
            SYS_setdomainname,
            SYS_acct,
            SYS_quotactl,
            SYS_vhangup
        ],
        "calls that affect the whole machine are reserved for its administrator",
    ),
    #[cfg(target_arch = "x86_64")]
    refuse(
        calls![SYS_iopl, SYS_ioperm, SYS_kexec_file_load],
        "hardware ports and other kernels are reserved for the administrator",
    ),
];
