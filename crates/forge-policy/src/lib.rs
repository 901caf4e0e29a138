//! The decisions of Forge, as pure functions over values.
//!
//! Nothing here does I/O, reads a clock or an environment, or draws random numbers: each decision follows from the
//! state of a run, its frozen plan and the time passed in.

pub mod agent;
pub mod budget;
pub mod child;
pub mod compact;
pub mod context;
pub mod cooldown;
mod decide;
pub mod fallback;
pub mod isolation;
pub mod lifecycle;
pub mod retry;
pub mod route;
pub mod router;

pub use decide::decide;
pub use forge_guard as guard;
pub use lifecycle::DecisionInput;
