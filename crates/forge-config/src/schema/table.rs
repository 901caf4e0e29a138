//! The table of keys itself.

use super::{AliasReading, DefaultValue, EnvAlias, KeyKind, ListElement, SchemaKey, TextLines, TrustRule};

use super::rows::{
    ONE_LINE, api_key_schema, base_url_schema, bytes_kind, default_model_schema, env_alias, foreign_alias,
    int_kind, millis_kind, number_kind, seconds_kind,
};

const MIB: u64 = 1 << 20;
/// The least ceiling in dollars: nothing at all is no ceiling but a mistake.
const MIN_USD: f64 = 0.000_001;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;
const MONTH_MS: u64 = 30 * 24 * 3_600_000;

/// Names of providers, and other spellings of them.
const PROVIDER_KIND: KeyKind = KeyKind::Choice(&[
    ("openai", &[]),
    ("anthropic", &[]),
    ("gemini", &["google"]),
    ("openrouter", &[]),
    ("ollama", &[]),
    ("llama_cpp", &["llama-cpp", "llama.cpp"]),
    ("custom", &[]),
    ("scripted", &[]),
]);

/// The keys of most sections, in the order of the documentation.
pub(super) const BASE_KEYS: &[SchemaKey] = &[
    SchemaKey::new("name", ONE_LINE, DefaultValue::Unset, TrustRule::Free, "Name of the project, shown by `forge status`."),
    SchemaKey::new(
        "language",
        KeyKind::Choice(&[("rust", &[]), ("python", &[]), ("node", &["javascript", "typescript"])]),
        DefaultValue::Unset,
        TrustRule::Free,
        "Main language of the project, shown by `forge status`.",
    ),
    SchemaKey::new(
        "agent.max_iterations",
        int_kind(1, 10_000),
        DefaultValue::Int(25),
        TrustRule::Lower,
        "Model turns of one run.",
    )
    .with_env(&[env_alias("AGENT_MAX_ITERATIONS")]),
    SchemaKey::new(
        "agent.max_tokens_per_run",
        int_kind(1, 1_000_000_000),
        DefaultValue::Int(200_000),
        TrustRule::Lower,
        "Tokens of one run: replies plus prompts without what the provider had cached.",
    ),
    SchemaKey::new(
        "agent.max_cost_usd",
        number_kind(MIN_USD, 1_000_000.0),
        DefaultValue::Number(1.0),
        TrustRule::Lower,
        "What the model calls of one run may cost in US dollars. Once you set it, models of unknown price are \
         refused (see `cost.allow_unknown`).",
    ),
    SchemaKey::new(
        "agent.max_tool_calls_per_turn",
        int_kind(1, 128),
        DefaultValue::Int(10),
        TrustRule::Lower,
        "Tool calls taken from one reply; the rest are refused.",
    ),
    SchemaKey::new(
        "agent.on_limit",
        KeyKind::Choice(&[("end", &[]), ("wait", &[])]),
        DefaultValue::Text("end"),
        TrustRule::Towards(&["end", "wait"]),
        "What reaching a limit does: `end` the run as timed out, or `wait` until the limit is raised.",
    ),
    SchemaKey::new(
        "agent.temperature",
        number_kind(0.0, 2.0),
        DefaultValue::Number(0.0),
        TrustRule::Ask,
        "Sampling temperature where `model.temperature` is not set.",
    ),
    SchemaKey::new(
        "agent.system_prompt",
        KeyKind::Text(TextLines::Multiple),
        DefaultValue::Unset,
        TrustRule::Ask,
        "Text added to the built-in system prompt.",
    ),
    SchemaKey::new(
        "model.provider",
        PROVIDER_KIND,
        DefaultValue::Unset,
        TrustRule::Ask,
        "Whom to ask. Unset: the first of openai, anthropic, gemini, openrouter that has a key, then a local \
         ollama or llama.cpp server that answers.",
    )
    .with_env(&[env_alias("FORGE_PROVIDER")])
    .with_paths(&["agent.default_provider"]),
    SchemaKey::new(
        "model.name",
        ONE_LINE,
        DefaultValue::Unset,
        TrustRule::Ask,
        "Model, as its provider writes it. Unset: the provider's `default_model`.",
    )
    .with_env(&[foreign_alias("LLM_MODEL"), foreign_alias("MODEL_NAME"), foreign_alias("AGENT_MODEL")])
    .with_paths(&["agent.default_model"]),
    SchemaKey::new(
        "model.base_url",
        KeyKind::Url,
        DefaultValue::Unset,
        TrustRule::Ask,
        "Server of the chosen provider; wins over `providers.<p>.base_url`. Without a provider it means `custom`.",
    ),
    SchemaKey::new(
        "model.max_tokens",
        int_kind(1, 1_000_000),
        DefaultValue::Int(4096),
        TrustRule::Lower,
        "Longest reply in tokens.",
    ),
    SchemaKey::new(
        "model.temperature",
        number_kind(0.0, 2.0),
        DefaultValue::Unset,
        TrustRule::Ask,
        "Sampling temperature. Unset: `agent.temperature`.",
    ),
    SchemaKey::new(
        "model.top_p",
        number_kind(0.0, 1.0),
        DefaultValue::Unset,
        TrustRule::Ask,
        "Nucleus sampling. Unset: not sent.",
    ),
    SchemaKey::new(
        "model.timeout_seconds",
        seconds_kind(1, 3600),
        DefaultValue::Int(120),
        TrustRule::Ask,
        "Longest silence of the server: until the first byte, then between two bytes.",
    ),
    SchemaKey::new("model.organization_id", ONE_LINE, DefaultValue::Unset, TrustRule::Ask, "Organization that OpenAI bills.")
        .with_env(&[env_alias("OPENAI_ORG_ID")]),
    SchemaKey::new(
        "model.retry_base_ms",
        millis_kind(1, 30_000),
        DefaultValue::Int(2000),
        TrustRule::Ask,
        "First delay before a failed model call is tried again; doubles each time, up to 30 s.",
    ),
    api_key_schema("providers.openai.api_key_env", DefaultValue::Text("OPENAI_API_KEY")),
    default_model_schema("providers.openai.default_model", DefaultValue::Text("gpt-5.2-2025-12-11")),
    base_url_schema("providers.openai.base_url").with_env(&[env_alias("OPENAI_BASE_URL")]),
    api_key_schema("providers.anthropic.api_key_env", DefaultValue::Text("ANTHROPIC_API_KEY")),
    default_model_schema("providers.anthropic.default_model", DefaultValue::Text("claude-sonnet-4-20250514")),
    base_url_schema("providers.anthropic.base_url").with_env(&[env_alias("ANTHROPIC_BASE_URL")]),
    api_key_schema("providers.gemini.api_key_env", DefaultValue::Text("GEMINI_API_KEY")),
    default_model_schema("providers.gemini.default_model", DefaultValue::Text("gemini-2.5-flash")),
    base_url_schema("providers.gemini.base_url").with_env(&[env_alias("GEMINI_BASE_URL"), env_alias("GOOGLE_GEMINI_BASE_URL")]),
    api_key_schema("providers.openrouter.api_key_env", DefaultValue::Text("OPENROUTER_API_KEY")),
    default_model_schema("providers.openrouter.default_model", DefaultValue::Text("openai/gpt-4o-mini")),
    base_url_schema("providers.openrouter.base_url").with_env(&[env_alias("OPENROUTER_URL")]),
    api_key_schema("providers.ollama.api_key_env", DefaultValue::Unset),
    default_model_schema("providers.ollama.default_model", DefaultValue::Text("llama3")),
    base_url_schema("providers.ollama.base_url").with_env(&[env_alias("OLLAMA_BASE_URL"), env_alias("OLLAMA_URL")]),
    api_key_schema("providers.llama_cpp.api_key_env", DefaultValue::Unset),
    default_model_schema("providers.llama_cpp.default_model", DefaultValue::Text("default")),
    base_url_schema("providers.llama_cpp.base_url").with_env(&[env_alias("LLAMA_CPP_URL")]),
    api_key_schema("providers.custom.api_key_env", DefaultValue::Unset),
    default_model_schema("providers.custom.default_model", DefaultValue::Unset),
    base_url_schema("providers.custom.base_url"),
    SchemaKey::new(
        "providers.scripted.script",
        KeyKind::Path,
        DefaultValue::Unset,
        TrustRule::Ask,
        "File with the replies of the scripted provider.",
    ),
    SchemaKey::new(
        "tools.enabled",
        KeyKind::List(ListElement::Name),
        DefaultValue::Empty,
        TrustRule::FewerOfAll,
        "Tools that the model may call; empty: all built-in ones (`forge tool list`).",
    )
    .with_env(&[foreign_alias("ENABLED_TOOLS")]),
    SchemaKey::new(
        "tools.create_pr.repositories",
        KeyKind::List(ListElement::Repository),
        DefaultValue::Empty,
        TrustRule::Ask,
        "Repositories that pull requests may go to and come from beside the remote `origin`, each as `owner/name`; name a \
         fork here to open pull requests from it.",
    ),
    SchemaKey::new(
        "sandbox.backend",
        KeyKind::Choice(&[("auto", &[]), ("native", &["bwrap"]), ("docker", &[]), ("podman", &[]), ("process", &[])]),
        DefaultValue::Text("auto"),
        TrustRule::Ask,
        "How commands are isolated: `auto` takes native where this machine can, else docker, else podman; `process` \
         isolates nothing and needs `sandbox.allow_unisolated`.",
    ),
    SchemaKey::new(
        "sandbox.image",
        ONE_LINE,
        DefaultValue::Unset,
        TrustRule::Ask,
        "Image that gives the root folder (`forge sandbox build`); unset: the host's system folders for native, \
         `forge-sandbox:latest` for docker and podman.",
    )
    .with_env(&[env_alias("SANDBOX_IMAGE")]),
    SchemaKey::new(
        "sandbox.docker_host",
        ONE_LINE,
        DefaultValue::Unset,
        TrustRule::Ask,
        "Socket of the container engine; unset: the usual places.",
    )
    .with_env(&[foreign_alias("DOCKER_HOST")]),
    SchemaKey::new(
        "sandbox.cpu_limit",
        number_kind(0.05, 1024.0),
        DefaultValue::Unset,
        TrustRule::Lower,
        "Processor cores; unset: all.",
    )
    .with_env(&[env_alias("SANDBOX_CPU_LIMIT")]),
    SchemaKey::new(
        "sandbox.memory_limit",
        bytes_kind(64 * MIB, 64 * TIB),
        DefaultValue::Int(2 * GIB),
        TrustRule::Lower,
        "Memory of all processes of a run together.",
    ),
    SchemaKey::new(
        "sandbox.pids",
        int_kind(16, 1_000_000),
        DefaultValue::Int(1024),
        TrustRule::Lower,
        "Processes and threads at once.",
    ),
    SchemaKey::new(
        "sandbox.timeout_seconds",
        seconds_kind(1, 86_400),
        DefaultValue::Int(300),
        TrustRule::Lower,
        "Longest time that any command may ask for.",
    ),
    SchemaKey::new(
        "sandbox.command_timeout_seconds",
        seconds_kind(1, 600),
        DefaultValue::Int(120),
        TrustRule::Lower,
        "Time of a command that asks for none.",
    ),
    SchemaKey::new("sandbox.tmp_size", bytes_kind(MIB, 64 * TIB), DefaultValue::Int(GIB), TrustRule::Lower, "Size of `/tmp`."),
    SchemaKey::new(
        "sandbox.exec_timeout_seconds",
        seconds_kind(5, 120),
        DefaultValue::Int(30),
        TrustRule::Lower,
        "Time of a generated program in a box of its own (`forge sandbox exec --code`).",
    )
    .with_env(&[env_alias("SANDBOX_TIMEOUT_SECONDS")]),
    SchemaKey::new(
        "sandbox.exec_memory_mb",
        int_kind(128, 2048),
        DefaultValue::Int(512),
        TrustRule::Lower,
        "Memory of a generated program in a box of its own, in MiB.",
    )
    .with_env(&[env_alias("SANDBOX_MEMORY_LIMIT_MB")]),
    SchemaKey::new(
        "sandbox.static_check",
        KeyKind::Choice(&[("warn", &[]), ("deny", &[]), ("off", &[])]),
        DefaultValue::Text("warn"),
        TrustRule::Towards(&["deny", "warn", "off"]),
        "What a look at a generated program before it is executed does: `warn` says what it found, `deny` refuses to \
         execute it. It is never the isolation.",
    ),
    SchemaKey::new(
        "sandbox.network_enabled",
        KeyKind::Bool,
        DefaultValue::Bool(false),
        TrustRule::Off,
        "Whether commands reach the host's network.",
    )
    .with_env(&[EnvAlias { name: "SANDBOX_NETWORK_DISABLED", reading: AliasReading::Negated }]),
    SchemaKey::new(
        "sandbox.allow_unisolated",
        KeyKind::Bool,
        DefaultValue::Bool(false),
        TrustRule::Off,
        "Whether the backend `process`, which isolates nothing, may be used.",
    ),
    SchemaKey::new(
        "sandbox.env_vars",
        KeyKind::List(ListElement::Variable),
        DefaultValue::Empty,
        TrustRule::Fewer,
        "Variables of your environment that commands see; keys of providers can't be named.",
    ),
    SchemaKey::new(
        "sandbox.read_only_paths",
        KeyKind::List(ListElement::Path),
        DefaultValue::Empty,
        TrustRule::Fewer,
        "Host folders that commands may read, for toolchains that do not lie under `/usr`.",
    ),
    SchemaKey::new(
        "sandbox.writable_paths",
        KeyKind::List(ListElement::Path),
        DefaultValue::Empty,
        TrustRule::Fewer,
        "Host folders beside the workspace that commands may change. Nothing there is kept, undone or applied.",
    ),
    SchemaKey::new(
        "sandbox.writable_cache_mounts",
        KeyKind::Bool,
        DefaultValue::Bool(true),
        TrustRule::Off,
        "Whether package managers get a writable `/cache` when a network is on.",
    ),
    SchemaKey::new(
        "egress.mode",
        KeyKind::Choice(&[("deny-all", &[]), ("allowlist", &[]), ("dev-open", &[])]),
        DefaultValue::Text("allowlist"),
        TrustRule::Towards(&["deny-all", "allowlist", "dev-open"]),
        "What a box reaches while `sandbox.network_enabled` is off: nothing, the hosts of `egress.allowed_domains`, or \
         everything.",
    ),
    SchemaKey::new(
        "egress.allowed_domains",
        KeyKind::List(ListElement::Name),
        DefaultValue::Empty,
        TrustRule::Fewer,
        "Hosts that a box may reach through a proxy: names, `*.suffix`, or addresses. Empty: none.",
    ),
    SchemaKey::new(
        "egress.keys",
        KeyKind::List(ListElement::Name),
        DefaultValue::Empty,
        TrustRule::Fewer,
        "Keys that the proxy puts into requests, as `host=VARIABLE`: the box sees a placeholder in that variable, only \
         requests to the host get your value.",
    ),
    SchemaKey::new(
        "workspace.mode",
        KeyKind::Choice(&[("transaction", &[]), ("branch", &["worktree"]), ("inplace", &[])]),
        DefaultValue::Text("transaction"),
        TrustRule::Towards(&["transaction", "branch", "inplace"]),
        "How a run works on its repository: in a private view whose result is applied (`transaction`) or becomes a \
         branch (`branch`), or directly (`inplace`).",
    ),
    SchemaKey::new(
        "workspace.apply",
        KeyKind::Choice(&[("auto", &[]), ("ask", &[]), ("never", &[])]),
        DefaultValue::Text("auto"),
        TrustRule::Towards(&["never", "ask", "auto"]),
        "When the result of a run that completed is applied: at once if nobody else changed the same files, after a \
         question, or only by `forge apply`.",
    ),
    SchemaKey::new(
        "workspace.snapshot_limit",
        bytes_kind(MIB, 64 * TIB),
        DefaultValue::Int(10 * GIB),
        TrustRule::Ask,
        "What the snapshots of all runs may use on the disk; `forge gc` and, once an hour, the end of a run remove the oldest beyond it.",
    ),
    SchemaKey::new(
        "workspace.snapshot_days",
        int_kind(1, 36_500),
        DefaultValue::Int(30),
        TrustRule::Ask,
        "Days after which the snapshots of a run that ended may be removed.",
    ),
    SchemaKey::new(
        "workspace.max_paths",
        int_kind(100, 100_000_000),
        DefaultValue::Int(1_000_000),
        TrustRule::Lower,
        "Files, directories and links that a repository or a workspace may hold.",
    ),
    SchemaKey::new(
        "workspace.max_changed_paths",
        int_kind(100, 100_000_000),
        DefaultValue::Int(100_000),
        TrustRule::Lower,
        "Paths at which a workspace may differ from the beginning of its run.",
    ),
    SchemaKey::new(
        "workspace.max_path_bytes",
        bytes_kind(MIB, 64 * GIB),
        DefaultValue::Int(32 * MIB),
        TrustRule::Lower,
        "What names and targets of links may take together: of a repository each name, of what differs each whole path.",
    ),
    SchemaKey::new(
        "workspace.max_depth",
        int_kind(16, 4096),
        DefaultValue::Int(256),
        TrustRule::Lower,
        "Directories within one another.",
    ),
    SchemaKey::new(
        "workspace.max_file_size",
        bytes_kind(MIB, 64 * TIB),
        DefaultValue::Int(64 * GIB),
        TrustRule::Lower,
        "Largest file that a snapshot, a copy or an apply reads; holes count as what they read as.",
    ),
    SchemaKey::new(
        "git.read_only",
        KeyKind::Bool,
        DefaultValue::Bool(false),
        TrustRule::Ask,
        "Whether the tools that commit, branch and open pull requests are left out.",
    ),
    SchemaKey::new(
        "git.token_env",
        KeyKind::Variable,
        DefaultValue::Text("GITHUB_TOKEN"),
        TrustRule::Ask,
        "Variable of your environment that holds the token for pull requests; it never enters a sandbox.",
    ),
    SchemaKey::new(
        "git.api_url",
        KeyKind::Url,
        DefaultValue::Unset,
        TrustRule::Ask,
        "API of the server that pull requests go to; unset: GitHub's.",
    ),
    SchemaKey::new(
        "workspace.reveal",
        KeyKind::List(ListElement::Inside),
        DefaultValue::Empty,
        TrustRule::Fewer,
        "Paths in the repository that tools may see although they look like credentials.",
    ),
    SchemaKey::new(
        "runtime.max_pipeline_duration_ms",
        millis_kind(1, MONTH_MS),
        DefaultValue::Int(600_000),
        TrustRule::Lower,
        "Wall clock of one run, without the time in which it waits for a person.",
    ),
    SchemaKey::new(
        "runtime.max_shell_commands",
        int_kind(0, 1_000_000),
        DefaultValue::Int(50),
        TrustRule::Lower,
        "Commands of one run.",
    ),
    SchemaKey::new(
        "runtime.allowed_shell_commands",
        KeyKind::List(ListElement::Name),
        DefaultValue::Empty,
        TrustRule::FewerOfAll,
        "Programs that commands of a model may execute, held by the sandbox; empty: any, inside the sandbox.",
    ),
    SchemaKey::new(
        "cost.alert_at",
        number_kind(0.0, 1.0),
        DefaultValue::Number(0.8),
        TrustRule::Lower,
        "Share of a budget at which an alert is shown.",
    ),
    SchemaKey::new(
        "cost.allow_unknown",
        KeyKind::Bool,
        DefaultValue::Bool(false),
        TrustRule::Off,
        "Whether a model of unknown price may be used although you set a cost ceiling.",
    ),
    SchemaKey::new(
        "cost.max_per_day_usd",
        number_kind(MIN_USD, 1_000_000.0),
        DefaultValue::Unset,
        TrustRule::Lower,
        "What all runs of one day together may cost in US dollars; unset: no ceiling.",
    ),
    SchemaKey::new(
        "store.durable",
        KeyKind::Bool,
        DefaultValue::Bool(true),
        TrustRule::Ask,
        "Whether runs are kept. `false` keeps the journal in memory for as long as the command runs: nothing can be \
         resumed, listed or followed afterwards.",
    )
    .with_env(&[EnvAlias { name: "FORGE_NO_DURABLE", reading: AliasReading::Negated }]),
    SchemaKey::new(
        "secrets.providers",
        KeyKind::List(ListElement::Name),
        DefaultValue::Empty,
        TrustRule::Ask,
        "Where keys are looked up, first one first: `encrypted-file` (`forge secret`: the project's store, then yours) \
         and `env`. Empty: both, in this order.",
    ),
    SchemaKey::new(
        "login.authorize_url",
        KeyKind::Url,
        DefaultValue::Unset,
        TrustRule::Ask,
        "Where `forge login` sends the browser; unset: the provider's own address.",
    ),
    SchemaKey::new(
        "login.token_url",
        KeyKind::Url,
        DefaultValue::Unset,
        TrustRule::Ask,
        "Where a login's code becomes a token; unset: the provider's own address.",
    ),
    SchemaKey::new(
        "login.client_id",
        ONE_LINE,
        DefaultValue::Unset,
        TrustRule::Ask,
        "The program that the provider logs you in for; unset: the public client of the provider's own tools.",
    ),
    SchemaKey::new(
        "login.port",
        int_kind(0, 65_535),
        DefaultValue::Int(1455),
        TrustRule::Ask,
        "Port on this machine that the browser comes back to; OpenAI takes no other one. 0: any free one.",
    ),
    SchemaKey::new(
        "login.timeout_seconds",
        seconds_kind(1, 300),
        DefaultValue::Int(30),
        TrustRule::Ask,
        "Longest time for an answer of the provider to a login or a renewal.",
    ),
    SchemaKey::new(
        "logging.level",
        KeyKind::LogFilter,
        DefaultValue::Text("info"),
        TrustRule::Ask,
        "Level of the log on stderr, or a filter such as `warn,forge_models=debug`.",
    )
    .with_env(&[foreign_alias("RUST_LOG"), foreign_alias("LOG_LEVEL")]),
    SchemaKey::new(
        "logging.format",
        KeyKind::Choice(&[("text", &[]), ("json", &[])]),
        DefaultValue::Text("text"),
        TrustRule::Ask,
        "Form of the log's lines.",
    )
    .with_env(&[foreign_alias("LOG_FORMAT")]),
    SchemaKey::new(
        "logging.file",
        KeyKind::Path,
        DefaultValue::Unset,
        TrustRule::Ask,
        "File that gets the log instead of stderr.",
    ),
];
