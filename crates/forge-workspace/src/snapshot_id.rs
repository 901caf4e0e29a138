//! Snapshot ids: for one repository that of its own snapshot, for several the digest over all of them in order.

use super::layout::{MAX_RECORD_BYTES, WorkspaceLayout, WorkspaceMeta, write_durably};
use forge_ports::sandbox::Error;
use forge_snapshot::Tracker;
use forge_types::{Digest, SnapshotId};

/// Returns the id of the state with each repository at its part, and saves the parts so that the id can be resolved.
pub(crate) fn combine_digests(
    place: &WorkspaceLayout,
    meta: &WorkspaceMeta,
    parts: &[Digest],
) -> Result<SnapshotId, Error> {
    if let [one] = parts {
        return Ok(SnapshotId(*one));
    }
    let all: Vec<(&Digest, &str)> =
        parts.iter().zip(meta.repos.iter().map(|repo| repo.name.as_str())).collect();
    let text = serde_json::to_string(&all).map_err(|error| Error::View { why: error.to_string() })?;
    let id = Digest::of_bytes(text.as_bytes());
    let path = place.states_dir().join(id.to_string());
    if !path.exists() {
        let made =
            std::fs::create_dir_all(place.states_dir()).and_then(|()| write_durably(&path, text.as_bytes()));
        made.map_err(|error| place.layout_error("writing", &error))?;
    }
    Ok(SnapshotId(id))
}

/// Returns the snapshot of each repository in a state; `None` is the baseline.
pub(crate) fn split_digests(
    place: &WorkspaceLayout,
    meta: &WorkspaceMeta,
    id: Option<SnapshotId>,
) -> Result<Vec<Digest>, Error> {
    let count = meta.repos.len();
    let Some(SnapshotId(id)) = id else { return Ok(vec![Tracker::baseline_digest(); count]) };
    if count == 1 {
        return Ok(vec![id]);
    }
    let missing = || Error::View { why: format!("snapshot {id} not found in this run") };
    let state = place.states_dir().join(id.to_string());
    let text = forge_files::read_text(&state, MAX_RECORD_BYTES).map_err(|_| missing())?;
    let all: Vec<(Digest, String)> = serde_json::from_str(&text).map_err(|_| missing())?;
    if all.len() == count { Ok(all.into_iter().map(|(part, _)| part).collect()) } else { Err(missing()) }
}
