//! Executors of a run: a model with tools, a router, a program, or canned replies (LOOP-10).

use serde::{Deserialize, Serialize};

/// The executor of a run. All executors share registry, allowlist, guards and journal.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Executor {
    /// A model calls tools until it answers (LOOP-1).
    #[default]
    React,
    /// A model names one tool per step and code dispatches it (LOOP-7).
    Router {
        /// Maximum number of steps; a router call together with its tool call is one step.
        max_steps: u32,
        /// Whether each step is reported in live frames (OBS-6).
        #[serde(default)]
        debug: bool,
    },
    /// A program of the repository does the work in the sandbox (EXT-3).
    Subprocess {
        /// Program and arguments, started in the workspace.
        argv: Vec<String>,
        /// Variables of the sandbox that the program receives in addition to `PATH`, `HOME`, `LANG` and the proxy
        /// variables.
        #[serde(default)]
        passthrough: Vec<String>,
    },
    /// Canned replies replace the model, one per turn, repeated from the start when used up.
    Stub {
        /// The replies.
        replies: Vec<String>,
    },
}

impl Executor {
    /// Returns the name used in the setting `executor`.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::React => "react",
            Self::Router { .. } => "router",
            Self::Subprocess { .. } => "subprocess",
            Self::Stub { .. } => "stub",
        }
    }

    /// Returns whether this is the default, a model with tools; serde omits it then.
    pub const fn is_react(&self) -> bool {
        matches!(self, Self::React)
    }

    /// Returns whether the run's answer is the result of a dispatched tool.
    pub const fn answers_with_tool_output(&self) -> bool {
        matches!(self, Self::Router { .. } | Self::Subprocess { .. })
    }

    /// Returns whether a provider's model is called.
    pub const fn asks_model(&self) -> bool {
        matches!(self, Self::React | Self::Router { .. })
    }
}

/// The implementation of a run's tools.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToolLayer {
    /// The real tools.
    #[default]
    Real,
    /// No tools: each call is answered with a description of itself (`--mock-tools`).
    Mock,
}

impl ToolLayer {
    /// Returns whether this is the default; serde omits it then.
    pub const fn is_real(&self) -> bool {
        matches!(self, Self::Real)
    }
}
