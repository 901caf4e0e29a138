//! The store in memory keeps the promises of the real one, and crashes where it is told to.

use super::{AppendFault, AppendMoment, AppendPoint, MemoryStore};
use crate::clock::TestClock;
use crate::contract::scheduling::Scheduler;
use crate::sample::event_batch;
use forge_ports::journal::{Error, Journal};
use forge_ports::queue::{ItemStatus, Queue};
use forge_types::{RunId, Seq};
use std::sync::Arc;
use std::time::Duration;

type SharedQueue = Arc<dyn Queue>;

fn store() -> (MemoryStore, ()) {
    (MemoryStore::new(), ())
}

fn queues() -> (SharedQueue, SharedQueue, ()) {
    let store = MemoryStore::new();
    let other = store.reopen();
    (Arc::new(store), Arc::new(other), ())
}

mod journal {
    crate::journal_contract!(super::store);
}

fn stores() -> (MemoryStore, MemoryStore, ()) {
    let store = MemoryStore::new();
    (store.clone(), store.reopen(), ())
}

mod feed {
    crate::feed_contract!(super::stores);
}

fn fenced() -> (MemoryStore, SharedQueue, ()) {
    let store = MemoryStore::new();
    (store.clone(), Arc::new(store.reopen()), ())
}

mod fence {
    crate::fence_contract!(super::fenced);
}

fn expiring() -> (MemoryStore, SharedQueue, SharedQueue, impl AsyncFn(Duration), ()) {
    let clock = TestClock::default();
    let store = MemoryStore::with_expiring_leases(clock.clone(), Duration::from_secs(30));
    let (one, other) = (store.reopen(), store.reopen());
    (store, Arc::new(one), Arc::new(other), async move |time| clock.advance(time), ())
}

mod heartbeat {
    crate::heartbeat_contract!(super::expiring);
}

fn expiring_queues() -> (SharedQueue, SharedQueue, ()) {
    let (_, one, other, ..) = expiring();
    (one, other, ())
}

mod expiring_queue {
    crate::queue_contract!(super::expiring_queues);
}

fn scheduler() -> (Scheduler<MemoryStore, MemoryStore>, ()) {
    let clock = TestClock::default();
    let store = MemoryStore::new().with_clock(Arc::new(clock.clone()));
    (Scheduler { journal: store.clone(), queue: store, clock }, ())
}

mod scheduling {
    crate::scheduling_contract!(super::scheduler);
}

mod queue {
    crate::queue_contract!(super::queues);
}

async fn length(store: &MemoryStore, run: RunId) -> usize {
    store.read_events(run, Seq(0), 0).await.unwrap().events.len()
}

#[tokio::test]
async fn a_crash_before_an_append_writes_nothing_and_one_after_it_everything() {
    for (moment, written) in [(AppendMoment::Before, 1), (AppendMoment::After, 2)] {
        let store = MemoryStore::with_hook(move |point| {
            if point == (AppendPoint { index: 1, moment }) { AppendFault::Crash } else { AppendFault::None }
        });
        let run = RunId::generate();
        store.append(event_batch(run, 0, 1)).await.unwrap();
        let crashed = store.append(event_batch(run, 1, 1)).await;
        assert!(matches!(crashed, Err(Error::Unavailable { why, .. }) if why == "crash"));
        assert!(store.has_crashed());
        assert!(store.append(event_batch(run, 1, 1)).await.is_err(), "a dead process writes nothing");
        assert!(store.inbox(run).await.is_err(), "a dead process reads nothing");
        assert_eq!(length(&store.reopen(), run).await, written);
    }
}

#[tokio::test]
async fn the_leases_of_a_crashed_process_are_free() {
    let store = MemoryStore::new();
    let next = store.reopen();
    let run = RunId::generate();
    let lease = store.claim(run).await.unwrap();
    assert!(next.claim(run).await.is_err());
    store.crash();
    let taken = next.claim(run).await.unwrap();
    drop(lease);
    assert!(next.holder(run).await.unwrap().is_some(), "the old lease frees nothing that is not its own");
    next.finish(taken, ItemStatus::Completed).await.unwrap();
    assert_eq!(next.holder(run).await.unwrap(), None);
}
