//! The table of keys.

use super::{AliasReading, DefaultValue, EnvAlias, KeyKind, ListElement, SchemaKey, TextLines, TrustRule};

use super::rows::{
    ONE_LINE, api_key_schema, base_url_schema, bytes_kind, default_model_schema, env_alias, foreign_alias,
    int_kind, millis_kind, number_kind, seconds_kind,
};

const MIB: u64 = 1 << 20;
/// Smallest limit in dollars: a limit of zero is a mistake.
const MIN_USD: f64 = 0.000_001;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;
const MONTH_MS: u64 = 30 * 24 * 3_600_000;

/// Names of providers with their alternative spellings.
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

/// Keys of most sections, in the order of the documentation.
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
        "Largest number of model turns in a run.",
    )
    .with_env(&[env_alias("AGENT_MAX_ITERATIONS")]),
    SchemaKey::new(
        "agent.max_tokens_per_run",
        int_kind(1, 1_000_000_000),
        DefaultValue::Int(200_000),
        TrustRule::Lower,
        "Largest number of tokens in a run: replies plus prompts, without cached input.",
    ),
    SchemaKey::new(
        "agent.max_cost_usd",
        number_kind(MIN_USD, 1_000_000.0),
        DefaultValue::Number(1.0),
        TrustRule::Lower,
        "Largest cost of a run's model calls in US dollars. Once it is set, models of unknown price are refused (see \
         `cost.allow_unknown`).",
    ),
    SchemaKey::new(
        "agent.max_tool_calls_per_turn",
        int_kind(1, 128),
        DefaultValue::Int(10),
        TrustRule::Lower,
        "Largest number of tool calls accepted from one reply; further calls are refused.",
    ),
    SchemaKey::new(
        "agent.on_limit",
        KeyKind::Choice(&[("end", &[]), ("wait", &[])]),
        DefaultValue::Text("end"),
        TrustRule::Towards(&["end", "wait"]),
        "Action when a limit is reached: `end` ends the run as timed out, `wait` pauses it until the limit is raised.",
    ),
    SchemaKey::new(
        "agent.temperature",
        number_kind(0.0, 2.0),
        DefaultValue::Number(0.0),
        TrustRule::Ask,
        "Sampling temperature if `model.temperature` is not set.",
    ),
    SchemaKey::new(
        "agent.system_prompt",
        KeyKind::Text(TextLines::Multiple),
        DefaultValue::Unset,
        TrustRule::Ask,
        "Text appended to the built-in system prompt.",
    ),
    SchemaKey::new(
        "model.provider",
        PROVIDER_KIND,
        DefaultValue::Unset,
        TrustRule::Ask,
        "Provider of the model. Unset: the first of openai, anthropic, gemini and openrouter with an API key, else a \
         running local ollama or llama.cpp server.",
    )
    .with_env(&[env_alias("FORGE_PROVIDER")])
    .with_paths(&["agent.default_provider"]),
    SchemaKey::new(
        "model.name",
        ONE_LINE,
        DefaultValue::Unset,
        TrustRule::Ask,
        "Name of the model, as the provider spells it. Unset: the provider's `default_model`.",
    )
    .with_env(&[foreign_alias("LLM_MODEL"), foreign_alias("MODEL_NAME"), foreign_alias("AGENT_MODEL")])
    .with_paths(&["agent.default_model"]),
    SchemaKey::new(
        "model.base_url",
        KeyKind::Url,
        DefaultValue::Unset,
        TrustRule::Ask,
        "Address of the chosen provider's server; overrides `providers.<p>.base_url`. Without a provider, it selects \
         `custom`.",
    ),
    SchemaKey::new(
        "model.max_tokens",
        int_kind(1, 1_000_000),
        DefaultValue::Int(4096),
        TrustRule::Lower,
        "Maximum length of a reply in tokens.",
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
        "Nucleus sampling threshold. Unset: not sent.",
    ),
    SchemaKey::new(
        "model.timeout_seconds",
        seconds_kind(1, 3600),
        DefaultValue::Int(120),
        TrustRule::Ask,
        "Longest time that the server may send nothing, before the first byte and between two bytes.",
    ),
    SchemaKey::new("model.organization_id", ONE_LINE, DefaultValue::Unset, TrustRule::Ask, "Organization that OpenAI bills.")
        .with_env(&[env_alias("OPENAI_ORG_ID")]),
    SchemaKey::new(
        "model.retry_base_ms",
        millis_kind(1, 30_000),
        DefaultValue::Int(2000),
        TrustRule::Ask,
        "First delay before a failed model call is retried; it doubles with each retry, up to 30 s.",
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
        "Tools that the model may call. Empty: all built-in tools (`forge tool list`).",
    )
    .with_env(&[foreign_alias("ENABLED_TOOLS")]),
    SchemaKey::new(
        "tools.create_pr.repositories",
        KeyKind::List(ListElement::Repository),
        DefaultValue::Empty,
        TrustRule::Ask,
        "Repositories, each as `owner/name`, that pull requests may target or come from, in addition to the remote \
         `origin`; list a fork here to open pull requests from it.",
    ),
    SchemaKey::new(
        "sandbox.backend",
        KeyKind::Choice(&[("auto", &[]), ("native", &["bwrap"]), ("docker", &[]), ("podman", &[]), ("process", &[])]),
        DefaultValue::Text("auto"),
        TrustRule::Ask,
        "Backend that isolates commands: `auto` selects native if this machine supports it, else docker, else podman; \
         `process` provides no isolation and requires `sandbox.allow_unisolated`.",
    ),
    SchemaKey::new(
        "sandbox.image",
        ONE_LINE,
        DefaultValue::Unset,
        TrustRule::Ask,
        "Image that provides the root directory (`forge sandbox build`). Unset: the host's system directories for \
         native, `forge-sandbox:latest` for docker and podman.",
    )
    .with_env(&[env_alias("SANDBOX_IMAGE")]),
    SchemaKey::new(
        "sandbox.docker_host",
        ONE_LINE,
        DefaultValue::Unset,
        TrustRule::Ask,
        "Socket of the container engine. Unset: the usual locations.",
    )
    .with_env(&[foreign_alias("DOCKER_HOST")]),
    SchemaKey::new(
        "sandbox.cpu_limit",
        number_kind(0.05, 1024.0),
        DefaultValue::Unset,
        TrustRule::Lower,
        "Number of processor cores. Unset: all.",
    )
    .with_env(&[env_alias("SANDBOX_CPU_LIMIT")]),
    SchemaKey::new(
        "sandbox.memory_limit",
        bytes_kind(64 * MIB, 64 * TIB),
        DefaultValue::Int(2 * GIB),
        TrustRule::Lower,
        "Total memory of all processes of a run.",
    ),
    SchemaKey::new(
        "sandbox.pids",
        int_kind(16, 1_000_000),
        DefaultValue::Int(1024),
        TrustRule::Lower,
        "Largest number of processes and threads at a time.",
    ),
    SchemaKey::new(
        "sandbox.timeout_seconds",
        seconds_kind(1, 86_400),
        DefaultValue::Int(300),
        TrustRule::Lower,
        "Longest time that a command may request.",
    ),
    SchemaKey::new(
        "sandbox.command_timeout_seconds",
        seconds_kind(1, 600),
        DefaultValue::Int(120),
        TrustRule::Lower,
        "Time for a command that requests none.",
    ),
    SchemaKey::new("sandbox.tmp_size", bytes_kind(MIB, 64 * TIB), DefaultValue::Int(GIB), TrustRule::Lower, "Size of `/tmp`."),
    SchemaKey::new(
        "sandbox.exec_timeout_seconds",
        seconds_kind(5, 120),
        DefaultValue::Int(30),
        TrustRule::Lower,
        "Time for a generated program, which runs in a separate sandbox (`forge sandbox exec --code`).",
    )
    .with_env(&[env_alias("SANDBOX_TIMEOUT_SECONDS")]),
    SchemaKey::new(
        "sandbox.exec_memory_mb",
        int_kind(128, 2048),
        DefaultValue::Int(512),
        TrustRule::Lower,
        "Memory for a generated program in MiB.",
    )
    .with_env(&[env_alias("SANDBOX_MEMORY_LIMIT_MB")]),
    SchemaKey::new(
        "sandbox.static_check",
        KeyKind::Choice(&[("warn", &[]), ("deny", &[]), ("off", &[])]),
        DefaultValue::Text("warn"),
        TrustRule::Towards(&["deny", "warn", "off"]),
        "Effect of the static check of a generated program: `warn` reports findings, `deny` refuses to execute the \
         program. The check does not replace isolation.",
    ),
    SchemaKey::new(
        "sandbox.network_enabled",
        KeyKind::Bool,
        DefaultValue::Bool(false),
        TrustRule::Off,
        "Whether commands can use the host's network.",
    )
    .with_env(&[EnvAlias { name: "SANDBOX_NETWORK_DISABLED", reading: AliasReading::Negated }]),
    SchemaKey::new(
        "sandbox.allow_unisolated",
        KeyKind::Bool,
        DefaultValue::Bool(false),
        TrustRule::Off,
        "Whether the backend `process`, which provides no isolation, is permitted.",
    ),
    SchemaKey::new(
        "sandbox.env_vars",
        KeyKind::List(ListElement::Variable),
        DefaultValue::Empty,
        TrustRule::Fewer,
        "Variables of your environment that are passed to commands, except for API keys of providers.",
    ),
    SchemaKey::new(
        "sandbox.read_only_paths",
        KeyKind::List(ListElement::Path),
        DefaultValue::Empty,
        TrustRule::Fewer,
        "Host directories that commands may read, for toolchains outside `/usr`.",
    ),
    SchemaKey::new(
        "sandbox.writable_paths",
        KeyKind::List(ListElement::Path),
        DefaultValue::Empty,
        TrustRule::Fewer,
        "Host directories that commands may change in addition to the workspace. Changes in them are not included in \
         snapshots, undo or apply.",
    ),
    SchemaKey::new(
        "sandbox.writable_cache_mounts",
        KeyKind::Bool,
        DefaultValue::Bool(true),
        TrustRule::Off,
        "Whether package managers get a writable `/cache` while a network is available.",
    ),
    SchemaKey::new(
        "egress.mode",
        KeyKind::Choice(&[("deny-all", &[]), ("allowlist", &[]), ("dev-open", &[])]),
        DefaultValue::Text("allowlist"),
        TrustRule::Towards(&["deny-all", "allowlist", "dev-open"]),
        "Hosts that a sandbox can connect to while `sandbox.network_enabled` is off: none, those in \
         `egress.allowed_domains`, or all.",
    ),
    SchemaKey::new(
        "egress.allowed_domains",
        KeyKind::List(ListElement::Name),
        DefaultValue::Empty,
        TrustRule::Fewer,
        "Hosts that a sandbox can connect to through the proxy: names, `*.suffix`, or addresses. Empty: none.",
    ),
    SchemaKey::new(
        "egress.keys",
        KeyKind::List(ListElement::Name),
        DefaultValue::Empty,
        TrustRule::Fewer,
        "API keys that the proxy adds to requests, as `host=VARIABLE`: the sandbox has a placeholder in that variable, \
         and only requests to the host carry your value.",
    ),
    SchemaKey::new(
        "workspace.mode",
        KeyKind::Choice(&[("transaction", &[]), ("branch", &["worktree"]), ("inplace", &[])]),
        DefaultValue::Text("transaction"),
        TrustRule::Towards(&["transaction", "branch", "inplace"]),
        "Workspace of a run: a private one with a result that is applied (`transaction`) or becomes a branch \
         (`branch`), or the repository itself (`inplace`).",
    ),
    SchemaKey::new(
        "workspace.apply",
        KeyKind::Choice(&[("auto", &[]), ("ask", &[]), ("never", &[])]),
        DefaultValue::Text("auto"),
        TrustRule::Towards(&["never", "ask", "auto"]),
        "Policy for applying the result of a completed run: at once unless the same files have changed in the \
         repository, after a prompt, or only with `forge apply`.",
    ),
    SchemaKey::new(
        "workspace.snapshot_limit",
        bytes_kind(MIB, 64 * TIB),
        DefaultValue::Int(10 * GIB),
        TrustRule::Ask,
        "Disk space for the snapshots of all runs. The oldest ones beyond it are removed by `forge gc` and, at most \
         once an hour, at the end of a run.",
    ),
    SchemaKey::new(
        "workspace.snapshot_days",
        int_kind(1, 36_500),
        DefaultValue::Int(30),
        TrustRule::Ask,
        "Days after which the snapshots of a finished run may be removed.",
    ),
    SchemaKey::new(
        "workspace.max_paths",
        int_kind(100, 100_000_000),
        DefaultValue::Int(1_000_000),
        TrustRule::Lower,
        "Largest number of files, directories and links in a repository or workspace.",
    ),
    SchemaKey::new(
        "workspace.max_changed_paths",
        int_kind(100, 100_000_000),
        DefaultValue::Int(100_000),
        TrustRule::Lower,
        "Largest number of paths in which a workspace may differ from its baseline.",
    ),
    SchemaKey::new(
        "workspace.max_path_bytes",
        bytes_kind(MIB, 64 * GIB),
        DefaultValue::Int(32 * MIB),
        TrustRule::Lower,
        "Largest total length of names and link targets: names for the files of a repository, whole paths for \
         differences.",
    ),
    SchemaKey::new(
        "workspace.max_depth",
        int_kind(16, 4096),
        DefaultValue::Int(256),
        TrustRule::Lower,
        "Deepest nesting of directories.",
    ),
    SchemaKey::new(
        "workspace.max_file_size",
        bytes_kind(MIB, 64 * TIB),
        DefaultValue::Int(64 * GIB),
        TrustRule::Lower,
        "Largest file that a snapshot, a copy or an apply reads. Holes in sparse files count in full.",
    ),
    SchemaKey::new(
        "git.read_only",
        KeyKind::Bool,
        DefaultValue::Bool(false),
        TrustRule::Ask,
        "Whether the tools that commit, branch and open pull requests are excluded.",
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
        "API address of the server that receives pull requests. Unset: GitHub's.",
    ),
    SchemaKey::new(
        "workspace.reveal",
        KeyKind::List(ListElement::Inside),
        DefaultValue::Empty,
        TrustRule::Fewer,
        "Paths in the repository that tools may read although they look like credentials.",
    ),
    SchemaKey::new(
        "runtime.max_pipeline_duration_ms",
        millis_kind(1, MONTH_MS),
        DefaultValue::Int(600_000),
        TrustRule::Lower,
        "Longest elapsed time of a run, not counting the time spent waiting for a person.",
    ),
    SchemaKey::new(
        "runtime.max_shell_commands",
        int_kind(0, 1_000_000),
        DefaultValue::Int(50),
        TrustRule::Lower,
        "Largest number of commands in a run.",
    ),
    SchemaKey::new(
        "runtime.allowed_shell_commands",
        KeyKind::List(ListElement::Name),
        DefaultValue::Empty,
        TrustRule::FewerOfAll,
        "Programs that the model's commands may execute, enforced by the sandbox. Empty: any program in the sandbox.",
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
        "Whether a model of unknown price may be used although a cost limit is set.",
    ),
    SchemaKey::new(
        "cost.max_per_day_usd",
        number_kind(MIN_USD, 1_000_000.0),
        DefaultValue::Unset,
        TrustRule::Lower,
        "Largest total cost of all runs of a day in US dollars. Unset: no limit.",
    ),
    SchemaKey::new(
        "store.durable",
        KeyKind::Bool,
        DefaultValue::Bool(true),
        TrustRule::Ask,
        "Whether runs are stored. With `false`, the journal exists only in memory while the command runs, so that runs \
         can't be resumed, listed or followed afterwards.",
    )
    .with_env(&[EnvAlias { name: "FORGE_NO_DURABLE", reading: AliasReading::Negated }]),
    SchemaKey::new(
        "secrets.providers",
        KeyKind::List(ListElement::Name),
        DefaultValue::Empty,
        TrustRule::Ask,
        "Sources of API keys in lookup order: `encrypted-file` (`forge secret`: the project's store, then yours) and \
         `env`. Empty: both, in this order.",
    ),
    SchemaKey::new(
        "login.authorize_url",
        KeyKind::Url,
        DefaultValue::Unset,
        TrustRule::Ask,
        "Address that `forge login` opens in the browser. Unset: the provider's own.",
    ),
    SchemaKey::new(
        "login.token_url",
        KeyKind::Url,
        DefaultValue::Unset,
        TrustRule::Ask,
        "Address of the token endpoint. Unset: the provider's own.",
    ),
    SchemaKey::new(
        "login.client_id",
        ONE_LINE,
        DefaultValue::Unset,
        TrustRule::Ask,
        "OAuth client ID. Unset: the public client of the provider's own tools.",
    ),
    SchemaKey::new(
        "login.port",
        int_kind(0, 65_535),
        DefaultValue::Int(1455),
        TrustRule::Ask,
        "Local port for the browser's callback. OpenAI accepts only the default. 0: any free port.",
    ),
    SchemaKey::new(
        "login.timeout_seconds",
        seconds_kind(1, 300),
        DefaultValue::Int(30),
        TrustRule::Ask,
        "Longest time to wait for the provider's response to a login or a renewal.",
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
        "Format of log lines.",
    )
    .with_env(&[foreign_alias("LOG_FORMAT")]),
    SchemaKey::new(
        "logging.file",
        KeyKind::Path,
        DefaultValue::Unset,
        TrustRule::Ask,
        "File that receives the log instead of stderr.",
    ),
];
