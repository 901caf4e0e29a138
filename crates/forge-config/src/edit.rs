//! What `forge config` does beside showing: one key, the files' places, and changing a file without losing its comments.

use crate::environment::UserDirs;
use crate::error::{ConfigError, ConfigErrors, ValueOrigin};
use crate::file::{self, CONFIG_FILE_NAMES, ConfigFormat, ConfigLeaf, yaml};
use crate::load::{ConfigSources, ResolvedConfig, ResolvedSetting};
use crate::schema::{
    self, KEYS, KeyKind, ListElement, ReadContext, SchemaKey, SettingValue, nearest_name, quote_safely,
};
use crate::{load, trust, write};
use forge_types::ErrorClass;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use thiserror::Error;
use toml_edit::{Array, DocumentMut, Item, Table, TableLike};

/// Why a key could not be shown or changed.
#[derive(Debug, Error)]
pub enum EditError {
    /// There is no such key.
    #[error("{key} is no key of the configuration{hint}; `forge config show` lists them")]
    UnknownKey {
        /// What was asked for.
        key: String,
        /// A hint at what was meant, or nothing.
        hint: String,
    },
    /// The value does not fit, or a file can't be read.
    #[error(transparent)]
    Faults(#[from] ConfigErrors),
    /// The project has no file yet.
    #[error("{folder} has no forge.toml or forge.yaml; make one with `forge init`")]
    NoProjectFile {
        /// The folder.
        folder: PathBuf,
    },
    /// The file's form can't be changed safely.
    #[error("{place} can't be changed safely; write `{line}` there by hand")]
    ByHand {
        /// File and line.
        place: String,
        /// What is to be written.
        line: String,
    },
    /// The project's file is a link.
    #[error(
        "{path} is a link, which a repository could point anywhere, and nothing was changed. Change the file that it \
         points to, or put a plain file in its place"
    )]
    Link {
        /// The link.
        path: PathBuf,
    },
    /// The file can't be written.
    #[error("{path} can't be written: {reason}")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: std::io::Error,
    },
}

impl EditError {
    /// A file that can't be written may be writable later; the rest is wrong as asked.
    pub const fn class(&self) -> ErrorClass {
        match self {
            Self::Write { .. } => ErrorClass::Unavailable,
            _ => ErrorClass::Invalid,
        }
    }
}

/// A place where configuration is looked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ConfigLocation {
    /// `user`, `project` or `state`.
    pub layer: &'static str,
    /// The file, or the folder if there is none.
    pub path: PathBuf,
    /// Whether it is there.
    pub exists: bool,
}

/// Which file to change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EditTarget<'a> {
    /// The user's own.
    User,
    /// That of the project in this folder.
    Project(&'a Path),
}

/// What was changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EditedKey {
    /// The file.
    pub path: PathBuf,
    /// The key.
    pub key: &'static str,
    /// Its line now, from 1.
    pub line: usize,
}

/// One key with its value and origin.
///
/// # Errors
/// When there is no such key.
pub fn get_key<'a>(loaded: &'a ResolvedConfig, key: &str) -> Result<&'a ResolvedSetting, EditError> {
    let found = require_key(key)?;
    Ok(loaded.values.iter().find(|value| value.key == found.path).expect("every key of the schema is loaded"))
}

/// Where configuration is looked for, strongest first.
///
/// # Errors
/// When the home folder is not known, or a folder has two files.
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
        None => at("project", &sources.repo, load::project_file_origin)?,
    };
    let state = ConfigLocation { layer: "state", exists: dirs.data.is_dir(), path: dirs.data.clone() };
    Ok(vec![project, at("user", &dirs.config, load::user_file_origin)?, state])
}

/// Sets one key in a file; comments and order stay. A repository that was trusted stays so: the change is the user's.
///
/// # Errors
/// When the key is unknown, the value does not fit, or the file can't be read, changed safely, or written.
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
        EditTarget::User => load::user_file_origin,
        EditTarget::Project(_) => load::project_file_origin,
    };
    let context = ReadContext { base: folder, home: dirs.home_dir() };
    let parsed = key.kind.read_text(value, context).map_err(|wrong| {
        let place = ValueOrigin::Flag { name: "the value".to_owned() };
        EditError::Faults(
            ConfigError::new(place, key.kind.expected_text(), wrong.found)
                .with_key(key.path)
                .with_optional_hint(wrong.hint)
                .into_errors(),
        )
    })?;
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
        // Not fatal: without it the user is asked again.
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

/// A value as it is written into a file.
enum ValueLiteral {
    Bool(bool),
    Int(i64),
    Number(f64),
    Text(String),
    List(Vec<String>),
}

impl ValueLiteral {
    /// The value as the user typed it where its kind has several spellings, else as it was understood.
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

    /// As JSON, which is YAML too.
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

/// The TOML text with the key set; `None` if a part of its path is no table.
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

/// The YAML text with the key's line replaced or added; `None` if it is not written as plain lines.
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
    // The deepest section that is there; what is missing below it is written after its line.
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

/// The comment behind a one-line scalar, with the white space in front of it; `None` for other values.
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
        // With nothing in front of it, the white space belongs to it.
        Some(if end == 0 { rest } else { tail })
    } else {
        None
    }
}

/// The key's line in `new`, if `new` is `old` with this one value changed and nothing else.
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
