//! Checks of everything that a run needs on this machine, with remedies.

use crate::compose;
use crate::providers::logins::{self, LoginState};
use crate::providers::prices;
use crate::secret_stores::{SecretStores, StoreScope};
use forge_catalog::vendors::{DetectionRule, KeyRule, VENDORS};
use forge_config::{ResolvedConfig, SecretOrigin};
use forge_ports::Sandbox;
use forge_types::{NextStep, SandboxLayer, SandboxLayerState};
use serde::Serialize;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

/// The result of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckState {
    /// The check passed.
    Ok,
    /// Runs work, with limitations.
    Warn,
    /// Runs can't start.
    Fail,
}

/// A check and its result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DoctorCheck {
    /// The subject of the check, such as `sandbox: seccomp`.
    pub name: String,
    /// The result.
    pub state: CheckState,
    /// The finding.
    pub detail: String,
    /// The remedy, if one is needed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
    /// The step that is the remedy, if Forge itself offers it.
    #[serde(skip)]
    pub next_step: Option<NextStep>,
}

impl DoctorCheck {
    fn new(name: impl Into<String>, state: CheckState, detail: impl Into<String>) -> Self {
        Self { name: name.into(), state, detail: detail.into(), remedy: None, next_step: None }
    }

    fn with_remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    fn with_next_step(mut self, step: impl Into<Option<NextStep>>) -> Self {
        self.next_step = step.into();
        self
    }
}

/// Isolation layers without which no run starts.
const REQUIRED_LAYERS: &[&str] =
    &["user namespace", "mount namespace", "pid namespace", "network namespace", "seccomp"];

/// Checks everything that a run needs.
pub async fn run_doctor(loaded: &ResolvedConfig) -> Vec<DoctorCheck> {
    let mut checks = vec![check_data_directory(&loaded.dirs.data), check_store(loaded)];
    match crate::sandbox::open_backends(loaded, &loaded.dirs.data) {
        Ok(boxes) => checks.extend(boxes.probe_layers().await.into_iter().map(check_layer)),
        Err(error) => checks.push(DoctorCheck::new("sandbox", CheckState::Fail, error.to_string())),
    }
    checks.extend(check_git_history(loaded).await);
    checks.extend(check_keys(loaded));
    checks.extend(check_providers(loaded).await);
    for (program, why) in [
        ("git", "agents use it to inspect history and changes"),
        ("python3", "Python projects need it"),
        ("rg", "agents search with it in the shell; the search tool does not need it"),
    ] {
        checks.push(check_program(program, why, loaded.path.as_deref().unwrap_or_default()));
    }
    checks
}

fn check_data_directory(path: &Path) -> DoctorCheck {
    let name = "data folder";
    let shown = path.display();
    if let Err(error) = std::fs::create_dir_all(path) {
        return DoctorCheck::new(name, CheckState::Fail, format!("{shown}: {error}"))
            .with_remedy("make it writable, or set XDG_DATA_HOME to another directory");
    }
    let probe = path.join(".doctor");
    match std::fs::write(&probe, b"x") {
        Ok(()) => {
            let _ = std::fs::remove_file(&probe);
            DoctorCheck::new(name, CheckState::Ok, shown.to_string())
        }
        Err(error) => DoctorCheck::new(name, CheckState::Fail, format!("{shown} can't be written: {error}"))
            .with_remedy("make it writable, free some space, or set XDG_DATA_HOME to another directory"),
    }
}

fn check_store(loaded: &ResolvedConfig) -> DoctorCheck {
    let options = forge_store::Options { data_dir: loaded.dirs.data.clone() };
    match forge_store::SqliteStore::open(&options) {
        Ok(store) => DoctorCheck::new("store", CheckState::Ok, store.path().display().to_string()),
        Err(error) => DoctorCheck::new("store", CheckState::Fail, error.to_string()),
    }
}

fn check_layer(layer: SandboxLayer) -> DoctorCheck {
    let name = format!("sandbox: {}", layer.name);
    let check = match layer.state {
        SandboxLayerState::Enforced => DoctorCheck::new(name, CheckState::Ok, "in force"),
        SandboxLayerState::Degraded(why) => DoctorCheck::new(name, CheckState::Warn, why),
        SandboxLayerState::Absent(why) => {
            let required = REQUIRED_LAYERS.iter().any(|required| layer.name.contains(required));
            DoctorCheck::new(name, if required { CheckState::Fail } else { CheckState::Warn }, why)
        }
    };
    match layer.remedy {
        Some(remedy) => check.with_remedy(remedy),
        None => check,
    }
}

/// Checks for files in git that look like secrets. Returns `None` outside a repository.
async fn check_git_history(loaded: &ResolvedConfig) -> Option<DoctorCheck> {
    let repo = loaded.repo.clone();
    if !repo.join(".git").exists() {
        return None;
    }
    let found = tokio::task::spawn_blocking(move || forge_sandbox::secrets_in_history(&repo)).await.ok()?;
    let name = "repository: secrets in git";
    let found = match found {
        Ok(found) => found,
        Err(error) => {
            return Some(DoctorCheck::new(
                name,
                CheckState::Warn,
                format!("the repository was not checked: {error}"),
            ));
        }
    };
    if found.is_empty() {
        return Some(DoctorCheck::new(name, CheckState::Ok, "no tracked file looks like a secret"));
    }
    let paths: Vec<String> = found.iter().map(|path| path.display().to_string()).collect();
    let detail =
        format!("tracked, so commands in the sandbox can read them from git's history: {}", paths.join(", "));
    let remedy = "remove them from the history, and replace the secrets in them";
    Some(DoctorCheck::new(name, CheckState::Warn, detail).with_remedy(remedy))
}

/// Checks the encrypted stores, unlocked or not, and the logins.
fn check_keys(loaded: &ResolvedConfig) -> Vec<DoctorCheck> {
    let (stores, notices) = loaded.usable_stores();
    let mut checks: Vec<DoctorCheck> = notices
        .into_iter()
        .map(|notice| {
            DoctorCheck::new("secrets", CheckState::Warn, notice.message).with_next_step(notice.next_step)
        })
        .collect();
    for (origin, path) in stores {
        let name = format!("secrets: {origin}");
        let vault = SecretStores::new(loaded.dirs.clone(), loaded.repo.clone());
        let place = if origin == SecretOrigin::UserStore { StoreScope::User } else { StoreScope::Project };
        checks.push(match loaded.passphrase.as_ref().map(|phrase| vault.open(place, phrase)) {
            Some(Ok(values)) => DoctorCheck::new(
                name,
                CheckState::Ok,
                format!("{} in {}", format_secret_count(values.len()), path.display()),
            ),
            Some(Err(error)) => DoctorCheck::new(name, CheckState::Fail, error.to_string()),
            None => DoctorCheck::new(
                name,
                CheckState::Ok,
                format!("{}, opened when a key is needed", path.display()),
            ),
        });
    }
    for login in logins::logins(loaded) {
        let name = format!("login: {}", login.provider);
        let account = login.account.map_or_else(String::new, |account| format!(" as {account}"));
        checks.extend(match login.state {
            LoginState::None => None,
            LoginState::Valid => Some(DoctorCheck::new(name, CheckState::Ok, format!("valid{account}"))),
            LoginState::Renewable => Some(DoctorCheck::new(
                name,
                CheckState::Ok,
                format!("valid{account}; its token is renewed on its next use"),
            )),
            LoginState::Expired => Some(
                DoctorCheck::new(name, CheckState::Warn, format!("expired{account}"))
                    .with_next_step(NextStep::Login { provider: login.provider }),
            ),
            LoginState::Broken => Some(
                DoctorCheck::new(name, CheckState::Warn, login.problem.unwrap_or_default())
                    .with_next_step(NextStep::Login { provider: login.provider }),
            ),
        });
    }
    checks
}

fn format_secret_count(secrets: usize) -> String {
    if secrets == 1 { "1 secret".to_owned() } else { format!("{secrets} secrets") }
}

async fn check_providers(loaded: &ResolvedConfig) -> Vec<DoctorCheck> {
    let models = match compose::build_models(
        loaded,
        &crate::providers::routing::model_preference(loaded),
        &std::sync::Arc::default(),
        &prices::load_catalog(loaded),
    ) {
        Ok(models) => models,
        Err(error) => return vec![DoctorCheck::new("providers", CheckState::Fail, error.to_string())],
    };
    let wanted = loaded.settings.model.provider.as_deref();
    let mut checks = Vec::new();
    let mut any = false;
    for vendor in
        VENDORS.iter().filter(|vendor| vendor.detect != DetectionRule::Never || wanted == Some(vendor.name))
    {
        let name = format!("provider: {}", vendor.name);
        let key = loaded.secrets.variable_of(vendor.name).zip(loaded.secrets.origin_of(vendor.name));
        let check = match (vendor.detect, key) {
            (DetectionRule::Key, Some((variable, origin))) => {
                any = true;
                DoctorCheck::new(name, CheckState::Ok, format!("key {variable} ({origin})"))
            }
            (DetectionRule::Key, None) if loaded.secrets.is_logged_in(vendor.name) => {
                any = true;
                DoctorCheck::new(name, CheckState::Ok, "logged in; no key is needed")
            }
            (DetectionRule::Key, None) => {
                let variable = vendor.key_env.first().copied().unwrap_or("its key");
                DoctorCheck::new(name, CheckState::Warn, format!("no key ({variable} is not set)"))
                    .with_next_step(NextStep::SetSecret { name: Some(variable.to_owned()) })
            }
            (DetectionRule::Probe { .. }, _) => match models.find_local_server(vendor.name).await {
                Some(seen) => {
                    any = true;
                    let models =
                        if seen.models.is_empty() { "running".to_owned() } else { seen.models.join(", ") };
                    DoctorCheck::new(name, CheckState::Ok, models)
                }
                None => DoctorCheck::new(name, CheckState::Warn, "no server answers"),
            },
            (DetectionRule::Never, _) => {
                any |= vendor.key != KeyRule::Required;
                DoctorCheck::new(name, CheckState::Ok, "named in the configuration")
            }
        };
        checks.push(check);
    }
    if !any {
        checks.push(
            DoctorCheck::new("providers", CheckState::Fail, "no model is available")
                .with_remedy("set one of the keys above, start a local server, or configure model.base_url"),
        );
    }
    checks
}

fn check_program(program: &str, why: &str, path: &str) -> DoctorCheck {
    let found = path.split(':').map(|folder| Path::new(folder).join(program)).find(|file| {
        file.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    });
    match found {
        Some(file) => {
            DoctorCheck::new(format!("program: {program}"), CheckState::Ok, file.display().to_string())
        }
        None => {
            DoctorCheck::new(format!("program: {program}"), CheckState::Warn, format!("not found; {why}"))
        }
    }
}
