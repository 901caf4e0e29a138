//! The private directory of a sandbox on the host: its socket, and the small files that are bound into the container.
//!
//! Only this user can enter its parent directory, so only the container reaches the socket.

use super::error::Error;
use forge_files::PrivateDir;
use forge_jail::HOME_PATH;
use rustix::fs::{Mode, OFlags};
use rustix::mount::UnmountFlags;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use std::fs::{self, Permissions};
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// Kind of these directories.
const SANDBOX_DIR_KIND: &str = "box";
/// Kind of the empty directories around which a sandbox is probed.
pub(super) const PROBE_DIR_KIND: &str = "probe";

/// A private directory, removed with its contents when dropped.
#[derive(Debug)]
pub(crate) struct ContainerHostDir {
    root: PathBuf,
}

impl Drop for ContainerHostDir {
    fn drop(&mut self) {
        unmount_and_remove(&self.root);
    }
}

/// Removes a private directory. Directories in it are only mount points: remaining mounts are detached, and nothing
/// below them is touched.
fn unmount_and_remove(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            let _ = rustix::mount::unmount(&path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW);
            let _ = fs::remove_dir(&path);
        } else {
            let _ = fs::remove_file(&path);
        }
    }
    let _ = fs::remove_dir(folder);
}

impl ContainerHostDir {
    /// Creates a directory below `parent`, for a sandbox that runs as `user`.
    pub(crate) fn new(parent: &PrivateDir, user: (u32, u32)) -> Result<Self, Error> {
        let folder = parent.path().join(forge_files::owned_temp_name(SANDBOX_DIR_KIND));
        let made = fs::DirBuilder::new().mode(0o700).create(&folder);
        made.map_err(Error::host_failure(format!("creating the directory {}", folder.display())))?;
        let place = Self { root: folder };
        let fill = || -> io::Result<()> {
            let (uid, gid) = user;
            let passwd = format!(
                "root:x:0:0:root:/nonexistent:/usr/sbin/nologin\nforge:x:{uid}:{gid}:forge:{HOME_PATH}:/bin/sh\n\
                 nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
            );
            place.write_file("passwd", &passwd, 0o644)?;
            place.write_file("group", &format!("root:x:0:\nforge:x:{gid}:\nnogroup:x:65534:\n"), 0o644)?;
            place.write_file("covered", "", 0o000)?;
            fs::DirBuilder::new().mode(0o000).create(place.entry_path("covered-folder"))?;
            Ok(())
        };
        fill().map_err(Error::host_failure("filling the sandbox's private directory"))?;
        Ok(place)
    }

    /// Returns the container's name, which is unique on this machine.
    pub(crate) fn container_name(&self) -> String {
        self.root.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Returns a path in the directory.
    pub(crate) fn entry_path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Creates an empty directory as a mount point.
    pub(crate) fn create_mount_point(&self, name: &str) -> io::Result<PathBuf> {
        let path = self.entry_path(name);
        fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(path)
    }

    /// Returns the path of the socket.
    pub(crate) fn socket_path(&self) -> PathBuf {
        self.entry_path("box.sock")
    }

    /// Writes a file in the directory.
    pub(crate) fn write_file(&self, name: &str, text: &str, mode: u32) -> io::Result<PathBuf> {
        let path = self.entry_path(name);
        fs::write(&path, text)?;
        fs::set_permissions(&path, Permissions::from_mode(mode))?;
        Ok(path)
    }

    /// Creates the socket that the container's init connects to.
    pub(crate) fn listen(&self) -> io::Result<OwnedFd> {
        let folder = rustix::fs::open(&self.root, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        // Socket addresses are short; a path through the descriptor always fits.
        let path = format!("/proc/self/fd/{}/box.sock", folder.as_raw_fd());
        rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
        // For any user that the sandbox may run as; the directory excludes all others.
        fs::set_permissions(self.socket_path(), Permissions::from_mode(0o666))?;
        rustix::net::listen(&socket, 1)?;
        Ok(socket)
    }
}

/// Removes directories of dead processes. A parent directory of another user is not examined.
pub(super) fn remove_stale_dirs(parent: &Path) {
    let Ok(parent) = PrivateDir::open(parent) else { return };
    for folder in forge_files::find_stale(parent.path(), &[SANDBOX_DIR_KIND]) {
        unmount_and_remove(&folder);
    }
    forge_files::remove_stale(parent.path(), &[PROBE_DIR_KIND]);
}
