//! Arguments for workspaces and sandboxes of runs.

use super::choices::choices_of;
use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand, ValueEnum};
use std::path::PathBuf;

/// `forge diff`
#[derive(Debug, Args)]
pub(crate) struct DiffArgs {
    /// Run id or unique prefix; `last` is the newest run
    #[arg(value_name = "ID")]
    pub(crate) id: String,
    /// Only the changes of this step
    #[arg(long, value_name = "N")]
    pub(crate) step: Option<u32>,
    /// List the steps
    #[arg(long, conflicts_with_all = ["step", "stat"])]
    pub(crate) steps: bool,
    /// Only the paths, with numbers of added and removed lines
    #[arg(long)]
    pub(crate) stat: bool,
}

/// `forge undo`
#[derive(Debug, Args)]
pub(crate) struct UndoArgs {
    /// Run id or unique prefix; `last` is the newest run
    #[arg(value_name = "ID")]
    pub(crate) id: String,
    /// Step to return to; 0 is the beginning of the run
    #[arg(long, value_name = "N")]
    pub(crate) to: u32,
}

/// `forge apply`
#[derive(Debug, Args)]
pub(crate) struct ApplyArgs {
    /// Run id or unique prefix; `last` is the newest run
    #[arg(value_name = "ID")]
    pub(crate) id: String,
    /// Apply the state after this step instead of the last one
    #[arg(long, value_name = "N")]
    pub(crate) step: Option<u32>,
    /// Merge text files that also changed in the repository, if none of them conflicts
    #[arg(long)]
    pub(crate) merge: bool,
}

/// `forge gc`
#[derive(Debug, Args)]
pub(crate) struct GcArgs {
    /// Maximum total size of all snapshots, such as `2g`
    #[arg(long, value_name = "SIZE")]
    pub(crate) max_size: Option<String>,
    /// Remove snapshots older than this, such as `7d`
    #[arg(long, value_name = "TIME")]
    pub(crate) older_than: Option<String>,
    /// Only show what would be removed
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// `forge sandbox`
#[derive(Debug, Args)]
pub(crate) struct SandboxArgs {
    /// Action of `forge sandbox`
    #[command(subcommand)]
    pub(crate) action: SandboxAction,
}

/// Actions of `forge sandbox`.
#[derive(Debug, Subcommand)]
pub(crate) enum SandboxAction {
    /// Run a command in the same sandbox as a run
    Exec(SandboxExecArgs),
    /// Try to escape from the sandbox, and report the result
    Verify(SandboxVerifyArgs),
    /// Build an image for native sandboxes, and for a running container engine
    Build(SandboxBuildArgs),
    /// Remove stale resources of sandboxes with a dead process
    Prune,
}

/// `forge sandbox exec`
#[derive(Debug, Args)]
pub(crate) struct SandboxExecArgs {
    /// Sandbox backend: auto, native, docker, podman, process
    #[arg(long, value_name = "NAME")]
    pub(crate) backend: Option<String>,
    /// Repository to work on (default: current directory); repeatable
    #[arg(long, value_name = "PATH")]
    pub(crate) repo: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) network: NetworkFlags,
    /// Workspace mode; changes in a private workspace are discarded at the end
    #[arg(long, value_name = "MODE", value_parser = workspace_modes())]
    pub(crate) workspace: Option<String>,
    /// Image that provides the root file system
    #[arg(long, value_name = "NAME")]
    pub(crate) image: Option<String>,
    /// Timeout of the command in seconds
    #[arg(long, value_name = "SECONDS")]
    pub(crate) timeout: Option<u64>,
    /// Run this program instead, as /code/main.py or main.js in a fresh sandbox without a repository
    #[arg(long, value_name = "FILE", conflicts_with_all = ["command", "repo", "workspace"])]
    pub(crate) code: Option<PathBuf>,
    /// Command and its arguments
    #[arg(value_name = "COMMAND", last = true, required_unless_present = "code")]
    pub(crate) command: Vec<String>,
}

/// `forge sandbox verify`
#[derive(Debug, Args)]
pub(crate) struct SandboxVerifyArgs {
    /// Sandbox backend: auto, native, docker, podman
    #[arg(long, value_name = "NAME")]
    pub(crate) backend: Option<String>,
    /// Only the probes that a run requires to start
    #[arg(long)]
    pub(crate) required: bool,
}

/// `forge sandbox build`
#[derive(Debug, Args)]
pub(crate) struct SandboxBuildArgs {
    /// Contents of the image
    #[arg(value_enum, value_name = "KIND", default_value_t = ImageKind::Python)]
    pub(crate) kind: ImageKind,
    /// Import an image from a container engine instead of building one
    #[arg(long, value_name = "IMAGE")]
    pub(crate) from: Option<String>,
    /// Name of the image (default: name of KIND)
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
}

/// Contents of images.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ImageKind {
    /// Python with its usual tools
    Python,
    /// Node with npm
    Node,
    /// Python and Node
    Full,
}

/// Network access of a sandbox.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct NetworkFlags {
    /// Network access of commands: `host` (also without a value) or `none`
    #[arg(long, value_name = "WHAT", num_args = 0..=1, require_equals = true, default_missing_value = "host",
          overrides_with = "no_network", value_parser = ["host", "none"])]
    pub(crate) network: Option<String>,
    /// No network for commands, whatever is configured
    #[arg(long, overrides_with = "network")]
    pub(crate) no_network: bool,
    /// Let commands reach only this host, through a proxy: a name, `*.suffix`, or an address; repeatable
    #[arg(long, value_name = "HOST")]
    pub(crate) allow_host: Vec<String>,
}

/// Returns the parser of workspace modes.
pub(super) fn workspace_modes() -> PossibleValuesParser {
    choices_of(
        "workspace.mode",
        &[
            "Private workspace; the result is applied to the repository",
            "Private workspace; the result becomes a branch",
            "Directly in the repository",
        ],
    )
}
