//! The limits of a run, each of which ends it in `timed_out`.

use crate::Money;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Which limit ended a run.
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
    /// The name on the wire.
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

/// What reaching a limit does.
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
    /// Reply tokens plus uncached prompt tokens.
    pub max_tokens: u64,
    /// Milliseconds from the first start, without the time spent waiting for a person.
    pub max_duration_ms: u64,
    /// What all model calls together may cost.
    pub max_cost: Money,
    /// What all runs of a day may cost together, in place of the plan's ceiling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub day_cost: Option<Money>,
    /// Tool calls taken from one reply; the rest are refused.
    pub max_tool_calls_per_turn: u32,
    /// Commands of `run_shell` in the run.
    pub max_shell_commands: u32,
    /// What reaching one of them does.
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
