//! A data folder in memory, for runs that are not kept (JRN-5).

use crate::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where Linux keeps files in memory.
const MEMORY: &str = "/dev/shm";
/// By which these folders are known.
const KIND: &str = "scratch";

/// A folder that goes away with its last holder.
#[derive(Clone, Debug)]
pub(crate) struct Scratch {
    folder: Arc<tempfile::TempDir>,
}

impl Scratch {
    /// A new folder, readable by its owner only; what processes that died left behind is removed.
    pub(crate) fn make() -> Result<Self, Error> {
        let memory = Path::new(MEMORY);
        if !memory.is_dir() {
            let what =
                format!("{MEMORY} is not there, so a run can't be kept in memory. Leave --no-durable out");
            return Err(Error::Invalid { what });
        }
        sweep();
        let folder = tempfile::Builder::new()
            .prefix(&format!("{}-", forge_sandbox::own_name(KIND)))
            .tempdir_in(memory)
            .map_err(|error| Error::Output { path: MEMORY.to_owned(), why: error.to_string() })?;
        Ok(Self { folder: Arc::new(folder) })
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().to_owned()
    }
}

/// Removes folders whose process is gone. Those of other users can't be removed and are left alone. Gives what was
/// removed.
pub(crate) fn sweep() -> Vec<PathBuf> {
    let mut left = forge_sandbox::ownerless(Path::new(MEMORY), &[KIND]);
    left.retain(|folder| {
        forge_sandbox::remove_tree(folder);
        !folder.exists()
    });
    left
}
