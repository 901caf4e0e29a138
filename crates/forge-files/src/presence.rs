//! Whether a file exists, without mistaking one that cannot be examined for one that does not exist.

use std::io;
use std::path::Path;

/// Returns whether anything is at a path, even a link that leads nowhere.
///
/// # Errors
/// It is not known: a directory on the way cannot be searched, or is a link that leads nowhere or to itself.
pub fn is_present(path: &Path) -> io::Result<bool> {
    match path.symlink_metadata() {
        Ok(_) => Ok(true),
        Err(error) if is_absence(&error) => {
            let dangling = path.ancestors().skip(1).find(|around| around.symlink_metadata().is_ok());
            match dangling.map(Path::metadata) {
                Some(Err(error)) => Err(error),
                _ => Ok(false),
            }
        }
        Err(error) => Err(error),
    }
}

/// Returns whether anything is at a path, or may be there as far as this process can see. For files that restrict what is
/// allowed: opening the file then reports the error.
#[must_use]
pub fn may_be_present(path: &Path) -> bool {
    is_present(path).unwrap_or(true)
}

fn is_absence(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn only_what_does_not_exist_is_absent() {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path);
        fs::write(at("file"), "").unwrap();
        symlink("nowhere", at("dangling")).unwrap();
        symlink("loop", at("loop")).unwrap();
        for present in ["file", "dangling", "loop", ""] {
            assert!(is_present(&at(present)).unwrap(), "{present}");
        }
        for absent in ["other", "other/file", "file/below"] {
            assert!(!is_present(&at(absent)).unwrap(), "{absent}");
        }
        for unknown in ["dangling/file", "dangling/deep/file", "loop/file"] {
            assert!(is_present(&at(unknown)).is_err() && may_be_present(&at(unknown)), "{unknown}");
        }
    }
}
