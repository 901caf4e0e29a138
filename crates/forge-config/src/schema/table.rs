//! The table of keys itself.

use super::{Alias, Bound, Element, Key, Kind, Lines, Preset, Reading, Trust, Unit};

pub(super) const fn alias(name: &'static str) -> Alias {
    Alias { name, reading: Reading::Plain }
}

pub(super) const fn foreign(name: &'static str) -> Alias {
    Alias { name, reading: Reading::Foreign }
}

pub(super) const fn int(min: u64, max: u64) -> Kind {
    Kind::Int(Bound { min, max })
}

const fn bytes(min: u64, max: u64) -> Kind {
    Kind::Bytes(Bound { min, max })
}

pub(super) const fn seconds(min: u64, max: u64) -> Kind {
    Kind::Time(Unit::Seconds, Bound { min, max })
}

const fn millis(min: u64, max: u64) -> Kind {
    Kind::Time(Unit::Millis, Bound { min, max })
}

pub(super) const fn number(min: f64, max: f64) -> Kind {
    Kind::Number(Bound { min, max })
}

pub(super) const ONE_LINE: Kind = Kind::Text(Lines::One);
const MIB: u64 = 1 << 20;
/// The least ceiling in dollars: nothing at all is no ceiling but a mistake.
const LEAST_USD: f64 = 0.000_001;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;
const MONTH_MS: u64 = 30 * 24 * 3_600_000;

/// Names of providers, and other spellings of them.
const PROVIDERS: Kind = Kind::Choice(&[
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
pub(super) const KEYS: &[Key] = &[
    Key::new("name", ONE_LINE, Preset::Unset, Trust::Free, "Name of the project, shown by `forge status`."),
    Key::new(
        "language",
        Kind::Choice(&[("rust", &[]), ("python", &[]), ("node", &["javascript", "typescript"])]),
        Preset::Unset,
        Trust::Free,
        "Main language of the project, shown by `forge status`.",
    ),
    Key::new(
        "agent.max_iterations",
        int(1, 10_000),
        Preset::Int(25),
        Trust::Lower,
        "Model turns of one run.",
    )
    .env(&[alias("AGENT_MAX_ITERATIONS")]),
    Key::new(
        "agent.max_tokens_per_run",
        int(1, 1_000_000_000),
        Preset::Int(200_000),
        Trust::Lower,
        "Tokens of one run: replies plus prompts without what the provider had cached.",
    ),
    Key::new(
        "agent.max_cost_usd",
        number(LEAST_USD, 1_000_000.0),
        Preset::Number(1.0),
        Trust::Lower,
        "What the model calls of one run may cost in US dollars. Once you set it, models of unknown price are \
         refused (see `cost.allow_unknown`).",
    ),
    Key::new(
        "agent.max_tool_calls_per_turn",
        int(1, 128),
        Preset::Int(10),
        Trust::Lower,
        "Tool calls taken from one reply; the rest are refused.",
    ),
    Key::new(
        "agent.on_limit",
        Kind::Choice(&[("end", &[]), ("wait", &[])]),
        Preset::Text("end"),
        Trust::Towards(&["end", "wait"]),
        "What reaching a limit does: `end` the run as timed out, or `wait` until the limit is raised.",
    ),
    Key::new(
        "agent.temperature",
        number(0.0, 2.0),
        Preset::Number(0.0),
        Trust::Ask,
        "Sampling temperature where `model.temperature` is not set.",
    ),
    Key::new(
        "agent.system_prompt",
        Kind::Text(Lines::Many),
        Preset::Unset,
        Trust::Ask,
        "Text added to the built-in system prompt.",
    ),
    Key::new(
        "model.provider",
        PROVIDERS,
        Preset::Unset,
        Trust::Ask,
        "Whom to ask. Unset: the first of openai, anthropic, gemini, openrouter that has a key, then a local \
         ollama or llama.cpp server that answers.",
    )
    .env(&[alias("FORGE_PROVIDER")])
    .also(&["agent.default_provider"]),
    Key::new(
        "model.name",
        ONE_LINE,
        Preset::Unset,
        Trust::Ask,
        "Model, as its provider writes it. Unset: the provider's `default_model`.",
    )
    .env(&[foreign("LLM_MODEL"), foreign("MODEL_NAME"), foreign("AGENT_MODEL")])
    .also(&["agent.default_model"]),
    Key::new(
        "model.base_url",
        Kind::Url,
        Preset::Unset,
        Trust::Ask,
        "Server of the chosen provider; wins over `providers.<p>.base_url`. Without a provider it means `custom`.",
    ),
    Key::new(
        "model.max_tokens",
        int(1, 1_000_000),
        Preset::Int(4096),
        Trust::Lower,
        "Longest reply in tokens.",
    ),
    Key::new(
        "model.temperature",
        number(0.0, 2.0),
        Preset::Unset,
        Trust::Ask,
        "Sampling temperature. Unset: `agent.temperature`.",
    ),
    Key::new(
        "model.top_p",
        number(0.0, 1.0),
        Preset::Unset,
        Trust::Ask,
        "Nucleus sampling. Unset: not sent.",
    ),
    Key::new(
        "model.timeout_seconds",
        seconds(1, 3600),
        Preset::Int(120),
        Trust::Ask,
        "Longest silence of the server: until the first byte, then between two bytes.",
    ),
    Key::new("model.organization_id", ONE_LINE, Preset::Unset, Trust::Ask, "Organization that OpenAI bills.")
        .env(&[alias("OPENAI_ORG_ID")]),
    Key::new(
        "model.retry_base_ms",
        millis(1, 30_000),
        Preset::Int(2000),
        Trust::Ask,
        "First delay before a failed model call is tried again; doubles each time, up to 30 s.",
    ),
    api_key("providers.openai.api_key_env", Preset::Text("OPENAI_API_KEY")),
    default_model("providers.openai.default_model", Preset::Text("gpt-5.2-2025-12-11")),
    base_url("providers.openai.base_url").env(&[alias("OPENAI_BASE_URL")]),
    api_key("providers.anthropic.api_key_env", Preset::Text("ANTHROPIC_API_KEY")),
    default_model("providers.anthropic.default_model", Preset::Text("claude-sonnet-4-20250514")),
    base_url("providers.anthropic.base_url").env(&[alias("ANTHROPIC_BASE_URL")]),
    api_key("providers.gemini.api_key_env", Preset::Text("GEMINI_API_KEY")),
    default_model("providers.gemini.default_model", Preset::Text("gemini-2.5-flash")),
    base_url("providers.gemini.base_url").env(&[alias("GEMINI_BASE_URL"), alias("GOOGLE_GEMINI_BASE_URL")]),
    api_key("providers.openrouter.api_key_env", Preset::Text("OPENROUTER_API_KEY")),
    default_model("providers.openrouter.default_model", Preset::Text("openai/gpt-4o-mini")),
    base_url("providers.openrouter.base_url").env(&[alias("OPENROUTER_URL")]),
    api_key("providers.ollama.api_key_env", Preset::Unset),
    default_model("providers.ollama.default_model", Preset::Text("llama3")),
    base_url("providers.ollama.base_url").env(&[alias("OLLAMA_BASE_URL"), alias("OLLAMA_URL")]),
    api_key("providers.llama_cpp.api_key_env", Preset::Unset),
    default_model("providers.llama_cpp.default_model", Preset::Text("default")),
    base_url("providers.llama_cpp.base_url").env(&[alias("LLAMA_CPP_URL")]),
    api_key("providers.custom.api_key_env", Preset::Unset),
    default_model("providers.custom.default_model", Preset::Unset),
    base_url("providers.custom.base_url"),
    Key::new(
        "providers.scripted.script",
        Kind::Path,
        Preset::Unset,
        Trust::Ask,
        "File with the replies of the scripted provider.",
    ),
    Key::new(
        "tools.enabled",
        Kind::List(Element::Name),
        Preset::Empty,
        Trust::FewerOfAll,
        "Tools that the model may call; empty: all built-in ones (`forge tool list`).",
    )
    .env(&[foreign("ENABLED_TOOLS")]),
    Key::new(
        "tools.create_pr.repositories",
        Kind::List(Element::Repository),
        Preset::Empty,
        Trust::Ask,
        "Repositories that pull requests may go to and come from beside the remote `origin`, each as `owner/name`; name a \
         fork here to open pull requests from it.",
    ),
    Key::new(
        "sandbox.backend",
        Kind::Choice(&[("auto", &[]), ("native", &["bwrap"]), ("docker", &[]), ("podman", &[]), ("process", &[])]),
        Preset::Text("auto"),
        Trust::Ask,
        "How commands are isolated: `auto` takes native where this machine can, else docker, else podman; `process` \
         isolates nothing and needs `sandbox.allow_unisolated`.",
    ),
    Key::new(
        "sandbox.image",
        ONE_LINE,
        Preset::Unset,
        Trust::Ask,
        "Image that gives the root folder (`forge sandbox build`); unset: the host's system folders for native, \
         `forge-sandbox:latest` for docker and podman.",
    )
    .env(&[alias("SANDBOX_IMAGE")]),
    Key::new(
        "sandbox.docker_host",
        ONE_LINE,
        Preset::Unset,
        Trust::Ask,
        "Socket of the container engine; unset: the usual places.",
    )
    .env(&[foreign("DOCKER_HOST")]),
    Key::new(
        "sandbox.cpu_limit",
        number(0.05, 1024.0),
        Preset::Unset,
        Trust::Lower,
        "Processor cores; unset: all.",
    )
    .env(&[alias("SANDBOX_CPU_LIMIT")]),
    Key::new(
        "sandbox.memory_limit",
        bytes(64 * MIB, 64 * TIB),
        Preset::Int(2 * GIB),
        Trust::Lower,
        "Memory of all processes of a run together.",
    ),
    Key::new(
        "sandbox.pids",
        int(16, 1_000_000),
        Preset::Int(1024),
        Trust::Lower,
        "Processes and threads at once.",
    ),
    Key::new(
        "sandbox.timeout_seconds",
        seconds(1, 86_400),
        Preset::Int(300),
        Trust::Lower,
        "Longest time that any command may ask for.",
    ),
    Key::new(
        "sandbox.command_timeout_seconds",
        seconds(1, 600),
        Preset::Int(120),
        Trust::Lower,
        "Time of a command that asks for none.",
    ),
    Key::new("sandbox.tmp_size", bytes(MIB, 64 * TIB), Preset::Int(GIB), Trust::Lower, "Size of `/tmp`."),
    Key::new(
        "sandbox.exec_timeout_seconds",
        seconds(5, 120),
        Preset::Int(30),
        Trust::Lower,
        "Time of a generated program in a box of its own (`forge sandbox exec --code`).",
    )
    .env(&[alias("SANDBOX_TIMEOUT_SECONDS")]),
    Key::new(
        "sandbox.exec_memory_mb",
        int(128, 2048),
        Preset::Int(512),
        Trust::Lower,
        "Memory of a generated program in a box of its own, in MiB.",
    )
    .env(&[alias("SANDBOX_MEMORY_LIMIT_MB")]),
    Key::new(
        "sandbox.static_check",
        Kind::Choice(&[("warn", &[]), ("deny", &[]), ("off", &[])]),
        Preset::Text("warn"),
        Trust::Towards(&["deny", "warn", "off"]),
        "What a look at a generated program before it is executed does: `warn` says what it found, `deny` refuses to \
         execute it. It is never the isolation.",
    ),
    Key::new(
        "sandbox.network_enabled",
        Kind::Bool,
        Preset::Bool(false),
        Trust::Off,
        "Whether commands reach the host's network.",
    )
    .env(&[Alias { name: "SANDBOX_NETWORK_DISABLED", reading: Reading::Negated }]),
    Key::new(
        "sandbox.allow_unisolated",
        Kind::Bool,
        Preset::Bool(false),
        Trust::Off,
        "Whether the backend `process`, which isolates nothing, may be used.",
    ),
    Key::new(
        "sandbox.env_vars",
        Kind::List(Element::Variable),
        Preset::Empty,
        Trust::Fewer,
        "Variables of your environment that commands see; keys of providers can't be named.",
    ),
    Key::new(
        "sandbox.read_only_paths",
        Kind::List(Element::Path),
        Preset::Empty,
        Trust::Fewer,
        "Host folders that commands may read, for toolchains that do not lie under `/usr`.",
    ),
    Key::new(
        "sandbox.writable_paths",
        Kind::List(Element::Path),
        Preset::Empty,
        Trust::Fewer,
        "Host folders beside the workspace that commands may change. Nothing there is kept, undone or applied.",
    ),
    Key::new(
        "sandbox.writable_cache_mounts",
        Kind::Bool,
        Preset::Bool(true),
        Trust::Off,
        "Whether package managers get a writable `/cache` when a network is on.",
    ),
    Key::new(
        "egress.mode",
        Kind::Choice(&[("deny-all", &[]), ("allowlist", &[]), ("dev-open", &[])]),
        Preset::Text("allowlist"),
        Trust::Towards(&["deny-all", "allowlist", "dev-open"]),
        "What a box reaches while `sandbox.network_enabled` is off: nothing, the hosts of `egress.allowed_domains`, or \
         everything.",
    ),
    Key::new(
        "egress.allowed_domains",
        Kind::List(Element::Name),
        Preset::Empty,
        Trust::Fewer,
        "Hosts that a box may reach through a proxy: names, `*.suffix`, or addresses. Empty: none.",
    ),
    Key::new(
        "egress.keys",
        Kind::List(Element::Name),
        Preset::Empty,
        Trust::Fewer,
        "Keys that the proxy puts into requests, as `host=VARIABLE`: the box sees a placeholder in that variable, only \
         requests to the host get your value.",
    ),
    Key::new(
        "workspace.mode",
        Kind::Choice(&[("transaction", &[]), ("branch", &["worktree"]), ("inplace", &[])]),
        Preset::Text("transaction"),
        Trust::Towards(&["transaction", "branch", "inplace"]),
        "How a run works on its repository: in a private view whose result is applied (`transaction`) or becomes a \
         branch (`branch`), or directly (`inplace`).",
    ),
    Key::new(
        "workspace.apply",
        Kind::Choice(&[("auto", &[]), ("ask", &[]), ("never", &[])]),
        Preset::Text("auto"),
        Trust::Towards(&["never", "ask", "auto"]),
        "When the result of a run that completed is applied: at once if nobody else changed the same files, after a \
         question, or only by `forge apply`.",
    ),
    Key::new(
        "workspace.snapshot_limit",
        bytes(MIB, 64 * TIB),
        Preset::Int(10 * GIB),
        Trust::Ask,
        "What the snapshots of all runs may use on the disk; `forge gc` and, once an hour, the end of a run remove the oldest beyond it.",
    ),
    Key::new(
        "workspace.snapshot_days",
        int(1, 36_500),
        Preset::Int(30),
        Trust::Ask,
        "Days after which the snapshots of a run that ended may be removed.",
    ),
    Key::new(
        "workspace.max_paths",
        int(100, 100_000_000),
        Preset::Int(1_000_000),
        Trust::Lower,
        "Files, directories and links that a repository or a workspace may hold.",
    ),
    Key::new(
        "workspace.max_changed_paths",
        int(100, 100_000_000),
        Preset::Int(100_000),
        Trust::Lower,
        "Paths at which a workspace may differ from the beginning of its run.",
    ),
    Key::new(
        "workspace.max_path_bytes",
        bytes(MIB, 64 * GIB),
        Preset::Int(32 * MIB),
        Trust::Lower,
        "What names and targets of links may take together: of a repository each name, of what differs each whole path.",
    ),
    Key::new(
        "workspace.max_depth",
        int(16, 4096),
        Preset::Int(256),
        Trust::Lower,
        "Directories within one another.",
    ),
    Key::new(
        "workspace.max_file_size",
        bytes(MIB, 64 * TIB),
        Preset::Int(64 * GIB),
        Trust::Lower,
        "Largest file that a snapshot, a copy or an apply reads; holes count as what they read as.",
    ),
    Key::new(
        "git.read_only",
        Kind::Bool,
        Preset::Bool(false),
        Trust::Ask,
        "Whether the tools that commit, branch and open pull requests are left out.",
    ),
    Key::new(
        "git.token_env",
        Kind::Variable,
        Preset::Text("GITHUB_TOKEN"),
        Trust::Ask,
        "Variable of your environment that holds the token for pull requests; it never enters a sandbox.",
    ),
    Key::new(
        "git.api_url",
        Kind::Url,
        Preset::Unset,
        Trust::Ask,
        "API of the server that pull requests go to; unset: GitHub's.",
    ),
    Key::new(
        "workspace.reveal",
        Kind::List(Element::Inside),
        Preset::Empty,
        Trust::Fewer,
        "Paths in the repository that tools may see although they look like credentials.",
    ),
    Key::new(
        "runtime.max_pipeline_duration_ms",
        millis(1, MONTH_MS),
        Preset::Int(600_000),
        Trust::Lower,
        "Wall clock of one run, without the time in which it waits for a person.",
    ),
    Key::new(
        "runtime.max_shell_commands",
        int(0, 1_000_000),
        Preset::Int(50),
        Trust::Lower,
        "Commands of one run.",
    ),
    Key::new(
        "runtime.allowed_shell_commands",
        Kind::List(Element::Name),
        Preset::Empty,
        Trust::FewerOfAll,
        "Programs that commands of a model may execute, held by the sandbox; empty: any, inside the sandbox.",
    ),
    Key::new(
        "cost.alert_at",
        number(0.0, 1.0),
        Preset::Number(0.8),
        Trust::Lower,
        "Share of a budget at which an alert is shown.",
    ),
    Key::new(
        "cost.allow_unknown",
        Kind::Bool,
        Preset::Bool(false),
        Trust::Off,
        "Whether a model of unknown price may be used although you set a cost ceiling.",
    ),
    Key::new(
        "cost.max_per_day_usd",
        number(LEAST_USD, 1_000_000.0),
        Preset::Unset,
        Trust::Lower,
        "What all runs of one day together may cost in US dollars; unset: no ceiling.",
    ),
    Key::new(
        "store.durable",
        Kind::Bool,
        Preset::Bool(true),
        Trust::Ask,
        "Whether runs are kept. `false` keeps the journal in memory for as long as the command runs: nothing can be \
         resumed, listed or followed afterwards.",
    )
    .env(&[Alias { name: "FORGE_NO_DURABLE", reading: Reading::Negated }]),
    Key::new(
        "secrets.providers",
        Kind::List(Element::Name),
        Preset::Empty,
        Trust::Ask,
        "Where keys are looked up, first one first: `encrypted-file` (`forge secret`: the project's store, then yours) \
         and `env`. Empty: both, in this order.",
    ),
    Key::new(
        "login.authorize_url",
        Kind::Url,
        Preset::Unset,
        Trust::Ask,
        "Where `forge login` sends the browser; unset: the provider's own address.",
    ),
    Key::new(
        "login.token_url",
        Kind::Url,
        Preset::Unset,
        Trust::Ask,
        "Where a login's code becomes a token; unset: the provider's own address.",
    ),
    Key::new(
        "login.client_id",
        ONE_LINE,
        Preset::Unset,
        Trust::Ask,
        "The program that the provider logs you in for; unset: the public client of the provider's own tools.",
    ),
    Key::new(
        "login.port",
        int(0, 65_535),
        Preset::Int(1455),
        Trust::Ask,
        "Port on this machine that the browser comes back to; OpenAI takes no other one. 0: any free one.",
    ),
    Key::new(
        "login.timeout_seconds",
        seconds(1, 300),
        Preset::Int(30),
        Trust::Ask,
        "Longest time for an answer of the provider to a login or a renewal.",
    ),
    Key::new(
        "logging.level",
        Kind::LogFilter,
        Preset::Text("info"),
        Trust::Ask,
        "Level of the log on stderr, or a filter such as `warn,forge_models=debug`.",
    )
    .env(&[foreign("RUST_LOG"), foreign("LOG_LEVEL")]),
    Key::new(
        "logging.format",
        Kind::Choice(&[("text", &[]), ("json", &[])]),
        Preset::Text("text"),
        Trust::Ask,
        "Form of the log's lines.",
    )
    .env(&[foreign("LOG_FORMAT")]),
    Key::new(
        "logging.file",
        Kind::Path,
        Preset::Unset,
        Trust::Ask,
        "File that gets the log instead of stderr.",
    ),
];

const fn api_key(path: &'static str, default: Preset) -> Key {
    Key::new(path, Kind::Variable, default, Trust::Ask, "Variable of your environment that holds the key.")
}

const fn default_model(path: &'static str, default: Preset) -> Key {
    Key::new(path, ONE_LINE, default, Trust::Ask, "Model where `model.name` is not set.")
}

const fn base_url(path: &'static str) -> Key {
    Key::new(path, Kind::Url, Preset::Unset, Trust::Ask, "Server, if not the provider's own address.")
}
