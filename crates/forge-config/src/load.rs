//! Loading of the settings: layers from weakest to strongest, with all errors collected and an origin for every value.
//!
//! Order: defaults, user file, project file, file given with `--env`, environment, flags. The first two file layers and
//! the `--env` file are subject to [`crate::trust`] if they lie in a repository that the user has not trusted.

use crate::checkout::Checkouts;
use crate::environment::{Environment, UserDirs};
use crate::error::{ConfigError, ConfigErrors, ValueOrigin};
use crate::file::{self, ConfigFile, ConfigFormat, ConfigLeaf};
use crate::layers::LayeredValues;
use crate::resolved::{ResolvedConfig, ResolvedSetting};
use crate::schema::KEYS;
use crate::secrets::{FoundSecrets, SecretValue};
use crate::sources::ConfigSources;
use crate::variables::{self, GatedVariables};
use crate::{checks, dotenv, settings, trust};
use std::cell::OnceCell;
use std::path::PathBuf;

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
        let found = parse_leaves(content, ValueOrigin::user_file, &mut layers.faults);
        layers.apply_file(&found, &content.path, ValueOrigin::user_file, false);
    }
    if let Some(content) = &files.project {
        let found = parse_leaves(content, ValueOrigin::project_file, &mut layers.faults);
        layers.apply_file(
            &found,
            &content.path,
            ValueOrigin::project_file,
            gated && project_inside.is_some(),
        );
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
    let mut secrets = variables::load_provider_keys(&settings, &variables, standing, &mut notices);
    let passthrough = variables::passed_variables(&settings, &variables, standing, &mut notices);
    variables::load_named_secrets(&mut secrets, &settings, &variables, standing, &mut notices);
    let passphrase = variables::load_passphrase(&mut secrets, &variables, &dirs, &settings);
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
    files.user = take(found(dirs.config.as_path(), ValueOrigin::user_file));
    files.project = take(match &sources.config_path {
        Some(path) => file::read_file(&sources.cwd.join(path), ValueOrigin::project_file).map(Some),
        None => found(sources.repo.as_path(), ValueOrigin::project_file),
    });
    let env = sources
        .env_file
        .as_ref()
        .and_then(|path| take(file::read_file(&sources.cwd.join(path), ValueOrigin::env_file).map(Some)));
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
        let place = place(content.path.clone()).at_line(error.line);
        let expected = match format {
            ConfigFormat::Toml => "a TOML file",
            ConfigFormat::Yaml => "a YAML file",
        };
        faults.push(ConfigError::new(place, expected, crate::schema::escape_controls(&error.problem)));
        Vec::new()
    })
}

/// Formats the values in the form that users write.
fn display_values(values: Vec<crate::layers::ResolvedValue>, secrets: &FoundSecrets) -> Vec<ResolvedSetting> {
    let rows = KEYS.iter().zip(values).map(|(key, (value, origin))| {
        let value = value.map(|value| secrets.redact(&key.kind.format_value(&value)));
        ResolvedSetting { key: key.path, value, origin }
    });
    rows.collect()
}
