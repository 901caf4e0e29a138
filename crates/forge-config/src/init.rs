//! `forge init` (CLI-6): a project file with comments, `.forge/`, and entries in `.gitignore`. Existing files are never
//! overwritten.

use crate::environment::UserDirs;
use crate::error::ConfigErrors;
use crate::file::{CONFIG_FILE_NAMES, ConfigFormat};
use crate::load::load;
use crate::schema::{self, ReadContext};
use crate::settings::ProjectLanguage;
use crate::sources::ConfigSources;
use crate::{Environment, trust, write};
use forge_types::ErrorClass;
use serde::Serialize;
use std::fs;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Options of `forge init`.
#[derive(Clone, Debug)]
pub struct InitOptions {
    /// Directory of the project, created if it does not exist.
    pub dir: PathBuf,
    /// Name of the project; `None` means the name of the directory.
    pub name: Option<String>,
    /// Language of the project; `None` means that it is detected from the files.
    pub language: Option<ProjectLanguage>,
    /// Format of the project file.
    pub format: ConfigFormat,
    /// Provider to write into the file; `None` means that it is chosen by the API keys that are set.
    pub provider: Option<String>,
}

/// Outcome for one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum InitOutcome {
    /// The file was created.
    Created,
    /// Lines were added to the file.
    Extended,
    /// The file existed and was not changed.
    Kept,
}

/// A file or directory and its outcome.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct InitEntry {
    /// Path of the file or directory.
    pub path: PathBuf,
    /// Outcome for it.
    pub fate: InitOutcome,
}

/// Failure to set up a project.
#[derive(Debug, Error)]
pub enum InitError {
    /// The directory or a file in it can't be created.
    #[error("{path}: {reason}; check that the directory exists and is writable")]
    Write {
        /// Path of the file or directory.
        path: PathBuf,
        /// Error of the system.
        reason: std::io::Error,
    },
    /// Another file or directory has the name that is needed.
    #[error("{path} is {what}, so forge init does not write to it. Remove it and try again")]
    InTheWay {
        /// Path of that file or directory.
        path: PathBuf,
        /// Description of its type.
        what: &'static str,
    },
    /// The name or provider is invalid, or the project file has errors.
    #[error(transparent)]
    Faults(#[from] ConfigErrors),
}

impl InitError {
    /// Returns the class of the error. A failed write may succeed later; the other errors need a different request.
    pub const fn class(&self) -> ErrorClass {
        match self {
            Self::Write { .. } => ErrorClass::Unavailable,
            Self::InTheWay { .. } | Self::Faults(_) => ErrorClass::Invalid,
        }
    }
}

/// Detects the language from the files of a directory.
pub fn detect_language(dir: &Path) -> Option<ProjectLanguage> {
    let has = |name: &str| dir.join(name).is_file();
    if has("Cargo.toml") {
        Some(ProjectLanguage::Rust)
    } else if has("package.json") {
        Some(ProjectLanguage::Node)
    } else if ["pyproject.toml", "requirements.txt", "setup.py"].into_iter().any(has) {
        Some(ProjectLanguage::Python)
    } else {
        None
    }
}

/// Entries that exclude a project's state from version control, but not its agents and pipelines.
const GITIGNORE_ENTRIES: [&str; 3] = [".forge/*", "!.forge/agents/", "!.forge/pipelines/"];

/// Sets up a project. The file is the user's own work, so a repository without other configuration becomes trusted.
///
/// # Errors
/// If something can't be written or is in the way, or the project file, new or existing, has errors.
pub fn init_project(options: &InitOptions, dirs: &UserDirs) -> Result<Vec<InitEntry>, InitError> {
    let dir = &options.dir;
    fs::create_dir_all(dir).map_err(|reason| InitError::Write { path: dir.clone(), reason })?;
    check_options(options)?;
    let mut out = Vec::new();

    let there =
        CONFIG_FILE_NAMES.iter().map(|name| dir.join(name)).find(|path| path.symlink_metadata().is_ok());
    let own_file = there.is_none();
    match there {
        Some(path) => out.push(InitEntry { path, fate: InitOutcome::Kept }),
        None => {
            let name = options.format.file_name();
            let path = dir.join(name);
            write::create_within(dir, name, project_file_text(options).as_bytes())
                .map_err(|reason| InitError::Write { path: path.clone(), reason })?;
            out.push(InitEntry { path, fate: InitOutcome::Created });
        }
    }
    out.push(create_state_dir(&dir.join(".forge"))?);
    out.push(update_ignore_file(dir)?);
    validate_project(dir, dirs)?;
    if own_file {
        trust_new_file(dir, dirs);
    }
    Ok(out)
}

/// Refuses an invalid name or provider before anything is written.
fn check_options(options: &InitOptions) -> Result<(), ConfigErrors> {
    use crate::error::{ConfigError, ValueOrigin};
    let context = ReadContext { base: &options.dir, home: None };
    let given = [("name", &options.name, "--name"), ("model.provider", &options.provider, "--provider")];
    let faults = given.into_iter().filter_map(|(path, value, flag)| {
        let key = schema::find_key(path)?;
        let wrong = key.kind.read_text(value.as_ref()?, context).err()?;
        let place = ValueOrigin::Flag { name: flag.to_owned() };
        Some(
            ConfigError::new(place, key.kind.expected_text(), wrong.found)
                .with_key(path)
                .with_optional_hint(wrong.hint),
        )
    });
    ConfigErrors::check(faults.collect())
}

fn validate_project(dir: &Path, dirs: &UserDirs) -> Result<(), ConfigErrors> {
    // Only the project file is checked: the user's directories apply, but not the rest of the environment.
    let folders = [("XDG_DATA_HOME", dirs.data.parent()), ("XDG_CONFIG_HOME", dirs.config.parent())];
    let home = dirs.home_dir().map(|home| ("HOME", Some(home)));
    let env: Environment = folders
        .into_iter()
        .chain(home)
        .filter_map(|(name, path)| Some((name, path?.to_str()?.to_owned())))
        .collect();
    let sources =
        ConfigSources { env, cwd: dir.to_owned(), repo: dir.to_owned(), ..ConfigSources::default() };
    load(&sources).map(|_| ())
}

/// Trusts a repository if the file that was just created is its only configuration. Failure is not fatal: the user can
/// be asked.
fn trust_new_file(dir: &Path, dirs: &UserDirs) {
    let Ok(review) = trust::review_repository(dirs, dir, &[]) else { return };
    if let [only] = review.files.as_slice()
        && CONFIG_FILE_NAMES.contains(&only.path.as_str())
    {
        let _ = trust::grant_trust(dirs, &review);
    }
}

fn create_state_dir(path: &Path) -> Result<InitEntry, InitError> {
    let fate = match path.symlink_metadata() {
        Ok(meta) if meta.is_dir() => InitOutcome::Kept,
        Ok(_) => return Err(InitError::InTheWay { path: path.to_owned(), what: "not a directory" }),
        Err(_) => {
            fs::create_dir(path).map_err(|reason| InitError::Write { path: path.to_owned(), reason })?;
            InitOutcome::Created
        }
    };
    Ok(InitEntry { path: path.to_owned(), fate })
}

/// Size in bytes of the largest `.gitignore` to which lines are added.
const MAX_IGNORE_BYTES: u64 = 1 << 20;
const IGNORE_FILE: &str = ".gitignore";

fn update_ignore_file(dir: &Path) -> Result<InitEntry, InitError> {
    let path = &dir.join(IGNORE_FILE);
    let failed = |reason| InitError::Write { path: path.to_owned(), reason };
    let created = |fate| Ok(InitEntry { path: path.to_owned(), fate });
    match path.symlink_metadata() {
        Err(_) => {
            write::create_within(dir, IGNORE_FILE, (GITIGNORE_ENTRIES.join("\n") + "\n").as_bytes())
                .map_err(failed)?;
            return created(InitOutcome::Created);
        }
        // A cloned repository could make it a link to any file of the user.
        Ok(meta) if !meta.is_file() => {
            return Err(InitError::InTheWay { path: path.to_owned(), what: "not a regular file" });
        }
        Ok(_) => {}
    }
    let old = forge_files::read_within(dir, Path::new(IGNORE_FILE), MAX_IGNORE_BYTES)
        .map_err(|error| failed(error.into_io_error()))?;
    let text = String::from_utf8_lossy(&old);
    let missing: Vec<_> =
        GITIGNORE_ENTRIES.iter().filter(|entry| !text.lines().any(|line| line.trim() == **entry)).collect();
    if missing.is_empty() {
        return created(InitOutcome::Kept);
    }
    let mut new = old.clone();
    if !new.is_empty() && !new.ends_with(b"\n") {
        new.push(b'\n');
    }
    for entry in missing {
        new.extend_from_slice(entry.as_bytes());
        new.push(b'\n');
    }
    write::write_keeping_mode_within(dir, IGNORE_FILE, &new).map_err(failed)?;
    created(InitOutcome::Extended)
}

/// Returns the text of the project file: known values are set, the settings changed most often are comments.
fn project_file_text(options: &InitOptions) -> String {
    let folder = options.dir.canonicalize().unwrap_or_else(|_| options.dir.clone());
    let folder = folder.file_name().map(|name| name.to_string_lossy().replace(char::is_control, " "));
    let name = options.name.clone().or(folder).unwrap_or_else(|| "project".to_owned());
    let language = options.language.or_else(|| detect_language(&options.dir)).map(ProjectLanguage::name);
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let name = quoted(name.trim());
    let address = options.provider.as_deref().and_then(example_address);
    let provider = options.provider.as_deref().map(quoted);
    match options.format {
        ConfigFormat::Yaml => {
            let line = |set: Option<String>, key: &str, example: &str| match set {
                Some(value) => format!("{key}: {value}"),
                None => format!("# {key}: {example}"),
            };
            format!(
                "# Settings of this project. `forge config show` lists every key with its value.\n\
                 name: {name}\n{language}\n\n\
                 model:\n  # openai, anthropic, gemini, openrouter, ollama, llama_cpp or custom; API keys come from the \
                 environment.\n  max_tokens: 4096\n  {provider}\n{address}  # name: the-model\n\n\
                 agent:\n  max_iterations: 25\n  # max_cost_usd: 1.0\n\n\
                 sandbox:\n  network_enabled: false\n  # memory_limit: 2g\n",
                language = line(language.map(quoted), "language", "rust"),
                provider = line(provider, "provider", "openai"),
                address = address.map_or_else(String::new, |address| format!("  base_url: {address}\n")),
            )
        }
        ConfigFormat::Toml => {
            let line = |set: Option<String>, key: &str, example: &str| match set {
                Some(value) => format!("{key} = {value}"),
                None => format!("# {key} = {example}"),
            };
            format!(
                "# Settings of this project. `forge config show` lists every key with its value.\n\
                 name = {name}\n{language}\n\n\
                 [model]\n# openai, anthropic, gemini, openrouter, ollama, llama_cpp or custom; API keys come from the \
                 environment.\nmax_tokens = 4096\n{provider}\n{address}# name = \"the-model\"\n\n\
                 [agent]\nmax_iterations = 25\n# max_cost_usd = 1.0\n\n\
                 [sandbox]\nnetwork_enabled = false\n# memory_limit = \"2g\"\n",
                language = line(language.map(quoted), "language", "\"rust\""),
                provider = line(provider, "provider", "\"openai\""),
                address = address.map_or_else(String::new, |address| format!("base_url = {address}\n")),
            )
        }
    }
}

/// Returns a placeholder address for a provider that requires one; the user replaces it.
fn example_address(provider: &str) -> Option<&'static str> {
    (provider == "custom").then_some("\"http://127.0.0.1:8000/v1\"")
}
