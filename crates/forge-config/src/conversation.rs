//! Settings of executors, the router and the memory of conversations.

use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Executor of a run (`executor`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExecutorName {
    /// A model that calls tools until it is done.
    React,
    /// A model that names one tool per step.
    Router,
    /// The project's own program.
    Subprocess,
    /// Canned replies.
    Stub,
}

impl ExecutorName {
    /// Returns the name used in configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::React => "react",
            Self::Router => "router",
            Self::Subprocess => "subprocess",
            Self::Stub => "stub",
        }
    }
}

/// Framework of the project's program (`framework`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProjectFramework {
    /// Forge itself.
    Forge,
    /// A CrewAI program.
    Crewai,
    /// A LangChain program.
    Langchain,
}

/// Settings of `[router]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouterSettings {
    /// Largest number of steps in a run.
    pub max_steps: u32,
    /// Whether each step is reported on stderr.
    pub debug: bool,
}

/// Settings of `[memory]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemorySettings {
    /// Whether conversations are remembered.
    pub enabled: bool,
    /// Path of the memory file, if it is not the default location.
    pub file: Option<PathBuf>,
    /// Largest number of earlier messages that a turn receives.
    pub max_history: u64,
    /// Share of the context window above which a conversation is compacted.
    pub trigger_ratio: f64,
}
