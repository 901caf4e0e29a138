//! The settings as structs, one per section, and the rows of the schema, both from one definition per key.
//!
//! The structs are deserialized from the resolved values with unknown and missing fields refused, so a key without a
//! field, or a field without a key, can't exist.

mod build;
mod conversation;
mod definition;
mod model;
mod routing;
mod sandbox;
mod services;
mod workspace;

pub(crate) use build::build_settings;
pub use conversation::{ExecutorName, MemorySettings, ProjectFramework, RouterSettings};
pub use model::{AgentSettings, CreatePrSettings, ModelConfig, ProviderSettings, ToolSettings};
pub use routing::{AgentModel, ClassifierKind, FlywheelSettings, RoutingSettings, TierMode};
pub use sandbox::{EgressMode, EgressSettings, SandboxBackend, SandboxSettings, StaticCheckMode};
pub use services::{
    CostSettings, LogFormat, LoggingSettings, LoginSettings, RuntimeSettings, SecretSource, SecretsSettings,
    StoreSettings,
};
pub use workspace::{GitSettings, WorkspaceSettings};

use crate::schema::key::SchemaKey;
use crate::schema::providers::PROVIDER_KEYS;
use definition::{choices, settings};
use std::collections::BTreeMap;

settings! {
    /// All settings of Forge.
    pub struct ForgeSettings in "" {
        keys PROJECT_KEYS:
        /// Name of the project, shown by `forge status`.
        name: Option<String> = Unset, ONE_LINE, Free;
        /// Main language of the project, shown by `forge status`.
        language: Option<ProjectLanguage> = Unset, ProjectLanguage::KIND, Free;

        keys EXECUTOR_KEYS:
        /// Executor of a task: `react` is a model that calls tools until it is done, `router` a (small) model that
        /// names one tool per step, `subprocess` your own program in the sandbox, `stub` canned replies.
        executor: ExecutorName = Text("react"), ExecutorName::KIND, Ask, with_paths("agent.executor"),
            with_flags("--executor");
        /// Framework of the project's own agent. With `crewai` or `langchain`, and without `executor`, the program
        /// `entrypoint` executes tasks.
        framework: ProjectFramework = Text("forge"), ProjectFramework::KIND, Ask, with_paths("agent.framework");
        /// Program of the executor `subprocess` with its arguments. It is started in the repository inside the sandbox;
        /// files that end in `.py` are run with python3.
        entrypoint: Option<String> = Unset, ONE_LINE, Ask, with_paths("agent.entrypoint");

        sections:
        router: RouterSettings;
        memory: MemorySettings;
        agent: AgentSettings;
        model: ModelConfig;
        /// One entry for each known provider.
        providers: BTreeMap<String, ProviderSettings>;
        tools: ToolSettings;
        sandbox: SandboxSettings;
        egress: EgressSettings;
        git: GitSettings;
        workspace: WorkspaceSettings;
        runtime: RuntimeSettings;
        cost: CostSettings;
        routing: RoutingSettings;
        /// One entry for each known agent.
        agents: BTreeMap<String, AgentModel>;
        flywheel: FlywheelSettings;
        store: StoreSettings;
        secrets: SecretsSettings;
        login: LoginSettings;
        logging: LoggingSettings;
    }
}

choices! {
    /// The main language of a project.
    pub enum ProjectLanguage {
        /// Rust.
        Rust = "rust",
        /// Python.
        Python = "python",
        /// JavaScript or TypeScript.
        Node = "node" | "javascript" | "typescript",
    }
}

/// All rows of the schema, in the order in which they are listed.
pub(crate) const KEY_GROUPS: &[&[SchemaKey]] = &[
    PROJECT_KEYS,
    model::AGENT_KEYS,
    model::MODEL_KEYS,
    PROVIDER_KEYS,
    model::TOOL_KEYS,
    model::CREATE_PR_KEYS,
    sandbox::SANDBOX_KEYS,
    sandbox::EGRESS_KEYS,
    workspace::WORKSPACE_KEYS,
    workspace::GIT_KEYS,
    workspace::MASKING_KEYS,
    services::RUNTIME_KEYS,
    services::COST_KEYS,
    services::STORE_KEYS,
    services::SECRETS_KEYS,
    services::LOGIN_KEYS,
    services::LOGGING_KEYS,
    model::FALLBACK_KEYS,
    routing::ROUTING_KEYS,
    routing::AGENT_MODEL_KEYS,
    routing::FLYWHEEL_KEYS,
    services::REFERENCE_KEYS,
    EXECUTOR_KEYS,
    model::STUB_KEYS,
    model::MOCK_KEYS,
    conversation::ROUTER_KEYS,
    conversation::MEMORY_KEYS,
];
