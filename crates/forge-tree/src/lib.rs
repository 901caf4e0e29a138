//! Trees of files on the host, read and copied by descriptors.
//!
//! A [`RelPath`] names a file below the root of a tree, a [`TreeNode`] is its state, a [`TreeDelta`] a set of changed
//! paths. [`host`] opens and changes files through descriptors: no symbolic link is followed and no named pipe waited
//! for. [`walk`] lists directories, [`copy`] copies and hashes contents. [`WorkBounds`] limits each of these and ends
//! it early.
//!
//! What this crate does not know: snapshots, runs, sandboxes, async runtimes, git. Linux only.

pub mod bounds;
pub mod copy;
pub mod error;
pub mod host;
pub mod node;
pub mod walk;

pub use bounds::{StopFlag, WorkBounds, WorkspaceCeiling};
pub use error::Error;
pub use host::{FileStamp, NodeKind};
pub use node::{DeltaEntry, RelPath, TreeDelta, TreeNode};
