//! Workers that claim runs from the queue.

use crate::children::{decider, pipeline};
use crate::harness::{World, plan};
use crate::model::{Brain, say};
use forge_ports::model::{DeltaSink, Error};
use forge_ports::{Clock as _, Model, Queue as _, async_trait};
use forge_runtime::{EngineSource, RunEngine};
use forge_testkit::memory::MemoryStore;
use forge_types::*;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::Notify;

const GRACE: Duration = Duration::from_secs(5);

/// A model that counts the calls under way, and waits until so many were there at once.
struct Crowd {
    now: AtomicUsize,
    most: AtomicUsize,
    wanted: usize,
    full: tokio::sync::watch::Sender<bool>,
}

impl Crowd {
    fn of(wanted: usize) -> Arc<Self> {
        let full = tokio::sync::watch::Sender::new(false);
        Arc::new(Self { now: AtomicUsize::new(0), most: AtomicUsize::new(0), wanted, full })
    }
}

#[async_trait]
impl Model for Crowd {
    async fn request_reply(&self, _: ModelRequest, _: &dyn DeltaSink) -> Result<ModelReply, Error> {
        let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
        if now == self.wanted {
            self.full.send_replace(true);
        }
        let mut full = self.full.subscribe();
        full.wait_for(|full| *full).await.expect("the model lives");
        self.now.fetch_sub(1, Ordering::SeqCst);
        Ok(say("done"))
    }
}

fn places(count: usize) -> NonZeroUsize {
    NonZeroUsize::new(count).expect("more than zero")
}

/// The plan of an agent without tools.
fn small(world: &World) -> Plan {
    let mut plan = plan(&world.repo());
    plan.agent_mut().expect("an agent").tools.clear();
    plan
}

/// Waits until all of these runs have this status.
async fn until(world: &World, runs: &[RunId], status: RunStatus) {
    let mut changes = forge_ports::Journal::watch(&world.store, forge_ports::journal::WatchScope::All);
    loop {
        changes.borrow_and_update();
        let mut all = true;
        for run in runs {
            let state = RunState::replay(*run, &world.events(*run).await).expect("whole");
            all &= state.status == status;
        }
        if all {
            return;
        }
        changes.changed().await.expect("the store lives");
    }
}

#[tokio::test]
async fn queued_runs_are_worked_on_up_to_the_number_of_places() {
    let world = World::new();
    let model = Crowd::of(3);
    let project = world.project(&world.store, model.clone());
    let mut runs = Vec::new();
    for _ in 0..7 {
        runs.push(world.create(&project, &small(&world)).await);
    }
    let workers = project.workers(places(3));
    let stop = Notify::new();
    tokio::join!(workers.run(stop.notified(), GRACE), async {
        until(&world, &runs, RunStatus::Completed).await;
        stop.notify_one();
    });
    assert_eq!(model.most.load(Ordering::SeqCst), 3);
    assert_eq!(world.store.queued_count().await.expect("the queue"), 0);
}

#[tokio::test]
async fn one_place_is_enough_for_a_parent_and_its_children() {
    let world = World { decide: decider(), ..World::on(MemoryStore::new()) };
    let model = Brain::new(|_, _| Ok(say("done")));
    let project = world.project(&world.store, Arc::new(model));
    let run = world.create(&project, &pipeline(&world, &[("a", &[]), ("b", &["a"])])).await;
    let workers = project.workers(places(1));
    let stop = Notify::new();
    tokio::join!(workers.run(stop.notified(), GRACE), async {
        until(&world, &[run], RunStatus::Completed).await;
        stop.notify_one();
    });
}

#[tokio::test]
async fn workers_that_stop_wait_for_the_runs_in_progress_and_start_no_other() {
    let world = World::new();
    let model = Crowd::of(2);
    let project = world.project(&world.store, model.clone());
    let first = world.create(&project, &small(&world)).await;
    let second = world.create(&project, &small(&world)).await;
    let workers = project.workers(places(1));
    let stop = Notify::new();
    let mut changes = forge_ports::Journal::watch(&world.store, forge_ports::journal::WatchScope::All);
    tokio::join!(workers.run(stop.notified(), GRACE), async {
        while model.now.load(Ordering::SeqCst) == 0 {
            changes.changed().await.expect("the store lives");
        }
        stop.notify_one();
        tokio::task::yield_now().await;
        model.full.send_replace(true);
    });
    until(&world, &[first], RunStatus::Completed).await;
    let state = RunState::replay(second, &world.events(second).await).expect("whole");
    assert_eq!(state.status, RunStatus::Pending);
}

#[tokio::test]
async fn a_run_that_is_abandoned_after_the_grace_is_continued_by_others() {
    let world = World::new();
    let project = world.project(&world.store, Crowd::of(usize::MAX));
    let run = world.create(&project, &small(&world)).await;
    let stop = Notify::new();
    let workers = project.workers(places(1));
    tokio::join!(workers.run(stop.notified(), Duration::ZERO), async {
        until(&world, &[run], RunStatus::Running).await;
        stop.notify_one();
    });
    assert_eq!(world.store.holder(run).await.expect("the queue"), None);
    let other = world.project(&world.store.reopen(), Arc::new(Brain::new(|_, _| Ok(say("done")))));
    let stop = Notify::new();
    let workers = other.workers(places(1));
    tokio::join!(workers.run(stop.notified(), GRACE), async {
        until(&world, &[run], RunStatus::Completed).await;
        stop.notify_one();
    });
}

/// Finds the engine of a project that can't be opened at first.
struct OpensLater {
    engine: RunEngine,
    asked: AtomicUsize,
}

#[async_trait]
impl EngineSource for OpensLater {
    async fn engine_for(&self, run: RunId) -> Result<RunEngine, forge_engine::Error> {
        match self.asked.fetch_add(1, Ordering::SeqCst) {
            0 => Err(forge_engine::Error::NoSuchRun { id: run.to_string() }),
            _ => Ok(self.engine.clone()),
        }
    }
}

#[tokio::test]
async fn a_run_of_a_project_that_can_not_be_opened_is_tried_again_later() {
    let world = World::new();
    let project = world.project(&world.store, Arc::new(Brain::new(|_, _| Ok(say("done")))));
    let run = world.create(&project, &small(&world)).await;
    let engine = RunEngine::new(project.parts().clone(), "test:1".to_owned());
    let engines = Arc::new(OpensLater { engine, asked: AtomicUsize::new(0) });
    let begun = world.clock.now();
    let workers = project.forge().workers(engines.clone(), places(1));
    let stop = Notify::new();
    tokio::join!(workers.run(stop.notified(), GRACE), async {
        until(&world, &[run], RunStatus::Completed).await;
        stop.notify_one();
    });
    assert_eq!(engines.asked.load(Ordering::SeqCst), 2);
    assert!(world.clock.now() >= begun.after(Duration::from_secs(10)), "not at once");
}

#[tokio::test]
async fn a_parked_run_goes_on_by_itself_at_its_time_and_by_a_command() {
    let world = World::new();
    let busy = || crate::model::failure(ErrorKind::RateLimit, Some(Duration::from_secs(3_600)));
    let model = Brain::replies(vec![Err(busy()), Ok(say("done"))]);
    let project = world.project(&world.store, Arc::new(model));
    let run = world.create(&project, &small(&world)).await;
    let other = world.create(&project, &small(&world)).await;
    project.send_command(other, RunCommand::Pause).await.expect("it is kept");
    let workers = project.workers(places(1));
    let stop = Notify::new();
    tokio::join!(workers.run(stop.notified(), GRACE), async {
        until(&world, &[run, other], RunStatus::Waiting).await;
        project.send_command(other, RunCommand::Resume { limits: None }).await.expect("it is sent");
        until(&world, &[other], RunStatus::Completed).await;
        world.clock.advance(Duration::from_secs(3_600));
        until(&world, &[run], RunStatus::Completed).await;
        stop.notify_one();
    });
}
