//! What can be typed about the workspaces of runs and the boxes they work in.

use clap::{Args, Subcommand, ValueEnum};
use std::path::PathBuf;

/// `forge diff`
#[derive(Debug, Args)]
pub(crate) struct DiffArgs {
    /// The run's id, or the beginning of it; `last` is the newest
    #[arg(value_name = "ID")]
    pub(crate) id: String,
    /// Only what this step changed
    #[arg(long, value_name = "N")]
    pub(crate) step: Option<u32>,
    /// List the steps instead
    #[arg(long, conflicts_with_all = ["step", "stat"])]
    pub(crate) steps: bool,
    /// Only the paths, with lines added and removed
    #[arg(long)]
    pub(crate) stat: bool,
}

/// `forge undo`
#[derive(Debug, Args)]
pub(crate) struct UndoArgs {
    /// The run's id, or the beginning of it; `last` is the newest
    #[arg(value_name = "ID")]
    pub(crate) id: String,
    /// The step after which the workspace stood; 0: the beginning of the run
    #[arg(long, value_name = "N")]
    pub(crate) to: u32,
}

/// `forge apply`
#[derive(Debug, Args)]
pub(crate) struct ApplyArgs {
    /// The run's id, or the beginning of it; `last` is the newest
    #[arg(value_name = "ID")]
    pub(crate) id: String,
    /// The state after this step instead of the last one
    #[arg(long, value_name = "N")]
    pub(crate) step: Option<u32>,
    /// Merge texts that others changed as well, if all of them merge without a conflict
    #[arg(long)]
    pub(crate) merge: bool,
}

/// `forge gc`
#[derive(Debug, Args)]
pub(crate) struct GcArgs {
    /// What all snapshots together may keep, such as `2g`
    #[arg(long, value_name = "SIZE")]
    pub(crate) max_size: Option<String>,
    /// Snapshots older than this go, such as `7d`
    #[arg(long, value_name = "TIME")]
    pub(crate) older_than: Option<String>,
    /// Only say what would be removed
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// `forge sandbox`
#[derive(Debug, Args)]
pub(crate) struct SandboxArgs {
    /// What to do
    #[command(subcommand)]
    pub(crate) action: SandboxAction,
}

/// What `forge sandbox` does.
#[derive(Debug, Subcommand)]
pub(crate) enum SandboxAction {
    /// Run a command in exactly the box that a run would get
    Exec(SandboxExecArgs),
    /// Try to break out of a box, and say whether everything held
    Verify(SandboxVerifyArgs),
    /// Build an image: a root folder for native boxes, and the same for a container engine that runs
    Build(SandboxBuildArgs),
    /// Remove what boxes left behind whose process died
    Prune,
}

/// `forge sandbox exec`
#[derive(Debug, Args)]
pub(crate) struct SandboxExecArgs {
    /// Sandbox backend: auto, native, docker, podman, process
    #[arg(long, value_name = "NAME")]
    pub(crate) backend: Option<String>,
    /// The repository to work on; may be given several times
    #[arg(long, value_name = "PATH")]
    pub(crate) repo: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) network: NetworkFlags,
    /// How the command works on the repository; what it changes in a private view is thrown away at the end
    #[arg(long, value_enum, value_name = "MODE")]
    pub(crate) workspace: Option<WorkspaceModeArg>,
    /// Image that gives the root folder
    #[arg(long, value_name = "NAME")]
    pub(crate) image: Option<String>,
    /// Seconds that the command may take
    #[arg(long, value_name = "SECONDS")]
    pub(crate) timeout: Option<u64>,
    /// Execute this program instead, in a fresh box of its own: main.py or main.js at /code, no repository
    #[arg(long, value_name = "FILE", conflicts_with_all = ["command", "repo", "workspace"])]
    pub(crate) code: Option<PathBuf>,
    /// The command and its arguments
    #[arg(value_name = "COMMAND", last = true, required_unless_present = "code")]
    pub(crate) command: Vec<String>,
}

/// `forge sandbox verify`
#[derive(Debug, Args)]
pub(crate) struct SandboxVerifyArgs {
    /// Sandbox backend: auto, native, docker, podman
    #[arg(long, value_name = "NAME")]
    pub(crate) backend: Option<String>,
    /// Only the probes without which no run starts
    #[arg(long)]
    pub(crate) required: bool,
}

/// `forge sandbox build`
#[derive(Debug, Args)]
pub(crate) struct SandboxBuildArgs {
    /// What it holds
    #[arg(value_enum, value_name = "KIND", default_value_t = ImageKind::Python)]
    pub(crate) kind: ImageKind,
    /// Take an image of a container engine instead of building one
    #[arg(long, value_name = "IMAGE")]
    pub(crate) from: Option<String>,
    /// The image's name; that of KIND if it is left out
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
}

/// What an image holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ImageKind {
    /// Python with its usual tools
    Python,
    /// Node with npm
    Node,
    /// Both
    Full,
}

/// What a box reaches.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct NetworkFlags {
    /// Let commands reach the network: `host` (also without a value), or `none`
    #[arg(long, value_name = "WHAT", num_args = 0..=1, require_equals = true, default_missing_value = "host",
          overrides_with = "no_network", value_parser = ["host", "none"])]
    pub(crate) network: Option<String>,
    /// No network for commands, whatever the configuration says
    #[arg(long, overrides_with = "network")]
    pub(crate) no_network: bool,
    /// Let commands reach this host, through a proxy and nothing else: a name, `*.suffix`, or an address; may be
    /// given several times
    #[arg(long, value_name = "HOST")]
    pub(crate) allow_host: Vec<String>,
}

/// How a repository is worked on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum WorkspaceModeArg {
    /// In a private view; the result is applied
    Transaction,
    /// In a private view; the result becomes a branch
    #[value(alias = "worktree")]
    Branch,
    /// Directly
    Inplace,
}

impl WorkspaceModeArg {
    /// The name in the configuration.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Transaction => "transaction",
            Self::Branch => "branch",
            Self::Inplace => "inplace",
        }
    }
}

/// When a result is applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ApplyPolicyArg {
    /// When the run completes, unless others changed the same
    Auto,
    /// After a question
    Ask,
    /// Only by `forge apply`
    Never,
}

impl ApplyPolicyArg {
    /// The name in the configuration.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Ask => "ask",
            Self::Never => "never",
        }
    }
}
