//! The root directory of the sandbox, built from scratch and made the only one the sandbox can see.

use std::ffi::{CStr, OsStr};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::mount::{MountAttrFlags, MountPropagationFlags};

use super::identity::JailIds;
use super::mounts::{self, MaskCover};
use super::{InitSetupError, SetupContext, etc, roots};
use crate::image;
use crate::protocol::helper_binary::HelperBinary;
use crate::protocol::startup::FailureCause;
use crate::sys::{self, MountAttributes, Recursive};
use forge_jail_protocol::{DisabledProtection, HELPER_PATH, IsolationLayer, JailSpec, MissingSource};

/// System directories of the host. `/usr` is always a directory; the others are links into it on most systems.
const SYSTEM_DIRS: &[&str] = &["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"];

/// Top-level directories of an image that the sandbox creates itself, or that belong to that system's users and state.
const SKIPPED_IMAGE_DIRS: &[&str] = &[
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

/// Devices that store nothing.
const DEVICE_NAMES: &[&str] = &["null", "zero", "full", "random", "urandom"];

/// Files of /proc that every user may read and that reveal the machine or its other users.
const HIDDEN_PROC_FILES: &[&str] = &[
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

/// The path where the new root directory is attached while it is built, because it needs a mount point until the old
/// one is detached. This directory is never needed, while another one could contain the workspace or a bind source.
const SCAFFOLD_PATH: &CStr = c"/proc/driver";

/// The root directory with the parts common to all sandboxes.
pub(super) struct RootFs {
    root: OwnedFd,
    blank: MaskCover,
}

/// Builds the parts that do not depend on the workspace: the system, devices, `/proc`, `/etc` and the temporary
/// directories. The new root becomes the current directory; the old one is still in reach.
pub(super) fn build_root_fs(
    spec: &JailSpec,
    helper: Option<&HelperBinary>,
    ids: &JailIds,
) -> Result<RootFs, InitSetupError> {
    let mounts_layer = IsolationLayer::MountNamespace;
    // Mounts made here are not visible outside, and mounts made outside are not visible here.
    rustix::mount::mount_change(c"/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .layer_context(mounts_layer, "making mounts private")?;
    // Before anything is attached below it.
    let outer_proc = if spec.lacks_protection(DisabledProtection::PidNamespace) {
        Some(sys::clone_mount(CWD, c"/proc", Recursive::Yes).step_context("taking /proc")?)
    } else {
        None
    };
    let (uid, gid) = ids.outer_ids();
    let options = [("mode", "0755".to_owned()), ("size", "8m".to_owned())];
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    let root = sys::new_mount("tmpfs", &options, attributes)
        .layer_context(mounts_layer, "making the root folder")?;
    let own = std::fs::read_link("/proc/self/exe").step_context("finding the own binary")?;
    let image = spec
        .image
        .as_deref()
        .map(image::open_image)
        .transpose()
        .cause_context(FailureCause::Image, "opening the image")?;
    sys::attach_mount(root.as_fd(), SCAFFOLD_PATH)
        .layer_context(mounts_layer, "attaching the root folder")?;
    rustix::process::fchdir(&root).step_context("entering the root folder")?;

    // Before the binds: one of them may be below it.
    mount_temporary_dirs(spec, uid, gid).step_context("making /tmp")?;
    match &image {
        None => bind_host_system()?,
        Some(image) => bind_image_system(image.as_fd()).step_context("binding the image's folders")?,
    }
    bind_helpers(helper, &own)?;
    etc::populate_etc(spec, ids.inner_ids(), image.as_ref()).step_context("filling /etc")?;
    create_devices().step_context("filling /dev")?;
    let blank = MaskCover::new().step_context("making covers for masked files")?;
    mount_proc(spec, ids, outer_proc, &blank)?;
    Ok(RootFs { root, blank })
}

/// Adds the parts specific to this sandbox: its binds and workspaces, with their masks. Then moves into the root
/// directory.
pub(super) fn complete_root_fs(spec: &JailSpec, ids: &JailIds, ground: RootFs) -> Result<(), InitSetupError> {
    let mounts_layer = IsolationLayer::MountNamespace;
    let RootFs { root, blank } = ground;
    let views = roots::prepare_roots(spec, ids)?;
    apply_binds(spec, ids)?;
    for view in &views {
        view.attach().step_context("attaching the workspace")?;
    }
    if !spec.lacks_protection(DisabledProtection::Masks) {
        apply_masks(spec, &blank)?;
    }
    if spec.lacks_protection(DisabledProtection::ReadOnlySystem) {
        for folder in [c".", c"etc"] {
            rustix::fs::chmod(folder, Mode::from_raw_mode(0o777)).step_context("opening the root folder")?;
        }
        return sys::pivot_to_cwd().layer_context(mounts_layer, "changing the root folder");
    }

    let read_only = MountAttributes { set: sys::READ_ONLY_ATTRS, idmap: None, recursive: Recursive::No };
    sys::set_mount_attributes(root.as_fd(), read_only).step_context("making the root folder read-only")?;
    sys::pivot_to_cwd().layer_context(mounts_layer, "changing the root folder")
}

fn attach_at(mount: &OwnedFd, target: &str) -> io::Result<()> {
    mounts::make_dirs(Path::new(target))?;
    sys::attach_mount(mount.as_fd(), &mounts::to_c_path(mounts::below_root(Path::new(target)))?)
}

/// Binds the host's programs and libraries.
fn bind_host_system() -> Result<(), InitSetupError> {
    for folder in SYSTEM_DIRS.iter().map(Path::new) {
        match std::fs::read_link(folder) {
            Ok(target) => {
                rustix::fs::symlink(&target, mounts::below_root(folder))
                    .step_context("linking system folders")?;
            }
            Err(_) if folder.is_dir() => mounts::bind_read_only(folder, folder)
                .layer_context(IsolationLayer::MountNamespace, "binding system folders")?,
            Err(_) => {}
        }
    }
    Ok(())
}

/// Binds the image's directories instead of the host's. Links at its top are recreated and resolve inside.
fn bind_image_system(image: BorrowedFd<'_>) -> io::Result<()> {
    let listed =
        rustix::fs::openat(image, c".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let mut entries = rustix::fs::Dir::read_from(&listed)?;
    while let Some(entry) = entries.read() {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." || name.to_str().is_ok_and(|name| SKIPPED_IMAGE_DIRS.contains(&name))
        {
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
    // Data that packages keep about themselves.
    match mounts::bind_inside(image, c"var/lib", Path::new("/var/lib")) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Binds the caller's binary, and the list of processors.
fn bind_helpers(helper: Option<&HelperBinary>, own: &Path) -> Result<(), InitSetupError> {
    let cpus = Path::new("/sys/devices/system/cpu");
    if cpus.is_dir() {
        // Programs that size their thread pools look here.
        mounts::bind_read_only(cpus, cpus).step_context("binding the list of processors")?;
    }
    let replaced = |file: &Path| format!("binding {} (was it replaced while running?)", file.display());
    match helper {
        // By its path: /proc/self/exe leads to a mount of the previous namespace. A binary replaced since the start no
        // longer has a path.
        None => mounts::bind_read_only(own, Path::new(HELPER_PATH)).step_context(replaced(own)),
        Some(helper) => helper
            .required_binds()
            .iter()
            .try_for_each(|f| mounts::bind_read_only(&f.source, &f.target).step_context(replaced(&f.source))),
    }
}

/// Binds the caller's paths other than the workspace.
fn apply_binds(spec: &JailSpec, ids: &JailIds) -> Result<(), InitSetupError> {
    let mut binds: Vec<_> = spec.binds.iter().collect();
    // Outer targets first, so that an inner one is mounted on top of it.
    binds.sort_by_key(|b| b.target.components().count());
    for bind in binds {
        match mounts::bind_examined(bind) {
            Err(e) if e.kind() == io::ErrorKind::NotFound && bind.missing == MissingSource::Skip => {}
            other => other.step_context(format!("binding {}", bind.source.display()))?,
        }
    }
    for bind in &spec.writable {
        if !bind.source.exists() && bind.missing == MissingSource::Skip {
            continue;
        }
        let tree = roots::clone_writable(&bind.source, None, ids, "binding")?;
        if spec.forbids_written_code() {
            mounts::forbid_exec(&tree).step_context(format!("binding {}", bind.source.display()))?;
        }
        mounts::attach_tree(&tree, &bind.target)
            .step_context(format!("binding {}", bind.source.display()))?;
    }
    Ok(())
}

fn create_devices() -> io::Result<()> {
    mounts::make_dirs(Path::new("dev"))?;
    for name in DEVICE_NAMES {
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

/// Mounts the private writable directories: `/tmp` with the home directory, `/dev/shm`.
fn mount_temporary_dirs(spec: &JailSpec, uid: u32, gid: u32) -> io::Result<()> {
    let mut attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    if spec.forbids_written_code() {
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

/// Mounts a fresh /proc, read-only as a whole: that covers every sysctl and trigger in it at once.
fn mount_proc(
    spec: &JailSpec,
    ids: &JailIds,
    outer: Option<OwnedFd>,
    blank: &MaskCover,
) -> Result<(), InitSetupError> {
    let mut attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    if !spec.lacks_protection(DisabledProtection::ReadOnlyProc) {
        attributes |= MountAttrFlags::MOUNT_ATTR_RDONLY;
    }
    let proc = if let Some(outer) = outer {
        let set = u64::from(attributes.bits());
        sys::set_mount_attributes(
            outer.as_fd(),
            MountAttributes { set, idmap: None, recursive: Recursive::No },
        )
        .step_context("restricting /proc")?;
        outer
    } else {
        sys::new_mount("proc", &[], attributes).layer_context(
            IsolationLayer::PidNamespace,
            "mounting /proc (a container that masks its own /proc forbids it)",
        )?
    };
    attach_at(&proc, "proc").step_context("attaching /proc")?;
    if spec.lacks_protection(DisabledProtection::ProcHidden) {
        return Ok(());
    }
    for name in HIDDEN_PROC_FILES {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        if let Ok(target) = rustix::fs::openat(CWD, PathBuf::from("proc").join(name), flags, Mode::empty()) {
            let stat = rustix::fs::fstat(&target).step_context(format!("looking at /proc/{name}"))?;
            // Files that only the host's root may open need no cover: no process in the sandbox has that id.
            if stat.st_mode & 0o007 != 0 || stat.st_uid == ids.outer_ids().0 {
                blank.mount_over(target.as_fd()).step_context(format!("covering /proc/{name}"))?;
            }
        }
    }
    Ok(())
}

/// Covers the masked paths. Links are not followed: a link with a masked name is harmless itself, and its target has a
/// name of its own.
fn apply_masks(spec: &JailSpec, blank: &MaskCover) -> Result<(), InitSetupError> {
    if spec.masked.is_empty() {
        return Ok(());
    }
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let root =
        rustix::fs::openat(CWD, "workspace", flags, Mode::empty()).step_context("opening the workspace")?;
    for path in &spec.masked {
        let how = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        match rustix::fs::openat2(&root, path.as_path(), flags | OFlags::NOFOLLOW, Mode::empty(), how) {
            Ok(target) => {
                let kind = rustix::fs::fstat(&target).step_context(format!("looking at {path}"))?;
                if FileType::from_raw_mode(kind.st_mode) != FileType::Symlink {
                    blank.mount_over(target.as_fd()).step_context(format!("masking {path}"))?;
                }
            }
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR | rustix::io::Errno::LOOP) => {}
            Err(errno) => return Err(errno).step_context(format!("masking {path}")),
        }
    }
    Ok(())
}
