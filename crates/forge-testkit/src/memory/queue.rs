//! The queue in memory: leases that die with the process that a [`MemoryStore`] stands for.

use super::tables::{HeldLease, Tables};
use super::{LeaseExpiry, MemoryStore};
use forge_ports::async_trait;
use forge_ports::journal::{Error, WatchScope};
use forge_ports::queue::{ClaimError, ItemStatus, Lease, NextClaim, Queue, QueueEntry, QueueScope};
use forge_ports::{Clock as _, Journal as _};
use forge_types::{RunId, Timestamp};
use std::time::Duration;

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

    fn renewal_interval(&self) -> Option<Duration> {
        self.store.data.expiry.as_ref().map(|expiry| expiry.lifetime / 3)
    }

    async fn renew(&self) -> Result<(), Error> {
        let mut tables = self.store.lock_if_alive()?;
        let held = self.held(&tables).ok_or(Error::LeaseLost { run: self.run })?;
        tables.leases.insert(self.run, HeldLease { end: self.store.next_lease_end(), ..held });
        Ok(())
    }

    async fn lost(&self) {
        let mut changes = self.store.watch(WatchScope::Run(self.run));
        loop {
            let held = self.held(&self.store.lock_tables());
            let Some(held) = held else { return };
            let expired = async {
                match (&self.store.data.expiry, held.end) {
                    (Some(LeaseExpiry { clock, .. }), Some(end)) => clock.sleep_until(end).await,
                    _ => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = changes.changed() => if changed.is_err() { return },
                () = expired => {}
            }
        }
    }
}

impl MemoryLease {
    /// What the tables have of this lease, unless it is lost.
    fn held(&self, tables: &Tables) -> Option<HeldLease> {
        tables.lease(self.run, self.store.lease_time()).filter(|lease| lease.number == self.number)
    }
}

impl Drop for MemoryLease {
    fn drop(&mut self) {
        let mut tables = self.store.lock_tables();
        if tables.leases.get(&self.run).is_some_and(|lease| lease.number == self.number) {
            tables.leases.remove(&self.run);
        }
    }
}

/// What others are told about a process.
fn process_name(process: u64) -> String {
    format!("memory:{process}")
}

impl MemoryStore {
    /// Ends the lease on a run at once, as if it had expired: another process can claim the run.
    pub fn expire_lease(&self, run: RunId) {
        self.lock_tables().leases.remove(&run);
        self.notify_change(Some(run), false);
    }

    /// When the lease on a run expires; `None` if nobody has one, or if leases do not expire.
    pub fn lease_end(&self, run: RunId) -> Option<Timestamp> {
        self.lock_tables().leases.get(&run).and_then(|lease| lease.end)
    }

    /// The time at which it is asked whether leases have expired.
    fn lease_time(&self) -> Timestamp {
        self.data.expiry.as_ref().map_or_else(Timestamp::default, |expiry| expiry.clock.now())
    }

    /// When a lease expires that is given or renewed now.
    fn next_lease_end(&self) -> Option<Timestamp> {
        self.data.expiry.as_ref().map(|expiry| expiry.clock.now().after(expiry.lifetime))
    }

    fn grant_lease(&self, tables: &mut Tables, run: RunId) -> Box<dyn Lease> {
        tables.last_lease += 1;
        let number = tables.last_lease;
        let end = self.next_lease_end();
        tables.leases.insert(run, HeldLease { process: self.process.number, number, end });
        let attempt = tables.mark_processing(run, Timestamp::default());
        Box::new(MemoryLease { store: self.clone(), run, number, attempt })
    }
}

#[async_trait]
impl Queue for MemoryStore {
    async fn enqueue(&self, entry: QueueEntry) -> Result<(), Error> {
        self.lock_if_alive()?.enqueue_item(entry);
        self.notify_change(Some(entry.run), false);
        Ok(())
    }

    async fn claim(&self, run: RunId) -> Result<Box<dyn Lease>, ClaimError> {
        let mut tables = self.lock_if_alive()?;
        match tables.lease(run, self.lease_time()) {
            Some(lease) => Err(ClaimError::Held { run, holder: process_name(lease.process) }),
            None => Ok(self.grant_lease(&mut tables, run)),
        }
    }

    async fn claim_next(&self, scope: QueueScope) -> Result<NextClaim, ClaimError> {
        let mut tables = self.lock_if_alive()?;
        let leased_at = self.lease_time();
        let now =
            self.data.clock.lock().as_ref().map_or(Timestamp::from_micros(i64::MAX), |clock| clock.now());
        let mut next: Option<Timestamp> = None;
        for item in tables.open_items(scope) {
            match item.status {
                ItemStatus::Parked { until: Some(until) } if until > now => {
                    next = Some(next.map_or(until, |next| next.min(until)));
                }
                _ if tables.lease(item.run, leased_at).is_some() => {}
                _ => return Ok(NextClaim::Claimed(self.grant_lease(&mut tables, item.run))),
            }
        }
        Ok(NextClaim::Nothing { next })
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
        let lease = self.lock_if_alive()?.lease(run, self.lease_time());
        Ok(lease.map(|lease| process_name(lease.process)))
    }

    async fn idle_fence(&self, run: RunId) -> Result<Option<u64>, Error> {
        let tables = self.lock_if_alive()?;
        Ok(tables.lease(run, self.lease_time()).is_none().then(|| tables.fence(run)))
    }

    async fn queued_count(&self) -> Result<usize, Error> {
        Ok(self
            .lock_if_alive()?
            .open_items(QueueScope::All)
            .iter()
            .filter(|item| item.status == ItemStatus::Queued)
            .count())
    }
}
