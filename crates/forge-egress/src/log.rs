//! A bounded log of the hosts that a sandbox tried to reach, with counts.

use super::TimeSource;
use super::head::Authority;
use super::proxy_error::ProxyError;
use forge_types::{EgressRecord, EgressVerdict};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// Host name for attempts beyond the limit, which have no record of their own.
const OVERFLOW_HOST: &str = "(further hosts)";

/// The attempts since the last drain.
pub(super) struct EgressLog {
    state: Mutex<LogState>,
    clock: TimeSource,
    most: usize,
}

#[derive(Default)]
struct LogState {
    entries: VecDeque<(u64, EgressRecord)>,
    next: u64,
}

impl LogState {
    fn push(&mut self, record: EgressRecord) -> u64 {
        let id = self.next;
        self.next += 1;
        self.entries.push_back((id, record));
        id
    }
}

fn is_same_attempt(a: &EgressRecord, b: &EgressRecord) -> bool {
    a.host == b.host && a.port == b.port && a.verdict == b.verdict && a.why == b.why
}

impl EgressLog {
    pub(super) fn new(clock: TimeSource, most: usize) -> Self {
        Self { state: Mutex::default(), clock, most }
    }

    fn lock_state(&self) -> parking_lot::MutexGuard<'_, LogState> {
        self.state.lock()
    }

    fn new_record(&self, host: &str, port: u16, verdict: EgressVerdict, why: &str) -> EgressRecord {
        let at = (self.clock)();
        let (host, why) = (host.to_owned(), why.to_owned());
        EgressRecord { at, host, port, verdict, why, count: 1, sent: 0, received: 0 }
    }

    /// Counts an attempt and returns the ID of the record for its bytes.
    pub(super) fn record_attempt(&self, host: &str, port: u16, verdict: EgressVerdict, why: &str) -> u64 {
        let mut record = self.new_record(host, port, verdict, why);
        let mut state = self.lock_state();
        let full = state.entries.len() >= self.most;
        if full && !state.entries.iter().any(|(_, e)| is_same_attempt(e, &record)) {
            OVERFLOW_HOST.clone_into(&mut record.host);
            record.port = 0;
            record.why = format!("more than {} different attempts are not recorded individually", self.most);
        }
        let looked_at = if full { state.entries.len() } else { 1 };
        let known = state.entries.iter_mut().rev().take(looked_at).find(|(_, e)| is_same_attempt(e, &record));
        if let Some((id, entry)) = known {
            entry.count = entry.count.saturating_add(1);
            return *id;
        }
        state.push(record)
    }

    /// Counts an attempt that was refused or failed. The host may be unknown.
    pub(super) fn record_fault(&self, to: Option<&Authority>, fault: &ProxyError) {
        let (host, port) = to.map_or(("", 0), |to| (to.host.as_str(), to.port));
        self.record_attempt(host, port, fault.verdict, &fault.why);
    }

    /// Adds bytes to the record of `meter`. If that was drained in the meantime, a new record is created.
    fn add_bytes(&self, meter: &ByteMeter, sent: u64, received: u64) {
        let mut state = self.lock_state();
        let id = meter.id.load(Ordering::Relaxed);
        let at = match state.entries.binary_search_by_key(&id, |(id, _)| *id) {
            Ok(at) => at,
            Err(_) => {
                let mut record = self.new_record(&meter.host, meter.port, EgressVerdict::Allowed, "");
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
        std::mem::take(&mut self.lock_state().entries).into_iter().map(|(_, record)| record).collect()
    }
}

/// A counter for the bytes of one exchange, which also tracks its last activity.
pub(super) struct ByteMeter {
    log: Arc<EgressLog>,
    id: AtomicU64,
    host: String,
    port: u16,
    last: Mutex<Instant>,
    idle: Duration,
}

impl ByteMeter {
    /// Creates a meter and logs the connection.
    pub(super) fn new(log: &Arc<EgressLog>, host: &str, port: u16, idle: Duration) -> Self {
        let id = AtomicU64::new(log.record_attempt(host, port, EgressVerdict::Allowed, ""));
        let last = Mutex::new(Instant::now());
        Self { log: Arc::clone(log), id, host: host.to_owned(), port, last, idle }
    }

    pub(super) fn add_sent(&self, bytes: usize) {
        self.add_traffic(bytes as u64, 0);
    }

    pub(super) fn add_received(&self, bytes: usize) {
        self.add_traffic(0, bytes as u64);
    }

    fn add_traffic(&self, sent: u64, received: u64) {
        *self.last.lock() = Instant::now();
        if sent + received > 0 {
            self.log.add_bytes(self, sent, received);
        }
    }

    /// Waits until no byte has been sent or received for the idle time.
    pub(super) async fn wait_idle(&self) {
        loop {
            let until = *self.last.lock() + self.idle;
            if Instant::now() >= until {
                return;
            }
            tokio::time::sleep_until(until).await;
        }
    }
}
