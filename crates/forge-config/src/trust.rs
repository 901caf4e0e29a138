//! Trust in a repository's own configuration (SEC-11).
//!
//! A cloned repository carries files that would set things: `forge.toml` or `forge.yaml`, a `.env` given with `--env`,
//! prompts and pipelines below `.forge/`. Until the user has seen and accepted them, they may only tighten. Acceptance
//! is a record in the user's own data folder, never in the repository, and holds the hash of every file that was
//! shown: a file that is changed, added or removed asks again.

use crate::checkout::{self, Checkouts};
use crate::environment::UserDirs;
use crate::error::{ConfigError, ConfigErrors, ValueOrigin};
use crate::file::{self, CONFIG_FILE_NAMES, ConfigFile, ConfigFormat, MAX_FILE_BYTES};
use crate::schema::{self, ReadContext, TrustRule};
use crate::{dotenv, memories, stores, write};
use forge_types::{Digest, ErrorClass};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Folders whose every file counts.
const TRUSTED_DIRS: [&str; 2] = [".forge/agents", ".forge/pipelines"];

/// More files, or deeper ones, are not looked through; such a repository can't be trusted.
const MAX_FILES: usize = 1000;
const MAX_DEPTH: usize = 8;
/// Bytes of a record of ours: a line for each file.
const MAX_RECORD_BYTES: u64 = 16 << 20;

/// How a repository stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TrustState {
    /// It has nothing that would need trust.
    Nothing,
    /// The user accepted exactly these files.
    Trusted,
    /// The user was never asked, or took it back.
    Untrusted,
    /// The user accepted it once, and files have changed since.
    Changed,
}

impl TrustState {
    /// Whether the repository's own settings take effect.
    pub const fn is_trusted(self) -> bool {
        matches!(self, Self::Trusted)
    }
}

/// A file that was shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ReviewedFile {
    /// Its path from the repository's root.
    pub path: String,
    /// The hash of its content.
    pub digest: Digest,
    /// Its content for a terminal: control characters are escaped, values of a `.env` are hidden.
    pub text: String,
}

/// A setting that a repository's files hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ClaimedSetting {
    /// The key, or the variable of a provider's key.
    pub key: String,
    /// The value for a terminal.
    pub value: String,
    /// File and line.
    pub place: String,
    /// Whether it has no effect, or only a tightening one, without trust.
    pub needs_trust: bool,
}

/// What a user is asked to trust.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TrustReview {
    /// The repository, canonical.
    pub repo: PathBuf,
    /// How it stands now.
    pub standing: TrustState,
    /// Every file that counts.
    pub files: Vec<ReviewedFile>,
    /// Every setting in them.
    pub settings: Vec<ClaimedSetting>,
}

/// Why trust could not be looked at or changed.
#[derive(Debug, Error)]
pub enum TrustError {
    /// The repository can't be used.
    #[error("{path}: {reason}; check the path of the repository")]
    Repository {
        /// Its path.
        path: PathBuf,
        /// Why.
        reason: std::io::Error,
    },
    /// A file in it can't be trusted as it is.
    #[error("{path} can't be trusted: {reason}; remove it or replace it by a plain file")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// Its configuration has faults.
    #[error(transparent)]
    Faults(#[from] ConfigErrors),
    /// The record can't be written.
    #[error("the record of trust {path} can't be changed: {reason}")]
    Record {
        /// The record.
        path: PathBuf,
        /// Why.
        reason: std::io::Error,
    },
}

impl TrustError {
    /// None of them mends itself.
    pub const fn class(&self) -> ErrorClass {
        match self {
            Self::Repository { .. } | Self::File { .. } | Self::Faults(_) => ErrorClass::Invalid,
            Self::Record { .. } => ErrorClass::Unavailable,
        }
    }
}

/// What was accepted.
#[derive(Debug, Serialize, Deserialize)]
struct TrustRecord {
    version: u32,
    repo: PathBuf,
    files: BTreeMap<String, Digest>,
}

/// How `repo` stands, by the files that are there now.
pub fn trust_state(dirs: &UserDirs, repo: &Path) -> TrustState {
    trust_state_with_files(dirs, repo, &[])
}

/// As [`status`]; `used` are files that have been read already and whose content then counts, in place of what may
/// have been written to them since.
pub(crate) fn trust_state_with_files(dirs: &UserDirs, repo: &Path, used: &[&ConfigFile]) -> TrustState {
    let Ok(repo) = repo.canonicalize() else { return TrustState::Nothing };
    let has_any = || {
        !used.is_empty()
            || CONFIG_FILE_NAMES
                .iter()
                .chain(&TRUSTED_DIRS)
                .any(|name| repo.join(name).symlink_metadata().is_ok())
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

/// Whether a file of a clone was accepted as it is with one of the repositories around it, which is trusted.
pub(crate) fn is_accepted_around(dirs: &UserDirs, clones: &Checkouts, used: &ConfigFile) -> bool {
    clones.root_dirs().any(|root| {
        let record = read_record(dirs, root);
        record.is_some_and(|record| {
            record.files.get(&path_in_repository(root, &used.path)) == Some(&used.digest)
        }) && trust_state(dirs, root).is_trusted()
    })
}

/// Whether the user accepted a file of a repository with this content, whatever became of the others.
pub(crate) fn has_accepted(dirs: &UserDirs, repo: &Path, path: &str, content: Digest) -> bool {
    let Ok(canonical) = repo.canonicalize() else { return false };
    let record = read_record(dirs, &canonical).filter(|record| record.repo == canonical);
    record.is_some_and(|record| record.files.get(path) == Some(&content))
}

/// Whether a path that the user named lies in a git repository, so that its content came with it, and was not accepted
/// with `forge trust` of `repo` or of a repository around `repo` or `cwd`.
pub fn is_unaccepted(dirs: &UserDirs, repo: &Path, cwd: &Path, path: &Path) -> bool {
    if !checkout::is_in_repository(path, dirs.home_dir()) {
        return false;
    }
    let clones = Checkouts::discover(repo, Some(cwd), dirs.home_dir());
    let Ok((digest, _)) = read_trusted_file(path) else { return true };
    let used = ConfigFile { path: path.to_owned(), text: String::new(), digest };
    !is_accepted_around(dirs, &clones, &used)
}

/// Everything that trusting `repo` would accept. `extra` are further files in it that will be used (`--config`,
/// `--env`); its `.env` is always among them.
///
/// # Errors
/// When the repository or a file in it can't be read, or its configuration has faults.
pub fn review_repository(dirs: &UserDirs, repo: &Path, extra: &[PathBuf]) -> Result<TrustReview, TrustError> {
    let canonical =
        repo.canonicalize().map_err(|reason| TrustError::Repository { path: repo.to_owned(), reason })?;
    let mut found = collect_inventory(&canonical)?;
    let dotenv = canonical.join(".env");
    let more = extra.iter().chain(dotenv.symlink_metadata().is_ok().then_some(&dotenv));
    let clones = Checkouts::discover(repo, None, dirs.home_dir());
    let counts = |path: &&PathBuf| clones.contains(path) || checkout::is_in_repository(path, dirs.home_dir());
    for path in more.filter(counts) {
        found.insert(path_in_repository(&canonical, path), read_trusted_file(path)?);
    }
    if let Ok(bytes) = memories::read_repository_memory(&canonical) {
        found.insert(
            memories::REPOSITORY_MEMORY_PATH.to_owned(),
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

/// Accepts what was shown. What has changed since it was shown stays untrusted.
///
/// # Errors
/// When the record can't be written.
pub fn grant_trust(dirs: &UserDirs, review: &TrustReview) -> Result<(), TrustError> {
    let files = review.files.iter().map(|file| (file.path.clone(), file.digest)).collect();
    let record = TrustRecord { version: 1, repo: review.repo.clone(), files };
    let path = record_path(dirs, &review.repo);
    let json = serde_json::to_vec_pretty(&record).expect("paths and hashes are plain JSON");
    write::write_private(&path, &json).map_err(|reason| TrustError::Record { path, reason })
}

/// Accepts the content that the user gave one file of a trusted repository, and nothing else that may have changed.
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

/// Takes trust back; says whether there was any.
///
/// # Errors
/// When the repository does not exist or the record can't be removed.
pub fn revoke_trust(dirs: &UserDirs, repo: &Path) -> Result<bool, TrustError> {
    let canonical =
        repo.canonicalize().map_err(|reason| TrustError::Repository { path: repo.to_owned(), reason })?;
    let store = stores::revoke_adoption(dirs, &canonical);
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

/// Whether a file counts whenever it is there, and its absence too.
fn always_counts(path: &str) -> bool {
    CONFIG_FILE_NAMES.contains(&path) || TRUSTED_DIRS.iter().any(|folder| Path::new(path).starts_with(folder))
}

/// What a file is for.
enum FileRole {
    /// Prompts, pipelines and data: shown as they stand.
    Prompt,
    /// Keys and values.
    Settings,
    /// `NAME=value` lines, of which only settings show their values.
    Variables,
}

impl FileRole {
    /// Told by the name; a file of an unusual name counts as variables if it reads as such, which shows less of it.
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

/// The files that always count, with hash and text.
fn collect_inventory(repo: &Path) -> Result<FileInventory, TrustError> {
    let mut out = FileInventory::new();
    for name in CONFIG_FILE_NAMES {
        let path = repo.join(name);
        if path.symlink_metadata().is_ok() {
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
        Err(_) => return Ok(()),
        // A link could be pointed elsewhere after it was shown.
        Ok(meta) if meta.is_symlink() => return Err(fault(folder, "it is a link")),
        Ok(_) => {}
    }
    if depth > MAX_DEPTH {
        return Err(fault(folder, "the folders are nested too deeply"));
    }
    let entries = fs::read_dir(folder).map_err(|error| fault(folder, &error.to_string()))?;
    for entry in entries {
        let path = entry.map_err(|error| fault(folder, &error.to_string()))?.path();
        let meta = path.symlink_metadata().map_err(|error| fault(&path, &error.to_string()))?;
        if meta.is_dir() {
            inventory_dir(repo, &path, depth + 1, out)?;
        } else if meta.is_symlink() {
            return Err(fault(&path, "it is a link"));
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
    let most = if is_data { memories::MAX_MEMORY_BYTES } else { MAX_FILE_BYTES };
    let bytes = forge_files::read(path, most)
        .map_err(|error| TrustError::File { path: path.to_owned(), reason: error.reason() })?;
    Ok((Digest::of_bytes(&bytes), String::from_utf8(bytes).ok()))
}

/// The path from the repository's root, or the whole path if it lies elsewhere.
pub(crate) fn path_in_repository(repo: &Path, path: &Path) -> String {
    let folder = path.parent().and_then(|folder| folder.canonicalize().ok());
    let full = match (folder, path.file_name()) {
        (Some(folder), Some(name)) => folder.join(name),
        _ => path.to_owned(),
    };
    full.strip_prefix(repo).unwrap_or(&full).to_string_lossy().into_owned()
}

/// The settings that a configuration file holds.
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
        // What can't be read is reported by loading; here it is shown as it stands.
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

/// What is shown of a variable's value: settings are, since they decide where keys go; anything else may be a key.
fn display_variable(variable: &dotenv::EnvAssignment) -> String {
    let is_setting =
        schema::KEYS.iter().any(|key| key.variable_names().iter().any(|(name, _)| *name == variable.name));
    if is_setting { escape_controls(&variable.value) } else { "(not shown)".to_owned() }
}

/// The variables that a `.env` holds.
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

/// The text with everything escaped that a terminal would act on.
fn escape_controls(text: &str) -> String {
    text.lines()
        .map(|line| crate::schema::escape_controls(line) + "\n")
        .collect::<String>()
        .trim_end()
        .to_owned()
}
