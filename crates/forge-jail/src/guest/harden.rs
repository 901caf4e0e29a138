//! The last steps before the first command: the init drops privileges for itself and everything it starts.

use std::ffi::CStr;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags};
use rustix::process::{Resource, Rlimit, setrlimit};

use super::programs::ProgramList;
use super::{InitSetupError, SetupContext};
use crate::sys;
use forge_jail_protocol::{DisabledProtection, IsolationLayer, JailSpec, LayerReport, RootMode};

/// Resets every signal to its default, also those the caller ignored: children inherit this.
pub(super) fn reset_signals() {
    for signal in 1..=64 {
        sys::reset_signal(signal);
    }
    let _ = rustix::process::umask(Mode::from_raw_mode(0o022));
}

/// Applies limits, capabilities, Landlock and seccomp, in this order: each later step forbids what the earlier ones
/// need. `filter` is the compiled system call filter.
pub(super) fn apply_hardening(
    spec: &JailSpec,
    filter: &[libc::sock_filter],
    layers: &mut Vec<LayerReport>,
) -> Result<(), InitSetupError> {
    set_resource_limits(spec).step_context("setting resource limits")?;
    if !spec.lacks_protection(DisabledProtection::Pids) {
        layers.push(LayerReport::enforced(IsolationLayer::Pids, "rlimit"));
    }
    if spec.lacks_protection(DisabledProtection::NoNewPrivs) {
        // Landlock and seccomp need a capability in this case.
        apply_filters(spec, filter, layers)?;
        return drop_privileges(spec, layers);
    }
    drop_privileges(spec, layers)?;
    apply_filters(spec, filter, layers)
}

/// Returns the additional system call filter for commands; the init itself needs the calls it forbids. If the sandbox
/// writes to host directories, a setuid file created there could be started by any user of the host. If commands may
/// execute listed programs only, some calls could execute others. Without a control group for memory, some calls would
/// allocate memory that can't be counted.
pub(super) fn command_filter(
    spec: &JailSpec,
    programs: Option<&ProgramList>,
    memory: MemoryAccounting,
) -> Vec<libc::sock_filter> {
    if spec.lacks_protection(DisabledProtection::Seccomp)
        || spec.lacks_protection(DisabledProtection::NoNewPrivs)
    {
        return Vec::new();
    }
    let host = !spec.writable.is_empty() || spec.roots.iter().any(|root| root.mode == RootMode::Bind);
    let folders = if host { forge_seccomp::HOST_DIRECTORY_RULES } else { &[] };
    let listed = programs.map_or(&[][..], ProgramList::call_rules);
    let uncounted = match memory {
        MemoryAccounting::ControlGroup => &[],
        MemoryAccounting::Watch => forge_seccomp::UNCOUNTED_COMMAND_RULES,
    };
    if folders.is_empty() && listed.is_empty() && uncounted.is_empty() {
        return Vec::new();
    }
    forge_seccomp::compile_additional(&[folders, listed, uncounted])
}

/// The part that counts the memory of a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MemoryAccounting {
    ControlGroup,
    /// The init.
    Watch,
}

/// Returns the additional filter for sandboxes without a control group for memory, so that memory can be counted here.
pub(super) fn uncounted_filter(spec: &JailSpec) -> Vec<libc::sock_filter> {
    if spec.lacks_protection(DisabledProtection::Seccomp)
        || spec.lacks_protection(DisabledProtection::NoNewPrivs)
    {
        return Vec::new();
    }
    forge_seccomp::compile_additional(&[forge_seccomp::UNCOUNTED_MEMORY_RULES])
}

/// Returns a number that no process in the sandbox can know.
pub(super) fn random_key() -> io::Result<u64> {
    let mut bytes = [0; 8];
    let got = sys::fill_random(&mut bytes)?;
    if got == bytes.len() { Ok(u64::from_ne_bytes(bytes)) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

/// Drops capabilities and sets `no_new_privs`.
fn drop_privileges(spec: &JailSpec, layers: &mut Vec<LayerReport>) -> Result<(), InitSetupError> {
    let doing = "giving up capabilities";
    if spec.lacks_protection(DisabledProtection::Capabilities) {
        sys::raise_ambient_capabilities()
            .layer_context(IsolationLayer::Capabilities, "keeping capabilities")?;
    } else {
        drop_capabilities().layer_context(IsolationLayer::Capabilities, doing)?;
        layers.push(LayerReport::enforced(IsolationLayer::Capabilities, "none left, no new privileges"));
    }
    if spec.lacks_protection(DisabledProtection::NoNewPrivs) {
        return Ok(());
    }
    sys::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0).layer_context(IsolationLayer::Capabilities, doing)
}

/// Applies Landlock and the system call filter.
fn apply_filters(
    spec: &JailSpec,
    filter: &[libc::sock_filter],
    layers: &mut Vec<LayerReport>,
) -> Result<(), InitSetupError> {
    if !spec.lacks_protection(DisabledProtection::Landlock) {
        layers.push(enforce_landlock(&extra_writable_paths(spec)).step_context("applying Landlock")?);
    }
    // Children share the user id; a process that is not dumpable has a memory, an environment and descriptors that they
    // cannot open.
    sys::prctl(libc::PR_SET_DUMPABLE, 0, 0).step_context("closing the init to its children")?;
    if !spec.lacks_protection(DisabledProtection::Seccomp) {
        sys::seccomp_install(filter).layer_context(IsolationLayer::Seccomp, "installing the call filter")?;
        layers.push(LayerReport::enforced(IsolationLayer::Seccomp, "allow-list"));
    }
    Ok(())
}

/// Returns the paths that only some sandboxes may write.
fn extra_writable_paths(spec: &JailSpec) -> Vec<&Path> {
    let caches = spec.caches.map(|_| Path::new("/cache"));
    let all = spec.lacks_protection(DisabledProtection::ReadOnlySystem).then_some(Path::new("/"));
    spec.writable.iter().map(|bind| bind.target.as_path()).chain(caches).chain(all).collect()
}

fn set_resource_limits(spec: &JailSpec) -> io::Result<()> {
    set_process_limits(spec)?;
    // Counted for this user in this user namespace (Linux 5.14), so other sandboxes and the host do not matter.
    if spec.lacks_protection(DisabledProtection::Pids) {
        Ok(())
    } else {
        lower_limit(Resource::Nproc, spec.limits.pids.into())
    }
}

/// Sets a limit, never above the current maximum.
fn lower_limit(resource: Resource, value: u64) -> io::Result<()> {
    let now = rustix::process::getrlimit(resource);
    let value = now.maximum.map_or(value, |max| max.min(value));
    Ok(setrlimit(resource, Rlimit { current: Some(value), maximum: Some(value) })?)
}

/// Returns half of the current maximum.
fn half_of_limit(resource: Resource) -> u64 {
    rustix::process::getrlimit(resource).maximum.unwrap_or(u64::MAX) / 2
}

/// Sets the limits that apply to each process separately.
pub(super) fn set_process_limits(spec: &JailSpec) -> io::Result<()> {
    lower_limit(Resource::Core, 0)?;
    lower_limit(Resource::Nofile, spec.limits.open_files.max(64))?;
    // These count for the user as a whole: half is left to the user's other programs.
    lower_limit(Resource::Memlock, half_of_limit(Resource::Memlock).min(8 << 20))?;
    lower_limit(Resource::Msgqueue, half_of_limit(Resource::Msgqueue).min(409_600))?;
    lower_limit(Resource::Sigpending, half_of_limit(Resource::Sigpending).min(16_384))?;
    if let Some(bytes) = spec.limits.file_bytes {
        lower_limit(Resource::Fsize, bytes)?;
    }
    Ok(())
}

/// Sets ceilings per process for a sandbox without a control group for memory. A runaway program takes private writable
/// memory; address space is limited only far above, because many runtimes reserve it freely.
pub(super) fn set_memory_limits(bytes: u64) -> io::Result<()> {
    let data = Rlimit { current: Some(bytes), maximum: Some(bytes) };
    setrlimit(Resource::Data, data)?;
    let space = bytes.saturating_mul(4).saturating_add(32 << 30);
    Ok(setrlimit(Resource::As, Rlimit { current: Some(space), maximum: Some(space) })?)
}

fn drop_capabilities() -> io::Result<()> {
    // User 0 inside gains nothing by starting a program, and none of these bits can be cleared again.
    const LOCKED_SECUREBITS: libc::c_ulong = 0b1110_1111;
    sys::prctl(libc::PR_SET_SECUREBITS, LOCKED_SECUREBITS, 0)?;
    sys::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL as libc::c_ulong, 0)?;
    for capability in 0..64 {
        match sys::prctl(libc::PR_CAPBSET_DROP, capability, 0) {
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) => break,
            other => other?,
        }
    }
    sys::clear_capabilities()
}

/// Landlock's file rights, as numbered in the kernel's `linux/landlock.h`.
mod right {
    pub(super) const EXECUTE: u64 = 1;
    pub(super) const WRITE_FILE: u64 = 1 << 1;
    pub(super) const READ_FILE: u64 = 1 << 2;
    pub(super) const READ_DIR: u64 = 1 << 3;
    pub(super) const MAKE_CHAR: u64 = 1 << 6;
    pub(super) const MAKE_BLOCK: u64 = 1 << 11;
    pub(super) const IOCTL_DEV: u64 = 1 << 15;
    /// Rights that apply to a single file: execute, write, read, truncate.
    pub(super) const FILE_RIGHTS: u64 = EXECUTE | WRITE_FILE | READ_FILE | 1 << 14;
}

/// Enforces Landlock, the second layer: even a hole in the mounts leaves only these paths writable, and sockets and
/// signals of processes outside stay out of reach.
///
/// `more` lists further writable paths in the sandbox; those that do not exist are skipped.
pub(super) fn enforce_landlock(more: &[&Path]) -> io::Result<LayerReport> {
    let abi = sys::landlock_abi();
    let (known, words) = match abi {
        0 => {
            let remedy = "start the kernel with lsm=landlock,... or use Linux 5.13 or newer";
            return Ok(LayerReport::missing(
                IsolationLayer::Landlock,
                "the kernel has none or does not enable it: commands of one box can look into each other, and what one left \
                 running can write into the output of later ones",
                Some(remedy.to_owned()),
            ));
        }
        1 => ((1u64 << 13) - 1, 1),
        2 => ((1 << 14) - 1, 1),
        3 => ((1 << 15) - 1, 1),
        4 => ((1 << 15) - 1, 2),
        5 => ((1 << 16) - 1, 2),
        _ => ((1 << 16) - 1, 3),
    };
    let scoped = if abi >= 6 { 0b11 } else { 0 };
    let ruleset = sys::landlock_ruleset(known, 0, scoped, words)?;
    let read = right::EXECUTE | right::READ_FILE | right::READ_DIR;
    let write = known & !(right::MAKE_CHAR | right::MAKE_BLOCK | right::IOCTL_DEV);
    let device = (right::READ_FILE | right::WRITE_FILE | right::READ_DIR | right::IOCTL_DEV) & known;
    let rules: [(&CStr, u64); 5] =
        [(c"/", read), (c"/workspace", write), (c"/tmp", write), (c"/dev/shm", write), (c"/dev", device)];
    for (path, access) in rules {
        let place = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        sys::landlock_allow(ruleset.as_fd(), access, place.as_fd())?;
    }
    for path in more {
        match rustix::fs::open(*path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()) {
            Ok(place) => {
                let stat = rustix::fs::fstat(&place)?;
                let folder = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
                // The kernel refuses directory rights for a file.
                let access = if folder { write } else { write & right::FILE_RIGHTS };
                sys::landlock_allow(ruleset.as_fd(), access, place.as_fd())?;
            }
            Err(rustix::io::Errno::NOENT) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    sys::landlock_enforce(ruleset.as_fd())?;
    let how = format!("version {abi}");
    Ok(if abi >= 6 {
        LayerReport::enforced(IsolationLayer::Landlock, how)
    } else {
        let why = format!(
            "{how} does not scope sockets and signals: what a command left running can end later ones"
        );
        LayerReport::degraded(IsolationLayer::Landlock, why, None)
    })
}
