//! The journal, the ledger and the queue's table on SQLite, for several processes on one data folder.
//!
//! One thread per store writes ([`Store::open`] starts it); what waits for it at a moment is committed together
//! and is on disk when it answers. Reading happens on a few connections beside it. Payloads up to 256 kB stand
//! in the database, larger ones in files named by their content. Processes tell each other of changes through
//! sockets in the data folder.
//!
//! What is absent: this crate understands no event beyond its JSON form, holds no run's state, and decides
//! nothing but what the ports promise (order, ceilings, one taker per command).

mod advice;
mod fault;
mod files;
mod read;
mod reserve;
mod runs;
mod schema;
mod wake;
mod write;
mod writer;

use crate::files::Files;
use crate::reserve::Reserve;
use crate::schema::Purpose;
use crate::wake::Wake;
use crate::write::{Prepared, Write};
use crate::writer::{Job, Writer};
use async_trait::async_trait;
use forge_ports::journal::{Batch, Blob, Checkpoint, Error, Journal, News, Pages, RunQuery, RunRow};
use forge_ports::ledger::{Balance, Ledger};
use forge_ports::queue::{Item, ItemStatus, QueueTable};
use forge_types::{Command, CommandId, Digest, EffectId, Money, RunId, Seq, Timestamp};
use rusqlite::Connection;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use tokio::sync::{Semaphore, oneshot, watch};

/// Payloads above this many bytes become files.
const LARGE: usize = 256 * 1024;
/// Connections that read at the same time; each may hold 1 MiB of pages.
const READERS: usize = 4;

/// Where a store lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The data folder; made for its owner only if there is none. The database is `forge.db` in it.
    pub data_dir: PathBuf,
}

/// A store on SQLite. Clones share it; it closes with the last of them.
#[derive(Clone, Debug)]
pub struct Store {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    files: Files,
    wake: Arc<Wake>,
    readers: Mutex<Vec<Connection>>,
    turns: Arc<Semaphore>,
    /// `None` only while it closes.
    jobs: Option<Sender<Job>>,
    writer: Option<JoinHandle<()>>,
}

impl Store {
    /// Opens the store in a data folder, and makes or migrates it where that is needed. Blocks for a
    /// millisecond, and longer only where there is something to make.
    ///
    /// # Errors
    /// [`Error::TooNew`] if a newer version wrote it (nothing is changed then), [`Error::Damaged`] if the file
    /// is no database, [`Error::DiskFull`], else [`Error::Unavailable`] with what the system says.
    pub fn open(options: &Options) -> Result<Self, Error> {
        let dir = &options.data_dir;
        schema::make_folder(dir)?;
        let path = dir.join("forge.db");
        let connection = schema::open(dir, &path)?;
        let wake = Arc::new(Wake::new(dir, &path));
        let writer =
            Writer { connection, path: path.clone(), reserve: Reserve::new(dir), wake: Arc::clone(&wake) };
        let (jobs, queue) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || writer.run(&queue))
            .map_err(|error| fault::io(&path, "starting the thread that writes", &error))?;
        let inner = Inner {
            files: Files::new(dir),
            wake,
            readers: Mutex::new(Vec::new()),
            turns: Arc::new(Semaphore::new(READERS)),
            jobs: Some(jobs),
            writer: Some(thread),
            path,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The database file, for messages.
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// Hands a change to the thread that writes and waits until it is on disk.
    async fn write(&self, write: Write) -> Result<u32, Error> {
        let (reply, answer) = oneshot::channel();
        let sent = self.inner.jobs.as_ref().is_some_and(|jobs| jobs.send(Job { write, reply }).is_ok());
        let answer = if sent { answer.await.ok() } else { None };
        answer.unwrap_or_else(|| {
            let path = self.inner.path.display().to_string();
            Err(Error::Unavailable { path, why: "the thread that writes has ended".to_owned() })
        })
    }

    /// Runs `question` on a connection of its own, beside the async threads.
    async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Inner, &Connection) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let inner = Arc::clone(&self.inner);
        let turn = Arc::clone(&inner.turns).acquire_owned().await;
        let asked = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            let connection = inner.reader()?;
            let answer = question(&inner, &connection);
            inner.readers.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
            answer
        });
        asked.await.unwrap_or_else(|error| {
            let path = self.inner.path.display().to_string();
            Err(Error::Unavailable { path, why: format!("reading was broken off: {error}") })
        })
    }

    /// [`Self::ask`] for what only SQLite can refuse.
    async fn query<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, Error> {
        self.ask(|inner, connection| question(connection).map_err(|error| fault::sqlite(&inner.path, &error)))
            .await
    }

    /// Writes the large payloads of a batch as files and keeps the others in it.
    async fn write_large(&self, blobs: Vec<Blob>) -> Result<Vec<Blob>, Error> {
        let (large, small): (Vec<_>, Vec<_>) = blobs.into_iter().partition(|blob| blob.bytes.len() > LARGE);
        if large.is_empty() {
            return Ok(small);
        }
        let files = self.inner.files.clone();
        let written =
            tokio::task::spawn_blocking(move || large.iter().try_for_each(|blob| files.write(blob)));
        written.await.unwrap_or_else(|error| {
            let path = self.inner.path.display().to_string();
            Err(Error::Unavailable { path, why: format!("writing a payload was broken off: {error}") })
        })?;
        Ok(small)
    }
}

impl Inner {
    fn reader(&self) -> Result<Connection, Error> {
        let idle = self.readers.lock().unwrap_or_else(PoisonError::into_inner).pop();
        idle.map_or_else(|| schema::connect(&self.path, Purpose::Read), Ok)
    }
}

impl Drop for Inner {
    /// Waits until what was sent is written and others have been told.
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
        self.wake.close();
    }
}

#[async_trait]
impl Journal for Store {
    async fn append(&self, mut batch: Batch) -> Result<(), Error> {
        batch.blobs = self.write_large(batch.blobs).await?;
        let prepared = Prepared::new(batch, &self.inner.path)?;
        self.write(Write::Append(Box::new(prepared))).await.map(|_| ())
    }

    async fn read(&self, run: RunId, after: Seq, limit: usize) -> Result<Pages, Error> {
        self.query(move |connection| read::events(connection, run, after, limit)).await
    }

    async fn checkpoint(&self, run: RunId) -> Result<Option<Checkpoint>, Error> {
        self.query(move |connection| read::checkpoint(connection, run)).await
    }

    async fn blob(&self, digest: Digest) -> Result<Vec<u8>, Error> {
        self.ask(move |inner, connection| {
            let stored =
                read::blob(connection, digest).map_err(|error| fault::sqlite(&inner.path, &error))?;
            let (bytes, place) = match stored {
                Some(bytes) => (bytes, inner.path.clone()),
                None => match inner.files.read(digest)? {
                    Some(bytes) => (bytes, inner.files.path(digest)),
                    None => return Err(Error::NotFound { what: format!("payload {digest}") }),
                },
            };
            if Digest::of(&bytes) != digest {
                let place = place.display();
                let what =
                    format!("the payload {digest} in {place}: its content has changed since it was written");
                return Err(Error::Damaged { what });
            }
            Ok(bytes)
        })
        .await
    }

    async fn list(&self, query: RunQuery) -> Result<Vec<RunRow>, Error> {
        self.ask(move |inner, connection| match runs::list(connection, &query) {
            Ok(rows) => Ok(rows),
            Err((rows, error)) if rows.is_empty() => Err(fault::sqlite(&inner.path, &error)),
            Err((rows, error)) => {
                let error = fault::sqlite(&inner.path, &error);
                tracing::warn!(%error, "the list of runs is not complete");
                Ok(rows)
            }
        })
        .await
    }

    async fn send(&self, run: RunId, id: CommandId, command: Command) -> Result<(), Error> {
        let command = serde_json::to_string(&command).map_err(|error| Error::Unavailable {
            path: self.inner.path.display().to_string(),
            why: format!("command {id} has no JSON form: {error}"),
        })?;
        self.write(Write::Send { run, id, command }).await.map(|_| ())
    }

    async fn inbox(&self, run: RunId) -> Result<Vec<(CommandId, Command)>, Error> {
        self.query(move |connection| read::inbox(connection, run)).await
    }

    fn watch(&self, news: News) -> watch::Receiver<u64> {
        self.inner.wake.watch(news)
    }
}

#[async_trait]
impl Ledger for Store {
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

    async fn release(&self, run: RunId) -> Result<(), Error> {
        self.write(Write::Release { run }).await.map(|_| ())
    }

    async fn accounts(&self, prefix: &str) -> Result<Vec<(String, Balance)>, Error> {
        let prefix = prefix.to_owned();
        self.query(move |connection| read::accounts(connection, &prefix)).await
    }
}

#[async_trait]
impl QueueTable for Store {
    async fn put(&self, run: RunId, priority: i32, at: Timestamp) -> Result<(), Error> {
        self.write(Write::Put { run, priority, at }).await.map(|_| ())
    }

    async fn open_items(&self) -> Result<Vec<Item>, Error> {
        self.query(read::open_items).await
    }

    async fn begin(&self, run: RunId, at: Timestamp) -> Result<u32, Error> {
        self.write(Write::Begin { run, at }).await
    }

    async fn set(&self, run: RunId, status: ItemStatus) -> Result<(), Error> {
        self.write(Write::Set { run, status }).await.map(|_| ())
    }
}
