//! Names of temporaries next to the paths of a repository that change.
//!
//! A temporary must be found again after a crash by its name alone, in a directory in which anyone may choose names.
//! A name therefore contains the tag of its path and a code that is computed with a key of the run's data. Every other
//! name, however similar, belongs to an ordinary file.

use crate::error::{Error, IoContext};
use crate::{RelPath, host};
use forge_types::Digest;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;

const NEW_PREFIX: &str = ".forge-tmp-apply-new-";
const OLD_PREFIX: &str = ".forge-tmp-apply-old-";
const KEY_FILE: &str = "apply-key";
/// Lengths in hexadecimal digits.
const TAG_LEN: usize = 24;
const CODE_LEN: usize = 16;
const KEY_LEN: usize = 32;

/// The content of a temporary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TempKind {
    /// A new file, or the original one after an exchange.
    New,
    /// An original file that is kept until the end.
    Old,
}

impl TempKind {
    const fn prefix(self) -> &'static str {
        match self {
            Self::New => NEW_PREFIX,
            Self::Old => OLD_PREFIX,
        }
    }
}

/// The names of the temporaries of one run.
#[derive(Debug)]
pub struct TempNames {
    key: String,
}

impl TempNames {
    /// Returns the names that were created in a directory of the run's data; `None` if there are none.
    ///
    /// # Errors
    /// Returns the host's error.
    pub fn load(directory: &Path) -> Result<Option<Self>, Error> {
        let path = directory.join(KEY_FILE);
        match std::fs::read_to_string(&path) {
            Ok(key) => Ok((key.len() == KEY_LEN).then_some(Self { key })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::from_io("read", &path, error)),
        }
    }

    /// Creates names, with a key that is durable in a directory of the run's data.
    ///
    /// # Errors
    /// Returns the host's error.
    pub fn create(directory: &Path) -> Result<Self, Error> {
        let (path, unfinished) = (directory.join(KEY_FILE), directory.join(format!("{KEY_FILE}.new")));
        let mut random = [0; KEY_LEN / 2];
        getrandom::fill(&mut random).map_err(io::Error::other).io_context("create", &path)?;
        let key: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        let write = || {
            let mut file = File::create(&unfinished)?;
            file.write_all(key.as_bytes())?;
            file.sync_all()?;
            std::fs::rename(&unfinished, &path)?;
            host::sync_directory(directory)
        };
        write().io_context("write", &path)?;
        Ok(Self { key })
    }

    /// Returns the temporary for `path` in a directory.
    pub fn temp_path(&self, kind: TempKind, directory: &RelPath, path: &RelPath) -> RelPath {
        let tag = path_tag(path);
        directory.join(format!("{}{tag}{}", kind.prefix(), self.code(kind, &tag)).as_bytes())
    }

    /// Returns the kind and the [tag](path_tag) of a temporary; `None` if the name is none of this run.
    pub fn parse<'a>(&self, name: &'a [u8]) -> Option<(TempKind, &'a str)> {
        let name = std::str::from_utf8(name).ok()?;
        let kind = [TempKind::New, TempKind::Old].into_iter().find(|kind| name.starts_with(kind.prefix()))?;
        let (tag, code) = name.strip_prefix(kind.prefix())?.split_at_checked(TAG_LEN)?;
        (code == self.code(kind, tag)).then_some((kind, tag))
    }

    /// Returns whether a name is that of a temporary of this run.
    pub fn contains(&self, name: &[u8]) -> bool {
        self.parse(name).is_some()
    }

    fn code(&self, kind: TempKind, tag: &str) -> String {
        // Nested, so that no code follows from another one.
        let inner = Digest::of_bytes(format!("{}{}{tag}", self.key, kind.prefix()).as_bytes());
        truncated_hex(format!("{}{inner}", self.key).as_bytes(), CODE_LEN)
    }
}

/// Returns the part of a temporary's name that identifies its path.
pub fn path_tag(path: &RelPath) -> String {
    truncated_hex(path.as_bytes(), TAG_LEN)
}

fn truncated_hex(bytes: &[u8], len: usize) -> String {
    let mut hex = Digest::of_bytes(bytes).to_string();
    hex.truncate(len);
    hex
}
