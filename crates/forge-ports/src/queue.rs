//! The queue of runs, and the leases of the processes that work on them.

pub use crate::queue_entry::QueueEntry;

use crate::journal::Error;
use async_trait::async_trait;
use forge_types::{NextStep, RunId, Timestamp};
use std::time::Duration;

/// The status of a queue item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ItemStatus {
    /// Waiting for a worker.
    Queued,
    /// Claimed by a worker.
    Processing,
    /// Waiting for a command to its run, and for no worker until then.
    Parked {
        /// The time from which the item is queued even without a command.
        until: Option<Timestamp>,
    },
    /// Finished.
    Completed,
    /// Abandoned.
    Failed,
}

/// The items that a worker may claim.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum QueueScope {
    /// All.
    #[default]
    All,
    /// The runs of one tree: the root and its descendants.
    Tree(RunId),
}

/// The result of looking for an item to work on.
pub enum NextClaim {
    /// An item was claimed.
    Claimed(Box<dyn Lease>),
    /// No item can be claimed now.
    Nothing {
        /// The time at which the first parked item is queued again, if any is.
        next: Option<Timestamp>,
    },
}

/// An error while claiming a run.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// A live process holds the run.
    #[error("run {run} is active in {holder}")]
    Held {
        /// The run.
        run: RunId,
        /// The process (`host:pid`), if known.
        holder: String,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] Error),
    /// The lock file is unusable.
    #[error("the lock of run {run} at {path} can't be used: {why}")]
    Lock {
        /// The run.
        run: RunId,
        /// The file.
        path: String,
        /// The error message of the system.
        why: String,
    },
}

impl ClaimError {
    /// Returns the steps that the user can take.
    pub fn next_steps(&self) -> Vec<NextStep> {
        match self {
            Self::Held { run, .. } => vec![NextStep::FollowRun { run: *run }, NextStep::Cancel { run: *run }],
            Self::Store(error) => error.next_steps(),
            Self::Lock { .. } => Vec::new(),
        }
    }
}

/// A lease on a run: the right to work on it. It ends when dropped, or with the process; a lease of an adapter that
/// can't detect the end of a process also ends when it is not renewed in time.
#[async_trait]
pub trait Lease: Send + Sync {
    /// Returns the run.
    fn run_id(&self) -> RunId;

    /// Returns the number of claims of the run, including this one.
    fn attempt(&self) -> u32;

    /// Returns the fencing number: it grows with every claim of the run. The journal refuses a batch with the number of
    /// an earlier claim, so a worker that lost its lease without noticing cannot write.
    fn fence(&self) -> u64 {
        u64::from(self.attempt())
    }

    /// Returns the interval at which the holder must renew the lease, short enough that a late or failed renewal can be
    /// repeated before the lease expires. `None` for a lease that does not expire.
    fn renewal_interval(&self) -> Option<Duration> {
        None
    }

    /// Extends the lease from now on. Fails with [`Error::LeaseLost`] if it is lost; after any other error it is
    /// unchanged and can be renewed later.
    async fn renew(&self) -> Result<(), Error> {
        Ok(())
    }

    /// Waits until the lease is lost: it has expired, or another worker has claimed the run. Leases that end only with
    /// their process are never lost.
    async fn lost(&self) {
        std::future::pending().await
    }
}

/// The queue of runs. Claims are atomic: only one of several claimers succeeds.
#[async_trait]
pub trait Queue: Send + Sync {
    /// Adds a run; a run that is already present is queued again. A new run is better queued by the batch that
    /// creates it, and a parked one by the command that it waits for.
    async fn enqueue(&self, entry: QueueEntry) -> Result<(), Error>;

    /// Claims a specific run, whatever the status of its item; a run without an item gets one.
    async fn claim(&self, run: RunId) -> Result<Box<dyn Lease>, ClaimError>;

    /// Claims the next run of the scope that is queued, or was left by a worker that died, and that no other process holds.
    async fn claim_next(&self, scope: QueueScope) -> Result<NextClaim, ClaimError>;

    /// Ends the work on a claimed run, parks it, or queues it again (`Queued`). A run with commands in its inbox is not
    /// parked but queued, so that a command that arrived while it was being worked on is not overlooked.
    async fn finish(&self, lease: Box<dyn Lease>, status: ItemStatus) -> Result<(), Error>;

    /// Returns the live process that holds the run, if any.
    async fn holder(&self, run: RunId) -> Result<Option<String>, Error>;

    /// Returns the fencing number of a run's last claim (0 if it was never claimed), or `None` if a live process holds
    /// the run. The run is not claimed: a change for a run that no process works on names this number, so that it is
    /// refused once the run is claimed again.
    async fn idle_fence(&self, run: RunId) -> Result<Option<u64>, Error>;

    /// Returns the number of queued items.
    async fn queued_count(&self) -> Result<usize, Error>;
}
