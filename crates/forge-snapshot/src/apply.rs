//! Bringing a repository from one state to another: conflict check, three-way merge, all or nothing.
//!
//! An apply has five parts, and only the third changes what a person sees:
//! 1. *check*: what stands in the repository at every path that is to change must be what the first state says;
//! 2. *stage*: new contents are written under temporary names beside the places they are for;
//! 3. *act*: renames, each of one path, each undone if a later one fails;
//! 4. *sync*: everything is made durable;
//! 5. *clean*: what was replaced, and held aside until now, is removed.
//!
//! A process that is killed in between leaves a repository in which each path is either as before or as wanted;
//! applying the same again finishes the work. Paths are reached by descriptors, through no symbolic link and never
//! outside the repository. Setuid and setgid bits that a run gave to a file are left out: what it wrote would run with
//! the rights of the repository's owner. Extended attributes are not carried over; names that are hard links of one
//! another and of which one is replaced are separate files afterwards.

mod check;
mod error;
mod execute;
mod lock;
mod merge;
mod stage;
mod stale_temps;

pub use error::{ChangedSince, ConflictReason, Error, Mergeable, PathConflict};
pub use lock::{LockWait, RepoLockGuard, lock_repository};
pub use merge::{MergeResult, merge_texts};

use crate::bounds::WorkBounds;
use crate::compare::{ContentSources, TreeChange, compare_deltas};
use crate::{DeltaEntry, RelPath, TreeDelta, TreeNode, host};
use check::ActionKind;
use error::ApplyContext;
use forge_types::Digest;
use std::borrow::Cow;
use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

/// Setuid and setgid.
const SETID_BITS: u32 = 0o6000;

/// What to do with text files that the repository changed as well.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum MergeMode {
    /// They are conflicts.
    #[default]
    No,
    /// Merged if every one of them merges cleanly, else conflicts.
    Clean,
}

/// A moment of an apply, told before it happens.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ApplyStep<'a> {
    /// New content is written beside this path.
    Stage(&'a RelPath),
    /// This path changes.
    Act(&'a RelPath),
    /// Everything is made durable.
    Sync,
    /// What was replaced at this path is removed. An error is no use any more: the apply is done.
    Clean(&'a RelPath),
}

/// Is told of each step before it happens; an error ends the apply, and the repository is put back as it was.
pub type StepObserver<'a> = dyn FnMut(ApplyStep<'_>) -> io::Result<()> + 'a;

/// How to apply.
#[derive(Default)]
pub struct ApplyOptions<'a> {
    /// Text files that changed on both sides.
    pub merge: MergeMode,
    /// Is told of each step: progress, cancelling, faults in tests.
    pub watch: Option<&'a mut StepObserver<'a>>,
}

/// Something that was left standing although the wanted state has nothing there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RetainedEntry {
    /// The folder.
    pub path: RelPath,
    /// An entry of it that the run knows nothing of.
    pub holds: RelPath,
}

/// What an apply did.
#[derive(Clone, Debug, Default)]
pub struct ApplyResult {
    /// What changed, with complete nodes: the content of each file that was replaced or removed is in the store.
    pub changed: Vec<TreeChange>,
    /// Paths that already stood as wanted.
    pub already: Vec<TreeChange>,
    /// Paths of `changed` whose content is a merge of both sides.
    pub merged: Vec<RelPath>,
    /// Folders that stay because they hold something of a person.
    pub retained: Vec<RetainedEntry>,
}

impl ApplyResult {
    /// What changed in the repository: the entries of a delta, ordered by path.
    pub fn changed_entries(&self) -> impl Iterator<Item = (RelPath, DeltaEntry)> + '_ {
        let entry = |d: &TreeChange| DeltaEntry { before: d.before.clone(), after: d.after.clone() };
        self.changed.iter().map(move |d| (d.path.clone(), entry(d)))
    }

    /// Fills in, in a delta of the same run, what this apply learned of the beginning: contents that were never read,
    /// and permissions that a person gave to folders since. With them a later apply can bring them back.
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

/// What an apply would do.
#[derive(Clone, Debug, Default)]
pub struct ApplyPreview {
    /// What would change.
    pub changes: Vec<TreeChange>,
    /// Paths that already stand as wanted.
    pub already: Vec<RelPath>,
    /// Paths of `changes` whose content would be a merge of both sides.
    pub merged: Vec<RelPath>,
    /// Folders that would stay because they hold something of a person.
    pub retained: Vec<RetainedEntry>,
}

/// Looks whether the repository can go from state `from` to state `to`, and changes nothing. Conflicts are an error.
pub fn check_apply(
    place: &ContentSources<'_>,
    from: &TreeDelta,
    to: &TreeDelta,
    merge: MergeMode,
) -> Result<ApplyPreview, Error> {
    let root = host::open_root(place.repository).apply_context("open", place.repository)?;
    let differences = pending_changes(place, from, to)?;
    let plan = check::plan_apply(place, &root, from, &differences, &HashMap::new(), merge)?;
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

/// Brings the repository from state `from` (what was applied last; empty: the beginning) to state `to`.
///
/// All or nothing: on an error the repository is as it was, except for [`Error::Unfinished`], which names what is
/// not. The caller holds the [`lock`] of the repository. Paths with a `.git` part are left alone.
pub fn apply(
    place: &ContentSources<'_>,
    from: &TreeDelta,
    to: &TreeDelta,
    options: ApplyOptions<'_>,
) -> Result<ApplyResult, Error> {
    let root = host::open_root(place.repository).apply_context("open", place.repository)?;
    let differences = pending_changes(place, from, to)?;
    let mut quiet = |_: ApplyStep<'_>| Ok(());
    let watch: &mut StepObserver<'_> = match options.watch {
        Some(watch) => watch,
        None => &mut quiet,
    };
    let learned = stale_temps::clear_stale_temps(place, &root, &differences)?;
    let mut plan = check::plan_apply(place, &root, from, &differences, &learned, options.merge)?;
    drop((differences, learned));
    store_replaced_contents(place, &root, &mut plan)?;
    let mut work = execute::ApplyTransaction::new(place, &root, watch);
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

/// Takes back what an apply did, to the byte, merges included; what a person changed since is a conflict. Where it
/// found a path as wanted already, nothing is done.
pub fn revert(place: &ContentSources<'_>, applied: &ApplyResult) -> Result<ApplyResult, Error> {
    // Whoever ended the work wants it taken back.
    let place = ContentSources { bounds: WorkBounds::unbounded(), ..*place };
    apply(&place, &applied.changed_entries().collect(), &TreeDelta::new(), ApplyOptions::default())
}

/// One repository of several.
#[derive(Clone, Copy)]
pub struct RepoApply<'a> {
    /// Where it is, and its contents.
    pub sources: ContentSources<'a>,
    /// What was applied to it last.
    pub from: &'a TreeDelta,
    /// What it is to become.
    pub to: &'a TreeDelta,
}

/// Applies to several repositories, all of it or nothing. The caller holds the [`lock`] of each, taken in the order of
/// their paths.
///
/// # Errors
/// Each repository that can't be applied to, by its place in `parts`.
pub fn apply_all(parts: &[RepoApply<'_>], merge: MergeMode) -> Result<Vec<ApplyResult>, Vec<(usize, Error)>> {
    let look = |(at, part): (usize, &RepoApply<'_>)| {
        Some((at, check_apply(&part.sources, part.from, part.to, merge).err()?))
    };
    // One alone is looked at when it is applied to.
    let several = parts.iter().enumerate().filter(|_| parts.len() > 1);
    let failed: Vec<_> = several.filter_map(look).collect();
    if !failed.is_empty() {
        return Err(failed);
    }
    let mut done: Vec<ApplyResult> = Vec::new();
    for (at, part) in parts.iter().enumerate() {
        match apply(&part.sources, part.from, part.to, ApplyOptions { merge, watch: None }) {
            Ok(applied) => done.push(applied),
            Err(error) => {
                let mut failed = vec![(at, error)];
                for (at, applied) in done.iter().enumerate().rev() {
                    failed.extend(revert(&parts[at].sources, applied).err().map(|error| (at, error)));
                }
                return Err(failed);
            }
        }
    }
    Ok(done)
}

/// Paths at which a run made, or changed, a file that lends its owner's rights to whoever starts it (setuid, setgid):
/// an apply leaves these bits out.
pub fn setid_paths(delta: &TreeDelta) -> impl Iterator<Item = &RelPath> {
    delta
        .iter()
        .filter(|(path, entry)| !path.is_git() && without_setid(entry).is_some())
        .map(|(path, _)| path)
}

/// What a path becomes without setuid and setgid; `None` if it has neither. On a folder they lend nothing.
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

/// A state of a run as it reaches a repository.
fn strip_setid(delta: &TreeDelta) -> Cow<'_, TreeDelta> {
    let mut plainer = Cow::Borrowed(delta);
    for path in setid_paths(delta) {
        if let Some(entry) = plainer.to_mut().get_mut(path) {
            entry.after = without_setid(entry);
        }
    }
    plainer
}

/// What is to change. The root folder itself stays as it is.
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

/// Puts the contents that will be replaced or removed, and merged ones, into the store.
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
            // A person may have changed them since, which keeps nobody from removing it.
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
