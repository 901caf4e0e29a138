//! The settings as plain structs, one per section; their fields are the keys of the schema.
//!
//! They are made by deserializing the resolved values with unknown and missing fields refused, so a key without a
//! field, or a field without a key, can't exist.

use crate::conversation::{ExecutorName, MemorySettings, ProjectFramework, RouterSettings};
use crate::routing::{AgentModel, FlywheelSettings, RoutingSettings};
use crate::schema::{KEYS, SettingValue};
use forge_types::{ApplyPolicy, BadEntry, EgressRules, KeySwap, OnLimit, WorkspaceMode};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// All settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForgeSettings {
    /// `name`
    pub name: Option<String>,
    /// `language`
    pub language: Option<ProjectLanguage>,
    /// `executor`
    pub executor: ExecutorName,
    /// `framework`
    pub framework: ProjectFramework,
    /// `entrypoint`
    pub entrypoint: Option<String>,
    /// `[router]`
    pub router: RouterSettings,
    /// `[memory]`
    pub memory: MemorySettings,
    /// `[agent]`
    pub agent: AgentSettings,
    /// `[model]`
    pub model: ModelConfig,
    /// `[providers.<p>]`, by name; every known provider is there.
    pub providers: BTreeMap<String, ProviderSettings>,
    /// `[tools]`
    pub tools: ToolSettings,
    /// `[sandbox]`
    pub sandbox: SandboxSettings,
    /// `[egress]`
    pub egress: EgressSettings,
    /// `[git]`
    pub git: GitSettings,
    /// `[workspace]`
    pub workspace: WorkspaceSettings,
    /// `[runtime]`
    pub runtime: RuntimeSettings,
    /// `[cost]`
    pub cost: CostSettings,
    /// `[routing]`
    pub routing: RoutingSettings,
    /// `[agents.<a>]`, by name; every known agent is there.
    pub agents: BTreeMap<String, AgentModel>,
    /// `[flywheel]`
    pub flywheel: FlywheelSettings,
    /// `[store]`
    pub store: StoreSettings,
    /// `[secrets]`
    pub secrets: SecretsSettings,
    /// `[login]`
    pub login: LoginSettings,
    /// `[logging]`
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
    /// The name as it stands in configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rust => "rust",
            Self::Python => "python",
            Self::Node => "node",
        }
    }
}

/// `[agent]`: the limits of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentSettings {
    /// Model turns.
    pub max_iterations: u32,
    /// Tokens.
    pub max_tokens_per_run: u64,
    /// US dollars.
    pub max_cost_usd: f64,
    /// Tool calls taken from one reply.
    pub max_tool_calls_per_turn: u32,
    /// What reaching a limit does.
    pub on_limit: OnLimit,
    /// Sampling temperature where `model.temperature` is not set.
    pub temperature: f64,
    /// Text added to the system prompt.
    pub system_prompt: Option<String>,
    /// Replies of the executor `stub`, one a line.
    pub stub_replies: Option<String>,
}

/// `[model]`: whom to ask and how.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// Provider.
    pub provider: Option<String>,
    /// Model as the provider writes it.
    pub name: Option<String>,
    /// Server of the chosen provider.
    pub base_url: Option<String>,
    /// Longest reply in tokens.
    pub max_tokens: u64,
    /// Sampling temperature.
    pub temperature: Option<f64>,
    /// Nucleus sampling.
    pub top_p: Option<f64>,
    /// Longest silence of the server in seconds.
    pub timeout_seconds: u64,
    /// Organization that OpenAI bills.
    pub organization_id: Option<String>,
    /// First delay before a retry in milliseconds.
    pub retry_base_ms: u64,
    /// Whom to ask when the model can't be had, as [`Fallback::parse`] reads them.
    pub fallbacks: Vec<String>,
    /// Tries of one call at one provider.
    pub tries: u32,
    /// Longest time in seconds that the waits of one call may take together.
    pub max_wait_seconds: u64,
}

/// `[providers.<p>]`: what is particular to one provider.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProviderSettings {
    /// Variable that holds the key.
    pub api_key_env: Option<String>,
    /// Model where `model.name` is not set.
    pub default_model: Option<String>,
    /// Server, if not the provider's own address.
    pub base_url: Option<String>,
    /// Replies of the scripted provider.
    pub script: Option<PathBuf>,
}

/// `[tools]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ToolSettings {
    /// Tools that the model may call; empty: all built-in ones.
    pub enabled: Vec<String>,
    /// Whether tools are only pretended.
    pub mock: bool,
    /// Pull requests.
    pub create_pr: CreatePrSettings,
}

/// `[tools.create_pr]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreatePrSettings {
    /// Repositories beside the remote `origin`, each as `owner/name`.
    pub repositories: Vec<String>,
}

/// How commands are isolated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SandboxBackend {
    /// The best that isolates.
    Auto,
    /// Linux namespaces, seccomp, Landlock, cgroups.
    Native,
    /// A container of Docker's engine.
    Docker,
    /// A container of podman.
    Podman,
    /// No isolation.
    Process,
}

impl SandboxBackend {
    /// The name as it stands in configuration.
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

/// `[sandbox]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SandboxSettings {
    /// How commands are isolated.
    pub backend: SandboxBackend,
    /// The image that gives the root folder.
    pub image: Option<String>,
    /// The container engine's socket.
    pub docker_host: Option<String>,
    /// Processor cores; `None`: all.
    pub cpu_limit: Option<f64>,
    /// Bytes.
    pub memory_limit: u64,
    /// Processes and threads at once.
    pub pids: u32,
    /// Longest time that any command may ask for, seconds.
    pub timeout_seconds: u64,
    /// Time of a command that asks for none, seconds; never more than `timeout_seconds`.
    pub command_timeout_seconds: u64,
    /// Size of `/tmp` in bytes.
    pub tmp_size: u64,
    /// Time of a generated program in a box of its own, seconds.
    pub exec_timeout_seconds: u64,
    /// Memory of such a program, MiB.
    pub exec_memory_mb: u64,
    /// What a look at such a program does before it is executed.
    pub static_check: StaticCheckMode,
    /// Whether commands reach the host's network.
    pub network_enabled: bool,
    /// Whether `process` may be used.
    pub allow_unisolated: bool,
    /// Variables of the user's environment that commands see.
    pub env_vars: Vec<String>,
    /// Host folders that commands may read, absolute.
    pub read_only_paths: Vec<PathBuf>,
    /// Host folders that commands may change, absolute.
    pub writable_paths: Vec<PathBuf>,
    /// Whether package managers get a writable cache when a network is on.
    pub writable_cache_mounts: bool,
}

/// What a look at a generated program does before it is executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StaticCheckMode {
    /// It says what it found.
    Warn,
    /// What it finds is not executed.
    Deny,
    /// Nobody looks.
    Off,
}

/// What a box reaches while its network is off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EgressMode {
    /// Nothing.
    DenyAll,
    /// The hosts that are listed.
    Allowlist,
    /// Everything.
    DevOpen,
}

/// `[egress]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EgressSettings {
    /// What is reached.
    pub mode: EgressMode,
    /// The hosts of the list.
    pub allowed_domains: Vec<String>,
    /// Keys that the proxy puts in, as `host=VARIABLE`.
    pub keys: Vec<String>,
}

impl EgressSettings {
    /// The rules of the list.
    ///
    /// # Errors
    /// The first entry that makes no sense.
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

/// `[git]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GitSettings {
    /// Whether tools that write are left out.
    pub read_only: bool,
    /// Variable that holds the token for pull requests.
    pub token_env: String,
    /// API of the server that pull requests go to.
    pub api_url: Option<String>,
}

/// `[workspace]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkspaceSettings {
    /// How a run works on its repository.
    pub mode: WorkspaceMode,
    /// When a result is applied.
    pub apply: ApplyPolicy,
    /// What the snapshots of all runs may use on the disk, bytes.
    pub snapshot_limit: u64,
    /// Days after which snapshots of a run that ended may be removed.
    pub snapshot_days: u64,
    /// Files, directories and links that a repository may hold.
    pub max_paths: u64,
    /// Paths at which a workspace may differ from the beginning of its run.
    pub max_changed_paths: u64,
    /// What their names and the targets of links may have together, bytes.
    pub max_path_bytes: u64,
    /// Directories within one another.
    pub max_depth: u64,
    /// Largest file that is read, bytes.
    pub max_file_size: u64,
    /// Paths that tools may see although they look like credentials.
    pub reveal: Vec<String>,
}

/// `[runtime]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuntimeSettings {
    /// Wall clock of a run in milliseconds.
    pub max_pipeline_duration_ms: u64,
    /// Commands of a run.
    pub max_shell_commands: u32,
    /// Programs that commands may start; empty: any.
    pub allowed_shell_commands: Vec<String>,
}

/// `[cost]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CostSettings {
    /// Share of a budget at which an alert is shown.
    pub alert_at: f64,
    /// Whether a model of unknown price may be used under a ceiling that the user set.
    pub allow_unknown: bool,
    /// Ceiling of all runs of a day in US dollars.
    pub max_per_day_usd: Option<f64>,
    /// Model that costs are compared with.
    pub reference_model: String,
}

/// `[store]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoreSettings {
    /// Whether runs are kept.
    pub durable: bool,
}

/// What keys are looked up in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SecretSource {
    /// The encrypted files: the project's, then the user's.
    EncryptedFile,
    /// The environment.
    Env,
}

/// `[secrets]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecretsSettings {
    /// What keys are looked up in, first one first, by name; empty: all.
    pub providers: Vec<String>,
}

impl SecretsSettings {
    /// The name of each source.
    pub const SOURCE_NAMES: [(&'static str, SecretSource); 2] =
        [("encrypted-file", SecretSource::EncryptedFile), ("env", SecretSource::Env)];

    /// What keys are looked up in, first one first.
    pub fn secret_sources(&self) -> Vec<SecretSource> {
        if self.providers.is_empty() {
            return Self::SOURCE_NAMES.map(|(_, source)| source).to_vec();
        }
        let of = |name: &String| Self::SOURCE_NAMES.iter().find(|(known, _)| known == name).map(|(_, s)| *s);
        self.providers.iter().filter_map(of).collect()
    }
}

/// `[login]`: where the browser login goes, if not to the provider's own addresses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoginSettings {
    /// Where the browser goes.
    pub authorize_url: Option<String>,
    /// Where tokens come from.
    pub token_url: Option<String>,
    /// The program as the provider knows it.
    pub client_id: Option<String>,
    /// The port that the browser comes back to.
    pub port: u16,
    /// Longest time for an answer of the provider, seconds.
    pub timeout_seconds: u64,
}

/// The form of the log's lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// `[logging]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoggingSettings {
    /// A level, or a filter of `target=level` pairs.
    pub level: String,
    /// The form of lines.
    pub format: LogFormat,
    /// File that gets the log instead of stderr.
    pub file: Option<PathBuf>,
}

/// Settings out of one value per key of [`KEYS`], `None` where it is not set.
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
