//! The private folder of a box on the host: its socket, and the small files that are bound into the container.
//!
//! It lies in a folder that only this user can enter, so nobody but the container reaches the socket.

use super::error::Error;
use super::owner;
use forge_jail::HOME;
use rustix::fs::{Mode, OFlags};
use rustix::mount::UnmountFlags;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use std::fs::{self, Permissions};
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

const PREFIX: &str = "forge-box-";

/// A private folder. It is removed with everything in it when this is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    folder: PathBuf,
}

impl Drop for Place {
    fn drop(&mut self) {
        clear(&self.folder);
    }
}

/// Removes a private folder. Folders in it are only ever places to mount something: what is still mounted there is
/// let go of, and nothing below is touched.
fn clear(folder: &Path) {
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
    // The folder of all of them as well, if this was the last.
    let _ = folder.parent().map(fs::remove_dir);
}

impl Place {
    /// A new folder below `parent`, which is made if it is missing, for a box that runs as `user`.
    pub(crate) fn new(parent: &Path, user: (u32, u32)) -> Result<Self, Error> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let pid = std::process::id();
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let begun = owner::started(pid).unwrap_or_default();
        let folder = parent.join(format!("{PREFIX}{pid}-{begun}-{number}"));
        let make = || private(parent).and_then(|()| fs::DirBuilder::new().mode(0o700).create(&folder));
        // Another process may just take away the folder of all, which was empty.
        make()
            .or_else(|error| if error.kind() == io::ErrorKind::NotFound { make() } else { Err(error) })
            .map_err(Error::host(format!("making the folder {}", folder.display())))?;
        let place = Self { folder };
        let fill = || -> io::Result<()> {
            let (uid, gid) = user;
            let passwd = format!(
                "root:x:0:0:root:/nonexistent:/usr/sbin/nologin\nforge:x:{uid}:{gid}:forge:{HOME}:/bin/sh\n\
                 nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
            );
            place.file("passwd", &passwd, 0o644)?;
            place.file("group", &format!("root:x:0:\nforge:x:{gid}:\nnogroup:x:65534:\n"), 0o644)?;
            place.file("covered", "", 0o000)?;
            fs::DirBuilder::new().mode(0o000).create(place.path("covered-folder"))?;
            Ok(())
        };
        fill().map_err(Error::host("filling the box's private folder"))?;
        Ok(place)
    }

    /// The container's name: unique among those of this machine.
    pub(crate) fn name(&self) -> String {
        self.folder.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// A path in it.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// An empty folder in it, to mount something at.
    pub(crate) fn mount_point(&self, name: &str) -> io::Result<PathBuf> {
        let path = self.path(name);
        fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(path)
    }

    /// The socket's path.
    pub(crate) fn socket(&self) -> PathBuf {
        self.path("box.sock")
    }

    /// Writes a file in it.
    pub(crate) fn file(&self, name: &str, text: &str, mode: u32) -> io::Result<PathBuf> {
        let path = self.path(name);
        fs::write(&path, text)?;
        fs::set_permissions(&path, Permissions::from_mode(mode))?;
        Ok(path)
    }

    /// The socket that the container's init connects to.
    pub(crate) fn listen(&self) -> io::Result<OwnedFd> {
        let folder = rustix::fs::open(&self.folder, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        // The address of a socket is short; a path through the descriptor always fits.
        let path = format!("/proc/self/fd/{}/box.sock", folder.as_raw_fd());
        rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
        // Whoever the box runs as; the folder keeps all others away.
        fs::set_permissions(self.socket(), Permissions::from_mode(0o666))?;
        rustix::net::listen(&socket, 1)?;
        Ok(socket)
    }
}

/// Makes a folder for this user alone; one that exists must be just that.
fn private(folder: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let found = fs::symlink_metadata(folder)?;
    if !found.is_dir() || found.uid() != rustix::process::geteuid().as_raw() {
        return Err(io::Error::other("it belongs to somebody else"));
    }
    if found.mode() & 0o077 != 0 {
        fs::set_permissions(folder, Permissions::from_mode(0o700))?;
    }
    Ok(())
}

/// Removes folders of processes that are gone.
pub(super) fn prune(parent: &Path) {
    let entries = fs::read_dir(parent).into_iter().flatten().flatten();
    for entry in entries {
        let name = entry.file_name();
        let Some(rest) = name.to_str().and_then(|n| n.strip_prefix(PREFIX)) else { continue };
        let mut parts = rest.split('-');
        let (Some(pid), Some(begun)) = (parts.next().and_then(|p| p.parse().ok()), parts.next()) else {
            continue;
        };
        if owner::started(pid).as_deref() != Some(begun) {
            clear(&entry.path());
        }
    }
    let _ = fs::remove_dir(parent);
}
