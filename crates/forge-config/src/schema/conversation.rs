//! The keys of executors, the router and the memory of conversations.

use super::rows::{ONE_LINE, env_alias, foreign_alias, int_kind, number_kind};
use super::{DefaultValue, KeyKind, SchemaKey, TextLines, TrustRule};

/// The keys in the order of the documentation.
pub(super) const CONVERSATION_KEYS: &[SchemaKey] = &[
    SchemaKey::new(
        "executor",
        KeyKind::Choice(&[("react", &[]), ("router", &[]), ("subprocess", &[]), ("stub", &[])]),
        DefaultValue::Text("react"),
        TrustRule::Ask,
        "Executor of a task: `react` is a model that calls tools until it is done, `router` a (small) model that names \
         one tool per step, `subprocess` your own program in the sandbox, `stub` canned replies.",
    )
    .with_paths(&["agent.executor"]),
    SchemaKey::new(
        "framework",
        KeyKind::Choice(&[("forge", &[]), ("crewai", &[]), ("langchain", &[])]),
        DefaultValue::Text("forge"),
        TrustRule::Ask,
        "Framework of the project's own agent. With `crewai` or `langchain`, and without `executor`, the program \
         `entrypoint` executes tasks.",
    )
    .with_paths(&["agent.framework"]),
    SchemaKey::new(
        "entrypoint",
        ONE_LINE,
        DefaultValue::Unset,
        TrustRule::Ask,
        "Program of the executor `subprocess` with its arguments. It is started in the repository inside the sandbox; \
         files that end in `.py` are run with python3.",
    )
    .with_paths(&["agent.entrypoint"]),
    SchemaKey::new(
        "agent.stub_replies",
        KeyKind::Text(TextLines::Multiple),
        DefaultValue::Unset,
        TrustRule::Ask,
        "Replies of the executor `stub`, one per line; `\\n` in a line is a line break.",
    ),
    SchemaKey::new(
        "tools.mock",
        KeyKind::Bool,
        DefaultValue::Bool(false),
        TrustRule::Ask,
        "Whether tools are only simulated: each call returns its arguments, and nothing is executed.",
    ),
    SchemaKey::new(
        "router.max_steps",
        int_kind(1, 100),
        DefaultValue::Int(1),
        TrustRule::Lower,
        "Largest number of steps in a run of the router; a step is one model reply and one tool.",
    )
    .with_env(&[foreign_alias("MAX_STEPS")]),
    SchemaKey::new(
        "router.debug",
        KeyKind::Bool,
        DefaultValue::Bool(false),
        TrustRule::Off,
        "Whether each step of the router is reported on stderr: prompt, raw reply, decision, tool and result.",
    )
    .with_env(&[foreign_alias("SHOW_DEBUG")]),
    SchemaKey::new(
        "memory.enabled",
        KeyKind::Bool,
        DefaultValue::Bool(true),
        TrustRule::Off,
        "Whether conversations are stored in a file, together with facts that are part of every prompt.",
    )
    .with_env(&[env_alias("MEMORY_ENABLED")]),
    SchemaKey::new(
        "memory.file",
        KeyKind::Path,
        DefaultValue::Unset,
        TrustRule::Ask,
        "File of the memory. Unset: a file per repository in your data directory. A file in the repository is used \
         only if Forge wrote its present content.",
    )
    .with_env(&[env_alias("MEMORY_FILE")]),
    SchemaKey::new(
        "memory.max_history",
        int_kind(0, 2_000),
        DefaultValue::Int(20),
        TrustRule::Lower,
        "Largest number of earlier messages that a turn receives, as far as they fit the model's context window.",
    )
    .with_env(&[env_alias("MEMORY_MAX_HISTORY")]),
    SchemaKey::new(
        "memory.trigger_ratio",
        number_kind(0.1, 0.95),
        DefaultValue::Number(0.6),
        TrustRule::Lower,
        "Share of the model's context window that a prompt may fill. Beyond it, the oldest half of the conversation is \
         replaced by a summary.",
    )
    .with_env(&[env_alias("MEMORY_TRIGGER_RATIO")]),
];
