//! Settings of executors, the router and the memory of conversations.

use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// `executor`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExecutorName {
    /// A model calls tools until it is done.
    React,
    /// A model names one tool per step.
    Router,
    /// The project's own program.
    Subprocess,
    /// Canned replies.
    Stub,
}

impl ExecutorName {
    /// The name as it stands in configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::React => "react",
            Self::Router => "router",
            Self::Subprocess => "subprocess",
            Self::Stub => "stub",
        }
    }
}

/// `framework`
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

/// `[router]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouterSettings {
    /// Steps of one run.
    pub max_steps: u32,
    /// Whether each step is told on stderr.
    pub debug: bool,
}

/// `[memory]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemorySettings {
    /// Whether conversations are remembered.
    pub enabled: bool,
    /// The file, if not the usual place in the repository.
    pub file: Option<PathBuf>,
    /// Messages of earlier turns that a turn is told.
    pub max_history: u64,
    /// Share of the window above which a conversation is compacted.
    pub trigger_ratio: f64,
}
