//! What every queue with leases that expire shows.

#![allow(clippy::unwrap_used, reason = "a contract suite is a test: what it finds is a panic")]

use super::queue::claim_any;
use crate::sample::event_batch;
use forge_ports::journal::{Batch, Error, Journal};
use forge_ports::queue::{ClaimError, ItemStatus, Lease, Queue, QueueEntry};
use forge_types::{RunId, Seq};
use std::sync::Arc;
use std::time::Duration;

/// The most intervals after which a lease that is not renewed has expired.
const MAX_INTERVALS: usize = 10;

fn interval(lease: &dyn Lease) -> Duration {
    lease.renewal_interval().expect("it expires")
}

/// Who renews in time keeps the run for as long as it takes.
pub async fn a_lease_that_is_renewed_is_kept(
    store: &impl Journal,
    one: Arc<dyn Queue>,
    other: Arc<dyn Queue>,
    pass_time: impl AsyncFn(Duration),
) {
    let run = RunId::generate();
    let lease = one.claim(run).await.unwrap();
    for expected in 0..2 * MAX_INTERVALS as u64 {
        pass_time(interval(lease.as_ref())).await;
        lease.renew().await.unwrap();
        let refused = other.claim(run).await.map(|_| ());
        assert!(matches!(refused, Err(ClaimError::Held { .. })), "{refused:?}");
        assert_eq!(other.idle_fence(run).await.unwrap(), None);
        store.append(Batch { fence: Some(lease.fence()), ..event_batch(run, expected, 1) }).await.unwrap();
    }
    one.finish(lease, ItemStatus::Completed).await.unwrap();
    assert_eq!(other.holder(run).await.unwrap(), None);
}

/// Without a heartbeat another worker gets the run, with a greater number; the first one learns of it, and can neither
/// renew, append, finish, nor free what is no longer its own.
pub async fn a_worker_whose_heartbeat_stops_is_replaced_and_writes_nothing_more(
    store: &impl Journal,
    one: Arc<dyn Queue>,
    other: Arc<dyn Queue>,
    pass_time: impl AsyncFn(Duration),
) {
    let run = RunId::generate();
    let (early, late) = (one.claim(run).await.unwrap(), one.claim(RunId::generate()).await.unwrap());
    let batch = |fence, expected| Batch { fence: Some(fence), ..event_batch(run, expected, 1) };
    store.append(batch(early.fence(), 0)).await.unwrap();
    let mut taken = None;
    for _ in 0..MAX_INTERVALS {
        pass_time(interval(early.as_ref())).await;
        late.renew().await.unwrap();
        taken = other.claim(run).await.ok();
        if taken.is_some() {
            break;
        }
    }
    let taken = taken.expect("the lease has expired");
    assert!(taken.fence() > early.fence());
    early.lost().await;
    let lost = |error: Error| assert!(matches!(error, Error::LeaseLost { run: of } if of == run), "{error}");
    lost(early.renew().await.unwrap_err());
    lost(store.append(batch(early.fence(), 1)).await.unwrap_err());
    let holder = other.holder(run).await.unwrap();
    assert!(holder.is_some());
    lost(one.finish(early, ItemStatus::Completed).await.unwrap_err());
    assert_eq!(one.holder(run).await.unwrap(), holder);
    taken.renew().await.unwrap();
    store.append(batch(taken.fence(), 1)).await.unwrap();
    assert_eq!(store.read_events(run, Seq(0), 0).await.unwrap().events.len(), 2);
    let other_run = late.run_id();
    assert!(other.claim(other_run).await.is_err(), "the lease that was renewed is held");
}

/// Nobody has to ask for a run by its id to go on with what an expired lease left.
pub async fn an_expired_item_comes_next_in_the_queue(
    _: &impl Journal,
    one: Arc<dyn Queue>,
    other: Arc<dyn Queue>,
    pass_time: impl AsyncFn(Duration),
) {
    let run = RunId::generate();
    one.enqueue(QueueEntry::new(run)).await.unwrap();
    let lease = claim_any(&one).await.expect("it is queued");
    assert!(claim_any(&other).await.is_none());
    for _ in 0..MAX_INTERVALS {
        pass_time(interval(lease.as_ref())).await;
    }
    assert_eq!(other.holder(run).await.unwrap(), None);
    assert_eq!(other.idle_fence(run).await.unwrap(), Some(lease.fence()));
    let next = claim_any(&other).await.expect("nobody works on it");
    assert_eq!((next.run_id(), next.attempt()), (run, 2));
}
