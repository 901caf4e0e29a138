//! The plan of a run: all inputs of its decisions, frozen by hash when the run is created.

use crate::{
    Executor, ModelRoute, ModelSettings, Money, Price, ReferenceModel, RoutingChoice, RunLimits, SandboxSpec,
    ToolAccess, ToolLayer, ToolSpec,
};
use serde::{Deserialize, Serialize};

/// The bounds of the length of a tool result in a request, in characters.
const MIN_RESULT_CHARS: u64 = 2_000;
const MAX_RESULT_CHARS: u64 = 400_000;

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

/// The part of a plan that every kind of work has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SharedPlan {
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
    /// Allowed targets for pull requests.
    #[serde(default)]
    pub pull_requests: PullRequestRules,
    /// Default time limit of a command, in milliseconds.
    pub command_ms: u64,
    /// The sandbox.
    pub sandbox: SandboxSpec,
    /// The resolved configuration as JSON with redacted secrets; for display.
    #[serde(default)]
    pub config: serde_json::Value,
}

/// The plan of an agent: a model with tools, or an executor in its place.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AgentPlan {
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
    /// Retries of model calls.
    #[serde(default)]
    pub retry: RetryRule,
    /// Rules for the use of the context window.
    #[serde(default)]
    pub context: crate::ContextRule,
    /// Rules for commands.
    #[serde(default)]
    pub commands: CommandRules,
}

/// A node of a pipeline: an agent that works as a run of its own, a child of the pipeline's run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PipelineNode {
    /// The name of the node, unique in its pipeline.
    pub name: String,
    /// The task of the child run.
    pub task: String,
    /// Names of the nodes that must have completed before this one starts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<String>,
    /// The sandbox that the node asks for; the child gets at most what the pipeline's run has.
    pub sandbox: SandboxSpec,
    /// The plan of the agent.
    pub agent: AgentPlan,
}

/// The plan of a pipeline: a graph of nodes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PipelinePlan {
    /// The nodes in the order of their definition.
    pub nodes: Vec<PipelineNode>,
}

/// The work of a run, which determines its decider.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Work {
    /// An agent.
    Agent(Box<AgentPlan>),
    /// A graph of child runs.
    Pipeline(PipelinePlan),
}

/// The frozen plan of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Version of this format.
    pub version: u32,
    /// The part that every kind of work has.
    pub shared: SharedPlan,
    /// The work.
    pub work: Work,
}

/// An agent's plan together with the shared part of the run's plan.
#[derive(Clone, Copy, Debug)]
pub struct AgentPlanRef<'a> {
    /// The part that every kind of work has.
    pub shared: &'a SharedPlan,
    /// The part of the agent.
    pub agent: &'a AgentPlan,
}

impl AgentPlan {
    /// Returns the enabled tool with `name` as its name or alias.
    pub fn find_tool(&self, name: &str) -> Option<&ToolSpec> {
        self.tools.iter().chain(&self.context.recall).find(|tool| tool.answers_to(name))
    }

    /// Returns the tools offered in a request after `compactions` compactions.
    pub fn offered_tools(&self, compactions: u32) -> impl Iterator<Item = &ToolSpec> {
        self.tools.iter().chain(self.context.recall.iter().filter(move |_| compactions > 0))
    }

    /// Returns whether the agent needs a sandbox; it does not if its tools use no resources.
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
        if quarter < MIN_RESULT_CHARS {
            MIN_RESULT_CHARS
        } else if quarter > MAX_RESULT_CHARS {
            MAX_RESULT_CHARS
        } else {
            quarter
        }
    }
}

impl Plan {
    /// The version of the format that this build writes.
    const VERSION: u32 = 2;

    /// Creates a plan.
    pub const fn new(shared: SharedPlan, work: Work) -> Self {
        Self { version: Self::VERSION, shared, work }
    }

    /// Creates the plan of a run that is the work of one agent.
    pub fn for_agent(shared: SharedPlan, agent: AgentPlan) -> Self {
        Self::new(shared, Work::Agent(Box::new(agent)))
    }

    /// Reads a plan that this build or an earlier one wrote. In the first version both parts of an agent's plan were
    /// one object.
    ///
    /// # Errors
    /// If the text is no plan, or one of a later version.
    pub fn from_json(json: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(json).or_else(|error| {
            let parts = (serde_json::from_slice(json), serde_json::from_slice(json));
            match parts {
                (Ok(shared), Ok(agent)) => Ok(Self::for_agent(shared, agent)),
                _ => Err(error),
            }
        })
    }

    /// Returns the plan of the agent, if the work is an agent's.
    pub fn agent(&self) -> Option<AgentPlanRef<'_>> {
        match &self.work {
            Work::Agent(agent) => Some(AgentPlanRef { shared: &self.shared, agent }),
            Work::Pipeline(_) => None,
        }
    }

    /// Returns the plan of the agent for a change before the run is created, if the work is an agent's.
    pub fn agent_mut(&mut self) -> Option<&mut AgentPlan> {
        match &mut self.work {
            Work::Agent(agent) => Some(agent),
            Work::Pipeline(_) => None,
        }
    }

    /// Returns the provider and model at this index, or the first; `None` if the run calls no model itself.
    pub fn route_at(&self, target: u32) -> Option<&ModelRoute> {
        self.agent().map(|plan| &plan.agent.target_at(target).route)
    }

    /// Returns whether the run needs a sandbox of its own.
    pub fn needs_sandbox(&self) -> bool {
        self.agent().is_some_and(|plan| plan.agent.needs_sandbox())
    }

    /// Returns the maximum length of a tool result in a request, in characters.
    pub fn result_chars(&self) -> u64 {
        self.agent().map_or(MAX_RESULT_CHARS, |plan| plan.agent.result_chars())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The plan of a router in the first version of the format.
    const FIRST_VERSION: &str = r#"{
        "version": 1, "route": {"provider": "p", "model": "m"},
        "facts": {"price": null, "window": 1000, "max_output": null},
        "settings": {"max_tokens": 10, "temperature": null, "top_p": null, "timeout_ms": 1},
        "system": "be good", "tools": [], "alert_percent": 80, "command_ms": 5,
        "limits": LIMITS, "sandbox": SANDBOX, "day_ceiling": 7
    }"#;

    #[test]
    fn a_plan_of_the_first_version_is_read() {
        let limits = serde_json::to_string(&RunLimits { max_iterations: 3, ..RunLimits::default() }).unwrap();
        let sandbox = serde_json::to_string(&SandboxSpec::new("native", "/repo")).unwrap();
        let json = FIRST_VERSION.replace("LIMITS", &limits).replace("SANDBOX", &sandbox);
        let plan = Plan::from_json(json.as_bytes()).unwrap();
        let agent = plan.agent().unwrap();
        assert_eq!(agent.agent.system, "be good");
        assert_eq!(agent.agent.first.route.model, "m");
        assert_eq!(agent.shared.limits.max_iterations, 3);
        assert_eq!(agent.shared.day_ceiling, Some(Money(7)));
        assert_eq!(agent.shared.sandbox, SandboxSpec::new("native", "/repo"));
        let now = serde_json::to_vec(&plan).unwrap();
        assert_eq!(Plan::from_json(&now).unwrap(), plan);
        assert!(Plan::from_json(br#"{"version": 1}"#).is_err());
    }
}
