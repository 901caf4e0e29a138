//! System calls that have no safe wrapper in rustix: mounts with attributes, Landlock, seccomp, capabilities, forks.
//!
//! Each function is safe to call as documented and carries the safety argument of its `unsafe` block. Linux only.
#![allow(unsafe_code, reason = "wraps system calls without a safe wrapper; each block says why it is sound")]

pub mod notify;
mod spawn;

pub use spawn::{detach_on_exec, kill_on_thread_exit};
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::fs::CWD;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};

fn check_result(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Takes ownership of a descriptor number that this process was started with.
///
/// Returns an error when nothing is open there.
pub fn adopt_fd(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: fcntl(F_GETFD) only looks at the descriptor table; any number is allowed.
    check_result(unsafe { libc::fcntl(fd, libc::F_GETFD) }.into())?;
    // SAFETY: the descriptor is open (checked above). Callers use this once per number, at the start of a process
    // that nothing else runs in, before any other owner of the number exists.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Closes every descriptor from `first` on. Only for the start of a process, before anything owns one of them.
pub fn close_from(first: RawFd) -> io::Result<()> {
    // SAFETY: close_range takes three integers. The caller is the fresh init, where nothing owns descriptors from
    // `first` on, so no owner can be left with a closed number.
    check_result(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) })?;
    Ok(())
}

/// Attributes set on a mount.
#[derive(Debug, Clone, Copy)]
pub struct MountAttributes<'a> {
    /// `MOUNT_ATTR_*` bits to set.
    pub set: u64,
    /// User namespace with the mapping through which the mount shows owners.
    pub idmap: Option<BorrowedFd<'a>>,
    /// Whether mounts below change too.
    pub recursive: Recursive,
}

/// Whether an operation includes the mounts below.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recursive {
    /// This mount and all mounts below it.
    Yes,
    /// This mount only.
    No,
}

/// Attributes that forbid writing, setuid and devices.
pub const READ_ONLY_ATTRS: u64 = libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV;

/// Calls `mount_setattr(2)` on the mount with `mount` as its root.
pub fn set_mount_attributes(mount: BorrowedFd<'_>, what: MountAttributes<'_>) -> io::Result<()> {
    let mut attr = libc::mount_attr { attr_set: what.set, attr_clr: 0, propagation: 0, userns_fd: 0 };
    if let Some(userns) = what.idmap {
        attr.attr_set |= libc::MOUNT_ATTR_IDMAP;
        attr.userns_fd = u64::try_from(userns.as_raw_fd()).map_err(io::Error::other)?;
    }
    let recursive = if what.recursive == Recursive::Yes { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is a valid empty C string, `attr` lives across the call and its size is passed.
    check_result(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | recursive,
            &raw const attr,
            size_of::<libc::mount_attr>(),
        )
    })?;
    Ok(())
}

/// Clones the mount at `path` below `dir` as a detached mount.
pub fn clone_mount(dir: BorrowedFd<'_>, path: &CStr, recursive: Recursive) -> io::Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if path.is_empty() {
        flags |= OpenTreeFlags::AT_EMPTY_PATH;
    }
    if recursive == Recursive::Yes {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    Ok(open_tree(dir, path, flags)?)
}

/// Creates a detached file system of type `kind` with `options`.
pub fn new_mount(kind: &str, options: &[(&str, String)], attributes: MountAttrFlags) -> io::Result<OwnedFd> {
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in options {
        fsconfig_set_string(context.as_fd(), *key, value.as_str())?;
    }
    fsconfig_create(context.as_fd())?;
    Ok(fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}

/// A file system that the kernel refused to create, with its explanation.
#[derive(Debug)]
pub struct MountRefused {
    /// The error number.
    pub error: io::Error,
    /// The kernel's own messages; empty when there are none.
    pub message: String,
}

/// Creates a detached overlay with `options`; an option with the value `None` is a flag.
pub fn new_overlay(
    options: &[(&str, Option<&str>)],
    attributes: MountAttrFlags,
) -> Result<OwnedFd, MountRefused> {
    let plain = |errno: rustix::io::Errno| MountRefused { error: errno.into(), message: String::new() };
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).map_err(plain)?;
    // The kernel keeps its messages with the context, one for each read; the first character is their kind.
    let explained = |errno: rustix::io::Errno| {
        let (mut said, mut line) = (Vec::new(), [0u8; 256]);
        while let Ok(n @ 1..) = rustix::io::read(&context, &mut line) {
            said.push(
                String::from_utf8_lossy(&line[..n])
                    .trim()
                    .trim_start_matches(['e', 'w', 'i'])
                    .trim()
                    .to_owned(),
            );
        }
        MountRefused { error: errno.into(), message: said.join(", ") }
    };
    for (key, value) in options {
        match value {
            Some(value) => fsconfig_set_string(context.as_fd(), *key, *value),
            None => fsconfig_set_flag(context.as_fd(), *key),
        }
        .map_err(explained)?;
    }
    fsconfig_create(context.as_fd()).map_err(explained)?;
    fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes).map_err(explained)
}

/// Attaches a detached mount at `path` below the current directory.
pub fn attach_mount(mount: BorrowedFd<'_>, path: &CStr) -> io::Result<()> {
    Ok(move_mount(mount, c"", CWD, path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
}

/// Attaches a detached mount over the file that `target` refers to.
pub fn attach_mount_over(mount: BorrowedFd<'_>, target: BorrowedFd<'_>) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(move_mount(mount, c"", target, c"", flags)?)
}

/// The side of a fork that a process is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForkSide {
    /// The new process.
    Child,
    /// The original process, with the child's process id.
    Parent(i32),
}

/// Forks with extra `CLONE_*` flags that do not share memory. Only for a process with a single thread.
pub fn fork(flags: libc::c_int) -> io::Result<ForkSide> {
    let flags = libc::c_long::from(flags | libc::SIGCHLD);
    // SAFETY: without CLONE_VM and with a null stack the child gets a copy of this address space and returns here
    // like fork. The caller has a single thread, so no lock can be held by a thread that the child lacks; the
    // remaining arguments (tid pointers, tls) are unused with these flags, hence their order does not matter.
    let pid = check_result(unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) })?;
    let pid = i32::try_from(pid).map_err(io::Error::other)?;
    Ok(if pid == 0 { ForkSide::Child } else { ForkSide::Parent(pid) })
}

/// Ends the process without running anything else.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: _exit takes an integer and does not return.
    unsafe { libc::_exit(code) }
}

/// A child that has ended.
#[derive(Debug, Clone, Copy)]
pub struct ReapedChild {
    /// The process id.
    pub pid: i32,
    /// The status as in `wait(2)`.
    pub status: i32,
    /// CPU time in user mode, microseconds.
    pub user_us: u64,
    /// CPU time in the kernel, microseconds.
    pub system_us: u64,
    /// Largest resident size in KiB.
    pub max_rss_kib: u64,
}

/// Reaps `pid` (-1: any child); `Ok(None)` if none has ended.
pub fn reap(pid: i32, flags: libc::c_int) -> io::Result<Option<ReapedChild>> {
    let mut status = 0;
    // SAFETY: rusage is plain integers, for which all zeroes is a value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    loop {
        // SAFETY: both pointers are to live, writable locals of the right type.
        let got = unsafe { libc::wait4(pid, &raw mut status, flags, &raw mut usage) };
        if got > 0 {
            let micros = |t: libc::timeval| {
                u64::try_from(t.tv_sec).unwrap_or(0) * 1_000_000 + u64::try_from(t.tv_usec).unwrap_or(0)
            };
            return Ok(Some(ReapedChild {
                pid: got,
                status,
                user_us: micros(usage.ru_utime),
                system_us: micros(usage.ru_stime),
                max_rss_kib: u64::try_from(usage.ru_maxrss).unwrap_or(0),
            }));
        }
        if got == 0 {
            return Ok(None);
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::EINTR) => {}
            Some(libc::ECHILD) => return Ok(None),
            _ => return Err(error),
        }
    }
}

/// Returns whether this process has children, including dead ones that have not been reaped.
pub fn has_children() -> bool {
    // SAFETY: siginfo_t is plain data, for which all zeroes is a value.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to a live, writable local; WNOWAIT leaves the child waitable.
    let found =
        unsafe { libc::waitid(libc::P_ALL, 0, &raw mut info, libc::WEXITED | libc::WNOHANG | libc::WNOWAIT) };
    found == 0 || io::Error::last_os_error().raw_os_error() != Some(libc::ECHILD)
}

/// Sends a signal; a process or group that is gone is no error.
pub fn kill(pid: i32, signal: i32) {
    // SAFETY: kill takes two integers. Failure means that no process is left to signal, which is the intended result.
    unsafe {
        libc::kill(pid, signal);
    }
}

/// Blocks `signal` and returns a descriptor that becomes readable when it is pending.
pub fn signal_fd(signal: i32) -> io::Result<OwnedFd> {
    // SAFETY: sigset_t is plain data; sigemptyset initialises it before use; both pointers are to live locals.
    let fd = unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, signal);
        check_result(libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()).into())?;
        check_result(libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK).into())?
    };
    let fd = RawFd::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: signalfd just returned this descriptor, nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Switches the only thread of this process to `uid` and `gid` without any supplementary group.
pub fn switch_ids(uid: u32, gid: u32) -> io::Result<()> {
    // SAFETY: setgroups with a count of zero reads no memory; the others take integers.
    unsafe {
        check_result(libc::syscall(libc::SYS_setgroups, 0, std::ptr::null::<libc::gid_t>()))?;
        check_result(libc::syscall(libc::SYS_setresgid, gid, gid, gid))?;
        check_result(libc::syscall(libc::SYS_setresuid, uid, uid, uid))?;
    }
    Ok(())
}

/// Calls `prctl(2)` with integer arguments.
pub fn prctl(option: libc::c_int, a: libc::c_ulong, b: libc::c_ulong) -> io::Result<()> {
    // SAFETY: used for options that take integers only; unused arguments must be zero and are.
    check_result(unsafe { libc::prctl(option, a, b, 0, 0) }.into())?;
    Ok(())
}

/// Makes every permitted capability of this process inheritable and ambient, so that programs it starts have it too.
pub fn raise_ambient_capabilities() -> io::Result<()> {
    #[repr(C)]
    struct CapGetHeader {
        version: u32,
        pid: i32,
    }
    let header = CapGetHeader { version: 0x2008_0522, pid: 0 };
    let mut data = [[0u32; 3]; 2];
    // SAFETY: header and data have the layout of version 3 of the calls (two records of effective, permitted,
    // inheritable) and live across them.
    unsafe {
        check_result(libc::syscall(libc::SYS_capget, &raw const header, data.as_mut_ptr()))?;
        for record in &mut data {
            record[2] = record[1];
        }
        check_result(libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()))?;
    }
    for capability in 0..64 {
        if data[capability / 32][1] & (1 << (capability % 32)) != 0 {
            // SAFETY: takes integers.
            check_result(
                unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE, capability, 0, 0) }
                    .into(),
            )?;
        }
    }
    Ok(())
}

/// Drops every capability from the effective, permitted and inheritable sets.
pub fn clear_capabilities() -> io::Result<()> {
    #[repr(C)]
    struct CapSetHeader {
        version: u32,
        pid: i32,
    }
    let header = CapSetHeader { version: 0x2008_0522, pid: 0 };
    let data = [[0u32; 3]; 2];
    // SAFETY: header and data have the layout of version 3 of the call (two records of three words) and live
    // across it.
    check_result(unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) })?;
    Ok(())
}

/// Sets the host name.
pub fn set_hostname(name: &str) -> io::Result<()> {
    // SAFETY: pointer and length are those of a live string.
    check_result(unsafe { libc::sethostname(name.as_ptr().cast(), name.len()) }.into())?;
    Ok(())
}

/// Brings the loopback interface of the current network namespace up.
pub fn bring_loopback_up() -> io::Result<()> {
    let socket = rustix::net::socket_with(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::DGRAM,
        rustix::net::SocketFlags::CLOEXEC,
        None,
    )?;
    // SAFETY: ifreq is plain data, for which all zeroes is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = libc::c_char::try_from(*from).unwrap_or(0);
    }
    request.ifr_ifru.ifru_flags =
        i16::try_from(libc::IFF_UP | libc::IFF_RUNNING).map_err(io::Error::other)?;
    // SAFETY: SIOCSIFFLAGS reads an ifreq, which `request` is.
    check_result(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) }.into())?;
    Ok(())
}

/// Replaces the root of the mount namespace by the current directory and detaches the old one.
pub fn pivot_to_cwd() -> io::Result<()> {
    rustix::process::pivot_root(c".", c".")?;
    rustix::mount::unmount(c".", rustix::mount::UnmountFlags::DETACH)?;
    rustix::process::chdir(c"/")?;
    Ok(())
}

/// Returns the effective user and group of this process.
pub fn effective_ids() -> (u32, u32) {
    (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw())
}

/// Returns the Landlock version of this kernel; 0 when it has none.
pub fn landlock_abi() -> u32 {
    const LANDLOCK_VERSION_FLAG: u32 = 1;
    // SAFETY: with the VERSION flag the call takes a null pointer and size 0 and only returns a number.
    let got = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            std::ptr::null::<libc::c_void>(),
            0usize,
            LANDLOCK_VERSION_FLAG,
        )
    };
    u32::try_from(got).unwrap_or(0)
}

/// Creates a Landlock ruleset from the kernel's `landlock_ruleset_attr` (fs, net, scoped), cut to the words it knows.
pub fn landlock_ruleset(fs: u64, net: u64, scoped: u64, words: usize) -> io::Result<OwnedFd> {
    let attr = [fs, net, scoped];
    let size = words.min(attr.len()) * size_of::<u64>();
    // SAFETY: `attr` lives across the call and `size` is at most its size.
    let fd =
        check_result(unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, attr.as_ptr(), size, 0u32) })?;
    let fd = RawFd::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the kernel just returned this descriptor, nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Allows `access` beneath the file that `parent` refers to.
pub fn landlock_allow(ruleset: BorrowedFd<'_>, access: u64, parent: BorrowedFd<'_>) -> io::Result<()> {
    #[repr(C, packed)]
    struct PathBeneath {
        allowed_access: u64,
        parent_fd: i32,
    }
    const PATH_BENEATH: u32 = 1;
    let rule = PathBeneath { allowed_access: access, parent_fd: parent.as_raw_fd() };
    // SAFETY: `rule` has the packed layout the kernel defines for this rule type and lives across the call.
    check_result(unsafe {
        libc::syscall(libc::SYS_landlock_add_rule, ruleset.as_raw_fd(), PATH_BENEATH, &raw const rule, 0u32)
    })?;
    Ok(())
}

/// Permanently applies the ruleset to this thread.
pub fn landlock_enforce(ruleset: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: takes a descriptor and zero flags.
    check_result(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), 0u32) })?;
    Ok(())
}

/// Permanently installs a seccomp program on this thread.
pub fn seccomp_install(program: &[libc::sock_filter]) -> io::Result<()> {
    let fprog = libc::sock_fprog {
        len: u16::try_from(program.len()).map_err(io::Error::other)?,
        filter: program.as_ptr().cast_mut(),
    };
    // SAFETY: `fprog` describes a live slice; the kernel copies it and does not write to it.
    check_result(unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0u32, &raw const fprog)
    })?;
    Ok(())
}

/// Moves this process from its current namespaces into new ones. Only for a process with a single thread.
pub fn unshare(flags: rustix::thread::UnshareFlags) -> io::Result<()> {
    // SAFETY: the flags used are CLONE_NEW* only; descriptors and memory stay shared as before, so no owner of a
    // descriptor is affected.
    Ok(unsafe { rustix::thread::unshare_unsafe(flags) }?)
}

/// Waits for a signal.
pub fn pause() {
    // SAFETY: takes nothing, returns after a signal.
    unsafe {
        libc::pause();
    }
}

/// Resets a signal to its default; numbers that cannot be changed are ignored.
pub fn reset_signal(signal: i32) {
    // SAFETY: SIG_DFL installs no handler; invalid numbers only make the call fail.
    unsafe {
        libc::signal(signal, libc::SIG_DFL);
    }
}

/// Returns the size of a memory page in bytes.
pub fn page_size() -> u64 {
    // SAFETY: sysconf takes an integer.
    u64::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096)
}

/// Returns the process that connected a socket, as this process sees it; 0 when it has no number here.
pub fn peer_pid(socket: BorrowedFd<'_>) -> io::Result<i32> {
    let mut peer = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut size = libc::socklen_t::try_from(size_of::<libc::ucred>()).map_err(io::Error::other)?;
    // SAFETY: `peer` is valid for `size` bytes, which is its own size; the kernel writes at most that much.
    let got = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut peer).cast(),
            &raw mut size,
        )
    };
    check_result(got.into())?;
    Ok(peer.pid)
}

/// Locks one byte of an open file for this open file description: every holder of the descriptor or a copy of it,
/// including a forked child, holds the lock, and the kernel frees it with the last copy. Returns `false` if another one
/// has it.
pub fn lock_byte(file: BorrowedFd<'_>, at: u32) -> io::Result<bool> {
    let narrow = |value: libc::c_int| i16::try_from(value).map_err(io::Error::other);
    // SAFETY: flock is plain integers, for which all zeroes is a value; its process id must be zero and is.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    (lock.l_type, lock.l_whence) = (narrow(libc::F_WRLCK)?, narrow(libc::SEEK_SET)?);
    (lock.l_start, lock.l_len) = (libc::off_t::from(at), 1);
    // SAFETY: the call reads a flock, which lives across it, and changes nothing of this process's memory.
    let done =
        check_result(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) }.into());
    match done {
        Ok(_) => Ok(true),
        Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Fills a buffer with random bytes; returns how many were written.
///
/// # Errors
/// The kernel's error.
pub fn fill_random(bytes: &mut [u8]) -> io::Result<usize> {
    // SAFETY: pointer and length are those of a live, writable slice.
    let got = check_result(
        unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) }
            .try_into()
            .map_err(io::Error::other)?,
    )?;
    usize::try_from(got).map_err(io::Error::other)
}

/// Removes a System V shared memory segment.
pub fn remove_segment(id: i32) -> io::Result<()> {
    // SAFETY: with IPC_RMID the pointer is not used.
    check_result(unsafe { libc::shmctl(id, libc::IPC_RMID, std::ptr::null_mut()) }.into())?;
    Ok(())
}

/// Removes a System V message queue.
pub fn remove_queue(id: i32) -> io::Result<()> {
    // SAFETY: with IPC_RMID the pointer is not used.
    check_result(unsafe { libc::msgctl(id, libc::IPC_RMID, std::ptr::null_mut()) }.into())?;
    Ok(())
}

/// Removes a set of System V semaphores.
pub fn remove_semaphores(id: i32) -> io::Result<()> {
    // SAFETY: with IPC_RMID there is no fourth argument.
    check_result(unsafe { libc::semctl(id, 0, libc::IPC_RMID) }.into())?;
    Ok(())
}
