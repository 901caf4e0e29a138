//! A store and a queue in memory, with the promises of the real ones, that can crash at any append.
//!
//! A [`MemoryStore`] is one process's view of the data; [`MemoryStore::reopen`] is the next process on the same
//! data. A process that crashed does nothing any more: whatever it still asks for fails, and its leases are
//! free.

mod queue;
mod tables;
#[cfg(test)]
mod tests;

use crate::clock::TestClock;
use forge_ports::feed::{Feed, FeedPage, Position};
use forge_ports::journal::{Batch, Checkpoint, Error, EventPage, Journal, RunQuery, RunRow, WatchScope};
use forge_ports::ledger::{Balance, Ledger};
use forge_ports::{Clock, async_trait};
use forge_types::{CommandId, Digest, EffectId, Money, RunCommand, RunId, Seq};
use parking_lot::{Mutex, MutexGuard};
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tables::Tables;
use tokio::sync::watch;

/// What errors of this store give as its path.
const STORE_PATH: &str = "memory";
/// What a crashed process says.
const CRASH_MESSAGE: &str = "crash";

/// The moment of an append at which the hook is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AppendMoment {
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
    pub moment: AppendMoment,
}

/// What is to go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppendFault {
    /// Nothing.
    None,
    /// The process ends here.
    Crash,
}

type AppendHook = Box<dyn Fn(AppendPoint) -> AppendFault + Send + Sync>;

/// Journal, ledger, queue table and queue in memory, as one process sees them. Clones are the same process.
#[derive(Clone)]
pub struct MemoryStore {
    data: Arc<SharedData>,
    process: Arc<MemoryProcess>,
}

struct SharedData {
    tables: Mutex<Tables>,
    /// One counter for each scope that was ever watched.
    changes: Mutex<HashMap<WatchScope, watch::Sender<u64>>>,
    processes: AtomicU64,
    /// How long leases live without being renewed, if they expire.
    expiry: Option<LeaseExpiry>,
    /// The clock that ends the time of parked items; without one the time of each has come.
    clock: Mutex<Option<Arc<dyn Clock>>>,
}

/// Leases that expire.
#[derive(Clone, Debug)]
struct LeaseExpiry {
    clock: TestClock,
    lifetime: Duration,
}

struct MemoryProcess {
    number: u64,
    dead: AtomicBool,
    appends: AtomicU64,
    hook: AppendHook,
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
        Self::with_hook(|_| AppendFault::None)
    }

    /// An empty store that asks `hook` before and after each append.
    pub fn with_hook(hook: impl Fn(AppendPoint) -> AppendFault + Send + Sync + 'static) -> Self {
        Self::create(Box::new(hook), None)
    }

    /// An empty store in which nothing goes wrong and leases expire unless they are renewed. The clock must not end
    /// sleeps of a third of `lifetime` by itself.
    pub fn with_expiring_leases(clock: TestClock, lifetime: Duration) -> Self {
        Self::create(Box::new(|_| AppendFault::None), Some(LeaseExpiry { clock, lifetime }))
    }

    fn create(hook: AppendHook, expiry: Option<LeaseExpiry>) -> Self {
        let data = SharedData {
            tables: Mutex::new(Tables::default()),
            changes: Mutex::default(),
            processes: AtomicU64::new(0),
            expiry,
            clock: Mutex::default(),
        };
        Self::open_process(Arc::new(data), hook)
    }

    /// Sets the clock of the queue.
    #[must_use]
    pub fn with_clock(self, clock: Arc<dyn Clock>) -> Self {
        *self.data.clock.lock() = Some(clock);
        self
    }

    /// Another process on the same data, in which nothing goes wrong.
    #[must_use]
    pub fn reopen(&self) -> Self {
        self.reopen_with_hook(|_| AppendFault::None)
    }

    /// Another process on the same data, with a hook of its own.
    #[must_use]
    pub fn reopen_with_hook(
        &self,
        hook: impl Fn(AppendPoint) -> AppendFault + Send + Sync + 'static,
    ) -> Self {
        Self::open_process(Arc::clone(&self.data), Box::new(hook))
    }

    fn open_process(data: Arc<SharedData>, hook: AppendHook) -> Self {
        let number = data.processes.fetch_add(1, Ordering::Relaxed) + 1;
        let process =
            MemoryProcess { number, dead: AtomicBool::new(false), appends: AtomicU64::new(0), hook };
        Self { data, process: Arc::new(process) }
    }

    /// How many appends this process has tried.
    pub fn append_count(&self) -> u64 {
        self.process.appends.load(Ordering::SeqCst)
    }

    /// Whether this process has crashed.
    pub fn has_crashed(&self) -> bool {
        self.process.dead.load(Ordering::SeqCst)
    }

    /// Ends this process here: it does nothing any more, and its leases are free.
    pub fn crash(&self) {
        self.process.dead.store(true, Ordering::SeqCst);
        self.lock_tables().free_leases(self.process.number);
        self.notify_change(None, false);
    }

    fn lock_tables(&self) -> MutexGuard<'_, Tables> {
        self.data.tables.lock()
    }

    /// The tables, if this process lives.
    fn lock_if_alive(&self) -> Result<MutexGuard<'_, Tables>, Error> {
        let tables = self.lock_tables();
        if self.has_crashed() { Err(crash_error()) } else { Ok(tables) }
    }

    /// Counts a change of `run`, or of any run.
    fn notify_change(&self, run: Option<RunId>, command: bool) {
        let changes = self.data.changes.lock();
        for (scope, counter) in changes.iter() {
            let moved = match scope {
                // Too often rather than too rarely.
                WatchScope::All | WatchScope::Queue => true,
                WatchScope::Run(watched) => run.is_none_or(|run| run == *watched),
                WatchScope::Commands(watched) => run.is_none_or(|run| run == *watched && command),
            };
            if moved {
                counter.send_modify(|count| *count += 1);
            }
        }
    }

    fn ask_hook(&self, index: u64, moment: AppendMoment) -> Result<(), Error> {
        if self.has_crashed() {
            return Err(crash_error());
        }
        match (self.process.hook)(AppendPoint { index, moment }) {
            AppendFault::None => Ok(()),
            AppendFault::Crash => {
                self.crash();
                Err(crash_error())
            }
        }
    }
}

fn crash_error() -> Error {
    unavailable_error(CRASH_MESSAGE)
}

fn unavailable_error(why: impl Into<String>) -> Error {
    Error::Unavailable { path: STORE_PATH.to_owned(), why: why.into() }
}

#[async_trait]
impl Journal for MemoryStore {
    async fn append(&self, batch: Batch) -> Result<(), Error> {
        let index = self.process.appends.fetch_add(1, Ordering::SeqCst);
        self.ask_hook(index, AppendMoment::Before)?;
        for durable in &batch.after {
            durable.wait().await.map_err(|why| Error::Unavailable { path: "memory".to_owned(), why })?;
        }
        let run = batch.run;
        let children: Vec<RunId> = batch.children.iter().map(|child| child.run).collect();
        let sent: Vec<RunId> = batch.sends.iter().map(|sent| sent.to).collect();
        self.lock_if_alive()?.append(batch)?;
        for run in std::iter::once(run).chain(children) {
            self.notify_change(Some(run), false);
        }
        for run in sent {
            self.notify_change(Some(run), true);
        }
        self.ask_hook(index, AppendMoment::After)
    }

    async fn read_events(&self, run: RunId, after: Seq, limit: usize) -> Result<EventPage, Error> {
        Ok(self.lock_if_alive()?.read_events(run, after, limit))
    }

    async fn latest_checkpoint(&self, run: RunId) -> Result<Option<Checkpoint>, Error> {
        Ok(self.lock_if_alive()?.newest_checkpoint(run))
    }

    async fn read_blob(&self, digest: Digest) -> Result<Vec<u8>, Error> {
        self.lock_if_alive()?.read_blob(digest)
    }

    async fn list_runs(&self, query: RunQuery) -> Result<Vec<RunRow>, Error> {
        Ok(self.lock_if_alive()?.list_runs(&query))
    }

    async fn send_command(&self, run: RunId, id: CommandId, command: RunCommand) -> Result<(), Error> {
        self.lock_if_alive()?.send_command(run, id, command)?;
        self.notify_change(Some(run), true);
        Ok(())
    }

    async fn inbox(&self, run: RunId) -> Result<Vec<(CommandId, RunCommand)>, Error> {
        Ok(self.lock_if_alive()?.pending_commands(run))
    }

    fn watch(&self, scope: WatchScope) -> watch::Receiver<u64> {
        let mut changes = self.data.changes.lock();
        changes.entry(scope).or_insert_with(|| watch::Sender::new(0)).subscribe()
    }
}

#[async_trait]
impl Feed for MemoryStore {
    async fn read_feed(&self, after: Position, limit: usize) -> Result<FeedPage, Error> {
        Ok(self.lock_if_alive()?.read_feed(after, limit))
    }

    fn watch_feed(&self) -> watch::Receiver<u64> {
        self.watch(WatchScope::All)
    }
}

#[async_trait]
impl Ledger for MemoryStore {
    async fn balance(&self, account: &str) -> Result<Balance, Error> {
        Ok(self.lock_if_alive()?.balance(account))
    }

    async fn reservations(&self, run: RunId) -> Result<Vec<(EffectId, String, Money)>, Error> {
        Ok(self.lock_if_alive()?.reservations(run))
    }

    async fn holders(&self, account: &str) -> Result<Vec<(RunId, Money)>, Error> {
        Ok(self.lock_if_alive()?.holders(account))
    }

    async fn release_run(&self, run: RunId, fence: u64) -> Result<(), Error> {
        self.lock_if_alive()?.release_run(run, fence)
    }

    async fn accounts(&self, prefix: &str) -> Result<Vec<(String, Balance)>, Error> {
        Ok(self.lock_if_alive()?.list_accounts(prefix))
    }
}
