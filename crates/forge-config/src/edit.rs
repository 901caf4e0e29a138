//! Functions of `forge config` other than listing: reading one key, locating the files, and changing a file without
//! losing its comments.

use crate::environment::UserDirs;
use crate::error::{ConfigErrors, ValueOrigin};
use crate::file::{self, CONFIG_FILE_NAMES, ConfigFormat, ConfigLeaf, yaml};
use crate::resolved::{ResolvedConfig, ResolvedSetting};
use crate::schema::{
    self, KEYS, KeyKind, ListElement, ReadContext, SchemaKey, SettingValue, nearest_name, quote_safely,
};
use crate::sources::ConfigSources;
use crate::{trust, write};
use forge_types::{ErrorClass, NextStep};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use thiserror::Error;
use toml_edit::{Array, DocumentMut, Item, Table, TableLike};

/// Failure to show or change a key.
#[derive(Debug, Error)]
pub enum EditError {
    /// The key does not exist.
    #[error("{key} is not a configuration key{hint}")]
    UnknownKey {
        /// Name that was requested.
        key: String,
        /// Suggestion of a similar key, or an empty text.
        hint: String,
    },
    /// The value is invalid, or a file can't be read.
    #[error(transparent)]
    Faults(#[from] ConfigErrors),
    /// The project has no file yet.
    #[error("{folder} has no forge.toml or forge.yaml")]
    NoProjectFile {
        /// Directory of the project.
        folder: PathBuf,
    },
    /// The file is written in a form that can't be changed safely.
    #[error("{place} can't be edited safely; add `{line}` there yourself")]
    ByHand {
        /// File and line.
        place: String,
        /// Line to write.
        line: String,
    },
    /// The project file is a link.
    #[error(
        "{path} is a symbolic link, which a repository could point anywhere, so it was not changed. Edit the target \
         yourself, or replace the link by a regular file"
    )]
    Link {
        /// Path of the link.
        path: PathBuf,
    },
    /// The file can't be written.
    #[error("{path} can't be written: {reason}")]
    Write {
        /// Path of the file.
        path: PathBuf,
        /// Error of the system.
        reason: std::io::Error,
    },
}

impl EditError {
    /// Returns the class of the error. A failed write may succeed later; the other errors need a different request.
    pub const fn class(&self) -> ErrorClass {
        match self {
            Self::Write { .. } => ErrorClass::Unavailable,
            _ => ErrorClass::Invalid,
        }
    }

    /// Returns the step that the user can take, if there is one.
    pub const fn next_step(&self) -> Option<NextStep> {
        match self {
            Self::UnknownKey { .. } => Some(NextStep::ListSettings),
            Self::NoProjectFile { .. } => Some(NextStep::InitProject),
            _ => None,
        }
    }
}

/// A place that is searched for configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ConfigLocation {
    /// Name of the layer: `user`, `project` or `state`.
    pub layer: &'static str,
    /// Path of the file, or of the directory if it has none.
    pub path: PathBuf,
    /// Whether the path exists.
    pub exists: bool,
}

/// The file to change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EditTarget<'a> {
    /// The user's own file.
    User,
    /// The file of the project in this directory.
    Project(&'a Path),
}

/// The result of a change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EditedKey {
    /// Path of the file.
    pub path: PathBuf,
    /// Path of the key.
    pub key: &'static str,
    /// New line number of the key, from 1.
    pub line: usize,
}

/// Returns one key with its value and origin.
///
/// # Errors
/// If the key does not exist.
pub fn get_key<'a>(loaded: &'a ResolvedConfig, key: &str) -> Result<&'a ResolvedSetting, EditError> {
    let found = require_key(key)?;
    Ok(loaded.values.iter().find(|value| value.key == found.path).expect("every key of the schema is loaded"))
}

/// Returns the places that are searched for configuration, strongest first.
///
/// # Errors
/// If the home directory is unknown, or a directory has two configuration files.
pub fn config_locations(sources: &ConfigSources) -> Result<Vec<ConfigLocation>, ConfigErrors> {
    let dirs = UserDirs::from_environment(&sources.env)?;
    let at = |layer, folder: &Path, place| {
        let found = file::discover_file(folder, place)?;
        let path = found.clone().unwrap_or_else(|| folder.to_owned());
        Ok::<_, ConfigErrors>(ConfigLocation { layer, path, exists: found.is_some() })
    };
    let project = match &sources.config_path {
        Some(path) => {
            let path = sources.cwd.join(path);
            ConfigLocation { layer: "project", exists: path.is_file(), path }
        }
        None => at("project", &sources.repo, ValueOrigin::project_file)?,
    };
    let state = ConfigLocation { layer: "state", exists: dirs.data.is_dir(), path: dirs.data.clone() };
    Ok(vec![project, at("user", &dirs.config, ValueOrigin::user_file)?, state])
}

/// Sets one key in a file, keeping comments and order. A trusted repository stays trusted, because the user made the
/// change.
///
/// # Errors
/// If the key is unknown, the value is invalid, or the file can't be read, changed safely, or written.
pub fn set_key(
    dirs: &UserDirs,
    target: EditTarget<'_>,
    key: &str,
    value: &str,
) -> Result<EditedKey, EditError> {
    let key = require_key(key)?;
    let folder = match target {
        EditTarget::User => &dirs.config,
        EditTarget::Project(repo) => repo,
    };
    let place = match target {
        EditTarget::User => ValueOrigin::user_file,
        EditTarget::Project(_) => ValueOrigin::project_file,
    };
    let context = ReadContext { base: folder, home: dirs.home_dir() };
    let parsed = key.read_flag(value, "the value", context)?;
    let literal = ValueLiteral::new(key, value, &parsed);

    let path = match (file::discover_file(folder, place)?, target) {
        (Some(path), _) => path,
        (None, EditTarget::User) => folder.join(CONFIG_FILE_NAMES[0]),
        (None, EditTarget::Project(repo)) => {
            return Err(EditError::NoProjectFile { folder: repo.to_owned() });
        }
    };
    let meta = path.symlink_metadata();
    let exists = meta.is_ok();
    if let (EditTarget::Project(_), Ok(meta)) = (target, meta)
        && meta.is_symlink()
    {
        return Err(EditError::Link { path });
    }
    let old = if exists { file::read_file(&path, place)?.text } else { String::new() };
    let new = match ConfigFormat::from_path(&path) {
        ConfigFormat::Toml => set_in_toml(&old, key, &literal),
        ConfigFormat::Yaml => set_in_yaml(&old, key, &literal),
    };
    let by_hand = || EditError::ByHand {
        place: path.display().to_string(),
        line: format!("{}: {}", key.path, literal.to_json()),
    };
    let new = new.ok_or_else(by_hand)?;
    let line = verified_line(ConfigFormat::from_path(&path), &old, &new, key, &parsed, context)
        .ok_or_else(by_hand)?;

    let trusted = matches!(target, EditTarget::Project(repo) if trust::trust_state(dirs, repo).is_trusted());
    let written = match target {
        EditTarget::Project(repo) => {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            write::write_keeping_mode_within(repo, &name, new.as_bytes())
        }
        EditTarget::User if exists => write::write_keeping_mode(&path, new.as_bytes()),
        EditTarget::User => write::write_private(&path, new.as_bytes()),
    };
    written.map_err(|reason| EditError::Write { path: path.clone(), reason })?;
    if let (true, EditTarget::Project(repo)) = (trusted, target) {
        // Failure is not fatal: the user is asked again.
        let _ = trust::accept_change(dirs, repo, &path, new.as_bytes());
    }
    Ok(EditedKey { path, key: key.path, line })
}

fn require_key(key: &str) -> Result<&'static SchemaKey, EditError> {
    schema::find_key(key).ok_or_else(|| {
        let near = nearest_name(key, KEYS.iter().map(|key| key.path));
        let hint = near.map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
        EditError::UnknownKey { key: quote_safely(key), hint }
    })
}

/// A value in the form written to a file.
enum ValueLiteral {
    Bool(bool),
    Int(i64),
    Number(f64),
    Text(String),
    List(Vec<String>),
}

impl ValueLiteral {
    /// Keeps the value as typed where its kind has several spellings, else takes the parsed form.
    fn new(key: &SchemaKey, typed: &str, parsed: &SettingValue) -> Self {
        let typed = typed.trim();
        match (key.kind, parsed) {
            (KeyKind::Bytes(_) | KeyKind::Time(..), SettingValue::Int(_))
                if typed.parse::<i64>().is_err() =>
            {
                Self::Text(typed.to_owned())
            }
            (KeyKind::Path, _) => Self::Text(typed.to_owned()),
            (KeyKind::List(ListElement::Path), _) => {
                let items = typed.split(',').map(str::trim).filter(|item| !item.is_empty());
                Self::List(items.map(str::to_owned).collect())
            }
            (_, SettingValue::Bool(value)) => Self::Bool(*value),
            (_, SettingValue::Int(value)) => Self::Int(i64::try_from(*value).unwrap_or(i64::MAX)),
            (_, SettingValue::Number(value)) => Self::Number(*value),
            (_, SettingValue::Text(text)) => Self::Text(text.clone()),
            (_, SettingValue::List(items)) => Self::List(items.clone()),
        }
    }

    /// Returns the value as JSON, which is valid YAML too.
    fn to_json(&self) -> String {
        match self {
            Self::Bool(value) => value.to_string(),
            Self::Int(value) => value.to_string(),
            Self::Number(value) => schema::format_number(*value),
            Self::Text(text) => serde_json::Value::from(text.as_str()).to_string(),
            Self::List(items) => serde_json::Value::from(items.clone()).to_string(),
        }
    }

    fn to_toml_value(&self) -> toml_edit::Value {
        match self {
            Self::Bool(value) => (*value).into(),
            Self::Int(value) => (*value).into(),
            Self::Number(value) => (*value).into(),
            Self::Text(text) => text.as_str().into(),
            Self::List(items) => items.iter().map(String::as_str).collect::<Array>().into(),
        }
    }
}

/// Returns the TOML text with the key set; `None` if a part of its path is not a table.
fn set_in_toml(text: &str, key: &SchemaKey, literal: &ValueLiteral) -> Option<String> {
    let mut document: DocumentMut = text.parse().ok()?;
    let (section, name) = key.path.rsplit_once('.').unwrap_or(("", key.path));
    let mut table: &mut dyn TableLike = document.as_table_mut();
    for part in section.split('.').filter(|part| !part.is_empty()) {
        let item = table.entry(part).or_insert_with(|| {
            let mut made = Table::new();
            made.set_implicit(true);
            Item::Table(made)
        });
        table = item.as_table_like_mut()?;
    }
    let mut value = literal.to_toml_value();
    match table.get_mut(name) {
        Some(Item::Value(old)) => {
            *value.decor_mut() = old.decor().clone();
            *old = value;
        }
        Some(_) => return None,
        None => {
            table.insert(name, Item::Value(value));
        }
    }
    Some(document.to_string())
}

/// Returns the YAML text with the key's line replaced or added; `None` if the file does not have plain lines there.
fn set_in_yaml(text: &str, key: &SchemaKey, literal: &ValueLiteral) -> Option<String> {
    let keys = yaml::scan_keys(text);
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    if let Some(found) = keys.iter().find(|line| line.path == key.path) {
        let line = &lines[found.line - 1];
        let (front, rest) = line.split_at(found.value_at);
        let comment = trailing_comment(rest)?;
        lines[found.line - 1] = format!("{front} {}{comment}", literal.to_json());
        return Some(lines.join("\n") + "\n");
    }
    // The deepest existing section; missing sections and the key are inserted after its line.
    let mut ends: Vec<usize> = key.path.match_indices('.').map(|(at, _)| at).collect();
    ends.reverse();
    let section = ends
        .iter()
        .find_map(|end| keys.iter().find(|line| line.path == key.path[..*end]).map(|line| (*end, line)));
    let (missing, mut indent, at) = match section {
        Some((end, section)) => {
            if !trailing_comment(&lines[section.line - 1][section.value_at..])?.trim_start().starts_with('#')
                && !lines[section.line - 1][section.value_at..].trim().is_empty()
            {
                return None;
            }
            let below = format!("{}.", section.path);
            let child = keys.iter().find(|line| line.path.starts_with(&below)).map(|line| line.indent);
            (&key.path[end + 1..], child.unwrap_or(section.indent + 2), section.line)
        }
        None => (key.path, 0, lines.len()),
    };
    let mut added = Vec::new();
    let parts: Vec<_> = missing.split('.').collect();
    for (index, part) in parts.iter().enumerate() {
        let value = if index + 1 == parts.len() { format!(" {}", literal.to_json()) } else { String::new() };
        added.push(format!("{}{part}:{value}", " ".repeat(indent)));
        indent += 2;
    }
    lines.splice(at..at, added);
    Some(lines.join("\n") + "\n")
}

/// Returns the comment after a one-line scalar, with the white space before it; `None` for other values.
fn trailing_comment(rest: &str) -> Option<&str> {
    let value = rest.trim_start();
    if value.starts_with(['|', '>', '&', '*', '!', '{', '%', '@', '`']) {
        return None;
    }
    let skipped = rest.len() - value.len();
    let end = match value.chars().next() {
        Some('"') => {
            let mut escaped = false;
            let close = value.char_indices().skip(1).find(|(_, c)| {
                let closes = *c == '"' && !escaped;
                escaped = *c == '\\' && !escaped;
                closes
            });
            close?.0 + 1
        }
        Some('\'') => value[1..].find('\'')? + 2,
        Some('[') => value.find(']')? + 1,
        Some('#') | None => 0,
        Some(_) => value.find(" #").unwrap_or(value.len()),
    };
    let tail = &rest[skipped + end..];
    let plain = tail.trim_start();
    if plain.is_empty() {
        Some("")
    } else if plain.starts_with('#') {
        // If no value precedes the comment, the white space belongs to it.
        Some(if end == 0 { rest } else { tail })
    } else {
        None
    }
}

/// Returns the key's line in `new` if `new` differs from `old` in this one value only.
fn verified_line(
    format: ConfigFormat,
    old: &str,
    new: &str,
    key: &SchemaKey,
    parsed: &SettingValue,
    context: ReadContext<'_>,
) -> Option<usize> {
    let map = |leaves: &[ConfigLeaf]| -> BTreeMap<String, schema::RawSetting> {
        leaves
            .iter()
            .filter(|leaf| leaf.path != key.path && leaf.raw != schema::RawSetting::Null)
            .map(|leaf| (leaf.path.clone(), leaf.raw.clone()))
            .collect()
    };
    let (before, after) = (file::parse_text(format, old).ok()?, file::parse_text(format, new).ok()?);
    let set = after.iter().find(|leaf| leaf.path == key.path)?;
    let reads = key.kind.read_raw(&set.raw, context).ok()? == *parsed;
    (reads && map(&before) == map(&after)).then_some(set.line)
}
