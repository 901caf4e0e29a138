//! What boxes need that somebody else starts for root: a user id that nothing else uses, and a folder shown as that
//! user's. Native boxes do both inside their init.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::CWD;
use rustix::mount::UnmountFlags;

use crate::error::Error;
use crate::init::{FIRST_UID, ReservedUid, UID_COUNT, id_mapping, to_c_path};
use crate::probe;
use crate::sys::{self, MountAttributes, Recursive};

/// A user and group id that no living box of this machine uses, for as long as this lives.
#[derive(Debug)]
pub struct RunUser(ReservedUid);

impl RunUser {
    /// Takes an id; the same one again for a folder that an earlier box of the run left, if it is free.
    ///
    /// # Errors
    /// When none is free.
    pub fn reserve(kept: Option<u32>) -> io::Result<Self> {
        ReservedUid::reserve(kept).map(Self)
    }

    /// Whether an id is one of those that boxes of root get.
    #[must_use]
    pub fn is_run_user_id(id: u32) -> bool {
        (FIRST_UID..FIRST_UID + UID_COUNT).contains(&id)
    }

    /// The id, of the user and of the group.
    #[must_use]
    pub const fn id(&self) -> u32 {
        self.0.id()
    }
}

/// A mount of this machine that ends with this handle.
#[derive(Debug)]
pub struct IdMappedMount {
    target: std::path::PathBuf,
}

impl IdMappedMount {
    /// Shows the folder `source` at the empty folder `target`, its owner's files as those of `user`: what an engine
    /// then binds into a container keeps that. Needs root. Mounts below `source` stay out.
    ///
    /// # Errors
    /// [`Error::IdMap`] when the file system cannot show its files under another owner, else [`Error::Build`].
    pub fn new(source: &Path, target: &Path, user: &RunUser) -> Result<Self, Error> {
        let failed = |error: io::Error| match error.raw_os_error() {
            Some(libc::EINVAL | libc::EPERM | libc::EOPNOTSUPP) => {
                Error::IdMap { path: source.to_owned(), fs: probe::file_system_name(source) }
            }
            _ => Error::Build {
                step: format!("showing {} under another owner", source.display()),
                source: error,
            },
        };
        let mount = || -> io::Result<()> {
            let owner = fs::metadata(source)?;
            let mapping = id_mapping((owner.uid(), user.id()), (owner.gid(), user.id()))?;
            let tree = sys::clone_mount(CWD, &to_c_path(source)?, Recursive::No)?;
            let set = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV;
            let attributes = MountAttributes { set, idmap: Some(mapping.as_fd()), recursive: Recursive::No };
            sys::set_mount_attributes(tree.as_fd(), attributes)?;
            sys::attach_mount(tree.as_fd(), &to_c_path(target)?)
        };
        mount().map_err(failed)?;
        Ok(Self { target: target.to_owned() })
    }
}

impl Drop for IdMappedMount {
    fn drop(&mut self) {
        // What was bound from it elsewhere stays.
        let _ = rustix::mount::unmount(&self.target, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW);
    }
}
