//! A data directory in memory, for runs that are not kept (JRN-5).

use crate::Error;
use forge_files::{PrivateDir, TemporaryTree};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The directory in which Linux keeps files in memory.
const MEMORY_DIR: &str = "/dev/shm";
/// The kind that the names of these directories contain.
const DIR_KIND: &str = "scratch";

/// A directory that is removed with its last holder.
#[derive(Clone, Debug)]
pub(crate) struct EphemeralDataDir {
    directory: Arc<TemporaryTree>,
}

impl EphemeralDataDir {
    /// Creates a directory that only its owner can read; first removes those of dead processes. `kept_data` is the data
    /// directory of runs that are kept.
    pub(crate) fn create(kept_data: &Path) -> Result<Self, Error> {
        let memory = Path::new(MEMORY_DIR);
        if !memory.is_dir() {
            return Err(Error::NoMemory { place: MEMORY_DIR.to_owned() });
        }
        remove_stale(kept_data);
        let name = format!("{}-", forge_files::owned_temp_name(DIR_KIND));
        let closed = std::fs::Permissions::from_mode(0o700);
        let make =
            |place: &Path| tempfile::Builder::new().prefix(&name).permissions(closed).tempdir_in(place);
        // If another user has taken this user's name there, a directory with an unpredictable name still works.
        let made = match PrivateDir::for_user(memory) {
            Ok(own) => make(own.path()),
            Err(_) => make(memory),
        };
        let folder =
            made.map_err(|error| Error::Output { path: MEMORY_DIR.to_owned(), why: error.to_string() })?;
        Ok(Self { directory: Arc::new(TemporaryTree::new(folder.keep())) })
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.directory.path().to_owned()
    }
}

/// Removes the directories of dead processes, except those of other users. Returns the removed paths. An apply that was
/// interrupted is undone first; where that fails, the directory stays.
pub(crate) fn remove_stale(kept_data: &Path) -> Vec<PathBuf> {
    let memory = Path::new(MEMORY_DIR);
    let mut stale = forge_files::find_stale(&PrivateDir::user_path(memory), &[DIR_KIND]);
    stale.extend(forge_files::find_stale(memory, &[DIR_KIND]));
    stale.retain(|directory| {
        let runs = directory.join("runs");
        match forge_sandbox::undo_applies_before_removal(&runs, &kept_data.join("locks")) {
            Ok(notes) => notes.iter().for_each(|note| tracing::warn!("{note}")),
            Err(error) => {
                let directory = directory.display();
                tracing::warn!(%directory, %error, "a repository contains a part of a run's result");
                return false;
            }
        }
        forge_files::remove_own_tree(directory);
        directory.symlink_metadata().is_err()
    });
    stale
}
