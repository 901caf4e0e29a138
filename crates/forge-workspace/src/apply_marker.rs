//! The marker of an apply in progress. One that is found later is of a process that was killed.

use super::apply_index::IndexEntry;
use super::layout::{MAX_RECORD_BYTES, WorkspaceLayout, read_record, write_durably, write_durably_with};
use super::learned_contents::LearnedContents;
use forge_types::SnapshotId;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path, PathBuf};

/// The content of a marker.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct InterruptedApply {
    /// The state from which the apply went.
    pub(super) from: Option<SnapshotId>,
    /// The state to which it went.
    pub(super) to: Option<SnapshotId>,
    /// Baseline contents of the files that it replaces.
    pub(super) learned: LearnedContents,
}

impl InterruptedApply {
    /// Reads the marker of a killed apply.
    pub(super) fn load(place: &WorkspaceLayout) -> Option<Self> {
        read_record(&place.applying_path()).ok()?
    }

    /// Removes the marker and the entry of the run in the index of applies.
    pub(super) fn remove(place: &WorkspaceLayout, entry: &IndexEntry) {
        remove_marker(&place.applying_path(), entry);
    }
}

/// Removes a marker durably, then the run's entry: a marker that came back would be taken for an interrupted apply.
fn remove_marker(path: &Path, entry: &IndexEntry) {
    let removed = std::fs::remove_file(path);
    if removed.is_ok()
        && let Some(directory) = path.parent()
    {
        let _ = forge_files::sync_directory(directory);
    }
    if removed.is_ok() || !path.exists() {
        entry.remove();
    }
}

/// The content of a marker to be written; see [`InterruptedApply`].
#[derive(Serialize)]
struct MarkerContent<'a> {
    from: Option<SnapshotId>,
    to: Option<SnapshotId>,
    learned: &'a LearnedContents,
}

/// The marker of this process's apply.
pub(super) struct ApplyMarker {
    path: PathBuf,
    entry: IndexEntry,
    from: Option<SnapshotId>,
    to: Option<SnapshotId>,
    /// The marker of an earlier apply that was killed.
    previous: Option<Vec<u8>>,
    /// Whether the file must be removed or restored if the apply fails.
    is_written: bool,
}

impl ApplyMarker {
    /// Returns the marker of an apply between two states. It is not written yet.
    pub(super) fn new(
        place: &WorkspaceLayout,
        entry: IndexEntry,
        (from, to): (Option<SnapshotId>, Option<SnapshotId>),
    ) -> Self {
        let path = place.applying_path();
        let previous = forge_files::read(&path, MAX_RECORD_BYTES).ok();
        Self { path, entry, from, to, previous, is_written: false }
    }

    /// Writes the marker with all that is known to be replaced. From here on a killed apply is found.
    pub(super) fn write(&mut self, learned: &LearnedContents) -> io::Result<()> {
        let content = MarkerContent { from: self.from, to: self.to, learned };
        if !self.is_written {
            self.is_written = true;
            self.entry.create()?;
        }
        // Streamed: for many paths the text is large.
        write_durably_with(&self.path, |file| serde_json::to_writer(file, &content).map_err(io::Error::from))
    }

    /// Removes the marker: the apply is complete.
    pub(super) fn remove(mut self) {
        self.is_written = false;
        remove_marker(&self.path, &self.entry);
    }

    /// Retains the marker: the apply failed and left a part of the changes.
    pub(super) fn keep(mut self) {
        self.is_written = false;
    }
}

impl Drop for ApplyMarker {
    /// Restores the earlier marker: an apply that fails leaves the repository as it found it.
    fn drop(&mut self) {
        if self.is_written {
            let restored =
                self.previous.as_ref().is_some_and(|bytes| write_durably(&self.path, bytes).is_ok());
            if !restored {
                remove_marker(&self.path, &self.entry);
            }
        }
    }
}
