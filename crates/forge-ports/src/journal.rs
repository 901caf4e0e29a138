//! The journal of runs.

use crate::FlushHandle;
use async_trait::async_trait;
use forge_types::{
    CommandId, Digest, ErrorClass, Event, LimitKind, Money, RunCommand, RunId, RunStatus, Seq, Timestamp,
    WaitingFor,
};
use tokio::sync::watch;

/// What can go wrong with a journal.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process appended to this run in between; read on and decide again.
    #[error("run {run} was changed by another process (its journal ends at {actual}, not at {expected})")]
    Conflict {
        /// The run.
        run: RunId,
        /// Where the writer thought that the journal ends.
        expected: Seq,
        /// Where it does.
        actual: Seq,
    },
    /// A reservation would pass a ceiling; nothing was written.
    #[error(
        "the ceiling of {account} ({ceiling}) would be passed: {used} is spent or reserved, {wanted} is wanted"
    )]
    Ceiling {
        /// The account, such as `day:2026-11-21`.
        account: String,
        /// Its ceiling.
        ceiling: Money,
        /// Spent and reserved so far.
        used: Money,
        /// What was to be reserved.
        wanted: Money,
    },
    /// There is no such thing.
    #[error("there is no {what}")]
    NotFound {
        /// What was looked for, such as `run 0192…`.
        what: String,
    },
    /// Something stored can't be read; the rest can.
    #[error("damaged: {what}")]
    Damaged {
        /// What and where.
        what: String,
    },
    /// The data was written by a newer version.
    #[error(
        "{path} was written by a newer version of forge (format {found}; this version reads up to {known}). Install that version, or use another data folder with XDG_DATA_HOME"
    )]
    TooNew {
        /// The file.
        path: String,
        /// Its format.
        found: u32,
        /// The newest format known here.
        known: u32,
    },
    /// No space is left.
    #[error("no space is left on the disk of {path}. Free some space, then `forge resume` the run")]
    DiskFull {
        /// The file.
        path: String,
    },
    /// Anything else the storage says.
    #[error("the store at {path} can't be used: {why}")]
    Unavailable {
        /// The file.
        path: String,
        /// What it says.
        why: String,
    },
}

impl Error {
    /// What can be done about it.
    pub const fn class(&self) -> ErrorClass {
        match self {
            Self::Conflict { .. } => ErrorClass::Retry { after: None },
            Self::Ceiling { .. } => ErrorClass::Denied,
            Self::NotFound { .. } => ErrorClass::Invalid,
            Self::Unavailable { .. } => ErrorClass::Unavailable,
            Self::Damaged { .. } | Self::TooNew { .. } | Self::DiskFull { .. } => ErrorClass::Fatal,
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
    /// A blob of this content.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self { digest: Digest::of_bytes(&bytes), bytes }
    }
}

/// A change of the ledger, in the same transaction as the append.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Posting {
    /// Reserve money for an effect; the append fails with [`Error::Ceiling`] if that would pass the ceiling.
    Reserve {
        /// The account, such as `run:<id>` or `day:2026-11-21`.
        account: String,
        /// The effect it is for, within the batch's run.
        effect: forge_types::EffectId,
        /// How much.
        amount: Money,
        /// What spent plus reserved may reach; `None`: only booked, never refused.
        ceiling: Option<Money>,
    },
    /// The effect ended: drop its reservations on all accounts and book what it cost on each of them.
    Settle {
        /// The effect.
        effect: forge_types::EffectId,
        /// What it cost.
        actual: Money,
    },
}

/// What a list shows of a run: written with each append, so that lists fold no journals.
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
    /// Where it stands.
    pub status: RunStatus,
    /// What it waits for.
    pub waiting_for: Option<WaitingFor>,
    /// What it is at.
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
    /// Milliseconds worked on it.
    pub duration_ms: u64,
    /// The limit that ended it.
    pub limit: Option<LimitKind>,
    /// The error's kind.
    pub error_kind: Option<String>,
    /// The error's message.
    pub error_message: Option<String>,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// When it ended.
    pub completed_at: Option<Timestamp>,
}

/// The state of a fold up to an event, so that reading a long journal need not begin at its beginning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The last event in it.
    pub seq: Seq,
    /// The version of the fold that wrote it; another version ignores it.
    pub version: u32,
    /// The fold, serialised.
    pub state: Vec<u8>,
}

/// All that one turn of the loop writes, in one transaction.
#[derive(Clone, Debug)]
pub struct Batch {
    /// The run.
    pub run: RunId,
    /// Where its journal must end before this batch.
    pub expected: Seq,
    /// The events, numbered from `expected + 1` without gaps.
    pub events: Vec<Event>,
    /// Payloads that the events refer to.
    pub blobs: Vec<Blob>,
    /// Commands of the inbox that the events hold; they leave the inbox.
    pub taken: Vec<CommandId>,
    /// Changes of the ledger.
    pub postings: Vec<Posting>,
    /// What lists show from now on.
    pub row: RunRow,
    /// A new checkpoint.
    pub checkpoint: Option<Checkpoint>,
    /// What must be on disk before this is: things that the events name. If one fails, nothing of this is stored.
    pub after: Vec<FlushHandle>,
}

/// A question to the list of runs; newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunQuery {
    /// Only runs with this status.
    pub status: Option<RunStatus>,
    /// Only runs whose id begins so.
    pub prefix: Option<String>,
    /// Only runs on this repository.
    pub repo: Option<String>,
    /// At most so many; 0: all.
    pub limit: usize,
}

/// What reading a journal gave: everything that can be read, and what could not.
#[derive(Clone, Debug, Default)]
pub struct EventPage {
    /// The events in order.
    pub events: Vec<Event>,
    /// What could not be read; the events end before it.
    pub damage: Option<String>,
}

/// What a watcher wants to hear of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchScope {
    /// Every change.
    All,
    /// Commands that were sent. Whoever appends to a run need not be woken by its own appends.
    Commands,
}

/// The journal: append-only, ordered per run, durable when `append` returns.
///
/// Every adapter passes the contract suite in `forge-testkit`.
#[async_trait]
pub trait Journal: Send + Sync {
    /// Writes a batch: all of it durably, or nothing. Emits a change to all watchers in all processes.
    async fn append(&self, batch: Batch) -> Result<(), Error>;

    /// Events after `after`, at most `limit` of them (0: all).
    async fn read_events(&self, run: RunId, after: Seq, limit: usize) -> Result<EventPage, Error>;

    /// The newest checkpoint of a run.
    async fn latest_checkpoint(&self, run: RunId) -> Result<Option<Checkpoint>, Error>;

    /// The content of a blob; its hash has been checked.
    async fn read_blob(&self, digest: Digest) -> Result<Vec<u8>, Error>;

    /// Rows of runs, newest first.
    async fn list_runs(&self, query: RunQuery) -> Result<Vec<RunRow>, Error>;

    /// Puts a command into a run's inbox, durably; whoever holds the run takes it.
    async fn send_command(&self, run: RunId, id: CommandId, command: RunCommand) -> Result<(), Error>;

    /// The commands of a run that nobody took yet, in the order in which they were sent.
    async fn inbox(&self, run: RunId) -> Result<Vec<(CommandId, RunCommand)>, Error>;

    /// A counter that moves when something of this kind changed, in this process or another one on the same data.
    /// It may move without such a change, never the other way round.
    fn watch(&self, news: WatchScope) -> watch::Receiver<u64>;
}
