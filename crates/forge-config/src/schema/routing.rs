//! The keys of fallbacks, routing and agents.

use super::table::{ONE_LINE, env_alias, foreign_alias, int_kind, number_kind, seconds_kind};
use super::{DefaultValue, KeyKind, ListElement, SchemaKey, TrustRule};

const fn agent_model_key(path: &'static str) -> SchemaKey {
    SchemaKey::new(
        path,
        KeyKind::Model,
        DefaultValue::Unset,
        TrustRule::Ask,
        "Model of this agent, as `provider/model`: the first of its candidates.",
    )
}

const fn agent_pin_key(path: &'static str) -> SchemaKey {
    SchemaKey::new(
        path,
        KeyKind::Bool,
        DefaultValue::Bool(false),
        TrustRule::Ask,
        "Whether this agent asks its model and no other, however hard the task is.",
    )
}

/// The keys in the order of the documentation.
pub(super) const ROUTING_KEYS: &[SchemaKey] = &[
    SchemaKey::new(
        "model.fallbacks",
        KeyKind::List(ListElement::Fallback),
        DefaultValue::Empty,
        TrustRule::Ask,
        "Whom to ask when the model can't be had, in order: `provider`, `provider:model`, or a table of `provider`, \
         `name` and `organization_id`. Unset: every provider with a key. `none`: nobody.",
    ),
    SchemaKey::new(
        "model.tries",
        int_kind(1, 20),
        DefaultValue::Int(5),
        TrustRule::Ask,
        "Tries of one model call at one provider.",
    ),
    SchemaKey::new(
        "model.max_wait_seconds",
        seconds_kind(1, 3_600),
        DefaultValue::Int(300),
        TrustRule::Ask,
        "Longest time that all waits before the tries of one model call may take together.",
    ),
    SchemaKey::new(
        "routing.tiers",
        KeyKind::Choice(&[("auto", &[]), ("on", &[]), ("off", &[])]),
        DefaultValue::Text("auto"),
        TrustRule::Ask,
        "Whether the task's complexity chooses the model: `auto` does as soon as one of the three models below is set; \
         `on` does in any case, with `openai/gpt-4o-mini` for simple and hard tasks where none is set; `off` never.",
    ),
    SchemaKey::new(
        "routing.simple_threshold",
        number_kind(0.0, 1.0),
        DefaultValue::Number(0.3),
        TrustRule::Ask,
        "Simple score from which a task is simple.",
    )
    .with_env(&[foreign_alias("COMPLEXITY_SIMPLE_THRESHOLD")]),
    SchemaKey::new(
        "routing.complex_threshold",
        number_kind(0.0, 1.0),
        DefaultValue::Number(0.7),
        TrustRule::Ask,
        "Hard score from which a task is hard; above `routing.simple_threshold`.",
    )
    .with_env(&[foreign_alias("COMPLEXITY_COMPLEX_THRESHOLD")]),
    SchemaKey::new(
        "routing.simple_model",
        KeyKind::Model,
        DefaultValue::Unset,
        TrustRule::Ask,
        "Model of simple tasks, as `provider/model`.",
    )
    .with_env(&[env_alias("DEFAULT_SIMPLE_MODEL")]),
    SchemaKey::new(
        "routing.medium_model",
        KeyKind::Model,
        DefaultValue::Unset,
        TrustRule::Ask,
        "Model of tasks in between, as `provider/model`. Unset: `routing.simple_model`.",
    ),
    SchemaKey::new(
        "routing.complex_model",
        KeyKind::Model,
        DefaultValue::Unset,
        TrustRule::Ask,
        "Model of hard tasks, as `provider/model`.",
    )
    .with_env(&[env_alias("DEFAULT_COMPLEX_MODEL")]),
    SchemaKey::new(
        "routing.classifier",
        KeyKind::Choice(&[("heuristic", &[]), ("model", &["llm"])]),
        DefaultValue::Text("heuristic"),
        TrustRule::Ask,
        "Who tells how hard a task is: a `heuristic` over its text, or the `model` of simple tasks, asked once before the \
         run begins (on any fault the heuristic answers).",
    ),
    SchemaKey::new(
        "routing.escalation",
        KeyKind::List(ListElement::Model),
        DefaultValue::Empty,
        TrustRule::Ask,
        "Stronger and stronger models for repairs that failed, as `provider/model`. Empty: openai/gpt-4o-mini, \
         openai/gpt-4o, anthropic/claude-sonnet-4-20250514.",
    ),
    SchemaKey::new(
        "routing.escalate_pinned",
        KeyKind::Bool,
        DefaultValue::Bool(false),
        TrustRule::Ask,
        "Whether repairs of a run whose model is pinned ask a stronger one too.",
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
        "Share of choices by weights that are made by lot, to learn how other models do.",
    ),
    SchemaKey::new(
        "cost.reference_model",
        ONE_LINE,
        DefaultValue::Text("gpt-4o"),
        TrustRule::Ask,
        "Model that the cost of runs is compared with, as `provider/model` or a name that the price table knows.",
    ),
];
