//! The renames of an apply, each undone if a later one fails, and the clean-up.

use super::check::{ActionKind, ApplyPlan, PathAction, find_foreign_entry, open_directory};
use super::error::{ApplyContext, ChangedSince, ConflictReason, Error};
use super::stage::{MAX_FILE_SYNCS, StagedTemps, ancestor_dirs};
use super::stale_temps::{OLD_TEMP_PREFIX, remove_tree, temp_path};
use super::{ApplyStep, RetainedEntry, StepObserver};
use crate::bounds::WorkBounds;
use crate::compare::ContentSources;
use crate::host::{self, FileStamp, NodeKind};
use crate::{RelPath, TreeNode};
use rustix::fs::{AtFlags, RenameFlags};
use rustix::io::Errno;
use std::collections::{BTreeSet, HashSet};
use std::io;
use std::os::fd::{AsFd, OwnedFd};

/// The undo information of a change.
enum UndoStep {
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
    watch: &'a mut StepObserver<'a>,
    undo: Vec<UndoStep>,
    /// Staged temporaries.
    made: Vec<RelPath>,
    /// Replaced files that are kept until the end: the original path and the current one.
    replaced: Vec<(RelPath, RelPath)>,
    /// Directories with changed entries.
    touched: BTreeSet<RelPath>,
}

impl<'a> ApplyTransaction<'a> {
    pub(super) fn new(
        sources: &'a ContentSources<'a>,
        root: &'a OwnedFd,
        watch: &'a mut StepObserver<'a>,
    ) -> Self {
        let (undo, made, replaced) = (Vec::new(), Vec::new(), Vec::new());
        Self { sources, root, watch, undo, made, replaced, touched: BTreeSet::new() }
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
                let entry =
                    find_foreign_entry(&unbounded_sources(self.sources), self.root, &held, &HashSet::new())
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

    fn record_move(&mut self, path: &RelPath, to: &RelPath) {
        self.touched.extend([path, to].into_iter().filter_map(RelPath::parent));
    }

    fn sync_touched(&mut self) -> Result<(), Error> {
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
fn unbounded_sources<'a>(place: &ContentSources<'a>) -> ContentSources<'a> {
    ContentSources { bounds: WorkBounds::unbounded(), ..*place }
}

/// Executes `plan` with the `staged` temporaries.
pub(super) fn execute_plan(
    work: &mut ApplyTransaction<'_>,
    plan: &ApplyPlan,
    staged: &StagedTemps,
) -> Result<(), Error> {
    let is_folder = |act: &PathAction| act.found.is_some_and(|found| found.kind == NodeKind::Dir);
    let leaves = |act: &&PathAction| {
        act.how == ActionKind::Remove || (act.how == ActionKind::Replace && is_folder(act))
    };
    let leaving: HashSet<&RelPath> = plan.acts.iter().filter(leaves).map(|act| &act.path).collect();
    if !rustix::process::geteuid().is_root() {
        // Otherwise their entries could not be moved out.
        for act in plan.acts.iter().filter(leaves) {
            if let Some(found) =
                act.found.filter(|found| found.kind == NodeKind::Dir && found.mode & 0o700 != 0o700)
            {
                change_mode(work, &act.path, found, found.mode | 0o700)?;
            }
        }
    }
    for act in plan.acts.iter().rev().filter(|act| act.how == ActionKind::Remove) {
        work.notify_step(ApplyStep::Act(&act.path))?;
        let holder = ancestor_dirs(&act.path).find(|folder| !leaving.contains(folder)).unwrap_or_default();
        let held = temp_path(OLD_TEMP_PREFIX, &holder, &act.path);
        move_aside(work, act, held)?;
    }
    for act in plan.acts.iter().filter(|act| act.how == ActionKind::Replace) {
        let Some(temp) = staged.get(&act.path) else { continue };
        work.notify_step(ApplyStep::Act(&act.path))?;
        if act.found.is_some() {
            exchange_staged(work, act, temp)?
        } else {
            publish_staged(work, &act.path, temp)?
        }
    }
    for act in plan.acts.iter().filter(|act| act.how == ActionKind::Mode) {
        if let (
            Some(found),
            Some(
                TreeNode::File { mode: wanted, .. }
                | TreeNode::Dir { mode: wanted }
                | TreeNode::Fifo { mode: wanted },
            ),
        ) = (&act.found, &act.after)
        {
            work.notify_step(ApplyStep::Act(&act.path))?;
            change_mode(work, &act.path, *found, *wanted)?;
        }
    }
    work.sync_touched()
}

/// Moves a file to a path where it is kept until the end.
fn move_aside(work: &mut ApplyTransaction<'_>, act: &PathAction, held: RelPath) -> Result<(), Error> {
    let at = work.sources.repository.join(act.path.as_path());
    match rename_entry(work.root, &act.path, &held, RenameFlags::NOREPLACE) {
        Err(error) if host::is_absent(&error) => {
            return Err(Error::single_conflict(
                &act.path,
                ConflictReason::Deleted { since: ChangedSince::Now },
            ));
        }
        done => done.apply_context("remove", &at)?,
    }
    work.record_move(&act.path, &held);
    work.undo.push(UndoStep::Move { from: act.path.clone(), to: held.clone() });
    work.replaced.push((act.path.clone(), held.clone()));
    check_unchanged(work, act, &held)
}

/// Replaces a file by its staged temporary.
fn exchange_staged(work: &mut ApplyTransaction<'_>, act: &PathAction, temp: &RelPath) -> Result<(), Error> {
    let at = work.sources.repository.join(act.path.as_path());
    match rename_entry(work.root, temp, &act.path, RenameFlags::EXCHANGE) {
        // The file system does not support exchange: use two renames.
        Err(error) if Errno::from_io_error(&error) == Some(Errno::INVAL) => {
            let holder = act.path.parent().unwrap_or_default();
            move_aside(work, act, temp_path(OLD_TEMP_PREFIX, &holder, &act.path))?;
            return publish_staged(work, &act.path, temp);
        }
        Err(error) if host::is_absent(&error) => {
            return Err(Error::single_conflict(
                &act.path,
                ConflictReason::Deleted { since: ChangedSince::Now },
            ));
        }
        done => done.apply_context("replace", &at)?,
    }
    work.record_move(&act.path, temp);
    work.undo.push(UndoStep::Exchange { path: act.path.clone(), temp: temp.clone() });
    work.replaced.push((act.path.clone(), temp.clone()));
    check_unchanged(work, act, temp)
}

/// Moves a staged temporary to a path that does not exist.
fn publish_staged(work: &mut ApplyTransaction<'_>, path: &RelPath, temp: &RelPath) -> Result<(), Error> {
    let at = work.sources.repository.join(path.as_path());
    match rename_entry(work.root, temp, path, RenameFlags::NOREPLACE) {
        Err(error) if Errno::from_io_error(&error) == Some(Errno::EXIST) => {
            let is = FileStamp::stat_below(work.root, path)
                .ok()
                .flatten()
                .map_or(NodeKind::Other, |stamp| stamp.kind);
            return Err(Error::single_conflict(path, ConflictReason::New { is }));
        }
        done => done.apply_context("write", &at)?,
    }
    work.record_move(path, temp);
    work.undo.push(UndoStep::Move { from: temp.clone(), to: path.clone() });
    Ok(())
}

/// Checks that the moved file is the checked one: another process may have written to it between the check and the
/// rename.
fn check_unchanged(work: &ApplyTransaction<'_>, act: &PathAction, now: &RelPath) -> Result<(), Error> {
    let at = work.sources.repository.join(act.path.as_path());
    let (Some(found), Some(stamp)) =
        (&act.found, FileStamp::stat_below(work.root, now).apply_context("inspect", &at)?)
    else {
        return Ok(());
    };
    let same = (found.kind, found.ino, found.dev) == (stamp.kind, stamp.ino, stamp.dev);
    let told = found.kind == NodeKind::Dir || (found.size, found.mtime_ns) == (stamp.size, stamp.mtime_ns);
    if !same || !told {
        return Err(Error::single_conflict(&act.path, ConflictReason::Changed { since: ChangedSince::Now }));
    }
    if found.kind == NodeKind::Dir
        && act.after.is_some()
        && let Some(entry) =
            find_foreign_entry(work.sources, work.root, now, &HashSet::new()).apply_context("read", &at)?
    {
        return Err(Error::single_conflict(&act.path, ConflictReason::Holds { entry }));
    }
    Ok(())
}

fn change_mode(
    work: &mut ApplyTransaction<'_>,
    path: &RelPath,
    found: FileStamp,
    wanted: u32,
) -> Result<(), Error> {
    let at = work.sources.repository.join(path.as_path());
    set_mode(work.root, path, wanted, &found).apply_context("change the permissions of", &at)?;
    work.undo.push(UndoStep::Mode { path: path.clone(), found });
    Ok(())
}

fn set_mode(root: &OwnedFd, path: &RelPath, mode: u32, found: &FileStamp) -> io::Result<()> {
    let (parent, name) = host::split_path(path).ok_or(io::ErrorKind::InvalidInput)?;
    let is_found = |now: &FileStamp| (now.kind, now.ino, now.dev) == (found.kind, found.ino, found.dev);
    host::set_mode_if(open_directory(root, parent)?, name, mode, is_found)
}

fn rename_entry(root: &OwnedFd, from: &RelPath, to: &RelPath, flags: RenameFlags) -> io::Result<()> {
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
