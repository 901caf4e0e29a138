//! Loading: layers from weakest to strongest, every fault collected, every value with its origin.
//!
//! Order: defaults, user file, project file, file given with `--env`, environment, flags. The first two file layers and
//! the `--env` file pass the gate of [`crate::trust`] when they lie in a repository that the user has not trusted.

use crate::checkout::Checkouts;
use crate::environment::{Dirs, Environment};
use crate::fault::{Fault, Faults, Notice, NoticeKind, Origin};
use crate::file::{self, Content, Format, Leaf};
use crate::layers::Layers;
use crate::schema::KEYS;
use crate::secrets::{self, Secret, Secrets};
use crate::settings::{self, SecretSource, Settings};
use crate::trust::{self, Standing};
use crate::{checks, dotenv, stores};
use serde::Serialize;
use std::cell::OnceCell;
use std::path::PathBuf;

/// A setting given on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flag {
    /// The key's path.
    pub key: String,
    /// The value as typed.
    pub value: String,
    /// The flag as typed, such as `--model`.
    pub name: String,
}

/// Everything that settings come from.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The environment.
    pub env: Environment,
    /// The folder the command was started in; relative paths of flags and variables start here.
    pub cwd: PathBuf,
    /// The repository the command is about.
    pub repo: PathBuf,
    /// `--config`: read in place of the project's file.
    pub config_path: Option<PathBuf>,
    /// `--env`: fills variables that are not set.
    pub env_file: Option<PathBuf>,
    /// Flags.
    pub flags: Vec<Flag>,
}

/// A value and where it came from.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Resolved {
    /// The key's path.
    pub key: &'static str,
    /// The value as people write it, without secrets; `None` if not set.
    pub value: Option<String>,
    /// Where it came from.
    pub origin: Origin,
}

/// What was loaded.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The settings.
    pub settings: Settings,
    /// Every key with its value and origin, in the order of the schema.
    pub values: Vec<Resolved>,
    /// What the user should know.
    pub notices: Vec<Notice>,
    /// The providers' keys.
    pub secrets: Secrets,
    /// The user's folders.
    pub dirs: Dirs,
    /// The repository.
    pub repo: PathBuf,
    /// The passphrase of the stores, if the environment holds it.
    pub passphrase: Option<Secret>,
    /// How the repository stands.
    pub standing: Standing,
    /// The variables named by `sandbox.env_vars` that are set, with their values.
    pub passthrough: Vec<(String, String)>,
    /// The user's `PATH`, from which a box learns where toolchains lie.
    pub path: Option<String>,
    /// The files that were read.
    pub files: Vec<PathBuf>,
}

impl Loaded {
    /// Where the value of a key came from.
    pub fn origin(&self, key: &str) -> Option<&Origin> {
        self.values.iter().find(|value| value.key == key).map(|value| &value.origin)
    }

    /// Whether somebody set a key, that is, whether it is not the default.
    pub fn is_set(&self, key: &str) -> bool {
        self.origin(key).is_some_and(|origin| *origin != Origin::Default)
    }

    /// The resolved values as JSON for a run's plan: `{key: {value, origin}}`, secrets masked.
    pub fn as_json(&self) -> serde_json::Value {
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

/// What has been read of the file system.
#[derive(Default)]
struct Files {
    user: Option<Content>,
    project: Option<Content>,
    env: Option<(Content, Vec<dotenv::Assignment>)>,
}

/// Tells files that came with a clone from the user's own.
struct Clones<'a> {
    sources: &'a Sources,
    dirs: &'a Dirs,
    around: OnceCell<Checkouts>,
}

impl Clones<'_> {
    /// Whether a file came with a clone and was not accepted together with the repository around it.
    fn hold(&self, file: &Content) -> bool {
        // The usual case, in which nothing else needs to be looked at.
        if file.path.parent() == Some(self.sources.repo.as_path()) {
            return true;
        }
        let Sources { repo, cwd, .. } = self.sources;
        let around = self.around.get_or_init(|| Checkouts::around(repo, Some(cwd), self.dirs.home()));
        around.hold(&file.path) && !trust::accepted_around(self.dirs, around, file)
    }
}

/// Loads the settings.
///
/// # Errors
/// Everything that is wrong, at once.
pub fn load(sources: &Sources) -> Result<Loaded, Faults> {
    let dirs = Dirs::find(&sources.env)?;
    let mut faults = Vec::new();
    let files = read_files(sources, &dirs, &mut faults);
    let clones = Clones { sources, dirs: &dirs, around: OnceCell::new() };
    let (project_inside, env_inside) = (
        files.project.as_ref().filter(|file| clones.hold(file)),
        files.env.as_ref().map(|(file, _)| file).filter(|file| clones.hold(file)),
    );
    let used: Vec<&Content> = project_inside.into_iter().chain(env_inside).collect();
    let standing = trust::standing(&dirs, &sources.repo, &used);
    let gated = !standing.is_trusted();

    let mut layers = Layers::new(sources, &dirs, standing, faults);
    if let Some(content) = &files.user {
        let found = leaves(content, user, &mut layers.faults);
        layers.file(&found, &content.path, user, false);
    }
    if let Some(content) = &files.project {
        let found = leaves(content, project, &mut layers.faults);
        layers.file(&found, &content.path, project, gated && project_inside.is_some());
    }
    let env_gated = gated && env_inside.is_some();
    if let Some((content, assigned)) = &files.env {
        layers.env_file(assigned, &content.path, env_gated);
    }
    layers.environment();
    layers.flags();
    let (values, mut faults, mut notices) = layers.finish();

    let plain: Vec<_> = values.iter().map(|(value, _)| value.clone()).collect();
    let settings = settings::build(&plain);
    checks::settings(&settings, &values, &notices, &mut faults);
    Faults::check(faults).map_err(|faults| unkeyed(faults, &sources.env))?;

    let env_pairs = files.env.as_ref().map_or(&[][..], |(_, assigned)| assigned.as_slice());
    let variables = Variables { sources, file: env_pairs, gated: env_gated };
    let secrets = keys(&settings, &variables, standing, &mut notices);
    let mut passthrough = Vec::new();
    for name in &settings.sandbox.env_vars {
        notices.extend(variables.refusal(name, standing));
        passthrough.extend(variables.allowed(name).map(|value| (name.clone(), value)));
    }
    let mut secrets = secrets;
    for swap in settings.egress.rules().map(|rules| rules.keys).unwrap_or_default() {
        notices.extend(variables.refusal(&swap.variable, standing));
        if let Some(value) = variables.allowed(&swap.variable) {
            secrets.insert(&secrets::egress_name(&swap.variable), Secret::new(value), swap.variable);
        }
    }
    notices.extend(variables.refusal(&settings.git.token_env, standing));
    if let Some(value) = variables.allowed(&settings.git.token_env).filter(|value| !value.is_empty()) {
        secrets.insert(secrets::PULL_REQUESTS, Secret::new(value), settings.git.token_env.clone());
    }
    let passphrase = around(&mut secrets, &variables, &dirs, &settings);
    let path = sources.env.get("PATH").map(str::to_owned);
    let values = shown(values, &secrets);
    notices.extend(checks::surroundings(&dirs, &sources.repo, standing, &settings.memory));
    for notice in &mut notices {
        notice.message = secrets.mask(&notice.message);
    }
    let read = [files.user, files.project, files.env.map(|(content, _)| content)];
    let files = read.into_iter().flatten().map(|content| content.path).collect();
    let repo = sources.repo.clone();
    Ok(Loaded {
        settings,
        values,
        notices,
        secrets,
        dirs,
        repo,
        passphrase,
        standing,
        passthrough,
        path,
        files,
    })
}

pub(crate) fn user(path: PathBuf) -> Origin {
    Origin::UserFile { path, line: 0 }
}

pub(crate) fn project(path: PathBuf) -> Origin {
    Origin::ProjectFile { path, line: 0 }
}

fn env_file(path: PathBuf) -> Origin {
    Origin::EnvFile { path, line: 0, variable: String::new() }
}

/// The faults without the value of any variable that is named like a key: somebody may have put it in the wrong place.
fn unkeyed(mut faults: Faults, env: &Environment) -> Faults {
    let mut named = Secrets::default();
    for name in env.names().filter(|name| ["_KEY", "_TOKEN", "_SECRET"].iter().any(|end| name.ends_with(end)))
    {
        named.insert(name, Secret::new(env.get(name).unwrap_or_default()), name.to_owned());
    }
    for fault in &mut faults.0 {
        fault.found = named.mask(&fault.found);
    }
    faults
}

/// Finds and reads the files; what can't be read is a fault and then absent.
fn read_files(sources: &Sources, dirs: &Dirs, faults: &mut Vec<Fault>) -> Files {
    let mut files = Files::default();
    let mut take = |content: Result<Option<Content>, Faults>| match content {
        Ok(content) => content,
        Err(more) => {
            faults.extend(more.0);
            None
        }
    };
    let found =
        |folder, place| file::discover(folder, place)?.map(|path| file::read(&path, place)).transpose();
    files.user = take(found(dirs.config.as_path(), user));
    files.project = take(match &sources.config_path {
        Some(path) => file::read(&sources.cwd.join(path), project).map(Some),
        None => found(sources.repo.as_path(), project),
    });
    let env = sources
        .env_file
        .as_ref()
        .and_then(|path| take(file::read(&sources.cwd.join(path), env_file).map(Some)));
    if let Some(content) = env {
        match dotenv::parse(&content.text) {
            Ok(assigned) => files.env = Some((content, assigned)),
            Err(wrong) => faults.extend(wrong.into_iter().map(|wrong| {
                let path = content.path.clone();
                let place = Origin::EnvFile { path, line: wrong.line, variable: String::new() };
                Fault::new(place, "NAME=value", format!("a line that can't be read: {}", wrong.problem))
            })),
        }
    }
    files
}

/// The values of a file; a syntax error is a fault.
fn leaves(content: &Content, place: fn(PathBuf) -> Origin, faults: &mut Vec<Fault>) -> Vec<Leaf> {
    let format = Format::of(&content.path);
    file::leaves(format, &content.text).unwrap_or_else(|error| {
        let place = at_line(place(content.path.clone()), error.line);
        let expected = match format {
            Format::Toml => "a TOML file",
            Format::Yaml => "a YAML file",
        };
        faults.push(Fault::new(place, expected, crate::schema::escaped(&error.problem)));
        Vec::new()
    })
}

/// The place with its line.
pub(crate) fn at_line(place: Origin, line: usize) -> Origin {
    match place {
        Origin::UserFile { path, .. } => Origin::UserFile { path, line },
        Origin::ProjectFile { path, .. } => Origin::ProjectFile { path, line },
        other => other,
    }
}

/// Variables that are no keys of the schema: providers' keys, and what commands in the sandbox may see.
struct Variables<'a> {
    sources: &'a Sources,
    file: &'a [dotenv::Assignment],
    gated: bool,
}

impl Variables<'_> {
    /// The value of a variable, unless it stands in an untrusted file.
    fn allowed(&self, name: &str) -> Option<String> {
        let from_file = || self.file.iter().find(|found| found.name == name && !found.value.is_empty());
        match self.sources.env.get(name) {
            Some(value) => Some(value.to_owned()),
            None if self.gated => None,
            None => from_file().map(|found| found.value.clone()),
        }
    }

    /// The notice that a variable stands in an untrusted file only.
    fn refusal(&self, name: &str, standing: Standing) -> Option<Notice> {
        if !self.gated || self.sources.env.get(name).is_some() {
            return None;
        }
        let found = self.file.iter().find(|found| found.name == name)?;
        let place = format!("{}:{}", self.sources.env_file.as_ref()?.display(), found.line);
        Some(crate::layers::refusal(name, &place, None, standing))
    }
}

/// What stands beside the keys: the passphrase of the stores, and which logins there are.
fn around(
    secrets: &mut Secrets,
    variables: &Variables<'_>,
    dirs: &Dirs,
    settings: &Settings,
) -> Option<Secret> {
    for provider in settings.providers.keys() {
        if dirs.data.join("credentials").join(format!("{provider}.json")).exists() {
            secrets.log_in(provider);
        }
    }
    let passphrase = variables.allowed(stores::PASSPHRASE).filter(|phrase| !phrase.is_empty());
    let passphrase = passphrase.map(Secret::new)?;
    // A shorter one may be an ordinary word, without which texts would be mangled.
    if passphrase.expose().len() >= 12 {
        secrets.hide(passphrase.clone());
    }
    Some(passphrase)
}

/// The providers' keys.
fn keys(
    settings: &Settings,
    variables: &Variables<'_>,
    standing: Standing,
    notices: &mut Vec<Notice>,
) -> Secrets {
    let mut out = Secrets::default();
    if !settings.secrets.sources().contains(&SecretSource::Env) {
        return out;
    }
    for provider in settings.providers.keys() {
        for name in secrets::variables(settings, provider) {
            notices.extend(variables.refusal(&name, standing));
            let Some(value) = variables.allowed(&name) else { continue };
            match secrets::usable(&value) {
                Ok(secret) => {
                    out.insert(provider, secret, name);
                    break;
                }
                Err(reason) => notices.push(Notice {
                    kind: NoticeKind::PassedOver,
                    key: None,
                    message: format!("{name} can't be used as the key of {provider}: {reason}; set it anew"),
                }),
            }
        }
    }
    out
}

/// The values as people write them.
fn shown(values: Vec<crate::layers::Slot>, secrets: &Secrets) -> Vec<Resolved> {
    let rows = KEYS.iter().zip(values).map(|(key, (value, origin))| {
        let value = value.map(|value| secrets.mask(&key.kind.show(&value)));
        Resolved { key: key.path, value, origin }
    });
    rows.collect()
}
