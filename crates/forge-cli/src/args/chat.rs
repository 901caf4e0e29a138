//! Arguments for conversations and executors.

use super::choices::choices_of;
use super::{LimitFlags, ModelFlags, SandboxFlags};
use clap::Args;
use std::path::PathBuf;

/// `forge chat`
#[derive(Debug, Args)]
pub(crate) struct ChatArgs {
    /// Repository to talk about and work on (default: current directory)
    #[arg(long, value_name = "PATH")]
    pub(crate) repo: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) executor: ExecutorFlags,
    #[command(flatten)]
    pub(crate) model: ModelFlags,
    #[command(flatten)]
    pub(crate) limits: LimitFlags,
    #[command(flatten)]
    pub(crate) sandbox: SandboxFlags,
    /// Read environment variables that are not set from this file
    #[arg(long, value_name = "PATH")]
    pub(crate) env: Option<PathBuf>,
}

/// Flags that select the executor.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct ExecutorFlags {
    /// Executor: a model with tools, a router, your own program, or canned replies
    #[arg(long, value_name = "NAME", value_parser = choices_of("executor", &[
        "Model that calls tools until it is done",
        "Model that names one tool per step",
        "Program set by `entrypoint`, run in the sandbox",
        "Replies from `agent.stub_replies`",
    ]))]
    pub(crate) executor: Option<String>,
    /// Do not run tools; answer each call with its own arguments
    #[arg(long)]
    pub(crate) mock_tools: bool,
}
