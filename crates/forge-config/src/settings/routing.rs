//! Settings of routing, agents and learning.

use super::definition::{choices, settings};
use crate::schema::key::SchemaKey;

choices! {
    /// Selection of the model by the task's complexity.
    pub enum TierMode {
        /// Enabled as soon as a tier has a model.
        Auto = "auto",
        /// Always enabled.
        On = "on",
        /// Never enabled.
        Off = "off",
    }
}

choices! {
    /// The classifier of task complexity.
    pub enum ClassifierKind {
        /// A heuristic on the task's text.
        Heuristic = "heuristic",
        /// A model.
        Model = "model" | "llm",
    }
}

settings! {
    /// Settings of `[routing]`.
    pub struct RoutingSettings in "routing." {
        keys ROUTING_KEYS:
        /// Whether the task's complexity selects the model: `auto` if one of the three models below is set; `on`
        /// always, with `openai/gpt-4o-mini` for simple and hard tasks without a model; `off` never.
        tiers: TierMode = Text("auto"), TierMode::KIND, Ask;
        /// Score for simplicity from which a task counts as simple.
        simple_threshold: f64 = Number(0.3), number_kind(0.0, 1.0), Ask,
            with_env(foreign_alias("COMPLEXITY_SIMPLE_THRESHOLD"));
        /// Score for complexity from which a task counts as hard; above `routing.simple_threshold`.
        complex_threshold: f64 = Number(0.7), number_kind(0.0, 1.0), Ask,
            with_env(foreign_alias("COMPLEXITY_COMPLEX_THRESHOLD"));
        /// Model for simple tasks, as `provider/model`.
        simple_model: Option<String> = Unset, KeyKind::Model, Ask, with_env(env_alias("DEFAULT_SIMPLE_MODEL"));
        /// Model for tasks in between, as `provider/model`. Unset: `routing.simple_model`.
        medium_model: Option<String> = Unset, KeyKind::Model, Ask;
        /// Model for hard tasks, as `provider/model`.
        complex_model: Option<String> = Unset, KeyKind::Model, Ask, with_env(env_alias("DEFAULT_COMPLEX_MODEL"));
        /// Classifier of task complexity: a `heuristic` on the task's text, or the `model` for simple tasks, called
        /// once before the run (if the call fails, the heuristic decides).
        classifier: ClassifierKind = Text("heuristic"), ClassifierKind::KIND, Ask;
        /// Escalation steps after failed repairs, from weaker to stronger models, as `provider/model`. Empty:
        /// openai/gpt-4o-mini, openai/gpt-4o, anthropic/claude-sonnet-4-20250514.
        escalation: Vec<String> = Empty, KeyKind::List(ListElement::Model), Ask;
        /// Whether repairs in a run with a pinned model are escalated too.
        escalate_pinned: bool = Bool(false), KeyKind::Bool, Ask;
    }
}

settings! {
    /// Settings of `[agents.<a>]`.
    #[derive(Default, Eq)]
    pub struct AgentModel in "agents.<a>." {
        keys ANY_AGENT_KEYS:
        /// Model of this agent, as `provider/model`; it is tried first.
        model: Option<String> = Unset, KeyKind::Model, Ask;
        /// Whether this agent uses only its model, however hard the task is.
        pin: bool = Bool(false), KeyKind::Bool, Ask;
    }
}

/// Returns the rows of each agent.
macro_rules! agent_keys {
    ($($agent:literal),+) => {
        &[$(
            ANY_AGENT_KEYS[0].at_path(concat!("agents.", $agent, ".model")),
            ANY_AGENT_KEYS[1].at_path(concat!("agents.", $agent, ".pin")),
        )+]
    };
}

pub(crate) const AGENT_MODEL_KEYS: &[SchemaKey] =
    agent_keys!("planner", "coder", "reviewer", "deployer", "verifier", "researcher", "chat");

settings! {
    /// Settings of `[flywheel]`.
    #[derive(Copy)]
    pub struct FlywheelSettings in "flywheel." {
        keys FLYWHEEL_KEYS:
        /// Share of weighted choices that are made at random, to learn how other models perform.
        explore: f64 = Number(0.05), number_kind(0.0, 1.0), Ask;
    }
}
