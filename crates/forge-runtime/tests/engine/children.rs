//! Runs that start other runs: a second decider, whose effects are child runs.

use crate::harness::{World, assert_one_outcome_per_intent, plan};
use crate::model::{Brain, say};
use forge_policy::lifecycle::decide_with;
use forge_policy::{DecisionInput, agent};
use forge_ports::model::{DeltaSink, Error};
use forge_ports::{Journal as _, Ledger as _, Model, Queue as _, async_trait};
use forge_runtime::{DecideFn, RunDetails};
use forge_testkit::memory::{AppendFault, AppendMoment, AppendPoint, MemoryStore};
use forge_testkit::scale;
use forge_types::*;
use std::sync::{Arc, Mutex};

/// A graph: each node with those before it.
type Graph = &'static [(&'static str, &'static [&'static str])];

/// Two nodes at the same time, then one that needs both.
const DIAMOND: Graph = &[("a", &[]), ("b", &[]), ("c", &["a", "b"])];

/// Starts each node once those before it have completed, and ends with the last.
fn next_nodes(input: DecisionInput<'_>) -> Decision {
    let Work::Pipeline(pipeline) = &input.plan.work else { panic!("no pipeline") };
    let state = input.state;
    let completed = |name: &String| {
        let end = state.children.get(name).and_then(|child| child.end.as_ref());
        end.is_some_and(|end| end.status == RunStatus::Completed)
    };
    let mut decision = Decision::default();
    for node in &pipeline.nodes {
        if state.children.contains_key(&node.name) || !node.after.iter().all(completed) {
            continue;
        }
        let run = RunId::child(state.run, &node.name, 1);
        let child = ChildRun { run, node: node.name.clone(), attempt: 1, not_before: None };
        let effect = EffectId(state.next_effect.0 + decision.start.len() as u64);
        decision.start.push(EffectStart { effect, what: Effect::StartRun(child), reserved: None });
    }
    if decision.start.is_empty() && state.open.is_empty() {
        let all = pipeline.nodes.iter().all(|node| completed(&node.name));
        let status = if all { RunStatus::Completed } else { RunStatus::Failed };
        let error = (!all).then(|| ErrorInfo::fatal(ErrorKind::Unknown, "a node did not complete"));
        return Decision::with_finish(status, None, error);
    }
    decision
}

/// The deciders of agents and of these pipelines.
pub(crate) fn decider() -> DecideFn {
    Arc::new(|input| {
        decide_with(input, |input| match input.plan.agent() {
            Some(plan) => agent::next_step(input, plan),
            None => next_nodes(input),
        })
    })
}

/// The plan of a pipeline; an agent of it has no tools, so it needs no sandbox.
pub(crate) fn pipeline(world: &World, graph: Graph) -> Plan {
    let plan = plan(&world.repo());
    let mut agent = plan.agent().expect("an agent").agent.clone();
    agent.tools.clear();
    let node = |(name, after): &(&str, &[&str])| PipelineNode {
        name: (*name).to_owned(),
        task: format!("task of {name}"),
        after: after.iter().map(|name| (*name).to_owned()).collect(),
        sandbox: plan.shared.sandbox.clone(),
        agent: agent.clone(),
    };
    let nodes = graph.iter().map(node).collect();
    Plan::new(plan.shared.clone(), Work::Pipeline(PipelinePlan { nodes }))
}

fn world(store: MemoryStore) -> World {
    World { decide: decider(), ..World::on(store) }
}

/// A model that says its task, and looks who holds the parent meanwhile.
struct Observer {
    store: MemoryStore,
    parent: Mutex<Option<RunId>>,
    seen: Mutex<Vec<(String, Option<String>)>>,
}

fn task_of(request: &ModelRequest) -> String {
    request.messages[0].text_parts().filter_map(|text| text.inline_text()).collect()
}

#[async_trait]
impl Model for Observer {
    async fn request_reply(&self, request: ModelRequest, _: &dyn DeltaSink) -> Result<ModelReply, Error> {
        let parent = self.parent.lock().expect("no panic").expect("it is known");
        let holder = self.store.holder(parent).await.expect("it is alive");
        let task = task_of(&request);
        self.seen.lock().expect("no panic").push((task.clone(), holder));
        Ok(say(&format!("did the {task}")))
    }
}

#[tokio::test]
async fn a_parent_that_waits_for_its_children_holds_no_lease() {
    let world = world(MemoryStore::new());
    let model =
        Arc::new(Observer { store: world.store.clone(), parent: Mutex::default(), seen: Mutex::default() });
    let project = world.project(&world.store, model.clone());
    let run = world.create(&project, &pipeline(&world, DIAMOND)).await;
    *model.parent.lock().expect("no panic") = Some(run);
    let shown = project.drive(run, Arc::new(())).await.expect("it ends");
    assert_eq!(shown.state.status, RunStatus::Completed, "{:?}", shown.state.ending);
    let mut seen = model.seen.lock().expect("no panic").clone();
    assert_eq!(seen.pop(), Some(("task of c".to_owned(), None)), "the last node");
    seen.sort();
    assert_eq!(seen, [("task of a".to_owned(), None), ("task of b".to_owned(), None)]);
    check_end(&world, &shown).await;
}

/// Checks the journals and the money of a completed pipeline.
async fn check_end(world: &World, shown: &RunDetails) {
    let run = shown.state.run;
    let events = world.events(run).await;
    assert_one_outcome_per_intent(&events);
    let store = world.store.reopen();
    let (mut cost, mut children) = (Money::ZERO, 0);
    for (name, child) in &shown.state.children {
        let end = child.end.as_ref().expect("it ended");
        let events = world.events(child.run).await;
        assert_one_outcome_per_intent(&events);
        let state = RunState::replay(child.run, &events).expect("whole");
        let created = state.created.as_ref().expect("its creation");
        assert_eq!(created.parent.map(|parent| parent.run), Some(run), "{name}");
        let above = shown.state.created.as_ref().expect("its creation");
        assert_eq!((created.root, &created.correlation_id), (run, &above.correlation_id));
        let answer: String = end.answer.iter().filter_map(Payload::inline_text).collect();
        assert_eq!((answer, end.status), (format!("did the task of {name}"), RunStatus::Completed));
        assert_eq!((end.cost, end.usage), (state.cost, state.usage));
        cost = cost.plus(state.cost);
        children += 1;
    }
    assert_eq!((shown.state.cost, children), (cost, 3));
    let booked = store.balance(&format!("run:{run}")).await.expect("the ledger");
    assert_eq!((booked.spent, booked.reserved), (cost, Money::ZERO), "the parent's account");
    assert_eq!(store.inbox(run).await.expect("the inbox"), [], "no command is left");
}

fn worker() -> Arc<Brain> {
    Arc::new(Brain::new(|request, _| Ok(say(&format!("did the {}", task_of(request))))))
}

/// Works on a pipeline by a process that dies at `point`, and by a second one; returns how many appends the first tried.
async fn with_crash(point: Option<AppendPoint>) -> u64 {
    let world = world(MemoryStore::new());
    let run = world.create(&world.project(&world.store, worker()), &pipeline(&world, DIAMOND)).await;
    let hook = move |at: AppendPoint| if Some(at) == point { AppendFault::Crash } else { AppendFault::None };
    let first = world.store.reopen_with_hook(hook);
    let died = tokio::select! {
        result = async { world.project(&first, worker()).drive(run, Arc::new(())).await } => result.is_err(),
        // The process of a child dies with that of its parent.
        () = until_crashed(&first) => true,
    };
    assert_eq!(died, point.is_some(), "{point:?}");
    let project = world.project(&world.store.reopen(), worker());
    if died {
        project.drive(run, Arc::new(())).await.expect("it ends");
    }
    let shown = project.forge().run_details(run).await.expect("it is there");
    assert_eq!(shown.state.status, RunStatus::Completed, "{point:?}: {:?}", shown.state.ending);
    check_end(&world, &shown).await;
    first.append_count()
}

async fn until_crashed(store: &MemoryStore) {
    let mut changes = store.watch(forge_ports::journal::WatchScope::All);
    while !store.has_crashed() {
        changes.changed().await.expect("the store lives");
    }
}

#[tokio::test]
async fn a_crash_at_any_append_of_a_tree_loses_and_repeats_nothing() {
    let count = with_crash(None).await;
    assert!(count >= 9, "{count} appends");
    for index in (0..count).step_by(scale::sample_or_all(2, 1)) {
        for moment in [AppendMoment::Before, AppendMoment::After] {
            with_crash(Some(AppendPoint { index, moment })).await;
        }
    }
}

/// A model whose calls end only with the run.
struct Endless {
    asked: tokio::sync::Notify,
}

#[async_trait]
impl Model for Endless {
    async fn request_reply(&self, _: ModelRequest, _: &dyn DeltaSink) -> Result<ModelReply, Error> {
        self.asked.notify_one();
        std::future::pending().await
    }
}

#[tokio::test]
async fn a_cancel_ends_the_children_first() {
    let world = world(MemoryStore::new());
    let model = Arc::new(Endless { asked: tokio::sync::Notify::new() });
    let project = world.project(&world.store, model.clone());
    let run = world.create(&project, &pipeline(&world, DIAMOND)).await;
    let work = tokio::spawn({
        let project = project.clone();
        async move { project.drive(run, Arc::new(())).await }
    });
    model.asked.notified().await;
    let by = "test".to_owned();
    project.send_command(run, RunCommand::Cancel { by }).await.expect("it is sent");
    let shown = work.await.expect("no panic").expect("it ends");
    assert_eq!(shown.state.status, RunStatus::Cancelled);
    let ended = shown.state.ending.as_ref().expect("its end").at;
    for name in ["a", "b"] {
        let child = &shown.state.children[name];
        assert_eq!(child.end.as_ref().expect("it ended").status, RunStatus::Cancelled, "{name}");
        let state = RunState::replay(child.run, &world.events(child.run).await).expect("whole");
        assert!(state.ending.expect("its end").at <= ended, "{name} ended before its parent");
    }
    assert!(!shown.state.children.contains_key("c"), "nothing starts after a cancel");
    assert_one_outcome_per_intent(&world.events(run).await);
}

#[tokio::test]
async fn a_parent_whose_child_fails_learns_why() {
    let world = world(MemoryStore::new());
    let model = Brain::new(|request, _| match task_of(request).as_str() {
        "task of b" => Err(crate::model::failure(ErrorKind::Auth, None)),
        task => Ok(say(&format!("did the {task}"))),
    });
    let project = world.project(&world.store, Arc::new(model));
    let run = world.create(&project, &pipeline(&world, DIAMOND)).await;
    let shown = project.drive(run, Arc::new(())).await.expect("it ends");
    assert_eq!(shown.state.status, RunStatus::Failed);
    let end = shown.state.children["b"].end.as_ref().expect("it ended");
    assert_eq!(
        (end.status, end.error.as_ref().map(|error| error.kind)),
        (RunStatus::Failed, Some(ErrorKind::Auth))
    );
    assert!(!shown.state.children.contains_key("c"));
}

#[tokio::test]
async fn the_built_in_decider_refuses_a_pipeline() {
    let world = World::new();
    let project = world.project(&world.store, worker());
    let run = world.create(&project, &pipeline(&world, DIAMOND)).await;
    let shown = project.drive(run, Arc::new(())).await.expect("it ends");
    let error = shown.state.ending.expect("its end").error.expect("an error").message;
    assert_eq!(
        (shown.state.status, error.as_str()),
        (RunStatus::Failed, "this version of forge can't work on pipelines")
    );
}
