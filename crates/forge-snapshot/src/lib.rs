//! Trees of files on the host: what stands there, what changed, and putting it back.
//!
//! A [`Base`] is what stood in a repository when a run began. A [`Delta`] is how a workspace differs from it; a
//! *snapshot* is a delta in an [`Objects`] store, named by the digest of its content. A [`Tracker`] takes snapshots of
//! a workspace and puts it back to one. [`compare`] and [`apply`] turn two deltas into differences that people read,
//! and into changes of a repository.
//!
//! What this crate does not know: runs, sandboxes, async runtimes, git, configuration. Paths are bytes and never
//! follow symbolic links. Linux only.

pub mod apply;
mod base;
mod bounds;
mod bytes;
pub mod compare;
mod copy;
mod error;
mod host;
mod node;
mod objects;
mod tracker;
mod walk;

pub use base::{Base, Below, Item};
pub use bounds::{Bounds, Ceiling, Stop};
pub use error::Error;
pub use host::{Kind, Stamp};
pub use node::{Delta, Entry, Node, RelPath};
pub use objects::{Content, Objects};
pub use tracker::{Attributes, BaseSaver, CopyKind, CopyStats, Layout, Options, Tracker, copy_tree, delta};
