//! Access to the directories of a workspace owned by the current user, regardless of their modes.

use super::super::Tracker;
use crate::error::{Error, IoContext};
use crate::host::{self, DIR_OPEN_FLAGS, FileStamp, NodeKind};
use crate::node::RelPath;
use rustix::fs::{AtFlags, Gid, Mode, OFlags, Uid};
use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

/// Access to directories. Opens them, records modes to set at the end, and sets the owner of created files.
pub(super) struct DirAccess<'a> {
    tracker: &'a Tracker,
    last: Option<(RelPath, Arc<OwnedFd>)>,
    modes: BTreeMap<RelPath, u32>,
    root: bool,
}

/// Returns a temporary name that no file of a workspace has. What a killed restore leaves under such a name is an entry
/// that no snapshot contains, which the next restore removes.
pub(super) fn temp_name() -> Vec<u8> {
    format!(".forge-tmp-restore-{:016x}", RandomState::new().hash_one(std::process::id())).into_bytes()
}

impl<'a> DirAccess<'a> {
    pub(super) fn new(tracker: &'a Tracker) -> Self {
        let root = rustix::process::geteuid().is_root();
        Self { tracker, last: None, modes: BTreeMap::new(), root }
    }

    /// Opens a directory in which entries can be created and removed.
    pub(super) fn writable_directory(&mut self, path: &RelPath) -> Result<Arc<OwnedFd>, Error> {
        if let Some((last, fd)) = &self.last
            && last == path
        {
            return Ok(fd.clone());
        }
        let opened = if self.root { self.open_directory(path) } else { self.open_by_force(path) };
        let fd = Arc::new(opened.io_context("open", &self.tracker.workspace_path().join(path.as_path()))?);
        self.last = Some((path.clone(), fd.clone()));
        Ok(fd)
    }

    fn open_directory(&self, path: &RelPath) -> io::Result<OwnedFd> {
        host::open_below(self.tracker.root.as_fd(), path.as_bytes(), OFlags::PATH | DIR_OPEN_FLAGS)
    }

    /// Grants the current user all rights in every directory of the path; the modes are restored at the end.
    fn open_by_force(&mut self, path: &RelPath) -> io::Result<OwnedFd> {
        if let Ok(fd) = self.open_directory(path)
            && FileStamp::stat_open(&fd)?.mode & 0o700 == 0o700
        {
            return Ok(fd);
        }
        let mut at = self.tracker.root.fd().try_clone()?;
        let mut so_far = RelPath::default();
        self.make_passable(&at, &so_far)?;
        for part in path.components() {
            at = rustix::fs::openat(&at, part, OFlags::PATH | DIR_OPEN_FLAGS, Mode::empty())?;
            so_far = so_far.join(part);
            self.make_passable(&at, &so_far)?;
        }
        Ok(at)
    }

    fn make_passable(&mut self, folder: &OwnedFd, path: &RelPath) -> io::Result<()> {
        let stamp = FileStamp::stat_open(folder)?;
        if stamp.mode & 0o700 != 0o700 {
            self.modes.entry(path.clone()).or_insert(stamp.mode);
            host::set_mode(folder, stamp.mode | 0o700)?;
        }
        Ok(())
    }

    /// Defers setting the mode of a directory until the end.
    pub(super) fn defer_mode(&mut self, path: &RelPath, mode: u32) {
        self.modes.insert(path.clone(), mode);
    }

    /// Sets the owner of a created entry to the owner of the workspace.
    pub(super) fn set_owner(&self, folder: &OwnedFd, name: &[u8]) -> io::Result<()> {
        let Some((user, group)) = self.tracker.options.owner.filter(|_| self.root) else {
            return Ok(());
        };
        let (user, group) = (Uid::from_raw(user), Gid::from_raw(group));
        Ok(rustix::fs::chownat(folder, name, Some(user), Some(group), AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// Sets the modes of directories, deepest first.
    pub(super) fn finish(mut self) -> Result<(), Error> {
        self.last = None;
        for (path, mode) in std::mem::take(&mut self.modes).into_iter().rev() {
            let set = self.open_directory(&path).and_then(|folder| {
                let stamp = FileStamp::stat_open(&folder)?;
                if stamp.kind == NodeKind::Dir && stamp.mode != mode {
                    host::set_mode(&folder, mode)
                } else {
                    Ok(())
                }
            });
            match set {
                // The directory was removed.
                Err(error) if host::is_absent(&error) => {}
                set => {
                    set.io_context("set the mode of", &self.tracker.workspace_path().join(path.as_path()))?
                }
            }
        }
        Ok(())
    }
}
