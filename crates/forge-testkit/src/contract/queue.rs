//! What every queue shows.

#![allow(clippy::unwrap_used, reason = "a contract suite is a test: what it finds is a panic")]

use forge_ports::queue::{ClaimError, ItemStatus, Lease, NextClaim, Queue, QueueEntry, QueueScope};
use forge_types::RunId;
use std::sync::Arc;

/// Two queues on the same data, as two processes have them.
type SharedQueue = Arc<dyn Queue>;

fn with_priority(run: RunId, priority: i32) -> QueueEntry {
    QueueEntry { priority, ..QueueEntry::new(run) }
}

async fn claim_in(queue: &SharedQueue, scope: QueueScope) -> Option<Box<dyn Lease>> {
    match queue.claim_next(scope).await.unwrap() {
        NextClaim::Claimed(lease) => Some(lease),
        NextClaim::Nothing { .. } => None,
    }
}

pub(super) async fn claim_any(queue: &SharedQueue) -> Option<Box<dyn Lease>> {
    claim_in(queue, QueueScope::All).await
}

/// A lease keeps everybody else out, says who holds it, and ends when it is dropped.
pub async fn a_claimed_run_is_held_until_its_lease_ends(one: SharedQueue, other: SharedQueue) {
    let run = RunId::generate();
    one.enqueue(QueueEntry::new(run)).await.unwrap();
    assert_eq!(one.holder(run).await.unwrap(), None);
    let lease = one.claim(run).await.unwrap();
    assert_eq!((lease.run_id(), lease.attempt()), (run, 1));
    let holder = other.holder(run).await.unwrap().expect("somebody holds it");
    for queue in [&one, &other] {
        match queue.claim(run).await.map(|_| ()) {
            Err(ClaimError::Held { run: of, holder: who }) => assert_eq!((of, who), (run, holder.clone())),
            answer => panic!("it is held, so why {answer:?}?"),
        }
        assert!(claim_any(queue).await.is_none());
    }
    drop(lease);
    assert_eq!(other.holder(run).await.unwrap(), None);
    assert_eq!(other.claim(run).await.unwrap().attempt(), 2);
}

/// A claim is atomic.
pub async fn of_many_claimers_one_wins(one: SharedQueue, other: SharedQueue) {
    for _ in 0..5 {
        let run = RunId::generate();
        one.enqueue(QueueEntry::new(run)).await.unwrap();
        let tries: Vec<_> = (0..16)
            .map(|n| {
                let queue = if n % 2 == 0 { Arc::clone(&one) } else { Arc::clone(&other) };
                tokio::spawn(async move {
                    if n % 3 == 0 { claim_any(&queue).await } else { queue.claim(run).await.ok() }
                })
            })
            .collect();
        let mut leases = Vec::new();
        for one in tries {
            leases.extend(one.await.unwrap());
        }
        assert_eq!(leases.len(), 1);
        let lease = leases.remove(0);
        assert_eq!(lease.attempt(), 1);
        one.finish(lease, ItemStatus::Completed).await.unwrap();
    }
}

/// Higher priority first; what was put in first comes first within.
pub async fn the_next_one_is_chosen_by_priority_then_age(one: SharedQueue, other: SharedQueue) {
    let runs = [RunId::generate(), RunId::generate(), RunId::generate()];
    for (run, priority) in runs.into_iter().zip([0, 0, 7]) {
        one.enqueue(with_priority(run, priority)).await.unwrap();
    }
    assert_eq!(other.queued_count().await.unwrap(), 3);
    let mut leases = Vec::new();
    for wanted in [runs[2], runs[0], runs[1]] {
        let lease = claim_any(&other).await.expect("one is left");
        assert_eq!(lease.run_id(), wanted);
        leases.push(lease);
    }
    assert!(claim_any(&one).await.is_none());
    assert_eq!(one.queued_count().await.unwrap(), 0);
}

/// What is queued again gets its new priority, keeps the count of its attempts, and comes after those that waited.
pub async fn an_item_that_is_queued_again_has_its_new_priority(one: SharedQueue, other: SharedQueue) {
    let runs = [RunId::generate(), RunId::generate(), RunId::generate()];
    for run in runs {
        one.enqueue(QueueEntry::new(run)).await.unwrap();
    }
    one.finish(one.claim(runs[0]).await.unwrap(), ItemStatus::Failed).await.unwrap();
    assert_eq!(one.queued_count().await.unwrap(), 2);
    one.enqueue(with_priority(runs[0], -1)).await.unwrap();
    one.enqueue(with_priority(runs[2], 9)).await.unwrap();
    assert_eq!(other.queued_count().await.unwrap(), 3);
    let mut leases = Vec::new();
    for (wanted, attempt) in [(runs[2], 1), (runs[1], 1), (runs[0], 2)] {
        let lease = claim_any(&other).await.expect("one is left");
        assert_eq!((lease.run_id(), lease.attempt()), (wanted, attempt));
        leases.push(lease);
    }
}

/// Nothing stays behind of what is done.
pub async fn a_finished_item_is_gone(one: SharedQueue, other: SharedQueue) {
    for status in [ItemStatus::Completed, ItemStatus::Failed] {
        let run = RunId::generate();
        one.enqueue(QueueEntry::new(run)).await.unwrap();
        let lease = claim_any(&one).await.expect("it is queued");
        one.finish(lease, status).await.unwrap();
        assert!(claim_any(&other).await.is_none());
        assert_eq!((other.queued_count().await.unwrap(), other.holder(run).await.unwrap()), (0, None));
    }
}

/// Work that is to be gone on with later is queued again.
pub async fn an_item_can_be_given_back(one: SharedQueue, other: SharedQueue) {
    let run = RunId::generate();
    one.enqueue(QueueEntry::new(run)).await.unwrap();
    let lease = claim_any(&one).await.expect("it is queued");
    assert_eq!(one.queued_count().await.unwrap(), 0);
    one.finish(lease, ItemStatus::Queued).await.unwrap();
    assert_eq!(other.queued_count().await.unwrap(), 1);
    let lease = claim_any(&other).await.expect("it is queued again");
    assert_eq!((lease.run_id(), lease.attempt()), (run, 2));
}

/// A lease that ends without a word leaves the item to the next one.
pub async fn an_item_whose_owner_died_is_claimed_again(one: SharedQueue, other: SharedQueue) {
    let run = RunId::generate();
    one.enqueue(QueueEntry::new(run)).await.unwrap();
    drop(claim_any(&one).await.expect("it is queued"));
    let lease = claim_any(&other).await.expect("nobody works on it");
    assert_eq!((lease.run_id(), lease.attempt()), (run, 2));
}

/// A run that is not in the queue, or that is done there, can be claimed by its name.
pub async fn any_run_can_be_claimed_by_name(one: SharedQueue, other: SharedQueue) {
    let run = RunId::generate();
    let lease = one.claim(run).await.unwrap();
    assert_eq!(lease.attempt(), 1);
    one.finish(lease, ItemStatus::Completed).await.unwrap();
    assert_eq!(other.claim(run).await.unwrap().attempt(), 2);
}

/// Whoever holds a lease may renew it at any time, whether it expires or not.
pub async fn a_held_lease_can_be_renewed(one: SharedQueue, other: SharedQueue) {
    let run = RunId::generate();
    one.enqueue(QueueEntry::new(run)).await.unwrap();
    let lease = one.claim(run).await.unwrap();
    for _ in 0..3 {
        lease.renew().await.unwrap();
        assert!(other.claim(run).await.is_err());
    }
    let lost = tokio::time::timeout(std::time::Duration::from_millis(20), lease.lost()).await;
    assert!(lost.is_err(), "it is held");
    assert_eq!(lease.attempt(), 1);
}

/// Who looks whether a run is idle learns the number of its last claim, holds up nobody, and counts as no attempt.
pub async fn an_idle_run_has_the_number_of_its_last_claim(one: SharedQueue, other: SharedQueue) {
    let run = RunId::generate();
    assert_eq!(other.idle_fence(run).await.unwrap(), Some(0));
    one.enqueue(QueueEntry::new(run)).await.unwrap();
    assert_eq!(other.idle_fence(run).await.unwrap(), Some(0));
    for attempt in 1..=3 {
        let lease = one.claim(run).await.unwrap();
        assert_eq!(lease.attempt(), attempt);
        for queue in [&one, &other] {
            assert_eq!(queue.idle_fence(run).await.unwrap(), None, "somebody works on it");
        }
        let fence = lease.fence();
        if attempt % 2 == 0 {
            drop(lease)
        } else {
            one.finish(lease, ItemStatus::Queued).await.unwrap()
        }
        assert_eq!(other.idle_fence(run).await.unwrap(), Some(fence));
        assert_eq!(one.holder(run).await.unwrap(), None);
    }
    assert_eq!(one.queued_count().await.unwrap(), 1);
}

/// A parked item is claimed by nobody until its run is queued again.
pub async fn a_parked_item_is_not_claimed_until_it_is_queued(one: SharedQueue, other: SharedQueue) {
    let run = RunId::generate();
    let lease = one.claim(run).await.unwrap();
    one.finish(lease, ItemStatus::Parked { until: None }).await.unwrap();
    assert!(claim_any(&other).await.is_none());
    assert_eq!(other.queued_count().await.unwrap(), 0);
    other.enqueue(QueueEntry::new(run)).await.unwrap();
    assert_eq!(claim_any(&one).await.expect("it is queued").attempt(), 2);
}

/// A worker that takes one tree claims its root and the descendants, and nothing else.
pub async fn a_tree_is_claimed_on_its_own(one: SharedQueue, other: SharedQueue) {
    let (root, child, stranger) = (RunId::generate(), RunId::generate(), RunId::generate());
    one.enqueue(QueueEntry { priority: 9, ..QueueEntry::new(stranger) }).await.unwrap();
    one.enqueue(QueueEntry { root, ..QueueEntry::new(child) }).await.unwrap();
    one.finish(one.claim(root).await.unwrap(), ItemStatus::Queued).await.unwrap();
    let mut claimed = Vec::new();
    while let Some(lease) = claim_in(&other, QueueScope::Tree(root)).await {
        claimed.push(lease);
    }
    let mut runs: Vec<_> = claimed.iter().map(|lease| lease.run_id()).collect();
    runs.sort_unstable();
    let mut wanted = [root, child];
    wanted.sort_unstable();
    assert_eq!(runs, wanted);
    assert_eq!(claim_any(&one).await.expect("the stranger is left").run_id(), stranger);
}
