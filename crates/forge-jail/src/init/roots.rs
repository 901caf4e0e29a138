//! The folders to work in: shown as they are, or as a copy-on-write view.
//!
//! Layers of a view are named to the kernel by descriptor paths (`/proc/self/fd/N`): the options of a mount can be
//! read in the box's own mount table, and must not tell where on the host the layers are. They also need no escaping.
//! Descriptors are opened in the new mount namespace, since the kernel takes no layer from another one; what is
//! attached for this alone goes away with the old root folder.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, StatVfsMountFlags, Timespec, Timestamps, Uid, XattrFlags,
};
use rustix::mount::MountAttrFlags;

use super::identity::Ids;
use super::{About, During, Fault, mounts};
use crate::layers::Layer;
use crate::spec::{JailSpec, Root, Show};
use crate::sys::{self, Attributes, Recursive};
use crate::wire::{OverlayAttributes, Raw};

/// Any folder that the box needs nothing of: where the mapped source of a view is attached, because kernels before
/// 6.15 take no layer that is attached nowhere. The descriptor names it, so one may lie over another.
const PARKING: &str = "/proc/sys";

/// A folder to work in, ready to be attached.
pub(super) struct View {
    tree: OwnedFd,
    target: PathBuf,
}

/// Makes the views as detached mounts, before the old root folder is out of reach.
pub(super) fn prepare(spec: &JailSpec, ids: &Ids) -> Result<Vec<View>, Fault> {
    let view = |root: &Root| {
        let tree = match &root.show {
            Show::Direct => direct(&root.source, ids, "binding the workspace")?,
            Show::Owned => owned(&root.source, ids)?,
            Show::Overlay { upper, work } => overlay(&root.source, upper, work, ids)?,
        };
        if spec.without_code() {
            mounts::without_code(&tree).step(format!("restricting {}", root.source.display()))?;
        }
        Ok(View { tree, target: root.target.clone() })
    };
    spec.roots.iter().map(view).collect()
}

impl View {
    /// Attaches the view below the new root, which is the current folder.
    pub(super) fn attach(&self) -> io::Result<()> {
        mounts::make_dirs(&self.target)?;
        sys::attach(self.tree.as_fd(), &mounts::c_path(mounts::below_root(&self.target))?)
    }
}

fn direct(source: &Path, ids: &Ids, doing: &str) -> Result<OwnedFd, Fault> {
    let tree = writable(source, ids, doing)?;
    folder(&tree).step(format!("{doing} {}", source.display()))?;
    Ok(tree)
}

/// What is at `source` as a detached read-write mount, its owner shown as the box's user.
pub(super) fn writable(source: &Path, ids: &Ids, doing: &str) -> Result<OwnedFd, Fault> {
    let what = || format!("{doing} {}", source.display());
    let path = mounts::c_path(source).step(what())?;
    let recursive = match ids {
        // Mounts below could be of file systems that cannot be mapped; they stay out.
        Ids::Root { .. } => Recursive::No,
        // In a user namespace the kernel only copies mounts together with those below.
        Ids::User { .. } => Recursive::Yes,
    };
    let tree = sys::clone_tree(CWD, &path, recursive).step(what())?;
    let stat = rustix::fs::fstat(&tree).step(what())?;
    let set = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV;
    let idmap = ids.mapping((stat.st_uid, stat.st_gid));
    let attributes = Attributes { set, idmap, recursive };
    let changed = sys::set_attributes(tree.as_fd(), attributes);
    if idmap.is_some() {
        changed.about(About::IdMap(Raw::from(source)), what())?;
    } else {
        changed.layer(Layer::MountNamespace, "restricting the workspace's mount (needs Linux 5.12)")?;
    }
    Ok(tree)
}

/// A folder of the box's user alone.
fn owned(source: &Path, ids: &Ids) -> Result<OwnedFd, Fault> {
    let what = || format!("binding the workspace {}", source.display());
    let top = rustix::fs::open(source, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .step(what())?;
    give(&top, ids).step(format!("giving {} to the box's user", source.display()))?;
    let recursive = if matches!(ids, Ids::Root { .. }) { Recursive::No } else { Recursive::Yes };
    let tree = sys::clone_tree(top.as_fd(), c"", recursive).step(what())?;
    let set = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV;
    sys::set_attributes(tree.as_fd(), Attributes { set, idmap: None, recursive })
        .layer(Layer::MountNamespace, "restricting the workspace's mount (needs Linux 5.12)")?;
    Ok(tree)
}

/// A copy-on-write view of `source`.
fn overlay(source: &Path, upper: &Path, work: &Path, ids: &Ids) -> Result<OwnedFd, Fault> {
    let open = |path: &Path, doing: &str| {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::open(path, flags, Mode::empty())
            .about(About::Overlay, format!("{doing} {}", path.display()))
    };
    let upper_fd = open(upper, "opening the upper layer")?;
    let work_fd = open(work, "opening the work folder")?;
    // Some kernels notice and fail at the first look at that place, some never.
    apart(source, upper)
        .and_then(|()| apart(source, work))
        .about(About::Overlay, format!("keeping changes out of {}", source.display()))?;
    keeps_attributes(&upper_fd, ids).about(
        About::Overlay,
        format!("the file system of {} keeps no extended attributes of the kind needed", upper.display()),
    )?;
    give(&upper_fd, ids).step(format!("giving {} to the box's user", upper.display()))?;
    if let Ids::Root { user, .. } = ids {
        let id = user.id;
        let (uid, gid) = (Uid::from_raw(id), Gid::from_raw(id));
        rustix::fs::fchown(&work_fd, Some(uid), Some(gid))
            .step(format!("giving {} to the box's user", work.display()))?;
    }
    let lower = lower(source, ids)?;
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
    match ids.attributes_kind() {
        OverlayAttributes::Trusted => options.push(("redirect_dir", Some("on"))),
        // Redirects are refused together with attributes that everybody can set.
        OverlayAttributes::User => options.push(("userxattr", None)),
    }
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    sys::new_overlay(&options, attributes).map_err(|refused| {
        let said = if refused.said.is_empty() { String::new() } else { format!(" ({})", refused.said) };
        let step = format!("mounting a view of {}{said}", source.display());
        Fault { about: About::Overlay, step, errno: super::errno(&refused.error) }
    })
}

/// The source of a view. As root it is shown under the box's owner, and attached somewhere.
fn lower(source: &Path, ids: &Ids) -> Result<OwnedFd, Fault> {
    let what = || format!("taking {} as the lower layer", source.display());
    let path = mounts::c_path(source).step(what())?;
    if matches!(ids, Ids::User { .. }) {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        return rustix::fs::open(source, flags, Mode::empty()).step(what());
    }
    let tree = sys::clone_tree(CWD, &path, Recursive::No).step(what())?;
    folder(&tree).step(what())?;
    let stat = rustix::fs::fstat(&tree).step(what())?;
    let idmap = ids.mapping((stat.st_uid, stat.st_gid));
    sys::set_attributes(tree.as_fd(), Attributes { set: sys::READ_ONLY, idmap, recursive: Recursive::No })
        .about(About::Overlay, format!("showing {} under another owner", source.display()))?;
    let parking = mounts::c_path(Path::new(PARKING)).step(what())?;
    sys::attach(tree.as_fd(), &parking).about(About::Overlay, what())?;
    Ok(tree)
}

/// Whether one folder is outside of the other.
fn apart(source: &Path, layer: &Path) -> io::Result<()> {
    let (source, layer) = (std::fs::canonicalize(source)?, std::fs::canonicalize(layer)?);
    if layer.starts_with(&source) || source.starts_with(&layer) {
        return Err(io::Error::from_raw_os_error(libc::ELOOP));
    }
    Ok(())
}

fn folder(fd: &OwnedFd) -> io::Result<()> {
    let stat = rustix::fs::fstat(fd)?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => Ok(()),
        _ => Err(io::Error::from_raw_os_error(libc::ENOTDIR)),
    }
}

/// Whether the attributes that an overlay needs can be set: without them the kernel mounts, and fails later.
fn keeps_attributes(upper: &OwnedFd, ids: &Ids) -> io::Result<()> {
    let name = CString::new(format!("{}forge-check", ids.attributes_kind().prefix()))?;
    rustix::fs::fsetxattr(upper, &name, b"y", XattrFlags::empty())?;
    Ok(rustix::fs::fremovexattr(upper, &name)?)
}

/// Gives a tree to the box's user if its top folder belongs to somebody else. Nothing lives in the tree meanwhile.
fn give(top: &OwnedFd, ids: &Ids) -> io::Result<()> {
    let Ids::Root { user, .. } = ids else { return Ok(()) };
    let id = user.id;
    let owner = rustix::fs::fstat(top)?;
    if (owner.st_uid, owner.st_gid) == (id, id) {
        return Ok(());
    }
    // If this is interrupted, a later box must not take the tree for given because its id is that of an earlier owner.
    rustix::fs::fchown(top, Some(Uid::ROOT), Some(Gid::ROOT))?;
    give_below(top.as_fd(), id)?;
    // Last, so that what was interrupted is done again.
    Ok(rustix::fs::fchown(top, Some(Uid::from_raw(id)), Some(Gid::from_raw(id)))?)
}

/// Gives everything below `top` away, links themselves and not what they point to. It goes back up through `..`, so
/// that neither depth nor length of a path is bounded by descriptors or by the kernel's longest path.
fn give_below(top: BorrowedFd<'_>, id: u32) -> io::Result<()> {
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
            // A change of owner takes these bits away, also when nobody gains by them.
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

/// Tries each view as the box's user: one that silently became read-only must not look like a working one.
pub(super) fn check(spec: &JailSpec) -> Result<(), Fault> {
    for root in spec.roots.iter().filter(|root| matches!(root.show, Show::Overlay { .. })) {
        let why = format!("writing to the view of {}", root.source.display());
        try_writing(&root.target).about(About::Overlay, why)?;
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
        // Its owner took the right away; the folders below have their own.
        return Ok(());
    }
    let name = CString::new(format!("{}start-{}", super::TEMP_PREFIX, std::process::id()))?;
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
