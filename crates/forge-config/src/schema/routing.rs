//! The keys of fallbacks, routing and agents.

use super::rows::{ONE_LINE, env_alias, foreign_alias, int_kind, number_kind, seconds_kind};
use super::{DefaultValue, KeyKind, ListElement, SchemaKey, TrustRule};

const fn agent_model_key(path: &'static str) -> SchemaKey {
    SchemaKey::new(
        path,
        KeyKind::Model,
        DefaultValue::Unset,
        TrustRule::Ask,
        "Model of this agent, as `provider/model`; it is tried first.",
    )
}

const fn agent_pin_key(path: &'static str) -> SchemaKey {
    SchemaKey::new(
        path,
        KeyKind::Bool,
        DefaultValue::Bool(false),
        TrustRule::Ask,
        "Whether this agent uses only its model, however hard the task is.",
    )
}

/// The keys in the order of the documentation.
pub(super) const ROUTING_KEYS: &[SchemaKey] = &[
    SchemaKey::new(
        "model.fallbacks",
        KeyKind::List(ListElement::Fallback),
        DefaultValue::Empty,
        TrustRule::Ask,
        "Models to use, in order, when the configured model is unavailable: `provider`, `provider:model`, or a table \
         of `provider`, `name` and `organization_id`. Unset: every provider with an API key. `none`: no fallback.",
    ),
    SchemaKey::new(
        "model.tries",
        int_kind(1, 20),
        DefaultValue::Int(5),
        TrustRule::Ask,
        "Largest number of attempts of one model call at one provider.",
    ),
    SchemaKey::new(
        "model.max_wait_seconds",
        seconds_kind(1, 3_600),
        DefaultValue::Int(300),
        TrustRule::Ask,
        "Longest total time that one model call may spend waiting between attempts.",
    ),
    SchemaKey::new(
        "routing.tiers",
        KeyKind::Choice(&[("auto", &[]), ("on", &[]), ("off", &[])]),
        DefaultValue::Text("auto"),
        TrustRule::Ask,
        "Whether the task's complexity selects the model: `auto` if one of the three models below is set; `on` always, \
         with `openai/gpt-4o-mini` for simple and hard tasks without a model; `off` never.",
    ),
    SchemaKey::new(
        "routing.simple_threshold",
        number_kind(0.0, 1.0),
        DefaultValue::Number(0.3),
        TrustRule::Ask,
        "Score for simplicity from which a task counts as simple.",
    )
    .with_env(&[foreign_alias("COMPLEXITY_SIMPLE_THRESHOLD")]),
    SchemaKey::new(
        "routing.complex_threshold",
        number_kind(0.0, 1.0),
        DefaultValue::Number(0.7),
        TrustRule::Ask,
        "Score for complexity from which a task counts as hard; above `routing.simple_threshold`.",
    )
    .with_env(&[foreign_alias("COMPLEXITY_COMPLEX_THRESHOLD")]),
    SchemaKey::new(
        "routing.simple_model",
        KeyKind::Model,
        DefaultValue::Unset,
        TrustRule::Ask,
        "Model for simple tasks, as `provider/model`.",
    )
    .with_env(&[env_alias("DEFAULT_SIMPLE_MODEL")]),
    SchemaKey::new(
        "routing.medium_model",
        KeyKind::Model,
        DefaultValue::Unset,
        TrustRule::Ask,
        "Model for tasks in between, as `provider/model`. Unset: `routing.simple_model`.",
    ),
    SchemaKey::new(
        "routing.complex_model",
        KeyKind::Model,
        DefaultValue::Unset,
        TrustRule::Ask,
        "Model for hard tasks, as `provider/model`.",
    )
    .with_env(&[env_alias("DEFAULT_COMPLEX_MODEL")]),
    SchemaKey::new(
        "routing.classifier",
        KeyKind::Choice(&[("heuristic", &[]), ("model", &["llm"])]),
        DefaultValue::Text("heuristic"),
        TrustRule::Ask,
        "Classifier of task complexity: a `heuristic` on the task's text, or the `model` for simple tasks, called once \
         before the run (if the call fails, the heuristic decides).",
    ),
    SchemaKey::new(
        "routing.escalation",
        KeyKind::List(ListElement::Model),
        DefaultValue::Empty,
        TrustRule::Ask,
        "Escalation steps after failed repairs, from weaker to stronger models, as `provider/model`. Empty: \
         openai/gpt-4o-mini, openai/gpt-4o, anthropic/claude-sonnet-4-20250514.",
    ),
    SchemaKey::new(
        "routing.escalate_pinned",
        KeyKind::Bool,
        DefaultValue::Bool(false),
        TrustRule::Ask,
        "Whether repairs in a run with a pinned model are escalated too.",
    ),
    agent_model_key("agents.planner.model"),
    agent_pin_key("agents.planner.pin"),
    agent_model_key("agents.coder.model"),
    agent_pin_key("agents.coder.pin"),
    agent_model_key("agents.reviewer.model"),
    agent_pin_key("agents.reviewer.pin"),
    agent_model_key("agents.deployer.model"),
    agent_pin_key("agents.deployer.pin"),
    agent_model_key("agents.verifier.model"),
    agent_pin_key("agents.verifier.pin"),
    agent_model_key("agents.researcher.model"),
    agent_pin_key("agents.researcher.pin"),
    agent_model_key("agents.chat.model"),
    agent_pin_key("agents.chat.pin"),
    SchemaKey::new(
        "flywheel.explore",
        number_kind(0.0, 1.0),
        DefaultValue::Number(0.05),
        TrustRule::Ask,
        "Share of weighted choices that are made at random, to learn how other models perform.",
    ),
    SchemaKey::new(
        "cost.reference_model",
        ONE_LINE,
        DefaultValue::Text("gpt-4o"),
        TrustRule::Ask,
        "Reference model for cost comparisons, as `provider/model` or a name in the price table.",
    ),
];
