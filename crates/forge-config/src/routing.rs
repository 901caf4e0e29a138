//! The settings of routing, agents and learning.

use serde::{Deserialize, Serialize};

/// Selection of the model by the task's complexity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TierMode {
    /// Enabled as soon as a tier has a model.
    Auto,
    /// Always enabled.
    On,
    /// Never enabled.
    Off,
}

/// The classifier of task complexity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClassifierKind {
    /// A heuristic on the task's text.
    Heuristic,
    /// A model.
    Model,
}

/// Settings of `[routing]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoutingSettings {
    /// Selection of the model by the task's complexity.
    pub tiers: TierMode,
    /// Score for simplicity from which a task counts as simple.
    pub simple_threshold: f64,
    /// Score for complexity from which a task counts as hard.
    pub complex_threshold: f64,
    /// Model for simple tasks.
    pub simple_model: Option<String>,
    /// Model for tasks in between.
    pub medium_model: Option<String>,
    /// Model for hard tasks.
    pub complex_model: Option<String>,
    /// Classifier of task complexity.
    pub classifier: ClassifierKind,
    /// Escalation steps, from weaker to stronger models. Empty means the built-in ones.
    pub escalation: Vec<String>,
    /// Whether pinned models are escalated too.
    pub escalate_pinned: bool,
}

/// Settings of `[agents.<a>]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentModel {
    /// Model of the agent.
    pub model: Option<String>,
    /// Whether the agent uses no other model.
    pub pin: bool,
}

/// Settings of `[flywheel]`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FlywheelSettings {
    /// Share of choices that are made at random.
    pub explore: f64,
}
