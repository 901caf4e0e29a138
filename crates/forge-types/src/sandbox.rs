//! The isolation of a run as data: fixed when the run is created, re-applied on resume.

use serde::{Deserialize, Serialize};

/// Whether the box reaches a network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NetworkPolicy {
    /// Nothing but its own loopback.
    #[default]
    Off,
    /// The host's network, asked for by the user.
    Host,
}

/// How a run works on its repository.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkspaceMode {
    /// Edits the repository directly.
    #[default]
    Inplace,
}

/// Resource limits of the box.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct SandboxLimits {
    /// Memory of all processes together, bytes.
    pub memory_bytes: u64,
    /// Processes and threads at once.
    pub pids: u32,
    /// Processor cores; `None`: all.
    pub cpus: Option<f64>,
    /// Size of `/tmp`, bytes.
    pub tmp_bytes: u64,
    /// Longest time of one command, milliseconds; no command may ask for more.
    pub command_ms: u64,
}

impl Default for SandboxLimits {
    fn default() -> Self {
        Self { memory_bytes: 2 << 30, pids: 1024, cpus: None, tmp_bytes: 1 << 30, command_ms: 300_000 }
    }
}

/// The box that a run gets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SandboxSpec {
    /// The backend by name (`native`, `process`).
    pub backend: String,
    /// The repository on the host, absolute.
    pub repo: std::path::PathBuf,
    /// How the repository is worked on.
    #[serde(default)]
    pub mode: WorkspaceMode,
    /// Network.
    #[serde(default)]
    pub network: NetworkPolicy,
    /// Limits.
    pub limits: SandboxLimits,
    /// Workspace paths that are not masked although they look like credentials.
    #[serde(default)]
    pub reveal: Vec<String>,
    /// Variables of the box's environment beside the fixed ones (`NAME`, value).
    #[serde(default)]
    pub env: Vec<(String, String)>,
    /// Host folders bound read-only, for toolchains that do not lie under `/usr`.
    #[serde(default)]
    pub read_only: Vec<std::path::PathBuf>,
    /// Whether `process`, which isolates nothing, may be used.
    #[serde(default)]
    pub allow_unisolated: bool,
}

/// What became of one layer of isolation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LayerState {
    /// In force.
    Enforced,
    /// In force in a weaker form, said in words.
    Degraded(String),
    /// Not in force, said in words.
    Absent(String),
}

/// One layer of isolation and its state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layer {
    /// Its name, such as `seccomp`.
    pub name: String,
    /// Its state.
    pub state: LayerState,
    /// What a person can do to have it in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

/// What a box really is, found out when it was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxReport {
    /// The backend.
    pub backend: String,
    /// The box's id.
    pub id: String,
    /// Each layer.
    pub layers: Vec<Layer>,
    /// Workspace paths that tools can't see because they look like credentials.
    pub masked: Vec<String>,
    /// Things the user should know, such as that nothing is isolated.
    #[serde(default)]
    pub warnings: Vec<String>,
}

/// The state of a box.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SandboxState {
    /// Not started yet.
    Idle,
    /// Commands can run.
    Running,
    /// Ended in order.
    Stopped,
    /// Went away by itself.
    Died,
}

impl SandboxState {
    /// The name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Running => "running",
            Self::Stopped | Self::Died => "stopped",
        }
    }
}
