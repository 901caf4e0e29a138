//! A data folder in memory, for runs that are not kept (JRN-5).

use crate::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where Linux keeps files in memory.
const MEMORY: &str = "/dev/shm";
const PREFIX: &str = "forge-scratch-";

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
        sweep(memory);
        let folder = tempfile::Builder::new()
            .prefix(&format!("{PREFIX}{}-", std::process::id()))
            .tempdir_in(memory)
            .map_err(|error| Error::Output { path: MEMORY.to_owned(), why: error.to_string() })?;
        Ok(Self { folder: Arc::new(folder) })
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().to_owned()
    }
}

/// Removes folders whose process is gone. Those of other users can't be removed and are left alone.
fn sweep(memory: &Path) {
    for entry in std::fs::read_dir(memory).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let pid = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        let dead = pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists());
        if dead {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}
