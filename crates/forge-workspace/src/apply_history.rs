//! The applies made to the repositories of a run, as far as later applies need them: the changes of each, so that it
//! can be undone exactly, and baseline contents that were learned on the way.

use super::layout::{MAX_RECORD_BYTES, WorkspaceLayout, write_durably_with};
use forge_ports::sandbox::Error;
use forge_snapshot::apply::ApplyResult;
use forge_snapshot::{DeltaEntry, RelPath, TreeDelta, TreeNode};
use forge_types::{Digest, SnapshotId};
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::io;

/// All applies of a run that were not undone.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct ApplyHistory {
    steps: Vec<HistoryStep>,
    /// Paths, sizes and contents of baseline files, for each repository.
    learned: Vec<Vec<(Vec<u8>, u64, Digest)>>,
}

/// One apply.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct HistoryStep {
    from: Option<SnapshotId>,
    to: Option<SnapshotId>,
    /// Changes in each repository.
    changed: Vec<Vec<(Vec<u8>, DeltaEntry)>>,
}

impl ApplyHistory {
    /// Reads the history of a run.
    pub(super) fn load(place: &WorkspaceLayout) -> Result<Self, Error> {
        match forge_files::read(&place.applied_path(), MAX_RECORD_BYTES) {
            Err(error) if error.is_absent() => Ok(Self::default()),
            Err(error) => Err(place.layout_error("reading", &error.into_io_error())),
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| Error::View {
                why: format!("{} is damaged: {error}", place.applied_path().display()),
            }),
        }
    }

    /// Returns the changes of the last apply, if going from `from` to `to` undoes it.
    pub(super) fn inverse(&self, from: Option<SnapshotId>, to: Option<SnapshotId>) -> Option<Vec<TreeDelta>> {
        let last = self.steps.last().filter(|step| (step.to, step.from) == (from, to))?;
        let delta = |changed: &Vec<(Vec<u8>, DeltaEntry)>| {
            changed
                .iter()
                .filter_map(|(path, entry)| Some((RelPath::new(path.clone())?, entry.clone())))
                .collect()
        };
        Some(last.changed.iter().map(delta).collect())
    }

    /// Fills in baseline contents that are known by now.
    pub(super) fn fill_known_contents(&self, index: usize, delta: &mut TreeDelta) {
        for (path, len, digest) in self.learned.get(index).into_iter().flatten() {
            let Some(path) = RelPath::new(path.clone()) else { continue };
            if let Some(DeltaEntry { before: Some(TreeNode::File { size, content, .. }), .. }) =
                delta.get_mut(&path)
                && content.is_none()
                && size == len
            {
                *content = Some(*digest);
            }
        }
    }

    /// Records an apply, or the undoing of one, and saves the history.
    pub(super) fn record_apply(
        mut self,
        place: &WorkspaceLayout,
        (from, to): (Option<SnapshotId>, Option<SnapshotId>),
        base: &dyn Fn(usize, &RelPath) -> Option<TreeNode>,
        applied: &[ApplyResult],
    ) -> Result<(), Error> {
        let back = self.inverse(from, to).is_some();
        if back {
            self.steps.pop();
        }
        self.learned.resize(applied.len().max(self.learned.len()), Vec::new());
        for (index, applied) in applied.iter().enumerate() {
            let mut known: HashSet<Vec<u8>> =
                self.learned[index].iter().map(|(path, ..)| path.clone()).collect();
            for difference in applied.changed.iter().chain(&applied.already) {
                let path = difference.path.as_bytes();
                let learned = learned_content(difference.before.as_ref(), base(index, &difference.path));
                if let Some((size, content)) = learned.filter(|_| known.insert(path.to_vec())) {
                    self.learned[index].push((path.to_vec(), size, content));
                }
            }
        }
        if !back {
            let changed = |applied: &ApplyResult| {
                applied.changed_entries().map(|(path, entry)| (path.as_bytes().to_vec(), entry)).collect()
            };
            self.steps.push(HistoryStep { from, to, changed: applied.iter().map(changed).collect() });
        }
        // Streamed: for many paths the text is large.
        let write = |file: &mut dyn io::Write| serde_json::to_writer(file, &self).map_err(io::Error::from);
        write_durably_with(&place.applied_path(), write)
            .map_err(|error| place.layout_error("writing", &error))
    }
}

/// Returns the size and content of a baseline file, recognised by its size and time.
fn learned_content(before: Option<&TreeNode>, base: Option<TreeNode>) -> Option<(u64, Digest)> {
    match (before?, base?) {
        (
            TreeNode::File { size, mtime_ns, content: Some(content), .. },
            TreeNode::File { size: was, mtime_ns: at, .. },
        ) if *size == was && *mtime_ns == at => Some((*size, *content)),
        _ => None,
    }
}
