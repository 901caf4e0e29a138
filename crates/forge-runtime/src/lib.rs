//! The runtime of Forge: the one place where decisions meet adapters.
//!
//! [`Forge`] is what the surfaces see. Below it the engine drives each run in one loop: fold, decide, append, start
//! and cancel effects, wait for the next outcome, command or deadline, fold again.

mod accounts;
mod blobs;
mod boxes;
mod budget;
mod chat;
mod classify;
mod clock;
mod compose;
mod cooling;
mod doctor;
mod engine;
mod error;
mod executors;
mod follow;
mod forge;
mod images;
mod live;
mod models;
mod nobox;
mod once;
mod origin;
mod prices;
mod recall;
mod routing;
mod row;
mod rundir;
mod sandbox;
mod scratch;
mod tidy;
mod toolchains;
mod travel;
pub mod vault;
mod weights;

pub use accounts::{
    LoginError, LoginState, LoginStatus, PendingLogin, login_providers, logins, logout, start_provider_login,
};
pub use boxes::{SandboxCommand, SandboxCommandResult};
pub use budget::{BudgetReport, DayBudget, RunBudget};
pub use chat::{ChatAnswer, ChatConversation};
pub use clock::SystemClock;
pub use cooling::CooldownCache;
pub use doctor::{CheckState, DoctorCheck, run_doctor};
pub use engine::{CountTokens, EngineParts, RunEngine, SandboxSession};
pub use error::Error;
pub use follow::{FollowEnd, RunFollower};
pub use forge::{Delivery, Forge, MAX_TASK_CHARS, NewRun, RunDetails, check_repo};
pub use forge_ports::journal::{RunQuery, RunRow};
pub use forge_ports::sandbox::{OutputSink, StdStream};
pub use forge_ports::views::MergePolicy;
pub use forge_redact::{ByteStreamRedactor, REDACTED, Redactor, StreamRedactor, redact_keys};
pub use forge_sandbox::images::ImageFlavor;
pub use forge_sandbox::verify::{ProbeResult, ProbeScope, ProbeState, ProbeVerdict};
pub use images::{BuildImage, build_image};
pub use live::LiveSink;
pub use models::{ActiveCooldown, Freshness, ModelTest, PerMillion, ProviderOverview, ProviderRow};
pub use once::{CodeWarning, GeneratedProgram, OneShotReport};
pub use prices::{PriceChange, PriceRow, PriceTable, PriceUpdate, price_table, update_prices};
pub use routing::{Choice, RoutingJob};
pub use travel::{GcLimits, ReclaimedRun, RunChanges, UndoOutcome};

/// The tools that models can call, as `forge tool list` shows them.
pub fn list_tools() -> Vec<forge_types::ToolSpec> {
    forge_tools::builtin_tools().list_specs().cloned().collect()
}

/// Whether there is a provider of this name.
pub fn is_provider(name: &str) -> bool {
    forge_models::vendors::VENDORS.iter().any(|vendor| vendor.name == name)
}

/// All there is to say about a tool, for people.
pub fn describe_tool(name: &str) -> Option<String> {
    forge_tools::builtin_tools().describe_tool(name)
}

/// Removes what boxes left behind whose process died; names each thing.
pub async fn prune_sandboxes(loaded: &forge_config::ResolvedConfig) -> Vec<String> {
    sandbox::prune(loaded).await
}

/// Answers as one of the programs that run inside a box, if the binary was started under such a name.
///
/// Must be the first thing that `main` does, before any thread exists. Gives the exit code to end with, or `None`
/// for an ordinary start.
pub fn helper_main(arguments: &[String]) -> Option<i32> {
    forge_sandbox::helper_main(arguments)
}
