//! Files that the user names. One in a clone may lie behind a link that is not the user's own.

use crate::directory::Directory;
use crate::error::{Error, SpecialFileKind};
use crate::read::{read_text, read_text_within};
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// Mode of new files that are not private.
const SHARED_MODE: u32 = 0o644;

/// A file that the user named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UserFile {
    /// A path that is followed wherever it leads.
    Own(PathBuf),
    /// A path below a directory that came with a clone. No link below that directory is followed.
    Within {
        /// The directory.
        root: PathBuf,
        /// The path relative to the directory.
        relative: PathBuf,
    },
}

impl UserFile {
    /// Returns the path as named.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        match self {
            Self::Own(path) => path.clone(),
            Self::Within { root, relative } => root.join(relative),
        }
    }

    /// Checks that the file can be written as far as its directory and its type are concerned.
    ///
    /// # Errors
    /// [`Error::NotFound`] without its directory, [`Error::Link`], [`Error::NotRegular`], or a system error.
    pub fn check_writable(&self) -> Result<(), Error> {
        match self {
            Self::Own(path) if path.is_dir() => {
                Err(Error::NotRegular { path: path.clone(), found: SpecialFileKind::Directory })
            }
            Self::Own(path) if !path.parent().is_some_and(Path::is_dir) => {
                Err(Error::NotFound { path: path.clone() })
            }
            Self::Own(_) => Ok(()),
            Self::Within { root, relative } => {
                let (directory, name) = open_parent(root, relative)?;
                directory.contains_file(&name).map(drop)
            }
        }
    }

    /// Reads a text of at most `max_bytes`.
    ///
    /// # Errors
    /// As [`read_text`] and [`read_text_within`].
    pub fn read_text(&self, max_bytes: u64) -> Result<String, Error> {
        match self {
            Self::Own(path) => read_text(path, max_bytes),
            Self::Within { root, relative } => read_text_within(root, relative, max_bytes),
        }
    }

    /// Replaces the file, so that no reader sees a partial one.
    ///
    /// # Errors
    /// As [`UserFile::check_writable`]; the file is unchanged in that case.
    pub fn replace(&self, bytes: &[u8]) -> Result<(), Error> {
        match self {
            Self::Own(path) => replace_own(path, bytes),
            Self::Within { root, relative } => {
                let (directory, name) = open_parent(root, relative)?;
                let mode = directory.file_mode(&name)?.unwrap_or(SHARED_MODE);
                directory.replace_file(&name, bytes, mode)
            }
        }
    }

    /// Opens the file for appending; creates it if it is missing. A path of the user's own may be a pipe or a terminal.
    ///
    /// # Errors
    /// As [`UserFile::check_writable`].
    pub fn open_append(&self) -> Result<File, Error> {
        match self {
            Self::Own(path) => File::options()
                .create(true)
                .append(true)
                .open(path)
                .map_err(|source| Error::from_io(path, source)),
            Self::Within { root, relative } => {
                let (directory, name) = open_parent(root, relative)?;
                directory.open_append_file(&name, SHARED_MODE)
            }
        }
    }
}

/// Opens the directory of a file below `root`; returns it with the file's name.
fn open_parent(root: &Path, relative: &Path) -> Result<(Directory, String), Error> {
    let name = relative.file_name().and_then(|name| name.to_str());
    let name = name.ok_or_else(|| Error::NotFound { path: root.join(relative) })?.to_owned();
    let parent = relative.parent().filter(|parent| !parent.as_os_str().is_empty());
    Ok((Directory::open_within(root, parent.unwrap_or(Path::new(".")))?, name))
}

fn replace_own(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let beside = path.with_file_name(format!(".{name}.{}.new", std::process::id()));
    // A file that a killed process with the same id may have created.
    let _ = std::fs::remove_file(&beside);
    let written = File::create_new(&beside)
        .and_then(|mut file| file.write_all(bytes))
        .and_then(|()| std::fs::rename(&beside, path));
    written.map_err(|source| {
        let _ = std::fs::remove_file(&beside);
        Error::from_io(path, source)
    })
}
