//! What a run leaves behind: answers, boxes, reports, events, run directories.

use crate::harness::World;
use forge_testkit::model_server::{MockReply, ModelServer, ReplyScript, VendorFormat};
use serde_json::{Value, json};

fn script() -> ReplyScript {
    ReplyScript::from_replies([
        MockReply::text("I write it.").and_call(
            "c1",
            "write_file",
            json!({"path": "hello.txt", "content": "hello\n"}),
        ),
        MockReply::text("Done: hello.txt says hello."),
    ])
}

fn world() -> (World, ModelServer, Vec<&'static str>) {
    let mut world = World::new();
    let server = ModelServer::start(script());
    let flags = world.uses(&server, VendorFormat::OpenAi);
    (world, server, flags)
}

#[test]
fn the_answer_and_the_box_stand_on_stdout_and_the_story_on_stderr() {
    let (world, _server, flags) = world();
    let done = world.run(&flags, "Write hello").exits(0);
    assert_eq!(world.read("hello.txt"), "hello\n");
    let id = world.only_run();
    let journal = world.path("data").join("forge/runs").join(&id).display().to_string();
    let flat: String = done.out.chars().filter(|c| !c.is_whitespace() && *c != '│').collect();
    for part in
        ["Done: hello.txt says hello.", "completed", "hello.txt", &id, "openai/tiny", "native", &journal]
    {
        let part: String = part.chars().filter(|c| !c.is_whitespace()).collect();
        assert!(flat.contains(&part), "{part} is missing in\n{}", done.out);
    }
    done.says(&["turn 1 of 25", "ok      write_file hello.txt", "I write it."]);
}

#[test]
fn a_report_file_is_written_whole() {
    let (world, _server, flags) = world();
    let words = [&flags[..], &["--report-file", "../report.json"]].concat();
    world.run(&words, "Write hello").exits(0);
    let report: Value = serde_json::from_slice(&std::fs::read(world.path("report.json")).unwrap()).unwrap();
    assert_eq!((&report["status"], &report["files_modified"]), (&"completed".into(), &json!(["hello.txt"])));
    let words = [&flags[..], &["--report-file", "/no/such/report.json"]].concat();
    world.run(&words, "Write hello").exits(2).says(&["/no/such/report.json", "--report-file"]);
    assert_eq!(world.runs().len(), 1, "nothing was started");
}

#[test]
fn jsonl_prints_each_event_as_a_line() {
    let (world, _server, flags) = world();
    let done = world.run(&[&flags[..], &["--output-format", "jsonl"]].concat(), "Write hello").exits(0);
    let events: Vec<Value> = done.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(events.iter().zip(1_u64..).all(|(event, n)| event["seq"] == n));
    let kinds: Vec<_> = events.iter().map(|event| event["kind"].as_str().unwrap()).collect();
    assert!(kinds.contains(&"run.created") && kinds.contains(&"tool.completed"), "{kinds:?}");
    assert_eq!(kinds.last(), Some(&"run.finished"));
    // The same, whoever tells it.
    assert_eq!(world.events(&world.only_run()), events);
}

#[test]
fn the_run_directory_can_be_read_with_ordinary_tools() {
    let (world, _server, flags) = world();
    world.run(&flags, "Write hello").exits(0);
    let id = world.only_run();
    let folder = world.path("data").join("forge/runs").join(&id);
    let read =
        |name: &str| std::fs::read_to_string(folder.join(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
    let record: Value = serde_json::from_str(&read("run.json")).unwrap();
    assert_eq!(record["tool_invocations"][0]["tool"], "write_file");
    let summary: Value = serde_json::from_str(&read("summary.json")).unwrap();
    assert_eq!(summary["answer"], "Done: hello.txt says hello.");
    let roles: Vec<_> = read("messages.jsonl")
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["role"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(roles, ["system", "user", "assistant", "tool", "assistant"]);
    let events: Vec<Value> =
        read("events.jsonl").lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(events, world.events(&id));
}

#[test]
fn status_shows_the_project_and_any_run_by_the_beginning_of_its_id() {
    let (world, _server, flags) = world();
    world.run(&flags, "Write hello").exits(0);
    let id = world.only_run();
    world.forge(&["status", &id[..20]]).exits(0).shows(&["completed", "Write hello", "hello.txt", "native"]);
    let project = world.forge(&["status", "--json"]).exits(0).json();
    assert_eq!(project["stats"]["total_runs"], 1);
    assert_eq!(project["stats"]["success_rate"], 1.0);
    assert_eq!(project["recent_runs"][0]["run_id"], id.as_str());
    world.forge(&["status"]).exits(0).shows(&["Write hello"]);
    world.forge(&["list"]).exits(0).shows(&["completed", "Write hello"]);
    world.forge(&["list", "--status", "failed"]).exits(0).says(&["no runs"]);
    world.forge(&["logs", &id]).exits(0).shows(&["turn 1 of 25", "write_file hello.txt", "completed"]);
}

#[test]
fn a_limit_ends_a_run_with_its_own_code_and_name() {
    let mut world = World::new();
    let script = ReplyScript::always(|_| MockReply::call("list_directory", json!({})));
    let server = ModelServer::start(script);
    let flags = world.uses(&server, VendorFormat::OpenAi);
    let done = world.run(&[&flags[..], &["--max-iterations", "3", "--json"]].concat(), "Loop").exits(3);
    assert_eq!((&done.json()["status"], &done.json()["limit"]), (&"timed_out".into(), &"iterations".into()));
    assert_eq!(server.request_count(), 3);
}

#[test]
fn output_that_nobody_reads_is_no_fault() {
    let (world, _server, flags) = world();
    world.run(&flags, "Write hello").exits(0);
    let id = world.only_run();
    let mut command = world.command(&["logs", &id, "--json"]);
    let mut child = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn an_ordinary_user_gets_the_same_box() {
    let Some(mut world) = World::of_an_ordinary_user("a run of an ordinary user") else { return };
    let command = serde_json::json!({"command": "id -u; echo hello > hello.txt; cat /etc/shadow"});
    let server = ModelServer::start(ReplyScript::from_replies([
        MockReply::call("run_shell", command),
        MockReply::text("Done."),
    ]));
    let flags = world.uses(&server, VendorFormat::OpenAi);
    let report = world.run(&[&flags[..], &["--json"]].concat(), "Write hello").exits(0).json();
    assert_eq!(world.read("hello.txt"), "hello\n");
    assert_eq!(report["sandbox"]["backend"], "native");
    let told = server.model_calls()[1].last_tool_result().unwrap().to_owned();
    assert!(told.contains("shadow:"), "{told}");
}
