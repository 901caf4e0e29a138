//! Files readable by their owner only, written atomically by one writer at a time.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// File mode that grants access to the owner only.
const OWNER_MODE: u32 = 0o600;

/// Creates a directory with its parents; new ones are closed to other users.
pub(crate) fn make_private_dir(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// Replaces a file atomically: at any moment it is the old or the new one, even if the machine stops.
pub(crate) fn replace_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    make_private_dir(folder)?;
    let draft = temp_path(path);
    // A file that a killed process with the same id may have created.
    let _ = fs::remove_file(&draft);
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(OWNER_MODE)
        .open(&draft)
        .and_then(|mut file| {
            file.write_all(bytes)?;
            file.set_permissions(fs::Permissions::from_mode(OWNER_MODE))?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(&draft, path));
    if written.is_err() {
        let _ = fs::remove_file(&draft);
        return written;
    }
    // Otherwise a power failure may lose the new name; not every file system supports it.
    let _ = forge_files::sync_directory(folder);
    Ok(())
}

fn temp_path(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{}.tmp", std::process::id()))
}

/// Opens an empty file that serves as the lock for another one and is never removed.
pub(crate) fn open_lock_file(path: &Path) -> io::Result<File> {
    if let Some(folder) = path.parent() {
        make_private_dir(folder)?;
    }
    forge_files::open_or_create(path).map_err(forge_files::Error::into_io_error)
}

/// Returns the bits of a file's mode that grant access to others.
pub(crate) fn exposed_mode(meta: &fs::Metadata) -> Option<u32> {
    let mode = meta.permissions().mode() & 0o777;
    (mode & 0o077 != 0).then_some(mode)
}
