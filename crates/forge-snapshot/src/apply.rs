//! Applies a state to a repository: conflict check, three-way merge, all or nothing.
//!
//! An apply has five steps, of which only the third changes visible files:
//! 1. *check*: every path to change must be as the first state describes it;
//! 2. *stage*: new contents are written under temporary names next to their paths;
//! 3. *act*: renames of single paths, which are undone if a later one fails;
//! 4. *sync*: everything is made durable;
//! 5. *clean*: replaced files, kept until now, are removed.
//!
//! If the process is killed, each path of the repository is either in its old or in its new state; repeating the
//! apply completes it. Paths are resolved by descriptors, without following symbolic links and never outside the
//! repository. Setuid and setgid bits that a run set are dropped, because the file would run with the rights of the
//! repository's owner. Extended attributes are not copied; replacing one of several hard links makes it a separate
//! file.

mod check;
mod error;
mod execute;
mod lock;
mod merge;
mod stage;
mod stale_temps;
mod transaction;

pub use error::{ChangedSince, ConflictReason, Error, Mergeable, PathConflict};
pub use lock::{LockWait, RepoLockGuard, lock_repository};
pub use merge::{MergeResult, merge_texts};

use crate::bounds::WorkBounds;
use crate::compare::{ContentSources, TreeChange, compare_deltas};
use crate::{DeltaEntry, RelPath, TreeDelta, TreeNode, TreeRoot, host};
use check::ActionKind;
use error::ApplyContext;
use forge_tree::temp_names::TempNames;
use forge_types::Digest;
use std::borrow::Cow;
use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

/// The setuid and setgid bits.
const SETID_BITS: u32 = 0o6000;

/// The handling of text files that were also changed in the repository.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum MergeMode {
    /// The changes are conflicts.
    #[default]
    No,
    /// The changes are merged if all of them merge cleanly; otherwise they are conflicts.
    Clean,
}

/// A step of an apply, reported before it happens.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ApplyStep<'a> {
    /// Writes new content next to this path.
    Stage(&'a RelPath),
    /// Changes this path.
    Act(&'a RelPath),
    /// Makes everything durable.
    Sync,
    /// Removes the replaced file of this path. An observer's error has no effect, because the apply is complete.
    Clean(&'a RelPath),
}

/// A callback for each step, before it happens. An error ends the apply and restores the repository.
pub type StepObserver<'a> = dyn FnMut(ApplyStep<'_>) -> io::Result<()> + 'a;

/// The files of the repository at the paths that change or have changed already, with known contents.
pub type Originals<'a, 'n> = dyn Iterator<Item = (&'n RelPath, &'n TreeNode)> + 'a;

/// A callback that receives what an apply replaces, once, when the contents are in the store and before anything is
/// changed: what it records restores the repository after a killed apply. An error ends the apply.
pub type OriginalsObserver<'a> = dyn FnMut(&mut Originals<'_, '_>) -> io::Result<()> + 'a;

/// Options of an apply.
#[derive(Default)]
pub struct ApplyOptions<'a> {
    /// The handling of text files that changed on both sides.
    pub merge: MergeMode,
    /// The callback for each step: progress, cancellation, fault injection in tests.
    pub watch: Option<&'a mut StepObserver<'a>>,
    /// The callback for what the apply replaces.
    pub originals: Option<&'a mut OriginalsObserver<'a>>,
}

/// A directory that was retained although the target state does not contain it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RetainedEntry {
    /// The directory.
    pub path: RelPath,
    /// An entry of the directory that is unknown to the run.
    pub holds: RelPath,
}

/// The result of an apply.
#[derive(Clone, Debug, Default)]
pub struct ApplyResult {
    /// The changes, with complete nodes: the contents of replaced and removed files are in the store.
    pub changed: Vec<TreeChange>,
    /// Paths that were already in the target state.
    pub already: Vec<TreeChange>,
    /// Paths of `changed` with content that is a merge of both sides.
    pub merged: Vec<RelPath>,
    /// Directories that were retained because they contain files of the user.
    pub retained: Vec<RetainedEntry>,
}

impl ApplyResult {
    /// Returns the changes to the repository as entries of a delta, sorted by path.
    pub fn changed_entries(&self) -> impl Iterator<Item = (RelPath, DeltaEntry)> + '_ {
        let entry = |d: &TreeChange| DeltaEntry { before: d.before.clone(), after: d.after.clone() };
        self.changed.iter().map(move |d| (d.path.clone(), entry(d)))
    }

    /// Adds baseline data that this apply learned to a delta of the same run: contents that were never read, and
    /// later permission changes of directories by the user. A later apply can then restore them.
    pub fn fill_known_contents(&self, delta: &mut TreeDelta) {
        for difference in self.changed.iter().chain(&self.already) {
            let Some(DeltaEntry { before: Some(was), .. }) = delta.get_mut(&difference.path) else {
                continue;
            };
            match (was, &difference.before) {
                (
                    TreeNode::File { size, content: content @ None, .. },
                    Some(TreeNode::File { size: size2, content: learned, .. }),
                ) if size == size2 => *content = *learned,
                (TreeNode::Dir { mode }, Some(TreeNode::Dir { mode: found })) => *mode = *found,
                _ => {}
            }
        }
    }
}

/// A preview of an apply.
#[derive(Clone, Debug, Default)]
pub struct ApplyPreview {
    /// The changes.
    pub changes: Vec<TreeChange>,
    /// Paths that are already in the target state.
    pub already: Vec<RelPath>,
    /// Paths of `changes` with content that would be a merge of both sides.
    pub merged: Vec<RelPath>,
    /// Directories that would be retained because they contain files of the user.
    pub retained: Vec<RetainedEntry>,
}

/// Checks whether the repository can be moved from state `from` to state `to`, without changes. Conflicts are an
/// error.
pub fn check_apply(
    place: &ContentSources<'_>,
    from: &TreeDelta,
    to: &TreeDelta,
    merge: MergeMode,
) -> Result<ApplyPreview, Error> {
    let root = open_repository(place)?;
    let differences = pending_changes(place, from, to)?;
    let temps = TempNames::load(place.objects.directory())?;
    let plan = check::plan_apply(place, root, temps.as_ref(), from, (&differences, &HashMap::new()), merge)?;
    let difference = |act: &check::PathAction| TreeChange {
        path: act.path.clone(),
        before: act.before.clone(),
        after: act.after.clone(),
    };
    Ok(ApplyPreview {
        changes: plan.acts.iter().map(difference).collect(),
        already: plan.already.into_iter().map(|d| d.path).collect(),
        merged: plan.merged.into_iter().map(|(path, _)| path).collect(),
        retained: plan.retained,
    })
}

/// Moves the repository from state `from` (the last applied state; empty: the baseline) to state `to`.
///
/// All or nothing: on an error the repository is unchanged, except for [`Error::Unfinished`], which lists the
/// remaining differences. The caller holds the lock of the repository (see [`lock_repository`]). Paths with a `.git`
/// component are ignored.
pub fn apply(
    place: &ContentSources<'_>,
    from: &TreeDelta,
    to: &TreeDelta,
    options: ApplyOptions<'_>,
) -> Result<ApplyResult, Error> {
    apply_states(place, Cow::Borrowed(from), Cow::Borrowed(to), options)
}

/// Applies like [`apply`]. Owned states are dropped as soon as they are no longer needed, because each is large.
fn apply_states(
    place: &ContentSources<'_>,
    from: Cow<'_, TreeDelta>,
    to: Cow<'_, TreeDelta>,
    options: ApplyOptions<'_>,
) -> Result<ApplyResult, Error> {
    let root = open_repository(place)?;
    let differences = pending_changes(place, &from, &to)?;
    drop(to);
    let mut quiet = |_: ApplyStep<'_>| Ok(());
    let watch: &mut StepObserver<'_> = match options.watch {
        Some(watch) => watch,
        None => &mut quiet,
    };
    let (temps, learned) = match TempNames::load(place.objects.directory())? {
        Some(temps) => {
            let learned = stale_temps::clear_stale_temps(place, root, &temps, &differences)?;
            (temps, learned)
        }
        None => (TempNames::create(place.objects.directory())?, HashMap::new()),
    };
    let changes = (differences.as_slice(), &learned);
    let mut plan = check::plan_apply(place, root, Some(&temps), &from, changes, options.merge)?;
    drop((from, differences, learned));
    store_replaced_contents(place, root, &mut plan)?;
    if let Some(observer) = options.originals {
        let acts = plan.acts.iter().map(|act| (&act.path, &act.before));
        let already = plan.already.iter().map(|change| (&change.path, &change.before));
        let mut originals = acts.chain(already).filter_map(|(path, before)| Some((path, before.as_ref()?)));
        observer(&mut originals).apply_context("record what was in", place.repository)?;
    }
    let mut work = transaction::ApplyTransaction::new(place, root, &temps, watch);
    let staged = match stage::stage_plan(&mut work, &plan) {
        Ok(staged) => staged,
        Err(failed) => return Err(work.roll_back(failed)),
    };
    if let Err(failed) = execute::execute_plan(&mut work, &plan, &staged) {
        return Err(work.roll_back(failed));
    }
    let mut kept = plan.retained;
    kept.extend(work.remove_replaced());
    let is_kept = |path: &RelPath| kept.iter().any(|kept| kept.path == *path);
    let changed = plan
        .acts
        .into_iter()
        .filter(|act| act.after.is_some() || !is_kept(&act.path))
        .map(|act| TreeChange { path: act.path, before: act.before, after: act.after })
        .collect();
    let merged = plan.merged.into_iter().map(|(path, _)| path).collect();
    Ok(ApplyResult { changed, already: plan.already, merged, retained: kept })
}

/// Reverts an apply exactly, including merges; later changes by the user are conflicts. Paths that were already in
/// the target state are not changed.
pub fn revert(place: &ContentSources<'_>, applied: &ApplyResult) -> Result<ApplyResult, Error> {
    // A stopped apply must still be reverted.
    let place = ContentSources { bounds: WorkBounds::unbounded(), ..*place };
    apply(&place, &applied.changed_entries().collect(), &TreeDelta::new(), ApplyOptions::default())
}

/// One of several repositories.
pub struct RepoApply<'a> {
    /// The repository and its contents.
    pub sources: ContentSources<'a>,
    /// The last applied state.
    pub from: TreeDelta,
    /// The target state.
    pub to: TreeDelta,
}

/// Applies to several repositories, all or nothing. The caller holds the lock of each (see [`lock_repository`]),
/// acquired in the order of their paths. `originals` is the callback of each repository for what is replaced, with the
/// repository's index in `parts`.
///
/// # Errors
/// Returns the errors with the indices of their repositories in `parts`.
pub fn apply_all(
    parts: Vec<RepoApply<'_>>,
    merge: MergeMode,
    originals: &mut dyn FnMut(usize, &mut Originals<'_, '_>) -> io::Result<()>,
) -> Result<Vec<ApplyResult>, Vec<(usize, Error)>> {
    let look = |(at, part): (usize, &RepoApply<'_>)| {
        Some((at, check_apply(&part.sources, &part.from, &part.to, merge).err()?))
    };
    // A single repository is checked when it is applied.
    let several = parts.iter().enumerate().filter(|_| parts.len() > 1);
    let failed: Vec<_> = several.filter_map(look).collect();
    if !failed.is_empty() {
        return Err(failed);
    }
    let sources: Vec<ContentSources<'_>> = parts.iter().map(|part| part.sources).collect();
    let mut done: Vec<ApplyResult> = Vec::new();
    for (at, part) in parts.into_iter().enumerate() {
        let mut record = |nodes: &mut Originals<'_, '_>| originals(at, nodes);
        let options = ApplyOptions { merge, watch: None, originals: Some(&mut record) };
        match apply_states(&part.sources, Cow::Owned(part.from), Cow::Owned(part.to), options) {
            Ok(applied) => done.push(applied),
            Err(error) => {
                let mut failed = vec![(at, error)];
                for (at, applied) in done.iter().enumerate().rev() {
                    failed.extend(revert(&sources[at], applied).err().map(|error| (at, error)));
                }
                return Err(failed);
            }
        }
    }
    Ok(done)
}

/// Returns the paths of files that a run created or changed with setuid or setgid bits, which an apply drops.
pub fn setid_paths(delta: &TreeDelta) -> impl Iterator<Item = &RelPath> {
    delta
        .iter()
        .filter(|(path, entry)| !path.is_git() && without_setid(entry).is_some())
        .map(|(path, _)| path)
}

/// Returns the node without setuid and setgid; `None` if it has neither. The bits are harmless on directories.
fn without_setid(entry: &DeltaEntry) -> Option<TreeNode> {
    match &entry.after {
        Some(node @ TreeNode::File { mode, .. }) if mode & SETID_BITS != 0 => {
            let mut node = node.clone();
            if let TreeNode::File { mode, .. } = &mut node {
                *mode &= !SETID_BITS;
            }
            Some(node)
        }
        _ => None,
    }
}

/// Returns the state as it is applied to a repository.
fn strip_setid(delta: &TreeDelta) -> Cow<'_, TreeDelta> {
    let mut plainer = Cow::Borrowed(delta);
    for path in setid_paths(delta) {
        if let Some(entry) = plainer.to_mut().get_mut(path) {
            entry.after = without_setid(entry);
        }
    }
    plainer
}

/// Returns the descriptor through which an apply reaches everything in the repository.
fn open_repository<'a>(place: &ContentSources<'a>) -> Result<&'a OwnedFd, Error> {
    let gone = || io::Error::from(io::ErrorKind::NotFound);
    place.root.map(TreeRoot::fd).ok_or_else(gone).apply_context("open", place.repository)
}

/// Returns the pending changes. The root directory itself is never changed.
fn pending_changes(
    place: &ContentSources<'_>,
    from: &TreeDelta,
    to: &TreeDelta,
) -> Result<Vec<TreeChange>, Error> {
    let mut differences = compare_deltas(&strip_setid(from), &strip_setid(to));
    differences.retain(|difference| !difference.path.as_bytes().is_empty());
    place.learn_contents(&mut differences).apply_context("read", place.repository)?;
    Ok(differences)
}

/// Stores merged contents and the contents that will be replaced or removed.
fn store_replaced_contents(
    place: &ContentSources<'_>,
    root: &OwnedFd,
    plan: &mut check::ApplyPlan,
) -> Result<(), Error> {
    for (_, bytes) in &plan.merged {
        place.objects.store_bytes(bytes)?;
    }
    for act in &mut plan.acts {
        place.bounds.check_stopped()?;
        if let (Some(TreeNode::Dir { mode }), Some(found)) = (&mut act.before, &act.found)
            && found.kind == host::NodeKind::Dir
        {
            // The user may have changed the mode since, which does not prevent the removal.
            *mode = found.mode;
        }
        let (Some(TreeNode::File { content, size, mtime_ns, mode, .. }), Some(found)) =
            (&mut act.before, &act.found)
        else {
            continue;
        };
        (*size, *mtime_ns, *mode) = (found.size, found.mtime_ns, found.mode);
        if act.how == ActionKind::Mode {
            continue;
        }
        let stored = |digest: &Digest| place.objects.contains(*digest);
        if !act.as_known || !content.as_ref().is_some_and(stored) {
            let file = check::open_file_below(root, &act.path)
                .apply_context("read", &place.repository.join(act.path.as_path()))?;
            let still =
                crate::host::FileStamp::stat_open(file.as_fd()).is_ok_and(|stamp| stamp.is_same_state(found));
            let learned = place.objects.store_file(&file, found.size, place.bounds)?;
            if !still || (act.as_known && content.is_some_and(|known| known != learned)) {
                return Err(Error::single_conflict(
                    &act.path,
                    ConflictReason::Changed { since: ChangedSince::Now },
                ));
            }
            *content = Some(learned);
        }
    }
    Ok(place.objects.flush()?)
}
