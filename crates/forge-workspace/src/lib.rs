//! The workspace of a run: what its sandbox shows, its snapshots, and the work on it while no sandbox is open.
//!
//! A [`RunWorkspace`] is prepared before the sandbox opens: the manifest of each repository is taken, a mount strategy is
//! chosen, a snapshot is restored. While the sandbox is open it takes snapshots. [`LocalWorkspaces`] compares, applies,
//! publishes and removes workspaces without a sandbox.

pub mod active_work;
mod apply_history;
mod apply_index;
mod apply_marker;
mod baseline;
mod blocking;
mod errors;
mod git;
mod gitdir;
mod interrupted;
mod layout;
mod learned_contents;
mod lock;
mod masks;
mod offline;
mod open;
pub mod paths;
mod publish;
mod repos;
mod run_workspace;
mod secret_masks;
mod snapshot_id;
mod store;
mod stored_path;
mod strategy;

pub use apply_index::remove_stale_entries;
pub use blocking::run_blocking;
pub use errors::{OpenError, workspace_error};
pub use interrupted::undo_applies_before_removal;
pub use layout::{WorkspaceKind, XattrNamespace};
pub use open::{WorkspaceHandle, prepare_workspace, prepare_workspace_then};
pub use publish::remove_stale_packs;
pub use run_workspace::{ForcedCopy, RepoLayers, RepoMount, RunWorkspace, WorkspaceStorage, flush_objects};
pub use secret_masks::SecretMasks;
pub use store::LocalWorkspaces;

use layout::FileMask;
