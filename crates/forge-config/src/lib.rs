//! Settings: one schema, layered sources, and an origin for every value. Only this crate reads the environment.
//!
//! [`load()`] layers defaults, the user's file, the project's file, a `--env` file, the environment and flags over one
//! another ([`ConfigSources`] → [`ResolvedConfig`]) and reports all errors at once ([`ConfigErrors`]). A repository's
//! own files may set only a limited part until the user trusts them ([`trust`]). The documentation and the examples are
//! rendered from the same schema ([`schema`]), so they always match what is read.

#[cfg(not(unix))]
compile_error!("private files need unix permissions");

mod adoption;
mod checkout;
mod checks;
pub mod dotenv;
pub mod edit;
mod environment;
mod error;
mod file;
mod layers;
mod load;
pub mod memories;
mod provider;
pub mod quantity;
mod repository_memory;
mod resolved;
mod routing_checks;
pub mod schema;
mod secrets;
mod settings;
mod sources;
pub mod stores;
pub mod trust;
mod trust_state;
mod user_files;
mod variables;
mod write;

pub use environment::{Environment, UserDirs};
pub use error::{ConfigError, ConfigErrors, ConfigNotice, NoticeKind, ValueOrigin};
pub use file::{CONFIG_FILE_NAMES, ConfigFormat};
pub use load::load;
pub use provider::{keyed_providers, local_providers};
pub use resolved::{ResolvedConfig, ResolvedSetting};
pub use schema::FallbackEntry;
pub use secrets::{FoundSecrets, SecretOrigin, SecretValue};
pub use settings::{
    AgentModel, AgentSettings, ClassifierKind, CostSettings, CreatePrSettings, EgressMode, EgressSettings,
    ExecutorName, FlywheelSettings, ForgeSettings, GitSettings, LogFormat, LoggingSettings, LoginSettings,
    MemorySettings, ModelConfig, ProjectFramework, ProjectLanguage, ProviderSettings, RouterSettings,
    RoutingSettings, RuntimeSettings, SandboxBackend, SandboxSettings, SecretSource, SecretsSettings,
    StaticCheckMode, StoreSettings, TierMode, ToolSettings, WorkspaceSettings,
};
pub use sources::{ConfigSources, FlagSetting};
pub use user_files::UserFiles;
