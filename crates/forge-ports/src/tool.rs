//! Tools that models call.

use crate::memory::Memory;
use crate::sandbox::{OutputSink, Workspace};
use crate::transcript::TranscriptSearch;
use async_trait::async_trait;
use forge_types::{ErrorInfo, PullRequestRules, ToolOutput, ToolSpec};
use serde_json::{Map, Value};
use std::sync::Arc;
use std::time::Duration;

/// Everything that a tool can act on; it has no other access to the outside.
#[derive(Clone)]
pub struct ToolEnv {
    /// The sandbox of the run.
    pub workspace: Arc<dyn Workspace>,
    /// The project's memory, if enabled.
    pub memory: Option<Arc<dyn Memory>>,
    /// Rules for pull requests.
    pub pull_requests: PullRequestRules,
    /// Search in the summarised part of the conversation, if there is a conversation.
    pub past: Option<Arc<dyn TranscriptSearch>>,
    /// Receives a command's output while it runs.
    pub output: Arc<dyn OutputSink>,
    /// The key that marks repetitions of a request to a server, if the tool acts outside of the workspace.
    pub idempotency_key: Option<String>,
    /// Time limit of a command that sets none.
    pub default_timeout: Duration,
    /// Maximum time limit of a command.
    pub max_timeout: Duration,
}

/// A failure of the sandbox during a tool call, which gives no result. All other failures are a [`ToolOutput`].
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct SandboxGone(pub ErrorInfo);

/// A tool. Failures are values: the model reads them and corrects itself.
#[async_trait]
pub trait Tool: Send + Sync {
    /// Returns the description for the model and for people.
    fn spec(&self) -> ToolSpec;

    /// Runs the tool with arguments that fit [`Tool::spec`]. Dropping the future cancels the call and all work it
    /// started.
    async fn run(&self, arguments: &Map<String, Value>, env: &ToolEnv) -> Result<ToolOutput, SandboxGone>;
}
