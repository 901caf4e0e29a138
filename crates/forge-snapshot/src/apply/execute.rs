//! The renames of an apply, each undone if a later one fails, and the clean-up.

use super::ApplyStep;
use super::check::{ActionKind, ApplyPlan, PathAction, find_foreign_entry};
use super::error::{ApplyContext, ChangedSince, ConflictReason, Error};
use super::stage::StagedTemps;
use super::stale_temps::ancestor_dirs;
use super::transaction::{ApplyTransaction, UndoStep, rename_entry, set_mode};
use crate::host::{self, FileStamp, NodeKind};
use crate::{RelPath, TreeNode};
use forge_tree::temp_names::TempKind;
use rustix::fs::RenameFlags;
use rustix::io::Errno;
use std::collections::HashSet;

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
        let held = work.temps.temp_path(TempKind::Old, &holder, &act.path);
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
            let held = work.temps.temp_path(TempKind::Old, &holder, &act.path);
            move_aside(work, act, held)?;
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
            find_foreign_entry(work.sources, work.root, Some(work.temps), now, &HashSet::new())
                .apply_context("read", &at)?
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
