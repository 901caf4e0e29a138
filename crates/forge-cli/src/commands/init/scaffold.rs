//! The files of a new project (CLI-6): a project file with comments, `.forge/`, and entries in `.gitignore`. Existing
//! files are never overwritten.

use crate::error::CliError;
use forge_config::schema::{ReadContext, find_key};
use forge_config::{
    CONFIG_FILE_NAMES, ConfigErrors, ConfigFormat, ConfigSources, Environment, ProjectLanguage, UserDirs,
    keyed_providers, load, trust,
};
use forge_files::Directory;
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::{fs, io};

/// Options of `forge init`.
#[derive(Clone, Debug)]
pub(crate) struct InitOptions {
    /// Directory of the project, created if it does not exist.
    pub(crate) dir: PathBuf,
    /// Name of the project; `None` means the name of the directory.
    pub(crate) name: Option<String>,
    /// Language of the project; `None` means that it is detected from the files.
    pub(crate) language: Option<ProjectLanguage>,
    /// Format of the project file.
    pub(crate) format: ConfigFormat,
    /// Provider to write into the file; `None` means that it is chosen by the API keys that are set.
    pub(crate) provider: Option<String>,
}

/// Outcome for one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum InitOutcome {
    /// The file was created.
    Created,
    /// Lines were added to the file.
    Extended,
    /// The file existed and was not changed.
    Kept,
}

/// A file or directory and its outcome.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct InitEntry {
    /// Path of the file or directory.
    pub(crate) path: PathBuf,
    /// Outcome for it.
    pub(crate) fate: InitOutcome,
}

fn write_error(path: &Path, reason: &io::Error) -> CliError {
    CliError::failed(format!("{}: {reason}; check that the directory exists and is writable", path.display()))
}

fn in_the_way(path: &Path, what: &str) -> CliError {
    CliError::usage(format!(
        "{} is {what}, so forge init does not write to it. Remove it and try again",
        path.display()
    ))
}

/// Detects the language from the files of a directory.
pub(crate) fn detect_language(dir: &Path) -> Option<ProjectLanguage> {
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
pub(crate) fn init_project(options: &InitOptions, dirs: &UserDirs) -> Result<Vec<InitEntry>, CliError> {
    let dir = &options.dir;
    fs::create_dir_all(dir).map_err(|reason| write_error(dir, &reason))?;
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
            create_file(dir, name, project_file_text(options).as_bytes())
                .map_err(|reason| write_error(&path, &reason))?;
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
    let context = ReadContext { base: &options.dir, home: None };
    let given = [("name", &options.name, "--name"), ("model.provider", &options.provider, "--provider")];
    let faults: Vec<_> = given
        .into_iter()
        .filter_map(|(path, value, flag)| find_key(path)?.read_flag(value.as_ref()?, flag, context).err())
        .flat_map(|faults| faults.0)
        .collect();
    if faults.is_empty() { Ok(()) } else { Err(ConfigErrors(faults)) }
}

fn validate_project(dir: &Path, dirs: &UserDirs) -> Result<(), ConfigErrors> {
    // Only the project file is checked: the user's directories apply, but not the rest of the environment.
    let folders = [("XDG_DATA_HOME", dirs.data.parent()), ("XDG_CONFIG_HOME", dirs.config.parent())];
    let home = dirs.home.as_deref().map(|home| ("HOME", Some(home)));
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

/// Creates a file in a repository; fails if the name exists, even as a dangling link.
fn create_file(directory: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let created = Directory::open(directory).and_then(|directory| directory.create_file(name, bytes, 0o644));
    created.map_err(forge_files::Error::into_io_error)
}

/// Replaces a file of a repository and keeps its mode. A link is refused, because a clone can point it anywhere.
fn replace_file(directory: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let replace = || {
        let directory = Directory::open(directory)?;
        let mode = directory.file_mode(name)?.unwrap_or(0o644);
        directory.replace_file(name, bytes, mode)
    };
    replace().map_err(forge_files::Error::into_io_error)
}

fn create_state_dir(path: &Path) -> Result<InitEntry, CliError> {
    let fate = match path.symlink_metadata() {
        Ok(meta) if meta.is_dir() => InitOutcome::Kept,
        Ok(_) => return Err(in_the_way(path, "not a directory")),
        Err(_) => {
            fs::create_dir(path).map_err(|reason| write_error(path, &reason))?;
            InitOutcome::Created
        }
    };
    Ok(InitEntry { path: path.to_owned(), fate })
}

/// Size in bytes of the largest `.gitignore` to which lines are added.
const MAX_IGNORE_BYTES: u64 = 1 << 20;
const IGNORE_FILE: &str = ".gitignore";

fn update_ignore_file(dir: &Path) -> Result<InitEntry, CliError> {
    let path = &dir.join(IGNORE_FILE);
    let failed = |reason: io::Error| write_error(path, &reason);
    let created = |fate| Ok(InitEntry { path: path.to_owned(), fate });
    match path.symlink_metadata() {
        Err(_) => {
            create_file(dir, IGNORE_FILE, (GITIGNORE_ENTRIES.join("\n") + "\n").as_bytes())
                .map_err(failed)?;
            return created(InitOutcome::Created);
        }
        // A cloned repository could make it a link to any file of the user.
        Ok(meta) if !meta.is_file() => {
            return Err(in_the_way(path, "not a regular file"));
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
    replace_file(dir, IGNORE_FILE, &new).map_err(failed)?;
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
    let example = keyed_providers().next().unwrap_or_default();
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
                provider = line(provider, "provider", example),
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
                provider = line(provider, "provider", &quoted(example)),
                address = address.map_or_else(String::new, |address| format!("base_url = {address}\n")),
            )
        }
    }
}

/// Returns a placeholder address for a provider that requires one; the user replaces it.
fn example_address(provider: &str) -> Option<&'static str> {
    (provider == "custom").then_some("\"http://127.0.0.1:8000/v1\"")
}
