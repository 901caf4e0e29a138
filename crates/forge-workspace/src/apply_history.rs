//! The applies made to the repositories of a run, as far as later applies need them: the changes of each, so that it
//! can be undone exactly, and baseline contents that were learned on the way.

use super::apply_marker::InterruptedApply;
use super::layout::{MAX_RECORD_BYTES, WorkspaceLayout, write_durably_with};
use super::learned_contents::LearnedContents;
use forge_ports::sandbox::Error;
use forge_snapshot::apply::{ApplyResult, Originals};
use forge_snapshot::{DeltaEntry, RelPath, TreeDelta, TreeNode};
use forge_types::SnapshotId;
use serde::{Deserialize, Serialize};
use std::io;

/// All applies of a run that were not undone.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct ApplyHistory {
    steps: Vec<HistoryStep>,
    learned: LearnedContents,
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
    /// Reads the history of a run, with what a killed apply had learned.
    pub(super) fn load(place: &WorkspaceLayout) -> Result<Self, Error> {
        let mut history: Self = match forge_files::read(&place.applied_path(), MAX_RECORD_BYTES) {
            Err(error) if error.is_absent() => Self::default(),
            Err(error) => return Err(place.layout_error("reading", &error.into_io_error())),
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| Error::View {
                why: format!("{} is damaged: {error}", place.applied_path().display()),
            })?,
        };
        if let Some(interrupted) = InterruptedApply::load(place) {
            history.learned.merge(interrupted.learned);
        }
        Ok(history)
    }

    /// Adds baseline contents of a repository and returns all that are known.
    pub(super) fn learn(
        &mut self,
        index: usize,
        originals: &mut Originals<'_, '_>,
        base: &dyn Fn(usize, &RelPath) -> Option<TreeNode>,
    ) -> LearnedContents {
        self.learned.add(index, originals, base);
        self.learned.clone()
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
        self.learned.fill_in(index, delta);
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
        for (index, applied) in applied.iter().enumerate() {
            let changes = applied.changed.iter().chain(&applied.already);
            let mut originals = changes.filter_map(|change| Some((&change.path, change.before.as_ref()?)));
            self.learned.add(index, &mut originals, base);
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
