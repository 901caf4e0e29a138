//! Tools that models call.

use crate::memory::Memory;
use crate::sandbox::{OutputSink, Workspace};
use crate::transcript::TranscriptSearch;
use async_trait::async_trait;
use forge_types::{ErrorInfo, PullRequestRules, ToolOutput, ToolSpec};
use serde_json::{Map, Value};
use std::sync::Arc;
use std::time::Duration;

/// What a tool acts through. It has no other way to the world.
#[derive(Clone)]
pub struct ToolEnv {
    /// The run's box.
    pub workspace: Arc<dyn Workspace>,
    /// What outlasts the conversation, if anything does.
    pub memory: Option<Arc<dyn Memory>>,
    /// Where pull requests may go.
    pub pull_requests: PullRequestRules,
    /// What was said before a summary took its place, if there is a conversation.
    pub past: Option<Arc<dyn TranscriptSearch>>,
    /// Takes a command's output while it comes.
    pub output: Arc<dyn OutputSink>,
    /// Time of a command that names none.
    pub default_timeout: Duration,
    /// Longest time of a command.
    pub max_timeout: Duration,
}

/// Why a tool gave no result at all: its sandbox failed it. Everything else is a [`ToolOutput`].
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct SandboxGone(pub ErrorInfo);

/// A tool. Failures are values: the model reads them and corrects itself.
#[async_trait]
pub trait Tool: Send + Sync {
    /// What the model and people are told about it.
    fn spec(&self) -> ToolSpec;

    /// Runs it with arguments that fit [`Tool::spec`]. Dropping the future cancels it and ends what it started.
    async fn run(&self, arguments: &Map<String, Value>, env: &ToolEnv) -> Result<ToolOutput, SandboxGone>;
}
