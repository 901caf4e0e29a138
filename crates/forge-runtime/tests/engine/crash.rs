//! A process may die before and after every append; whoever resumes the run ends it as if nothing had happened.

use crate::harness::{World, assert_one_outcome_per_intent, plan};
use crate::model::{Brain, call, say};
use forge_testkit::memory::{AppendFault, AppendMoment, AppendPoint, MemoryStore};
use forge_testkit::scale;
use forge_types::*;
use std::sync::Arc;

/// What the steps leave; the tree that git knows holds the other three.
const LEFT: [(&str, &str); 4] = [
    ("a.txt", "B"),
    ("commits", "step c3c989babbe7986e40a9eac4bd93397e9df62d5a\n"),
    ("count", "1\n"),
    ("log.txt", "one\ntwo\n"),
];

/// Runs the steps with a process that dies at `point` and one that resumes; gives the journal.
async fn run_with_crash(
    mode: WorkspaceMode,
    point: Option<AppendPoint>,
    second: Option<AppendPoint>,
) -> (World, Vec<Event>) {
    let crash = move |wanted: Option<AppendPoint>| {
        move |at: AppendPoint| if Some(at) == wanted { AppendFault::Crash } else { AppendFault::None }
    };
    let world = World::on(MemoryStore::new());
    let project = world.project(&world.store, Arc::new(Brain::careful()));
    let mut plan = plan(&world.repo());
    plan.shared.sandbox.mode = mode;
    let run = world.create(&project, &plan).await;
    for wanted in [point, second, None] {
        let process = world.store.reopen_with_hook(crash(wanted));
        let project = world.project(&process, Arc::new(Brain::careful()));
        let result = project.drive(run, Arc::new(())).await;
        assert_eq!(result.is_err(), process.has_crashed(), "{point:?} {second:?}: {result:?}");
        if let Ok(shown) = result {
            assert_eq!(
                shown.state.status,
                RunStatus::Completed,
                "{point:?} {second:?}: {:?}",
                shown.state.ending
            );
            break;
        }
    }
    let events = world.events(run).await;
    (world, events)
}

fn assert_as_if_nothing_had_happened(world: &World, events: &[Event], label: &str) {
    for (file, text) in LEFT {
        assert_eq!(world.file(file), text, "{label}: {file}");
    }
    let names = std::fs::read_dir(world.repo()).expect("it is there").flatten();
    let names = names.filter(|entry| entry.file_name() != ".git").count();
    assert_eq!(names, LEFT.len(), "{label}: nothing else is left");
    assert_one_outcome_per_intent(events);
    let last = events.last().expect("events");
    let EventKind::Finished { files_modified, .. } = &last.kind else { panic!("{label}: {last:?}") };
    assert_eq!(files_modified, &LEFT.map(|(file, _)| file), "{label}");
    assert!(RunState::replay(last.run, events).expect("whole").is_consistent(), "{label}");
}

/// Appends of an undisturbed run by the process that drives it.
async fn appends() -> u64 {
    let world = World::new();
    let project = world.project(&world.store, Arc::new(Brain::careful()));
    let run = world.create(&project, &plan(&world.repo())).await;
    let process = world.store.reopen();
    world.project(&process, Arc::new(Brain::careful())).drive(run, Arc::new(())).await.expect("it ends");
    process.append_count()
}

#[tokio::test]
async fn a_crash_before_or_after_any_append_loses_and_repeats_nothing() {
    let count = appends().await;
    // The claim, then two appends for each of eight steps, then the end.
    assert_eq!(count, 18, "one append per turn of the loop");
    for index in 0..count {
        for moment in [AppendMoment::Before, AppendMoment::After] {
            let point = AppendPoint { index, moment };
            let (world, events) = run_with_crash(WorkspaceMode::Transaction, Some(point), None).await;
            assert_as_if_nothing_had_happened(&world, &events, &format!("{point:?}"));
        }
    }
}

#[tokio::test]
async fn a_crash_of_a_run_that_works_in_the_repository_itself_is_no_different() {
    let count = appends().await;
    for index in (0..count).step_by(scale::sample_or_all(3, 1)) {
        for moment in [AppendMoment::Before, AppendMoment::After] {
            let point = AppendPoint { index, moment };
            let (world, events) = run_with_crash(WorkspaceMode::Inplace, Some(point), None).await;
            assert_as_if_nothing_had_happened(&world, &events, &format!("in place, {point:?}"));
        }
    }
}

#[tokio::test]
async fn a_crash_while_resuming_is_no_different() {
    let count = appends().await;
    let (step, seconds) = scale::sample_or_all((3, 3), (1, count + 1));
    for index in (0..count).step_by(step) {
        for second in 0..seconds {
            let point = AppendPoint { index, moment: AppendMoment::After };
            let again = AppendPoint { index: second, moment: AppendMoment::Before };
            let (world, events) = run_with_crash(WorkspaceMode::Transaction, Some(point), Some(again)).await;
            assert_as_if_nothing_had_happened(&world, &events, &format!("{point:?} then {again:?}"));
        }
    }
}

#[tokio::test]
async fn a_call_to_the_outside_that_died_with_its_process_is_not_repeated() {
    let world = World::new();
    let model = || {
        Arc::new(Brain::new(|request, _| {
            let answered = request.messages.len() > 1;
            Ok(if answered { say("done") } else { call("pr", "create_pr", r#"{"title":"t","body":"b"}"#) })
        }))
    };
    let run = world.create(&world.project(&world.store, model()), &plan(&world.repo())).await;
    // Dies once the intent of the call is durable.
    let dead = world.store.reopen_with_hook(|at| match at {
        AppendPoint { index: 1, moment: AppendMoment::After } => AppendFault::Crash,
        _ => AppendFault::None,
    });
    world.project(&dead, model()).drive(run, Arc::new(())).await.expect_err("it dies");
    let shown =
        world.project(&world.store.reopen(), model()).drive(run, Arc::new(())).await.expect("it ends");
    assert_eq!(shown.state.status, RunStatus::Completed);
    let events = world.events(run).await;
    let keys: Vec<_> = events
        .iter()
        .filter_map(|event| match &event.kind {
            EventKind::Intended { key: Some(key), .. } => Some(key.clone()),
            _ => None,
        })
        .collect();
    assert_eq!(keys.len(), 1, "one intent, with a key: {keys:?}");
    assert!(
        events
            .iter()
            .any(|event| matches!(&event.kind, EventKind::Settled { outcome: Outcome::Unknown { .. }, .. }))
    );
    assert_one_outcome_per_intent(&events);
}

#[tokio::test]
async fn every_request_extends_the_one_before() {
    let world = World::new();
    let brain = Arc::new(Brain::careful());
    let project = world.project(&world.store, brain.clone());
    let run = world.create(&project, &plan(&world.repo())).await;
    project.drive(run, Arc::new(())).await.expect("it ends");
    let requests = brain.requests.lock().expect("no panic");
    assert_eq!(requests.len(), 9);
    for pair in requests.windows(2) {
        assert!(pair[1].messages.starts_with(&pair[0].messages));
        assert_eq!((&pair[0].system, &pair[0].tools), (&pair[1].system, &pair[1].tools));
    }
}

#[tokio::test]
async fn a_long_run_goes_on_from_its_checkpoint() {
    use crate::model::{call, say};
    use forge_ports::Journal as _;
    let turns = 70;
    let brain = || {
        Brain::new(move |request, _| {
            let results = request.messages.iter().filter(|message| message.role == Role::Tool).count();
            Ok(if results < turns { call("c", "list_directory", "{}") } else { say("done") })
        })
    };
    let world = World::new();
    let project = world.project(&world.store, Arc::new(brain()));
    let mut plan = plan(&world.repo());
    plan.shared.limits.max_iterations = 100;
    let run = world.create(&project, &plan).await;
    let crash = |at: AppendPoint| if at.index == 130 { AppendFault::Crash } else { AppendFault::None };
    let process = world.store.reopen_with_hook(crash);
    assert!(world.project(&process, Arc::new(brain())).drive(run, Arc::new(())).await.is_err());
    let checkpoint =
        world.store.reopen().latest_checkpoint(run).await.expect("a store").expect("a checkpoint");
    assert!(checkpoint.seq > Seq(190), "{}", checkpoint.seq);
    let shown = world.project(&world.store.reopen(), Arc::new(brain())).drive(run, Arc::new(())).await;
    let shown = shown.expect("it ends");
    assert_eq!((shown.state.status, shown.state.iterations), (RunStatus::Completed, 71));
    let events = world.events(run).await;
    assert_one_outcome_per_intent(&events);
    assert!(RunState::replay(run, &events).expect("whole").is_consistent());
}
