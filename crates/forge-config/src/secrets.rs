//! The keys of providers: from the environment and from the stores, never printed.

use crate::settings::{ForgeSettings, SecretSource};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// A key. Neither its `Debug` nor its `Display` form shows it.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretValue(String);

impl SecretValue {
    /// Wraps a key.
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The key itself, for the request that needs it and for the redactor.
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

/// Where a key was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SecretOrigin {
    /// A variable of the process or of the file given with `--env`.
    Environment,
    /// `.forge/secrets.enc` of the repository.
    ProjectStore,
    /// `secrets.enc` in the user's data folder.
    UserStore,
}

impl SecretOrigin {
    /// How it is called.
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

    /// Its place among those that are looked at, first one first; `None` if it is not looked at.
    fn rank_in(self, sources: &[SecretSource]) -> Option<(usize, Self)> {
        sources.iter().position(|source| *source == self.secret_source()).map(|at| (at, self))
    }
}

impl fmt::Display for SecretOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A key that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
struct FoundKey {
    secret: SecretValue,
    variable: String,
    origin: SecretOrigin,
}

/// The keys that were found, by provider.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FoundSecrets {
    keys: BTreeMap<String, FoundKey>,
    /// Everything else that must not be seen: the passphrase, and what the stores hold besides.
    others: Vec<SecretValue>,
    /// Providers that the user is logged in at.
    logins: BTreeSet<String>,
}

impl FoundSecrets {
    /// The key of a provider.
    pub fn get(&self, provider: &str) -> Option<&SecretValue> {
        self.keys.get(provider).map(|found| &found.secret)
    }

    /// Where the key of a provider was found.
    pub fn origin_of(&self, provider: &str) -> Option<SecretOrigin> {
        self.keys.get(provider).map(|found| found.origin)
    }

    /// Whether a provider that wants a key can be asked: there is one, or a login stands in for it.
    pub fn can_ask(&self, provider: &str) -> bool {
        self.keys.contains_key(provider) || self.logins.contains(provider)
    }

    /// Whether the user is logged in at a provider, as far as the file is there.
    pub fn is_logged_in(&self, provider: &str) -> bool {
        self.logins.contains(provider)
    }

    /// Everything that was found, for showing: the variable, the value, where it was found.
    pub fn found_keys(&self) -> impl Iterator<Item = (&str, &SecretValue, SecretOrigin)> {
        self.keys.values().map(|found| (found.variable.as_str(), &found.secret, found.origin))
    }

    /// The token for pull requests.
    pub fn pull_request_token(&self) -> Option<&SecretValue> {
        self.get(PULL_REQUEST_SLOT)
    }

    /// The value of a variable that the egress proxy puts into requests.
    pub fn egress_key(&self, variable: &str) -> Option<&SecretValue> {
        self.get(&egress_slot(variable))
    }

    /// The variable that a provider's key came from.
    pub fn variable_of(&self, provider: &str) -> Option<&str> {
        self.keys.get(provider).map(|found| found.variable.as_str())
    }

    /// Every key in clear, for the redactor.
    pub fn values_to_redact(&self) -> impl Iterator<Item = &str> {
        self.keys.values().map(|found| &found.secret).chain(&self.others).map(SecretValue::expose)
    }

    pub(crate) fn insert_from_environment(&mut self, provider: &str, secret: SecretValue, variable: String) {
        let found = FoundKey { secret, variable, origin: SecretOrigin::Environment };
        self.keys.insert(provider.to_owned(), found);
    }

    /// Takes what was found in a store, unless something that is looked at before it is there already.
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

    /// Something more that must not be seen.
    pub fn add_redacted(&mut self, secret: SecretValue) {
        self.others.push(secret);
    }

    pub(crate) fn mark_logged_in(&mut self, provider: &str) {
        self.logins.insert(provider.to_owned());
    }

    /// The text with every key in it replaced.
    pub fn redact(&self, text: &str) -> String {
        // Shorter values would blank out ordinary words.
        const MIN_REDACTED_LEN: usize = 6;
        let mut values: Vec<&str> =
            self.values_to_redact().filter(|value| value.len() >= MIN_REDACTED_LEN).collect();
        values.sort_by_key(|value| std::cmp::Reverse(value.len()));
        values.into_iter().fold(text.to_owned(), |text, value| text.replace(value, REDACTED_TEXT))
    }
}

/// Where the token for pull requests stands among the others.
pub(crate) const PULL_REQUEST_SLOT: &str = "git:pull-requests";

/// Where a key of the egress proxy stands among the others; no provider is called so.
pub(crate) fn egress_slot(variable: &str) -> String {
    format!("egress:{variable}")
}

/// The variables that may hold a provider's key, in order of precedence.
pub(crate) fn key_variables(settings: &ForgeSettings, provider: &str) -> Vec<String> {
    let named = settings.providers.get(provider).and_then(|provider| provider.api_key_env.clone());
    match named {
        Some(name) if provider == "gemini" && name == "GEMINI_API_KEY" => {
            vec![name, "GOOGLE_API_KEY".to_owned()]
        }
        Some(name) => vec![name],
        None => Vec::new(),
    }
}

/// Whether a variable holds a key of any provider, so that it must not enter a sandbox.
pub(crate) fn holds_key(settings: &ForgeSettings, variable: &str) -> bool {
    // The vendors' own names stay keys although `api_key_env` points elsewhere.
    const KNOWN_KEY_VARIABLES: [&str; 6] = [
        "OPENAI_API_KEY",
        "ANTHROPIC_API_KEY",
        "GEMINI_API_KEY",
        "GOOGLE_API_KEY",
        "OPENROUTER_API_KEY",
        "FORGE_PASSPHRASE",
    ];
    KNOWN_KEY_VARIABLES.contains(&variable)
        || settings.git.token_env == variable
        || settings.providers.values().any(|provider| provider.api_key_env.as_deref() == Some(variable))
}

/// A key as it can be sent in a header, or why it can't be.
pub(crate) fn parse_usable_key(value: &str) -> Result<SecretValue, &'static str> {
    let value = value.trim();
    if value.is_empty() {
        Err("it is empty")
    } else if !value.bytes().all(|b| b.is_ascii_graphic()) {
        Err("it holds white space or characters outside ASCII")
    } else {
        Ok(SecretValue::new(value))
    }
}
