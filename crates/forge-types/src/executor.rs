//! Who carries out a run: the loop of a model with tools, a router, a program, or canned replies (LOOP-10).

use serde::{Deserialize, Serialize};

/// The executor of a run. All share registry, allowlist, guards and journal.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Executor {
    /// A model calls tools until it answers (LOOP-1).
    #[default]
    React,
    /// A model names one tool per step and code dispatches it (LOOP-7).
    Router {
        /// Router and tool together are one step; a run has at most so many.
        max_steps: u32,
        /// Whether each step is told in live frames (OBS-6).
        #[serde(default)]
        debug: bool,
    },
    /// A program of the repository does the work, in the sandbox (EXT-3).
    Subprocess {
        /// Program and arguments, as they are started in the workspace.
        argv: Vec<String>,
        /// Variables of the box that it may see beside `PATH`, `HOME`, `LANG` and the proxy.
        #[serde(default)]
        passthrough: Vec<String>,
    },
    /// Canned replies in the place of a model, one per turn, from the front again when they are used up.
    Stub {
        /// The replies.
        replies: Vec<String>,
    },
}

impl Executor {
    /// Its name, as in the setting `executor`.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::React => "react",
            Self::Router { .. } => "router",
            Self::Subprocess { .. } => "subprocess",
            Self::Stub { .. } => "stub",
        }
    }

    /// Whether it is the loop of a model, for plans that say nothing else.
    pub const fn is_react(&self) -> bool {
        matches!(self, Self::React)
    }

    /// Whether it ends with the result of a tool that was dispatched.
    pub const fn answers_with_tool_output(&self) -> bool {
        matches!(self, Self::Router { .. } | Self::Subprocess { .. })
    }

    /// Whether a model of a provider is asked.
    pub const fn asks_model(&self) -> bool {
        matches!(self, Self::React | Self::Router { .. })
    }
}

/// What stands behind the tools of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToolLayer {
    /// The tools themselves.
    #[default]
    Real,
    /// Nothing: each call is answered with what was asked for (`--mock-tools`).
    Mock,
}

impl ToolLayer {
    /// Whether it is the usual one, for plans that say nothing else.
    pub const fn is_real(&self) -> bool {
        matches!(self, Self::Real)
    }
}
