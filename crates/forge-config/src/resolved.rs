//! The result of loading: every setting with its origin, and the secrets and notices that belong to it.

use crate::environment::UserDirs;
use crate::error::{ConfigNotice, ValueOrigin};
use crate::secrets::{FoundSecrets, SecretValue};
use crate::settings::ForgeSettings;
use crate::trust_state::TrustState;
use serde::Serialize;
use std::path::PathBuf;

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
