//! The root directories to work in: bound unchanged, or as a copy-on-write overlay.
//!
//! Overlay layers are passed to the kernel as descriptor paths (`/proc/self/fd/N`): the options of a mount can be read
//! in the sandbox's own mount table, and must not reveal the layers' location on the host. They also need no escaping.
//! Descriptors are opened in the new mount namespace, since the kernel accepts no layer from another one; mounts
//! attached only for this disappear with the old root directory.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, StatVfsMountFlags, Timespec, Timestamps, Uid, XattrFlags,
};
use rustix::mount::MountAttrFlags;

use super::identity::JailIds;
use super::{InitSetupError, SetupContext, mounts};
use crate::mount_source::open_source;
use crate::protocol::startup::FailureCause;
use crate::sys::{self, MountAttributes, Recursive};
use forge_jail_protocol::{
    FileIdentity, IsolationLayer, JailSpec, OverlayAttributes, RawBytes, RootMode, WorkspaceRoot,
};

/// Any directory that the sandbox does not need: the mapped source of an overlay is attached there, because kernels
/// before 6.15 accept no detached layer. The descriptor identifies it, so one source may cover another.
const PARKING_PATH: &str = "/proc/sys";

/// A root directory to work in, ready to be attached.
pub(super) struct DetachedRoot {
    tree: OwnedFd,
    target: PathBuf,
}

/// Creates the roots as detached mounts, before the old root directory is out of reach.
pub(super) fn prepare_roots(spec: &JailSpec, ids: &JailIds) -> Result<Vec<DetachedRoot>, InitSetupError> {
    let view = |root: &WorkspaceRoot| {
        let tree = match &root.mode {
            RootMode::Bind => bind_root(root, ids)?,
            RootMode::Owned => bind_owned_root(&root.source, ids)?,
            RootMode::Overlay { upper, work } => mount_overlay_root(root, upper, work, ids)?,
        };
        if spec.forbids_written_code() {
            mounts::forbid_exec(&tree).step_context(format!("restricting {}", root.source.display()))?;
        }
        Ok(DetachedRoot { tree, target: root.target.clone() })
    };
    spec.roots.iter().map(view).collect()
}

impl DetachedRoot {
    /// Attaches the mount below the new root, which is the current directory.
    pub(super) fn attach(&self) -> io::Result<()> {
        mounts::make_dirs(&self.target)?;
        sys::attach_mount(self.tree.as_fd(), &mounts::to_c_path(mounts::below_root(&self.target))?)
    }
}

fn bind_root(root: &WorkspaceRoot, ids: &JailIds) -> Result<OwnedFd, InitSetupError> {
    let doing = "binding the workspace";
    let tree = clone_writable(&root.source, root.identity, ids, doing)?;
    check_is_directory(&tree).step_context(format!("{doing} {}", root.source.display()))?;
    Ok(tree)
}

/// Returns a detached read-write mount of `source`, with its owner shown as the sandbox's user.
pub(super) fn clone_writable(
    source: &Path,
    identity: Option<FileIdentity>,
    ids: &JailIds,
    doing: &str,
) -> Result<OwnedFd, InitSetupError> {
    let what = || format!("{doing} {}", source.display());
    let opened = open_source(source, identity).step_context(what())?;
    let recursive = match ids {
        // Mounts below could be of file systems that cannot be mapped; they are not included.
        JailIds::Root { .. } => Recursive::No,
        // In a user namespace the kernel only copies mounts together with those below.
        JailIds::User { .. } => Recursive::Yes,
    };
    let tree = sys::clone_mount(opened.as_fd(), c"", recursive).step_context(what())?;
    let stat = rustix::fs::fstat(&tree).step_context(what())?;
    let set = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV;
    let idmap = ids.mapping_for((stat.st_uid, stat.st_gid));
    let attributes = MountAttributes { set, idmap, recursive };
    let changed = sys::set_mount_attributes(tree.as_fd(), attributes);
    if idmap.is_some() {
        changed.cause_context(FailureCause::IdMap(RawBytes::from(source)), what())?;
    } else {
        changed.layer_context(
            IsolationLayer::MountNamespace,
            "restricting the workspace's mount (needs Linux 5.12)",
        )?;
    }
    Ok(tree)
}

/// Binds a directory that belongs to the sandbox's user alone.
fn bind_owned_root(source: &Path, ids: &JailIds) -> Result<OwnedFd, InitSetupError> {
    let what = || format!("binding the workspace {}", source.display());
    let top = rustix::fs::open(source, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .step_context(what())?;
    transfer_ownership(&top, ids).step_context(format!("giving {} to the box's user", source.display()))?;
    let recursive = if matches!(ids, JailIds::Root { .. }) { Recursive::No } else { Recursive::Yes };
    let tree = sys::clone_mount(top.as_fd(), c"", recursive).step_context(what())?;
    let set = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV;
    sys::set_mount_attributes(tree.as_fd(), MountAttributes { set, idmap: None, recursive }).layer_context(
        IsolationLayer::MountNamespace,
        "restricting the workspace's mount (needs Linux 5.12)",
    )?;
    Ok(tree)
}

/// Mounts a copy-on-write overlay of a root.
fn mount_overlay_root(
    root: &WorkspaceRoot,
    upper: &Path,
    work: &Path,
    ids: &JailIds,
) -> Result<OwnedFd, InitSetupError> {
    let source = &root.source;
    let open = |path: &Path, doing: &str| {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::open(path, flags, Mode::empty())
            .cause_context(FailureCause::Overlay, format!("{doing} {}", path.display()))
    };
    let upper_fd = open(upper, "opening the upper layer")?;
    let work_fd = open(work, "opening the work folder")?;
    let opened = open_source(source, root.identity)
        .step_context(format!("taking {} as the lower layer", source.display()))?;
    // Some kernels detect this and fail at the first access, some never do.
    check_disjoint(&opened, upper)
        .and_then(|()| check_disjoint(&opened, work))
        .cause_context(FailureCause::Overlay, format!("keeping changes out of {}", source.display()))?;
    check_xattr_support(&upper_fd, ids).cause_context(
        FailureCause::Overlay,
        format!("the file system of {} keeps no extended attributes of the kind needed", upper.display()),
    )?;
    transfer_ownership(&upper_fd, ids)
        .step_context(format!("giving {} to the box's user", upper.display()))?;
    if let JailIds::Root { user, .. } = ids {
        let id = user.id;
        let (uid, gid) = (Uid::from_raw(id), Gid::from_raw(id));
        rustix::fs::fchown(&work_fd, Some(uid), Some(gid))
            .step_context(format!("giving {} to the box's user", work.display()))?;
    }
    let lower = prepare_lower(opened, source, ids)?;
    let name = |fd: &OwnedFd| format!("/proc/self/fd/{}", fd.as_raw_fd());
    let (lower_name, upper_name, work_name) = (name(&lower), name(&upper_fd), name(&work_fd));
    let mut options = vec![
        ("lowerdir", Some(lower_name.as_str())),
        ("upperdir", Some(upper_name.as_str())),
        ("workdir", Some(work_name.as_str())),
        ("metacopy", Some("off")),
        ("index", Some("off")),
        ("xino", Some("off")),
    ];
    match ids.overlay_attributes_kind() {
        OverlayAttributes::Trusted => options.push(("redirect_dir", Some("on"))),
        // The kernel refuses redirects in combination with attributes that any user can set.
        OverlayAttributes::User => options.push(("userxattr", None)),
    }
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    sys::new_overlay(&options, attributes).map_err(|refused| {
        let said = if refused.message.is_empty() { String::new() } else { format!(" ({})", refused.message) };
        let step = format!("mounting a view of {}{said}", source.display());
        InitSetupError { about: FailureCause::Overlay, step, errno: super::raw_errno(&refused.error) }
    })
}

/// Makes the opened source of an overlay its lower layer. As root it is shown under the sandbox's owner, and attached
/// somewhere.
fn prepare_lower(opened: OwnedFd, source: &Path, ids: &JailIds) -> Result<OwnedFd, InitSetupError> {
    let what = || format!("taking {} as the lower layer", source.display());
    check_is_directory(&opened).step_context(what())?;
    if matches!(ids, JailIds::User { .. }) {
        return Ok(opened);
    }
    let tree = sys::clone_mount(opened.as_fd(), c"", Recursive::No).step_context(what())?;
    let stat = rustix::fs::fstat(&tree).step_context(what())?;
    let idmap = ids.mapping_for((stat.st_uid, stat.st_gid));
    sys::set_mount_attributes(
        tree.as_fd(),
        MountAttributes { set: sys::READ_ONLY_ATTRS, idmap, recursive: Recursive::No },
    )
    .cause_context(FailureCause::Overlay, format!("showing {} under another owner", source.display()))?;
    let parking = mounts::to_c_path(Path::new(PARKING_PATH)).step_context(what())?;
    sys::attach_mount(tree.as_fd(), &parking).cause_context(FailureCause::Overlay, what())?;
    Ok(tree)
}

/// Checks that neither directory contains the other.
fn check_disjoint(source: &OwnedFd, layer: &Path) -> io::Result<()> {
    let source = std::fs::read_link(format!("/proc/self/fd/{}", source.as_raw_fd()))?;
    let layer = std::fs::canonicalize(layer)?;
    if layer.starts_with(&source) || source.starts_with(&layer) {
        return Err(io::Error::from_raw_os_error(libc::ELOOP));
    }
    Ok(())
}

fn check_is_directory(fd: &OwnedFd) -> io::Result<()> {
    let stat = rustix::fs::fstat(fd)?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => Ok(()),
        _ => Err(io::Error::from_raw_os_error(libc::ENOTDIR)),
    }
}

/// Checks that the attributes an overlay needs can be set: without them the mount succeeds and fails later.
fn check_xattr_support(upper: &OwnedFd, ids: &JailIds) -> io::Result<()> {
    let name = CString::new(format!("{}forge-check", ids.overlay_attributes_kind().xattr_prefix()))?;
    rustix::fs::fsetxattr(upper, &name, b"y", XattrFlags::empty())?;
    Ok(rustix::fs::fremovexattr(upper, &name)?)
}

/// Gives a tree to the sandbox's user if its top directory belongs to another user. No other process uses the tree
/// meanwhile.
fn transfer_ownership(top: &OwnedFd, ids: &JailIds) -> io::Result<()> {
    let JailIds::Root { user, .. } = ids else { return Ok(()) };
    let id = user.id;
    let owner = rustix::fs::fstat(top)?;
    if (owner.st_uid, owner.st_gid) == (id, id) {
        return Ok(());
    }
    // After an interruption, a later sandbox with the id of an earlier owner must not take the tree for its own.
    rustix::fs::fchown(top, Some(Uid::ROOT), Some(Gid::ROOT))?;
    transfer_ownership_below(top.as_fd(), id)?;
    // Last, so that an interrupted transfer is repeated.
    Ok(rustix::fs::fchown(top, Some(Uid::from_raw(id)), Some(Gid::from_raw(id)))?)
}

/// Changes the owner of everything below `top`, of links themselves and not of their targets. Returns to parents
/// through `..`, so that neither descriptors nor the kernel's longest path limit the depth.
fn transfer_ownership_below(top: BorrowedFd<'_>, id: u32) -> io::Result<()> {
    let (uid, gid) = (Some(Uid::from_raw(id)), Some(Gid::from_raw(id)));
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let list = |folder: &OwnedFd| -> io::Result<Vec<CString>> {
        let mut folders = Vec::new();
        let mut entries = rustix::fs::Dir::read_from(folder)?;
        while let Some(entry) = entries.read() {
            let entry = entry?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            let stat = rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)?;
            rustix::fs::chownat(folder, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
            // A change of owner clears these bits, even if they give no one more rights.
            if stat.st_mode & 0o6000 != 0 && FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
                rustix::fs::chmodat(
                    folder,
                    name,
                    Mode::from_raw_mode(stat.st_mode & 0o7777),
                    AtFlags::empty(),
                )?;
            }
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                folders.push(name.to_owned());
            }
        }
        Ok(folders)
    };
    let mut here = rustix::fs::openat(top, c".", flags, Mode::empty())?;
    let mut waiting = vec![list(&here)?];
    while let Some(level) = waiting.last_mut() {
        if let Some(name) = level.pop() {
            here = rustix::fs::openat(&here, &name, flags, Mode::empty())?;
            waiting.push(list(&here)?);
        } else {
            waiting.pop();
            if !waiting.is_empty() {
                here = rustix::fs::openat(&here, c"..", flags, Mode::empty())?;
            }
        }
    }
    Ok(())
}

/// Tests each overlay as the sandbox's user: one that silently became read-only must not pass as working.
pub(super) fn check_roots(spec: &JailSpec) -> Result<(), InitSetupError> {
    for root in spec.roots.iter().filter(|root| matches!(root.mode, RootMode::Overlay { .. })) {
        let why = format!("writing to the view of {}", root.source.display());
        try_writing(&root.target).cause_context(FailureCause::Overlay, why)?;
    }
    Ok(())
}

fn try_writing(target: &Path) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder = rustix::fs::open(target, flags, Mode::empty())?;
    if rustix::fs::fstatvfs(&folder)?.f_flag.contains(StatVfsMountFlags::RDONLY) {
        return Err(io::Error::from_raw_os_error(libc::EROFS));
    }
    let before = rustix::fs::fstat(&folder)?;
    if before.st_mode & 0o200 == 0 {
        // The owner removed the write permission; the directories below have their own.
        return Ok(());
    }
    let name = super::files::temp_name("start");
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    drop(rustix::fs::openat(&folder, &name, flags, Mode::from_raw_mode(0o600))?);
    rustix::fs::unlinkat(&folder, &name, AtFlags::empty())?;
    let time = |sec: i64, nsec| Timespec { tv_sec: sec, tv_nsec: i64::try_from(nsec).unwrap_or(0) };
    let times = Timestamps {
        last_access: time(before.st_atime, before.st_atime_nsec),
        last_modification: time(before.st_mtime, before.st_mtime_nsec),
    };
    Ok(rustix::fs::futimens(&folder, &times)?)
}
