//! The plan of a run: all inputs of its decisions, frozen by hash when the run is created.

use crate::{
    Executor, ModelRoute, ModelSettings, Money, Price, ReferenceModel, RoutingChoice, RunLimits, SandboxSpec,
    ToolAccess, ToolLayer, ToolSpec,
};
use serde::{Deserialize, Serialize};

/// Known properties of a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelFacts {
    /// Price; `None` if unknown.
    pub price: Option<Price>,
    /// Context window in tokens.
    pub window: u64,
    /// Maximum reply length in tokens, if known.
    pub max_output: Option<u64>,
}

/// Rules for `run_shell` commands (TOOL-25).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandRules {
    /// Programs that may be run; empty allows any.
    pub allowed: Vec<String>,
}

/// The guard of a memory file in a repository, where programs other than Forge can write to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryGuard {
    /// The repository.
    pub root: std::path::PathBuf,
    /// The file's path relative to the repository.
    pub relative: std::path::PathBuf,
    /// The user's record of trusted contents.
    pub record: std::path::PathBuf,
}

/// Targets for pull requests of a run, as configured when the run began.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PullRequestRules {
    /// The repository of the remote `origin`.
    pub origin: Option<RemoteRepository>,
    /// Further repositories as `owner/name`, from the user's own settings.
    pub repositories: Vec<String>,
}

/// A repository on a server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoteRepository {
    /// The server.
    pub host: String,
    /// `owner/name`.
    pub repository: String,
}

/// The effect of a cost ceiling when a price is unknown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CostRule {
    /// The ceiling is a default: unknown prices are flagged, but end nothing.
    #[default]
    Default,
    /// The user set the ceiling: a model with an unknown price is refused.
    Strict,
    /// The user set the ceiling and allowed unknown prices.
    AllowUnknown,
}

/// Rules for retries of failed model calls (PROV-4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetryRule {
    /// Maximum number of attempts per call.
    pub tries: u32,
    /// First delay in milliseconds; doubles with each retry.
    pub base_ms: u64,
    /// Maximum delay in milliseconds.
    pub cap_ms: u64,
    /// Maximum sum of all delays of a call, in milliseconds.
    #[serde(default = "RetryRule::max_wait_ms")]
    pub max_wait_ms: u64,
}

impl RetryRule {
    const fn max_wait_ms() -> u64 {
        300_000
    }
}

impl Default for RetryRule {
    fn default() -> Self {
        Self { tries: 5, base_ms: 2_000, cap_ms: 30_000, max_wait_ms: Self::max_wait_ms() }
    }
}

/// A spending limit of an account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountCeiling {
    /// The account of the ledger, such as `run:<id>`.
    pub account: String,
    /// Maximum of spent and reserved money together.
    pub limit: Money,
}

/// A model that a run may call, frozen with its properties.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelTarget {
    /// The provider and model to call.
    pub route: ModelRoute,
    /// Known properties of the model.
    pub facts: ModelFacts,
    /// The organization to charge, if not the provider's configured one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub organization: Option<String>,
}

/// The frozen plan of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Version of this format.
    pub version: u32,
    /// The model to call first.
    #[serde(flatten)]
    pub first: ModelTarget,
    /// Fallbacks for a model that is unavailable, in order.
    #[serde(default)]
    pub fallbacks: Vec<ModelTarget>,
    /// The reasons for the chosen route.
    #[serde(default)]
    pub routing: Option<Box<RoutingChoice>>,
    /// The model used for cost comparisons.
    #[serde(default)]
    pub reference: Option<ReferenceModel>,
    /// The executor of the run.
    #[serde(default, skip_serializing_if = "Executor::is_react")]
    pub executor: Executor,
    /// The file that stores facts, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<std::path::PathBuf>,
    /// The guard of the memory file, if it is in a repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_guard: Option<MemoryGuard>,
    /// Allowed targets for pull requests.
    #[serde(default)]
    pub pull_requests: PullRequestRules,
    /// The implementation of the tools.
    #[serde(default, skip_serializing_if = "ToolLayer::is_real")]
    pub tool_layer: ToolLayer,
    /// Settings of the model calls.
    pub settings: ModelSettings,
    /// The system prompt.
    pub system: String,
    /// The enabled tools.
    pub tools: Vec<ToolSpec>,
    /// Names of tools that exist but are not enabled.
    #[serde(default)]
    pub disabled: Vec<String>,
    /// Limits.
    pub limits: RunLimits,
    /// The effect of a cost ceiling when a price is unknown.
    #[serde(default)]
    pub cost_rule: CostRule,
    /// Percentage of a budget at which an alert is shown.
    pub alert_percent: u8,
    /// Ceiling of all runs of a day together, if set.
    #[serde(default)]
    pub day_ceiling: Option<Money>,
    /// Further ceilings that include this run's cost: those of its ancestors.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ceilings: Vec<AccountCeiling>,
    /// Retries of model calls.
    #[serde(default)]
    pub retry: RetryRule,
    /// Rules for the use of the context window.
    #[serde(default)]
    pub context: crate::ContextRule,
    /// Rules for commands.
    #[serde(default)]
    pub commands: CommandRules,
    /// Default time limit of a command, in milliseconds.
    pub command_ms: u64,
    /// The sandbox.
    pub sandbox: SandboxSpec,
    /// The resolved configuration as JSON with redacted secrets; for display.
    #[serde(default)]
    pub config: serde_json::Value,
}

impl Plan {
    /// Returns the enabled tool with `name` as its name or alias.
    pub fn find_tool(&self, name: &str) -> Option<&ToolSpec> {
        self.tools.iter().chain(&self.context.recall).find(|tool| tool.answers_to(name))
    }

    /// Returns the tools offered in a request after `compactions` compactions.
    pub fn offered_tools(&self, compactions: u32) -> impl Iterator<Item = &ToolSpec> {
        self.tools.iter().chain(self.context.recall.iter().filter(move |_| compactions > 0))
    }

    /// Returns whether the run needs a sandbox; it does not if its tools use no resources.
    pub fn needs_sandbox(&self) -> bool {
        let program = matches!(self.executor, Executor::Subprocess { .. });
        let touches = self.tools.iter().any(|tool| tool.access != ToolAccess::Nothing);
        program || (self.tool_layer == ToolLayer::Real && touches)
    }

    /// Returns the models that the run may call: the first, then the fallbacks.
    pub fn targets(&self) -> impl Iterator<Item = &ModelTarget> {
        std::iter::once(&self.first).chain(&self.fallbacks)
    }

    /// Returns the model at this index, or the first if the index is out of range.
    pub fn target_at(&self, at: u32) -> &ModelTarget {
        self.targets().nth(at as usize).unwrap_or(&self.first)
    }

    /// Returns the context budget in characters: tokens × 4 × 0.85 (MEM-3).
    pub const fn context_chars(&self) -> u64 {
        self.first.facts.window.saturating_mul(34) / 10
    }

    /// Returns the maximum length of a tool result in a request, in characters (LOOP-11).
    pub const fn result_chars(&self) -> u64 {
        let quarter = self.context_chars() / 4;
        if quarter < 2_000 {
            2_000
        } else if quarter > 400_000 {
            400_000
        } else {
            quarter
        }
    }
}
