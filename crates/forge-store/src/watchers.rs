//! Counters of changes: one of all changes, and two of each run that is watched.

use forge_ports::journal::WatchScope;
use forge_types::RunId;
use parking_lot::{Mutex, MutexGuard};
use std::collections::HashMap;
use tokio::sync::watch;

/// A committed change of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RunChange {
    pub(crate) run: RunId,
    /// Whether the change is a command.
    pub(crate) command: bool,
    /// Whether the run may have become claimable.
    pub(crate) queued: bool,
}

/// The counters of one store.
#[derive(Debug)]
pub(crate) struct ChangeCounters {
    all: watch::Sender<u64>,
    queue: watch::Sender<u64>,
    runs: Mutex<HashMap<RunId, RunCounters>>,
}

#[derive(Debug)]
struct RunCounters {
    changes: watch::Sender<u64>,
    commands: watch::Sender<u64>,
}

impl RunCounters {
    fn new() -> Self {
        Self { changes: watch::Sender::new(0), commands: watch::Sender::new(0) }
    }

    fn is_watched(&self) -> bool {
        self.changes.receiver_count() + self.commands.receiver_count() > 0
    }

    fn count(&self, command: bool) {
        increment(&self.changes);
        if command {
            increment(&self.commands);
        }
    }
}

impl ChangeCounters {
    pub(crate) fn new() -> Self {
        Self { all: watch::Sender::new(0), queue: watch::Sender::new(0), runs: Mutex::default() }
    }

    /// Returns the counter of this scope.
    pub(crate) fn subscribe(&self, scope: WatchScope) -> watch::Receiver<u64> {
        let mut runs = self.lock_runs();
        runs.retain(|_, counters| counters.is_watched());
        match scope {
            WatchScope::All => self.all.subscribe(),
            WatchScope::Queue => self.queue.subscribe(),
            WatchScope::Run(run) => runs.entry(run).or_insert_with(RunCounters::new).changes.subscribe(),
            WatchScope::Commands(run) => {
                runs.entry(run).or_insert_with(RunCounters::new).commands.subscribe()
            }
        }
    }

    /// Counts changes of these runs.
    pub(crate) fn count(&self, changes: &[RunChange]) {
        increment(&self.all);
        if changes.iter().any(|change| change.queued) {
            increment(&self.queue);
        }
        let runs = self.lock_runs();
        for change in changes {
            if let Some(counters) = runs.get(&change.run) {
                counters.count(change.command);
            }
        }
    }

    /// Counts changes that are not known in detail.
    pub(crate) fn count_unknown(&self) {
        increment(&self.all);
        increment(&self.queue);
        self.lock_runs().values().for_each(|counters| counters.count(true));
    }

    /// Returns whether any of the counters is watched.
    pub(crate) fn is_watched(&self) -> bool {
        self.all.receiver_count() + self.queue.receiver_count() > 0
            || self.lock_runs().values().any(RunCounters::is_watched)
    }

    fn lock_runs(&self) -> MutexGuard<'_, HashMap<RunId, RunCounters>> {
        self.runs.lock()
    }
}

fn increment(counter: &watch::Sender<u64>) {
    counter.send_modify(|count| *count = count.wrapping_add(1));
}

/// Largest number of runs that a message names; more are not named.
const MAX_NAMED_CHANGES: usize = 60;
/// Bits of a change in a message: it is a command; the run may have become claimable.
const COMMAND_BIT: u8 = 1;
const QUEUED_BIT: u8 = 2;
/// Bytes of one change in a message: its bits, and the run's id.
const CHANGE_BYTES: usize = 17;
/// First byte of a message about changes.
const CHANGES_TAG: u8 = 1;
/// Largest size of a message in bytes.
pub(crate) const MAX_MESSAGE_BYTES: usize = 1 + MAX_NAMED_CHANGES * CHANGE_BYTES;

/// Encodes the message that notifies other processes of changes.
pub(crate) fn encode_changes(changes: &[RunChange]) -> Vec<u8> {
    let mut message = vec![CHANGES_TAG];
    if changes.len() <= MAX_NAMED_CHANGES {
        for change in changes {
            message.push(u8::from(change.command) * COMMAND_BIT + u8::from(change.queued) * QUEUED_BIT);
            message.extend(change.run.as_u128().to_be_bytes());
        }
    }
    message
}

/// Decodes a message. Returns `None` for a message that announces no change, and no changes if they are not named.
pub(crate) fn decode_changes(message: &[u8]) -> Option<Vec<RunChange>> {
    let (tag, changes) = message.split_first()?;
    let (changes, rest) = changes.as_chunks::<CHANGE_BYTES>();
    if *tag != CHANGES_TAG {
        return None;
    }
    if !rest.is_empty() {
        return Some(Vec::new());
    }
    let decode = |change: &[u8; CHANGE_BYTES]| {
        let mut id = [0; 16];
        id.copy_from_slice(&change[1..]);
        RunChange {
            run: RunId::from_u128(u128::from_be_bytes(id)),
            command: change[0] & COMMAND_BIT != 0,
            queued: change[0] & QUEUED_BIT != 0,
        }
    };
    Some(changes.iter().map(decode).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_names_the_runs_that_fit_into_it() {
        let changes = |count: u128| -> Vec<RunChange> {
            (0..count)
                .map(|n| RunChange {
                    run: RunId::from_u128(n << 64 | 7),
                    command: n % 2 == 1,
                    queued: n % 3 == 1,
                })
                .collect()
        };
        for count in [0, 1, 60] {
            let message = encode_changes(&changes(count));
            assert!(message.len() <= MAX_MESSAGE_BYTES);
            assert_eq!(decode_changes(&message), Some(changes(count)));
        }
        assert_eq!(decode_changes(&encode_changes(&changes(61))), Some(Vec::new()));
        // Of another version, and no change.
        assert_eq!(decode_changes(&[1]), Some(Vec::new()));
        assert_eq!(decode_changes(&[1, 2, 3]), Some(Vec::new()));
        assert_eq!(decode_changes(&[0]), None);
        assert_eq!(decode_changes(&[]), None);
    }

    #[test]
    fn only_the_counters_of_a_changed_run_move() {
        let (one, other) = (RunId::from_u128(1), RunId::from_u128(2));
        let counters = ChangeCounters::new();
        assert!(!counters.is_watched());
        let mut watched =
            [WatchScope::All, WatchScope::Run(one), WatchScope::Commands(one), WatchScope::Run(other)]
                .map(|scope| counters.subscribe(scope));
        let moved = |watched: &mut [watch::Receiver<u64>; 4]| {
            watched.each_mut().map(|counter| {
                let moved = counter.has_changed().expect("its sender lives");
                counter.borrow_and_update();
                moved
            })
        };
        counters.count(&[RunChange { run: one, command: false, queued: false }]);
        assert_eq!(moved(&mut watched), [true, true, false, false]);
        counters.count(&[RunChange { run: one, command: true, queued: true }]);
        assert_eq!(moved(&mut watched), [true, true, true, false]);
        counters.count(&[]);
        assert_eq!(moved(&mut watched), [true, false, false, false]);
        counters.count_unknown();
        assert_eq!(moved(&mut watched), [true; 4]);
        assert!(counters.is_watched());
        drop(watched);
        assert!(!counters.is_watched());
    }
}
