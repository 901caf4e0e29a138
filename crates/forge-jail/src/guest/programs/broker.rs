//! Checks of each `execve` in a sandbox with a program list, by a thread of the init.
//!
//! Landlock decides by file what may be executed. This thread refuses what Landlock cannot see: executing a dynamic
//! loader directly, and starting a multi-call binary under an unlisted name. It reads the path from the memory of the
//! caller, which waits, and resolves it. Between this check and the kernel's own lookup nothing may change the meaning
//! of the path, so a path through a directory that commands can write, or through another process's links, is refused.
//! Only a program that changes its own memory from a second thread could pass another path, and a program that runs
//! native code of its own needs no loader.

use std::collections::BTreeSet;
use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use rustix::fs::{FileType, Mode, OFlags, StatVfsMountFlags};
use rustix::io::Errno;

use super::find::{AllowedPrograms, DeviceInode, is_read_only_mount};
use forge_jail_protocol::file_name;
use forge_sys as sys;
use forge_sys::notify::{self, CallAnswer, NotifiedCall};

/// Longest path that the kernel accepts, in bytes.
const MAX_PATH_BYTES: usize = 4096;
/// Longest chain of symbolic links, as in the kernel.
const MAX_LINKS: u32 = 40;
/// Stack size of the thread, which moves only a few descriptors and bytes.
const STACK_BYTES: usize = 256 * 1024;

/// Process id of the process that the init is starting: its next `execve` is the init's own. Written by the child,
/// which shares the init's memory until then.
pub(in crate::guest) static STARTING_PID: AtomicI32 = AtomicI32::new(0);

/// The files and names that the checks need.
#[derive(Clone)]
pub(super) struct ExecPolicy {
    inner: Arc<BTreeSet<DeviceInode>>,
    multi_call: Arc<BTreeSet<DeviceInode>>,
    /// Names under which multi-call binaries are listed.
    names: Arc<BTreeSet<String>>,
}

/// The target of a path.
enum PathResolution {
    /// This file, and no command can change that.
    To(DeviceInode),
    /// No file, for this reason.
    Nowhere(Errno),
}

impl ExecPolicy {
    pub(super) fn new(found: &AllowedPrograms) -> Self {
        let many = found.files.iter().filter(|file| found.multi_call.contains(&file.identity));
        Self {
            inner: Arc::new(found.inner.clone()),
            multi_call: Arc::new(found.multi_call.clone()),
            names: Arc::new(many.map(|file| file.name.clone()).collect()),
        }
    }

    /// Returns whether a file may be started under a name.
    pub(super) fn may_start_as(&self, path: &Path, name: &[u8]) -> bool {
        if self.multi_call.is_empty() {
            return true;
        }
        match resolve_path(None, path) {
            Ok(PathResolution::To(identity)) => self.matches_name(identity, name),
            _ => true,
        }
    }

    fn matches_name(&self, identity: DeviceInode, name: &[u8]) -> bool {
        let name = String::from_utf8_lossy(name);
        // A login shell's name begins with a dash.
        let name = file_name(&name).trim_start_matches('-');
        !self.multi_call.contains(&identity) || self.names.contains(name)
    }

    fn answer_call(&self, call: &NotifiedCall) -> CallAnswer {
        let allowed = match libc::c_long::from(call.number) {
            libc::SYS_execve => self.check_exec(call),
            libc::SYS_mmap => check_mapping(call),
            _ => Err(Errno::ACCESS),
        };
        match allowed {
            Ok(()) => CallAnswer::Continue,
            Err(errno) => CallAnswer::Errno(errno.raw_os_error()),
        }
    }

    fn check_exec(&self, call: &NotifiedCall) -> Result<(), Errno> {
        let process = i32::try_from(call.thread).unwrap_or(0);
        if process > 0
            && STARTING_PID.compare_exchange(process, 0, Ordering::SeqCst, Ordering::SeqCst).is_ok()
        {
            return Ok(());
        }
        let memory = File::open(format!("/proc/{process}/mem")).map_err(|_| Errno::ACCESS)?;
        let path = read_c_string(&memory, call.arguments[0])?;
        let path = PathBuf::from(OsStr::from_bytes(&path));
        let identity = match resolve_path(Some(process), &path)? {
            PathResolution::To(identity) => identity,
            PathResolution::Nowhere(errno) => return Err(errno),
        };
        if self.inner.contains(&identity) {
            return Err(Errno::ACCESS);
        }
        if self.multi_call.contains(&identity)
            && !self.matches_name(identity, &first_argument(&memory, call)?)
        {
            return Err(Errno::ACCESS);
        }
        Ok(())
    }
}

/// Starts the checks: from now on they cover this thread and the processes it starts. With `mapped`, they also cover
/// files that are mapped executable.
pub(super) fn start_broker(judge: ExecPolicy, mapped: bool) -> io::Result<()> {
    let mut rules = vec![forge_seccomp::ASK_BEFORE_EXECUTING];
    rules.extend(mapped.then_some(forge_seccomp::ASK_BEFORE_MAPPING));
    // Blocks SIGCHLD, which the thread inherits: a signal delivered to the thread would not reach the init.
    drop(sys::signal_fd(libc::SIGCHLD)?);
    let listener = notify::install_listener(&forge_seccomp::compile_additional(&rules))?;
    let thread = std::thread::Builder::new().name("forge-programs".to_owned()).stack_size(STACK_BYTES);
    thread.spawn(move || {
        serve_calls(&judge, &listener);
        // Without answers, every caller would wait forever.
        sys::exit_now(125);
    })?;
    Ok(())
}

fn serve_calls(judge: &ExecPolicy, listener: &OwnedFd) {
    loop {
        let Ok(call) = notify::next_call(listener.as_fd()) else { return };
        let Some(call) = call else { continue };
        if notify::answer_call(listener.as_fd(), call.id, judge.answer_call(&call)).is_err() {
            return;
        }
    }
}

/// Checks that a file may be mapped executable: files that commands can write may not.
fn check_mapping(call: &NotifiedCall) -> Result<(), Errno> {
    // A descriptor is an int; the upper half of the register means nothing.
    let number = call.arguments[4] & u64::from(u32::MAX);
    let path = format!("/proc/{}/fd/{number}", call.thread);
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags, Mode::empty()).map_err(|_| Errno::ACCESS)?;
    let mount = rustix::fs::fstatvfs(&file)?.f_flag;
    // On a noexec mount the kernel itself refuses the mapping.
    let fine = mount.intersects(StatVfsMountFlags::RDONLY | StatVfsMountFlags::NOEXEC);
    if fine { Ok(()) } else { Err(Errno::ACCESS) }
}

/// Reads the text at an address, up to its NUL.
fn read_c_string(memory: &File, address: u64) -> Result<Vec<u8>, Errno> {
    let mut bytes = [0u8; MAX_PATH_BYTES];
    let mut length = 0;
    while length < bytes.len() {
        let at = address.checked_add(length as u64).ok_or(Errno::FAULT)?;
        match memory.read_at(&mut bytes[length..], at) {
            Ok(read @ 1..) => {
                if let Some(end) = bytes[length..length + read].iter().position(|b| *b == 0) {
                    return Ok(bytes[..length + end].to_vec());
                }
                length += read;
            }
            _ => return Err(Errno::FAULT),
        }
    }
    Err(Errno::NAMETOOLONG)
}

/// Reads the name that a program is started under.
fn first_argument(memory: &File, call: &NotifiedCall) -> Result<Vec<u8>, Errno> {
    let mut pointer = [0u8; 8];
    memory.read_exact_at(&mut pointer, call.arguments[1]).map_err(|_| Errno::ACCESS)?;
    match u64::from_ne_bytes(pointer) {
        0 => Ok(Vec::new()),
        address => read_c_string(memory, address),
    }
}

/// Follows a path through read-only mounts, as seen by the process that uses it.
fn resolve_path(process: Option<i32>, path: &Path) -> Result<PathResolution, Errno> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let begin = match (path.is_absolute(), process) {
        (true, _) | (false, None) => rustix::fs::open(c"/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?,
        (false, Some(process)) => {
            rustix::fs::open(format!("/proc/{process}/cwd"), OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
                .map_err(|_| Errno::ACCESS)?
        }
    };
    let mut waiting = path_parts(path);
    let (mut here, mut links) = (begin, 0);
    loop {
        // In a writable directory, or in /proc, another process can change the meaning of a name.
        if !is_immutable(&here)? {
            let missing = process.is_some_and(|process| path_is_missing(process, path));
            return Ok(PathResolution::Nowhere(if missing { Errno::NOENT } else { Errno::ACCESS }));
        }
        let Some(part) = waiting.pop() else { break };
        let next = match rustix::fs::openat(&here, &part, flags, Mode::empty()) {
            Ok(next) => next,
            Err(errno) => return Ok(PathResolution::Nowhere(errno)),
        };
        if FileType::from_raw_mode(rustix::fs::fstat(&next)?.st_mode) == FileType::Symlink {
            links += 1;
            if links > MAX_LINKS {
                return Ok(PathResolution::Nowhere(Errno::LOOP));
            }
            if !is_immutable(&next)? {
                return Ok(PathResolution::Nowhere(Errno::ACCESS));
            }
            let target = rustix::fs::readlinkat(&next, c"", Vec::new())?;
            let target = Path::new(OsStr::from_bytes(target.as_bytes())).to_owned();
            if target.is_absolute() {
                here = rustix::fs::open(c"/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
            }
            waiting.extend(path_parts(&target));
        } else {
            here = next;
        }
    }
    let stat = rustix::fs::fstat(&here)?;
    Ok(PathResolution::To((stat.st_dev, stat.st_ino)))
}

/// Returns the parts of a path, the last one first.
fn path_parts(path: &Path) -> Vec<CString> {
    let part = |component: Component<'_>| match component {
        Component::Normal(name) => CString::new(name.as_bytes()).ok(),
        Component::ParentDir => Some(c"..".to_owned()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    };
    path.components().rev().filter_map(part).collect()
}

/// Returns whether an open file means the same to every process and forever: it is on a read-only mount other than
/// /proc.
fn is_immutable(place: &OwnedFd) -> Result<bool, Errno> {
    const PROC_SUPER_MAGIC: u64 = 0x9fa0;
    let kind = rustix::fs::fstatfs(place)?.f_type;
    let proc = u64::try_from(kind).is_ok_and(|kind| kind == PROC_SUPER_MAGIC);
    Ok(!proc && is_read_only_mount(place.as_fd()).map_err(|_| Errno::ACCESS)?)
}

/// Returns whether the path does not exist; only the error for the caller depends on it.
fn path_is_missing(process: i32, path: &Path) -> bool {
    let path = match path.is_absolute() {
        true => path.to_owned(),
        false => Path::new("/proc").join(process.to_string()).join("cwd").join(path),
    };
    matches!(rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()), Err(Errno::NOENT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_through_a_writable_place_or_proc_leads_nowhere() {
        let place = tempfile::tempdir().unwrap();
        let link = place.path().join("link");
        std::os::unix::fs::symlink("/proc/version", &link).unwrap();
        for path in [link.as_path(), Path::new("/proc/self/exe"), Path::new("/proc/version")] {
            assert!(matches!(resolve_path(None, path), Ok(PathResolution::Nowhere(_))), "{}", path.display());
        }
    }

    #[test]
    fn text_is_read_to_its_end_and_no_further() {
        let own = File::open("/proc/self/mem").unwrap();
        let said = c"some text";
        assert_eq!(read_c_string(&own, said.as_ptr().addr() as u64).unwrap(), b"some text");
        assert_eq!(read_c_string(&own, 0), Err(Errno::FAULT));
    }
}
