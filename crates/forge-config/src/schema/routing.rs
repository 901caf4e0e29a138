//! The keys of fallbacks, routing and agents.

use super::table::{ONE_LINE, alias, foreign, int, number, seconds};
use super::{Element, Key, Kind, Preset, Trust};

const fn agent_model(path: &'static str) -> Key {
    Key::new(
        path,
        Kind::Model,
        Preset::Unset,
        Trust::Ask,
        "Model of this agent, as `provider/model`: the first of its candidates.",
    )
}

const fn agent_pin(path: &'static str) -> Key {
    Key::new(
        path,
        Kind::Bool,
        Preset::Bool(false),
        Trust::Ask,
        "Whether this agent asks its model and no other, however hard the task is.",
    )
}

/// Every key of them, in the order of the documentation.
pub(super) const KEYS: &[Key] = &[
    Key::new(
        "model.fallbacks",
        Kind::List(Element::Fallback),
        Preset::Empty,
        Trust::Ask,
        "Whom to ask when the model can't be had, in order: `provider`, `provider:model`, or a table of `provider`, \
         `name` and `organization_id`. Unset: every provider with a key. `none`: nobody.",
    ),
    Key::new(
        "model.tries",
        int(1, 20),
        Preset::Int(5),
        Trust::Ask,
        "Tries of one model call at one provider.",
    ),
    Key::new(
        "model.max_wait_seconds",
        seconds(1, 3_600),
        Preset::Int(300),
        Trust::Ask,
        "Longest time that all waits before the tries of one model call may take together.",
    ),
    Key::new(
        "routing.tiers",
        Kind::Choice(&[("auto", &[]), ("on", &[]), ("off", &[])]),
        Preset::Text("auto"),
        Trust::Ask,
        "Whether the task's complexity chooses the model: `auto` does as soon as one of the three models below is set; \
         `on` does in any case, with `openai/gpt-4o-mini` for simple and hard tasks where none is set; `off` never.",
    ),
    Key::new(
        "routing.simple_threshold",
        number(0.0, 1.0),
        Preset::Number(0.3),
        Trust::Ask,
        "Simple score from which a task is simple.",
    )
    .env(&[foreign("COMPLEXITY_SIMPLE_THRESHOLD")]),
    Key::new(
        "routing.complex_threshold",
        number(0.0, 1.0),
        Preset::Number(0.7),
        Trust::Ask,
        "Hard score from which a task is hard; above `routing.simple_threshold`.",
    )
    .env(&[foreign("COMPLEXITY_COMPLEX_THRESHOLD")]),
    Key::new(
        "routing.simple_model",
        Kind::Model,
        Preset::Unset,
        Trust::Ask,
        "Model of simple tasks, as `provider/model`.",
    )
    .env(&[alias("DEFAULT_SIMPLE_MODEL")]),
    Key::new(
        "routing.medium_model",
        Kind::Model,
        Preset::Unset,
        Trust::Ask,
        "Model of tasks in between, as `provider/model`. Unset: `routing.simple_model`.",
    ),
    Key::new(
        "routing.complex_model",
        Kind::Model,
        Preset::Unset,
        Trust::Ask,
        "Model of hard tasks, as `provider/model`.",
    )
    .env(&[alias("DEFAULT_COMPLEX_MODEL")]),
    Key::new(
        "routing.classifier",
        Kind::Choice(&[("heuristic", &[]), ("model", &["llm"])]),
        Preset::Text("heuristic"),
        Trust::Ask,
        "Who tells how hard a task is: a `heuristic` over its text, or the `model` of simple tasks, asked once before the \
         run begins (on any fault the heuristic answers).",
    ),
    Key::new(
        "routing.escalation",
        Kind::List(Element::Model),
        Preset::Empty,
        Trust::Ask,
        "Stronger and stronger models for repairs that failed, as `provider/model`. Empty: openai/gpt-4o-mini, \
         openai/gpt-4o, anthropic/claude-sonnet-4-20250514.",
    ),
    Key::new(
        "routing.escalate_pinned",
        Kind::Bool,
        Preset::Bool(false),
        Trust::Ask,
        "Whether repairs of a run whose model is pinned ask a stronger one too.",
    ),
    agent_model("agents.planner.model"),
    agent_pin("agents.planner.pin"),
    agent_model("agents.coder.model"),
    agent_pin("agents.coder.pin"),
    agent_model("agents.reviewer.model"),
    agent_pin("agents.reviewer.pin"),
    agent_model("agents.deployer.model"),
    agent_pin("agents.deployer.pin"),
    agent_model("agents.verifier.model"),
    agent_pin("agents.verifier.pin"),
    agent_model("agents.researcher.model"),
    agent_pin("agents.researcher.pin"),
    agent_model("agents.chat.model"),
    agent_pin("agents.chat.pin"),
    Key::new(
        "flywheel.explore",
        number(0.0, 1.0),
        Preset::Number(0.05),
        Trust::Ask,
        "Share of choices by weights that are made by lot, to learn how other models do.",
    ),
    Key::new(
        "cost.reference_model",
        ONE_LINE,
        Preset::Text("gpt-4o"),
        Trust::Ask,
        "Model that the cost of runs is compared with, as `provider/model` or a name that the price table knows.",
    ),
];
