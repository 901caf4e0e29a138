//! Real kills: the process dies with SIGKILL at some position of a run of six steps, and `forge resume` goes on.

use crate::harness::World;
use forge_testkit::model_server::{ModelCall, ModelServer, Reply, Role, Script, SeenMessage, Shape};
use serde_json::json;
use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

const STEPS: usize = 6;
/// Positions of a run in `make test`; `make soak` takes every one.
const SAMPLE: [usize; 9] = [0, 2, 5, 9, 13, 21, 34, 47, 58];

/// A model that makes six entries, one by one, and looks before it repeats what was interrupted.
fn script() -> Script {
    Script::always(|call| {
        let whole = |m: &&SeenMessage| m.role == Role::Tool && !m.text.contains("interrupted");
        let done = call.messages.iter().filter(whole).count();
        if done == STEPS { Reply::text("Six entries.") } else { step(call, done) }
    })
}

fn step(call: &ModelCall, n: usize) -> Reply {
    let again = call.last_tool_result().is_some_and(|text| text.contains("interrupted"));
    let look = if again { format!("grep -qx entry{n} log.txt || ") } else { String::new() };
    Reply::call("run_shell", json!({"command": format!("{look}echo entry{n} >> log.txt")}))
}

/// Runs until `position` events were told, kills the process, resumes to the end. Gives whether it was killed.
fn killed_at(position: usize) -> bool {
    let mut world = World::new();
    let server = ModelServer::start(script());
    let flags = world.uses(&server, Shape::OpenAi);
    let words = [&["run", "Make six entries", "--output-format", "jsonl"][..], &flags].concat();
    let mut child = world
        .command(&words)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the program starts");
    let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let told = lines.take(position).count();
    let killed = told == position && child.kill().is_ok();
    child.wait().expect("it ends");
    let Some(run) = world.runs().first().cloned() else {
        // It died before the run was stored: nothing was promised, nothing was done.
        assert_eq!(server.request_count(), 0);
        return true;
    };
    let id = run["run_id"].as_str().expect("an id").to_owned();
    if run["status"] != "completed" {
        world.forge(&["resume", &id]).exits(0).shows(&["Six entries."]);
    }
    let expected: String = (0..STEPS).map(|n| format!("entry{n}\n")).collect();
    assert_eq!(world.read("log.txt"), expected, "killed after {position} events");
    nothing_happened_twice(&world, &id, position);
    killed
}

/// Each call has one result; only one that was in flight may have been interrupted.
fn nothing_happened_twice(world: &World, id: &str, position: usize) {
    let tools = world.tools(id);
    let good = tools.iter().filter(|tool| *tool == "run_shell:true").count();
    assert_eq!(good, STEPS, "killed after {position} events: {tools:?}");
    assert!(tools.len() <= STEPS + 1, "killed after {position} events: {tools:?}");
    let events = world.events(id);
    assert!(events.iter().zip(1_u64..).all(|(event, n)| event["seq"] == n), "a gap after {position} events");
}

#[test]
fn a_run_that_is_killed_anywhere_goes_on_without_doing_anything_twice() {
    let all = all_positions();
    let positions: Vec<_> = if soak() { (0..=all).collect() } else { SAMPLE.to_vec() };
    let killed = positions.iter().filter(|position| killed_at(**position)).count();
    assert!(
        killed * 2 > positions.len(),
        "only {killed} of {} processes were killed in time",
        positions.len()
    );
}

/// Events of a run that nobody kills.
fn all_positions() -> usize {
    let mut world = World::new();
    let server = ModelServer::start(script());
    let flags = world.uses(&server, Shape::OpenAi);
    world
        .run(&[&flags[..], &["--output-format", "jsonl"]].concat(), "Make six entries")
        .exits(0)
        .out
        .lines()
        .count()
}

#[allow(clippy::disallowed_methods, reason = "the test runner says how much is wanted")]
fn soak() -> bool {
    std::env::var_os("FORGE_SOAK").is_some()
}
