//! What a run changed, by comparing the workspace with what stood there before the first change.

use super::Drive;
use super::draft::Draft;
use crate::Error;
use forge_ports::Workspace;
use forge_ports::sandbox::{Manifest, ManifestEntry};
use forge_types::{EventKind, RunState};
use std::collections::BTreeSet;
use std::sync::Arc;

impl Drive {
    /// Looks at the workspace while the model thinks about its first reply.
    pub(super) fn begin_survey(&mut self, workspace: Arc<dyn Workspace>) {
        self.survey = Some(tokio::spawn(async move { workspace.manifest().await.ok() }));
    }

    /// The manifest of the beginning becomes part of the journal before anything is changed.
    pub(super) async fn end_survey(&mut self, draft: &mut Draft<'_>) -> Result<(), Error> {
        let survey = self.survey.take();
        let manifest = match survey {
            Some(task) => task.await.ok().flatten(),
            None => match self.keeper.workspace() {
                Some(workspace) => workspace.manifest().await.ok(),
                None => None,
            },
        };
        let Some(manifest) = manifest else { return Ok(()) };
        let bytes = serde_json::to_vec(&manifest)
            .map_err(|error| Error::Internal { what: format!("a manifest can't be written: {error}") })?;
        let digest = draft.blob(bytes);
        self.manifest = Some(manifest);
        draft.push(EventKind::Surveyed { manifest: digest })
    }

    /// Paths whose content, mode or kind differs from the beginning, sorted.
    pub(super) async fn files_modified(&mut self, state: &RunState) -> Vec<String> {
        if let Some(survey) = self.survey.take() {
            survey.abort();
        }
        let Some(digest) = state.manifest else { return Vec::new() };
        if self.manifest.is_none() {
            let bytes = self.parts.journal.blob(digest).await.ok();
            self.manifest = bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        }
        let Some(before) = self.manifest.take() else { return Vec::new() };
        let workspace = self.keeper.open(self.parts.clock.as_ref()).await.ok();
        let Some(workspace) = workspace else { return Vec::new() };
        match workspace.manifest().await {
            Ok(after) => differences(&before, &after),
            Err(_) => Vec::new(),
        }
    }
}

/// Paths that differ between two manifests.
pub(crate) fn differences(before: &Manifest, after: &Manifest) -> Vec<String> {
    let paths: BTreeSet<&String> = before.entries.keys().chain(after.entries.keys()).collect();
    paths
        .into_iter()
        .filter(|path| match (before.entries.get(*path), after.entries.get(*path)) {
            (Some(before), Some(after)) => differs(before, after),
            _ => true,
        })
        .cloned()
        .collect()
}

/// A file that was touched but holds the same is unchanged.
fn differs(before: &ManifestEntry, after: &ManifestEntry) -> bool {
    if before.mode != after.mode || before.size != after.size {
        return true;
    }
    match (before.digest, after.digest) {
        (Some(before), Some(after)) => before != after,
        _ => before.mtime_ns != after.mtime_ns,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use forge_types::Digest;

    fn manifest(entries: &[(&str, u32, &str, i64)]) -> Manifest {
        let entries = entries.iter().map(|(path, mode, text, mtime_ns)| {
            let digest = (!text.is_empty()).then(|| Digest::of(text.as_bytes()));
            let entry = ManifestEntry { mode: *mode, size: text.len() as u64, mtime_ns: *mtime_ns, digest };
            ((*path).to_owned(), entry)
        });
        Manifest { entries: entries.collect(), partial: false }
    }

    #[test]
    fn only_what_really_differs_is_named() {
        let before = manifest(&[
            ("same", 0o644, "a", 1),
            ("touched", 0o644, "b", 1),
            ("edited", 0o644, "c", 1),
            ("mode", 0o644, "d", 1),
            ("gone", 0o644, "e", 1),
            ("large", 0o644, "", 1),
        ]);
        let after = manifest(&[
            ("same", 0o644, "a", 1),
            ("touched", 0o644, "b", 9),
            ("edited", 0o644, "C", 1),
            ("mode", 0o755, "d", 1),
            ("new", 0o644, "f", 1),
            ("large", 0o644, "", 2),
        ]);
        assert_eq!(differences(&before, &after), ["edited", "gone", "large", "mode", "new"]);
    }
}
