//! What can be typed about conversations and executors.

use super::{LimitFlags, ModelFlags, SandboxFlags};
use clap::{Args, ValueEnum};
use std::path::PathBuf;

/// `forge chat`
#[derive(Debug, Args)]
pub(crate) struct ChatArgs {
    /// The repository to talk about and work on, the current folder if it is left out
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
    /// Fill variables that are not set from this file
    #[arg(long, value_name = "PATH")]
    pub(crate) env: Option<PathBuf>,
}

/// Who does the work.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct ExecutorFlags {
    /// Who does the work: a model with tools, a router, your own program, canned replies
    #[arg(long, value_enum, value_name = "NAME")]
    pub(crate) executor: Option<ExecutorArg>,
    /// Only pretend to run tools: each call is answered with what it was given
    #[arg(long)]
    pub(crate) mock_tools: bool,
}

/// Executors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ExecutorArg {
    /// A model that calls tools until it is done
    React,
    /// A model that names one tool per step
    Router,
    /// The program of `entrypoint`, in the sandbox
    Subprocess,
    /// The replies of `agent.stub_replies`
    Stub,
}

impl ExecutorArg {
    /// The name as it stands in configuration.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::React => "react",
            Self::Router => "router",
            Self::Subprocess => "subprocess",
            Self::Stub => "stub",
        }
    }
}
