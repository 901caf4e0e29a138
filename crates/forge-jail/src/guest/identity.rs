//! The user and group that the sandbox runs as: never user 0 of the host.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

use rustix::fs::{CWD, Mode, OFlags};
use rustix::thread::UnshareFlags;

use super::{InitSetupError, SetupContext, share};
use crate::id_mapping::create_unreaped_mapping;
use crate::sys;
use crate::user_ids::{can_change_user, map_to_outer};
use forge_jail_protocol::{IsolationLayer, JailSpec, LayerReport, OverlayAttributes, RootMode};

/// The id that sandboxes started by root see as their own.
const INNER_ID: u32 = 1000;

/// An owner on disk, user and group, and the user namespace that shows its files as the sandbox's.
type OwnerMapping = ((u32, u32), OwnedFd);

/// The id as the init has it: sent by the process that owns the sandbox, with the name if there is one.
#[derive(Debug)]
pub(crate) struct InheritedUid {
    pub(crate) id: u32,
    pub(super) _name: Option<OwnedFd>,
}

/// The ids of a sandbox.
#[derive(Debug)]
pub(crate) enum JailIds {
    /// Started by root: an unused id outside, 1000 inside.
    Root {
        /// The unused id, reserved while the sandbox lives.
        user: InheritedUid,
        /// For each owner of a path that the sandbox may write, a user namespace with a mapping that shows the owner's
        /// files as the unused id's.
        mappings: Vec<OwnerMapping>,
        /// The host's /proc, to write the mapping after the sandbox has its own.
        proc: OwnedFd,
    },
    /// Started by an ordinary user: the own id outside and inside.
    User {
        /// User id.
        uid: u32,
        /// Group id.
        gid: u32,
    },
}

/// Decides the ids. For an ordinary user this enters the user namespace; root was given a `user` to become.
pub(super) fn prepare_ids(spec: &JailSpec, user: Option<InheritedUid>) -> Result<JailIds, InitSetupError> {
    let (uid, gid) = sys::effective_ids();
    let map = std::fs::read_to_string("/proc/self/uid_map").step_context("reading /proc/self/uid_map")?;
    if !can_change_user(&map) {
        if uid == 0 && map_to_outer(&map, 0) == Some(0) {
            // User 0 of the host with a mapping that contains no free id: there is no other user to become.
            let error = io::Error::from_raw_os_error(libc::EPERM);
            return Err(error)
                .layer_context(IsolationLayer::UserNamespace, "finding an unused user id to run as");
        }
        unshare_namespaces(UnshareFlags::NEWUSER)
            .layer_context(IsolationLayer::UserNamespace, "entering a user namespace")?;
        write_own_maps(CWD, "/proc/self", (uid, uid), (gid, gid))
            .layer_context(IsolationLayer::UserNamespace, "writing the user namespace's mapping")?;
        return Ok(JailIds::User { uid, gid });
    }
    let missing = || io::Error::from_raw_os_error(libc::EINVAL);
    let user = user.ok_or_else(missing).step_context("being told an unused user id")?;
    let mappings = create_mappings(spec, user.id)?;
    let proc = rustix::fs::open(c"/proc", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .step_context("opening /proc")?;
    Ok(JailIds::Root { user, mappings, proc })
}

/// Creates one mapping for each owner of a mapped root or a writable bind.
fn create_mappings(spec: &JailSpec, id: u32) -> Result<Vec<OwnerMapping>, InitSetupError> {
    let roots =
        spec.roots.iter().filter(|root| root.mode != RootMode::Owned).map(|root| (&root.source, true));
    let binds = spec.writable.iter().map(|bind| (&bind.source, false));
    let mut mappings: Vec<OwnerMapping> = Vec::with_capacity(1);
    for (path, must) in roots.chain(binds) {
        let owner = match std::fs::metadata(path) {
            Ok(owner) => (owner.uid(), owner.gid()),
            Err(_) if !must => continue,
            Err(error) => {
                return Err(error).step_context(format!("looking at the workspace {}", path.display()));
            }
        };
        if mappings.iter().all(|(known, _)| *known != owner) {
            // The first process reaps it, in parallel with the init.
            let (mapping, _) = create_unreaped_mapping((owner.0, id), (owner.1, id)).layer_context(
                IsolationLayer::UserNamespace,
                "making the mapping of the workspace's owner",
            )?;
            mappings.push((owner, mapping));
        }
    }
    Ok(mappings)
}

impl JailIds {
    /// Returns the mapping that shows files of `owner`; `None` for an ordinary user, who has the same ids inside.
    pub(super) fn mapping_for(&self, owner: (u32, u32)) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Root { mappings, .. } => {
                mappings.iter().find(|(known, _)| *known == owner).map(|(_, fd)| fd.as_fd())
            }
            Self::User { .. } => None,
        }
    }

    /// Returns the kind of attributes that an overlay made by this user has.
    pub(super) fn overlay_attributes_kind(&self) -> OverlayAttributes {
        match self {
            Self::Root { .. } => OverlayAttributes::Trusted,
            Self::User { .. } => OverlayAttributes::User,
        }
    }

    /// Returns the attributes of the sandbox's overlays, if it has any.
    pub(super) fn overlay_attributes(&self, spec: &JailSpec) -> Option<OverlayAttributes> {
        let any = spec.roots.iter().any(|root| matches!(root.mode, RootMode::Overlay { .. }));
        any.then(|| self.overlay_attributes_kind())
    }

    /// Returns the user and group that own files the sandbox may write, as passed to mounts.
    pub(super) fn outer_ids(&self) -> (u32, u32) {
        match self {
            Self::Root { user, .. } => (user.id, user.id),
            Self::User { uid, gid } => (*uid, *gid),
        }
    }

    /// Returns the user and group as programs inside see themselves.
    pub(super) fn inner_ids(&self) -> (u32, u32) {
        match self {
            Self::Root { .. } => (INNER_ID, INNER_ID),
            Self::User { uid, gid } => (*uid, *gid),
        }
    }

    /// Becomes the sandbox's user permanently.
    pub(super) fn enter_user(
        self,
        spec: &JailSpec,
        layers: &mut Vec<LayerReport>,
    ) -> Result<(), InitSetupError> {
        const NO_SETUID_FIXUP: libc::c_ulong = 1 << 2;
        let how = match self {
            Self::User { uid, .. } => format!("as user {uid}"),
            Self::Root { proc, user, .. } => {
                let id = user.id;
                // Otherwise the change of user would drop capabilities that some kernels require below.
                sys::prctl(libc::PR_SET_SECUREBITS, NO_SETUID_FIXUP, 0)
                    .step_context("keeping capabilities")?;
                sys::switch_ids(id, id).step_context("becoming the unused user id")?;
                unshare_namespaces(UnshareFlags::NEWUSER)
                    .layer_context(IsolationLayer::UserNamespace, "entering a user namespace")?;
                // The mapping's file belongs to root while the process counts as privileged.
                sys::prctl(libc::PR_SET_DUMPABLE, 1, 0)
                    .step_context("opening the mapping to the own user")?;
                write_own_maps(proc.as_fd(), "self", (INNER_ID, id), (INNER_ID, id))
                    .layer_context(IsolationLayer::UserNamespace, "writing the user namespace's mapping")?;
                share::limit_user_counts(proc.as_fd(), spec, layers);
                layers.push(LayerReport::enforced(IsolationLayer::IdMappedMount, ""));
                // The sandbox's init holds the id until it ends.
                std::mem::forget(user);
                format!("as unused id {id}")
            }
        };
        layers.push(LayerReport::enforced(IsolationLayer::UserNamespace, how));
        Ok(())
    }
}

/// Moves this process from the caller's namespaces into new ones. The process has one thread.
pub(super) fn unshare_namespaces(flags: UnshareFlags) -> io::Result<()> {
    sys::unshare(flags)
}

/// Maps one user and one group `inside -> outside`; `base` is a process directory of a /proc.
fn write_own_maps(dir: impl AsFd, base: &str, user: (u32, u32), group: (u32, u32)) -> io::Result<()> {
    let write = |name: &str, text: &str| -> io::Result<()> {
        let mut path = String::new();
        let _ = write!(path, "{base}/{name}");
        let fd = rustix::fs::openat(&dir, path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
        File::from(fd).write_all(text.as_bytes())
    };
    // Without this an ordinary user could drop a group that denies access; the kernel demands it.
    write("setgroups", "deny")?;
    write("uid_map", &format!("{} {} 1", user.0, user.1))?;
    write("gid_map", &format!("{} {} 1", group.0, group.1))
}
