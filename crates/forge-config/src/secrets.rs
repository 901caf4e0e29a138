//! The keys of providers: read from the environment, never printed.

use crate::settings::Settings;
use std::collections::BTreeMap;
use std::fmt;

/// A key. Neither its `Debug` nor its `Display` form shows it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a key.
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The key itself, for the request that needs it and for the redactor.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

const REDACTED: &str = "***REDACTED***";

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

/// The keys that were found, by provider.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Secrets {
    keys: BTreeMap<String, (Secret, String)>,
}

impl Secrets {
    /// The key of a provider.
    pub fn get(&self, provider: &str) -> Option<&Secret> {
        self.keys.get(provider).map(|(secret, _)| secret)
    }

    /// The token for pull requests.
    pub fn pull_requests(&self) -> Option<&Secret> {
        self.get(PULL_REQUESTS)
    }

    /// The value of a variable that the egress proxy puts into requests.
    pub fn egress(&self, variable: &str) -> Option<&Secret> {
        self.get(&egress_name(variable))
    }

    /// The variable that a provider's key came from.
    pub fn variable(&self, provider: &str) -> Option<&str> {
        self.keys.get(provider).map(|(_, variable)| variable.as_str())
    }

    /// Every key in clear, for the redactor.
    pub fn values(&self) -> impl Iterator<Item = &str> {
        self.keys.values().map(|(secret, _)| secret.expose())
    }

    pub(crate) fn insert(&mut self, provider: &str, secret: Secret, variable: String) {
        self.keys.insert(provider.to_owned(), (secret, variable));
    }

    /// The text with every key in it replaced.
    pub fn mask(&self, text: &str) -> String {
        // Shorter values would blank out ordinary words.
        const SHORTEST: usize = 6;
        let mut values: Vec<&str> = self.values().filter(|value| value.len() >= SHORTEST).collect();
        values.sort_by_key(|value| std::cmp::Reverse(value.len()));
        values.into_iter().fold(text.to_owned(), |text, value| text.replace(value, REDACTED))
    }
}

/// Where the token for pull requests stands among the others.
pub(crate) const PULL_REQUESTS: &str = "git:pull-requests";

/// Where a key of the egress proxy stands among the others; no provider is called so.
pub(crate) fn egress_name(variable: &str) -> String {
    format!("egress:{variable}")
}

/// The variables that may hold a provider's key, in order of precedence.
pub(crate) fn variables(settings: &Settings, provider: &str) -> Vec<String> {
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
pub(crate) fn holds_key(settings: &Settings, variable: &str) -> bool {
    // The vendors' own names stay keys although `api_key_env` points elsewhere.
    const ALWAYS: [&str; 6] = [
        "OPENAI_API_KEY",
        "ANTHROPIC_API_KEY",
        "GEMINI_API_KEY",
        "GOOGLE_API_KEY",
        "OPENROUTER_API_KEY",
        "FORGE_PASSPHRASE",
    ];
    ALWAYS.contains(&variable)
        || settings.git.token_env == variable
        || settings.providers.values().any(|provider| provider.api_key_env.as_deref() == Some(variable))
}

/// A key as it can be sent in a header, or why it can't be.
pub(crate) fn usable(value: &str) -> Result<Secret, &'static str> {
    let value = value.trim();
    if value.is_empty() {
        Err("it is empty")
    } else if !value.bytes().all(|b| b.is_ascii_graphic()) {
        Err("it holds white space or characters outside ASCII")
    } else {
        Ok(Secret::new(value))
    }
}
