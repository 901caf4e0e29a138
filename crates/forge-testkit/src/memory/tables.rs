//! The tables of the store in memory. Each function is one transaction: it checks first, then changes.

use super::unavailable_error;
use forge_ports::feed::{FeedEvent, FeedPage, Position};
use forge_ports::journal::{Batch, Checkpoint, Error, EventPage, Posting, RunQuery, RunRow, SentCommand};
use forge_ports::ledger::Balance;
use forge_ports::queue::{ItemStatus, QueueEntry, QueueScope};
use forge_types::{CommandId, Digest, EffectId, Event, Money, RunCommand, RunId, Seq, Timestamp};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// An item of the queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct QueueItem {
    pub(super) run: RunId,
    pub(super) priority: i32,
    pub(super) created_at: Timestamp,
    pub(super) status: ItemStatus,
    pub(super) attempts: u32,
    pub(super) root: RunId,
}

/// A lease that was given out and not given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HeldLease {
    pub(super) process: u64,
    pub(super) number: u64,
    /// When it expires, if it does.
    pub(super) end: Option<Timestamp>,
}

/// All that the processes share.
#[derive(Clone, Debug, Default)]
pub(super) struct Tables {
    runs: BTreeMap<RunId, StoredRun>,
    /// The events of all runs in the order in which they were appended.
    feed: Vec<Event>,
    blobs: HashMap<Digest, Vec<u8>>,
    /// Every command ever sent, so that none comes in twice.
    known: BTreeSet<CommandId>,
    ledger: AccountTable,
    items: BTreeMap<RunId, QueueItem>,
    /// Who works on what.
    pub(super) leases: BTreeMap<RunId, HeldLease>,
    pub(super) last_lease: u64,
}

#[derive(Clone, Debug)]
struct StoredRun {
    row: RunRow,
    events: Vec<Event>,
    inbox: Vec<(CommandId, RunCommand)>,
    checkpoint: Option<Checkpoint>,
}

#[derive(Clone, Debug, Default)]
struct AccountTable {
    spent: BTreeMap<String, Money>,
    reserved: BTreeMap<(RunId, EffectId, String), Money>,
}

impl AccountTable {
    fn balance(&self, account: &str) -> Balance {
        let held = self.reserved.iter().filter(|((_, _, name), _)| name == account);
        Balance {
            spent: self.spent.get(account).copied().unwrap_or_default(),
            reserved: held.fold(Money::ZERO, |sum, (_, amount)| sum.plus(*amount)),
        }
    }

    fn post(&mut self, run: RunId, posting: &Posting) -> Result<(), Error> {
        match posting {
            Posting::Reserve { account, effect, amount, ceiling } => {
                self.reserved.remove(&(run, *effect, account.clone()));
                let balance = self.balance(account);
                let used = balance.spent.plus(balance.reserved);
                if let Some(ceiling) = ceiling.filter(|ceiling| used.plus(*amount) > *ceiling) {
                    return Err(Error::Ceiling { account: account.clone(), ceiling, used, wanted: *amount });
                }
                self.reserved.insert((run, *effect, account.clone()), *amount);
            }
            Posting::Settle { effect, actual } => {
                let held: Vec<String> = self
                    .reserved
                    .keys()
                    .filter(|(of, what, _)| *of == run && what == effect)
                    .map(|(_, _, account)| account.clone())
                    .collect();
                for account in held {
                    self.reserved.remove(&(run, *effect, account.clone()));
                    let spent = self.spent.entry(account).or_default();
                    *spent = spent.plus(*actual);
                }
            }
        }
        Ok(())
    }
}

impl Tables {
    /// Appends a batch with its children, or changes nothing.
    pub(super) fn append(&mut self, batch: Batch) -> Result<(), Error> {
        if batch.children.is_empty() {
            return self.append_single(batch);
        }
        let mut tables = self.clone();
        tables.append_single(batch)?;
        *self = tables;
        Ok(())
    }

    fn append_single(&mut self, batch: Batch) -> Result<(), Error> {
        let run = batch.run;
        let actual = self.runs.get(&run).and_then(|run| run.events.last()).map_or(Seq(0), |event| event.seq);
        let mut next = batch.expected;
        for event in &batch.events {
            next = next.next();
            if event.run != run || event.seq != next {
                return Err(unavailable_error(format!(
                    "the batch for run {run} is not numbered from {next} on"
                )));
            }
        }
        let conflict = Error::Conflict { run, expected: batch.expected, actual };
        if batch.expected != actual {
            return Err(conflict);
        }
        if batch.fence.is_some_and(|fence| fence == 0 || fence != self.fence(run)) {
            return Err(Error::LeaseLost { run });
        }
        let mut inbox = self.runs.get(&run).map(|run| run.inbox.clone()).unwrap_or_default();
        for taken in &batch.taken {
            match inbox.iter().position(|(id, _)| id == taken) {
                Some(at) => drop(inbox.remove(at)),
                None => return Err(conflict),
            }
        }
        let mut ledger = self.ledger.clone();
        for posting in &batch.postings {
            ledger.post(run, posting)?;
        }
        self.ledger = ledger;
        self.blobs.extend(batch.blobs.into_iter().map(|blob| (blob.digest, blob.bytes)));
        let stored = self.runs.entry(run).or_insert_with(|| StoredRun {
            row: batch.row.clone(),
            events: Vec::new(),
            inbox: Vec::new(),
            checkpoint: None,
        });
        stored.row = RunRow { created_at: stored.row.created_at, ..batch.row };
        self.feed.extend(batch.events.iter().cloned());
        stored.events.extend(batch.events);
        stored.inbox = inbox;
        stored.checkpoint = batch.checkpoint.or(stored.checkpoint.take());
        if let Some(entry) = batch.enqueue {
            self.enqueue_item(entry);
        }
        for child in batch.children {
            self.append_single(child)?;
        }
        for SentCommand { to, id, command } in batch.sends {
            // A run that was removed takes no command.
            let _ = self.send_command(to, id, command);
        }
        Ok(())
    }

    pub(super) fn read_events(&self, run: RunId, after: Seq, limit: usize) -> EventPage {
        let limit = if limit == 0 { usize::MAX } else { limit };
        let events = self.runs.get(&run).map(|run| run.events.as_slice()).unwrap_or_default();
        let events = events.iter().filter(|event| event.seq > after).take(limit).cloned().collect();
        EventPage { events, damage: None }
    }

    pub(super) fn read_feed(&self, after: Position, limit: usize) -> FeedPage {
        let limit = if limit == 0 { usize::MAX } else { limit };
        let entries = (1..).map(Position::from_u64).zip(&self.feed).filter(|(position, _)| *position > after);
        let events: Vec<_> = entries
            .take(limit)
            .map(|(position, event)| FeedEvent { position, event: event.clone() })
            .collect();
        FeedPage { end: events.last().map_or(after, |last| last.position), events, damage: Vec::new() }
    }

    pub(super) fn newest_checkpoint(&self, run: RunId) -> Option<Checkpoint> {
        self.runs.get(&run).and_then(|run| run.checkpoint.clone())
    }

    pub(super) fn read_blob(&self, digest: Digest) -> Result<Vec<u8>, Error> {
        let bytes = self.blobs.get(&digest).cloned();
        let bytes = bytes.ok_or_else(|| Error::NotFound { what: format!("payload {digest}") })?;
        if Digest::of_bytes(&bytes) == digest {
            Ok(bytes)
        } else {
            Err(Error::Damaged { what: format!("the payload {digest}: its content has changed") })
        }
    }

    pub(super) fn list_runs(&self, query: &RunQuery) -> Vec<RunRow> {
        let prefix = query.prefix.as_ref().map(|prefix| prefix.to_ascii_lowercase());
        let limit = if query.limit == 0 { usize::MAX } else { query.limit };
        let mut rows: Vec<_> = self
            .runs
            .values()
            .map(|run| &run.row)
            .filter(|row| query.status.is_none_or(|status| status == row.status))
            .filter(|row| query.repo.as_ref().is_none_or(|repo| *repo == row.repo))
            .filter(|row| query.after.is_none_or(|after| row.cursor() < after))
            .filter(|row| prefix.as_ref().is_none_or(|prefix| row.run.to_string().starts_with(prefix)))
            .collect();
        rows.sort_by_key(|row| std::cmp::Reverse((row.created_at, row.run)));
        rows.into_iter().take(limit).cloned().collect()
    }

    pub(super) fn send_command(
        &mut self,
        run: RunId,
        id: CommandId,
        command: RunCommand,
    ) -> Result<(), Error> {
        let not_found = || Error::NotFound { what: format!("run {run}") };
        let stored = self.runs.get_mut(&run).ok_or_else(not_found)?;
        if self.known.insert(id) {
            stored.inbox.push((id, command));
        }
        self.unpark(run);
        Ok(())
    }

    pub(super) fn pending_commands(&self, run: RunId) -> Vec<(CommandId, RunCommand)> {
        self.runs.get(&run).map(|run| run.inbox.clone()).unwrap_or_default()
    }

    pub(super) fn balance(&self, account: &str) -> Balance {
        self.ledger.balance(account)
    }

    pub(super) fn reservations(&self, run: RunId) -> Vec<(EffectId, String, Money)> {
        let held = self.ledger.reserved.iter().filter(|((of, _, _), _)| *of == run);
        held.map(|((_, effect, account), amount)| (*effect, account.clone(), *amount)).collect()
    }

    pub(super) fn holders(&self, account: &str) -> Vec<(RunId, Money)> {
        let mut held: BTreeMap<RunId, Money> = BTreeMap::new();
        for ((run, _, name), amount) in &self.ledger.reserved {
            if name == account {
                let sum = held.entry(*run).or_default();
                *sum = sum.plus(*amount);
            }
        }
        held.into_iter().collect()
    }

    pub(super) fn release_run(&mut self, run: RunId, fence: u64) -> Result<(), Error> {
        if self.fence(run) > fence {
            return Err(Error::LeaseLost { run });
        }
        self.ledger.reserved.retain(|(of, _, _), _| *of != run);
        Ok(())
    }

    /// The fencing number of the last claim; 0 for what was never claimed.
    pub(super) fn fence(&self, run: RunId) -> u64 {
        self.items.get(&run).map_or(0, |item| u64::from(item.attempts))
    }

    pub(super) fn list_accounts(&self, prefix: &str) -> Vec<(String, Balance)> {
        let names = self.ledger.spent.keys().chain(self.ledger.reserved.keys().map(|(_, _, name)| name));
        let names: std::collections::BTreeSet<_> = names.filter(|name| name.starts_with(prefix)).collect();
        names.into_iter().map(|name| (name.clone(), self.ledger.balance(name))).collect()
    }

    /// Queues an item behind all others of its priority.
    pub(super) fn enqueue_item(&mut self, entry: QueueEntry) {
        let QueueEntry { run, root, priority } = entry;
        let latest = self.items.values().map(|item| item.created_at.as_micros()).max().unwrap_or(0);
        let attempts = self.items.get(&run).map_or(0, |item| item.attempts);
        let created_at = Timestamp::from_micros(latest + 1);
        let item = QueueItem { run, priority, created_at, status: ItemStatus::Queued, attempts, root };
        self.items.insert(run, item);
    }

    fn unpark(&mut self, run: RunId) {
        let parked = |item: &&mut QueueItem| matches!(item.status, ItemStatus::Parked { .. });
        if let Some(item) = self.items.get_mut(&run).filter(parked) {
            item.status = ItemStatus::Queued;
        }
    }

    pub(super) fn open_items(&self, scope: QueueScope) -> Vec<QueueItem> {
        let is_open = |item: &&QueueItem| {
            let there = match scope {
                QueueScope::All => true,
                QueueScope::Tree(root) => item.root == root,
            };
            there
                && matches!(
                    item.status,
                    ItemStatus::Queued | ItemStatus::Processing | ItemStatus::Parked { until: Some(_) }
                )
        };
        let mut items: Vec<_> = self.items.values().filter(is_open).cloned().collect();
        items.sort_by_key(|item| (std::cmp::Reverse(item.priority), item.created_at, item.run));
        items
    }

    pub(super) fn mark_processing(&mut self, run: RunId, at: Timestamp) -> u32 {
        let item = self.items.entry(run).or_insert(QueueItem {
            run,
            priority: 0,
            created_at: at,
            status: ItemStatus::Processing,
            attempts: 0,
            root: run,
        });
        item.status = ItemStatus::Processing;
        item.attempts += 1;
        item.attempts
    }

    pub(super) fn set_status(&mut self, run: RunId, attempt: u32, status: ItemStatus) -> Result<(), Error> {
        let item = self.items.get_mut(&run).filter(|item| item.attempts == attempt);
        item.ok_or(Error::LeaseLost { run })?.status = status;
        if matches!(status, ItemStatus::Parked { .. }) && !self.pending_commands(run).is_empty() {
            self.unpark(run);
        }
        Ok(())
    }

    /// The lease on a run, if it has not expired.
    pub(super) fn lease(&self, run: RunId, now: Timestamp) -> Option<HeldLease> {
        self.leases.get(&run).copied().filter(|lease| lease.end.is_none_or(|end| now < end))
    }

    /// Frees all leases of a process.
    pub(super) fn free_leases(&mut self, process: u64) {
        self.leases.retain(|_, lease| lease.process != process);
    }
}
