//! Following a run from any process: its wire events after a position, then new ones as they arrive.

use crate::Error;
use crate::payload_cache::PayloadCache;
use forge_ports::journal::WatchScope;
use forge_ports::{Journal, Queue};
use forge_types::{Event, EventKind, Plan, RunId, RunStatus, Seq};
use forge_wire::{PlanFacts, Projector, WireEvent};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// The number of events read at a time.
const EVENTS_PER_READ: usize = 500;
/// The idle time after which the follower checks whether a process still works on the run.
const IDLE_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// The reason that following ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FollowEnd {
    /// The run ended.
    Ended,
    /// The run waits for an external event.
    Parked,
    /// No process works on the run: its process died.
    Abandoned,
    /// The journal can't be read further.
    Damaged(String),
}

/// A follower of one run.
pub struct RunFollower {
    journal: Arc<dyn Journal>,
    queue: Arc<dyn Queue>,
    blobs: PayloadCache,
    changes: watch::Receiver<u64>,
    run: RunId,
    after: u64,
    projector: Projector,
    ready: VecDeque<WireEvent>,
    end: Option<FollowEnd>,
}

impl RunFollower {
    /// Creates a follower of a run's wire events after position `after`.
    pub fn new(journal: Arc<dyn Journal>, queue: Arc<dyn Queue>, run: RunId, after: u64) -> Self {
        let changes = journal.watch(WatchScope::Run(run));
        let blobs = PayloadCache::new(journal.clone());
        let projector = Projector::new(run, None);
        Self { journal, queue, blobs, changes, run, after, projector, ready: VecDeque::new(), end: None }
    }

    /// Returns the next event that is already available; `None` if there is none now.
    ///
    /// # Errors
    /// If the journal can't be read at all.
    pub async fn next_ready(&mut self) -> Result<Option<WireEvent>, Error> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(Some(event));
            }
            if self.end.is_some() || !self.read_page().await? {
                return Ok(None);
            }
        }
    }

    /// Waits for the next event; returns `None` once [`RunFollower::end_reason`] gives the reason that there
    /// are no more.
    ///
    /// # Errors
    /// If the journal can't be read at all.
    pub async fn next(&mut self) -> Result<Option<WireEvent>, Error> {
        loop {
            self.changes.borrow_and_update();
            if let Some(event) = self.next_ready().await? {
                return Ok(Some(event));
            }
            if self.end.is_some() || self.is_over().await? {
                return Ok(None);
            }
            let waited = tokio::time::timeout(IDLE_CHECK_INTERVAL, self.changes.changed()).await;
            if matches!(waited, Ok(Err(_))) {
                self.end = Some(FollowEnd::Abandoned);
            }
        }
    }

    /// Returns the reason that there are no more events.
    pub const fn end_reason(&self) -> Option<&FollowEnd> {
        self.end.as_ref()
    }

    /// Returns whether no more events will come, because the run is parked or its process died.
    async fn is_over(&mut self) -> Result<bool, Error> {
        let status = self.projector.state().status;
        if status == RunStatus::Waiting && self.queue.holder(self.run).await?.is_none() {
            self.end = Some(FollowEnd::Parked);
        } else if status == RunStatus::Running
            && !self.projector.state().waits_for_children()
            && self.queue.holder(self.run).await?.is_none()
            && !self.read_page().await?
        {
            self.end = Some(FollowEnd::Abandoned);
        }
        Ok(self.end.is_some() && self.ready.is_empty())
    }

    async fn read_page(&mut self) -> Result<bool, Error> {
        let pages = self.journal.read_events(self.run, self.last_seq(), EVENTS_PER_READ).await?;
        let some = !pages.events.is_empty();
        for event in pages.events {
            self.project_event(event).await?;
        }
        if let Some(damage) = pages.damage {
            self.end = Some(FollowEnd::Damaged(damage));
        }
        Ok(some)
    }

    fn last_seq(&self) -> Seq {
        self.projector.state().seq
    }

    async fn project_event(&mut self, mut event: Event) -> Result<(), Error> {
        if let EventKind::Created(created) = &event.kind
            && let Ok(bytes) = self.journal.read_blob(created.plan).await
            && let Ok(plan) = Plan::from_json(&bytes)
        {
            self.projector.set_facts(PlanFacts::from(&plan));
        }
        for payload in event.kind.payloads_mut() {
            // A blob that can't be read is shown as its hash; the events continue.
            let _ = self.blobs.resolve(payload).await;
        }
        let finished = matches!(event.kind, EventKind::Finished { .. });
        match self.projector.project(&event) {
            Ok(wire) => self.ready.extend(wire.into_iter().filter(|wire| wire.seq > self.after)),
            Err(error) => self.end = Some(FollowEnd::Damaged(error.to_string())),
        }
        if finished {
            self.end = Some(FollowEnd::Ended);
        }
        Ok(())
    }
}
