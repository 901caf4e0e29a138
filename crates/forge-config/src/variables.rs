//! Variables that are not keys of the schema: API keys of providers, other secrets, and variables for the sandbox.

use crate::dotenv::EnvAssignment;
use crate::environment::UserDirs;
use crate::error::{ConfigNotice, NoticeKind};
use crate::layers::refusal_notice;
use crate::secrets::{self, FoundSecrets, SecretValue};
use crate::settings::{ForgeSettings, SecretSource};
use crate::sources::ConfigSources;
use crate::stores;
use crate::trust_state::TrustState;

/// Variables that are not keys of the schema: API keys of providers, and variables passed to the sandbox.
pub(crate) struct GatedVariables<'a> {
    pub(crate) sources: &'a ConfigSources,
    /// Assignments of the file given with `--env`.
    pub(crate) file: &'a [EnvAssignment],
    /// Whether that file is untrusted.
    pub(crate) gated: bool,
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
        Some(refusal_notice(name, &place, None, standing))
    }
}

/// Returns the environment variables passed to commands in the sandbox, with their values.
pub(crate) fn passed_variables(
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
pub(crate) fn load_named_secrets(
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

/// Loads the secrets other than keys: the passphrase of the stores, and the existing logins.
pub(crate) fn load_passphrase(
    secrets: &mut FoundSecrets,
    variables: &GatedVariables<'_>,
    dirs: &UserDirs,
    settings: &ForgeSettings,
) -> Option<SecretValue> {
    for provider in settings.providers.keys() {
        if forge_files::may_be_present(&dirs.data.join("credentials").join(format!("{provider}.json"))) {
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
pub(crate) fn load_provider_keys(
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
                    next_step: None,
                }),
            }
        }
    }
    out
}
