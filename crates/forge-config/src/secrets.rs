//! API keys of providers, from the environment and from the stores. They are never printed.

use crate::settings::{ForgeSettings, SecretSource};
use forge_catalog::vendors::{VENDORS, find_vendor};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// An API key. Neither its `Debug` nor its `Display` form shows it.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretValue(String);

impl SecretValue {
    /// Wraps a key.
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// Returns the key itself, for the request that needs it and for the redactor.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

const REDACTED_TEXT: &str = "***REDACTED***";

impl fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED_TEXT)
    }
}

impl fmt::Display for SecretValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED_TEXT)
    }
}

/// The source in which an API key was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SecretOrigin {
    /// A variable of the process or of the file given with `--env`.
    Environment,
    /// The store `.forge/secrets.enc` of the repository.
    ProjectStore,
    /// The store `secrets.enc` in the user's data directory.
    UserStore,
}

impl SecretOrigin {
    /// Returns the displayed name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Environment => "environment",
            Self::ProjectStore => "project store",
            Self::UserStore => "user store",
        }
    }

    const fn secret_source(self) -> SecretSource {
        match self {
            Self::Environment => SecretSource::Env,
            Self::ProjectStore | Self::UserStore => SecretSource::EncryptedFile,
        }
    }

    /// Returns the rank in lookup order; `None` if the source is not used.
    fn rank_in(self, sources: &[SecretSource]) -> Option<(usize, Self)> {
        sources.iter().position(|source| *source == self.secret_source()).map(|at| (at, self))
    }
}

impl fmt::Display for SecretOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// An API key that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
struct FoundKey {
    secret: SecretValue,
    variable: String,
    origin: SecretOrigin,
}

/// The API keys that were found, by provider.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FoundSecrets {
    keys: BTreeMap<String, FoundKey>,
    /// All other values to redact: the passphrase and the remaining content of the stores.
    others: Vec<SecretValue>,
    /// Providers with a login of the user.
    logins: BTreeSet<String>,
}

impl FoundSecrets {
    /// Returns the API key of a provider.
    pub fn get(&self, provider: &str) -> Option<&SecretValue> {
        self.keys.get(provider).map(|found| &found.secret)
    }

    /// Returns the source of a provider's API key.
    pub fn origin_of(&self, provider: &str) -> Option<SecretOrigin> {
        self.keys.get(provider).map(|found| found.origin)
    }

    /// Returns whether a provider that requires an API key is usable: there is a key, or a login replaces it.
    pub fn can_ask(&self, provider: &str) -> bool {
        self.keys.contains_key(provider) || self.logins.contains(provider)
    }

    /// Returns whether the user is logged in to a provider, judged by the presence of the login file.
    pub fn is_logged_in(&self, provider: &str) -> bool {
        self.logins.contains(provider)
    }

    /// Returns everything that was found, for display: the variable, the value and its source.
    pub fn found_keys(&self) -> impl Iterator<Item = (&str, &SecretValue, SecretOrigin)> {
        self.keys.values().map(|found| (found.variable.as_str(), &found.secret, found.origin))
    }

    /// Returns the token for pull requests.
    pub fn pull_request_token(&self) -> Option<&SecretValue> {
        self.get(PULL_REQUEST_SLOT)
    }

    /// Returns the value of a variable that the egress proxy adds to requests.
    pub fn egress_key(&self, variable: &str) -> Option<&SecretValue> {
        self.get(&egress_slot(variable))
    }

    /// Returns the variable that a provider's API key came from.
    pub fn variable_of(&self, provider: &str) -> Option<&str> {
        self.keys.get(provider).map(|found| found.variable.as_str())
    }

    /// Returns every API key in clear, for the redactor.
    pub fn values_to_redact(&self) -> impl Iterator<Item = &str> {
        self.keys.values().map(|found| &found.secret).chain(&self.others).map(SecretValue::expose)
    }

    pub(crate) fn insert_from_environment(&mut self, provider: &str, secret: SecretValue, variable: String) {
        let found = FoundKey { secret, variable, origin: SecretOrigin::Environment };
        self.keys.insert(provider.to_owned(), found);
    }

    /// Adds a value from a store, unless a source with precedence has provided it already.
    pub(crate) fn insert_from_store(
        &mut self,
        settings: &ForgeSettings,
        slot: &str,
        found: (SecretValue, String, SecretOrigin),
    ) {
        let sources = settings.secrets.secret_sources();
        let (secret, variable, origin) = found;
        let Some(rank) = origin.rank_in(&sources) else { return };
        let before = self.keys.get(slot).and_then(|found| found.origin.rank_in(&sources));
        if before.is_none_or(|before| rank < before) {
            let found = FoundKey { secret, variable, origin };
            if let Some(passed_over) = self.keys.insert(slot.to_owned(), found) {
                self.others.push(passed_over.secret);
            }
        }
    }

    /// Adds a further value to redact.
    pub fn add_redacted(&mut self, secret: SecretValue) {
        self.others.push(secret);
    }

    pub(crate) fn mark_logged_in(&mut self, provider: &str) {
        self.logins.insert(provider.to_owned());
    }

    /// Replaces every API key in the text.
    pub fn redact(&self, text: &str) -> String {
        // Redacting shorter values would remove ordinary words.
        const MIN_REDACTED_LEN: usize = 6;
        let mut values: Vec<&str> =
            self.values_to_redact().filter(|value| value.len() >= MIN_REDACTED_LEN).collect();
        values.sort_by_key(|value| std::cmp::Reverse(value.len()));
        values.into_iter().fold(text.to_owned(), |text, value| text.replace(value, REDACTED_TEXT))
    }
}

/// Name under which the token for pull requests is stored among the others.
pub(crate) const PULL_REQUEST_SLOT: &str = "git:pull-requests";

/// Returns the name under which a key of the egress proxy is stored among the others; it differs from every provider's.
pub(crate) fn egress_slot(variable: &str) -> String {
    format!("egress:{variable}")
}

/// Returns the variables that may hold a provider's API key, in order of precedence.
pub(crate) fn key_variables(settings: &ForgeSettings, provider: &str) -> Vec<String> {
    let named = settings.providers.get(provider).and_then(|provider| provider.api_key_env.clone());
    let known = find_vendor(provider).map_or(&[][..], |vendor| vendor.key_env);
    match named {
        // The canonical variable has alternatives.
        Some(name) if known.first() == Some(&name.as_str()) => {
            known.iter().map(|&name| name.to_owned()).collect()
        }
        Some(name) => vec![name],
        None => Vec::new(),
    }
}

/// Returns whether a variable holds an API key of any provider, so that it must not enter a sandbox.
pub(crate) fn holds_key(settings: &ForgeSettings, variable: &str) -> bool {
    // The vendors' own variables remain keys even if `api_key_env` names another one.
    VENDORS.iter().any(|vendor| vendor.key_env.contains(&variable))
        || variable == "FORGE_PASSPHRASE"
        || settings.git.token_env == variable
        || settings.providers.values().any(|provider| provider.api_key_env.as_deref() == Some(variable))
}

/// Returns a key that can be sent in a header, or the reason why it can't.
pub(crate) fn parse_usable_key(value: &str) -> Result<SecretValue, &'static str> {
    let value = value.trim();
    if value.is_empty() {
        Err("it is empty")
    } else if !value.bytes().all(|b| b.is_ascii_graphic()) {
        Err("it contains white space or non-ASCII characters")
    } else {
        Ok(SecretValue::new(value))
    }
}
