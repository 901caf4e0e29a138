//! The record that the user created or opened a repository's store of secrets, so that it may be used.

use crate::environment::UserDirs;
use crate::write;
use forge_types::Digest;
use std::io;
use std::path::{Path, PathBuf};

/// Returns whether the user created or opened the store of this repository before.
pub fn is_adopted(dirs: &UserDirs, repo: &Path) -> bool {
    adoption_record(dirs, repo).is_some_and(|path| path.exists())
}

/// Records that the store of this repository may be used.
///
/// # Errors
/// If the user's data directory can't be written.
pub fn adopt_store(dirs: &UserDirs, repo: &Path) -> io::Result<()> {
    let Some(path) = adoption_record(dirs, repo) else {
        return Err(io::Error::new(io::ErrorKind::NotFound, "the repository does not exist"));
    };
    if path.exists() {
        return Ok(());
    }
    let place = repo.canonicalize()?.to_string_lossy().into_owned();
    write::write_private(&path, format!("{place}\n").as_bytes())
}

/// Removes that record and returns whether there was one.
pub(crate) fn revoke_adoption(dirs: &UserDirs, repo: &Path) -> bool {
    adoption_record(dirs, repo).is_some_and(|path| std::fs::remove_file(path).is_ok())
}

fn adoption_record(dirs: &UserDirs, repo: &Path) -> Option<PathBuf> {
    let canonical = repo.canonicalize().ok()?;
    let name = Digest::of_bytes(canonical.as_os_str().as_encoded_bytes());
    Some(dirs.data.join("stores").join(format!("{name}.mine")))
}
