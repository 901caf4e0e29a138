//! The journal of runs.

use crate::FlushHandle;
use crate::queue_entry::QueueEntry;
use async_trait::async_trait;
use forge_types::{
    CommandId, Digest, ErrorClass, Event, LimitKind, Money, NextStep, RunCommand, RunId, RunStatus, Seq,
    Timestamp, WaitingFor,
};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

/// An error of the journal.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process appended to this run in between; read the new events and decide again.
    #[error("run {run} was changed by another process (its journal ends at {actual}, not at {expected})")]
    Conflict {
        /// The run.
        run: RunId,
        /// The last event that the writer knew.
        expected: Seq,
        /// The last event in the journal.
        actual: Seq,
    },
    /// Another process has claimed the run since; nothing was written.
    #[error("this process no longer works on run {run}: another one has taken it over")]
    LeaseLost {
        /// The run.
        run: RunId,
    },
    /// A reservation would exceed a ceiling; nothing was written.
    #[error(
        "the request would exceed the ceiling of {account} ({ceiling}): {used} is spent or reserved, {wanted} is \
        requested"
    )]
    Ceiling {
        /// The account, such as `day:2026-11-21`.
        account: String,
        /// The ceiling of the account.
        ceiling: Money,
        /// Money spent and reserved so far.
        used: Money,
        /// The amount of the reservation.
        wanted: Money,
    },
    /// The requested object does not exist.
    #[error("there is no {what}")]
    NotFound {
        /// The requested object, such as `run 0192…`.
        what: String,
    },
    /// Stored data is unreadable; the rest can still be read.
    #[error("damaged: {what}")]
    Damaged {
        /// The damaged data and its place.
        what: String,
    },
    /// The data was written by a newer version.
    #[error(
        "{path} was written by a newer version of forge (format {found}; this version reads up to {known}). Install \
        that version, or use another data directory with XDG_DATA_HOME"
    )]
    TooNew {
        /// The file.
        path: String,
        /// The format of the file.
        found: u32,
        /// The newest format that this version knows.
        known: u32,
    },
    /// The disk is full.
    #[error("no space is left on the disk of {path}. Free some space, then continue the run")]
    DiskFull {
        /// The file.
        path: String,
    },
    /// Any other error of the storage.
    #[error("the store at {path} can't be used: {why}")]
    Unavailable {
        /// The file.
        path: String,
        /// The error message of the storage.
        why: String,
    },
}

impl Error {
    /// Returns the class of this error, which decides how the caller handles it.
    pub const fn class(&self) -> ErrorClass {
        match self {
            Self::Conflict { .. } => ErrorClass::Retry { after: None },
            Self::Ceiling { .. } | Self::LeaseLost { .. } => ErrorClass::Denied,
            Self::NotFound { .. } => ErrorClass::Invalid,
            Self::Unavailable { .. } => ErrorClass::Unavailable,
            Self::Damaged { .. } | Self::TooNew { .. } | Self::DiskFull { .. } => ErrorClass::Fatal,
        }
    }

    /// Returns the steps that the user can take.
    pub fn next_steps(&self) -> Vec<NextStep> {
        match self {
            Self::DiskFull { .. } => vec![NextStep::RemoveSnapshots, NextStep::Resume { run: None }],
            _ => Vec::new(),
        }
    }
}

/// A payload stored by its content hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blob {
    /// The hash of `bytes`.
    pub digest: Digest,
    /// The content.
    pub bytes: Vec<u8>,
}

impl Blob {
    /// Creates a blob with this content.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self { digest: Digest::of_bytes(&bytes), bytes }
    }
}

/// A change to the ledger, written in the same transaction as the append.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Posting {
    /// Reserves money for an effect; the append fails with [`Error::Ceiling`] if that would exceed the ceiling.
    Reserve {
        /// The account, such as `run:<id>` or `day:2026-11-21`.
        account: String,
        /// The effect that the money is for, within the batch's run.
        effect: forge_types::EffectId,
        /// The amount to reserve.
        amount: Money,
        /// The maximum of spent plus reserved; with `None` the reservation is recorded and never refused.
        ceiling: Option<Money>,
    },
    /// The effect ended: drops its reservations on all accounts and books the actual cost on each of them.
    Settle {
        /// The effect.
        effect: forge_types::EffectId,
        /// The actual cost.
        actual: Money,
    },
}

/// A run as shown in lists. Written with each append, so that listing runs folds no journals.
#[derive(Clone, Debug, PartialEq)]
pub struct RunRow {
    /// The run.
    pub run: RunId,
    /// The first 200 characters of the task.
    pub task: String,
    /// The repository.
    pub repo: String,
    /// The pipeline.
    pub pipeline: String,
    /// The status.
    pub status: RunStatus,
    /// The event or answer that the run waits for.
    pub waiting_for: Option<WaitingFor>,
    /// The current phase.
    pub phase: String,
    /// Provider.
    pub provider: String,
    /// Model.
    pub model: String,
    /// Turns so far.
    pub iterations: u32,
    /// All prompt tokens.
    pub tokens_in: u64,
    /// Reply tokens.
    pub tokens_out: u64,
    /// Money spent.
    pub cost: Money,
    /// Milliseconds of work on the run.
    pub duration_ms: u64,
    /// The limit that ended the run.
    pub limit: Option<LimitKind>,
    /// The error's kind.
    pub error_kind: Option<String>,
    /// The error's message.
    pub error_message: Option<String>,
    /// Time of creation.
    pub created_at: Timestamp,
    /// Time of the last change.
    pub updated_at: Timestamp,
    /// Time of completion.
    pub completed_at: Option<Timestamp>,
}

/// The state of a fold up to an event, so that a long journal need not be read from its start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The last event that the state includes.
    pub seq: Seq,
    /// The version of the fold that wrote it; other versions ignore the checkpoint.
    pub version: u32,
    /// The fold, serialised.
    pub state: Vec<u8>,
}

/// A command to another run, sent together with a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SentCommand {
    /// The run that receives the command.
    pub to: RunId,
    /// The identifier; a command that was sent before is ignored.
    pub id: CommandId,
    /// The command.
    pub command: RunCommand,
}

/// Everything that one iteration of the loop writes, in one transaction.
#[derive(Clone, Debug)]
pub struct Batch {
    /// The run.
    pub run: RunId,
    /// The last event of the journal before this batch.
    pub expected: Seq,
    /// The fencing number of the writer's lease; `None` for the batch that creates a run, which is not claimed yet.
    pub fence: Option<u64>,
    /// The events, numbered from `expected + 1` without gaps.
    pub events: Vec<Event>,
    /// Payloads that the events refer to.
    pub blobs: Vec<Blob>,
    /// Inbox commands that the events record; they are removed from the inbox.
    pub taken: Vec<CommandId>,
    /// Changes to the ledger.
    pub postings: Vec<Posting>,
    /// The run's new row for lists.
    pub row: RunRow,
    /// A new checkpoint.
    pub checkpoint: Option<Checkpoint>,
    /// Adds the run to the queue. If the queue is another system, the adapter queues the run after the commit, from a
    /// record in the same transaction.
    pub enqueue: Option<QueueEntry>,
    /// Child runs that the batch creates, each by its own first batch.
    pub children: Vec<Self>,
    /// Commands to other runs, as [`Journal::send_command`] sends them. One to a run that was removed is dropped.
    pub sends: Vec<SentCommand>,
    /// Writes that must be durable before this batch, because the events refer to them. If one fails, nothing is
    /// stored.
    pub after: Vec<FlushHandle>,
}

/// A query for runs; results are newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunQuery {
    /// Only runs with this status.
    pub status: Option<RunStatus>,
    /// Only runs with ids that begin with this prefix.
    pub prefix: Option<String>,
    /// Only runs on this repository.
    pub repo: Option<String>,
    /// Only runs after this place in the list, which is the last one of the page before.
    pub after: Option<RunCursor>,
    /// Maximum number of runs; 0 means all.
    pub limit: usize,
}

/// A place in a list of runs. It stays the same place when runs are created or change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RunCursor {
    /// The creation time of the run at this place.
    pub created_at: Timestamp,
    /// The run at this place.
    pub run: RunId,
}

impl RunRow {
    /// Returns the place of this row in lists.
    pub const fn cursor(&self) -> RunCursor {
        RunCursor { created_at: self.created_at, run: self.run }
    }
}

/// The result of reading a journal: every readable event, and the damage found.
#[derive(Clone, Debug, Default)]
pub struct EventPage {
    /// The events in order.
    pub events: Vec<Event>,
    /// A description of unreadable data; the events end before it.
    pub damage: Option<String>,
}

/// The changes that a watcher is notified of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WatchScope {
    /// Every change.
    All,
    /// Changes of one run.
    Run(RunId),
    /// New commands of one run. A process that appends to a run need not be woken by its own appends.
    Commands(RunId),
    /// Changes after which a run may be claimed that could not be claimed before. The time of a parked run, and the death of a
    /// worker, are no changes.
    Queue,
}

/// The journal: append-only, ordered per run, durable when `append` returns.
///
/// Every adapter passes the contract suite in `forge-testkit`.
#[async_trait]
pub trait Journal: Send + Sync {
    /// Writes a batch durably as a whole, or not at all. Notifies all watchers in all processes.
    async fn append(&self, batch: Batch) -> Result<(), Error>;

    /// Returns the events after `after`, at most `limit` of them (0: all).
    async fn read_events(&self, run: RunId, after: Seq, limit: usize) -> Result<EventPage, Error>;

    /// Returns the newest checkpoint of a run.
    async fn latest_checkpoint(&self, run: RunId) -> Result<Option<Checkpoint>, Error>;

    /// Returns the content of a blob after checking its hash.
    async fn read_blob(&self, digest: Digest) -> Result<Vec<u8>, Error>;

    /// Returns rows of runs, newest first.
    async fn list_runs(&self, query: RunQuery) -> Result<Vec<RunRow>, Error>;

    /// Adds a command to a run's inbox, durably; the holder of the run takes it from there. A parked run is queued.
    async fn send_command(&self, run: RunId, id: CommandId, command: RunCommand) -> Result<(), Error>;

    /// Returns the pending commands of a run in the order in which they were sent.
    async fn inbox(&self, run: RunId) -> Result<Vec<(CommandId, RunCommand)>, Error>;

    /// Returns a counter that changes after each change of this kind, made by this process or another one on the same
    /// data. The counter may rarely change without cause, but never misses a change.
    fn watch(&self, scope: WatchScope) -> watch::Receiver<u64>;
}
