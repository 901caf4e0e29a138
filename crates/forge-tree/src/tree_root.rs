//! The root directory of a tree, opened once.

use crate::host::{self, DIR_OPEN_FLAGS, FileStamp};
use rustix::fs::{Mode, OFlags};
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A directory that was opened once. Everything in it is reached through the descriptor: its path is for messages,
/// because another user may own a directory above it and put another one, or a link, in its place at any time.
#[derive(Clone, Debug)]
pub struct TreeRoot {
    fd: Arc<OwnedFd>,
    path: PathBuf,
}

impl TreeRoot {
    /// Opens a directory. Links are followed, because the caller names the path.
    ///
    /// # Errors
    /// Returns the host's error if `path` is not a readable directory.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { fd: Arc::new(host::open_root(path)?), path: path.to_owned() })
    }

    /// Opens a directory by an absolute path in which nothing is a symbolic link.
    ///
    /// # Errors
    /// Fails for a relative path or a symbolic link in it, or returns the host's error.
    pub fn open_without_links(path: &Path) -> io::Result<Self> {
        let below = path.as_os_str().as_bytes().strip_prefix(b"/").ok_or(io::ErrorKind::InvalidInput)?;
        let top = rustix::fs::open("/", OFlags::PATH | DIR_OPEN_FLAGS, Mode::empty())?;
        let fd = host::open_below(top.as_fd(), below, DIR_OPEN_FLAGS)?;
        Ok(Self { fd: Arc::new(fd), path: path.to_owned() })
    }

    /// Returns the path by which the directory was opened, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the path of an entry, for messages.
    pub fn join(&self, below: impl AsRef<Path>) -> PathBuf {
        self.path.join(below)
    }

    /// Returns the descriptor.
    pub fn fd(&self) -> &OwnedFd {
        &self.fd
    }

    /// Returns a path that leads this process to the directory as long as it is open, wherever it was moved.
    pub fn descriptor_path(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.fd.as_raw_fd()).into()
    }

    /// Returns the directory's metadata.
    ///
    /// # Errors
    /// Returns the host's error.
    pub fn stamp(&self) -> io::Result<FileStamp> {
        FileStamp::stat_open(&*self.fd)
    }
}

impl AsFd for TreeRoot {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_directory_is_found_by_a_path_without_links_and_stays_the_same_one() {
        let dir = tempfile::tempdir().unwrap();
        let top = std::fs::canonicalize(dir.path()).unwrap();
        std::fs::create_dir_all(top.join("real/below")).unwrap();
        symlink("real", top.join("link")).unwrap();
        for path in ["link", "link/below", "real/../link"] {
            assert!(TreeRoot::open_without_links(&top.join(path)).is_err(), "{path}");
        }
        assert!(TreeRoot::open_without_links(Path::new("real")).is_err(), "it is relative");
        assert!(TreeRoot::open_without_links(Path::new("/")).is_ok());
        let root = TreeRoot::open_without_links(&top.join("real")).unwrap();
        std::fs::rename(top.join("real"), top.join("moved")).unwrap();
        symlink("/", top.join("real")).unwrap();
        std::fs::write(root.descriptor_path().join("file"), "x").unwrap();
        assert_eq!(std::fs::read(top.join("moved/file")).unwrap(), b"x");
        assert_eq!(root.join("file"), top.join("real/file"));
    }
}
