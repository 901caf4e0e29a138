//! The journal, the ledger and the queue on SQLite, for several processes that share a data directory.
//!
//! Each store has one writer thread ([`SqliteStore::open`] starts it). Pending changes are committed together
//! and are on disk when their callers get an answer. Reads use a few separate connections. Payloads up to 256
//! kB are stored in the database, larger ones in files named by their content hash. Processes notify each other
//! of changes through sockets in the data directory. One row per batch keeps the order in which all batches were
//! committed.
//!
//! Not in this crate: it understands no event beyond its JSON form, holds no run's state, and decides nothing
//! but what the ports promise (order, ceilings, each command is taken once).

mod fault;
mod feed;
mod files;
mod notify;
mod queue;
mod read;
mod reserve;
mod routing_state;
mod routing_tables;
mod runs;
mod schema;
mod wal_preallocate;
mod watchers;
mod write;
mod writer;

pub use queue::{LocalQueue, QueueOptions, worker_name};

use crate::files::PayloadFiles;
use crate::notify::ChangeNotifier;
use crate::reserve::DiskReserve;
use crate::schema::ConnectionPurpose;
use crate::write::{PreparedBatch, WriteOp};
use crate::writer::{StoreWriter, WriteJob};
use async_trait::async_trait;
use forge_ports::FlushHandle;
use forge_ports::feed::{Feed, FeedPage, Position};
use forge_ports::journal::{
    Batch, Blob, Checkpoint, Error, EventPage, Journal, RunQuery, RunRow, WatchScope,
};
use forge_ports::ledger::{Balance, Ledger};
use forge_types::{CommandId, Digest, EffectId, Money, RunCommand, RunId, Seq};
use parking_lot::Mutex;
use rusqlite::Connection;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, Sender};
use std::thread::JoinHandle;
use tokio::sync::{Semaphore, oneshot, watch};

/// Payloads above this many bytes become files.
const MAX_INLINE_PAYLOAD_BYTES: usize = 256 * 1024;
/// Connections that read concurrently; each may cache 1 MiB of pages.
const MAX_READERS: usize = 4;

/// The location of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The data directory, created with access for its owner only if it does not exist. The database is
    /// `forge.db` in it.
    pub data_dir: PathBuf,
}

/// A store on SQLite. Clones share it; it closes when the last of them is dropped.
#[derive(Clone, Debug)]
pub struct SqliteStore {
    inner: Arc<StoreInner>,
}

#[derive(Debug)]
struct StoreInner {
    path: PathBuf,
    files: PayloadFiles,
    notifier: Arc<ChangeNotifier>,
    readers: Mutex<Vec<Connection>>,
    reader_permits: Arc<Semaphore>,
    /// `None` only while the store closes.
    jobs: Option<Sender<WriteJob>>,
    writer: Option<JoinHandle<()>>,
}

impl SqliteStore {
    /// Opens the store in a data directory, creating or migrating it if necessary. Blocks for about a
    /// millisecond, longer only when the database is created or migrated.
    ///
    /// # Errors
    /// [`Error::TooNew`] if a newer version wrote the store (nothing is changed then), [`Error::Damaged`] if
    /// the file is no database, [`Error::DiskFull`], otherwise [`Error::Unavailable`] with the reason that the
    /// system gives.
    pub fn open(options: &Options) -> Result<Self, Error> {
        let dir = &options.data_dir;
        schema::create_data_dir(dir)?;
        let path = dir.join("forge.db");
        let connection = schema::open(dir, &path)?;
        let wake = Arc::new(ChangeNotifier::new(dir, &path));
        let writer = StoreWriter {
            connection,
            path: path.clone(),
            reserve: DiskReserve::new(dir),
            notifier: Arc::clone(&wake),
        };
        let (jobs, queue) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || writer.run(&queue))
            .map_err(|error| fault::io_error(&path, "starting the writer thread", &error))?;
        let inner = StoreInner {
            files: PayloadFiles::new(dir),
            notifier: wake,
            readers: Mutex::new(Vec::new()),
            reader_permits: Arc::new(Semaphore::new(MAX_READERS)),
            jobs: Some(jobs),
            writer: Some(thread),
            path,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Returns the path of the database file, for messages.
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// Sends a change to the writer thread and waits until it is on disk.
    async fn submit_write(&self, write: WriteOp) -> Result<u32, Error> {
        let (reply, answer) = oneshot::channel();
        let sent = self.inner.jobs.as_ref().is_some_and(|jobs| jobs.send(WriteJob { write, reply }).is_ok());
        let answer = if sent { answer.await.ok() } else { None };
        answer.unwrap_or_else(|| Err(self.writer_ended_error()))
    }

    /// Does the same once the data that the change refers to is durable. The writer thread serves all runs and must not
    /// wait for one run's flush; the thread that completes the last flush hands the change to it.
    async fn submit_after(
        &self,
        mut flushes: Vec<FlushHandle>,
        lost: impl Fn(String) -> Error + Send + 'static,
        write: WriteOp,
    ) -> Result<u32, Error> {
        let Some(last) = flushes.pop() else { return self.submit_write(write).await };
        for durable in flushes {
            durable.wait().await.map_err(&lost)?;
        }
        let (reply, answer) = oneshot::channel();
        let jobs = self.inner.jobs.clone();
        last.on_complete(move |outcome| match (outcome, jobs) {
            (Ok(()), Some(jobs)) => drop(jobs.send(WriteJob { write, reply })),
            (Ok(()), None) => {}
            (Err(why), _) => drop(reply.send(Err(lost(why)))),
        });
        answer.await.unwrap_or_else(|_| Err(self.writer_ended_error()))
    }

    fn writer_ended_error(&self) -> Error {
        let path = self.inner.path.display().to_string();
        Error::Unavailable { path, why: "the writer thread has ended".to_owned() }
    }

    /// Runs `question` on a connection of its own, on a blocking thread.
    async fn with_reader<T: Send + 'static>(
        &self,
        question: impl FnOnce(&StoreInner, &Connection) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let inner = Arc::clone(&self.inner);
        let turn = Arc::clone(&inner.reader_permits).acquire_owned().await;
        let asked = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            let connection = inner.acquire_reader()?;
            let answer = question(&inner, &connection);
            inner.readers.lock().push(connection);
            answer
        });
        asked.await.unwrap_or_else(|error| {
            let path = self.inner.path.display().to_string();
            Err(Error::Unavailable { path, why: format!("the read was aborted: {error}") })
        })
    }

    /// Runs a query that only SQLite can fail; otherwise as [`Self::with_reader`].
    async fn query<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, Error> {
        self.with_reader(|inner, connection| {
            question(connection).map_err(|error| fault::sqlite_error(&inner.path, &error))
        })
        .await
    }

    /// Writes the large payloads of a batch as files and returns the others.
    async fn write_large_blobs(&self, blobs: Vec<Blob>) -> Result<Vec<Blob>, Error> {
        let (large, small): (Vec<_>, Vec<_>) =
            blobs.into_iter().partition(|blob| blob.bytes.len() > MAX_INLINE_PAYLOAD_BYTES);
        if large.is_empty() {
            return Ok(small);
        }
        let files = self.inner.files.clone();
        let written =
            tokio::task::spawn_blocking(move || large.iter().try_for_each(|blob| files.write(blob)));
        written.await.unwrap_or_else(|error| {
            let path = self.inner.path.display().to_string();
            Err(Error::Unavailable { path, why: format!("writing a payload was aborted: {error}") })
        })?;
        Ok(small)
    }
}

/// Returns the error of a batch that refers to snapshots which could not be made durable.
fn lost_snapshot_error(run: RunId) -> impl Fn(String) -> Error + Send + 'static {
    move |why| Error::Unavailable { path: format!("the snapshots of run {run}"), why }
}

impl StoreInner {
    fn acquire_reader(&self) -> Result<Connection, Error> {
        let idle = self.readers.lock().pop();
        idle.map_or_else(|| schema::connect(&self.path, ConnectionPurpose::Read), Ok)
    }
}

impl Drop for StoreInner {
    /// Waits until everything sent is written and other processes are notified.
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
        self.notifier.close();
    }
}

#[async_trait]
impl Journal for SqliteStore {
    async fn append(&self, mut batch: Batch) -> Result<(), Error> {
        batch.blobs = self.write_large_blobs(batch.blobs).await?;
        let flushes = std::mem::take(&mut batch.after);
        let lost = lost_snapshot_error(batch.run);
        let prepared = PreparedBatch::new(batch, &self.inner.path)?;
        self.submit_after(flushes, lost, WriteOp::Append(Box::new(prepared))).await.map(|_| ())
    }

    async fn read_events(&self, run: RunId, after: Seq, limit: usize) -> Result<EventPage, Error> {
        self.query(move |connection| read::read_events(connection, run, after, limit)).await
    }

    async fn latest_checkpoint(&self, run: RunId) -> Result<Option<Checkpoint>, Error> {
        self.query(move |connection| read::latest_checkpoint(connection, run)).await
    }

    async fn read_blob(&self, digest: Digest) -> Result<Vec<u8>, Error> {
        self.with_reader(move |inner, connection| {
            let stored = read::read_blob(connection, digest)
                .map_err(|error| fault::sqlite_error(&inner.path, &error))?;
            let (bytes, place) = match stored {
                Some(bytes) => (bytes, inner.path.clone()),
                None => match inner.files.read(digest)? {
                    Some(bytes) => (bytes, inner.files.path(digest)),
                    None => return Err(Error::NotFound { what: format!("payload {digest}") }),
                },
            };
            if Digest::of_bytes(&bytes) != digest {
                let place = place.display();
                let what =
                    format!("the payload {digest} in {place}: its content has changed since it was written");
                return Err(Error::Damaged { what });
            }
            Ok(bytes)
        })
        .await
    }

    async fn list_runs(&self, query: RunQuery) -> Result<Vec<RunRow>, Error> {
        self.with_reader(move |inner, connection| match runs::list(connection, &query) {
            Ok(rows) => Ok(rows),
            Err((rows, error)) if rows.is_empty() => Err(fault::sqlite_error(&inner.path, &error)),
            Err((rows, error)) => {
                let error = fault::sqlite_error(&inner.path, &error);
                tracing::warn!(%error, "the list of runs is incomplete");
                Ok(rows)
            }
        })
        .await
    }

    async fn send_command(&self, run: RunId, id: CommandId, command: RunCommand) -> Result<(), Error> {
        let command = serde_json::to_string(&command).map_err(|error| Error::Unavailable {
            path: self.inner.path.display().to_string(),
            why: format!("command {id} has no JSON form: {error}"),
        })?;
        self.submit_write(WriteOp::Send { run, id, command }).await.map(|_| ())
    }

    async fn inbox(&self, run: RunId) -> Result<Vec<(CommandId, RunCommand)>, Error> {
        self.query(move |connection| read::inbox(connection, run)).await
    }

    fn watch(&self, news: WatchScope) -> watch::Receiver<u64> {
        self.inner.notifier.watch(news)
    }
}

#[async_trait]
impl Feed for SqliteStore {
    async fn read_feed(&self, after: Position, limit: usize) -> Result<FeedPage, Error> {
        self.query(move |connection| feed::read(connection, after, limit)).await
    }

    fn watch_feed(&self) -> watch::Receiver<u64> {
        self.inner.notifier.watch(WatchScope::All)
    }
}

#[async_trait]
impl Ledger for SqliteStore {
    async fn balance(&self, account: &str) -> Result<Balance, Error> {
        let account = account.to_owned();
        self.query(move |connection| read::balance(connection, &account)).await
    }

    async fn reservations(&self, run: RunId) -> Result<Vec<(EffectId, String, Money)>, Error> {
        self.query(move |connection| read::reservations(connection, run)).await
    }

    async fn holders(&self, account: &str) -> Result<Vec<(RunId, Money)>, Error> {
        let account = account.to_owned();
        self.query(move |connection| read::holders(connection, &account)).await
    }

    async fn release_run(&self, run: RunId, fence: u64) -> Result<(), Error> {
        self.submit_write(WriteOp::ReleaseRun { run, fence }).await.map(|_| ())
    }

    async fn accounts(&self, prefix: &str) -> Result<Vec<(String, Balance)>, Error> {
        let prefix = prefix.to_owned();
        self.query(move |connection| read::accounts(connection, &prefix)).await
    }
}
