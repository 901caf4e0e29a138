//! What every store shows whose journal queues runs: creating them, waking them, and creating their children.

#![allow(clippy::unwrap_used, reason = "a contract suite is a test: what it finds is a panic")]

use crate::sample::event_batch;
use forge_ports::Clock as _;
use forge_ports::journal::{Batch, Error, Journal, SentCommand};
use forge_ports::queue::{ItemStatus, NextClaim, Queue, QueueEntry, QueueScope};
use forge_types::{CommandId, RunCommand, RunId, Seq, Timestamp};
use std::time::Duration;

/// A store under test: its journal, its queue, and the clock of the queue.
pub struct Scheduler<J, Q> {
    /// The journal.
    pub journal: J,
    /// The queue on the same data.
    pub queue: Q,
    /// The clock of the queue.
    pub clock: crate::clock::TestClock,
}

fn created(run: RunId) -> Batch {
    Batch { enqueue: Some(QueueEntry::new(run)), ..event_batch(run, 0, 1) }
}

impl<J: Journal, Q: Queue> Scheduler<J, Q> {
    /// Claims whatever is next.
    async fn claim(&self) -> Option<(RunId, Box<dyn forge_ports::queue::Lease>)> {
        match self.queue.claim_next(QueueScope::All).await.unwrap() {
            NextClaim::Claimed(lease) => Some((lease.run_id(), lease)),
            NextClaim::Nothing { .. } => None,
        }
    }

    async fn park(&self, run: RunId, until: Option<Timestamp>) {
        let lease = self.queue.claim(run).await.unwrap();
        self.queue.finish(lease, ItemStatus::Parked { until }).await.unwrap();
    }
}

/// The batch that creates a run queues it; one that is refused queues nothing.
pub async fn a_run_is_queued_by_the_batch_that_creates_it(store: Scheduler<impl Journal, impl Queue>) {
    let run = RunId::generate();
    store.journal.append(created(run)).await.unwrap();
    let (claimed, _lease) = store.claim().await.expect("it is queued");
    assert_eq!(claimed, run);
    let other = RunId::generate();
    let refused = Batch { enqueue: Some(QueueEntry::new(other)), ..event_batch(other, 7, 1) };
    assert!(matches!(store.journal.append(refused).await, Err(Error::Conflict { .. })));
    assert!(store.claim().await.is_none());
}

/// A batch and the first batches of the children that it starts are written together, or none of them is.
pub async fn children_are_created_with_the_batch_of_their_parent(store: Scheduler<impl Journal, impl Queue>) {
    let (parent, child, other) = (RunId::generate(), RunId::generate(), RunId::generate());
    store.journal.append(event_batch(parent, 0, 1)).await.unwrap();
    let of_child = Batch {
        enqueue: Some(QueueEntry { root: parent, ..QueueEntry::new(child) }),
        ..event_batch(child, 0, 1)
    };
    store
        .journal
        .append(Batch { children: vec![of_child.clone()], ..event_batch(parent, 1, 1) })
        .await
        .unwrap();
    let NextClaim::Claimed(lease) = store.queue.claim_next(QueueScope::Tree(parent)).await.unwrap() else {
        panic!("the child is queued");
    };
    assert_eq!(lease.run_id(), child);
    // The same child again is a conflict, and then nothing of the batch is written.
    let again = Batch { children: vec![created(other), of_child], ..event_batch(parent, 2, 1) };
    assert!(matches!(store.journal.append(again).await, Err(Error::Conflict { run, .. }) if run == child));
    for (run, length) in [(parent, 2), (child, 1), (other, 0)] {
        let events = store.journal.read_events(run, Seq(0), 0).await.unwrap().events;
        assert_eq!(events.len(), length, "{run}");
    }
    assert!(store.claim().await.is_none());
}

/// A command queues a parked run, whoever sends it, and does nothing to the item of another one.
pub async fn a_command_queues_a_parked_run(store: Scheduler<impl Journal, impl Queue>) {
    let (parked, done, sender) = (RunId::generate(), RunId::generate(), RunId::generate());
    for run in [parked, done, sender] {
        store.journal.append(event_batch(run, 0, 1)).await.unwrap();
    }
    let lease = store.queue.claim(done).await.unwrap();
    store.queue.finish(lease, ItemStatus::Completed).await.unwrap();
    store.park(parked, None).await;
    assert!(store.claim().await.is_none());
    let by_batch = SentCommand { to: parked, id: CommandId::generate(), command: RunCommand::Pause };
    let to_done = SentCommand { to: done, id: CommandId::generate(), command: RunCommand::Pause };
    let to_nobody =
        SentCommand { to: RunId::generate(), id: CommandId::generate(), command: RunCommand::Pause };
    let sends = vec![by_batch.clone(), to_done, to_nobody];
    store.journal.append(Batch { sends, ..event_batch(sender, 1, 1) }).await.unwrap();
    let (run, lease) = store.claim().await.expect("the command woke it");
    assert_eq!(run, parked);
    assert!(store.claim().await.is_none());
    assert_eq!(store.journal.inbox(parked).await.unwrap(), [(by_batch.id, by_batch.command.clone())]);
    let taken = vec![by_batch.id];
    store.journal.append(Batch { taken, ..event_batch(parked, 1, 1) }).await.unwrap();
    // Sent again, it is not taken again.
    store.journal.append(Batch { sends: vec![by_batch], ..event_batch(sender, 2, 1) }).await.unwrap();
    assert!(store.journal.inbox(parked).await.unwrap().is_empty());
    store.queue.finish(lease, ItemStatus::Parked { until: None }).await.unwrap();
    assert!(store.claim().await.is_none());
    store.journal.send_command(parked, CommandId::generate(), RunCommand::Pause).await.unwrap();
    assert_eq!(store.claim().await.expect("it has a command").0, parked);
}

/// A run to which a command was sent while a worker held it is not parked.
pub async fn a_run_with_commands_is_queued_instead_of_parked(store: Scheduler<impl Journal, impl Queue>) {
    let run = RunId::generate();
    store.journal.append(event_batch(run, 0, 1)).await.unwrap();
    let lease = store.queue.claim(run).await.unwrap();
    store.journal.send_command(run, CommandId::generate(), RunCommand::Pause).await.unwrap();
    store.queue.finish(lease, ItemStatus::Parked { until: None }).await.unwrap();
    assert_eq!(store.claim().await.expect("it has a command").0, run);
}

/// A run that is parked until a time is claimed from then on.
pub async fn a_parked_run_is_queued_at_its_time(store: Scheduler<impl Journal, impl Queue>) {
    let (early, late) = (RunId::generate(), RunId::generate());
    let at = |seconds| store.clock.now().after(Duration::from_secs(seconds));
    let (soon, later) = (at(10), at(20));
    store.park(late, Some(later)).await;
    store.park(early, Some(soon)).await;
    let next = |claim| match claim {
        NextClaim::Nothing { next } => next,
        NextClaim::Claimed(lease) => panic!("{} is claimed early", lease.run_id()),
    };
    assert_eq!(next(store.queue.claim_next(QueueScope::All).await.unwrap()), Some(soon));
    store.clock.advance(Duration::from_secs(10));
    let (run, _lease) = store.claim().await.expect("its time has come");
    assert_eq!(run, early);
    assert_eq!(next(store.queue.claim_next(QueueScope::All).await.unwrap()), Some(later));
}
