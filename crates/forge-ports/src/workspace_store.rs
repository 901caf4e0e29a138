//! What the workspaces of runs hold, seen from outside of any box.

use crate::sandbox::Error;
use async_trait::async_trait;
use forge_types::{RunId, SandboxSpec, SnapshotId, WorkspaceChange};

/// Whether texts that a run and somebody else both changed are merged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MergePolicy {
    /// Each such path is a conflict.
    #[default]
    No,
    /// Those that merge without a conflict are merged; if one does not, nothing is applied.
    Clean,
}

/// What an apply did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ApplyReport {
    /// Paths that were changed in the repositories, with how.
    pub changed: Vec<WorkspaceChange>,
    /// Paths among them whose texts were merged with somebody else's changes.
    pub merged: Vec<String>,
    /// What the user should know: folders that were kept, nested repositories that were left out.
    pub notes: Vec<String>,
}

/// A result on a branch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishedBranch {
    /// The branch, such as `forge/<run-id>`.
    pub branch: String,
    /// The commit's hash.
    pub commit: String,
}

/// What the snapshots of a run use on the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotUsage {
    /// The run.
    pub run: RunId,
    /// Bytes on the disk.
    pub bytes: u64,
    /// When something was last written there.
    pub at: forge_types::Timestamp,
}

/// What the snapshots of runs take on the disk, and their removal.
#[async_trait]
pub trait SnapshotStorage: Send + Sync {
    /// What each run keeps on the disk.
    async fn usage(&self) -> Result<Vec<SnapshotUsage>, Error>;

    /// Removes what a run keeps: its steps can't be shown, applied or undone any more. Gives the bytes it freed.
    async fn remove_snapshots(&self, run: RunId) -> Result<u64, Error>;
}

/// Snapshots of runs: comparing them, putting a run's workspace or its repositories to one. A `None` in place of a
/// snapshot means the beginning of the run. No box of the run is open meanwhile.
#[async_trait]
pub trait WorkspaceStore: SnapshotStorage {
    /// The paths that differ between two snapshots, sorted; without `.git` and masked files.
    async fn compare(
        &self,
        spec: &SandboxSpec,
        run: RunId,
        from: Option<SnapshotId>,
        to: Option<SnapshotId>,
    ) -> Result<Vec<WorkspaceChange>, Error>;

    /// The same as a unified diff that `git apply` takes.
    async fn diff(
        &self,
        spec: &SandboxSpec,
        run: RunId,
        from: Option<SnapshotId>,
        to: Option<SnapshotId>,
    ) -> Result<String, Error>;

    /// Puts the run's own workspace to a snapshot; the repositories of `inplace` runs are their own workspace.
    async fn restore(&self, spec: &SandboxSpec, run: RunId, to: Option<SnapshotId>) -> Result<(), Error>;

    /// Brings the repositories from the state `from`, which was applied before, to the state `to`: all of it or
    /// nothing.
    async fn apply(
        &self,
        spec: &SandboxSpec,
        run: RunId,
        from: Option<SnapshotId>,
        to: Option<SnapshotId>,
        merge: MergePolicy,
    ) -> Result<ApplyReport, Error>;

    /// Takes back an apply whose process was killed in the middle of it, as far as nobody changed the same paths since:
    /// for a run that will not be applied after all. Says whether there was one.
    async fn revert_partial_apply(&self, run: RunId) -> Result<bool, Error>;

    /// Commits the state `to` on a branch of its own, which the repository gains with its objects and nothing else.
    /// `None` if nothing differs from the beginning.
    async fn publish(
        &self,
        spec: &SandboxSpec,
        run: RunId,
        to: SnapshotId,
        message: &str,
    ) -> Result<Option<PublishedBranch>, Error>;

    /// Ends what is under way here for a run, in this process: whoever waits for it gets
    /// [`Error::Stopped`](crate::sandbox::Error::Stopped), unless it came too far to be undone and is finished.
    fn stop_run_work(&self, _run: RunId) {}
}
