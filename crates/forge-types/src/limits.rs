//! The limits of a run. Each of them ends the run as `timed_out`.

use crate::Money;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The limit that ended a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LimitKind {
    /// `agent.max_iterations`
    Iterations,
    /// `agent.max_tokens_per_run`
    Tokens,
    /// `runtime.max_pipeline_duration_ms`
    WallClock,
    /// `agent.max_cost_usd`
    Cost,
    /// `router.max_steps`
    Steps,
}

impl LimitKind {
    /// Returns the name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Iterations => "iterations",
            Self::Tokens => "tokens",
            Self::WallClock => "wall_clock",
            Self::Cost => "cost",
            Self::Steps => "steps",
        }
    }
}

impl fmt::Display for LimitKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The reaction to a reached limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnLimit {
    /// The run ends as `timed_out`.
    #[default]
    End,
    /// The run waits (`budget`) until its limit is raised.
    Wait,
}

/// The limits of one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunLimits {
    /// Model turns.
    pub max_iterations: u32,
    /// Reply tokens and uncached prompt tokens.
    pub max_tokens: u64,
    /// Milliseconds since the first start, excluding time spent waiting for a person.
    pub max_duration_ms: u64,
    /// Maximum cost of all model calls together.
    pub max_cost: Money,
    /// Maximum cost of all runs of a day together; overrides the plan's ceiling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub day_cost: Option<Money>,
    /// Tool calls accepted from one reply; the others are rejected.
    pub max_tool_calls_per_turn: u32,
    /// `run_shell` commands per run.
    pub max_shell_commands: u32,
    /// The reaction to a reached limit.
    #[serde(default)]
    pub on_limit: OnLimit,
}

impl Default for RunLimits {
    fn default() -> Self {
        Self {
            max_iterations: 25,
            max_tokens: 200_000,
            max_duration_ms: 600_000,
            max_cost: Money(1_000_000_000_000),
            day_cost: None,
            max_tool_calls_per_turn: 10,
            max_shell_commands: 50,
            on_limit: OnLimit::End,
        }
    }
}
