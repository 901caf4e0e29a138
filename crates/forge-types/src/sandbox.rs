//! The isolation of a run as data: fixed when the run is created, re-applied on resume.

use crate::EgressRules;
use serde::{Deserialize, Serialize};

/// Whether the box reaches a network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NetworkPolicy {
    /// Nothing but its own loopback.
    #[default]
    Off,
    /// Named hosts, through a proxy that is the box's only way out.
    Allow(EgressRules),
    /// The host's network, asked for by the user.
    Host,
}

/// How a run works on its repository.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkspaceMode {
    /// In a private view; the repository changes when the result is applied.
    #[default]
    Transaction,
    /// In a private view; the result becomes a commit on a branch of its own.
    Branch,
    /// Edits the repository directly.
    Inplace,
}

/// When the result of a run that completed is applied to its repository.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ApplyPolicy {
    /// When the run completes, unless something it changed was changed by somebody else as well.
    #[default]
    Auto,
    /// After the user said yes.
    Ask,
    /// Only by `forge apply`.
    Never,
}

/// The state of a run's workspace after a step that may have written: the digest of how it differs from the beginning.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SnapshotId(pub crate::Digest);

impl std::fmt::Display for SnapshotId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// How a path changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeKind {
    /// It is new.
    Added,
    /// Its content changed.
    Modified,
    /// Only its permission bits changed.
    Mode,
    /// It is something else now, such as a symlink in place of a file.
    Retyped,
    /// It is gone.
    Removed,
}

/// One path that differs between two states of a workspace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkspaceChange {
    /// The path, relative to the workspace; bytes that are not UTF-8 stand as U+FFFD.
    pub path: String,
    /// How it changed.
    pub kind: ChangeKind,
    /// Lines added; `None` for what is no text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub added: Option<u64>,
    /// Lines removed; `None` for what is no text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub removed: Option<u64>,
}

/// A path that a run and somebody else both changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApplyConflict {
    /// The path, relative to the workspace.
    pub path: String,
    /// What is in the way, in words.
    pub why: String,
    /// Whether a three-way merge of the texts would go through.
    pub merges: bool,
}

impl std::fmt::Display for ApplyConflict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.path, self.why)
    }
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

/// Ceilings of what the host reads, keeps and applies of a workspace, for each repository in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkspaceLimits {
    /// Files, directories and links.
    pub paths: u64,
    /// Paths that may differ from the beginning of the run.
    pub changed_paths: u64,
    /// Bytes of names: of the repository each name, of what differs each whole path; targets of links count as well.
    pub path_bytes: u64,
    /// Directories within one another.
    pub depth: u64,
    /// Size of one file that is read, bytes; holes count.
    pub file_bytes: u64,
}

impl WorkspaceLimits {
    /// No ceilings.
    pub const NONE: Self = Self {
        paths: u64::MAX,
        changed_paths: u64::MAX,
        path_bytes: u64::MAX,
        depth: u64::MAX,
        file_bytes: u64::MAX,
    };

    /// The lower one of each ceiling.
    #[must_use]
    pub fn min_each(self, other: Self) -> Self {
        Self {
            paths: self.paths.min(other.paths),
            changed_paths: self.changed_paths.min(other.changed_paths),
            path_bytes: self.path_bytes.min(other.path_bytes),
            depth: self.depth.min(other.depth),
            file_bytes: self.file_bytes.min(other.file_bytes),
        }
    }
}

impl Default for WorkspaceLimits {
    fn default() -> Self {
        Self {
            paths: 1_000_000,
            changed_paths: 100_000,
            path_bytes: 32 << 20,
            depth: 256,
            file_bytes: 64 << 30,
        }
    }
}

/// The box that a run gets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SandboxSpec {
    /// The backend by name (`native`, `process`).
    pub backend: String,
    /// The repository on the host, absolute.
    pub repo: std::path::PathBuf,
    /// Further repositories, absolute. If there are any, each stands in a folder of its own below the workspace,
    /// named as on the host; else the one repository is the workspace.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub more_repos: Vec<std::path::PathBuf>,
    /// How the repositories are worked on.
    #[serde(default = "inplace")]
    pub mode: WorkspaceMode,
    /// When the result is applied.
    #[serde(default)]
    pub apply: ApplyPolicy,
    /// The image that gives the root folder, by name; `None`: the host's system folders, or the backend's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Network.
    #[serde(default)]
    pub network: NetworkPolicy,
    /// Limits.
    pub limits: SandboxLimits,
    /// Ceilings of the workspace.
    #[serde(default)]
    pub workspace: WorkspaceLimits,
    /// Workspace paths that are not masked although they look like credentials.
    #[serde(default)]
    pub reveal: Vec<String>,
    /// Variables of the box's environment beside the fixed ones (`NAME`, value).
    #[serde(default)]
    pub env: Vec<(String, String)>,
    /// Host folders bound read-only, for toolchains that do not lie under `/usr`.
    #[serde(default)]
    pub read_only: Vec<std::path::PathBuf>,
    /// Host folders bound read-write, beside the workspace (SBX-2: opt-in).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub writable: Vec<std::path::PathBuf>,
    /// Programs that commands may execute, by name or absolute path, beside the shell; `None`: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub programs: Option<Vec<String>>,
    /// Whether `process`, which isolates nothing, may be used.
    #[serde(default)]
    pub allow_unisolated: bool,
}

impl SandboxSpec {
    /// A box around `repo` with the usual limits, in a view of its own, without network.
    pub fn new(backend: impl Into<String>, repo: impl Into<std::path::PathBuf>) -> Self {
        Self {
            backend: backend.into(),
            repo: repo.into(),
            more_repos: Vec::new(),
            mode: WorkspaceMode::default(),
            apply: ApplyPolicy::default(),
            image: None,
            network: NetworkPolicy::default(),
            limits: SandboxLimits::default(),
            workspace: WorkspaceLimits::default(),
            reveal: Vec::new(),
            env: Vec::new(),
            read_only: Vec::new(),
            writable: Vec::new(),
            programs: None,
            allow_unisolated: false,
        }
    }

    /// The folder of each repository below `/workspace`, in order. Empty for a single one, which is the workspace
    /// itself; of several each has its own name, numbered where two have the same.
    pub fn repo_directories(&self) -> Vec<String> {
        if self.more_repos.is_empty() {
            return vec![String::new()];
        }
        let mut names: Vec<String> = Vec::with_capacity(1 + self.more_repos.len());
        for path in std::iter::once(&self.repo).chain(&self.more_repos) {
            let own = path.file_name().map_or_else(|| "repository".into(), |name| name.to_string_lossy());
            let mut name = own.clone().into_owned();
            for n in 2.. {
                if !names.contains(&name) {
                    break;
                }
                name = format!("{own}-{n}");
            }
            names.push(name);
        }
        names
    }
}

/// What a plan that was frozen before there were views meant.
const fn inplace() -> WorkspaceMode {
    WorkspaceMode::Inplace
}

/// What became of one layer of isolation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SandboxLayerState {
    /// In force.
    Enforced,
    /// In force in a weaker form, said in words.
    Degraded(String),
    /// Not in force, said in words.
    Absent(String),
}

/// One layer of isolation and its state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxLayer {
    /// Its name, such as `seccomp`.
    pub name: String,
    /// Its state.
    pub state: SandboxLayerState,
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
    /// How the workspace is shown: `overlay`, `reflink`, `copy` or `direct`, with the reason for a fallback.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub view: String,
    /// Each layer.
    pub layers: Vec<SandboxLayer>,
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
