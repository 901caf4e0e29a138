//! Atomic writing of files: readers never see a partial one.

use forge_files::Directory;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Replaces or creates a file that only its owner may read, and creates its directories.
pub(crate) fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    replace_file(path, bytes, 0o600)
}

/// Replaces a file and keeps its mode. A link is followed, so that its target is replaced.
pub(crate) fn write_keeping_mode(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let target = path.canonicalize()?;
    let mode = target.metadata()?.permissions().mode() & 0o777;
    replace_file(&target, bytes, mode)
}

/// Replaces a file of a repository and keeps its mode. A link is refused, because a clone can point it anywhere.
pub(crate) fn write_keeping_mode_within(directory: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let replace = || {
        let directory = Directory::open(directory)?;
        let mode = directory.file_mode(name)?.unwrap_or(0o644);
        directory.replace_file(name, bytes, mode)
    };
    replace().map_err(forge_files::Error::into_io_error)
}

fn replace_file(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let temporary = temp_path_for(path);
    // A file that a killed process with the same id may have created.
    let _ = fs::remove_file(&temporary);
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&temporary)
        .and_then(|mut file| {
            file.write_all(bytes)?;
            file.set_permissions(fs::Permissions::from_mode(mode))?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written
}

fn temp_path_for(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{}.tmp", std::process::id()))
}
