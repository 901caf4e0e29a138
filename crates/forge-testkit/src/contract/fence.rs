//! What every store shows of the fencing numbers that its queue gives to claims.

#![allow(clippy::unwrap_used, reason = "a contract suite is a test: what it finds is a panic")]

use crate::sample::event_batch;
use forge_ports::journal::{Batch, Error, Journal, Posting};
use forge_ports::ledger::Ledger;
use forge_ports::queue::{ItemStatus, Queue};
use forge_types::{EffectId, Money, RunId, Seq};
use std::sync::Arc;

fn fenced_batch(run: RunId, expected: u64, fence: u64) -> Batch {
    Batch { fence: Some(fence), ..event_batch(run, expected, 1) }
}

/// Who was overtaken by another claim writes nothing more, whether it noticed or not.
pub async fn a_batch_of_an_earlier_claim_is_refused(store: &impl Journal, queue: Arc<dyn Queue>) {
    let run = RunId::generate();
    store.append(event_batch(run, 0, 1)).await.unwrap();
    let early = queue.claim(run).await.unwrap();
    let fence = early.fence();
    store.append(fenced_batch(run, 1, fence)).await.unwrap();
    drop(early);
    let later = queue.claim(run).await.unwrap();
    assert!(later.fence() > fence);
    let refused = store.append(fenced_batch(run, 2, fence)).await.unwrap_err();
    assert!(matches!(refused, Error::LeaseLost { run: of } if of == run), "{refused}");
    store.append(fenced_batch(run, 2, later.fence())).await.unwrap();
    assert_eq!(store.read_events(run, Seq(0), 0).await.unwrap().events.len(), 3);
    // Nobody has ever claimed this run.
    for fence in [0, 1] {
        let refused = store.append(fenced_batch(RunId::generate(), 0, fence)).await.unwrap_err();
        assert!(matches!(refused, Error::LeaseLost { .. }), "{refused}");
    }
}

/// Who found a run idle releases what it reserved, but not what a claim since then reserved.
pub async fn reservations_are_released_only_for_the_last_claim(
    store: &(impl Journal + Ledger),
    queue: Arc<dyn Queue>,
) {
    let run = RunId::generate();
    let reserve = |expected: u64, effect: u64, fence: u64| {
        let (account, effect) = ("pot".to_owned(), EffectId(effect));
        let postings = vec![Posting::Reserve { account, effect, amount: Money(5), ceiling: None }];
        Batch { postings, ..fenced_batch(run, expected, fence) }
    };
    let reserved = async || store.balance("pot").await.unwrap().reserved;
    let lease = queue.claim(run).await.unwrap();
    store.append(reserve(0, 1, lease.fence())).await.unwrap();
    queue.finish(lease, ItemStatus::Queued).await.unwrap();
    let idle = queue.idle_fence(run).await.unwrap().expect("nobody works on it");
    let lease = queue.claim(run).await.unwrap();
    for (effect, held) in [(None, Money(5)), (Some(2), Money(10))] {
        if let Some(effect) = effect {
            store.append(reserve(1, effect, lease.fence())).await.unwrap();
        }
        let refused = store.release_run(run, idle).await.unwrap_err();
        assert!(matches!(refused, Error::LeaseLost { run: of } if of == run), "{refused}");
        assert_eq!(reserved().await, held);
    }
    queue.finish(lease, ItemStatus::Queued).await.unwrap();
    store.release_run(run, idle).await.unwrap_err();
    let idle = queue.idle_fence(run).await.unwrap().expect("nobody works on it");
    store.release_run(run, idle).await.unwrap();
    assert_eq!((reserved().await, store.holders("pot").await.unwrap()), (Money::ZERO, Vec::new()));
}
