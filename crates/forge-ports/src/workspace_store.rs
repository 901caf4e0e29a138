//! Stored workspaces of runs, seen from outside any sandbox.

use crate::sandbox::Error;
use async_trait::async_trait;
use forge_types::{RunId, SandboxSpec, SnapshotId, WorkspaceChange};

/// Whether to merge texts that both the run and the repository changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MergePolicy {
    /// Every such path is a conflict.
    #[default]
    No,
    /// Texts are merged if all merge cleanly; otherwise nothing is applied.
    Clean,
}

/// The result of an apply.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ApplyReport {
    /// The first changed paths in the repositories, with the kind of change.
    pub changed: Vec<WorkspaceChange>,
    /// The number of changed paths that are not listed.
    pub omitted: u64,
    /// Changed paths with texts that were merged with changes made in the repository.
    pub merged: Vec<String>,
    /// Notes for the user, such as directories that were kept and nested repositories that were skipped.
    pub notes: Vec<String>,
}

/// A result published on a branch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishedBranch {
    /// The branch, such as `forge/<run-id>`.
    pub branch: String,
    /// The commit's hash.
    pub commit: String,
}

/// Disk usage of a run's snapshots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotUsage {
    /// The run.
    pub run: RunId,
    /// Bytes on disk.
    pub bytes: u64,
    /// Time of the last write.
    pub at: forge_types::Timestamp,
}

/// Disk usage and removal of snapshots.
#[async_trait]
pub trait SnapshotStorage: Send + Sync {
    /// Returns the disk usage of each run.
    async fn usage(&self) -> Result<Vec<SnapshotUsage>, Error>;

    /// Removes a run's snapshots, after which its steps can't be shown, applied or undone. Returns the number of bytes
    /// freed.
    async fn remove_snapshots(&self, run: RunId) -> Result<u64, Error>;
}

/// Snapshots of runs: comparing them, and restoring a run's workspace or its repositories. `None` in place of a
/// snapshot means the baseline. No sandbox of the run may be open.
#[async_trait]
pub trait WorkspaceStore: SnapshotStorage {
    /// Returns the paths that differ between two snapshots, sorted, without `.git` and masked files.
    async fn compare(
        &self,
        spec: &SandboxSpec,
        run: RunId,
        from: Option<SnapshotId>,
        to: Option<SnapshotId>,
    ) -> Result<Vec<WorkspaceChange>, Error>;

    /// Returns the differences as a unified diff that `git apply` accepts.
    async fn diff(
        &self,
        spec: &SandboxSpec,
        run: RunId,
        from: Option<SnapshotId>,
        to: Option<SnapshotId>,
    ) -> Result<String, Error>;

    /// Restores the run's workspace to a snapshot; for `inplace` runs the repositories are the workspace.
    async fn restore(&self, spec: &SandboxSpec, run: RunId, to: Option<SnapshotId>) -> Result<(), Error>;

    /// Takes the repositories from the state `from`, which was applied before, to the state `to`, as a whole or not at
    /// all.
    async fn apply(
        &self,
        spec: &SandboxSpec,
        run: RunId,
        from: Option<SnapshotId>,
        to: Option<SnapshotId>,
        merge: MergePolicy,
    ) -> Result<ApplyReport, Error>;

    /// Reverts an apply that was interrupted by the death of its process, except for paths that changed since. For runs
    /// that will not be applied after all. Returns whether there was one.
    async fn revert_partial_apply(&self, run: RunId) -> Result<bool, Error>;

    /// Commits the state `to` on a new branch; the repository gains nothing but the branch and its objects. Returns
    /// `None` if nothing differs from the baseline.
    async fn publish(
        &self,
        spec: &SandboxSpec,
        run: RunId,
        to: SnapshotId,
        message: &str,
    ) -> Result<Option<PublishedBranch>, Error>;

    /// Stops work in progress for a run in this process. Its callers get
    /// [`Error::Stopped`], unless it can no longer be undone and is completed.
    fn stop_run_work(&self, _run: RunId) {}
}
