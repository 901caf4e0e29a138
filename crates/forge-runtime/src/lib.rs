//! The runtime of Forge: the one place where the engine meets adapters and settings.
//!
//! [`Forge`] is a process: the store, the queue and the data directory. [`Project`] is one repository in it: its resolved
//! settings and the adapters that they configure. It builds the plans of runs and leaves each run to the engine
//! (`forge-engine`). A process can serve many projects at the same time.

mod budget;
mod chat;
mod clock;
mod compose;
mod doctor;
mod error;
mod executors;
mod forge;
mod project;
mod providers;
mod sandbox;
pub mod secret_stores;
mod workspace;

pub use budget::{BudgetReport, DayBudget, RunBudget};
pub use chat::{ChatAnswer, ChatConversation};
pub use clock::SystemClock;
pub use doctor::{CheckState, DoctorCheck, run_doctor};
pub use error::Error;
pub use forge::{Forge, RunDetails, check_repo};
pub use forge_engine::{
    CooldownCache, CountTokens, DecideFn, EngineParts, EngineSource, FollowEnd, LiveFollower, LiveHub,
    LiveMessage, LiveSink, NewRun, OpenMemory, RunEngine, RunFollower, SandboxSession, SinkGuard, Workers,
};
pub use forge_ports::journal::{RunQuery, RunRow};
pub use forge_ports::sandbox::{OutputSink, StdStream};
pub use forge_ports::workspace_store::MergePolicy;
pub use forge_redact::{ByteStreamRedactor, REDACTED, Redactor, StreamRedactor, redact_keys};
pub use forge_sandbox::images::ImageFlavor;
pub use forge_sandbox::probes::{ProbeResult, ProbeScope, ProbeState, ProbeVerdict};
pub use project::{Delivery, MAX_TASK_CHARS, Project};
pub use providers::logins::{
    LoginError, LoginState, LoginStatus, PendingLogin, login_providers, logins, logout, start_provider_login,
};
pub use providers::overview::{
    ActiveCooldown, Freshness, ModelTest, PerMillion, ProviderOverview, ProviderRow,
};
pub use providers::prices::{PriceChange, PriceRow, PriceTable, PriceUpdate, price_table, update_prices};
pub use providers::routing::{Choice, RoutingJob};
pub use sandbox::exec::{SandboxCommand, SandboxCommandResult};
pub use sandbox::images::{BuildImage, build_image};
pub use sandbox::one_shot::{CodeWarning, GeneratedProgram, OneShotReport};
pub use workspace::history::{GcLimits, ReclaimedRun, UndoOutcome};

/// Removes the remnants of sandboxes of dead processes; returns the name of each.
pub async fn prune_sandboxes(loaded: &forge_config::ResolvedConfig) -> Vec<String> {
    sandbox::prune(loaded).await
}

/// Runs as one of the programs used inside a sandbox, if the binary was started under such a name.
///
/// Must be the first call in `main`, before any thread exists. Returns the exit code, or `None` for an ordinary
/// start.
pub fn helper_main(arguments: &[String]) -> Option<i32> {
    forge_sandbox::helper_main(arguments)
}
