//! The isolation of a run as data: fixed when the run is created, re-applied on resume.

use crate::EgressRules;
use serde::{Deserialize, Serialize};

/// The network access of a sandbox.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NetworkPolicy {
    /// Only the sandbox's own loopback.
    #[default]
    Off,
    /// Listed hosts, through a proxy that is the sandbox's only connection.
    Allow(EgressRules),
    /// The host's network, if the user requests it.
    Host,
}

/// The way in which a run modifies its repository.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkspaceMode {
    /// Work in a private workspace; applying the result changes the repository.
    #[default]
    Transaction,
    /// Work in a private workspace; the result becomes a commit on a separate branch.
    Branch,
    /// Direct edits of the repository.
    Inplace,
}

/// The time at which the result of a completed run is applied to its repository.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ApplyPolicy {
    /// On completion, unless another process changed the same paths.
    #[default]
    Auto,
    /// After the user's confirmation.
    Ask,
    /// Only by `forge apply`.
    Never,
}

/// The state of a run's workspace after a step that may have written: the digest of its differences from the
/// baseline.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SnapshotId(pub crate::Digest);

impl std::fmt::Display for SnapshotId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// The kind of a change to a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeKind {
    /// The path is new.
    Added,
    /// The content changed.
    Modified,
    /// Only the permission bits changed.
    Mode,
    /// The file type changed, such as from a file to a symlink.
    Retyped,
    /// The path was removed.
    Removed,
}

/// A path that differs between two states of a workspace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkspaceChange {
    /// The path relative to the workspace; non-UTF-8 bytes are replaced by U+FFFD.
    pub path: String,
    /// The kind of the change.
    pub kind: ChangeKind,
    /// Lines added; `None` if not text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub added: Option<u64>,
    /// Lines removed; `None` if not text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub removed: Option<u64>,
}

/// A path that was changed by both a run and another process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApplyConflict {
    /// The path relative to the workspace.
    pub path: String,
    /// The reason for the conflict, for display.
    pub why: String,
    /// Whether a three-way merge of the texts would succeed.
    pub merges: bool,
}

impl std::fmt::Display for ApplyConflict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.path, self.why)
    }
}

/// Resource limits of a sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct SandboxLimits {
    /// Memory of all processes together, in bytes.
    pub memory_bytes: u64,
    /// Concurrent processes and threads.
    pub pids: u32,
    /// Processor cores; `None` for all.
    pub cpus: Option<f64>,
    /// Size of `/tmp` in bytes.
    pub tmp_bytes: u64,
    /// Maximum duration of a command in milliseconds; a command cannot request more.
    pub command_ms: u64,
}

impl Default for SandboxLimits {
    fn default() -> Self {
        Self { memory_bytes: 2 << 30, pids: 1024, cpus: None, tmp_bytes: 1 << 30, command_ms: 300_000 }
    }
}

/// Ceilings of the data that the host reads, stores and applies of a workspace, per repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkspaceLimits {
    /// Files, directories and links.
    pub paths: u64,
    /// Paths that may differ from the baseline.
    pub changed_paths: u64,
    /// Total bytes of names: each name in the repository, each full path of a change, and link targets.
    pub path_bytes: u64,
    /// Depth of nested directories.
    pub depth: u64,
    /// Size of a file that is read, in bytes, including holes.
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

    /// Returns the lower value of each ceiling.
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

/// The specification of a run's sandbox.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SandboxSpec {
    /// The backend by name (`native`, `process`).
    pub backend: String,
    /// The repository on the host: an absolute path without symbolic links. One that is in it later is not followed.
    pub repo: std::path::PathBuf,
    /// Further repositories, by paths of the same kind. If there are any, each repository has its own directory in the
    /// workspace, named as on the host; otherwise the single repository is the workspace.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub more_repos: Vec<std::path::PathBuf>,
    /// The way in which the repositories are modified.
    #[serde(default = "inplace")]
    pub mode: WorkspaceMode,
    /// The time at which the result is applied.
    #[serde(default)]
    pub apply: ApplyPolicy,
    /// Name of the image for the root directory; `None` for the host's system directories or the backend's default.
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
    /// Workspace paths that are not masked even though they look like credentials.
    #[serde(default)]
    pub reveal: Vec<String>,
    /// Variables of the sandbox's environment in addition to the fixed ones (`NAME`, value).
    #[serde(default)]
    pub env: Vec<(String, String)>,
    /// Host directories mounted read-only, for toolchains outside of `/usr`.
    #[serde(default)]
    pub read_only: Vec<std::path::PathBuf>,
    /// Host directories mounted read-write in addition to the workspace (SBX-2: opt-in).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub writable: Vec<std::path::PathBuf>,
    /// Programs that commands may execute in addition to the shell, by name or absolute path; `None` allows any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub programs: Option<Vec<String>>,
    /// Whether the backend `process`, which isolates nothing, is allowed.
    #[serde(default)]
    pub allow_unisolated: bool,
}

impl SandboxSpec {
    /// Creates a sandbox for `repo` with default limits, a private workspace and no network.
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

    /// Returns the directory of each repository below `/workspace`, in order. A single repository is the workspace
    /// itself (empty name); several have distinct names, numbered if two are equal.
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

/// Returns the mode of a plan that was frozen before private workspaces existed.
const fn inplace() -> WorkspaceMode {
    WorkspaceMode::Inplace
}

/// The state of an isolation layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SandboxLayerState {
    /// The layer is in force.
    Enforced,
    /// The layer is in force in a weaker form, described in words.
    Degraded(String),
    /// The layer is not in force, for the given reason.
    Absent(String),
}

/// An isolation layer and its state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxLayer {
    /// The name, such as `seccomp`.
    pub name: String,
    /// The state of the layer.
    pub state: SandboxLayerState,
    /// The steps with which the user can enable the layer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

/// The actual properties of a sandbox, determined when it was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxReport {
    /// The backend.
    pub backend: String,
    /// The sandbox's id.
    pub id: String,
    /// The kind of workspace: `overlay`, `reflink`, `copy` or `direct`, with the reason for a fallback.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub view: String,
    /// The isolation layers.
    pub layers: Vec<SandboxLayer>,
    /// Workspace paths that are masked because they look like credentials.
    pub masked: Vec<String>,
    /// Warnings for the user, such as that nothing is isolated.
    #[serde(default)]
    pub warnings: Vec<String>,
}

/// The state of a sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SandboxState {
    /// Not started.
    Idle,
    /// Commands can run.
    Running,
    /// Ended normally.
    Stopped,
    /// Ended unexpectedly.
    Died,
}

impl SandboxState {
    /// Returns the name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Running => "running",
            Self::Stopped | Self::Died => "stopped",
        }
    }
}
