//! Settings of executors, the router and the memory of conversations.

use super::definition::{choices, settings};
use std::path::PathBuf;

choices! {
    /// Executor of a run (`executor`).
    pub enum ExecutorName {
        /// A model that calls tools until it is done.
        React = "react",
        /// A model that names one tool per step.
        Router = "router",
        /// The project's own program.
        Subprocess = "subprocess",
        /// Canned replies.
        Stub = "stub",
    }
}

choices! {
    /// Framework of the project's program (`framework`).
    pub enum ProjectFramework {
        /// Forge itself.
        Forge = "forge",
        /// A CrewAI program.
        Crewai = "crewai",
        /// A LangChain program.
        Langchain = "langchain",
    }
}

settings! {
    /// Settings of `[router]`.
    #[derive(Eq)]
    pub struct RouterSettings in "router." {
        keys ROUTER_KEYS:
        /// Largest number of steps in a run of the router; a step is one model reply and one tool.
        max_steps: u32 = Int(1), int_kind(1, 100), Lower, with_env(foreign_alias("MAX_STEPS"));
        /// Whether each step of the router is reported on stderr: prompt, raw reply, decision, tool and result.
        debug: bool = Bool(false), KeyKind::Bool, Off, with_env(foreign_alias("SHOW_DEBUG"));
    }
}

settings! {
    /// Settings of `[memory]`.
    pub struct MemorySettings in "memory." {
        keys MEMORY_KEYS:
        /// Whether conversations are stored in a file, together with facts that are part of every prompt.
        enabled: bool = Bool(true), KeyKind::Bool, Off, with_env(env_alias("MEMORY_ENABLED"));
        /// File of the memory. Unset: a file per repository in your data directory. A file in the repository is used
        /// only if Forge wrote its present content.
        file: Option<PathBuf> = Unset, KeyKind::Path, Ask, with_env(env_alias("MEMORY_FILE"));
        /// Largest number of earlier messages that a turn receives, as far as they fit the model's context window.
        max_history: u64 = Int(20), int_kind(0, 2_000), Lower, with_env(env_alias("MEMORY_MAX_HISTORY"));
        /// Share of the model's context window that a prompt may fill. Beyond it, the oldest half of the conversation
        /// is replaced by a summary.
        trigger_ratio: f64 = Number(0.6), number_kind(0.1, 0.95), Lower, with_env(env_alias("MEMORY_TRIGGER_RATIO"));
    }
}
