//! Mount operations, all relative to the new root, which is the current directory while it is built.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::image;
use crate::mount_source::open_entry;
use crate::sys::{self, MountAttributes, Recursive};
use forge_jail_protocol::HostBind;

/// Converts a path to a C string.
pub(super) fn to_c_path(path: &Path) -> io::Result<CString> {
    Ok(CString::new(path.as_os_str().as_bytes())?)
}

/// Returns `target` without its leading slash, which makes it relative to the new root.
pub(super) fn below_root(target: &Path) -> &Path {
    target.strip_prefix("/").unwrap_or(target)
}

/// Creates a directory and its parents, below the current directory.
pub(super) fn make_dirs(path: &Path) -> io::Result<()> {
    let path = below_root(path);
    // Usually the parent already exists.
    if let Ok(()) | Err(Errno::EXIST) = rustix::fs::mkdir(path, Mode::from_raw_mode(0o755)) {
        return Ok(());
    }
    let mut sofar = std::path::PathBuf::new();
    for part in path.components() {
        sofar.push(part);
        match rustix::fs::mkdir(&sofar, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

/// Creates an empty file as a mount target, and its parent directories.
pub(super) fn make_file(path: &Path) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        make_dirs(parent)?;
    }
    let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
    rustix::fs::open(below_root(path), flags, Mode::from_raw_mode(0o644))?;
    Ok(())
}

/// Returns a read-only copy of the mount at a host path, including all mounts below it.
pub(super) fn read_only_clone(source: &Path) -> io::Result<OwnedFd> {
    read_only_tree(CWD, &to_c_path(source)?)
}

fn read_only_tree(from: BorrowedFd<'_>, path: &CStr) -> io::Result<OwnedFd> {
    let tree = sys::clone_mount(from, path, Recursive::Yes)?;
    let what = MountAttributes { set: sys::READ_ONLY_ATTRS, idmap: None, recursive: Recursive::Yes };
    sys::set_mount_attributes(tree.as_fd(), what)?;
    Ok(tree)
}

/// Binds a host file or directory read-only, if it may still be shown.
pub(super) fn bind_examined(bind: &HostBind) -> io::Result<()> {
    match &bind.examined {
        None => bind_read_only(&bind.source, &bind.target),
        Some(examined) => {
            let opened = open_entry(&bind.source, examined.directory)?;
            attach_tree(&read_only_tree(opened.as_fd(), c"")?, &bind.target)
        }
    }
}

/// Binds a host file or directory read-only at `target`.
pub(super) fn bind_read_only(source: &Path, target: &Path) -> io::Result<()> {
    attach_tree(&read_only_clone(source)?, target)
}

/// Binds a file or directory of an image read-only at `target`. Links in the path resolve inside the image.
pub(super) fn bind_inside(image: BorrowedFd<'_>, path: &CStr, target: &Path) -> io::Result<()> {
    let source = image::open_inside(image, path, OFlags::PATH)?;
    attach_tree(&read_only_tree(source.as_fd(), c"")?, target)
}

/// Attaches a detached mount of a file or directory at `target`.
pub(super) fn attach_tree(tree: &OwnedFd, target: &Path) -> io::Result<()> {
    let stat = rustix::fs::fstat(tree)?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
        make_dirs(target)?;
    } else {
        make_file(target)?;
    }
    sys::attach_mount(tree.as_fd(), &to_c_path(below_root(target))?)
}

/// Forbids to execute files, or to map them executable, on a detached mount and those below it.
pub(super) fn forbid_exec(tree: &OwnedFd) -> io::Result<()> {
    let what = MountAttributes { set: libc::MOUNT_ATTR_NOEXEC, idmap: None, recursive: Recursive::Yes };
    sys::set_mount_attributes(tree.as_fd(), what)
}

/// Binds a host device at `target`; it stays usable, but can neither be executed nor replaced.
pub(super) fn bind_device(source: &Path, target: &Path) -> io::Result<()> {
    let tree = sys::clone_mount(CWD, &to_c_path(source)?, Recursive::No)?;
    let set = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NOEXEC;
    sys::set_mount_attributes(tree.as_fd(), MountAttributes { set, idmap: None, recursive: Recursive::No })?;
    make_file(target)?;
    sys::attach_mount(tree.as_fd(), &to_c_path(below_root(target))?)
}

/// Covers for masked paths: an empty file and an empty directory that no process inside may open.
pub(super) struct MaskCover {
    root: OwnedFd,
}

impl MaskCover {
    const FILE_PATH: &'static str = "run/forge/.masked";
    const DIR_PATH: &'static str = "run/forge/.masked-dir";

    /// Creates the two covers below the new root, which is the current directory.
    pub(super) fn new() -> io::Result<Self> {
        make_file(Path::new(Self::FILE_PATH))?;
        make_dirs(Path::new(Self::DIR_PATH))?;
        for cover in [Self::FILE_PATH, Self::DIR_PATH] {
            rustix::fs::chmod(cover, Mode::empty())?;
            // Clones of this mount inherit the attributes.
            let cover = CString::new(cover)?;
            let tree = sys::clone_mount(CWD, &cover, Recursive::No)?;
            let set = sys::READ_ONLY_ATTRS | libc::MOUNT_ATTR_NOEXEC;
            sys::set_mount_attributes(
                tree.as_fd(),
                MountAttributes { set, idmap: None, recursive: Recursive::No },
            )?;
            sys::attach_mount(tree.as_fd(), &cover)?;
        }
        let root = rustix::fs::open(c".", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Self { root })
    }

    /// Covers the file or directory that `target` refers to.
    pub(super) fn mount_over(&self, target: BorrowedFd<'_>) -> io::Result<()> {
        let stat = rustix::fs::fstat(target)?;
        let cover = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => Self::DIR_PATH,
            _ => Self::FILE_PATH,
        };
        let tree = sys::clone_mount(self.root.as_fd(), &CString::new(cover)?, Recursive::No)?;
        sys::attach_mount_over(tree.as_fd(), target)
    }
}
