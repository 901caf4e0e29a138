//! Automatic cleanup of dead sandboxes and old snapshots.

use crate::{Error, GcLimits, Project, prune_sandboxes};
use std::path::Path;
use std::time::{Duration, SystemTime};

/// The minimum time between two cleanups of snapshots, as scanning those of all runs takes a while.
const CLEANUP_INTERVAL: Duration = Duration::from_secs(3600);

impl Project {
    /// Removes the remnants of sandboxes of dead processes and, once an hour, snapshots beyond the configured
    /// limits. Belongs to the end of a run, when the user no longer waits.
    ///
    /// # Errors
    /// If the data directory can't be read or written.
    pub async fn run_cleanup(&self) -> Result<(), Error> {
        let loaded = self.config();
        for what in prune_sandboxes(loaded).await {
            tracing::info!(what, "removed a remnant of a dead sandbox");
        }
        let stamp = self.forge().data_dir().join("gc.stamp");
        if !loaded.settings.store.durable || !is_due(&stamp) {
            return Ok(());
        }
        // Stamped before the work, so that only one of several concurrent processes does it.
        let stamped = forge_files::open_or_create(&stamp).map_err(forge_files::Error::into_io_error);
        stamped
            .and_then(|file| file.set_len(0))
            .map_err(|error| Error::Output { path: stamp.display().to_string(), why: error.to_string() })?;
        let limits = &loaded.settings.workspace;
        let limits = GcLimits { bytes: limits.snapshot_limit, days: limits.snapshot_days };
        for freed in self.gc(limits, false).await? {
            tracing::info!(run = %freed.run, bytes = freed.bytes, "removed old snapshots");
        }
        Ok(())
    }
}

/// Returns whether the last cleanup was long enough ago; a stamp in the future counts as missing.
#[allow(
    clippy::disallowed_methods,
    reason = "compared with the file system's time, which knows no other clock"
)]
fn is_due(stamp: &Path) -> bool {
    let written = stamp.metadata().and_then(|meta| meta.modified());
    let age = written.ok().and_then(|written| SystemTime::now().duration_since(written).ok());
    age.is_none_or(|age| age >= CLEANUP_INTERVAL)
}
