//! The adapters that the engine works with.

use crate::cooldowns::CooldownCache;
use forge_policy::DecisionInput;
use forge_ports::{Clock, Journal, Ledger, Memory, Model, Queue, Sandbox, ToolRegistry, WorkspaceStore};
use forge_redact::Redactor;
use forge_types::{AgentPlan, Decision};
use std::sync::Arc;

/// A function that counts the tokens of a request if the model's vocabulary is public. May take some tenths of
/// a second.
pub type CountTokens = Arc<dyn Fn(&forge_types::ModelRequest) -> Option<u64> + Send + Sync>;

/// A function that opens the memory of an agent's project, if the plan names one.
pub type OpenMemory = Arc<dyn Fn(&AgentPlan) -> Option<Arc<dyn Memory>> + Send + Sync>;

/// The decider of runs: [`forge_policy::decide`], or one that knows more kinds of work.
pub type DecideFn = Arc<dyn Fn(DecisionInput<'_>) -> Decision + Send + Sync>;

/// The adapters that the loop drives. Tests substitute their own.
#[derive(Clone)]
pub struct EngineParts {
    /// The journal.
    pub journal: Arc<dyn Journal>,
    /// The queue of runs.
    pub queue: Arc<dyn Queue>,
    /// The models.
    pub model: Arc<dyn Model>,
    /// The tools.
    pub tools: Arc<ToolRegistry>,
    /// The sandbox backends.
    pub sandbox: Arc<dyn Sandbox>,
    /// The workspaces of runs.
    pub workspaces: Arc<dyn WorkspaceStore>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// The redactor for everything that is journalled or shown.
    pub redactor: Arc<Redactor>,
    /// The cooldowns of providers.
    pub cooldowns: Arc<CooldownCache>,
    /// The ledger of all runs.
    pub ledger: Arc<dyn Ledger>,
    /// The function that opens a project's memory.
    pub open_memory: OpenMemory,
    /// The decider.
    pub decide: DecideFn,
    /// The token counter.
    pub count_tokens: CountTokens,
}
