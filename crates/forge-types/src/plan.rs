//! The plan of a run: everything its decisions depend on, frozen by hash when the run is created.

use crate::{
    Executor, ModelRoute, ModelSettings, Money, Price, ReferenceModel, RoutingChoice, RunLimits, SandboxSpec,
    ToolAccess, ToolLayer, ToolSpec,
};
use serde::{Deserialize, Serialize};

/// What is known of the model that a run uses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelFacts {
    /// Price; `None` if unknown.
    pub price: Option<Price>,
    /// Context window in tokens.
    pub window: u64,
    /// Longest reply in tokens that the model can give, if known.
    pub max_output: Option<u64>,
}

/// Rules for commands of `run_shell` (TOOL-25).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandRules {
    /// Programs that may be run; empty: any.
    pub allowed: Vec<String>,
}

/// A memory in a repository, which others than Forge can write.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryGuard {
    /// The repository.
    pub root: std::path::PathBuf,
    /// The file's path from there.
    pub relative: std::path::PathBuf,
    /// The user's record of the contents that are believed.
    pub record: std::path::PathBuf,
}

/// Where a run may open pull requests, as it stood when the run began.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PullRequestRules {
    /// The repository that the remote `origin` named.
    pub origin: Option<RemoteRepository>,
    /// Further repositories, each as `owner/name`, by the user's own settings.
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

/// What a cost ceiling does where the price is unknown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CostRule {
    /// The ceiling is a default: unknown prices are flagged, nothing ends.
    #[default]
    Default,
    /// The user set the ceiling: a model of unknown price is refused.
    Strict,
    /// The user set the ceiling and allowed unknown prices.
    AllowUnknown,
}

/// How failed model calls are tried again (PROV-4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetryRule {
    /// Tries of one call in all.
    pub tries: u32,
    /// First delay in milliseconds; doubles each time.
    pub base_ms: u64,
    /// Longest delay in milliseconds.
    pub cap_ms: u64,
    /// Longest time in milliseconds that all delays of one call together may take.
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

/// What may be spent on an account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountCeiling {
    /// The account of the ledger, such as `run:<id>`.
    pub account: String,
    /// What is spent and reserved on it together at most.
    pub limit: Money,
}

/// Somebody else to ask when the first can't be had (PROV-9).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FallbackTarget {
    /// Whom to ask.
    pub route: ModelRoute,
    /// What is known of that model.
    pub facts: ModelFacts,
    /// The organization that is charged, if not the provider's configured one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub organization: Option<String>,
}

/// One of those that a run may ask, by [`Plan::target`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TargetRef<'a> {
    /// Whom to ask.
    pub route: &'a ModelRoute,
    /// What is known of that model.
    pub facts: &'a ModelFacts,
    /// The organization that is charged, if not the provider's configured one.
    pub organization: Option<&'a str>,
}

/// The frozen plan of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Version of this shape.
    pub version: u32,
    /// Whom to ask.
    pub route: ModelRoute,
    /// What is known of that model.
    pub facts: ModelFacts,
    /// The organization that is charged, if not the provider's configured one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub organization: Option<String>,
    /// Whom to ask when that one can't be had, in this order.
    #[serde(default)]
    pub fallbacks: Vec<FallbackTarget>,
    /// Why that one.
    #[serde(default)]
    pub routing: Option<Box<RoutingChoice>>,
    /// The model that the cost is compared with.
    #[serde(default)]
    pub reference: Option<ReferenceModel>,
    /// Who carries the run out.
    #[serde(default, skip_serializing_if = "Executor::is_react")]
    pub executor: Executor,
    /// The file in which facts are kept, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<std::path::PathBuf>,
    /// What is believed of it, if it lies in a repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_guard: Option<MemoryGuard>,
    /// Where pull requests may go.
    #[serde(default)]
    pub pull_requests: PullRequestRules,
    /// What stands behind the tools.
    #[serde(default, skip_serializing_if = "ToolLayer::is_real")]
    pub tool_layer: ToolLayer,
    /// Settings of its calls.
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
    /// What a cost ceiling does where the price is unknown.
    #[serde(default)]
    pub cost_rule: CostRule,
    /// Share of a budget in percent at which an alert is shown.
    pub alert_percent: u8,
    /// Ceiling of all runs of one day together, if one is set.
    #[serde(default)]
    pub day_ceiling: Option<Money>,
    /// Further ceilings that the run's cost counts against: those of the runs above it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ceilings: Vec<AccountCeiling>,
    /// Retries of model calls.
    #[serde(default)]
    pub retry: RetryRule,
    /// How the model's window is used.
    #[serde(default)]
    pub context: crate::ContextRule,
    /// Rules for commands.
    #[serde(default)]
    pub commands: CommandRules,
    /// Time of a command that names none, milliseconds.
    pub command_ms: u64,
    /// The box.
    pub sandbox: SandboxSpec,
    /// The resolved configuration as JSON, secrets masked; for people.
    #[serde(default)]
    pub config: serde_json::Value,
}

impl Plan {
    /// The enabled tool that answers to `name`.
    pub fn find_tool(&self, name: &str) -> Option<&ToolSpec> {
        self.tools.iter().chain(&self.context.recall).find(|tool| tool.answers_to(name))
    }

    /// The tools of a request of a run whose conversation was compacted so often.
    pub fn offered_tools(&self, compactions: u32) -> impl Iterator<Item = &ToolSpec> {
        self.tools.iter().chain(self.context.recall.iter().filter(move |_| compactions > 0))
    }

    /// Whether the run needs a box at all: one whose tools touch nothing works without.
    pub fn needs_sandbox(&self) -> bool {
        let program = matches!(self.executor, Executor::Subprocess { .. });
        let touches = self.tools.iter().any(|tool| tool.access != ToolAccess::Nothing);
        program || (self.tool_layer == ToolLayer::Real && touches)
    }

    /// Those that the run may ask, in order: the route, then the fallbacks.
    pub fn targets(&self) -> impl Iterator<Item = TargetRef<'_>> {
        let first =
            TargetRef { route: &self.route, facts: &self.facts, organization: self.organization.as_deref() };
        let others = self.fallbacks.iter().map(|target| TargetRef {
            route: &target.route,
            facts: &target.facts,
            organization: target.organization.as_deref(),
        });
        std::iter::once(first).chain(others)
    }

    /// The one at this place; the first if there are not so many.
    pub fn target_at(&self, at: u32) -> TargetRef<'_> {
        let first =
            TargetRef { route: &self.route, facts: &self.facts, organization: self.organization.as_deref() };
        self.targets().nth(at as usize).unwrap_or(first)
    }

    /// The context budget in characters: tokens × 4 × 0.85 (MEM-3).
    pub const fn context_chars(&self) -> u64 {
        self.facts.window.saturating_mul(34) / 10
    }

    /// The longest tool result in characters that a request may hold (LOOP-11).
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
