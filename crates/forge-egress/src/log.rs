//! What a box tried to reach: counted, bounded, taken away piece by piece.

use super::Clock;
use forge_types::{EgressRecord, EgressVerdict};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Stands for hosts that no longer have a record of their own.
const FURTHER: &str = "(further hosts)";

/// Attempts since they were last taken.
pub(super) struct Log {
    state: Mutex<State>,
    clock: Clock,
    most: usize,
}

#[derive(Default)]
struct State {
    entries: VecDeque<(u64, EgressRecord)>,
    next: u64,
}

impl State {
    fn push(&mut self, record: EgressRecord) -> u64 {
        let id = self.next;
        self.next += 1;
        self.entries.push_back((id, record));
        id
    }
}

fn same(a: &EgressRecord, b: &EgressRecord) -> bool {
    a.host == b.host && a.port == b.port && a.verdict == b.verdict && a.why == b.why
}

impl Log {
    pub(super) fn new(clock: Clock, most: usize) -> Self {
        Self { state: Mutex::default(), clock, most }
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn record(&self, host: &str, port: u16, verdict: EgressVerdict, why: &str) -> EgressRecord {
        let at = (self.clock)();
        let (host, why) = (host.to_owned(), why.to_owned());
        EgressRecord { at, host, port, verdict, why, count: 1, sent: 0, received: 0 }
    }

    /// Counts an attempt; gives the record that its bytes belong to.
    pub(super) fn note(&self, host: &str, port: u16, verdict: EgressVerdict, why: &str) -> u64 {
        let mut record = self.record(host, port, verdict, why);
        let mut state = self.locked();
        let full = state.entries.len() >= self.most;
        if full && !state.entries.iter().any(|(_, e)| same(e, &record)) {
            FURTHER.clone_into(&mut record.host);
            record.port = 0;
            record.why = format!("more than {} different attempts are not kept one by one", self.most);
        }
        let looked_at = if full { state.entries.len() } else { 1 };
        let known = state.entries.iter_mut().rev().take(looked_at).find(|(_, e)| same(e, &record));
        if let Some((id, entry)) = known {
            entry.count = entry.count.saturating_add(1);
            return *id;
        }
        state.push(record)
    }

    /// Adds bytes to the record `id`. If it was taken meanwhile, another one goes on for it.
    fn bytes(&self, meter: &Meter, sent: u64, received: u64) {
        let mut state = self.locked();
        let id = meter.id.load(Ordering::Relaxed);
        let at = match state.entries.binary_search_by_key(&id, |(id, _)| *id) {
            Ok(at) => at,
            Err(_) => {
                let mut record = self.record(&meter.host, meter.port, EgressVerdict::Allowed, "");
                record.count = 0;
                meter.id.store(state.push(record), Ordering::Relaxed);
                state.entries.len() - 1
            }
        };
        if let Some((_, record)) = state.entries.get_mut(at) {
            record.sent = record.sent.saturating_add(sent);
            record.received = record.received.saturating_add(received);
        }
    }

    pub(super) fn drain(&self) -> Vec<EgressRecord> {
        std::mem::take(&mut self.locked().entries).into_iter().map(|(_, record)| record).collect()
    }
}

/// Counts the bytes of one exchange and knows when the last ones went.
pub(super) struct Meter {
    log: Arc<Log>,
    id: AtomicU64,
    host: String,
    port: u16,
    last: Mutex<Instant>,
    idle: Duration,
}

impl Meter {
    /// A meter for something that was reached; it is noted.
    pub(super) fn new(log: &Arc<Log>, host: &str, port: u16, idle: Duration) -> Self {
        let id = AtomicU64::new(log.note(host, port, EgressVerdict::Allowed, ""));
        let last = Mutex::new(Instant::now());
        Self { log: Arc::clone(log), id, host: host.to_owned(), port, last, idle }
    }

    pub(super) fn sent(&self, bytes: usize) {
        self.moved(bytes as u64, 0);
    }

    pub(super) fn received(&self, bytes: usize) {
        self.moved(0, bytes as u64);
    }

    fn moved(&self, sent: u64, received: u64) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        if sent + received > 0 {
            self.log.bytes(self, sent, received);
        }
    }

    /// Returns when no byte has gone either way for the time that was given.
    pub(super) async fn idle(&self) {
        loop {
            let until = *self.last.lock().unwrap_or_else(PoisonError::into_inner) + self.idle;
            if Instant::now() >= until {
                return;
            }
            tokio::time::sleep_until(until).await;
        }
    }
}
