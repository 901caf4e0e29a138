//! Settings of sandboxes and of their access to the network.

use super::definition::{choices, settings};
use forge_types::{BadEntry, EgressRules, KeySwap};
use std::path::PathBuf;

choices! {
    /// Isolation of commands.
    pub enum SandboxBackend {
        /// The strongest backend that isolates.
        Auto = "auto",
        /// Linux namespaces, seccomp, Landlock, cgroups.
        Native = "native" | "bwrap",
        /// A container run by the Docker engine.
        Docker = "docker",
        /// A container run by podman.
        Podman = "podman",
        /// No isolation.
        Process = "process",
    }
}

choices! {
    /// Effect of the check that precedes the execution of a generated program.
    pub enum StaticCheckMode {
        /// Findings are reported.
        Warn = "warn",
        /// A program with findings is not executed.
        Deny = "deny",
        /// Programs are not checked.
        Off = "off",
    }
}

settings! {
    /// Settings of `[sandbox]`.
    pub struct SandboxSettings in "sandbox." {
        keys SANDBOX_KEYS:
        /// Backend that isolates commands: `auto` selects native if this machine supports it, else docker, else podman;
        /// `process` provides no isolation and requires `sandbox.allow_unisolated`.
        backend: SandboxBackend = Text("auto"), SandboxBackend::KIND, Ask,
            with_flags("--sandbox-backend", "--backend");
        /// Image that provides the root directory (`forge sandbox build`). Unset: the host's system directories for
        /// native, `forge-sandbox:latest` for docker and podman.
        image: Option<String> = Unset, ONE_LINE, Ask, with_env(env_alias("SANDBOX_IMAGE")),
            with_flags("--sandbox-image", "--image");
        /// Socket of the container engine. Unset: the usual locations.
        docker_host: Option<String> = Unset, ONE_LINE, Ask, with_env(foreign_alias("DOCKER_HOST"));
        /// Number of processor cores. Unset: all.
        cpu_limit: Option<f64> = Unset, number_kind(0.05, 1024.0), Lower, with_env(env_alias("SANDBOX_CPU_LIMIT"));
        /// Total memory of all processes of a run.
        memory_limit: u64 = Int(2 * GIB), bytes_kind(64 * MIB, 64 * TIB), Lower;
        /// Largest number of processes and threads at a time.
        pids: u32 = Int(1024), int_kind(16, 1_000_000), Lower;
        /// Longest time that a command may request.
        timeout_seconds: u64 = Int(300), seconds_kind(1, 86_400), Lower;
        /// Time for a command that requests none.
        command_timeout_seconds: u64 = Int(120), seconds_kind(1, 600), Lower, with_flags("--command-timeout");
        /// Size of `/tmp`.
        tmp_size: u64 = Int(GIB), bytes_kind(MIB, 64 * TIB), Lower;
        /// Time for a generated program, which runs in a separate sandbox (`forge sandbox exec --code`).
        exec_timeout_seconds: u64 = Int(30), seconds_kind(5, 120), Lower,
            with_env(env_alias("SANDBOX_TIMEOUT_SECONDS"));
        /// Memory for a generated program in MiB.
        exec_memory_mb: u64 = Int(512), int_kind(128, 2048), Lower, with_env(env_alias("SANDBOX_MEMORY_LIMIT_MB"));
        /// Effect of the static check of a generated program: `warn` reports findings, `deny` refuses to execute the
        /// program. The check does not replace isolation.
        static_check: StaticCheckMode = Text("warn"), StaticCheckMode::KIND, Towards(&["deny", "warn", "off"]);
        /// Whether commands can use the host's network.
        network_enabled: bool = Bool(false), KeyKind::Bool, Off, with_env(negated_alias("SANDBOX_NETWORK_DISABLED")),
            with_flags("--network", "--no-network");
        /// Whether the backend `process`, which provides no isolation, is permitted.
        allow_unisolated: bool = Bool(false), KeyKind::Bool, Off;
        /// Variables of your environment that are passed to commands, except for API keys of providers.
        env_vars: Vec<String> = Empty, KeyKind::List(ListElement::Variable), Fewer;
        /// Host directories that commands may read, for toolchains outside `/usr`.
        read_only_paths: Vec<PathBuf> = Empty, KeyKind::List(ListElement::Path), Fewer;
        /// Host directories that commands may change in addition to the workspace. Changes in them are not included in
        /// snapshots, undo or apply.
        writable_paths: Vec<PathBuf> = Empty, KeyKind::List(ListElement::Path), Fewer;
        /// Whether package managers get a writable `/cache` while a network is available.
        writable_cache_mounts: bool = Bool(true), KeyKind::Bool, Off;
    }
}

choices! {
    /// Hosts that a sandbox can connect to while its network is off.
    pub enum EgressMode {
        /// No host.
        DenyAll = "deny-all",
        /// The listed hosts.
        Allowlist = "allowlist",
        /// Any host.
        DevOpen = "dev-open",
    }
}

settings! {
    /// Settings of `[egress]`.
    #[derive(Eq)]
    pub struct EgressSettings in "egress." {
        keys EGRESS_KEYS:
        /// Hosts that a sandbox can connect to while `sandbox.network_enabled` is off: none, those in
        /// `egress.allowed_domains`, or all.
        mode: EgressMode = Text("allowlist"), EgressMode::KIND, Towards(&["deny-all", "allowlist", "dev-open"]),
            with_flags("--allow-host", "--network", "--no-network");
        /// Hosts that a sandbox can connect to through the proxy: names, `*.suffix`, or addresses. Empty: none.
        allowed_domains: Vec<String> = Empty, KeyKind::List(ListElement::Name), Fewer, with_flags("--allow-host");
        /// API keys that the proxy adds to requests, as `host=VARIABLE`: the sandbox has a placeholder in that
        /// variable, and only requests to the host carry your value.
        keys: Vec<String> = Empty, KeyKind::List(ListElement::Name), Fewer;
    }
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
