//! The engine of Forge: the one loop that drives every run. It knows the ports and no adapter.
//!
//! [`RunEngine`] creates runs and drives them: fold, decide, append, start and cancel effects, wait for the next
//! outcome, command or deadline, fold again. `driver/` is that loop, `effects/` carries out one effect each, and
//! [`JournalTransaction`] is the only maker of a journal's batch. [`RunFollower`] reads what a run has journalled.

mod cooldowns;
mod driver;
mod effects;
mod error;
mod follow;
mod heartbeat;
mod live;
mod live_hub;
mod load;
mod no_workspace;
mod parts;
mod payload_cache;
mod program_tool;
mod run_row;
mod sandbox_session;
mod transaction;
mod workers;

pub use cooldowns::{CooldownCache, credential_fingerprint};
pub use driver::{NewRun, RunEngine, apply_outcome, commit_message};
pub use error::Error;
pub use follow::{FollowEnd, RunFollower};
pub use heartbeat::run_renewed;
pub use live::LiveSink;
pub use live_hub::{LiveFollower, LiveHub, LiveMessage, SinkGuard};
pub use load::load_run_state;
pub use parts::{CountTokens, DecideFn, EngineParts, OpenMemory};
pub use payload_cache::PayloadCache;
pub use program_tool::{PROGRAM_TOOL, REQUEST_PARAMETER};
pub use sandbox_session::SandboxSession;
pub use transaction::JournalTransaction;
pub use workers::{EngineSource, WorkerParts, Workers};
