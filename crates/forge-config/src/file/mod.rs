//! Configuration files: where they are, how they are read, and their values with the lines on which they stand.

pub(crate) mod toml;
pub(crate) mod yaml;

use crate::fault::{Fault, Faults, Origin};
use crate::schema::Raw;
use forge_types::Digest;
use std::path::{Path, PathBuf};

/// Larger files are not configuration; reading stops there.
pub(crate) const LARGEST: u64 = 256 * 1024;

/// The names under which a folder's configuration is looked for.
pub(crate) const NAMES: [&str; 2] = ["forge.toml", "forge.yaml"];

/// The form of a file, told by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// TOML.
    Toml,
    /// YAML.
    Yaml,
}

impl Format {
    /// The form that a file's name tells; everything but `.yaml` and `.yml` is taken as TOML.
    pub fn of(path: &Path) -> Self {
        match path.extension().and_then(|end| end.to_str()) {
            Some("yaml" | "yml") => Self::Yaml,
            _ => Self::Toml,
        }
    }

    /// The name of a configuration file of this form.
    pub const fn file_name(self) -> &'static str {
        match self {
            Self::Toml => NAMES[0],
            Self::Yaml => NAMES[1],
        }
    }
}

/// One value of a file.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Leaf {
    /// The path of its key, parts joined by dots.
    pub path: String,
    /// Its line, from 1; 0 if not known.
    pub line: usize,
    /// The value.
    pub raw: Raw,
}

/// A text that is not TOML or YAML.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SyntaxFault {
    pub line: usize,
    pub problem: String,
}

/// The content of a file.
#[derive(Clone, Debug)]
pub(crate) struct Content {
    pub path: PathBuf,
    pub text: String,
    pub digest: Digest,
}

/// The values of a text.
pub(crate) fn leaves(format: Format, text: &str) -> Result<Vec<Leaf>, SyntaxFault> {
    match format {
        Format::Toml => toml::leaves(text),
        Format::Yaml => yaml::leaves(text),
    }
}

/// The configuration file of a folder, if it has one.
///
/// # Errors
/// When it has both.
pub(crate) fn discover(folder: &Path, place: fn(PathBuf) -> Origin) -> Result<Option<PathBuf>, Faults> {
    let found: Vec<PathBuf> =
        NAMES.iter().map(|name| folder.join(name)).filter(|path| path.symlink_metadata().is_ok()).collect();
    match found.as_slice() {
        [] => Ok(None),
        [one] => Ok(Some(one.clone())),
        _ => Err(Fault::new(place(folder.to_owned()), "one configuration file", "forge.toml and forge.yaml")
            .hint("remove one of them")
            .alone()),
    }
}

/// Reads a file whole.
///
/// # Errors
/// When it can't be read, is no regular file, is too large or is not UTF-8.
pub(crate) fn read(path: &Path, place: fn(PathBuf) -> Origin) -> Result<Content, Faults> {
    let fault = |found: String| Fault::new(place(path.to_owned()), "a readable text file", found).alone();
    let bytes = forge_files::read(path, LARGEST).map_err(|error| fault(in_words(&error)))?;
    let digest = Digest::of(&bytes);
    let text = String::from_utf8(bytes).map_err(|_| fault("bytes that are not UTF-8".into()))?;
    Ok(Content { path: path.to_owned(), text, digest })
}

/// Says what was found in place of a readable file.
fn in_words(error: &forge_files::Error) -> String {
    match error {
        forge_files::Error::NotRegular { found: forge_files::Found::Directory, .. } => "a folder".to_owned(),
        forge_files::Error::NotRegular { .. } => "a special file".to_owned(),
        forge_files::Error::TooLarge { limit, .. } => format!("more than {} KiB", limit / 1024),
        error => error.reason(),
    }
}

/// Joins the parts of a path; a part that holds a dot is quoted, so that it can't pass for two.
pub(crate) fn join(prefix: &str, part: &str) -> String {
    let part =
        if part.is_empty() || part.contains(['.', '"']) { format!("{part:?}") } else { part.to_owned() };
    if prefix.is_empty() { part } else { format!("{prefix}.{part}") }
}

/// From byte offsets to lines.
pub(crate) struct LineIndex(Vec<usize>);

impl LineIndex {
    pub(crate) fn new(text: &str) -> Self {
        Self(text.match_indices('\n').map(|(at, _)| at).collect())
    }

    /// The line, from 1, that holds the byte at `offset`.
    pub(crate) fn line(&self, offset: usize) -> usize {
        self.0.partition_point(|at| *at < offset) + 1
    }
}
