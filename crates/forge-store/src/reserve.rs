//! Reserved disk space, so that the end of a run can be written on a full disk.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// The size of the reserve in bytes: enough for the last batches of many runs.
const RESERVE_BYTES: usize = 1024 * 1024;

/// The file that occupies the reserved space.
#[derive(Clone, Debug)]
pub(crate) struct DiskReserve {
    path: PathBuf,
}

impl DiskReserve {
    pub(crate) fn new(dir: &Path) -> Self {
        Self { path: dir.join("reserve") }
    }

    /// Creates the file if it does not exist. A disk that is too full for it is not an error.
    pub(crate) fn ensure(&self) {
        if self.path.exists() {
            return;
        }
        if let Err(error) = self.fill() {
            tracing::debug!(%error, path = %self.path.display(), "can't reserve disk space");
            self.release();
        }
    }

    fn fill(&self) -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&self.path)?;
        file.write_all(&incompressible_bytes())?;
        file.sync_all()
    }

    /// Frees the space; returns whether there was any.
    pub(crate) fn release(&self) -> bool {
        fs::remove_file(&self.path).is_ok()
    }
}

/// Returns bytes that a compressing file system can't shrink (xorshift64, Marsaglia 2003).
fn incompressible_bytes() -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(RESERVE_BYTES);
    while bytes.len() < RESERVE_BYTES {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes
}
