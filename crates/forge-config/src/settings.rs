//! The settings as plain structs, one per section. Their fields are the keys of the schema.
//!
//! They are deserialized from the resolved values with unknown and missing fields refused, so a key without a field, or
//! a field without a key, can't exist.

use crate::conversation::{ExecutorName, MemorySettings, ProjectFramework, RouterSettings};
use crate::routing::{AgentModel, FlywheelSettings, RoutingSettings};
use crate::schema::{KEYS, SettingValue};
use forge_types::{ApplyPolicy, BadEntry, EgressRules, KeySwap, OnLimit, WorkspaceMode};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// All settings of Forge.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForgeSettings {
    /// Name of the project (`name`).
    pub name: Option<String>,
    /// Main language of the project (`language`).
    pub language: Option<ProjectLanguage>,
    /// Executor of runs (`executor`).
    pub executor: ExecutorName,
    /// Framework of the project's program (`framework`).
    pub framework: ProjectFramework,
    /// Entry point of the project's program (`entrypoint`).
    pub entrypoint: Option<String>,
    /// The section `[router]`.
    pub router: RouterSettings,
    /// The section `[memory]`.
    pub memory: MemorySettings,
    /// The section `[agent]`.
    pub agent: AgentSettings,
    /// The section `[model]`.
    pub model: ModelConfig,
    /// The sections `[providers.<p>]` by name, with an entry for every known provider.
    pub providers: BTreeMap<String, ProviderSettings>,
    /// The section `[tools]`.
    pub tools: ToolSettings,
    /// The section `[sandbox]`.
    pub sandbox: SandboxSettings,
    /// The section `[egress]`.
    pub egress: EgressSettings,
    /// The section `[git]`.
    pub git: GitSettings,
    /// The section `[workspace]`.
    pub workspace: WorkspaceSettings,
    /// The section `[runtime]`.
    pub runtime: RuntimeSettings,
    /// The section `[cost]`.
    pub cost: CostSettings,
    /// The section `[routing]`.
    pub routing: RoutingSettings,
    /// The sections `[agents.<a>]` by name, with an entry for every known agent.
    pub agents: BTreeMap<String, AgentModel>,
    /// The section `[flywheel]`.
    pub flywheel: FlywheelSettings,
    /// The section `[store]`.
    pub store: StoreSettings,
    /// The section `[secrets]`.
    pub secrets: SecretsSettings,
    /// The section `[login]`.
    pub login: LoginSettings,
    /// The section `[logging]`.
    pub logging: LoggingSettings,
}

/// The main language of a project.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProjectLanguage {
    /// Rust.
    Rust,
    /// Python.
    Python,
    /// JavaScript or TypeScript.
    Node,
}

impl ProjectLanguage {
    /// Returns the name used in configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rust => "rust",
            Self::Python => "python",
            Self::Node => "node",
        }
    }
}

/// Settings of `[agent]`, the limits of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentSettings {
    /// Largest number of model turns in a run.
    pub max_iterations: u32,
    /// Largest number of tokens in a run.
    pub max_tokens_per_run: u64,
    /// Largest cost of a run in US dollars.
    pub max_cost_usd: f64,
    /// Largest number of tool calls accepted from one reply.
    pub max_tool_calls_per_turn: u32,
    /// Action taken when a limit is reached.
    pub on_limit: OnLimit,
    /// Sampling temperature where `model.temperature` is not set.
    pub temperature: f64,
    /// Text appended to the system prompt.
    pub system_prompt: Option<String>,
    /// Replies of the executor `stub`, one per line.
    pub stub_replies: Option<String>,
}

/// Settings of `[model]`, the model and how it is called.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// Name of the provider.
    pub provider: Option<String>,
    /// Name of the model, as the provider spells it.
    pub name: Option<String>,
    /// Address of the chosen provider's server.
    pub base_url: Option<String>,
    /// Maximum length of a reply in tokens.
    pub max_tokens: u64,
    /// Sampling temperature.
    pub temperature: Option<f64>,
    /// Nucleus sampling threshold.
    pub top_p: Option<f64>,
    /// Longest time in seconds that the server may send nothing.
    pub timeout_seconds: u64,
    /// Organization that OpenAI bills.
    pub organization_id: Option<String>,
    /// First delay before a retry in milliseconds.
    pub retry_base_ms: u64,
    /// Models used when the configured one is unavailable, in the form that [`crate::FallbackEntry::parse`] reads.
    pub fallbacks: Vec<String>,
    /// Attempts of one call at one provider.
    pub tries: u32,
    /// Longest total time in seconds that one call may spend waiting.
    pub max_wait_seconds: u64,
}

/// Settings of `[providers.<p>]`, which apply to one provider.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProviderSettings {
    /// Variable that holds the API key.
    pub api_key_env: Option<String>,
    /// Model used where `model.name` is not set.
    pub default_model: Option<String>,
    /// Address of the server, if it differs from the provider's own.
    pub base_url: Option<String>,
    /// File with the replies of the scripted provider.
    pub script: Option<PathBuf>,
}

/// Settings of `[tools]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ToolSettings {
    /// Tools that the model may call. Empty means all built-in tools.
    pub enabled: Vec<String>,
    /// Whether tools are only simulated.
    pub mock: bool,
    /// The section `[tools.create_pr]`.
    pub create_pr: CreatePrSettings,
}

/// Settings of `[tools.create_pr]`, for pull requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreatePrSettings {
    /// Repositories allowed in addition to the remote `origin`, each as `owner/name`.
    pub repositories: Vec<String>,
}

/// Isolation of commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SandboxBackend {
    /// The strongest backend that isolates.
    Auto,
    /// Linux namespaces, seccomp, Landlock, cgroups.
    Native,
    /// A container run by the Docker engine.
    Docker,
    /// A container run by podman.
    Podman,
    /// No isolation.
    Process,
}

impl SandboxBackend {
    /// Returns the name used in configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Native => "native",
            Self::Docker => "docker",
            Self::Podman => "podman",
            Self::Process => "process",
        }
    }
}

/// Settings of `[sandbox]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SandboxSettings {
    /// Backend that isolates commands.
    pub backend: SandboxBackend,
    /// Image that provides the root directory.
    pub image: Option<String>,
    /// Socket of the container engine.
    pub docker_host: Option<String>,
    /// Number of processor cores; `None` means all of them.
    pub cpu_limit: Option<f64>,
    /// Memory limit in bytes.
    pub memory_limit: u64,
    /// Largest number of processes and threads at a time.
    pub pids: u32,
    /// Longest time in seconds that a command may request.
    pub timeout_seconds: u64,
    /// Time in seconds for a command that requests none; at most `timeout_seconds`.
    pub command_timeout_seconds: u64,
    /// Size of `/tmp` in bytes.
    pub tmp_size: u64,
    /// Time in seconds for a generated program, which runs in a separate sandbox.
    pub exec_timeout_seconds: u64,
    /// Memory for a generated program in MiB.
    pub exec_memory_mb: u64,
    /// Effect of the check that precedes the execution of a generated program.
    pub static_check: StaticCheckMode,
    /// Whether commands can use the host's network.
    pub network_enabled: bool,
    /// Whether the backend `process` is permitted.
    pub allow_unisolated: bool,
    /// Variables of the user's environment that are passed to commands.
    pub env_vars: Vec<String>,
    /// Absolute paths of host directories that commands may read.
    pub read_only_paths: Vec<PathBuf>,
    /// Absolute paths of host directories that commands may change.
    pub writable_paths: Vec<PathBuf>,
    /// Whether package managers get a writable cache while a network is available.
    pub writable_cache_mounts: bool,
}

/// Effect of the check that precedes the execution of a generated program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StaticCheckMode {
    /// Findings are reported.
    Warn,
    /// A program with findings is not executed.
    Deny,
    /// Programs are not checked.
    Off,
}

/// Hosts that a sandbox can connect to while its network is off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EgressMode {
    /// No host.
    DenyAll,
    /// The listed hosts.
    Allowlist,
    /// Any host.
    DevOpen,
}

/// Settings of `[egress]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EgressSettings {
    /// Hosts that can be reached.
    pub mode: EgressMode,
    /// Hosts on the allowlist.
    pub allowed_domains: Vec<String>,
    /// API keys that the proxy adds to requests, as `host=VARIABLE`.
    pub keys: Vec<String>,
}

impl EgressSettings {
    /// Parses the allowlist and the keys into rules.
    ///
    /// # Errors
    /// The first invalid entry.
    pub fn parse_rules(&self) -> Result<EgressRules, BadEntry> {
        let swap = |entry: &String| match entry.split_once('=') {
            Some((host, variable)) => Ok(KeySwap { host: host.to_owned(), variable: variable.to_owned() }),
            None => Err(BadEntry {
                entry: entry.clone(),
                expected: "write host=VARIABLE, such as api.example.com=EXAMPLE_KEY".to_owned(),
            }),
        };
        let keys = self.keys.iter().map(swap).collect::<Result<_, _>>()?;
        EgressRules::new(&self.allowed_domains, keys)
    }
}

/// Settings of `[git]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GitSettings {
    /// Whether tools that write are excluded.
    pub read_only: bool,
    /// Variable that holds the token for pull requests.
    pub token_env: String,
    /// API address of the server that receives pull requests.
    pub api_url: Option<String>,
}

/// Settings of `[workspace]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkspaceSettings {
    /// Form of the workspace that a run uses.
    pub mode: WorkspaceMode,
    /// Policy for applying a result to the repository.
    pub apply: ApplyPolicy,
    /// Disk space in bytes for the snapshots of all runs.
    pub snapshot_limit: u64,
    /// Days after which snapshots of a finished run may be removed.
    pub snapshot_days: u64,
    /// Largest number of files, directories and links in a repository.
    pub max_paths: u64,
    /// Largest number of paths in which a workspace may differ from its baseline.
    pub max_changed_paths: u64,
    /// Largest total length in bytes of path names and link targets.
    pub max_path_bytes: u64,
    /// Deepest nesting of directories.
    pub max_depth: u64,
    /// Size in bytes of the largest file that is read.
    pub max_file_size: u64,
    /// Paths that tools may read although they look like credentials.
    pub reveal: Vec<String>,
}

/// Settings of `[runtime]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuntimeSettings {
    /// Longest elapsed time of a run in milliseconds.
    pub max_pipeline_duration_ms: u64,
    /// Largest number of commands in a run.
    pub max_shell_commands: u32,
    /// Programs that commands may start. Empty means any program.
    pub allowed_shell_commands: Vec<String>,
}

/// Settings of `[cost]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CostSettings {
    /// Share of a budget at which an alert is shown.
    pub alert_at: f64,
    /// Whether a model of unknown price may be used under a limit that the user set.
    pub allow_unknown: bool,
    /// Limit for all runs of a day in US dollars.
    pub max_per_day_usd: Option<f64>,
    /// Model used as reference in cost comparisons.
    pub reference_model: String,
}

/// Settings of `[store]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoreSettings {
    /// Whether runs are stored.
    pub durable: bool,
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

/// Settings of `[secrets]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecretsSettings {
    /// Names of the sources of API keys in lookup order. Empty means all sources.
    pub providers: Vec<String>,
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

/// Settings of `[login]`, for a browser login at addresses other than the provider's own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoginSettings {
    /// Address that the browser opens.
    pub authorize_url: Option<String>,
    /// Address of the token endpoint.
    pub token_url: Option<String>,
    /// Client ID registered with the provider.
    pub client_id: Option<String>,
    /// Port of the callback from the browser.
    pub port: u16,
    /// Longest time in seconds to wait for an answer of the provider.
    pub timeout_seconds: u64,
}

/// Format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// Plain text for people.
    Text,
    /// One JSON object per line.
    Json,
}

/// Settings of `[logging]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoggingSettings {
    /// A level, or a filter of `target=level` pairs.
    pub level: String,
    /// Format of log lines.
    pub format: LogFormat,
    /// File that receives the log instead of stderr.
    pub file: Option<PathBuf>,
}

/// Builds the settings from one value per key of [`KEYS`], `None` where a key is not set.
pub(crate) fn build_settings(values: &[Option<SettingValue>]) -> ForgeSettings {
    let mut tree = serde_json::Map::new();
    for (key, value) in KEYS.iter().zip(values) {
        let mut table = &mut tree;
        let mut parts = key.path.split('.').peekable();
        while let Some(part) = parts.next() {
            if parts.peek().is_none() {
                let value = serde_json::to_value(value).expect("a value is plain JSON");
                table.insert(part.to_owned(), value);
                break;
            }
            let inner = table.entry(part).or_insert_with(|| serde_json::Map::new().into());
            table = inner.as_object_mut().expect("no key's path is the front of another's");
        }
    }
    serde_json::from_value(tree.into()).expect("every key of the schema has a field of its type")
}
