//! A store and a queue in memory, with the promises of the real ones, that can crash at any append.
//!
//! A [`MemoryStore`] is one process's view of the data; [`MemoryStore::reopen`] is the next process on the same
//! data. A process that crashed does nothing any more: whatever it still asks for fails, and its leases are
//! free.

mod queue;
mod tables;
#[cfg(test)]
mod tests;

use forge_ports::journal::{Batch, Checkpoint, Error, Journal, News, Pages, RunQuery, RunRow};
use forge_ports::ledger::{Balance, Ledger};
use forge_ports::{async_trait, queue::Item, queue::ItemStatus, queue::QueueTable};
use forge_types::{Command, CommandId, Digest, EffectId, Money, RunId, Seq, Timestamp};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tables::Tables;
use tokio::sync::watch;

/// What errors of this store give as its path.
const PATH: &str = "memory";
/// What a crashed process says.
const CRASH: &str = "crash";

/// The moment of an append at which the hook is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Moment {
    /// Nothing has been written.
    Before,
    /// All has been written, and the writer does not know it yet.
    After,
}

/// An append that is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AppendPoint {
    /// How many appends this process tried before, whatever came of them.
    pub index: u64,
    /// Before or after the writing.
    pub moment: Moment,
}

/// What is to go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// The process ends here.
    Crash,
}

type Hook = Box<dyn Fn(AppendPoint) -> Fault + Send + Sync>;

/// Journal, ledger, queue table and queue in memory, as one process sees them. Clones are the same process.
#[derive(Clone)]
pub struct MemoryStore {
    data: Arc<Data>,
    process: Arc<Process>,
}

struct Data {
    tables: Mutex<Tables>,
    /// The turn to claim a run, or to be sure that nobody does.
    turn: Arc<tokio::sync::Mutex<()>>,
    changes: watch::Sender<u64>,
    processes: AtomicU64,
}

struct Process {
    number: u64,
    dead: AtomicBool,
    appends: AtomicU64,
    hook: Hook,
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore").field("process", &self.process.number).finish_non_exhaustive()
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryStore {
    /// An empty store in which nothing goes wrong.
    pub fn new() -> Self {
        Self::with_hook(|_| Fault::None)
    }

    /// An empty store that asks `hook` before and after each append.
    pub fn with_hook(hook: impl Fn(AppendPoint) -> Fault + Send + Sync + 'static) -> Self {
        let data = Data {
            tables: Mutex::new(Tables::default()),
            turn: Arc::default(),
            changes: watch::Sender::new(0),
            processes: AtomicU64::new(0),
        };
        Self::process(Arc::new(data), Box::new(hook))
    }

    /// Another process on the same data, in which nothing goes wrong.
    #[must_use]
    pub fn reopen(&self) -> Self {
        self.reopen_with_hook(|_| Fault::None)
    }

    /// Another process on the same data, with a hook of its own.
    #[must_use]
    pub fn reopen_with_hook(&self, hook: impl Fn(AppendPoint) -> Fault + Send + Sync + 'static) -> Self {
        Self::process(Arc::clone(&self.data), Box::new(hook))
    }

    fn process(data: Arc<Data>, hook: Hook) -> Self {
        let number = data.processes.fetch_add(1, Ordering::Relaxed) + 1;
        let process = Process { number, dead: AtomicBool::new(false), appends: AtomicU64::new(0), hook };
        Self { data, process: Arc::new(process) }
    }

    /// How many appends this process has tried.
    pub fn appends(&self) -> u64 {
        self.process.appends.load(Ordering::SeqCst)
    }

    /// Whether this process has crashed.
    pub fn crashed(&self) -> bool {
        self.process.dead.load(Ordering::SeqCst)
    }

    /// Ends this process here: it does nothing any more, and its leases are free.
    pub fn crash(&self) {
        self.process.dead.store(true, Ordering::SeqCst);
        self.tables().free(self.process.number);
        self.moved();
    }

    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.data.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The tables, if this process lives.
    fn alive(&self) -> Result<MutexGuard<'_, Tables>, Error> {
        let tables = self.tables();
        if self.crashed() { Err(crash()) } else { Ok(tables) }
    }

    fn moved(&self) {
        self.data.changes.send_modify(|count| *count += 1);
    }

    fn ask_hook(&self, index: u64, moment: Moment) -> Result<(), Error> {
        if self.crashed() {
            return Err(crash());
        }
        match (self.process.hook)(AppendPoint { index, moment }) {
            Fault::None => Ok(()),
            Fault::Crash => {
                self.crash();
                Err(crash())
            }
        }
    }
}

fn crash() -> Error {
    unavailable(CRASH)
}

fn unavailable(why: impl Into<String>) -> Error {
    Error::Unavailable { path: PATH.to_owned(), why: why.into() }
}

#[async_trait]
impl Journal for MemoryStore {
    async fn append(&self, batch: Batch) -> Result<(), Error> {
        let index = self.process.appends.fetch_add(1, Ordering::SeqCst);
        self.ask_hook(index, Moment::Before)?;
        for durable in &batch.after {
            durable.wait().map_err(|why| Error::Unavailable { path: "memory".to_owned(), why })?;
        }
        self.alive()?.append(batch)?;
        self.moved();
        self.ask_hook(index, Moment::After)
    }

    async fn read(&self, run: RunId, after: Seq, limit: usize) -> Result<Pages, Error> {
        Ok(self.alive()?.read(run, after, limit))
    }

    async fn checkpoint(&self, run: RunId) -> Result<Option<Checkpoint>, Error> {
        Ok(self.alive()?.checkpoint(run))
    }

    async fn blob(&self, digest: Digest) -> Result<Vec<u8>, Error> {
        self.alive()?.blob(digest)
    }

    async fn list(&self, query: RunQuery) -> Result<Vec<RunRow>, Error> {
        Ok(self.alive()?.list(&query))
    }

    async fn send(&self, run: RunId, id: CommandId, command: Command) -> Result<(), Error> {
        self.alive()?.send(run, id, command)?;
        self.moved();
        Ok(())
    }

    async fn inbox(&self, run: RunId) -> Result<Vec<(CommandId, Command)>, Error> {
        Ok(self.alive()?.inbox(run))
    }

    fn watch(&self, _news: News) -> watch::Receiver<u64> {
        self.data.changes.subscribe()
    }
}

#[async_trait]
impl Ledger for MemoryStore {
    async fn balance(&self, account: &str) -> Result<Balance, Error> {
        Ok(self.alive()?.balance(account))
    }

    async fn reservations(&self, run: RunId) -> Result<Vec<(EffectId, String, Money)>, Error> {
        Ok(self.alive()?.reservations(run))
    }

    async fn holders(&self, account: &str) -> Result<Vec<(RunId, Money)>, Error> {
        Ok(self.alive()?.holders(account))
    }

    async fn release(&self, run: RunId) -> Result<(), Error> {
        self.alive()?.release(run);
        Ok(())
    }

    async fn accounts(&self, prefix: &str) -> Result<Vec<(String, Balance)>, Error> {
        Ok(self.alive()?.accounts(prefix))
    }
}

#[async_trait]
impl QueueTable for MemoryStore {
    async fn put(&self, run: RunId, priority: i32, at: Timestamp) -> Result<(), Error> {
        self.alive()?.put(run, priority, at);
        self.moved();
        Ok(())
    }

    async fn open_items(&self) -> Result<Vec<Item>, Error> {
        Ok(self.alive()?.open_items())
    }

    async fn begin(&self, run: RunId, at: Timestamp) -> Result<u32, Error> {
        let attempts = self.alive()?.begin(run, at);
        self.moved();
        Ok(attempts)
    }

    async fn set(&self, run: RunId, status: ItemStatus) -> Result<(), Error> {
        self.alive()?.set(run, status)?;
        self.moved();
        Ok(())
    }
}
