//! Files on disk in the layout of a workspace.

use crate::node::TreeNode;

/// A file on disk, in the workspace's own layout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum DiskEntry {
    /// A file, symbolic link or named pipe.
    Node(TreeNode),
    /// A directory.
    Directory {
        /// Permission bits.
        mode: u32,
        /// The mark, in an upper layer.
        mark: OverlayMark,
    },
    /// A whiteout in an upper layer.
    Whiteout,
}

/// The effect of an upper directory on its lower directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OverlayMark {
    /// Shows the lower directory. Also used for directories outside of an upper layer.
    Merge,
    /// Hides the lower directory.
    Opaque,
    /// Shows another lower directory. Never a target state.
    Redirect,
}
