//! Workers: they claim runs from the queue and work on them, several at a time.

use crate::live_hub::LiveHub;
use crate::{Error, RunEngine, load_run_state};
use forge_ports::async_trait;
use forge_ports::journal::WatchScope;
use forge_ports::queue::{ClaimError, ItemStatus, Lease, NextClaim, QueueScope};
use forge_ports::{Clock, Journal, Queue};
use forge_types::{RunId, RunState, Timestamp};
use std::future::Future;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;

/// The longest time between two looks at the queue: no message says that the process of another worker died.
const IDLE_POLL_INTERVAL: Duration = Duration::from_secs(1);
/// The time until a run is claimed again after its project could not be opened, and the time without claims after a bug of
/// the program or an error of the queue.
const FAILURE_DELAY: Duration = Duration::from_secs(10);

/// The engines of a process: each works on the runs of one project.
#[async_trait]
pub trait EngineSource: Send + Sync {
    /// Returns the engine with the settings, keys and models of this run's project.
    ///
    /// # Errors
    /// If the project can't be opened.
    async fn engine_for(&self, run: RunId) -> Result<RunEngine, Error>;
}

/// The source for a process that serves one project.
#[async_trait]
impl EngineSource for RunEngine {
    async fn engine_for(&self, _run: RunId) -> Result<RunEngine, Error> {
        Ok(self.clone())
    }
}

/// The part of the store that workers need.
#[derive(Clone)]
pub struct WorkerParts {
    /// The journal, which reports changes of the queue.
    pub journal: Arc<dyn Journal>,
    /// The queue.
    pub queue: Arc<dyn Queue>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// The receivers of what the runs show.
    pub live: LiveHub,
}

/// Workers of one process.
pub struct Workers {
    parts: WorkerParts,
    engines: Arc<dyn EngineSource>,
    concurrency: NonZeroUsize,
}

/// A run on which a worker ended its work, for now or for good.
type Worked = Result<RunState, Error>;

impl Workers {
    /// Creates workers that work on at most `concurrency` runs at a time.
    pub fn new(parts: WorkerParts, engines: Arc<dyn EngineSource>, concurrency: NonZeroUsize) -> Self {
        Self { parts, engines, concurrency }
    }

    /// Works on all queued runs until `shutdown` is ready. Then claims no further run, waits up to `grace` for the runs in
    /// progress, and abandons the others, which any worker can continue.
    pub async fn run(&self, shutdown: impl Future<Output = ()> + Send, grace: Duration) {
        let mut pool = WorkerPool::new(self, QueueScope::All);
        let mut shutdown = std::pin::pin!(shutdown);
        loop {
            tokio::select! {
                biased;
                () = &mut shutdown => break,
                worked = pool.next() => {
                    if let Some(Err(error)) = worked {
                        tracing::warn!(%error, "the work on a run ended with an error");
                    }
                }
            }
        }
        if tokio::time::timeout(grace, pool.finish()).await.is_err() {
            // Their leases end with their tasks.
            pool.working.shutdown().await;
        }
    }

    /// Works on one run, and on its descendants while it waits for them, until it ends or is parked for another reason.
    /// Returns its state.
    ///
    /// # Errors
    /// If another process works on the run, or its journal can't be read or written.
    pub async fn work_on(&self, run: RunId) -> Result<RunState, Error> {
        let engine = self.engines.engine_for(run).await?;
        let mut state = engine.drive(run, self.parts.live.publisher(run)).await?;
        if !state.waits_for_children() {
            return Ok(state);
        }
        let mut pool = WorkerPool::new(self, QueueScope::Tree(run));
        while state.waits_for_children() {
            match pool.next().await {
                Some(Ok(worked)) if worked.run == run => state = worked,
                Some(Ok(_)) => {}
                // A child that can't be worked on now is tried again; its parent waits for it.
                Some(Err(error)) => tracing::warn!(%error, "the work on a child run ended with an error"),
                // Another worker may have continued the run.
                None => state = self.reload(state).await?,
            }
        }
        Ok(state)
    }

    /// Returns the present state of a run on which no worker works; otherwise the given one.
    async fn reload(&self, known: RunState) -> Result<RunState, Error> {
        if self.parts.queue.holder(known.run).await?.is_some() {
            return Ok(known);
        }
        let (_, projector) = load_run_state(self.parts.journal.as_ref(), known.run).await?;
        Ok(projector.state().clone())
    }
}

/// The runs that are being worked on.
struct WorkerPool<'a> {
    workers: &'a Workers,
    scope: QueueScope,
    working: JoinSet<Worked>,
    changes: tokio::sync::watch::Receiver<u64>,
    /// The time before which no run is claimed.
    not_before: Timestamp,
}

impl<'a> WorkerPool<'a> {
    fn new(workers: &'a Workers, scope: QueueScope) -> Self {
        Self {
            workers,
            scope,
            working: JoinSet::new(),
            changes: workers.parts.journal.watch(WatchScope::Queue),
            not_before: Timestamp::default(),
        }
    }

    /// Claims runs as long as there is a free place, and waits for the next result; returns `None` if the queue may have
    /// changed before there is one.
    async fn next(&mut self) -> Option<Worked> {
        self.changes.borrow_and_update();
        let next = match self.claim_free_places().await {
            Ok(next) => next,
            Err(error) => {
                self.pause_claims();
                return Some(Err(error.into()));
            }
        };
        let clock = Arc::clone(&self.workers.parts.clock);
        let idle = clock.now().after(IDLE_POLL_INTERVAL);
        let wake = next.map_or(idle, |next| next.min(idle)).max(self.not_before);
        let has_place = self.has_place();
        tokio::select! {
            biased;
            Some(joined) = self.working.join_next() => Some(self.collect(joined)),
            _ = self.changes.changed(), if has_place && clock.now() >= self.not_before => None,
            () = clock.sleep_until(wake), if has_place => None,
        }
    }

    /// Waits for the runs in progress.
    async fn finish(&mut self) {
        while let Some(joined) = self.working.join_next().await {
            if let Err(error) = self.collect(joined) {
                tracing::warn!(%error, "the work on a run ended with an error");
            }
        }
    }

    fn has_place(&self) -> bool {
        self.working.len() < self.workers.concurrency.get()
    }

    /// Claims runs until no place is free or no run is left. Returns the time at which the next one can be claimed, if it
    /// is known.
    async fn claim_free_places(&mut self) -> Result<Option<Timestamp>, ClaimError> {
        let parts = &self.workers.parts;
        while self.has_place() && parts.clock.now() >= self.not_before {
            match parts.queue.claim_next(self.scope).await? {
                NextClaim::Claimed(lease) => self.start(lease),
                NextClaim::Nothing { next } => return Ok(next),
            }
        }
        Ok(None)
    }

    fn start(&mut self, lease: Box<dyn Lease>) {
        let engines = Arc::clone(&self.workers.engines);
        let sink = self.workers.parts.live.publisher(lease.run_id());
        let (queue, clock) = (Arc::clone(&self.workers.parts.queue), Arc::clone(&self.workers.parts.clock));
        self.working.spawn(async move {
            match engines.engine_for(lease.run_id()).await {
                Ok(engine) => engine.drive_claimed(lease, sink).await,
                Err(error) => {
                    // It would probably fail again at once.
                    let until = Some(clock.now().after(FAILURE_DELAY));
                    queue.finish(lease, ItemStatus::Parked { until }).await?;
                    Err(error)
                }
            }
        });
    }

    fn collect(&mut self, joined: Result<Worked, tokio::task::JoinError>) -> Worked {
        joined.unwrap_or_else(|error| {
            // The run is free, and would probably fail again at once.
            self.pause_claims();
            Err(Error::Internal { what: format!("a worker failed: {error}") })
        })
    }

    fn pause_claims(&mut self) {
        self.not_before = self.workers.parts.clock.now().after(FAILURE_DELAY);
    }
}
