//! The one thread that writes. What waits for it at a moment goes into one transaction: a sync of the disk
//! costs the same for one run as for sixty-four.

use crate::fault;
use crate::notify::ChangeNotifier;
use crate::reserve::DiskReserve;
use crate::write::{WriteError, WriteOp};
use forge_ports::journal::{Error, WatchScope};
use rusqlite::Connection;
use std::os::unix::fs::FileExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use tokio::sync::oneshot;

/// Changes in one transaction at most.
const MAX_GROUP_WRITES: usize = 256;
/// Pages of the log from which it is copied into the database once nothing else is to be done.
const IDLE_CHECKPOINT_PAGES: usize = 1_000;
/// Pages of the log from which it is copied even while others wait.
const MAX_LOG_PAGES: usize = 6_000;
/// So many zeros are written behind the log at once, in bytes: a sync then writes what is new alone, and not each time how
/// large the file has become and which of its blocks are in use. SQLite takes what is behind the last whole entry for
/// nothing.
const PREALLOCATION_BYTES: u64 = 1 << 20;
/// Zeros.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
/// Bytes of a page of the log with its header.
const LOG_PAGE_BYTES: usize = 4_096 + 24;
/// Pages that a change touches, about: run, its indices, events, ledger.
const PAGES_PER_WRITE: usize = 6;
/// How often the lock of the database is waited for in full before giving up.
const MAX_BUSY_RETRIES: u32 = 3;

/// Room in the log's file, in bytes.
#[derive(Debug, Default)]
struct WalPreallocation {
    /// How much this process has written since the log began anew, about.
    used_bytes: usize,
    /// How large the file is.
    allocated_bytes: usize,
}

/// A change and who waits for it.
#[derive(Debug)]
pub(crate) struct WriteJob {
    pub(crate) write: WriteOp,
    pub(crate) reply: oneshot::Sender<Result<u32, Error>>,
}

type WriteOutcome = Result<u32, Error>;

/// What the thread holds.
#[derive(Debug)]
pub(crate) struct StoreWriter {
    pub(crate) connection: Connection,
    pub(crate) path: PathBuf,
    pub(crate) reserve: DiskReserve,
    pub(crate) notifier: Arc<ChangeNotifier>,
}

impl StoreWriter {
    /// Works until nobody can send any more.
    pub(crate) fn run(self, jobs: &Receiver<WriteJob>) {
        let teller = UnixDatagram::unbound().and_then(|socket| {
            socket.set_nonblocking(true)?;
            Ok(socket)
        });
        let mut log = self.count_log_pages();
        let mut room = WalPreallocation::default();
        let mut reserved = false;
        let mut next = jobs.recv().ok();
        while let Some(first) = next {
            let group = collect_group(first, jobs);
            let pages = group
                .iter()
                .map(|job| PAGES_PER_WRITE + job.write.log_bytes() / LOG_PAGE_BYTES)
                .sum::<usize>();
            log += pages;
            room.used_bytes += pages * LOG_PAGE_BYTES;
            self.process_group(group);
            if let Ok(teller) = &teller {
                self.notifier.notify_processes(teller);
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
            if next.is_none() && room.used_bytes >= room.allocated_bytes {
                self.preallocate(&mut room);
            }
            next = next.or_else(|| jobs.recv().ok());
        }
    }

    /// Takes room for the log. The disk may be full: whoever writes is told.
    fn preallocate(&self, room: &mut WalPreallocation) {
        // Behind its end only, and only while no process writes to it.
        if self.begin_immediate().is_err() {
            return;
        }
        let taken = self.extend_log(room.allocated_bytes > 0);
        let _ = self.run_cached("ROLLBACK");
        room.allocated_bytes = taken.map_or(usize::MAX, |taken| usize::try_from(taken).unwrap_or(usize::MAX));
    }

    /// Writes zeros behind the log, if it is short or there is to be `more`; its length then.
    fn extend_log(&self, more: bool) -> std::io::Result<u64> {
        let log = std::fs::OpenOptions::new().write(true).open(self.log_path())?;
        let size = log.metadata()?.len();
        // What earlier processes left may be used or not; when this one has filled as much, more is needed.
        let wanted = if more { size + PREALLOCATION_BYTES } else { PREALLOCATION_BYTES };
        let mut at = size;
        while at < wanted {
            let some = ZEROS.len().min(usize::try_from(wanted - at).unwrap_or(usize::MAX));
            log.write_all_at(&ZEROS[..some], at)?;
            at += some as u64;
        }
        Ok(at)
    }

    fn log_path(&self) -> std::ffi::OsString {
        let mut name = self.path.clone().into_os_string();
        name.push("-wal");
        name
    }

    /// Pages in the log that earlier processes left. The file may be larger than what it holds.
    fn count_log_pages(&self) -> usize {
        let bytes = std::fs::metadata(self.log_path()).map_or(0, |file| file.len());
        usize::try_from(bytes).unwrap_or(usize::MAX) / LOG_PAGE_BYTES
    }

    fn checkpoint_log(&self) {
        let copied = self.connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()));
        if let Err(error) = copied {
            tracing::debug!(%error, "the log could not be copied into the database; it will be tried again");
        }
    }

    /// Does a group of changes and answers.
    fn process_group(&self, group: Vec<WriteJob>) {
        let writes: Vec<&WriteOp> = group.iter().map(|job| &job.write).collect();
        let outcomes = match self.commit(&writes) {
            Ok(outcomes) => outcomes,
            // Waiting longer would help none of them.
            Err(error) if fault::is_busy(&error) => {
                writes.iter().map(|_| Err(fault::sqlite_error(&self.path, &error))).collect()
            }
            // One of them may be the cause: each gets a transaction of its own.
            Err(_) if writes.len() > 1 => writes.iter().map(|write| self.commit_single(write)).collect(),
            Err(error) => vec![self.retry_with_reserve(writes[0], error)],
        };
        if outcomes.iter().any(Result::is_ok) {
            let commands = writes.iter().any(|write| matches!(write, WriteOp::Send { .. }));
            self.notifier.bump(if commands { WatchScope::Commands } else { WatchScope::All });
        }
        for (job, outcome) in group.into_iter().zip(outcomes) {
            // Whoever no longer waits has been cancelled; the change stands all the same.
            let _ = job.reply.send(outcome);
        }
    }

    fn commit_single(&self, write: &WriteOp) -> WriteOutcome {
        match self.commit(&[write]) {
            Ok(outcomes) => outcomes.into_iter().next().unwrap_or(Ok(0)),
            Err(error) => self.retry_with_reserve(write, error),
        }
    }

    /// The end of a run may use the disk that was kept back for it.
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

    /// One transaction. A change that is refused leaves no trace in it; an error means that nothing of the
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

    /// A single change needs no savepoint: if it is refused, the transaction goes with it.
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
