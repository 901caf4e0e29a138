//! What differs between two snapshots, for people and for [`crate::apply`]: a list, and a unified diff.

mod quote;
mod sources;
mod unified;

pub use sources::{BaselineContents, ContentSources};
pub use unified::{
    CountedChange, DiffOptions, DiffText, RenameDetection, UnifiedDiff, unified_diff, unified_diff_below,
};

use crate::{RelPath, TreeDelta, TreeNode};
use std::collections::HashMap;

/// One path at which two states of a tree differ.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TreeChange {
    /// Where.
    pub path: RelPath,
    /// What stands there in the first state; `None`: nothing.
    pub before: Option<TreeNode>,
    /// What stands there in the second state; `None`: nothing.
    pub after: Option<TreeNode>,
}

/// What happened at a path, in one word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ChangeType {
    /// Something stands where nothing stood.
    Added,
    /// Other content, or another target.
    Modified,
    /// Nothing stands there any more.
    Removed,
    /// Other permission bits and nothing else.
    Mode,
    /// Another kind of thing: a file became a folder, a link, …
    Retyped,
}

impl ChangeType {
    /// The word for people: `added`, `modified`, `removed`, `mode`, `retyped`.
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
    /// What happened here.
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

/// Whether paths with a `.git` part take part in a comparison.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum GitPaths {
    /// They are left out: what is shown and applied.
    #[default]
    Excluded,
    /// They are kept: for a restore of everything.
    Included,
}

/// What differs between two states of the tree that began as one, ordered by path and without `.git`.
///
/// A path that only one delta knows stands in the other state as it stood at the beginning. Paths at which both
/// states are the same are left out; see [`Sources::learn`] for files whose first content was never read.
pub fn compare_deltas(from: &TreeDelta, to: &TreeDelta) -> Vec<TreeChange> {
    compare_deltas_with(from, to, GitPaths::Excluded)
}

/// [`compare`], with or without paths that have a `.git` part.
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

/// Files that went from one path to another with the very same content: pairs of positions (removed, added) in
/// `differences`. Only for display; to apply, each is a removal and an addition. Empty files are never paired.
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
