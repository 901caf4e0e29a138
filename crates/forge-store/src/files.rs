//! Large payloads: files named by their content hash, complete and on disk before an event refers to them.

use crate::fault;
use forge_ports::journal::{Blob, Error};
use forge_types::{CommandId, Digest};
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// The directory of large payloads: `ab/cdef…` for the content hash `abcdef…`.
#[derive(Clone, Debug)]
pub(crate) struct PayloadFiles {
    dir: PathBuf,
}

/// The largest payload that is read back, in bytes: more than is ever written.
const MAX_PAYLOAD_BYTES: u64 = 1 << 30;

impl PayloadFiles {
    pub(crate) fn new(data_dir: &Path) -> Self {
        Self { dir: data_dir.join("blobs") }
    }

    /// Returns the path of the content with this hash.
    pub(crate) fn path(&self, digest: Digest) -> PathBuf {
        let name = digest.to_string();
        self.dir.join(&name[..2]).join(&name[2..])
    }

    /// Writes a payload unless an intact copy exists; returns once it survives a power cut.
    pub(crate) fn write(&self, blob: &Blob) -> Result<(), Error> {
        let path = self.path(blob.digest);
        if forge_files::read(&path, blob.bytes.len() as u64).is_ok_and(|found| found == blob.bytes) {
            return Ok(());
        }
        let folder = path.parent().unwrap_or(&self.dir);
        // A unique name, so that two writers of the same content don't share a file.
        let draft = folder.join(format!(".{}", CommandId::generate()));
        self.write_to(folder, &draft, &path, &blob.bytes).map_err(|error| {
            // A partial draft is useless, and on a full disk its space is needed.
            let _ = fs::remove_file(&draft);
            fault::io_error(&path, "writing a payload", &error)
        })
    }

    fn write_to(&self, folder: &Path, draft: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let new_folder = !folder.is_dir();
        if new_folder {
            DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(draft)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(draft, path)?;
        forge_files::sync_directory(folder)?;
        if new_folder {
            forge_files::sync_directory(&self.dir)?;
            if let Some(above) = self.dir.parent() {
                forge_files::sync_directory(above)?;
            }
        }
        Ok(())
    }

    /// Reads the content with this hash, unverified; `None` if there is no such file.
    pub(crate) fn read(&self, digest: Digest) -> Result<Option<Vec<u8>>, Error> {
        let path = self.path(digest);
        match forge_files::read(&path, MAX_PAYLOAD_BYTES) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.is_absent() => Ok(None),
            Err(error) => Err(fault::io_error(&path, "reading a payload", &error.into_io_error())),
        }
    }
}
