//! Trust in a repository's own configuration (SEC-11).
//!
//! A cloned repository contains files that set things: `forge.toml` or `forge.yaml`, a `.env` given with `--env`,
//! prompts and pipelines below `.forge/`. Until the user has seen and accepted them, they may only tighten limits.
//! Acceptance is recorded in the user's data directory, never in the repository, with the hash of every file that was
//! shown. A changed, added or removed file requires a new confirmation.

use crate::checkout::{self, Checkouts};
use crate::environment::UserDirs;
use crate::error::{ConfigError, ConfigErrors, ValueOrigin};
use crate::file::{self, CONFIG_FILE_NAMES, ConfigFile, ConfigFormat, MAX_FILE_BYTES};
use crate::schema::{self, ReadContext, TrustRule};
pub use crate::trust_state::TrustState;
use crate::{adoption, dotenv, repository_memory, write};
use forge_types::{Digest, ErrorClass};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Directories in which every file requires trust.
const TRUSTED_DIRS: [&str; 2] = [".forge/agents", ".forge/pipelines"];

/// Largest number of files that are examined; a repository with more, or with deeper ones, can't be trusted.
const MAX_FILES: usize = 1000;
const MAX_DEPTH: usize = 8;
/// Largest size in bytes of a trust record, which has a line per file.
const MAX_RECORD_BYTES: u64 = 16 << 20;

/// A file that was shown for review.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ReviewedFile {
    /// Path from the root of the repository.
    pub path: String,
    /// Hash of the content.
    pub digest: Digest,
    /// Content for a terminal: control characters are escaped, values of a `.env` are redacted.
    pub text: String,
}

/// A setting in a repository's files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ClaimedSetting {
    /// Path of the key, or the variable of a provider's API key.
    pub key: String,
    /// Value for a terminal.
    pub value: String,
    /// File and line.
    pub place: String,
    /// Whether the setting requires trust to take full effect.
    pub needs_trust: bool,
}

/// Everything that the user is asked to trust.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TrustReview {
    /// Canonical path of the repository.
    pub repo: PathBuf,
    /// Present trust state.
    pub standing: TrustState,
    /// Every file that requires trust.
    pub files: Vec<ReviewedFile>,
    /// Every setting in these files.
    pub settings: Vec<ClaimedSetting>,
}

/// Failure to determine or change trust.
#[derive(Debug, Error)]
pub enum TrustError {
    /// The repository can't be used.
    #[error("{path}: {reason}; check the path of the repository")]
    Repository {
        /// Path of the repository.
        path: PathBuf,
        /// Error of the system.
        reason: std::io::Error,
    },
    /// A file in the repository can't be trusted.
    #[error("{path} can't be trusted: {reason}; remove it or replace it with a regular file")]
    File {
        /// Path of the file.
        path: PathBuf,
        /// Reason, in words.
        reason: String,
    },
    /// The repository's configuration has errors.
    #[error(transparent)]
    Faults(#[from] ConfigErrors),
    /// The trust record can't be written.
    #[error("the trust record {path} can't be changed: {reason}")]
    Record {
        /// Path of the record.
        path: PathBuf,
        /// Error of the system.
        reason: std::io::Error,
    },
}

impl TrustError {
    /// Returns the class of the error. None of these errors resolves itself.
    pub const fn class(&self) -> ErrorClass {
        match self {
            Self::Repository { .. } | Self::File { .. } | Self::Faults(_) => ErrorClass::Invalid,
            Self::Record { .. } => ErrorClass::Unavailable,
        }
    }
}

/// The record of an acceptance.
#[derive(Debug, Serialize, Deserialize)]
struct TrustRecord {
    version: u32,
    repo: PathBuf,
    files: BTreeMap<String, Digest>,
}

/// Returns the trust state of `repo`, by the files that exist now.
pub fn trust_state(dirs: &UserDirs, repo: &Path) -> TrustState {
    trust_state_with_files(dirs, repo, &[])
}

/// Returns the trust state as [`trust_state`] does. The content of the files in `used`, which have been read already,
/// replaces what may have been written to them since.
pub(crate) fn trust_state_with_files(dirs: &UserDirs, repo: &Path, used: &[&ConfigFile]) -> TrustState {
    let Ok(repo) = repo.canonicalize() else { return TrustState::Nothing };
    let has_any = || {
        !used.is_empty()
            || CONFIG_FILE_NAMES
                .iter()
                .chain(&TRUSTED_DIRS)
                .any(|name| forge_files::may_be_present(&repo.join(name)))
    };
    let Some(record) = read_record(dirs, &repo) else {
        return if has_any() { TrustState::Untrusted } else { TrustState::Nothing };
    };
    let Ok(mut now) = collect_inventory(&repo) else { return TrustState::Changed };
    for content in used {
        now.insert(path_in_repository(&repo, &content.path), (content.digest, None));
    }
    let same = now.iter().all(|(path, (digest, _))| record.files.get(path) == Some(digest));
    let kept = record.files.keys().all(|path| now.contains_key(path) || !always_counts(path));
    match (record.repo == repo && same && kept, now.is_empty()) {
        (true, true) => TrustState::Nothing,
        (true, false) => TrustState::Trusted,
        (false, _) => TrustState::Changed,
    }
}

/// Returns whether a file of a clone was accepted, with its present content, together with a trusted repository around
/// it.
pub(crate) fn is_accepted_around(dirs: &UserDirs, clones: &Checkouts, used: &ConfigFile) -> bool {
    clones.root_dirs().any(|root| {
        let record = read_record(dirs, root);
        record.is_some_and(|record| {
            record.files.get(&path_in_repository(root, &used.path)) == Some(&used.digest)
        }) && trust_state(dirs, root).is_trusted()
    })
}

/// Returns whether the user accepted a file of a repository with this content, regardless of its other files.
pub(crate) fn has_accepted(dirs: &UserDirs, repo: &Path, path: &str, content: Digest) -> bool {
    let Ok(canonical) = repo.canonicalize() else { return false };
    let record = read_record(dirs, &canonical).filter(|record| record.repo == canonical);
    record.is_some_and(|record| record.files.get(path) == Some(&content))
}

/// Returns whether a path that the user named lies in a git repository, so that its content came with that repository,
/// and was not accepted with `forge trust` of `repo` or of a repository around `repo` or `cwd`.
pub fn is_unaccepted(dirs: &UserDirs, repo: &Path, cwd: &Path, path: &Path) -> bool {
    if !checkout::is_in_repository(path, dirs.home_dir()) {
        return false;
    }
    let clones = Checkouts::discover(repo, Some(cwd), dirs.home_dir());
    let Ok((digest, _)) = read_trusted_file(path) else { return true };
    let used = ConfigFile { path: path.to_owned(), text: String::new(), digest };
    !is_accepted_around(dirs, &clones, &used)
}

/// Returns everything that trusting `repo` would accept. `extra` lists further files in it that will be used
/// (`--config`, `--env`); its `.env` is always included.
///
/// # Errors
/// If the repository or a file in it can't be read, or its configuration has errors.
pub fn review_repository(dirs: &UserDirs, repo: &Path, extra: &[PathBuf]) -> Result<TrustReview, TrustError> {
    let canonical =
        repo.canonicalize().map_err(|reason| TrustError::Repository { path: repo.to_owned(), reason })?;
    let mut found = collect_inventory(&canonical)?;
    let dotenv = canonical.join(".env");
    let more = extra.iter().chain(forge_files::may_be_present(&dotenv).then_some(&dotenv));
    let clones = Checkouts::discover(repo, None, dirs.home_dir());
    let counts = |path: &&PathBuf| clones.contains(path) || checkout::is_in_repository(path, dirs.home_dir());
    for path in more.filter(counts) {
        found.insert(path_in_repository(&canonical, path), read_trusted_file(path)?);
    }
    if let Ok(bytes) = repository_memory::read_repository_memory(&canonical) {
        found.insert(
            repository_memory::REPOSITORY_MEMORY_PATH.to_owned(),
            (Digest::of_bytes(&bytes), String::from_utf8(bytes).ok()),
        );
    }
    let accepted = |found: &FileInventory| {
        found.iter().all(|(path, (digest, _))| has_accepted(dirs, &canonical, path, *digest))
    };
    let standing = match trust_state(dirs, &canonical) {
        TrustState::Nothing if !accepted(&found) => TrustState::Untrusted,
        TrustState::Trusted if !accepted(&found) => TrustState::Changed,
        TrustState::Nothing if !found.is_empty() => TrustState::Trusted,
        standing => standing,
    };
    let context = ReadContext { base: &canonical, home: dirs.home_dir() };
    let (mut files, mut settings, mut faults) = (Vec::new(), Vec::new(), Vec::new());
    for (path, (digest, text)) in found {
        let full = canonical.join(&path);
        let text = match (FileRole::from_path(&path, text.as_deref().unwrap_or_default()), text) {
            (_, None) => "(not text)".to_owned(),
            (FileRole::Prompt, Some(text)) => escape_controls(&text),
            (FileRole::Settings, Some(text)) => {
                collect_claims(&full, &text, context, &mut settings, &mut faults);
                escape_controls(&text)
            }
            (FileRole::Variables, Some(text)) => {
                collect_variables(&full, &text, &mut settings, &mut faults);
                redact_keys(&text)
            }
        };
        files.push(ReviewedFile { path, digest, text });
    }
    ConfigErrors::check(faults)?;
    Ok(TrustReview { standing, repo: canonical, files, settings })
}

/// Records the acceptance of what was shown. Files that have changed since then stay untrusted.
///
/// # Errors
/// If the record can't be written.
pub fn grant_trust(dirs: &UserDirs, review: &TrustReview) -> Result<(), TrustError> {
    let files = review.files.iter().map(|file| (file.path.clone(), file.digest)).collect();
    let record = TrustRecord { version: 1, repo: review.repo.clone(), files };
    let path = record_path(dirs, &review.repo);
    let json = serde_json::to_vec_pretty(&record).expect("paths and hashes are plain JSON");
    write::write_private(&path, &json).map_err(|reason| TrustError::Record { path, reason })
}

/// Records the content that the user gave to one file of a trusted repository, and no other change.
pub(crate) fn accept_change(
    dirs: &UserDirs,
    repo: &Path,
    file: &Path,
    content: &[u8],
) -> std::io::Result<()> {
    let canonical = repo.canonicalize()?;
    let Some(mut record) = read_record(dirs, &canonical) else { return Ok(()) };
    record.files.insert(path_in_repository(&canonical, file), Digest::of_bytes(content));
    let json = serde_json::to_vec_pretty(&record).expect("paths and hashes are plain JSON");
    write::write_private(&record_path(dirs, &canonical), &json)
}

/// Revokes trust and returns whether there was any.
///
/// # Errors
/// If the repository does not exist or the record can't be removed.
pub fn revoke_trust(dirs: &UserDirs, repo: &Path) -> Result<bool, TrustError> {
    let canonical =
        repo.canonicalize().map_err(|reason| TrustError::Repository { path: repo.to_owned(), reason })?;
    let store = adoption::revoke_adoption(dirs, &canonical);
    let path = record_path(dirs, &canonical);
    match fs::remove_file(&path) {
        Ok(()) => Ok(true),
        Err(reason) if reason.kind() == std::io::ErrorKind::NotFound => Ok(store),
        Err(reason) => Err(TrustError::Record { path, reason }),
    }
}

fn read_record(dirs: &UserDirs, canonical: &Path) -> Option<TrustRecord> {
    let bytes = forge_files::read(&record_path(dirs, canonical), MAX_RECORD_BYTES).ok()?;
    serde_json::from_slice(&bytes).ok()
}

fn record_path(dirs: &UserDirs, canonical: &Path) -> PathBuf {
    let name = Digest::of_bytes(canonical.as_os_str().as_encoded_bytes());
    dirs.data.join("trust").join(format!("{name}.json"))
}

type FileInventory = BTreeMap<String, (Digest, Option<String>)>;

/// Returns whether a file requires trust whenever it exists, so that its removal is a change as well.
fn always_counts(path: &str) -> bool {
    CONFIG_FILE_NAMES.contains(&path) || TRUSTED_DIRS.iter().any(|folder| Path::new(path).starts_with(folder))
}

/// Purpose of a file.
enum FileRole {
    /// Prompts, pipelines and data, shown unchanged.
    Prompt,
    /// Keys and values.
    Settings,
    /// `NAME=value` lines, of which only settings are shown with their values.
    Variables,
}

impl FileRole {
    /// Determines the purpose from the name. A file with an unusual name is treated as variables if it parses as such,
    /// because that shows less of it.
    fn from_path(path: &str, text: &str) -> Self {
        let name = path.rsplit('/').next().unwrap_or(path);
        let ends = |ends: &[&str]| ends.iter().any(|end| name.ends_with(end));
        if CONFIG_FILE_NAMES.contains(&path) || (!always_counts(path) && ends(&[".toml", ".yaml", ".yml"])) {
            Self::Settings
        } else if always_counts(path) || ends(&[".json"]) {
            Self::Prompt
        } else if name.starts_with(".env") || ends(&[".env"]) || dotenv::parse(text).is_ok() {
            Self::Variables
        } else {
            Self::Settings
        }
    }
}

/// Collects the files that always require trust, with hash and text.
fn collect_inventory(repo: &Path) -> Result<FileInventory, TrustError> {
    let mut out = FileInventory::new();
    for name in CONFIG_FILE_NAMES {
        let path = repo.join(name);
        if forge_files::may_be_present(&path) {
            out.insert(name.to_owned(), read_trusted_file(&path)?);
        }
    }
    for folder in TRUSTED_DIRS {
        inventory_dir(repo, &repo.join(folder), 0, &mut out)?;
    }
    Ok(out)
}

fn inventory_dir(
    repo: &Path,
    folder: &Path,
    depth: usize,
    out: &mut FileInventory,
) -> Result<(), TrustError> {
    let fault =
        |path: &Path, reason: &str| TrustError::File { path: path.to_owned(), reason: reason.to_owned() };
    match folder.symlink_metadata() {
        Err(_) if !forge_files::may_be_present(folder) => return Ok(()),
        Err(error) => return Err(fault(folder, &error.to_string())),
        // A link could be pointed elsewhere after it was shown.
        Ok(meta) if meta.is_symlink() => return Err(fault(folder, "it is a symbolic link")),
        Ok(_) => {}
    }
    if depth > MAX_DEPTH {
        return Err(fault(folder, "the directories are nested too deeply"));
    }
    let entries = fs::read_dir(folder).map_err(|error| fault(folder, &error.to_string()))?;
    for entry in entries {
        let path = entry.map_err(|error| fault(folder, &error.to_string()))?.path();
        let meta = path.symlink_metadata().map_err(|error| fault(&path, &error.to_string()))?;
        if meta.is_dir() {
            inventory_dir(repo, &path, depth + 1, out)?;
        } else if meta.is_symlink() {
            return Err(fault(&path, "it is a symbolic link"));
        } else {
            out.insert(path_in_repository(repo, &path), read_trusted_file(&path)?);
        }
        if out.len() > MAX_FILES {
            return Err(fault(folder, "there are too many files"));
        }
    }
    Ok(())
}

fn read_trusted_file(path: &Path) -> Result<(Digest, Option<String>), TrustError> {
    let is_data = path.extension().is_some_and(|end| end == "json");
    let most = if is_data { repository_memory::MAX_MEMORY_BYTES } else { MAX_FILE_BYTES };
    let bytes = forge_files::read(path, most)
        .map_err(|error| TrustError::File { path: path.to_owned(), reason: error.reason() })?;
    Ok((Digest::of_bytes(&bytes), String::from_utf8(bytes).ok()))
}

/// Returns the path from the root of the repository, or the whole path if it lies elsewhere.
pub(crate) fn path_in_repository(repo: &Path, path: &Path) -> String {
    let folder = path.parent().and_then(|folder| folder.canonicalize().ok());
    let full = match (folder, path.file_name()) {
        (Some(folder), Some(name)) => folder.join(name),
        _ => path.to_owned(),
    };
    full.strip_prefix(repo).unwrap_or(&full).to_string_lossy().into_owned()
}

/// Collects the settings in a configuration file.
fn collect_claims(
    path: &Path,
    text: &str,
    context: ReadContext<'_>,
    out: &mut Vec<ClaimedSetting>,
    faults: &mut Vec<ConfigError>,
) {
    let leaves = match file::parse_text(ConfigFormat::from_path(path), text) {
        Ok(leaves) => leaves,
        Err(error) => {
            let place = ValueOrigin::ProjectFile { path: path.to_owned(), line: error.line };
            faults.push(ConfigError::new(place, "a readable file", error.problem));
            return;
        }
    };
    for leaf in leaves {
        let place = ValueOrigin::ProjectFile { path: path.to_owned(), line: leaf.line };
        // Loading reports an unreadable value; here it is shown unchanged.
        let (value, needs_trust) = match schema::find_key(&leaf.path) {
            Some(key) => match key.kind.read_raw(&leaf.raw, context) {
                Ok(value) => (escape_controls(&key.kind.format_value(&value)), key.trust != TrustRule::Free),
                Err(wrong) => (wrong.found, true),
            },
            None => (leaf.raw.describe(), true),
        };
        out.push(ClaimedSetting {
            key: schema::escape_controls(&leaf.path),
            value,
            place: place.to_string(),
            needs_trust,
        });
    }
}

/// Returns the displayed form of a variable's value. Settings are shown, because they decide where API keys are sent;
/// any other value may be a key and is not shown.
fn display_variable(variable: &dotenv::EnvAssignment) -> String {
    let is_setting =
        schema::KEYS.iter().any(|key| key.variable_names().iter().any(|(name, _)| *name == variable.name));
    if is_setting { escape_controls(&variable.value) } else { "(not shown)".to_owned() }
}

/// Collects the variables in a `.env`.
fn collect_variables(path: &Path, text: &str, out: &mut Vec<ClaimedSetting>, faults: &mut Vec<ConfigError>) {
    match dotenv::parse(text) {
        Ok(found) => out.extend(found.into_iter().map(|found| ClaimedSetting {
            value: display_variable(&found),
            key: found.name,
            place: format!("{}:{}", path.display(), found.line),
            needs_trust: true,
        })),
        Err(wrong) => faults.extend(wrong.into_iter().map(|wrong| {
            let place =
                ValueOrigin::EnvFile { path: path.to_owned(), line: wrong.line, variable: String::new() };
            ConfigError::new(place, "NAME=value", wrong.problem)
        })),
    }
}

fn redact_keys(text: &str) -> String {
    let found = dotenv::parse(text).unwrap_or_default();
    found.iter().map(|found| format!("{}={}\n", found.name, display_variable(found))).collect()
}

/// Escapes every character that a terminal would interpret.
fn escape_controls(text: &str) -> String {
    text.lines()
        .map(|line| crate::schema::escape_controls(line) + "\n")
        .collect::<String>()
        .trim_end()
        .to_owned()
}
