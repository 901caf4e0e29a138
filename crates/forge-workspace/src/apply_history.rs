//! The applies made to the repositories of a run, as far as later applies need them: the changes of each, so that it
//! can be undone exactly, and baseline contents that were learned on the way.

use super::apply_marker::InterruptedApply;
use super::layout::{WorkspaceLayout, read_record, write_durably_with};
use super::learned_contents::LearnedContents;
use super::stored_path::StoredPath;
use forge_ports::sandbox::Error;
use forge_snapshot::apply::{ApplyResult, Originals};
use forge_snapshot::{DeltaEntry, RelPath, TreeDelta, TreeNode};
use forge_types::SnapshotId;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::io;

/// Maximum number of changes of earlier applies that are recorded, so that their record does not grow with each.
const MAX_RECORDED_CHANGES: usize = 100_000;

/// All applies of a run that were not undone.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct ApplyHistory {
    steps: Vec<HistoryStep>,
    learned: LearnedContents,
}

/// Only what all applies of a run learned.
#[derive(Default, Deserialize)]
struct KnownContents {
    learned: LearnedContents,
}

impl LearnedContents {
    /// Reads what the applies of a run learned, with those of a killed apply.
    pub(super) fn load(place: &WorkspaceLayout) -> Result<Self, Error> {
        let KnownContents { mut learned } = load_applied(place)?;
        learned.merge(Self::load_interrupted(place));
        Ok(learned)
    }

    fn load_interrupted(place: &WorkspaceLayout) -> Self {
        InterruptedApply::load(place).map_or_else(Self::default, |interrupted| interrupted.learned)
    }
}

fn load_applied<T: Default + DeserializeOwned>(place: &WorkspaceLayout) -> Result<T, Error> {
    let path = place.applied_path();
    match read_record(&path) {
        Ok(record) => Ok(record.unwrap_or_default()),
        Err(error) if matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) => {
            Err(Error::View { why: format!("{} is damaged: {error}", path.display()) })
        }
        Err(error) => Err(place.layout_error("reading", &error)),
    }
}

/// One apply.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct HistoryStep {
    from: Option<SnapshotId>,
    to: Option<SnapshotId>,
    /// Changes in each repository.
    changed: Vec<Vec<(StoredPath, DeltaEntry)>>,
}

impl ApplyHistory {
    /// Reads the history of a run, with what a killed apply had learned.
    pub(super) fn load(place: &WorkspaceLayout) -> Result<Self, Error> {
        let mut history: Self = load_applied(place)?;
        history.learned.merge(LearnedContents::load_interrupted(place));
        Ok(history)
    }

    /// Returns the baseline contents that are known.
    pub(super) const fn learned(&self) -> &LearnedContents {
        &self.learned
    }

    /// Adds baseline contents of a repository.
    pub(super) fn learn(
        &mut self,
        index: usize,
        originals: &mut Originals<'_, '_>,
        base: &dyn Fn(usize, &RelPath) -> Option<TreeNode>,
    ) {
        self.learned.add(index, originals, base);
    }

    /// Removes the oldest steps if all together have too many changes. They can still be undone, by their states.
    fn forget_old_steps(&mut self) {
        let size = |step: &HistoryStep| step.changed.iter().map(Vec::len).sum::<usize>();
        let mut total: usize = self.steps.iter().map(size).sum();
        while total > MAX_RECORDED_CHANGES && self.steps.len() > 1 {
            total -= size(&self.steps.remove(0));
        }
    }

    /// Removes the last apply and returns its changes, if going from `from` to `to` undoes it.
    pub(super) fn take_inverse(
        &mut self,
        from: Option<SnapshotId>,
        to: Option<SnapshotId>,
    ) -> Option<Vec<TreeDelta>> {
        let last = self.steps.pop_if(|step| (step.to, step.from) == (from, to))?;
        let delta = |changed: Vec<(StoredPath, DeltaEntry)>| {
            changed.into_iter().map(|(path, entry)| (path.0, entry)).collect()
        };
        Some(last.changed.into_iter().map(delta).collect())
    }

    /// Records what was applied, as a new step if it went from one state to another and was not an undo, and saves the
    /// history.
    pub(super) fn record_apply(
        mut self,
        place: &WorkspaceLayout,
        step: Option<(Option<SnapshotId>, Option<SnapshotId>)>,
        base: &dyn Fn(usize, &RelPath) -> Option<TreeNode>,
        applied: &[ApplyResult],
    ) -> Result<(), Error> {
        for (index, applied) in applied.iter().enumerate() {
            let changes = applied.changed.iter().chain(&applied.already);
            let mut originals = changes.filter_map(|change| Some((&change.path, change.before.as_ref()?)));
            self.learned.add(index, &mut originals, base);
        }
        if let Some((from, to)) = step {
            let changed = |applied: &ApplyResult| {
                applied.changed_entries().map(|(path, entry)| (StoredPath(path), entry)).collect()
            };
            self.steps.push(HistoryStep { from, to, changed: applied.iter().map(changed).collect() });
            self.forget_old_steps();
        }
        // Streamed: for many paths the text is large.
        let write = |file: &mut dyn io::Write| serde_json::to_writer(file, &self).map_err(io::Error::from);
        write_durably_with(&place.applied_path(), write)
            .map_err(|error| place.layout_error("writing", &error))
    }
}
