//! An apply in progress: what it has changed so far, and how that is undone.

use super::check::{find_foreign_entry, open_directory};
use super::error::{ApplyContext, Error};
use super::stale_temps::remove_tree;
use super::{ApplyStep, RetainedEntry, StepObserver};
use crate::RelPath;
use crate::bounds::WorkBounds;
use crate::compare::ContentSources;
use crate::host::{self, FileStamp, NodeKind};
use forge_tree::temp_names::TempNames;
use rustix::fs::{AtFlags, RenameFlags};
use rustix::io::Errno;
use std::collections::{BTreeSet, HashSet};
use std::io;
use std::os::fd::{AsFd, OwnedFd};

/// Maximum number of new files that are synced individually; above it, one sync of the file system is cheaper.
pub(super) const MAX_FILE_SYNCS: usize = 64;

/// The undo information of a change.
pub(super) enum UndoStep {
    /// The file at `path` was moved to `held`, or the staged file at `held` was moved to `path`.
    Move { from: RelPath, to: RelPath },
    /// The files at `path` and `temp` were exchanged.
    Exchange { path: RelPath, temp: RelPath },
    /// The permission bits of `found` were changed.
    Mode { path: RelPath, found: FileStamp },
}

/// An apply in progress.
pub(super) struct ApplyTransaction<'a> {
    pub(super) sources: &'a ContentSources<'a>,
    pub(super) root: &'a OwnedFd,
    pub(super) temps: &'a TempNames,
    pub(super) watch: &'a mut StepObserver<'a>,
    pub(super) undo: Vec<UndoStep>,
    /// Staged temporaries.
    pub(super) made: Vec<RelPath>,
    /// Replaced files that are kept until the end: the original path and the current one.
    pub(super) replaced: Vec<(RelPath, RelPath)>,
    /// Directories with changed entries.
    pub(super) touched: BTreeSet<RelPath>,
}

impl<'a> ApplyTransaction<'a> {
    pub(super) fn new(
        sources: &'a ContentSources<'a>,
        root: &'a OwnedFd,
        temps: &'a TempNames,
        watch: &'a mut StepObserver<'a>,
    ) -> Self {
        let (undo, made, replaced) = (Vec::new(), Vec::new(), Vec::new());
        Self { sources, root, temps, watch, undo, made, replaced, touched: BTreeSet::new() }
    }

    /// Reports a step before it happens. The sync is the last step at which the apply can be stopped.
    pub(super) fn notify_step(&mut self, step: ApplyStep<'_>) -> Result<(), Error> {
        self.sources.bounds.check_stopped()?;
        (self.watch)(step).map_err(|source| Error::Stopped { source })
    }

    /// Records a temporary that is about to be created.
    pub(super) fn record_temp(&mut self, temp: RelPath) {
        self.made.push(temp);
    }

    /// Restores everything after the error `failed`.
    pub(super) fn roll_back(&mut self, failed: Error) -> Error {
        let mut left = Vec::new();
        let mut lost: HashSet<RelPath> = HashSet::new();
        while let Some(undo) = self.undo.pop() {
            let (done, path, now) = match undo {
                UndoStep::Move { from, to } => {
                    (rename_entry(self.root, &to, &from, RenameFlags::NOREPLACE), from, to)
                }
                UndoStep::Exchange { path, temp } => {
                    (rename_entry(self.root, &temp, &path, RenameFlags::EXCHANGE), path, temp)
                }
                UndoStep::Mode { path, found } => {
                    (set_mode(self.root, &path, found.mode, &found), path.clone(), path)
                }
            };
            if done.is_err() {
                let on_host = |path: &RelPath| self.sources.repository.join(path.as_path());
                left.push((on_host(&path), on_host(&now)));
                lost.insert(now);
            }
        }
        for temp in self.made.iter().filter(|temp| !lost.contains(*temp)) {
            // The next apply removes remaining temporaries.
            let _ = remove_temp(self.root, temp);
        }
        if left.is_empty() { failed } else { Error::Unfinished { cause: Box::new(failed), left } }
    }

    /// Removes the replaced files. Restores a directory that has gained entries since.
    pub(super) fn remove_replaced(&mut self) -> Vec<RetainedEntry> {
        let mut kept = Vec::new();
        for (path, held) in std::mem::take(&mut self.replaced) {
            let _ = (self.watch)(ApplyStep::Clean(&path));
            let Some((parent, name)) = host::split_path(&held) else { continue };
            let Ok(parent) = open_directory(self.root, parent) else { continue };
            let is_folder = FileStamp::stat_at(&parent, name).is_ok_and(|stamp| stamp.kind == NodeKind::Dir);
            let flags = if is_folder { AtFlags::REMOVEDIR } else { AtFlags::empty() };
            if let Err(Errno::NOTEMPTY | Errno::EXIST) = rustix::fs::unlinkat(&parent, name, flags) {
                let sources = unbounded_sources(self.sources);
                let entry = find_foreign_entry(&sources, self.root, Some(self.temps), &held, &HashSet::new())
                    .ok()
                    .flatten();
                let back = rename_entry(self.root, &held, &path, RenameFlags::NOREPLACE);
                let entry = entry.and_then(|entry| host::split_path(&entry).map(|(_, name)| name.to_vec()));
                let now = if back.is_ok() { path } else { held };
                kept.push(RetainedEntry { holds: now.join(&entry.unwrap_or_default()), path: now });
            }
        }
        kept
    }

    pub(super) fn record_move(&mut self, path: &RelPath, to: &RelPath) {
        self.touched.extend([path, to].into_iter().filter_map(RelPath::parent));
    }

    pub(super) fn sync_touched(&mut self) -> Result<(), Error> {
        self.notify_step(ApplyStep::Sync)?;
        if self.touched.len() > MAX_FILE_SYNCS {
            return rustix::fs::syncfs(self.root).apply_context("sync", self.sources.repository);
        }
        for path in &self.touched {
            // A directory that cannot be opened for reading cannot be synced on its own.
            match host::open_below(self.root.as_fd(), path.as_bytes(), host::DIR_OPEN_FLAGS) {
                Ok(open) => {
                    rustix::fs::fsync(open)
                        .apply_context("sync", &self.sources.repository.join(path.as_path()))?;
                }
                Err(_) => rustix::fs::syncfs(self.root).apply_context("sync", self.sources.repository)?,
            }
        }
        Ok(())
    }
}

/// Returns the same sources without bounds, for work that must be done even after a stop.
pub(super) fn unbounded_sources<'a>(place: &ContentSources<'a>) -> ContentSources<'a> {
    ContentSources { bounds: WorkBounds::unbounded(), ..*place }
}

pub(super) fn set_mode(root: &OwnedFd, path: &RelPath, mode: u32, found: &FileStamp) -> io::Result<()> {
    let (parent, name) = host::split_path(path).ok_or(io::ErrorKind::InvalidInput)?;
    let is_found = |now: &FileStamp| (now.kind, now.ino, now.dev) == (found.kind, found.ino, found.dev);
    host::set_mode_if(open_directory(root, parent)?, name, mode, is_found)
}

pub(super) fn rename_entry(
    root: &OwnedFd,
    from: &RelPath,
    to: &RelPath,
    flags: RenameFlags,
) -> io::Result<()> {
    let (from, from_name) = host::split_path(from).ok_or(io::ErrorKind::InvalidInput)?;
    let (to, to_name) = host::split_path(to).ok_or(io::ErrorKind::InvalidInput)?;
    let (from, to) = (open_directory(root, from)?, open_directory(root, to)?);
    match rustix::fs::renameat_with(&from, from_name, &to, to_name, flags) {
        // The file system does not support the flags.
        Err(Errno::INVAL) if flags == RenameFlags::NOREPLACE => match FileStamp::stat_at(&to, to_name) {
            Ok(_) => Err(Errno::EXIST.into()),
            Err(error) if host::is_absent(&error) => {
                Ok(rustix::fs::renameat(&from, from_name, &to, to_name)?)
            }
            Err(error) => Err(error),
        },
        done => Ok(done?),
    }
}

/// Removes a temporary recursively.
fn remove_temp(root: &OwnedFd, path: &RelPath) -> io::Result<()> {
    let (parent, name) = host::split_path(path).ok_or(io::ErrorKind::InvalidInput)?;
    let parent = open_directory(root, parent)?;
    if FileStamp::stat_at(&parent, name)?.kind == NodeKind::Dir {
        return remove_tree(&parent, name);
    }
    Ok(rustix::fs::unlinkat(parent, name, AtFlags::empty())?)
}
