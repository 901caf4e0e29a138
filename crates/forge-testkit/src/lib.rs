//! What the tests of this workspace stand on: a scripted model server that speaks the vendors' wire formats,
//! and the contract suites which every adapter of a port runs.
//!
//! Nothing here is part of a shipped binary; other crates name it under `[dev-dependencies]` only.

pub mod clock;
pub mod contract;
pub mod directory_workspace;
pub mod exchange;
pub mod hostile_repo;
pub mod memory;
pub mod sample;
pub mod scale;
pub mod seeded_rng;

pub use forge_model_server::{auth_server, model_server};
