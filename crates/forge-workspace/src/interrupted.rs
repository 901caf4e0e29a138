//! Applies that were interrupted by the death of their process, and how they are undone before other work begins on the
//! repository: a half-applied result is no state that a run may begin with.

use super::apply_index::{IndexEntry, index_entries, load_indexed};
use super::apply_marker::InterruptedApply;
use super::layout::{WorkspaceLayout, WorkspaceMeta};
use super::offline::{ApplyFailure, InversePolicy, OfflineAccess, OfflineWorkspace, SkippedPaths};
use super::repos::{self, OpenRepo};
use super::{OpenError, WorkspaceStorage};
use forge_ports::sandbox::Error;
use forge_ports::workspace_store::MergePolicy;
use forge_snapshot::WorkBounds;
use forge_types::RunId;
use std::fs;

/// Returns whether a run was applied to one of these repositories, or to a directory in or around one.
fn is_concerned(meta: &WorkspaceMeta, repos: &[OpenRepo]) -> bool {
    let theirs = repos::open_available_repos(meta);
    theirs.iter().any(|theirs| repos.iter().any(|ours| ours.shares_files_with(theirs)))
}

/// Returns whether the index has a run that is or was being applied to one of the repositories.
pub(crate) fn has_interrupted_applies(store: &WorkspaceStorage, repos: &[OpenRepo]) -> Result<bool, Error> {
    let mut runs = index_entries(store)?.into_iter();
    Ok(runs.any(|(run, store)| load_indexed(&store, run).is_some_and(|meta| is_concerned(&meta, repos))))
}

/// Undoes the interrupted applies to these repositories, as a cancellation of the applied runs does: those stay as they
/// are and can be applied again. Paths that changed since keep their state. Returns notes on these paths.
///
/// # Errors
/// Returns [`OpenError::Busy`] while a process works on such a run or applies it. The object stores of a workspace and the
/// locks of its repositories give exclusive access, so nothing is undone under a living process.
pub(crate) fn undo_interrupted_applies(
    store: &WorkspaceStorage,
    repos: &[OpenRepo],
    bounds: &WorkBounds,
) -> Result<Vec<String>, OpenError> {
    let mut notes = Vec::new();
    for (run, store) in index_entries(store)? {
        if load_indexed(&store, run).is_some_and(|meta| is_concerned(&meta, repos)) {
            notes.extend(undo_interrupted_apply(&store, run, bounds).map_err(|error| explain(run, error))?);
        }
    }
    Ok(notes)
}

/// Undoes the interrupted applies of all runs in a storage that is about to be removed: the contents of the files that
/// they replaced are nowhere else. Returns notes on paths that changed since. Blocks the thread.
///
/// # Errors
/// Returns the first error, after which the storage must be kept.
pub fn undo_applies_before_removal(store: &WorkspaceStorage) -> Result<Vec<String>, Error> {
    let mut notes = Vec::new();
    let runs = fs::read_dir(&store.workspaces).into_iter().flatten().flatten();
    for run in runs.filter_map(|entry| entry.file_name().to_str()?.parse::<RunId>().ok()) {
        let place = WorkspaceLayout::for_run(&store.workspaces, run);
        // A repository that is gone or replaced by another one needs nothing.
        let is_there = |meta: &WorkspaceMeta| repos::open_available_repos(meta).len() == meta.repos.len();
        if InterruptedApply::load(&place).is_some() && place.load_meta()?.is_some_and(|meta| is_there(&meta))
        {
            let undone = undo_interrupted_apply(store, run, WorkBounds::unbounded());
            notes.extend(undone.map_err(OpenError::into_error)?);
        }
        IndexEntry::for_run(store, run).remove();
    }
    Ok(notes)
}

fn undo_interrupted_apply(
    store: &WorkspaceStorage,
    run: RunId,
    bounds: &WorkBounds,
) -> Result<Option<String>, OpenError> {
    let closed =
        OfflineWorkspace::open(store, run, OfflineAccess::ChangeRecorded, &bounds.without_ceilings())?;
    let Some(interrupted) = InterruptedApply::load(&closed.layout) else {
        // It ended, or did not begin. With exclusive access to the workspace, nothing is written meanwhile.
        IndexEntry::for_run(store, run).remove();
        return Ok(None);
    };
    let mut skipped = SkippedPaths::default();
    loop {
        match revert(&closed, &interrupted, store, &skipped) {
            Ok(()) => break,
            Err(ApplyFailure::Repositories(failed)) => match skipped.add_conflicts(&failed) {
                true => {}
                false => return Err(closed.apply_error(failed).into()),
            },
            Err(ApplyFailure::Other(error)) => return Err(error.into()),
        }
    }
    InterruptedApply::remove(&closed.layout, &IndexEntry::for_run(store, run));
    let paths = closed.describe_paths(&skipped);
    Ok((!paths.is_empty()).then(|| {
        format!("the interrupted apply of run {run} was undone, except for paths that changed since: {paths}")
    }))
}

/// Reverts an interrupted apply of a closed workspace as a whole.
pub(crate) fn revert_completely(
    closed: &OfflineWorkspace,
    interrupted: &InterruptedApply,
    store: &WorkspaceStorage,
) -> Result<(), Error> {
    revert(closed, interrupted, store, &SkippedPaths::default()).map_err(|failure| failure.into_error(closed))
}

fn revert(
    closed: &OfflineWorkspace,
    InterruptedApply { from, to, .. }: &InterruptedApply,
    store: &WorkspaceStorage,
    skipped: &SkippedPaths,
) -> Result<(), ApplyFailure> {
    // Complete the apply first, so that the repository is in one state. What it finds already done is no change of its
    // own, so the reversal covers all differences.
    closed.try_apply((*from, *to), MergePolicy::No, InversePolicy::ByDiff(skipped), store)?;
    closed.try_apply((*to, *from), MergePolicy::No, InversePolicy::ByDiff(skipped), store)?;
    Ok(())
}

fn explain(run: RunId, error: OpenError) -> OpenError {
    match error {
        OpenError::Busy(_) => {
            let why = format!("run {run} is being applied to the repository; wait until it ends");
            OpenError::Busy(Error::View { why })
        }
        OpenError::Failed(Error::Stopped) => Error::Stopped.into(),
        OpenError::Failed(error) => {
            let why = format!(
                "an interrupted apply of run {run} left a part of its result in the repository, and undoing it failed: \
                 {error}; apply or cancel that run first"
            );
            Error::View { why }.into()
        }
    }
}
