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
mod bytes;
pub mod compare;
mod objects;
mod tracker;

pub use forge_tree::{
    DeltaEntry, Error, FileStamp, NodeKind, RelPath, StopFlag, TreeDelta, TreeNode, WorkBounds,
    WorkspaceCeiling,
};
use forge_tree::{bounds, copy, error, host, node, walk};

pub use base::{BaseItem, BaseManifest, EntriesBelow};
pub use objects::{ObjectReader, ObjectStore};
pub use tracker::{
    BaseSaver, CopyKind, CopyStats, Layout, OverlayXattrs, Tracker, TrackerOptions, copy_tree, load_delta,
};
