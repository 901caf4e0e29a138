//! Settings of limits and costs, the store, secrets, logins and the log.

use super::definition::{choices, settings};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

settings! {
    /// Settings of `[runtime]`.
    #[derive(Eq)]
    pub struct RuntimeSettings in "runtime." {
        keys RUNTIME_KEYS:
        /// Longest elapsed time of a run, not counting the time spent waiting for a person.
        max_pipeline_duration_ms: u64 = Int(600_000), millis_kind(1, MONTH_MS), Lower;
        /// Largest number of commands in a run.
        max_shell_commands: u32 = Int(50), int_kind(0, 1_000_000), Lower;
        /// Programs that the model's commands may execute, enforced by the sandbox. Empty: any program in the sandbox.
        allowed_shell_commands: Vec<String> = Empty, KeyKind::List(ListElement::Name), FewerOfAll;
    }
}

settings! {
    /// Settings of `[cost]`.
    pub struct CostSettings in "cost." {
        keys COST_KEYS:
        /// Share of a budget at which an alert is shown.
        alert_at: f64 = Number(0.8), number_kind(0.0, 1.0), Lower;
        /// Whether a model of unknown price may be used although a cost limit is set.
        allow_unknown: bool = Bool(false), KeyKind::Bool, Off;
        /// Largest total cost of all runs of a day in US dollars. Unset: no limit.
        max_per_day_usd: Option<f64> = Unset, number_kind(MIN_USD, 1_000_000.0), Lower;

        keys REFERENCE_KEYS:
        /// Reference model for cost comparisons, as `provider/model` or a name in the price table.
        reference_model: String = Text("gpt-4o"), ONE_LINE, Ask;
    }
}

settings! {
    /// Settings of `[store]`.
    #[derive(Eq)]
    pub struct StoreSettings in "store." {
        keys STORE_KEYS:
        /// Whether runs are stored. With `false`, the journal exists only in memory while the command runs, so that
        /// runs can't be resumed, listed or followed afterwards.
        durable: bool = Bool(true), KeyKind::Bool, Ask, with_env(negated_alias("FORGE_NO_DURABLE")),
            with_flags("--no-durable");
    }
}

/// A source of API keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SecretSource {
    /// The encrypted files: first the project's, then the user's.
    EncryptedFile,
    /// The environment.
    Env,
}

settings! {
    /// Settings of `[secrets]`.
    #[derive(Eq)]
    pub struct SecretsSettings in "secrets." {
        keys SECRETS_KEYS:
        /// Sources of API keys in lookup order: `encrypted-file` (`forge secret`: the project's store, then yours) and
        /// `env`. Empty: both, in this order.
        providers: Vec<String> = Empty, KeyKind::List(ListElement::Name), Ask;
    }
}

impl SecretsSettings {
    /// Every source with its name.
    pub const SOURCE_NAMES: [(&'static str, SecretSource); 2] =
        [("encrypted-file", SecretSource::EncryptedFile), ("env", SecretSource::Env)];

    /// Returns the sources of API keys in lookup order.
    pub fn secret_sources(&self) -> Vec<SecretSource> {
        if self.providers.is_empty() {
            return Self::SOURCE_NAMES.map(|(_, source)| source).to_vec();
        }
        let of = |name: &String| Self::SOURCE_NAMES.iter().find(|(known, _)| known == name).map(|(_, s)| *s);
        self.providers.iter().filter_map(of).collect()
    }
}

settings! {
    /// Settings of `[login]`, for a browser login at addresses other than the provider's own.
    #[derive(Eq)]
    pub struct LoginSettings in "login." {
        keys LOGIN_KEYS:
        /// Address that `forge login` opens in the browser. Unset: the provider's own.
        authorize_url: Option<String> = Unset, KeyKind::Url, Ask;
        /// Address of the token endpoint. Unset: the provider's own.
        token_url: Option<String> = Unset, KeyKind::Url, Ask;
        /// OAuth client ID. Unset: the public client of the provider's own tools.
        client_id: Option<String> = Unset, ONE_LINE, Ask;
        /// Local port for the browser's callback. OpenAI accepts only the default. 0: any free port.
        port: u16 = Int(1455), int_kind(0, 65_535), Ask;
        /// Longest time to wait for the provider's response to a login or a renewal.
        timeout_seconds: u64 = Int(30), seconds_kind(1, 300), Ask;
    }
}

choices! {
    /// Format of log lines.
    pub enum LogFormat {
        /// Plain text for people.
        Text = "text",
        /// One JSON object per line.
        Json = "json",
    }
}

settings! {
    /// Settings of `[logging]`.
    #[derive(Eq)]
    pub struct LoggingSettings in "logging." {
        keys LOGGING_KEYS:
        /// Level of the log on stderr, or a filter such as `warn,forge_models=debug`.
        level: String = Text("info"), KeyKind::LogFilter, Ask,
            with_env(foreign_alias("RUST_LOG"), foreign_alias("LOG_LEVEL"));
        /// Format of log lines.
        format: LogFormat = Text("text"), LogFormat::KIND, Ask, with_env(foreign_alias("LOG_FORMAT"));
        /// File that receives the log instead of stderr.
        file: Option<PathBuf> = Unset, KeyKind::Path, Ask;
    }
}
