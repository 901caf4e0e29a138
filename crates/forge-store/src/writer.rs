//! The single writer thread. All pending changes go into one transaction: a disk sync costs the same for one
//! run as for sixty-four.

use crate::fault;
use crate::notify::ChangeNotifier;
use crate::reserve::DiskReserve;
use crate::wal_preallocate::WalPreallocation;
use crate::watchers::RunChange;
use crate::write::{WriteError, WriteOp};
use forge_ports::journal::Error;
use rusqlite::Connection;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use tokio::sync::oneshot;

/// The most changes in one transaction.
const MAX_GROUP_WRITES: usize = 256;
/// The size of the log, in pages, at which it is copied into the database when the writer is idle.
const IDLE_CHECKPOINT_PAGES: usize = 1_000;
/// The size of the log, in pages, at which it is copied even while changes are pending.
const MAX_LOG_PAGES: usize = 6_000;
/// The size of a log page with its header, in bytes.
const LOG_PAGE_BYTES: usize = 4_096 + 24;
/// The approximate number of pages that a change touches: run, its indices, events, feed, ledger.
const PAGES_PER_WRITE: usize = 7;
/// The number of full waits for the database's lock before the writer gives up.
const MAX_BUSY_RETRIES: u32 = 3;

/// A change and the channel for its outcome.
#[derive(Debug)]
pub(crate) struct WriteJob {
    pub(crate) write: WriteOp,
    pub(crate) reply: oneshot::Sender<Result<u32, Error>>,
}

type WriteOutcome = Result<u32, Error>;

/// The state of the writer thread.
#[derive(Debug)]
pub(crate) struct StoreWriter {
    pub(crate) connection: Connection,
    pub(crate) path: PathBuf,
    pub(crate) reserve: DiskReserve,
    pub(crate) notifier: Arc<ChangeNotifier>,
}

impl StoreWriter {
    /// Processes changes until every sender is dropped.
    pub(crate) fn run(self, jobs: &Receiver<WriteJob>) {
        let teller = UnixDatagram::unbound().and_then(|socket| {
            socket.set_nonblocking(true)?;
            Ok(socket)
        });
        let mut room = WalPreallocation::new(&self.path);
        // An estimate: the file may exceed its content.
        let mut log = usize::try_from(room.file_bytes()).unwrap_or(usize::MAX) / LOG_PAGE_BYTES;
        let mut reserved = false;
        let mut next = jobs.recv().ok();
        while let Some(first) = next {
            let group = collect_group(first, jobs);
            let pages = group
                .iter()
                .map(|job| PAGES_PER_WRITE + job.write.log_bytes() / LOG_PAGE_BYTES)
                .sum::<usize>();
            log += pages;
            room.used_bytes += (pages * LOG_PAGE_BYTES) as u64;
            let changes = self.process_group(group);
            if let Ok(teller) = &teller {
                self.notifier.notify_processes(teller, &changes);
            }
            if !reserved {
                reserved = true;
                self.reserve.ensure();
            }
            next = jobs.try_recv().ok();
            if log > MAX_LOG_PAGES || (log > IDLE_CHECKPOINT_PAGES && next.is_none()) {
                self.checkpoint_log();
                log = 0;
                room.used_bytes = 0;
            }
            if next.is_none() && room.is_used_up() {
                self.preallocate(&mut room);
            }
            next = next.or_else(|| jobs.recv().ok());
        }
    }

    /// Preallocates space for the log while no process writes to it.
    fn preallocate(&self, room: &mut WalPreallocation) {
        if self.begin_immediate().is_ok() {
            room.extend();
            let _ = self.run_cached("ROLLBACK");
        }
    }

    fn checkpoint_log(&self) {
        let copied = self.connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()));
        if let Err(error) = copied {
            tracing::debug!(%error, "the log can't be copied into the database yet; will retry");
        }
    }

    /// Commits a group of changes and replies to their callers. Returns the committed changes, each once.
    fn process_group(&self, group: Vec<WriteJob>) -> Vec<RunChange> {
        let writes: Vec<&WriteOp> = group.iter().map(|job| &job.write).collect();
        let outcomes = match self.commit(&writes) {
            Ok(outcomes) => outcomes,
            // Waiting longer would help none of them.
            Err(error) if fault::is_busy(&error) => {
                writes.iter().map(|_| Err(fault::sqlite_error(&self.path, &error))).collect()
            }
            // One of them may be the cause: each gets its own transaction.
            Err(_) if writes.len() > 1 => writes.iter().map(|write| self.commit_single(write)).collect(),
            Err(error) => vec![self.retry_with_reserve(writes[0], error)],
        };
        let committed = writes.iter().zip(&outcomes).filter(|(_, outcome)| outcome.is_ok());
        let mut changes: Vec<RunChange> = committed.flat_map(|(write, _)| write.run_changes()).collect();
        changes.sort_unstable();
        changes.dedup();
        if outcomes.iter().any(Result::is_ok) {
            self.notifier.count(&changes);
        }
        for (job, outcome) in group.into_iter().zip(outcomes) {
            // A caller that no longer waits has been cancelled; the change is committed all the same.
            let _ = job.reply.send(outcome);
        }
        changes
    }

    fn commit_single(&self, write: &WriteOp) -> WriteOutcome {
        match self.commit(&[write]) {
            Ok(outcomes) => outcomes.into_iter().next().unwrap_or(Ok(0)),
            Err(error) => self.retry_with_reserve(write, error),
        }
    }

    /// Retries the end of a run with the reserved disk space.
    fn retry_with_reserve(&self, write: &WriteOp, error: rusqlite::Error) -> WriteOutcome {
        let error = fault::sqlite_error(&self.path, &error);
        let full = matches!(error, Error::DiskFull { .. });
        if !(full && write.is_ending() && self.reserve.release()) {
            return Err(error);
        }
        match self.commit(&[write]) {
            Ok(outcomes) => outcomes.into_iter().next().unwrap_or(Ok(0)),
            Err(error) => Err(fault::sqlite_error(&self.path, &error)),
        }
    }

    /// Commits one transaction. A refused change leaves no trace in it; an error means that nothing of the
    /// whole group was written.
    fn commit(&self, writes: &[&WriteOp]) -> rusqlite::Result<Vec<WriteOutcome>> {
        self.begin_immediate()?;
        let outcome = match writes {
            [write] => self.apply_single(write),
            _ => self.apply_group(writes),
        };
        let outcome = outcome.and_then(|outcomes| {
            if !self.connection.is_autocommit() {
                self.run_cached("COMMIT")?;
            }
            Ok(outcomes)
        });
        if outcome.is_err() && !self.connection.is_autocommit() {
            let _ = self.run_cached("ROLLBACK");
        }
        outcome
    }

    /// Applies a single change without a savepoint: if it is refused, the transaction is rolled back.
    fn apply_single(&self, write: &WriteOp) -> rusqlite::Result<Vec<WriteOutcome>> {
        match write.apply(&self.connection) {
            Ok(count) => Ok(vec![Ok(count)]),
            Err(WriteError::Refused(error)) => {
                self.run_cached("ROLLBACK")?;
                Ok(vec![Err(error)])
            }
            Err(WriteError::Sqlite(error)) => Err(error),
        }
    }

    fn apply_group(&self, writes: &[&WriteOp]) -> rusqlite::Result<Vec<WriteOutcome>> {
        let mut outcomes = Vec::with_capacity(writes.len());
        for write in writes {
            self.run_cached("SAVEPOINT one")?;
            outcomes.push(match write.apply(&self.connection) {
                Ok(count) => Ok(count),
                Err(WriteError::Refused(error)) => {
                    self.run_cached("ROLLBACK TO one")?;
                    Err(error)
                }
                Err(WriteError::Sqlite(error)) => return Err(error),
            });
            self.run_cached("RELEASE one")?;
        }
        Ok(outcomes)
    }

    fn begin_immediate(&self) -> rusqlite::Result<()> {
        let mut tries = 0;
        loop {
            match self.run_cached("BEGIN IMMEDIATE") {
                Err(error) if fault::is_busy(&error) && tries < MAX_BUSY_RETRIES => tries += 1,
                outcome => return outcome,
            }
        }
    }

    fn run_cached(&self, sql: &str) -> rusqlite::Result<()> {
        self.connection.prepare_cached(sql)?.execute([]).map(|_| ())
    }
}

fn collect_group(first: WriteJob, jobs: &Receiver<WriteJob>) -> Vec<WriteJob> {
    let mut group = vec![first];
    group.extend(jobs.try_iter().take(MAX_GROUP_WRITES - 1));
    group
}
