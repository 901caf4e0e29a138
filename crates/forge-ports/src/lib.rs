//! The ports of Forge: the traits at its edges, and the promises of their adapters.
//!
//! Ports are small, and adapters never depend on each other. Only the runtime holds both a decision and an adapter.

mod clock;
pub mod feed;
mod flush;
pub mod journal;
pub mod ledger;
pub mod memory;
pub mod model;
pub mod queue;
mod queue_entry;
pub mod routing;
pub mod sandbox;
pub mod tool;
pub mod tool_registry;
pub mod transcript;
pub mod workspace_store;

pub use async_trait::async_trait;
pub use clock::Clock;
pub use feed::Feed;
pub use flush::{FlushHandle, FlushSender};
pub use journal::Journal;
pub use ledger::Ledger;
pub use memory::Memory;
pub use model::{DeltaSink, Embedder, Model};
pub use queue::Queue;
pub use sandbox::{Sandbox, Workspace, WorkspaceFiles};
pub use tool::Tool;
pub use tool_registry::ToolRegistry;
pub use transcript::TranscriptSearch;
pub use workspace_store::{SnapshotStorage, WorkspaceStore};
