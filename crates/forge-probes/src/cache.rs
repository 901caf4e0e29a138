//! Storage of a verdict, so that a run need not repeat all probes.

use super::{HostFingerprint, ProbeScope, ProbeVerdict};
use forge_types::Digest;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

/// Maximum size of a stored verdict: some two hundred probes with a sentence each.
const MAX_VERDICT_BYTES: u64 = 4 << 20;

impl ProbeVerdict {
    /// Returns the key of a verdict. It depends on this machine, this user, this build of Forge, the backend and its
    /// version (for example of a container engine; empty if there is none).
    #[must_use]
    pub fn cache_key(backend: &str, backend_version: &str, scope: ProbeScope) -> String {
        let build = fs::metadata("/proc/self/exe").map(|exe| (exe.len(), exe.mtime(), exe.mtime_nsec()));
        let facts = (
            env!("CARGO_PKG_VERSION"),
            build.ok(),
            backend,
            backend_version,
            scope,
            HostFingerprint::of_this_machine(),
        );
        let text = serde_json::to_vec(&facts).unwrap_or_default();
        Digest::of_bytes(&text).to_string()
    }

    /// Returns the verdict stored under this key in a directory, if there is one.
    #[must_use]
    pub fn load(folder: &Path, key: &str) -> Option<Self> {
        serde_json::from_slice(&forge_files::read(&verdict_path(folder, key), MAX_VERDICT_BYTES).ok()?).ok()
    }

    /// Stores the verdict under a key in a directory, which is created if necessary. Other verdicts for the same
    /// backend and scope are removed because they belong to an earlier machine or build.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub fn store(&self, folder: &Path, key: &str) -> io::Result<()> {
        // Only the user may read what was found about this machine.
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        for entry in fs::read_dir(folder)?.flatten() {
            let text = forge_files::read(&entry.path(), MAX_VERDICT_BYTES).ok();
            let other = text.and_then(|text| serde_json::from_slice::<Self>(&text).ok());
            if other.is_some_and(|o| {
                (o.backend, o.scope, o.host.uid) == (self.backend.clone(), self.scope, self.host.uid)
            }) {
                // Another process may have removed it in the meantime.
                let _ = fs::remove_file(entry.path());
            }
        }
        let place = verdict_path(folder, key);
        let draft = place.with_extension(format!("{}.new", std::process::id()));
        let file = forge_files::open_or_create(&draft).map_err(forge_files::Error::into_io_error)?;
        file.set_len(0)?;
        (&file).write_all(&serde_json::to_vec_pretty(self)?)?;
        fs::rename(draft, place)
    }
}

fn verdict_path(folder: &Path, key: &str) -> PathBuf {
    folder.join(format!("verdict-{key}.json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_is_kept_per_backend_version_and_scope() {
        let folder = tempfile::tempdir().unwrap();
        let verdict = ProbeVerdict::from_outcomes("native", ProbeScope::All, &crate::ProbeOutcomes::new());
        let key = ProbeVerdict::cache_key("native", "", ProbeScope::All);
        assert_eq!(key, ProbeVerdict::cache_key("native", "", ProbeScope::All));
        let others = [
            ("docker", "", ProbeScope::All),
            ("native", "2", ProbeScope::All),
            ("native", "", ProbeScope::Required),
        ];
        assert!(
            others
                .iter()
                .all(|(backend, version, scope)| ProbeVerdict::cache_key(backend, version, *scope) != key)
        );
        assert_eq!(ProbeVerdict::load(folder.path(), &key), None);
        verdict.store(folder.path(), &key).unwrap();
        assert_eq!(ProbeVerdict::load(folder.path(), &key), Some(verdict.clone()));
        verdict.store(folder.path(), "next").unwrap();
        assert_eq!(ProbeVerdict::load(folder.path(), &key), None);
        fs::write(folder.path().join("verdict-damaged.json"), "{").unwrap();
        assert_eq!(ProbeVerdict::load(folder.path(), "damaged"), None);
    }
}
