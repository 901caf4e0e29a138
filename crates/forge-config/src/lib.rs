//! Settings: one schema, layered sources, every value with its origin; the only reader of the environment.
//!
//! [`load`] lays defaults, the user's file, the project's file, a `--env` file, the environment and flags over one
//! another ([`Sources`] → [`Loaded`]) and reports everything that is wrong at once ([`Faults`]). What a repository's
//! own files may set is limited until the user trusts them ([`trust`]). The documentation and the examples are
//! rendered from the same schema ([`docs`]), so they can't differ from what is read.

#[cfg(not(unix))]
compile_error!("private files need unix permissions");

mod checkout;
mod checks;
mod conversation;
pub mod docs;
pub mod dotenv;
pub mod edit;
mod environment;
mod fault;
mod file;
pub mod init;
mod layers;
mod load;
pub mod memories;
mod provider;
pub mod quantity;
mod routing;
mod routing_checks;
pub mod schema;
mod secrets;
mod settings;
pub mod stores;
pub mod trust;
mod write;

pub use conversation::{ExecutorName, Framework, Memory, Router};
pub use environment::{Dirs, Environment};
pub use fault::{Fault, Faults, Notice, NoticeKind, Origin};
pub use file::Format;
pub use load::{Flag, Loaded, Resolved, Sources, load};
pub use provider::{KEYED, LOCAL};
pub use routing::{AgentModel, Classifier, Flywheel, Routing, Tiers};
pub use schema::Fallback;
pub use secrets::{Secret, SecretOrigin, Secrets};
pub use settings::{
    Agent, Backend, Cost, CreatePr, Egress, EgressMode, Git, Language, LogFormat, Logging, Login, Model,
    Provider, Runtime, Sandbox, SecretSource, SecretsSection, Settings, StaticCheck, Store, Tools, Workspace,
};
