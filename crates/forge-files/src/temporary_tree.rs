//! Directories that are removed with the value that holds them, whatever the permissions of what is in them.

use crate::remove_tree;
use std::path::{Path, PathBuf};

/// A directory of this user that is removed when this value is dropped. An overlay leaves a directory in its work directory
/// that even its owner cannot open, on which an ordinary removal ends.
#[derive(Debug)]
pub struct TemporaryTree {
    path: PathBuf,
    is_kept: bool,
}

impl TemporaryTree {
    /// Takes over a directory that exists.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), is_kept: false }
    }

    /// Returns the directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Keeps the directory and returns it.
    #[must_use]
    pub fn keep(mut self) -> PathBuf {
        self.is_kept = true;
        self.path.clone()
    }
}

impl Drop for TemporaryTree {
    fn drop(&mut self) {
        if !self.is_kept {
            remove_tree(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_directory_that_cannot_be_opened_is_removed_with_the_rest() {
        let around = tempfile::tempdir().unwrap();
        let make = || {
            let made = TemporaryTree::new(tempfile::tempdir_in(around.path()).unwrap().keep());
            let work = made.path().join("work/work");
            fs::create_dir_all(&work).unwrap();
            fs::set_permissions(&work, fs::Permissions::from_mode(0o000)).unwrap();
            made
        };
        let left = make().path().to_owned();
        assert!(!left.exists());
        let kept = make().keep();
        assert!(kept.exists());
        drop(TemporaryTree::new(kept));
        assert_eq!(fs::read_dir(around.path()).unwrap().count(), 0);
    }
}
