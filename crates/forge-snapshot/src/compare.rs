//! Differences between two snapshots, for display and for [`crate::apply`]: a list, and a unified diff.

mod quote;
mod sources;
mod unified;

pub use sources::{BaselineContents, ContentSources};
pub use unified::{
    CountedChange, DiffEncoding, DiffOptions, DiffText, RenameDetection, UnifiedDiff, unified_diff,
    unified_diff_below,
};

use crate::{RelPath, TreeDelta, TreeNode};
use std::cmp::Ordering;
use std::collections::HashMap;

/// A path at which two states of a tree differ.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TreeChange {
    /// The path.
    pub path: RelPath,
    /// The node in the first state; `None` if absent.
    pub before: Option<TreeNode>,
    /// The node in the second state; `None` if absent.
    pub after: Option<TreeNode>,
}

/// The kind of a change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ChangeType {
    /// The path was added.
    Added,
    /// The content or the target changed.
    Modified,
    /// The path was removed.
    Removed,
    /// Only the permission bits changed.
    Mode,
    /// The file type changed, such as from a file to a directory.
    Retyped,
}

impl ChangeType {
    /// Returns the word for display: `added`, `modified`, `removed`, `mode`, `retyped`.
    pub const fn display_name(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Modified => "modified",
            Self::Removed => "removed",
            Self::Mode => "mode",
            Self::Retyped => "retyped",
        }
    }
}

impl TreeChange {
    /// Returns the kind of this change.
    pub fn change_type(&self) -> ChangeType {
        match (&self.before, &self.after) {
            (None, _) => ChangeType::Added,
            (Some(_), None) => ChangeType::Removed,
            (Some(before), Some(after)) => match (before, after) {
                (
                    TreeNode::File { content, size, .. },
                    TreeNode::File { content: content2, size: size2, .. },
                ) => {
                    let same = size == size2 && content.is_some() && content == content2;
                    if same { ChangeType::Mode } else { ChangeType::Modified }
                }
                (TreeNode::Symlink { .. }, TreeNode::Symlink { .. }) => ChangeType::Modified,
                (TreeNode::Dir { .. }, TreeNode::Dir { .. })
                | (TreeNode::Fifo { .. }, TreeNode::Fifo { .. }) => ChangeType::Mode,
                _ => ChangeType::Retyped,
            },
        }
    }
}

/// Returns the differences between two states with the same baseline, sorted by path and without `.git`.
///
/// A path in only one delta has its baseline state in the other. Equal states are omitted; see
/// [`ContentSources::learn_contents`] for files with baseline contents that were never read.
pub fn compare_deltas(from: &TreeDelta, to: &TreeDelta) -> Vec<TreeChange> {
    let states = pair_states(
        from.iter().map(|(path, entry)| (path, (&entry.before, &entry.after))),
        to.iter().map(|(path, entry)| (path, (&entry.before, &entry.after))),
    );
    let differ = states.filter(|(path, before, after)| is_change(path, before.as_ref(), after.as_ref()));
    let change = |(path, before, after): (&RelPath, &Option<TreeNode>, &Option<TreeNode>)| TreeChange {
        path: path.clone(),
        before: before.clone(),
        after: after.clone(),
    };
    differ.map(change).collect()
}

/// Returns the same as [`compare_deltas`], using up the deltas, because each is as large as the result.
pub fn into_changes(from: TreeDelta, to: TreeDelta) -> Vec<TreeChange> {
    let states = pair_states(
        from.into_iter().map(|(path, entry)| (path, (entry.before, entry.after))),
        to.into_iter().map(|(path, entry)| (path, (entry.before, entry.after))),
    );
    let changes = states.map(|(path, before, after)| TreeChange { path, before, after });
    changes.filter(|change| is_change(&change.path, change.before.as_ref(), change.after.as_ref())).collect()
}

/// Returns the state of each path in two deltas, which are sorted and have for each path its baseline and its state.
fn pair_states<P: Ord, N>(
    from: impl Iterator<Item = (P, (N, N))>,
    to: impl Iterator<Item = (P, (N, N))>,
) -> impl Iterator<Item = (P, N, N)> {
    let (mut from, mut to) = (from.peekable(), to.peekable());
    std::iter::from_fn(move || {
        let order = match (from.peek(), to.peek()) {
            (Some((from, _)), Some((to, _))) => from.cmp(to),
            (Some(_), None) => Ordering::Less,
            (None, _) => Ordering::Greater,
        };
        let known = if order.is_le() { from.next() } else { None };
        let wanted = if order.is_ge() { to.next() } else { None };
        match (known, wanted) {
            (Some((path, (_, from))), Some((_, (_, to)))) => Some((path, from, to)),
            (Some((path, (baseline, from))), None) => Some((path, from, baseline)),
            (None, Some((path, (baseline, to)))) => Some((path, baseline, to)),
            (None, None) => None,
        }
    })
}

/// Returns whether two states of a path are a difference that is shown and applied.
fn is_change(path: &RelPath, before: Option<&TreeNode>, after: Option<&TreeNode>) -> bool {
    let same = match (before, after) {
        (None, None) => true,
        (Some(before), Some(after)) => before.is_equivalent(after),
        _ => false,
    };
    !same && !path.is_git()
}

/// Finds files that moved with unchanged content: pairs of indices (removed, added) in `differences`. For display
/// only; to apply, each is a removal and an addition. Empty files are never paired.
pub fn find_renames(differences: &[TreeChange]) -> Vec<(usize, usize)> {
    let content = |node: &Option<TreeNode>| match node {
        Some(TreeNode::File { size, content: Some(content), .. }) if *size > 0 => Some(*content),
        _ => None,
    };
    let mut removed: HashMap<_, Vec<usize>> = HashMap::new();
    for (at, difference) in differences.iter().enumerate().rev() {
        if difference.after.is_none()
            && let Some(content) = content(&difference.before)
        {
            removed.entry(content).or_default().push(at);
        }
    }
    let mut pairs = Vec::new();
    for (at, difference) in differences.iter().enumerate() {
        if difference.before.is_none()
            && let Some(content) = content(&difference.after)
            && let Some(from) = removed.get_mut(&content).and_then(Vec::pop)
        {
            pairs.push((from, at));
        }
    }
    pairs
}
