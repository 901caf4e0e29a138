//! The keys of executors, the router and the memory of conversations.

use super::table::{ONE_LINE, alias, foreign, int, number};
use super::{Key, Kind, Lines, Preset, Trust};

/// In the order of the documentation.
pub(super) const KEYS: &[Key] = &[
    Key::new(
        "executor",
        Kind::Choice(&[("react", &[]), ("router", &[]), ("subprocess", &[]), ("stub", &[])]),
        Preset::Text("react"),
        Trust::Ask,
        "Who works on a task: `react` is a model that calls tools until it is done, `router` a (small) model that names \
         one tool per step, `subprocess` your own program in the sandbox, `stub` canned replies.",
    )
    .also(&["agent.executor"]),
    Key::new(
        "framework",
        Kind::Choice(&[("forge", &[]), ("crewai", &[]), ("langchain", &[])]),
        Preset::Text("forge"),
        Trust::Ask,
        "What the project's own agent is written with: with `crewai` or `langchain`, and no `executor` set, the program \
         `entrypoint` does the work.",
    )
    .also(&["agent.framework"]),
    Key::new(
        "entrypoint",
        ONE_LINE,
        Preset::Unset,
        Trust::Ask,
        "The program of the executor `subprocess` with its arguments, started in the repository inside the sandbox; a \
         file that ends in `.py` is given to python3.",
    )
    .also(&["agent.entrypoint"]),
    Key::new(
        "agent.stub_replies",
        Kind::Text(Lines::Many),
        Preset::Unset,
        Trust::Ask,
        "Replies of the executor `stub`, one a line; `\\n` in a line is a line end.",
    ),
    Key::new(
        "tools.mock",
        Kind::Bool,
        Preset::Bool(false),
        Trust::Ask,
        "Whether tools are only pretended: each call is answered with what it was given and nothing is run.",
    ),
    Key::new(
        "router.max_steps",
        int(1, 100),
        Preset::Int(1),
        Trust::Lower,
        "Steps of one run of the router: each is one reply of the model and one tool.",
    )
    .env(&[foreign("MAX_STEPS")]),
    Key::new(
        "router.debug",
        Kind::Bool,
        Preset::Bool(false),
        Trust::Off,
        "Whether each step of the router is told on stderr: prompt, raw reply, decision, tool and result.",
    )
    .env(&[foreign("SHOW_DEBUG")]),
    Key::new(
        "memory.enabled",
        Kind::Bool,
        Preset::Bool(true),
        Trust::Off,
        "Whether conversations are remembered in a file, with facts that every prompt holds.",
    )
    .env(&[alias("MEMORY_ENABLED")]),
    Key::new(
        "memory.file",
        Kind::Path,
        Preset::Unset,
        Trust::Ask,
        "The file of the memory; unset: one for each repository in your data directory. What lies in the repository counts only as Forge left it.",
    )
    .env(&[alias("MEMORY_FILE")]),
    Key::new(
        "memory.max_history",
        int(0, 2_000),
        Preset::Int(20),
        Trust::Lower,
        "Messages of earlier turns that a turn of a conversation is told, as far as they fit the model's window.",
    )
    .env(&[alias("MEMORY_MAX_HISTORY")]),
    Key::new(
        "memory.trigger_ratio",
        number(0.1, 0.95),
        Preset::Number(0.6),
        Trust::Lower,
        "Share of the model's window that a prompt may fill; beyond it the oldest half of the conversation gives way to a \
         summary.",
    )
    .env(&[alias("MEMORY_TRIGGER_RATIO")]),
];
