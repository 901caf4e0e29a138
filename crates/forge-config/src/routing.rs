//! The settings of routing, agents and what is learned.

use serde::{Deserialize, Serialize};

/// Whether the task's complexity chooses the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TierMode {
    /// As soon as a tier has a model.
    Auto,
    /// Always.
    On,
    /// Never.
    Off,
}

/// Who tells how hard a task is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClassifierKind {
    /// A heuristic over its text.
    Heuristic,
    /// A model.
    Model,
}

/// `[routing]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoutingSettings {
    /// Whether the task's complexity chooses the model.
    pub tiers: TierMode,
    /// Simple score from which a task is simple.
    pub simple_threshold: f64,
    /// Hard score from which a task is hard.
    pub complex_threshold: f64,
    /// Model of simple tasks.
    pub simple_model: Option<String>,
    /// Model of tasks in between.
    pub medium_model: Option<String>,
    /// Model of hard tasks.
    pub complex_model: Option<String>,
    /// Who tells how hard a task is.
    pub classifier: ClassifierKind,
    /// Stronger and stronger models; empty: those that are built in.
    pub escalation: Vec<String>,
    /// Whether pinned models are escalated too.
    pub escalate_pinned: bool,
}

/// `[agents.<a>]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentModel {
    /// Its model.
    pub model: Option<String>,
    /// Whether it asks no other.
    pub pin: bool,
}

/// `[flywheel]`
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FlywheelSettings {
    /// Share of choices that are made by lot.
    pub explore: f64,
}
