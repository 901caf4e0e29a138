//! A little disk that is kept back, so that the end of a run can be written on a full disk.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// Enough for the last batches of many runs, in bytes.
const RESERVE_BYTES: usize = 1024 * 1024;

/// The file that keeps the space.
#[derive(Clone, Debug)]
pub(crate) struct DiskReserve {
    path: PathBuf,
}

impl DiskReserve {
    pub(crate) fn new(dir: &Path) -> Self {
        Self { path: dir.join("reserve") }
    }

    /// Makes the file if there is none. A disk that is too full for it is left as it is.
    pub(crate) fn ensure(&self) {
        if self.path.exists() {
            return;
        }
        if let Err(error) = self.fill() {
            tracing::debug!(%error, path = %self.path.display(), "no disk space could be reserved");
            self.release();
        }
    }

    fn fill(&self) -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&self.path)?;
        file.write_all(&incompressible_bytes())?;
        file.sync_all()
    }

    /// Gives the space back; whether there was any.
    pub(crate) fn release(&self) -> bool {
        fs::remove_file(&self.path).is_ok()
    }
}

/// Bytes that a file system which compresses can't make smaller (xorshift64, Marsaglia 2003).
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
