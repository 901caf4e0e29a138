//! The plan of a run: everything its decisions depend on, frozen by hash when the run is created.

use crate::{Limits, ModelSettings, Money, Price, Route, SandboxSpec, ToolSpec};
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
}

impl Default for RetryRule {
    fn default() -> Self {
        Self { tries: 5, base_ms: 2_000, cap_ms: 30_000 }
    }
}

/// The frozen plan of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Version of this shape.
    pub version: u32,
    /// Whom to ask.
    pub route: Route,
    /// What is known of that model.
    pub facts: ModelFacts,
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
    pub limits: Limits,
    /// What a cost ceiling does where the price is unknown.
    #[serde(default)]
    pub cost_rule: CostRule,
    /// Share of a budget in percent at which an alert is shown.
    pub alert_percent: u8,
    /// Ceiling of all runs of one day together, if one is set.
    #[serde(default)]
    pub day_ceiling: Option<Money>,
    /// Retries of model calls.
    #[serde(default)]
    pub retry: RetryRule,
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
    pub fn tool(&self, name: &str) -> Option<&ToolSpec> {
        self.tools.iter().find(|tool| tool.answers_to(name))
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
