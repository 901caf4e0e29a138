//! The queue of runs on one machine. A table of the store lists the runs to be worked on; a file lock per run
//! identifies the process that works on it.
//!
//! A lease ends when it is dropped or its process dies, `kill -9` included, without any timeout. An item that
//! is marked as processing although its lock is free has lost its owner and can be claimed like a queued one.

mod lock;
pub(crate) mod table;

use crate::SqliteStore;
use crate::write::WriteOp;
use async_trait::async_trait;
use forge_ports::Clock;
use forge_ports::journal::Error;
use forge_ports::queue::{ClaimError, ItemStatus, Lease, NextClaim, Queue, QueueEntry, QueueScope};
use forge_types::{RunId, Timestamp};
use lock::{LockAttempt, LockDirectory, RunLock};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use table::QueueItem;

/// The location of the queue's locks and the name of the worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueOptions {
    /// The data directory; the locks are in its subdirectory `locks`.
    pub data_dir: PathBuf,
    /// The name that other processes see as the holder of a lease: [`worker_name`].
    pub worker: String,
}

impl QueueOptions {
    /// Returns the options for this process.
    pub fn new(data_dir: PathBuf) -> Self {
        Self { data_dir, worker: worker_name() }
    }
}

/// Returns the name of this process: `host:pid`.
pub fn worker_name() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname")
        .or_else(|_| std::fs::read_to_string("/etc/hostname"))
        .unwrap_or_default();
    let host = host.trim();
    let host = if host.is_empty() { "localhost" } else { host };
    format!("{host}:{}", std::process::id())
}

/// The queue on a store's table.
#[derive(Clone)]
pub struct LocalQueue {
    store: SqliteStore,
    clock: Arc<dyn Clock>,
    locks: LockDirectory,
    worker: String,
}

struct LocalLease {
    run: RunId,
    attempt: u32,
    _lock: RunLock,
}

impl Lease for LocalLease {
    fn run_id(&self) -> RunId {
        self.run
    }

    fn attempt(&self) -> u32 {
        self.attempt
    }
}

impl LocalQueue {
    /// Creates the queue on the table of `store`. Touches no file before its first use.
    pub fn new(options: QueueOptions, store: SqliteStore, clock: Arc<dyn Clock>) -> Self {
        Self { store, clock, locks: LockDirectory::new(&options.data_dir), worker: options.worker }
    }

    /// Runs `what` on the lock directory, on a blocking thread: the disk may be slow.
    async fn with_lock<T: Send + 'static>(
        &self,
        run: RunId,
        what: impl FnOnce(&LockDirectory, &str) -> io::Result<T> + Send + 'static,
    ) -> Result<T, ClaimError> {
        let (locks, worker) = (self.locks.clone(), self.worker.clone());
        let done = tokio::task::spawn_blocking(move || what(&locks, &worker)).await;
        done.unwrap_or_else(|error| Err(io::Error::other(error))).map_err(|error| {
            let path = self.locks.path(run).display().to_string();
            ClaimError::Lock { run, path, why: error.to_string() }
        })
    }

    async fn try_lock_run(&self, run: RunId) -> Result<LockAttempt, ClaimError> {
        self.with_lock(run, move |locks, worker| locks.try_lock(run, worker)).await
    }

    async fn start_lease(&self, run: RunId, lock: RunLock) -> Result<Box<dyn Lease>, ClaimError> {
        let attempt = self.store.mark_processing(run, self.clock.now()).await?;
        Ok(Box::new(LocalLease { run, attempt, _lock: lock }))
    }

    /// Returns the items of a scope that can be claimed now, and the time at which the first of the others can.
    async fn claimable(&self, scope: QueueScope) -> Result<(Vec<RunId>, Option<Timestamp>), Error> {
        let (now, mut next) = (self.clock.now(), None);
        let mut runs = Vec::new();
        for item in self.store.open_items(scope).await? {
            match item.status {
                ItemStatus::Parked { until: Some(until) } if until > now => {
                    next = Some(next.map_or(until, |next: Timestamp| next.min(until)));
                }
                _ => runs.push(item.run),
            }
        }
        Ok((runs, next))
    }
}

#[async_trait]
impl Queue for LocalQueue {
    async fn enqueue(&self, entry: QueueEntry) -> Result<(), Error> {
        self.store.enqueue_item(entry, self.clock.now()).await
    }

    async fn claim(&self, run: RunId) -> Result<Box<dyn Lease>, ClaimError> {
        match self.try_lock_run(run).await? {
            LockAttempt::Locked(lock) => self.start_lease(run, lock).await,
            LockAttempt::Held(holder) => Err(ClaimError::Held { run, holder }),
        }
    }

    async fn claim_next(&self, scope: QueueScope) -> Result<NextClaim, ClaimError> {
        let (runs, next) = self.claimable(scope).await?;
        for run in runs {
            let LockAttempt::Locked(lock) = self.try_lock_run(run).await? else { continue };
            // Between the read of the table and the lock, another process may have finished the item.
            if self.claimable(scope).await?.0.contains(&run) {
                return self.start_lease(run, lock).await.map(NextClaim::Claimed);
            }
        }
        Ok(NextClaim::Nothing { next })
    }

    async fn finish(&self, lease: Box<dyn Lease>, status: ItemStatus) -> Result<(), Error> {
        // The lease ends after the table is updated, so that no other process finds the item open and free in
        // between.
        let outcome = self.store.set_item_status(lease.run_id(), lease.attempt(), status).await;
        drop(lease);
        outcome
    }

    async fn holder(&self, run: RunId) -> Result<Option<String>, Error> {
        let locks = self.locks.clone();
        let found = tokio::task::spawn_blocking(move || locks.holder(run)).await;
        found.unwrap_or_else(|error| Err(io::Error::other(error))).map_err(|error| Error::Unavailable {
            path: self.locks.path(run).display().to_string(),
            why: error.to_string(),
        })
    }

    async fn idle_fence(&self, run: RunId) -> Result<Option<u64>, Error> {
        // In this order: a claim in between has either ended or is found, and has a greater number in both cases.
        let attempts = self.store.query(move |connection| table::attempts(connection, run)).await?;
        Ok(self.holder(run).await?.is_none().then(|| attempts.map_or(0, u64::from)))
    }

    async fn queued_count(&self) -> Result<usize, Error> {
        let items = self.store.open_items(QueueScope::All).await?;
        Ok(items.iter().filter(|item| item.status == ItemStatus::Queued).count())
    }
}

/// The table of the queue. Every call is one transaction.
impl SqliteStore {
    /// Inserts the item, or replaces its status and priority.
    async fn enqueue_item(&self, entry: QueueEntry, at: Timestamp) -> Result<(), Error> {
        self.submit_write(WriteOp::Enqueue { entry, at }).await.map(|_| ())
    }

    /// Returns the open items of a scope, highest priority first, oldest first among equals.
    async fn open_items(&self, scope: QueueScope) -> Result<Vec<QueueItem>, Error> {
        self.query(move |connection| table::open_items(connection, scope)).await
    }

    /// Marks the item as processing and counts the attempt; returns the count. Creates the item if there is none.
    async fn mark_processing(&self, run: RunId, at: Timestamp) -> Result<u32, Error> {
        self.submit_write(WriteOp::MarkProcessing { run, at }).await
    }

    /// Sets the status of an item that is claimed for this attempt.
    async fn set_item_status(&self, run: RunId, attempt: u32, status: ItemStatus) -> Result<(), Error> {
        self.submit_write(WriteOp::SetStatus { run, attempt, status }).await.map(|_| ())
    }
}
