//! The runtime of Forge: the one place where decisions meet adapters.
//!
//! [`Forge`] is what the surfaces see. Below it the engine drives each run in one loop: fold, decide, append, start
//! and cancel effects, wait for the next outcome, command or deadline, fold again.

mod blobs;
mod clock;
mod engine;
mod error;
mod follow;
mod forge;
mod live;
mod redact;
mod row;
mod rundir;

pub use clock::SystemClock;
pub use engine::{BoxKeeper, Engine, Parts};
pub use error::Error;
pub use follow::{Follow, FollowEnd};
pub use forge::{Delivery, Forge, MAX_TASK_CHARS, NewRun, Shown, check_repo};
pub use forge_ports::journal::{RunQuery, RunRow};
pub use live::LiveSink;
pub use redact::{HoldBack, REDACTED, Redactor};
