//! The root folder of the box, built from nothing and made the only one the box can see.

use std::ffi::{CStr, OsStr};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::mount::{MountAttrFlags, MountPropagationFlags};

use super::identity::Ids;
use super::mounts::{self, Blank};
use super::{About, During, Fault, etc, roots};
use crate::image;
use crate::layers::Layer;
use crate::loader::Helper;
use crate::spec::{HELPER, JailSpec, Missing, Weakness};
use crate::sys::{self, Attributes, Recursive};

/// System folders of the host. `/usr` is always a folder; the others are links into it on most systems.
const SYSTEM: &[&str] = &["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"];

/// Folders at the top of an image that the box makes itself, or that belong to that system's users and state.
const NOT_OF_IMAGE: &[&str] = &[
    "proc",
    "dev",
    "sys",
    "tmp",
    "run",
    "home",
    "root",
    "workspace",
    "etc",
    "var",
    "cache",
    "code",
    "mnt",
    "media",
    "boot",
    "lost+found",
];

/// Devices that hold nothing.
const DEVICES: &[&str] = &["null", "zero", "full", "random", "urandom"];

/// Files of /proc that every user may read and that tell about the machine or its other users.
const HIDDEN: &[&str] = &[
    "keys",
    "key-users",
    "kallsyms",
    "kcore",
    "kmsg",
    "timer_list",
    "sched_debug",
    "latency_stats",
    "config.gz",
    "modules",
    "interrupts",
    "softirqs",
    "iomem",
    "ioports",
    "slabinfo",
    "sysrq-trigger",
    "acpi",
    "scsi",
    "asound",
    "driver",
    "bus",
    "irq",
    "tty",
    "dynamic_debug",
];

/// Where the new root folder is attached while it is built, because it has to be somewhere until the old one is
/// forgotten. Nobody needs anything of this folder, while another one could hold the workspace or something to bind.
const SCAFFOLD: &CStr = c"/proc/driver";

/// The root folder with all that boxes have in common.
pub(super) struct Ground {
    root: OwnedFd,
    blank: Blank,
}

/// Builds what does not depend on the workspace: the system, devices, `/proc`, `/etc` and the temporary places. It becomes
/// the current folder; the old root folder is still in reach.
pub(super) fn build(spec: &JailSpec, helper: Option<&Helper>, ids: &Ids) -> Result<Ground, Fault> {
    let mounts_layer = Layer::MountNamespace;
    // Nothing mounted here shows up outside, nothing mounted outside shows up here.
    rustix::mount::mount_change(c"/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .layer(mounts_layer, "making mounts private")?;
    // Before anything is parked below it.
    let outer_proc = if spec.lacks(Weakness::PidNamespace) {
        Some(sys::clone_tree(CWD, c"/proc", Recursive::Yes).step("taking /proc")?)
    } else {
        None
    };
    let (uid, gid) = ids.owner();
    let options = [("mode", "0755".to_owned()), ("size", "8m".to_owned())];
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    let root = sys::new_mount("tmpfs", &options, attributes).layer(mounts_layer, "making the root folder")?;
    let own = std::fs::read_link("/proc/self/exe").step("finding the own binary")?;
    let image =
        spec.image.as_deref().map(image::open).transpose().about(About::Image, "opening the image")?;
    sys::attach(root.as_fd(), SCAFFOLD).layer(mounts_layer, "attaching the root folder")?;
    rustix::process::fchdir(&root).step("entering the root folder")?;

    // Before the binds: one of them may lie below it.
    temporary(spec, uid, gid).step("making /tmp")?;
    match &image {
        None => host_system()?,
        Some(image) => image_system(image.as_fd()).step("binding the image's folders")?,
    }
    helpers(helper, &own)?;
    etc::fill(spec, ids.inside(), image.as_ref()).step("filling /etc")?;
    devices().step("filling /dev")?;
    let blank = Blank::new().step("making covers for masked files")?;
    process_files(spec, ids, outer_proc, &blank)?;
    Ok(Ground { root, blank })
}

/// Adds what this box alone has: its binds and workspaces, with their masks. Then moves into the root folder.
pub(super) fn furnish(spec: &JailSpec, ids: &Ids, ground: Ground) -> Result<(), Fault> {
    let mounts_layer = Layer::MountNamespace;
    let Ground { root, blank } = ground;
    let views = roots::prepare(spec, ids)?;
    binds(spec, ids)?;
    for view in &views {
        view.attach().step("attaching the workspace")?;
    }
    if !spec.lacks(Weakness::Masks) {
        mask(spec, &blank)?;
    }
    if spec.lacks(Weakness::ReadOnlySystem) {
        for folder in [c".", c"etc"] {
            rustix::fs::chmod(folder, Mode::from_raw_mode(0o777)).step("opening the root folder")?;
        }
        return sys::pivot_here().layer(mounts_layer, "changing the root folder");
    }

    let read_only = Attributes { set: sys::READ_ONLY, idmap: None, recursive: Recursive::No };
    sys::set_attributes(root.as_fd(), read_only).step("making the root folder read-only")?;
    sys::pivot_here().layer(mounts_layer, "changing the root folder")
}

fn attach_at(mount: &OwnedFd, target: &str) -> io::Result<()> {
    mounts::make_dirs(Path::new(target))?;
    sys::attach(mount.as_fd(), &mounts::c_path(mounts::below_root(Path::new(target)))?)
}

/// The host's programs and libraries.
fn host_system() -> Result<(), Fault> {
    for folder in SYSTEM.iter().map(Path::new) {
        match std::fs::read_link(folder) {
            Ok(target) => {
                rustix::fs::symlink(&target, mounts::below_root(folder)).step("linking system folders")?;
            }
            Err(_) if folder.is_dir() => mounts::bind_read_only(folder, folder)
                .layer(Layer::MountNamespace, "binding system folders")?,
            Err(_) => {}
        }
    }
    Ok(())
}

/// The image's folders in the place of the host's. Links at its top are made again, which lead where they lead inside.
fn image_system(image: BorrowedFd<'_>) -> io::Result<()> {
    let listed =
        rustix::fs::openat(image, c".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let mut entries = rustix::fs::Dir::read_from(&listed)?;
    while let Some(entry) = entries.read() {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." || name.to_str().is_ok_and(|name| NOT_OF_IMAGE.contains(&name)) {
            continue;
        }
        let stat = rustix::fs::statat(image, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let target = Path::new("/").join(OsStr::from_bytes(name.to_bytes()));
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => mounts::bind_inside(image, name, &target)?,
            FileType::Symlink => {
                let link = rustix::fs::readlinkat(image, name, Vec::new())?;
                rustix::fs::symlink(link, mounts::below_root(&target))?;
            }
            _ => {}
        }
    }
    // What packages left about themselves.
    match mounts::bind_inside(image, c"var/lib", Path::new("/var/lib")) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// The caller's binary, and the list of processors.
fn helpers(helper: Option<&Helper>, own: &Path) -> Result<(), Fault> {
    let cpus = Path::new("/sys/devices/system/cpu");
    if cpus.is_dir() {
        // Programs that size their thread pools look here.
        mounts::bind_read_only(cpus, cpus).step("binding the list of processors")?;
    }
    let replaced = |file: &Path| format!("binding {} (was it replaced while running?)", file.display());
    match helper {
        // By its path: /proc/self/exe leads to a mount of the namespace that was left. A binary replaced since the
        // start has no path any more.
        None => mounts::bind_read_only(own, Path::new(HELPER)).step(replaced(own)),
        Some(helper) => helper
            .files()
            .iter()
            .try_for_each(|f| mounts::bind_read_only(&f.source, &f.target).step(replaced(&f.source))),
    }
}

/// What the caller wants shown beside the workspace.
fn binds(spec: &JailSpec, ids: &Ids) -> Result<(), Fault> {
    let mut binds: Vec<_> = spec.binds.iter().collect();
    // Outer targets first, so that an inner one lands on top of it.
    binds.sort_by_key(|b| b.target.components().count());
    for bind in binds {
        match mounts::bind_read_only(&bind.source, &bind.target) {
            Err(e) if e.kind() == io::ErrorKind::NotFound && bind.missing == Missing::Skip => {}
            other => other.step(format!("binding {}", bind.source.display()))?,
        }
    }
    for bind in &spec.writable {
        if !bind.source.exists() && bind.missing == Missing::Skip {
            continue;
        }
        let tree = roots::writable(&bind.source, ids, "binding")?;
        if spec.without_code() {
            mounts::without_code(&tree).step(format!("binding {}", bind.source.display()))?;
        }
        mounts::place(&tree, &bind.target).step(format!("binding {}", bind.source.display()))?;
    }
    Ok(())
}

fn devices() -> io::Result<()> {
    mounts::make_dirs(Path::new("dev"))?;
    for name in DEVICES {
        let path = Path::new("/dev").join(name);
        mounts::bind_device(&path, &path)?;
    }
    let links = [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
        ("ptmx", "pts/ptmx"),
    ];
    for (name, target) in links {
        rustix::fs::symlink(target, Path::new("dev").join(name))?;
    }
    let options = [("mode", "0620".to_owned()), ("ptmxmode", "0666".to_owned())];
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    attach_at(&sys::new_mount("devpts", &options, attributes)?, "dev/pts")
}

/// The private writable places: `/tmp` with the home folder, `/dev/shm`.
fn temporary(spec: &JailSpec, uid: u32, gid: u32) -> io::Result<()> {
    let mut attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    if spec.without_code() {
        attributes |= MountAttrFlags::MOUNT_ATTR_NOEXEC;
    }
    let options = |size: u64| {
        [
            ("mode", "1777".to_owned()),
            ("uid", uid.to_string()),
            ("gid", gid.to_string()),
            ("size", size.to_string()),
            // Empty files cost kernel memory that the size does not count.
            ("nr_inodes", (size / 4096).clamp(1024, 1 << 20).to_string()),
        ]
    };
    let tmp = sys::new_mount("tmpfs", &options(spec.limits.tmp_bytes), attributes)?;
    rustix::fs::mkdirat(&tmp, "home", Mode::from_raw_mode(0o700))?;
    rustix::fs::chownat(
        &tmp,
        "home",
        Some(rustix::fs::Uid::from_raw(uid)),
        Some(rustix::fs::Gid::from_raw(gid)),
        rustix::fs::AtFlags::empty(),
    )?;
    attach_at(&tmp, "tmp")?;
    if let Some(bytes) = spec.caches {
        attach_at(&sys::new_mount("tmpfs", &options(bytes), attributes)?, "cache")?;
    }
    let shm = sys::new_mount("tmpfs", &options(spec.limits.tmp_bytes / 4), attributes)?;
    attach_at(&shm, "dev/shm")?;
    mounts::make_dirs(Path::new("var"))?;
    rustix::fs::symlink("/tmp", "var/tmp")?;
    rustix::fs::symlink("/run", "var/run")?;
    Ok(())
}

/// A fresh /proc, read-only as a whole: that covers every sysctl and trigger in it at once.
fn process_files(spec: &JailSpec, ids: &Ids, outer: Option<OwnedFd>, blank: &Blank) -> Result<(), Fault> {
    let mut attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    if !spec.lacks(Weakness::ReadOnlyProc) {
        attributes |= MountAttrFlags::MOUNT_ATTR_RDONLY;
    }
    let proc = if let Some(outer) = outer {
        let set = u64::from(attributes.bits());
        sys::set_attributes(outer.as_fd(), Attributes { set, idmap: None, recursive: Recursive::No })
            .step("restricting /proc")?;
        outer
    } else {
        sys::new_mount("proc", &[], attributes)
            .layer(Layer::PidNamespace, "mounting /proc (a container that masks its own /proc forbids it)")?
    };
    attach_at(&proc, "proc").step("attaching /proc")?;
    if spec.lacks(Weakness::ProcHidden) {
        return Ok(());
    }
    for name in HIDDEN {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        if let Ok(target) = rustix::fs::openat(CWD, PathBuf::from("proc").join(name), flags, Mode::empty()) {
            let stat = rustix::fs::fstat(&target).step(format!("looking at /proc/{name}"))?;
            // What only the host's root may open needs no cover: nobody in the box is that.
            if stat.st_mode & 0o007 != 0 || stat.st_uid == ids.owner().0 {
                blank.cover(target.as_fd()).step(format!("covering /proc/{name}"))?;
            }
        }
    }
    Ok(())
}

/// Covers the masked paths. Links are not followed: a link that carries a masked name is harmless itself, and
/// what it points to has a name of its own.
fn mask(spec: &JailSpec, blank: &Blank) -> Result<(), Fault> {
    if spec.masked.is_empty() {
        return Ok(());
    }
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let root = rustix::fs::openat(CWD, "workspace", flags, Mode::empty()).step("opening the workspace")?;
    for path in &spec.masked {
        let how = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        match rustix::fs::openat2(&root, path.as_path(), flags | OFlags::NOFOLLOW, Mode::empty(), how) {
            Ok(target) => {
                let kind = rustix::fs::fstat(&target).step(format!("looking at {path}"))?;
                if FileType::from_raw_mode(kind.st_mode) != FileType::Symlink {
                    blank.cover(target.as_fd()).step(format!("masking {path}"))?;
                }
            }
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR | rustix::io::Errno::LOOP) => {}
            Err(errno) => return Err(errno).step(format!("masking {path}")),
        }
    }
    Ok(())
}
