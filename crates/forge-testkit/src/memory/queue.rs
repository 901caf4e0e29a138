//! The queue in memory: leases that die with the process that a [`MemoryStore`] stands for.

use super::MemoryStore;
use super::tables::Tables;
use forge_ports::Journal as _;
use forge_ports::async_trait;
use forge_ports::journal::{Error, WatchScope};
use forge_ports::queue::{ClaimError, ItemStatus, Lease, Queue};
use forge_types::{RunId, Timestamp};

struct MemoryLease {
    store: MemoryStore,
    run: RunId,
    number: u64,
    attempt: u32,
}

#[async_trait]
impl Lease for MemoryLease {
    fn run_id(&self) -> RunId {
        self.run
    }

    fn attempt(&self) -> u32 {
        self.attempt
    }

    async fn lost(&self) {
        let mut changes = self.store.watch(WatchScope::Run(self.run));
        loop {
            let held = self.store.lock_tables().leases.get(&self.run).is_some_and(|(_, n)| *n == self.number);
            if !held || changes.changed().await.is_err() {
                return;
            }
        }
    }
}

impl Drop for MemoryLease {
    fn drop(&mut self) {
        let mut tables = self.store.lock_tables();
        if tables.leases.get(&self.run).is_some_and(|(_, number)| *number == self.number) {
            tables.leases.remove(&self.run);
        }
    }
}

/// What others are told about a process.
fn process_name(process: u64) -> String {
    format!("memory:{process}")
}

impl MemoryStore {
    /// Ends the lease on a run as if its time had run out: another process can claim the run.
    pub fn expire_lease(&self, run: RunId) {
        self.lock_tables().leases.remove(&run);
        self.notify_change(Some(run), false);
    }

    fn grant_lease(&self, tables: &mut Tables, run: RunId) -> Box<dyn Lease> {
        tables.last_lease += 1;
        let number = tables.last_lease;
        tables.leases.insert(run, (self.process.number, number));
        let attempt = tables.mark_processing(run, Timestamp::default());
        Box::new(MemoryLease { store: self.clone(), run, number, attempt })
    }
}

#[async_trait]
impl Queue for MemoryStore {
    async fn enqueue(&self, run: RunId, priority: i32) -> Result<(), Error> {
        // In the order of calls: each comes later than all before it.
        let mut tables = self.lock_if_alive()?;
        let latest = tables.open_items().iter().map(|item| item.created_at.as_micros()).max().unwrap_or(0);
        tables.enqueue_item(run, priority, Timestamp::from_micros(latest + 1));
        drop(tables);
        self.notify_change(Some(run), false);
        Ok(())
    }

    async fn claim(&self, run: RunId) -> Result<Box<dyn Lease>, ClaimError> {
        let mut tables = self.lock_if_alive()?;
        match tables.leases.get(&run) {
            Some((process, _)) => Err(ClaimError::Held { run, holder: process_name(*process) }),
            None => Ok(self.grant_lease(&mut tables, run)),
        }
    }

    async fn claim_next(&self) -> Result<Option<Box<dyn Lease>>, ClaimError> {
        let mut tables = self.lock_if_alive()?;
        let next = tables.open_items().into_iter().find(|item| !tables.leases.contains_key(&item.run));
        Ok(next.map(|item| self.grant_lease(&mut tables, item.run)))
    }

    async fn finish(&self, lease: Box<dyn Lease>, status: ItemStatus) -> Result<(), Error> {
        let run = lease.run_id();
        let outcome =
            self.lock_if_alive().and_then(|mut tables| tables.set_status(run, lease.attempt(), status));
        drop(lease);
        self.notify_change(Some(run), false);
        outcome
    }

    async fn holder(&self, run: RunId) -> Result<Option<String>, Error> {
        Ok(self.lock_if_alive()?.leases.get(&run).map(|(process, _)| process_name(*process)))
    }

    async fn idle_fence(&self, run: RunId) -> Result<Option<u64>, Error> {
        let tables = self.lock_if_alive()?;
        Ok((!tables.leases.contains_key(&run)).then(|| tables.fence(run)))
    }

    async fn queued_count(&self) -> Result<usize, Error> {
        Ok(self.lock_if_alive()?.open_items().iter().filter(|item| item.status == ItemStatus::Queued).count())
    }
}
