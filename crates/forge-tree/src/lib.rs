//! Trees of files on the host, read and copied by descriptors.
//!
//! A [`RelPath`] names a file below the root of a tree, a [`TreeNode`] is its state, a [`TreeDelta`] a set of
//! changed paths. [`host`] opens and changes files through descriptors, without following symbolic links or blocking
//! on named pipes. [`walk`] lists directories, [`copy`] copies and hashes contents, [`encoding`] is that of records,
//! [`temp_names`] recognizes temporaries. [`WorkBounds`] limits and stops
//! each of these.
//!
//! This crate is independent of snapshots, runs, sandboxes, async runtimes and git. Linux only.

pub mod bounds;
pub mod ceiling;
pub mod copy;
pub mod encoding;
pub mod error;
pub mod host;
pub mod node;
pub mod remove;
pub mod temp_names;
mod tree_root;
pub mod walk;

pub use bounds::{StopFlag, WorkBounds};
pub use ceiling::WorkspaceCeiling;
pub use error::Error;
pub use host::{FileStamp, NodeKind};
pub use node::{DeltaEntry, RelPath, TreeDelta, TreeNode};
pub use tree_root::TreeRoot;
