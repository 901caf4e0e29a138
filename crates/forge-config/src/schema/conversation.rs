//! The keys of executors, the router and the memory of conversations.

use super::table::{ONE_LINE, env_alias, foreign_alias, int_kind, number_kind};
use super::{DefaultValue, KeyKind, SchemaKey, TextLines, TrustRule};

/// The keys in the order of the documentation.
pub(super) const CONVERSATION_KEYS: &[SchemaKey] = &[
    SchemaKey::new(
        "executor",
        KeyKind::Choice(&[("react", &[]), ("router", &[]), ("subprocess", &[]), ("stub", &[])]),
        DefaultValue::Text("react"),
        TrustRule::Ask,
        "Who works on a task: `react` is a model that calls tools until it is done, `router` a (small) model that names \
         one tool per step, `subprocess` your own program in the sandbox, `stub` canned replies.",
    )
    .with_paths(&["agent.executor"]),
    SchemaKey::new(
        "framework",
        KeyKind::Choice(&[("forge", &[]), ("crewai", &[]), ("langchain", &[])]),
        DefaultValue::Text("forge"),
        TrustRule::Ask,
        "What the project's own agent is written with: with `crewai` or `langchain`, and no `executor` set, the program \
         `entrypoint` does the work.",
    )
    .with_paths(&["agent.framework"]),
    SchemaKey::new(
        "entrypoint",
        ONE_LINE,
        DefaultValue::Unset,
        TrustRule::Ask,
        "The program of the executor `subprocess` with its arguments, started in the repository inside the sandbox; a \
         file that ends in `.py` is given to python3.",
    )
    .with_paths(&["agent.entrypoint"]),
    SchemaKey::new(
        "agent.stub_replies",
        KeyKind::Text(TextLines::Multiple),
        DefaultValue::Unset,
        TrustRule::Ask,
        "Replies of the executor `stub`, one a line; `\\n` in a line is a line end.",
    ),
    SchemaKey::new(
        "tools.mock",
        KeyKind::Bool,
        DefaultValue::Bool(false),
        TrustRule::Ask,
        "Whether tools are only pretended: each call is answered with what it was given and nothing is run.",
    ),
    SchemaKey::new(
        "router.max_steps",
        int_kind(1, 100),
        DefaultValue::Int(1),
        TrustRule::Lower,
        "Steps of one run of the router: each is one reply of the model and one tool.",
    )
    .with_env(&[foreign_alias("MAX_STEPS")]),
    SchemaKey::new(
        "router.debug",
        KeyKind::Bool,
        DefaultValue::Bool(false),
        TrustRule::Off,
        "Whether each step of the router is told on stderr: prompt, raw reply, decision, tool and result.",
    )
    .with_env(&[foreign_alias("SHOW_DEBUG")]),
    SchemaKey::new(
        "memory.enabled",
        KeyKind::Bool,
        DefaultValue::Bool(true),
        TrustRule::Off,
        "Whether conversations are remembered in a file, with facts that every prompt holds.",
    )
    .with_env(&[env_alias("MEMORY_ENABLED")]),
    SchemaKey::new(
        "memory.file",
        KeyKind::Path,
        DefaultValue::Unset,
        TrustRule::Ask,
        "The file of the memory; unset: one for each repository in your data directory. What lies in the repository counts only as Forge left it.",
    )
    .with_env(&[env_alias("MEMORY_FILE")]),
    SchemaKey::new(
        "memory.max_history",
        int_kind(0, 2_000),
        DefaultValue::Int(20),
        TrustRule::Lower,
        "Messages of earlier turns that a turn of a conversation is told, as far as they fit the model's window.",
    )
    .with_env(&[env_alias("MEMORY_MAX_HISTORY")]),
    SchemaKey::new(
        "memory.trigger_ratio",
        number_kind(0.1, 0.95),
        DefaultValue::Number(0.6),
        TrustRule::Lower,
        "Share of the model's window that a prompt may fill; beyond it the oldest half of the conversation gives way to a \
         summary.",
    )
    .with_env(&[env_alias("MEMORY_TRIGGER_RATIO")]),
];
