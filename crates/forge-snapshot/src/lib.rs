//! Snapshots of file trees on the host: baseline, differences and restore.
//!
//! A [`BaseManifest`] is the baseline of a repository at the beginning of a run. A [`TreeDelta`] holds the
//! differences of a workspace from it; a *snapshot* is a delta in an [`ObjectStore`], named by the digest of its
//! content. A [`Tracker`] takes snapshots of a workspace and restores it to one. [`compare`] and [`apply`] turn two
//! deltas into readable differences and into changes of a repository.
//!
//! This crate is independent of runs, sandboxes, async runtimes, git and configuration. Paths are bytes, and
//! symbolic links are never followed. Linux only.

pub mod apply;
mod base;
pub mod compare;
mod objects;
mod tracker;

pub use forge_tree::{
    DeltaEntry, Error, FileStamp, NodeKind, RelPath, StopFlag, TreeDelta, TreeNode, TreeRoot, WorkBounds,
    WorkspaceCeiling,
};
use forge_tree::{bounds, copy, encoding, error, host, node, walk};

pub use base::{BaseItem, BaseManifest, EntriesBelow};
pub use objects::{ObjectReader, ObjectStore};
pub use tracker::{
    BaseSaver, CopyKind, CopyStats, Layout, OverlayXattrs, Tracker, TrackerOptions, copy_tree, load_delta,
};
