//! Loading of the settings: layers from weakest to strongest, with all errors collected and an origin for every value.
//!
//! Order: defaults, user file, project file, file given with `--env`, environment, flags. The first two file layers and
//! the `--env` file are subject to [`crate::trust`] if they lie in a repository that the user has not trusted.

use crate::checkout::Checkouts;
use crate::environment::{Environment, UserDirs};
use crate::error::{ConfigError, ConfigErrors, ConfigNotice, NoticeKind, ValueOrigin};
use crate::file::{self, ConfigFile, ConfigFormat, ConfigLeaf};
use crate::layers::LayeredValues;
use crate::schema::KEYS;
use crate::secrets::{self, FoundSecrets, SecretValue};
use crate::settings::{self, ForgeSettings, SecretSource};
use crate::trust::{self, TrustState};
use crate::{checks, dotenv, stores};
use serde::Serialize;
use std::cell::OnceCell;
use std::path::PathBuf;

/// A setting given on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlagSetting {
    /// Path of the key.
    pub key: String,
    /// Value as typed.
    pub value: String,
    /// Flag as typed, such as `--model`.
    pub name: String,
}

/// All sources of settings.
#[derive(Clone, Debug, Default)]
pub struct ConfigSources {
    /// Environment of the process.
    pub env: Environment,
    /// Directory in which the command was started; relative paths of flags and variables start here.
    pub cwd: PathBuf,
    /// Repository that the command works on.
    pub repo: PathBuf,
    /// File given with `--config`, read in place of the project file.
    pub config_path: Option<PathBuf>,
    /// File given with `--env`, which provides variables that are not set.
    pub env_file: Option<PathBuf>,
    /// Flags of the command line.
    pub flags: Vec<FlagSetting>,
}

/// A value and its origin.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ResolvedSetting {
    /// Path of the key.
    pub key: &'static str,
    /// Value in the form that users write, without secrets; `None` if it is not set.
    pub value: Option<String>,
    /// Origin of the value.
    pub origin: ValueOrigin,
}

/// The result of loading.
#[derive(Clone, Debug)]
pub struct ResolvedConfig {
    /// Settings of Forge.
    pub settings: ForgeSettings,
    /// Every key with its value and origin, in the order of the schema.
    pub values: Vec<ResolvedSetting>,
    /// Notices for the user.
    pub notices: Vec<ConfigNotice>,
    /// API keys of the providers.
    pub secrets: FoundSecrets,
    /// Directories of the user.
    pub dirs: UserDirs,
    /// Path of the repository.
    pub repo: PathBuf,
    /// The passphrase of the stores, if the environment holds it.
    pub passphrase: Option<SecretValue>,
    /// Trust state of the repository.
    pub trust_state: TrustState,
    /// Variables in `sandbox.env_vars` that are set, with their values.
    pub passthrough: Vec<(String, String)>,
    /// The user's `PATH`, from which a sandbox locates toolchains.
    pub path: Option<String>,
    /// Files that were read.
    pub files: Vec<PathBuf>,
}

impl ResolvedConfig {
    /// Returns the origin of a key's value.
    pub fn origin_of(&self, key: &str) -> Option<&ValueOrigin> {
        self.values.iter().find(|value| value.key == key).map(|value| &value.origin)
    }

    /// Returns whether a key was set explicitly and does not have its default.
    pub fn is_set(&self, key: &str) -> bool {
        self.origin_of(key).is_some_and(|origin| *origin != ValueOrigin::Default)
    }

    /// Returns the resolved values as JSON for a run's plan: `{key: {value, origin}}`, with secrets redacted.
    pub fn to_plan_json(&self) -> serde_json::Value {
        self.values
            .iter()
            .map(|value| {
                let shown = serde_json::json!({ "value": value.value, "origin": value.origin.to_string() });
                (value.key.to_owned(), shown)
            })
            .collect::<serde_json::Map<_, _>>()
            .into()
    }
}

/// The files that were read.
#[derive(Default)]
struct ConfigFiles {
    user: Option<ConfigFile>,
    project: Option<ConfigFile>,
    env: Option<(ConfigFile, Vec<dotenv::EnvAssignment>)>,
}

/// A check that distinguishes files of a clone from the user's own.
struct CloneGate<'a> {
    sources: &'a ConfigSources,
    dirs: &'a UserDirs,
    checkouts: OnceCell<Checkouts>,
}

impl CloneGate<'_> {
    /// Returns whether a file came with a clone and was not accepted together with the repository around it.
    fn is_from_clone(&self, file: &ConfigFile) -> bool {
        // The usual case, which needs no further checks.
        if file.path.parent() == Some(self.sources.repo.as_path()) {
            return true;
        }
        let ConfigSources { repo, cwd, .. } = self.sources;
        let around =
            self.checkouts.get_or_init(|| Checkouts::discover(repo, Some(cwd), self.dirs.home_dir()));
        around.contains(&file.path) && !trust::is_accepted_around(self.dirs, around, file)
    }
}

/// Loads the settings.
///
/// # Errors
/// All errors in the configuration.
pub fn load(sources: &ConfigSources) -> Result<ResolvedConfig, ConfigErrors> {
    let dirs = UserDirs::from_environment(&sources.env)?;
    let mut faults = Vec::new();
    let files = read_files(sources, &dirs, &mut faults);
    let clones = CloneGate { sources, dirs: &dirs, checkouts: OnceCell::new() };
    let (project_inside, env_inside) = (
        files.project.as_ref().filter(|file| clones.is_from_clone(file)),
        files.env.as_ref().map(|(file, _)| file).filter(|file| clones.is_from_clone(file)),
    );
    let used: Vec<&ConfigFile> = project_inside.into_iter().chain(env_inside).collect();
    let standing = trust::trust_state_with_files(&dirs, &sources.repo, &used);
    let gated = !standing.is_trusted();

    let mut layers = LayeredValues::new(sources, &dirs, standing, faults);
    if let Some(content) = &files.user {
        let found = parse_leaves(content, user_file_origin, &mut layers.faults);
        layers.apply_file(&found, &content.path, user_file_origin, false);
    }
    if let Some(content) = &files.project {
        let found = parse_leaves(content, project_file_origin, &mut layers.faults);
        layers.apply_file(&found, &content.path, project_file_origin, gated && project_inside.is_some());
    }
    let env_gated = gated && env_inside.is_some();
    if let Some((content, assigned)) = &files.env {
        layers.apply_env_file(assigned, &content.path, env_gated);
    }
    layers.apply_environment();
    layers.apply_flags();
    let (values, mut faults, mut notices) = layers.finish();

    let plain: Vec<_> = values.iter().map(|(value, _)| value.clone()).collect();
    let settings = settings::build_settings(&plain);
    checks::check_settings(&settings, &values, &notices, &mut faults);
    ConfigErrors::check(faults).map_err(|faults| redact_key_like_values(faults, &sources.env))?;

    let env_pairs = files.env.as_ref().map_or(&[][..], |(_, assigned)| assigned.as_slice());
    let variables = GatedVariables { sources, file: env_pairs, gated: env_gated };
    let mut secrets = load_provider_keys(&settings, &variables, standing, &mut notices);
    let passthrough = passed_variables(&settings, &variables, standing, &mut notices);
    load_named_secrets(&mut secrets, &settings, &variables, standing, &mut notices);
    let passphrase = load_passphrase(&mut secrets, &variables, &dirs, &settings);
    let path = sources.env.get("PATH").map(str::to_owned);
    let values = display_values(values, &secrets);
    notices.extend(checks::environment_notices(&dirs, &sources.repo, standing, &settings.memory));
    for notice in &mut notices {
        notice.message = secrets.redact(&notice.message);
    }
    let read = [files.user, files.project, files.env.map(|(content, _)| content)];
    let files = read.into_iter().flatten().map(|content| content.path).collect();
    let repo = sources.repo.clone();
    Ok(ResolvedConfig {
        settings,
        values,
        notices,
        secrets,
        dirs,
        repo,
        passphrase,
        trust_state: standing,
        passthrough,
        path,
        files,
    })
}

/// Returns the environment variables passed to commands in the sandbox, with their values.
fn passed_variables(
    settings: &ForgeSettings,
    variables: &GatedVariables<'_>,
    standing: TrustState,
    notices: &mut Vec<ConfigNotice>,
) -> Vec<(String, String)> {
    let mut passed = Vec::new();
    for name in &settings.sandbox.env_vars {
        notices.extend(variables.gated_notice(name, standing));
        passed.extend(variables.allowed_value(name).map(|value| (name.clone(), value)));
    }
    passed
}

/// Reads the secrets in variables that the settings name: keys of the egress proxy, and the token for pull requests.
fn load_named_secrets(
    secrets: &mut FoundSecrets,
    settings: &ForgeSettings,
    variables: &GatedVariables<'_>,
    standing: TrustState,
    notices: &mut Vec<ConfigNotice>,
) {
    for swap in settings.egress.parse_rules().map(|rules| rules.keys).unwrap_or_default() {
        notices.extend(variables.gated_notice(&swap.variable, standing));
        if let Some(value) = variables.allowed_value(&swap.variable) {
            let slot = secrets::egress_slot(&swap.variable);
            secrets.insert_from_environment(&slot, SecretValue::new(value), swap.variable);
        }
    }
    let token = &settings.git.token_env;
    notices.extend(variables.gated_notice(token, standing));
    if let Some(value) = variables.allowed_value(token).filter(|value| !value.is_empty()) {
        secrets.insert_from_environment(secrets::PULL_REQUEST_SLOT, SecretValue::new(value), token.clone());
    }
}

pub(crate) fn user_file_origin(path: PathBuf) -> ValueOrigin {
    ValueOrigin::UserFile { path, line: 0 }
}

pub(crate) fn project_file_origin(path: PathBuf) -> ValueOrigin {
    ValueOrigin::ProjectFile { path, line: 0 }
}

fn env_file_origin(path: PathBuf) -> ValueOrigin {
    ValueOrigin::EnvFile { path, line: 0, variable: String::new() }
}

/// Redacts the values of variables with a name like that of a key, which users may have set in the wrong place.
fn redact_key_like_values(mut faults: ConfigErrors, env: &Environment) -> ConfigErrors {
    let mut named = FoundSecrets::default();
    for name in env
        .variable_names()
        .filter(|name| ["_KEY", "_TOKEN", "_SECRET"].iter().any(|end| name.ends_with(end)))
    {
        named.insert_from_environment(
            name,
            SecretValue::new(env.get(name).unwrap_or_default()),
            name.to_owned(),
        );
    }
    for fault in &mut faults.0 {
        fault.found = named.redact(&fault.found);
    }
    faults
}

/// Finds and reads the files. An unreadable file is reported as an error and treated as absent.
fn read_files(sources: &ConfigSources, dirs: &UserDirs, faults: &mut Vec<ConfigError>) -> ConfigFiles {
    let mut files = ConfigFiles::default();
    let mut take = |content: Result<Option<ConfigFile>, ConfigErrors>| match content {
        Ok(content) => content,
        Err(more) => {
            faults.extend(more.0);
            None
        }
    };
    let found = |folder, place| {
        file::discover_file(folder, place)?.map(|path| file::read_file(&path, place)).transpose()
    };
    files.user = take(found(dirs.config.as_path(), user_file_origin));
    files.project = take(match &sources.config_path {
        Some(path) => file::read_file(&sources.cwd.join(path), project_file_origin).map(Some),
        None => found(sources.repo.as_path(), project_file_origin),
    });
    let env = sources
        .env_file
        .as_ref()
        .and_then(|path| take(file::read_file(&sources.cwd.join(path), env_file_origin).map(Some)));
    if let Some(content) = env {
        match dotenv::parse(&content.text) {
            Ok(assigned) => files.env = Some((content, assigned)),
            Err(wrong) => faults.extend(wrong.into_iter().map(|wrong| {
                let path = content.path.clone();
                let place = ValueOrigin::EnvFile { path, line: wrong.line, variable: String::new() };
                ConfigError::new(place, "NAME=value", format!("a line that can't be read: {}", wrong.problem))
            })),
        }
    }
    files
}

/// Parses the values of a file and reports syntax errors.
fn parse_leaves(
    content: &ConfigFile,
    place: fn(PathBuf) -> ValueOrigin,
    faults: &mut Vec<ConfigError>,
) -> Vec<ConfigLeaf> {
    let format = ConfigFormat::from_path(&content.path);
    file::parse_text(format, &content.text).unwrap_or_else(|error| {
        let place = with_line(place(content.path.clone()), error.line);
        let expected = match format {
            ConfigFormat::Toml => "a TOML file",
            ConfigFormat::Yaml => "a YAML file",
        };
        faults.push(ConfigError::new(place, expected, crate::schema::escape_controls(&error.problem)));
        Vec::new()
    })
}

/// Adds a line to an origin.
pub(crate) fn with_line(place: ValueOrigin, line: usize) -> ValueOrigin {
    match place {
        ValueOrigin::UserFile { path, .. } => ValueOrigin::UserFile { path, line },
        ValueOrigin::ProjectFile { path, .. } => ValueOrigin::ProjectFile { path, line },
        other => other,
    }
}

/// Variables that are not keys of the schema: API keys of providers, and variables passed to the sandbox.
struct GatedVariables<'a> {
    sources: &'a ConfigSources,
    file: &'a [dotenv::EnvAssignment],
    gated: bool,
}

impl GatedVariables<'_> {
    /// Returns the value of a variable, unless only an untrusted file sets it.
    fn allowed_value(&self, name: &str) -> Option<String> {
        let from_file = || self.file.iter().find(|found| found.name == name && !found.value.is_empty());
        match self.sources.env.get(name) {
            Some(value) => Some(value.to_owned()),
            None if self.gated => None,
            None => from_file().map(|found| found.value.clone()),
        }
    }

    /// Returns a notice if only an untrusted file sets a variable.
    fn gated_notice(&self, name: &str, standing: TrustState) -> Option<ConfigNotice> {
        if !self.gated || self.sources.env.get(name).is_some() {
            return None;
        }
        let found = self.file.iter().find(|found| found.name == name)?;
        let place = format!("{}:{}", self.sources.env_file.as_ref()?.display(), found.line);
        Some(crate::layers::refusal_notice(name, &place, None, standing))
    }
}

/// Loads the secrets other than keys: the passphrase of the stores, and the existing logins.
fn load_passphrase(
    secrets: &mut FoundSecrets,
    variables: &GatedVariables<'_>,
    dirs: &UserDirs,
    settings: &ForgeSettings,
) -> Option<SecretValue> {
    for provider in settings.providers.keys() {
        if dirs.data.join("credentials").join(format!("{provider}.json")).exists() {
            secrets.mark_logged_in(provider);
        }
    }
    let passphrase = variables.allowed_value(stores::PASSPHRASE_VAR).filter(|phrase| !phrase.is_empty());
    let passphrase = passphrase.map(SecretValue::new)?;
    // A shorter one may be an ordinary word, and redacting it would damage texts.
    if passphrase.expose().len() >= 12 {
        secrets.add_redacted(passphrase.clone());
    }
    Some(passphrase)
}

/// Loads the API keys of the providers.
fn load_provider_keys(
    settings: &ForgeSettings,
    variables: &GatedVariables<'_>,
    standing: TrustState,
    notices: &mut Vec<ConfigNotice>,
) -> FoundSecrets {
    let mut out = FoundSecrets::default();
    if !settings.secrets.secret_sources().contains(&SecretSource::Env) {
        return out;
    }
    for provider in settings.providers.keys() {
        for name in secrets::key_variables(settings, provider) {
            notices.extend(variables.gated_notice(&name, standing));
            let Some(value) = variables.allowed_value(&name) else { continue };
            match secrets::parse_usable_key(&value) {
                Ok(secret) => {
                    out.insert_from_environment(provider, secret, name);
                    break;
                }
                Err(reason) => notices.push(ConfigNotice {
                    kind: NoticeKind::PassedOver,
                    key: None,
                    message: format!("{name} can't be used as the key of {provider}: {reason}; set it again"),
                }),
            }
        }
    }
    out
}

/// Formats the values in the form that users write.
fn display_values(values: Vec<crate::layers::ResolvedValue>, secrets: &FoundSecrets) -> Vec<ResolvedSetting> {
    let rows = KEYS.iter().zip(values).map(|(key, (value, origin))| {
        let value = value.map(|value| secrets.redact(&key.kind.format_value(&value)));
        ResolvedSetting { key: key.path, value, origin }
    });
    rows.collect()
}
