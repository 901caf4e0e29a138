//! Parts that a sandbox started by another program as root needs: an unused user id, and a directory shown as that
//! user's. Native sandboxes do both inside their init.

use std::ffi::CString;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::mount::UnmountFlags;

use super::diagnose;
use super::run_user::ReservedUid;
use crate::id_mapping::create_mapping;
use crate::mount_source::open_source;
use crate::protocol::error::Error;
use crate::sys::{self, MountAttributes, Recursive};
use crate::user_ids;
use forge_jail_protocol::FileIdentity;

/// A user and group id that no other running sandbox of this machine uses while this handle lives.
#[derive(Debug)]
pub struct RunUser(ReservedUid);

impl RunUser {
    /// Reserves an id; `kept` again, for a directory of an earlier sandbox of the run, if that id is free.
    ///
    /// # Errors
    /// When no id is free.
    pub fn reserve(kept: Option<u32>) -> io::Result<Self> {
        ReservedUid::reserve(kept).map(Self)
    }

    /// Returns whether an id is one of those for sandboxes started by root.
    #[must_use]
    pub fn is_run_user_id(id: u32) -> bool {
        user_ids::is_run_user_id(id)
    }

    /// Returns the id of the user, which is also that of the group.
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
    /// Shows the directory `source` at the empty directory `target`, with its owner's files as those of `user`; a bind
    /// mount of it by a container engine keeps that. With an identity, `source` must lead to that directory without a
    /// symbolic link. Needs root. Mounts below `source` are not included.
    ///
    /// # Errors
    /// [`Error::IdMap`] when the file system cannot show its files under another owner, else [`Error::Build`].
    pub fn new(
        source: &Path,
        identity: Option<FileIdentity>,
        target: &Path,
        user: &RunUser,
    ) -> Result<Self, Error> {
        let failed = |error: io::Error| match error.raw_os_error() {
            Some(libc::EINVAL | libc::EPERM | libc::EOPNOTSUPP) => {
                Error::IdMap { path: source.to_owned(), fs: diagnose::file_system_name(source) }
            }
            _ => Error::Build {
                step: format!("showing {} under another owner", source.display()),
                source: error,
            },
        };
        let c_path = |path: &Path| CString::new(path.as_os_str().as_bytes());
        let mount = || -> io::Result<()> {
            let opened = open_source(source, identity)?;
            let owner = rustix::fs::fstat(&opened)?;
            let mapping = create_mapping((owner.st_uid, user.id()), (owner.st_gid, user.id()))?;
            let tree = sys::clone_mount(opened.as_fd(), c"", Recursive::No)?;
            let set = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV;
            let attributes = MountAttributes { set, idmap: Some(mapping.as_fd()), recursive: Recursive::No };
            sys::set_mount_attributes(tree.as_fd(), attributes)?;
            sys::attach_mount(tree.as_fd(), &c_path(target)?)
        };
        mount().map_err(failed)?;
        Ok(Self { target: target.to_owned() })
    }
}

impl Drop for IdMappedMount {
    fn drop(&mut self) {
        // Bind mounts made from it elsewhere remain.
        let _ = rustix::mount::unmount(&self.target, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW);
    }
}
