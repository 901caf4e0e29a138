//! Several terminals on one data folder, signals, killed processes.

use crate::harness::{Running, World, until};
use forge_testkit::model_server::{Gate, MockReply, ModelServer, ReplyScript, VendorFormat};
use rustix::process::Signal;
use serde_json::json;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);

/// A run whose second request is held in the middle of its answer, the first time it is asked.
struct Held {
    world: World,
    server: ModelServer,
    gate: Gate,
    flags: Vec<&'static str>,
}

fn append(word: &str) -> MockReply {
    let command = json!({"command": format!("echo {word} >> log.txt")});
    MockReply::text("I write.").and_call("", "run_shell", command)
}

fn held() -> Held {
    let gate = Gate::new();
    let (held, mut asked) = (gate.clone(), 0);
    let script = ReplyScript::always(move |call| match call.turn_index() {
        0 => append("one"),
        1 => {
            asked += 1;
            if asked == 1 { append("two").with_gate(&held) } else { append("two") }
        }
        _ => MockReply::text("Done."),
    });
    let server = ModelServer::start(script);
    let mut world = World::new();
    let flags = world.uses(&server, VendorFormat::OpenAi);
    Held { world, server, gate, flags }
}

impl Held {
    /// Starts the run and waits until its second request is on the wire.
    fn start(&self) -> (Running, String) {
        let running = self.world.start(&[&["run", "Write two lines"][..], &self.flags].concat());
        assert!(self.server.wait_for_requests(2, LONG), "the second request did not come");
        (running, self.world.only_run())
    }

    fn status(&self, run: &str) -> String {
        let status = self.world.forge(&["status", run, "--json"]).exits(0).json();
        status["status"].as_str().expect("a status").to_owned()
    }
}

#[test]
fn run_follow_and_cancel_from_three_terminals() {
    let held = held();
    let (running, id) = held.start();
    let follower = held.world.start(&["logs", &id, "-f"]);
    held.world.forge(&["status", &id]).exits(0).shows(&["running", "worker"]);
    held.world.forge(&["cancel", &id]).exits(0).shows(&["cancelled"]);
    running.wait().exits(4).shows(&["cancelled"]);
    follower.wait().exits(0).shows(&["run_shell echo one", "cancelled after"]);
    assert!(!held.world.repo().join("log.txt").exists(), "what a cancelled run did is not applied");
    held.world.forge(&["diff", &id]).exits(0).shows(&["+++ b/log.txt", "+one"]);
    held.world.forge(&["cancel", &id]).exits(2).says(&["cancelled"]);
    held.world.forge(&["resume", &id]).exits(2).says(&["can't be resumed"]);
}

#[test]
fn a_follower_sees_the_same_events_as_the_run_itself() {
    let held = held();
    let running = held.world.start(&[&["run", "x", "--output-format", "jsonl"][..], &held.flags].concat());
    assert!(held.server.wait_for_requests(2, LONG));
    let follower = held.world.start(&["logs", &held.world.only_run(), "-f", "--json"]);
    held.gate.open();
    let (own, followed) = (running.wait().exits(0), follower.wait().exits(0));
    assert_eq!(own.out, followed.out);
}

#[test]
fn ctrl_c_cancels_in_order() {
    for signal in [Signal::INT, Signal::TERM] {
        let held = held();
        let (running, id) = held.start();
        running.signal(signal);
        let done = running.wait().exits(130).says(&["cancelling"]);
        assert!(done.out.contains("cancelled"), "{}", done.out);
        assert_eq!(held.status(&id), "cancelled");
    }
}

#[test]
fn ctrl_c_ends_a_running_command_and_all_it_started() {
    let mut world = World::new();
    let command = json!({"command": "echo started > started; sleep 987654 & sleep 987654"});
    let server = ModelServer::start(ReplyScript::from_replies([
        MockReply::call("run_shell", command),
        MockReply::text("Done."),
    ]));
    let flags = world.uses(&server, VendorFormat::OpenAi);
    let running = world.start(&[&["run", "x"][..], &flags].concat());
    world.wait_for_file(&started(&world), "started");
    running.signal(Signal::INT);
    running.wait().exits(130);
    assert!(!somebody_runs("987654"), "the command goes on after its run has ended");
}

/// The only run, once it is there.
fn started(world: &World) -> String {
    until("the run", || match world.runs().as_slice() {
        [run] => Some(run["run_id"].as_str().expect("an id").to_owned()),
        _ => None,
    })
}

/// Whether any process of this machine has these words in its command line.
fn somebody_runs(words: &str) -> bool {
    let all = std::fs::read_dir("/proc").expect("/proc");
    all.flatten().any(|entry| {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        line.contains(&format!("sleep {words}")) && line.starts_with("sleep")
    })
}

#[test]
fn a_second_signal_ends_at_once() {
    let held = held();
    let (running, _id) = held.start();
    running.signal(Signal::INT);
    running.signal(Signal::INT);
    running.wait().exits(130);
}

#[test]
fn a_killed_run_is_free_at_once_and_goes_on_where_it_was() {
    let held = held();
    let (running, id) = held.start();
    running.signal(Signal::KILL);
    assert_eq!(running.wait().code, None);
    held.world.forge(&["status", &id]).exits(0).shows(&["its process ended", &format!("forge resume {id}")]);
    held.world.forge(&["logs", &id, "-f"]).exits(0).says(&["forge resume"]);
    held.world.forge(&["resume", &id]).exits(0).shows(&["Done.", "completed"]);
    assert_eq!(held.world.read("log.txt"), "one\ntwo\n", "no step twice, none lost");
    let calls = held.server.model_calls();
    assert_eq!(
        format!("{:?}", calls[1].messages),
        format!("{:?}", calls[2].messages),
        "the same request again"
    );
    assert_eq!(held.world.tools(&id), ["run_shell:true", "run_shell:true"]);
}

#[test]
fn a_command_that_was_killed_with_its_run_is_undone_and_executed_again() {
    let mut world = World::new();
    world.file("hold", "");
    let command = "echo x >> log.txt; test ! -e hold || { sleep 864213 & touch begun; sleep 864213; }";
    let calls = [MockReply::call("run_shell", json!({ "command": command })), MockReply::text("Done.")];
    let server = ModelServer::start(ReplyScript::from_replies(calls));
    let flags = world.uses(&server, VendorFormat::OpenAi);
    let running = world.start(&[&["run", "x"][..], &flags].concat());
    let id = started(&world);
    world.wait_for_file(&id, "begun");
    running.signal(Signal::KILL);
    running.wait();
    until("the end of the orphans", || (!somebody_runs("864213")).then_some(()));
    std::fs::remove_file(world.repo().join("hold")).expect("it is there");
    world.forge(&["resume", &id]).exits(0);
    // Had the dead attempt's line stayed, there would be two.
    assert_eq!(world.read("log.txt"), "x\n");
    assert_eq!(world.tools(&id), ["run_shell:false", "run_shell:true"], "interrupted, then executed");
    assert!(!somebody_runs("864213"));
}

#[test]
fn a_run_that_is_worked_on_is_not_taken_twice() {
    let held = held();
    let (running, id) = held.start();
    held.world.forge(&["resume", &id]).exits(1).says(&["is active in", "forge logs -f"]);
    held.gate.open();
    running.wait().exits(0);
    assert_eq!(held.world.read("log.txt"), "one\ntwo\n");
}

#[test]
fn of_two_processes_that_resume_one_run_one_wins_and_the_other_says_so() {
    let held = held();
    let (running, id) = held.start();
    running.signal(Signal::KILL);
    running.wait();
    // The winner is held at its first request, so that it still works when the loser tries.
    let gate = Gate::new();
    let mine = gate.clone();
    held.server.set_script(ReplyScript::always(move |call| match call.turn_index() {
        1 => append("two").with_gate(&mine),
        _ => MockReply::text("Done."),
    }));
    let first = held.world.start(&["resume", &id]);
    let second = held.world.start(&["resume", &id]);
    assert!(held.server.wait_for_requests(3, LONG));
    // The loser ends by itself; only then may the winner go on.
    until("the loser's end", || (!alive(first.id) || !alive(second.id)).then_some(()));
    gate.open();
    let mut all = [first.wait(), second.wait()];
    all.sort_by_key(|done| done.code);
    let [winner, loser] = all;
    winner.exits(0);
    loser.exits(1).says(&["is active in"]);
    assert_eq!(held.world.read("log.txt"), "one\ntwo\n");
}

fn alive(id: u32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{id}/stat")) else { return false };
    !stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('Z'))
}

#[test]
fn a_limit_that_was_reached_can_be_raised_when_the_run_waits_for_it() {
    let mut world = World::new();
    world.set("FORGE_AGENT_ON_LIMIT", "wait");
    let script = ReplyScript::always(|call| match call.turn_index() {
        n @ 0..=2 => append(&format!("{n}")),
        _ => MockReply::text("Done."),
    });
    let server = ModelServer::start(script);
    let flags = world.uses(&server, VendorFormat::OpenAi);
    let words = [&flags[..], &["--max-iterations", "2"]].concat();
    world.run(&words, "x").exits(5).says(&["waiting (budget)", "forge resume"]);
    let id = world.only_run();
    world.forge(&["resume", &id, "--max-iterations", "9"]).exits(0).shows(&["Done.", "4 of 9"]);
    assert_eq!(world.read("log.txt"), "0\n1\n2\n");
    assert_eq!(server.request_count(), 4);
}

#[test]
fn a_run_goes_on_with_the_address_that_it_was_started_with() {
    let mut world = World::new();
    let gate = Gate::new();
    let held = gate.clone();
    let mut asked = 0;
    let server = ModelServer::start(ReplyScript::always(move |_| {
        asked += 1;
        if asked == 1 { MockReply::text("Done.").with_gate(&held) } else { MockReply::text("Done.") }
    }));
    world.set("OPENAI_API_KEY", crate::harness::KEY);
    let url = server.base_url(VendorFormat::OpenAi);
    let running = world.start(&["run", "x", "--provider", "openai", "--model", "m", "--base-url", &url]);
    assert!(server.wait_for_requests(1, LONG));
    running.signal(Signal::KILL);
    running.wait();
    world.forge(&["resume", &world.only_run()]).exits(0).shows(&["Done."]);
}

#[test]
fn a_broken_configuration_is_not_in_the_way_of_looking_and_ending() {
    let held = held();
    let (running, id) = held.start();
    held.world.file("forge.yaml", "nonsense: [");
    held.world.forge(&["list"]).exits(0).says(&["config validate"]);
    held.world.forge(&["status", &id]).exits(0).shows(&["running"]);
    held.world.forge(&["cancel", &id]).exits(0);
    running.wait().exits(4);
}
