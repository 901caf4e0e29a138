//! Differences between two snapshots, for display and for [`crate::apply`]: a list, and a unified diff.

mod quote;
mod sources;
mod unified;

pub use sources::{BaselineContents, ContentSources};
pub use unified::{
    CountedChange, DiffOptions, DiffText, RenameDetection, UnifiedDiff, unified_diff, unified_diff_below,
};

use crate::{RelPath, TreeDelta, TreeNode};
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

/// The handling of paths with a `.git` component in a comparison.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum GitPaths {
    /// Excluded: for display and apply.
    #[default]
    Excluded,
    /// Included: for a complete restore.
    Included,
}

/// Returns the differences between two states with the same baseline, sorted by path and without `.git`.
///
/// A path in only one delta has its baseline state in the other. Equal states are omitted; see
/// [`ContentSources::learn_contents`] for files with baseline contents that were never read.
pub fn compare_deltas(from: &TreeDelta, to: &TreeDelta) -> Vec<TreeChange> {
    compare_deltas_with(from, to, GitPaths::Excluded)
}

/// Compares like [`compare_deltas`], with or without paths that have a `.git` component.
pub fn compare_deltas_with(from: &TreeDelta, to: &TreeDelta, git: GitPaths) -> Vec<TreeChange> {
    let mut paths: Vec<&RelPath> =
        from.keys().chain(to.keys().filter(|path| !from.contains_key(*path))).collect();
    paths.sort_unstable();
    let wanted = |path: &&RelPath| git == GitPaths::Included || !path.is_git();
    let difference = |path: &RelPath| {
        let (before, after) = match (from.get(path), to.get(path)) {
            (Some(from), Some(to)) => (&from.after, &to.after),
            (Some(from), None) => (&from.after, &from.before),
            (None, Some(to)) => (&to.before, &to.after),
            (None, None) => return None,
        };
        let same = match (before, after) {
            (None, None) => true,
            (Some(before), Some(after)) => before.is_equivalent(after),
            _ => false,
        };
        (!same).then(|| TreeChange { path: path.clone(), before: before.clone(), after: after.clone() })
    };
    paths.into_iter().filter(wanted).filter_map(difference).collect()
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
