//! A data folder in memory, for runs that are not kept (JRN-5).

use crate::Error;
use forge_files::PrivateDir;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where Linux keeps files in memory.
const MEMORY_DIR: &str = "/dev/shm";
/// By which these folders are known.
const DIR_KIND: &str = "scratch";

/// A folder that goes away with its last holder.
#[derive(Clone, Debug)]
pub(crate) struct EphemeralDataDir {
    directory: Arc<RemovedOnDrop>,
}

#[derive(Debug)]
struct RemovedOnDrop(PathBuf);

impl Drop for RemovedOnDrop {
    fn drop(&mut self) {
        // An overlay leaves a directory that is closed to its owner, which other removals stumble over.
        forge_files::remove_tree(&self.0);
    }
}

impl EphemeralDataDir {
    /// A new folder, readable by its owner only; what processes that died left behind is removed.
    pub(crate) fn create() -> Result<Self, Error> {
        let memory = Path::new(MEMORY_DIR);
        if !memory.is_dir() {
            let what = format!(
                "{MEMORY_DIR} is not there, so a run can't be kept in memory. Leave --no-durable out"
            );
            return Err(Error::Invalid { what });
        }
        remove_stale();
        let name = format!("{}-", forge_files::owned_temp_name(DIR_KIND));
        let closed = std::fs::Permissions::from_mode(0o700);
        let make =
            |place: &Path| tempfile::Builder::new().prefix(&name).permissions(closed).tempdir_in(place);
        // Who took this user's name there keeps nobody from a folder whose name can't be foreseen.
        let made = match PrivateDir::for_user(memory) {
            Ok(own) => make(own.path()),
            Err(_) => make(memory),
        };
        let folder =
            made.map_err(|error| Error::Output { path: MEMORY_DIR.to_owned(), why: error.to_string() })?;
        Ok(Self { directory: Arc::new(RemovedOnDrop(folder.keep())) })
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.directory.0.clone()
    }
}

/// Removes folders whose process is gone. Those of other users are not touched. Gives what was removed.
pub(crate) fn remove_stale() -> Vec<PathBuf> {
    let memory = Path::new(MEMORY_DIR);
    let mut removed = forge_files::remove_stale(&PrivateDir::user_path(memory), &[DIR_KIND]);
    let mut shared = forge_files::find_stale(memory, &[DIR_KIND]);
    shared.retain(|folder| {
        forge_files::remove_own_tree(folder);
        folder.symlink_metadata().is_err()
    });
    removed.extend(shared);
    removed
}
