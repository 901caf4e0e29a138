//! Who works on which run.

use crate::journal::Error;
use async_trait::async_trait;
use forge_types::{RunId, Timestamp};

/// Where an item of the queue stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ItemStatus {
    /// Nobody has it.
    Queued,
    /// Somebody works on it.
    Processing,
    /// Done.
    Completed,
    /// Given up.
    Failed,
}

/// An item of the queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueItem {
    /// The run.
    pub run: RunId,
    /// Higher first, first in first out within.
    pub priority: i32,
    /// When it was put in.
    pub created_at: Timestamp,
    /// Where it stands.
    pub status: ItemStatus,
    /// How often it was claimed.
    pub attempts: u32,
}

/// What can go wrong with a claim.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// A live process works on it.
    #[error(
        "run {run} is being worked on by {holder}. Follow it with `forge logs -f {run}`, or end it with `forge cancel {run}`"
    )]
    Held {
        /// The run.
        run: RunId,
        /// Which process (`host:pid`), if it said.
        holder: String,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] Error),
    /// The lock file can't be used.
    #[error("the lock of run {run} at {path} can't be used: {why}")]
    Lock {
        /// The run.
        run: RunId,
        /// The file.
        path: String,
        /// What the system says.
        why: String,
    },
}

/// The right to work on a run. It ends when this is dropped, or with the process.
pub trait Lease: Send + Sync {
    /// The run.
    fn run_id(&self) -> RunId;

    /// How often the run was claimed, this time included.
    fn attempt(&self) -> u32;
}

/// The certainty that nobody works on a run. It ends when this is dropped.
pub type ExclusiveGuard = Box<dyn Send + Sync>;

/// The queue of runs. A claim is atomic: of many claimers one wins.
#[async_trait]
pub trait Queue: Send + Sync {
    /// Puts a run in; one that is there already is queued again.
    async fn enqueue(&self, run: RunId, priority: i32) -> Result<(), Error>;

    /// Takes one particular run.
    async fn claim(&self, run: RunId) -> Result<Box<dyn Lease>, ClaimError>;

    /// Takes the next queued run that nobody works on; `None` if there is none.
    async fn claim_next(&self) -> Result<Option<Box<dyn Lease>>, ClaimError>;

    /// The work on a claimed run ended, or is to be queued again (`Queued`).
    async fn finish(&self, lease: Box<dyn Lease>, status: ItemStatus) -> Result<(), Error>;

    /// Whether a live process works on the run, and which.
    async fn holder(&self, run: RunId) -> Result<Option<String>, Error>;

    /// Makes sure that nobody works on a run, nor begins to while the answer is kept; `None` if somebody does. Nothing
    /// is changed about the item, and nobody is told that the run is held: claims and looks wait meanwhile, those of
    /// other runs too, so keep it for one short deed.
    async fn try_exclusive(&self, run: RunId) -> Result<Option<ExclusiveGuard>, ClaimError>;

    /// Items that are queued.
    async fn queued_count(&self) -> Result<usize, Error>;
}

/// The table of a store that an embedded queue lies on. Every call is one transaction.
#[async_trait]
pub trait QueueTable: Send + Sync {
    /// Inserts or replaces the item's status and priority.
    async fn enqueue_item(&self, run: RunId, priority: i32, at: Timestamp) -> Result<(), Error>;

    /// Queued or processing items, highest priority first, oldest first within.
    async fn open_items(&self) -> Result<Vec<QueueItem>, Error>;

    /// Marks the item as processing and counts the attempt; returns the count. Creates the item if there is none.
    async fn mark_processing(&self, run: RunId, at: Timestamp) -> Result<u32, Error>;

    /// Sets the item's status.
    async fn set_item_status(&self, run: RunId, status: ItemStatus) -> Result<(), Error>;
}
