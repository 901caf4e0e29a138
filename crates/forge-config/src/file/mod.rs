//! Configuration files: how they are found and read, and their values with line numbers.

pub(crate) mod toml;
pub(crate) mod yaml;

use crate::error::{ConfigError, ConfigErrors, ValueOrigin};
use crate::schema::RawSetting;
use forge_types::Digest;
use std::path::{Path, PathBuf};

/// Largest size of a configuration file in bytes.
pub(crate) const MAX_FILE_BYTES: u64 = 256 * 1024;

/// File names of the configuration in a directory.
pub const CONFIG_FILE_NAMES: [&str; 2] = ["forge.toml", "forge.yaml"];

/// Format of a file, determined by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigFormat {
    /// TOML.
    Toml,
    /// YAML.
    Yaml,
}

impl ConfigFormat {
    /// Determines the format from a file's name; everything but `.yaml` and `.yml` is treated as TOML.
    pub fn from_path(path: &Path) -> Self {
        match path.extension().and_then(|end| end.to_str()) {
            Some("yaml" | "yml") => Self::Yaml,
            _ => Self::Toml,
        }
    }

    /// Returns the name of a configuration file in this format.
    pub const fn file_name(self) -> &'static str {
        match self {
            Self::Toml => CONFIG_FILE_NAMES[0],
            Self::Yaml => CONFIG_FILE_NAMES[1],
        }
    }
}

/// A value in a file.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ConfigLeaf {
    /// Path of the key, with its parts joined by dots.
    pub path: String,
    /// Line number, from 1; 0 if unknown.
    pub line: usize,
    /// The value itself.
    pub raw: RawSetting,
}

/// An error in the syntax of TOML or YAML.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SyntaxError {
    pub line: usize,
    pub problem: String,
}

/// The content of a file.
#[derive(Clone, Debug)]
pub(crate) struct ConfigFile {
    pub path: PathBuf,
    pub text: String,
    pub digest: Digest,
}

/// Parses a text into its values.
pub(crate) fn parse_text(format: ConfigFormat, text: &str) -> Result<Vec<ConfigLeaf>, SyntaxError> {
    match format {
        ConfigFormat::Toml => toml::parse_toml(text),
        ConfigFormat::Yaml => yaml::parse_yaml(text),
    }
}

/// Finds the configuration file of a directory, if it has one.
///
/// # Errors
/// If it has both, or it is not known whether it has one.
pub(crate) fn discover_file(
    folder: &Path,
    place: fn(PathBuf) -> ValueOrigin,
) -> Result<Option<PathBuf>, ConfigErrors> {
    let mut found = Vec::new();
    for path in CONFIG_FILE_NAMES.iter().map(|name| folder.join(name)) {
        // Settings that cannot be read must not count as settings that were never made.
        let is_present = forge_files::is_present(&path).map_err(|error| {
            ConfigError::new(place(path.clone()), "a file that can be read, or none", error.to_string())
                .with_hint(format!("check the permissions of {} and where it leads", folder.display()))
                .into_errors()
        })?;
        if is_present {
            found.push(path);
        }
    }
    match found.as_slice() {
        [] => Ok(None),
        [one] => Ok(Some(one.clone())),
        _ => Err(ConfigError::new(
            place(folder.to_owned()),
            "one configuration file",
            "forge.toml and forge.yaml",
        )
        .with_hint("remove one of them")
        .into_errors()),
    }
}

/// Reads a whole file.
///
/// # Errors
/// If the file can't be read, is not a regular file, is too large or is not UTF-8.
pub(crate) fn read_file(path: &Path, place: fn(PathBuf) -> ValueOrigin) -> Result<ConfigFile, ConfigErrors> {
    let fault =
        |found: String| ConfigError::new(place(path.to_owned()), "a readable text file", found).into_errors();
    let bytes =
        forge_files::read(path, MAX_FILE_BYTES).map_err(|error| fault(describe_read_error(&error)))?;
    let digest = Digest::of_bytes(&bytes);
    let text = String::from_utf8(bytes).map_err(|_| fault("bytes that are not UTF-8".into()))?;
    Ok(ConfigFile { path: path.to_owned(), text, digest })
}

/// Describes what was found in place of a readable file.
fn describe_read_error(error: &forge_files::Error) -> String {
    match error {
        forge_files::Error::NotRegular { found: forge_files::SpecialFileKind::Directory, .. } => {
            "a directory".to_owned()
        }
        forge_files::Error::NotRegular { .. } => "a special file".to_owned(),
        forge_files::Error::TooLarge { limit, .. } => format!("more than {} KiB", limit / 1024),
        error => error.reason(),
    }
}

/// Joins the parts of a path. A part that contains a dot is quoted, so that it is not mistaken for two.
pub(crate) fn join_path(prefix: &str, part: &str) -> String {
    let part =
        if part.is_empty() || part.contains(['.', '"']) { format!("{part:?}") } else { part.to_owned() };
    if prefix.is_empty() { part } else { format!("{prefix}.{part}") }
}

/// Index from byte offsets to lines.
pub(crate) struct LineIndex(Vec<usize>);

impl LineIndex {
    pub(crate) fn new(text: &str) -> Self {
        Self(text.match_indices('\n').map(|(at, _)| at).collect())
    }

    /// Returns the line number, from 1, of the byte at `offset`.
    pub(crate) fn line_at(&self, offset: usize) -> usize {
        self.0.partition_point(|at| *at < offset) + 1
    }
}
