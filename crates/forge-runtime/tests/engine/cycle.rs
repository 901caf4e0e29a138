//! Commands, failures, live frames and secrets in the life of a run.

use crate::harness::{Watched, World, assert_one_outcome_per_intent, plan};
use crate::model::{Brain, call, failure, say, shell};
use forge_ports::Clock as _;
use forge_runtime::{Delivery, Error, Redactor};
use forge_testkit::memory::MemoryStore;
use forge_types::*;
use std::sync::Arc;
use std::time::Duration;

async fn until(world: &World, run: RunId, reached: impl Fn(&RunState) -> bool) {
    use forge_ports::Journal as _;
    let store = world.store.reopen();
    let mut changes = store.watch(forge_ports::journal::WatchScope::All);
    loop {
        changes.borrow_and_update();
        let events = world.events(run).await;
        if reached(&RunState::replay(run, &events).expect("whole")) {
            return;
        }
        changes.changed().await.expect("the store is there");
    }
}

/// A plan whose commands work where the test sees what they do.
fn in_place(world: &World) -> Plan {
    let mut plan = plan(&world.repo());
    plan.shared.sandbox.mode = WorkspaceMode::Inplace;
    plan
}

fn runs_a_tool(state: &RunState) -> bool {
    state.open.values().any(|open| matches!(open.what, Effect::RunTool(_)))
}

#[tokio::test]
async fn cancelling_kills_the_running_command() {
    let world = World::new();
    let project =
        world.project(&world.store, Arc::new(Brain::replies(vec![Ok(shell("echo $$ > pid; sleep 600"))])));
    let run = world.create(&project, &in_place(&world)).await;
    let driver = tokio::spawn({
        let project = project.clone();
        async move { project.drive(run, Arc::new(())).await }
    });
    until(&world, run, runs_a_tool).await;
    while world.file("pid").trim().is_empty() {
        tokio::task::yield_now().await;
    }
    let delivery = project.send_command(run, RunCommand::Cancel { by: "test".into() }).await.expect("sent");
    assert!(matches!(delivery, Delivery::Sent { .. }), "{delivery:?}");
    let shown = driver.await.expect("no panic").expect("it ends");
    assert_eq!(shown.state.status, RunStatus::Cancelled);
    assert_one_outcome_per_intent(&world.events(run).await);
    let pid = world.file("pid").trim().to_owned();
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    assert!(stat.is_empty() || stat.contains(" Z "), "the command still runs: {stat}");
}

#[tokio::test]
async fn a_run_that_nobody_works_on_is_cancelled_at_once() {
    let world = World::new();
    let project = world.project(&world.store, Arc::new(Brain::careful()));
    let run = world.create(&project, &plan(&world.repo())).await;
    let delivery =
        project.send_command(run, RunCommand::Cancel { by: "test".into() }).await.expect("applied");
    assert_eq!(delivery, Delivery::Applied { status: RunStatus::Cancelled });
    let error = project.resume(run, None, Arc::new(())).await.expect_err("it has ended");
    assert!(matches!(error, Error::WrongState { .. }), "{error}");
}

#[tokio::test]
async fn a_lease_that_expires_is_renewed_while_a_run_is_driven() {
    let lifetime = Duration::from_secs(600);
    let mut world = World::new();
    world.store = MemoryStore::with_expiring_leases(world.clock.clone(), lifetime);
    let project = world.project(&world.store, Arc::new(Brain::replies(vec![Ok(shell("sleep 600"))])));
    let run = world.create(&project, &plan(&world.repo())).await;
    let driver = tokio::spawn({
        let project = project.clone();
        async move { project.drive(run, Arc::new(())).await }
    });
    until(&world, run, runs_a_tool).await;
    let other = world.project(&world.store.reopen(), Arc::new(Brain::careful()));
    for _ in 0..9 {
        world.clock.advance(lifetime / 3);
        let renewed = world.clock.now().after(lifetime);
        let renewal = async {
            while world.store.lease_end(run) != Some(renewed) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), renewal).await.expect("the lease is renewed");
    }
    let error = other.resume(run, None, Arc::new(())).await.expect_err("it is held");
    assert!(error.to_string().contains("is active in"), "{error}");
    let written = world.events(run).await.len();
    // As after a suspend: the heartbeat comes too late.
    world.clock.advance(lifetime);
    let error = driver.await.expect("no panic").expect_err("another process may work on the run now");
    assert!(error.to_string().starts_with("this process no longer works on run"), "{error}");
    assert_eq!(world.events(run).await.len(), written);
    let delivery =
        other.send_command(run, RunCommand::Cancel { by: "other".into() }).await.expect("it is free");
    assert_eq!(delivery, Delivery::Applied { status: RunStatus::Cancelled });
}

#[tokio::test]
async fn a_process_that_loses_its_lease_stops_and_writes_nothing_more() {
    let world = World::new();
    let project = world.project(&world.store, Arc::new(Brain::replies(vec![Ok(shell("sleep 600"))])));
    let run = world.create(&project, &plan(&world.repo())).await;
    let driver = tokio::spawn({
        let project = project.clone();
        async move { project.drive(run, Arc::new(())).await }
    });
    until(&world, run, runs_a_tool).await;
    let written = world.events(run).await.len();
    world.store.expire_lease(run);
    let error = driver.await.expect("no panic").expect_err("another process may work on the run now");
    assert_eq!(
        error.to_string(),
        format!("this process no longer works on run {run}: another one has taken it over")
    );
    assert_eq!(world.events(run).await.len(), written);
    let other = world.project(&world.store.reopen(), Arc::new(Brain::careful()));
    let delivery =
        other.send_command(run, RunCommand::Cancel { by: "other".into() }).await.expect("it is free");
    assert_eq!(delivery, Delivery::Applied { status: RunStatus::Cancelled });
    assert_one_outcome_per_intent(&world.events(run).await);
}

#[tokio::test]
async fn of_two_processes_one_works_on_a_run() {
    let world = World::new();
    let project = world.project(&world.store, Arc::new(Brain::replies(vec![Ok(shell("sleep 600"))])));
    let run = world.create(&project, &plan(&world.repo())).await;
    let driver = tokio::spawn({
        let project = project.clone();
        async move { project.drive(run, Arc::new(())).await }
    });
    until(&world, run, runs_a_tool).await;
    let other = world.project(&world.store.reopen(), Arc::new(Brain::careful()));
    let error = other.resume(run, None, Arc::new(())).await.expect_err("it is held");
    assert!(error.to_string().contains("is active in"), "{error}");
    other.send_command(run, RunCommand::Cancel { by: "other".into() }).await.expect("sent");
    assert_eq!(driver.await.expect("no panic").expect("it ends").state.status, RunStatus::Cancelled);
}

#[tokio::test]
async fn a_message_joins_the_running_conversation() {
    let world = World::new();
    let brain = Arc::new(Brain::new(|request, n| {
        let told = request
            .messages
            .iter()
            .flat_map(|message| message.text_parts())
            .any(|text| text.inline_text() == Some("also b"));
        Ok(if n == 0 {
            shell("while [ ! -f go ]; do :; done")
        } else {
            say(if told { "with b" } else { "without" })
        })
    }));
    let project = world.project(&world.store, brain);
    let run = world.create(&project, &in_place(&world)).await;
    let driver = tokio::spawn({
        let project = project.clone();
        async move { project.drive(run, Arc::new(())).await }
    });
    until(&world, run, runs_a_tool).await;
    project.send_command(run, RunCommand::Steer { text: "also b".into() }).await.expect("sent");
    until(&world, run, |state| !state.steering.is_empty()).await;
    std::fs::write(world.repo().join("go"), "").expect("a file");
    assert_eq!(driver.await.expect("no panic").expect("it ends").summary.answer, "with b");
}

#[tokio::test]
async fn failures_are_tried_again_and_a_long_wait_parks_the_run() {
    let world = World::new();
    let day = Duration::from_secs(86_400);
    let brain = Brain::replies(vec![
        Err(failure(ErrorKind::Overloaded, None)),
        Err(failure(ErrorKind::RateLimit, Some(Duration::from_secs(5)))),
        Err(failure(ErrorKind::RateLimit, Some(day))),
        Ok(say("done")),
    ]);
    let project = world.project(&world.store, Arc::new(brain));
    let run = world.create(&project, &plan(&world.repo())).await;
    let shown = project.drive(run, Arc::new(())).await.expect("it parks");
    assert_eq!((shown.state.status, shown.state.waiting_for), (RunStatus::Waiting, Some(WaitingFor::Retry)));
    let shown = project.drive(run, Arc::new(())).await.expect("it still waits");
    assert_eq!(shown.state.status, RunStatus::Waiting);
    world.clock.advance(day);
    let shown = project.drive(run, Arc::new(())).await.expect("the time has come");
    assert_eq!((shown.state.status, shown.summary.answer.as_str()), (RunStatus::Completed, "done"));
}

#[tokio::test]
async fn a_wrong_key_ends_the_run_with_the_providers_words() {
    let world = World::new();
    let shown = world.run(Brain::replies(vec![Err(failure(ErrorKind::Auth, None))]), |_| {}).await;
    assert_eq!(shown.state.status, RunStatus::Failed);
    assert_eq!(shown.summary.error.expect("an error").to_string(), "the server said auth (auth)");
}

#[tokio::test]
async fn secrets_reach_neither_the_journal_nor_the_screen() {
    let world = World::new();
    let secret = "sk-very-secret-value";
    std::fs::write(world.repo().join("leak"), secret).expect("a file");
    let brain = Brain::replies(vec![
        Ok(call("c", "read_file", r#"{"path":"leak"}"#)),
        Ok(shell(&format!("echo {secret} >/dev/null"))),
        Ok(say(&format!("it says {secret} there"))),
    ]);
    let project = world.project_with(&world.store, Arc::new(brain), Redactor::new([secret]));
    let run = world.create(&project, &plan(&world.repo())).await;
    let watched = Arc::new(Watched::default());
    let shown = project.drive(run, watched.clone()).await.expect("it ends");
    assert_eq!(shown.summary.answer, "it says ***REDACTED*** there");
    assert_eq!(*watched.text.lock().expect("no panic"), "it says ***REDACTED*** there");
    let journal = serde_json::to_string(&world.events(run).await).expect("JSON");
    assert!(!journal.contains(secret));
    for name in ["run.json", "messages.jsonl", "events.jsonl", "summary.json"] {
        let text = std::fs::read_to_string(shown.folder.join(name)).expect(name);
        assert!(!text.contains(secret), "{name}");
    }
}

#[tokio::test]
async fn long_results_are_stored_once_and_come_back_whole() {
    let world = World::new();
    let long = "x".repeat(50_000);
    std::fs::write(world.repo().join("long"), &long).expect("a file");
    let brain = Arc::new(Brain::replies(vec![
        Ok(call("c", "read_file", r#"{"path":"long"}"#)),
        Ok(call("d", "list_directory", "{}")),
        Ok(say("seen")),
    ]));
    let project = world.project(&world.store, brain.clone());
    let run = world.create(&project, &plan(&world.repo())).await;
    let shown = project.drive(run, Arc::new(())).await.expect("it ends");
    let attached = std::fs::read_to_string(shown.folder.join("files/c.txt")).expect("a file of its own");
    assert!(attached.contains(&long));
    let journal = serde_json::to_string(&world.events(run).await).expect("JSON");
    assert!(journal.len() < 20_000, "the journal holds references: {}", journal.len());
    let requests = brain.requests.lock().expect("no panic");
    let last = requests.last().expect("requests");
    let seen = last.messages.iter().flat_map(|m| &m.parts).any(
        |part| matches!(&part.kind, PartKind::Result(result) if result.content.inline_text().unwrap_or_default().contains(&long)),
    );
    assert!(seen, "the model sees the whole text");
}

#[tokio::test]
async fn what_is_shown_live_is_what_a_follower_reads_later() {
    let world = World::new();
    let project = world.project(&world.store, Arc::new(Brain::careful()));
    let run = world.create(&project, &plan(&world.repo())).await;
    let watched = Arc::new(Watched::default());
    project.drive(run, watched.clone()).await.expect("it ends");
    let mut follow = project.forge().follow(run, 0);
    let mut read = Vec::new();
    while let Some(event) = follow.next().await.expect("readable") {
        read.push(event);
    }
    let live = watched.events.lock().expect("no panic");
    assert_eq!(read.last(), live.last());
    assert!(read.ends_with(&live), "the run was created before anybody watched");
    assert!(read.iter().zip(1..).all(|(event, n)| event.seq == n), "gap-free from 1");
}
