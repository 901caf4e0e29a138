//! Contents of baseline files that an apply learned when it replaced them.

use super::stored_path::StoredPath;
use forge_snapshot::apply::Originals;
use forge_snapshot::{DeltaEntry, RelPath, TreeDelta, TreeNode};
use forge_types::Digest;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;

/// Contents of baseline files that were learned when they were replaced: for each repository paths, sizes in bytes and
/// digests.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct LearnedContents(Vec<Vec<(StoredPath, u64, Digest)>>);

impl LearnedContents {
    /// Adds the baseline files among the nodes of a repository that are not known yet.
    pub(super) fn add(
        &mut self,
        index: usize,
        nodes: &mut Originals<'_, '_>,
        base: &dyn Fn(usize, &RelPath) -> Option<TreeNode>,
    ) {
        if self.0.len() <= index {
            self.0.resize(index + 1, Vec::new());
        }
        let mut known: HashSet<RelPath> = self.0[index].iter().map(|(path, ..)| path.0.clone()).collect();
        for (path, node) in nodes {
            let learned = base(index, path).and_then(|base| learned_content(node, &base));
            if let Some((size, content)) = learned.filter(|_| known.insert(path.clone())) {
                self.0[index].push((StoredPath(path.clone()), size, content));
            }
        }
    }

    /// Adds what another collection knows in addition.
    pub(super) fn merge(&mut self, other: Self) {
        self.0.resize(self.0.len().max(other.0.len()), Vec::new());
        for (mine, other) in self.0.iter_mut().zip(other.0) {
            let known: HashSet<StoredPath> = mine.iter().map(|(path, ..)| path.clone()).collect();
            mine.extend(other.into_iter().filter(|(path, ..)| !known.contains(path)));
        }
    }

    /// Fills in baseline contents that are known by now.
    pub(super) fn fill_in(&self, index: usize, delta: &mut TreeDelta) {
        for (path, len, digest) in self.0.get(index).into_iter().flatten() {
            if let Some(DeltaEntry { before: Some(TreeNode::File { size, content, .. }), .. }) =
                delta.get_mut(&path.0)
                && content.is_none()
                && size == len
            {
                *content = Some(*digest);
            }
        }
    }
}

/// Returns the size and content of a baseline file, recognised by its size and time.
fn learned_content(before: &TreeNode, base: &TreeNode) -> Option<(u64, Digest)> {
    match (before, base) {
        (
            TreeNode::File { size, mtime_ns, content: Some(content), .. },
            TreeNode::File { size: was, mtime_ns: at, .. },
        ) if size == was && mtime_ns == at => Some((*size, *content)),
        _ => None,
    }
}
