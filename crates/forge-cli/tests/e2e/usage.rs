//! What is typed wrongly, and what goes where.

use crate::harness::World;
use forge_testkit::model_server::{MockReply, ModelServer, ReplyScript, VendorFormat};

#[test]
fn no_task_is_a_usage_error_with_a_way_out() {
    World::new().forge(&["run"]).exits(2).says(&["no task given", "forge run \"", "--task-file"]);
}

#[test]
fn unknown_flags_and_commands_are_usage_errors() {
    let world = World::new();
    world.forge(&["run", "x", "--dry-rum"]).exits(2).says(&["--dry-rum"]);
    world.forge(&["frobnicate"]).exits(2).says(&["frobnicate"]);
    world.forge(&[]).exits(2);
    world.forge(&["list", "--status", "done"]).exits(2).says(&["completed", "timed_out"]);
    world.forge(&["run", "x", "--max-iterations", "many"]).exits(2).says(&["--max-iterations"]);
}

#[test]
fn version_and_help_are_results() {
    let world = World::new();
    world.forge(&["--version"]).exits(0).shows(&["forge "]);
    let help = world.forge(&["--help"]).exits(0);
    for command in ["run", "status", "list", "logs", "resume", "cancel", "config", "doctor", "init", "trust"]
    {
        assert!(help.out.contains(&format!("\n  {command} ")), "{command}: {}", help.out);
    }
}

#[test]
fn no_command_is_offered_that_does_nothing() {
    let world = World::new();
    let help = world.forge(&["--help"]).exits(0).out;
    let names = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|l| !l.is_empty());
    for name in names.filter_map(|line| line.split_whitespace().next()) {
        let done = world.forge(&[name, "--help"]).exits(0);
        assert!(!done.out.contains("not implemented"));
    }
}

#[test]
fn an_unknown_run_is_named() {
    let world = World::new();
    for command in ["status", "logs", "resume", "cancel"] {
        world.forge(&[command, "0192abcd"]).exits(2).says(&["there is no run 0192abcd", "forge list"]);
    }
}

#[test]
fn an_empty_list_is_no_error() {
    let world = World::new();
    assert_eq!(world.forge(&["list"]).exits(0).says(&["There are no runs"]).out, "");
    assert_eq!(world.forge(&["list", "--json"]).exits(0).json(), serde_json::json!([]));
}

#[test]
fn with_json_an_error_is_json_on_stdout_and_words_on_stderr() {
    let done = World::new().forge(&["--json", "status", "0192abcd"]).exits(2).says(&["error:"]);
    assert!(done.json()["error"]["message"].as_str().unwrap().contains("there is no run"));
}

#[test]
fn with_json_stdout_is_only_json() {
    let mut world = World::new();
    let server = ModelServer::start(ReplyScript::from_replies([MockReply::text("Nothing to do.")]));
    let flags = world.uses(&server, VendorFormat::OpenAi);
    let run = world.run(&[&flags[..], &["--json"]].concat(), "Say hello").exits(0).json();
    assert_eq!((&run["status"], &run["answer"]), (&"completed".into(), &"Nothing to do.".into()));
    let id = run["run_id"].as_str().unwrap();
    for words in [
        &["status"][..],
        &["status", id],
        &["list"],
        &["config", "show"],
        &["config", "get", "model.name"],
        &["config", "path"],
        &["config", "validate"],
        &["validate"],
        &["tool", "list"],
        &["tool", "describe", "read_file"],
        &["trust", "--show"],
    ] {
        world.forge(&[words, &["--json"]].concat()).exits(0).json();
    }
    // Readiness depends on the machine; the form does not.
    world.forge(&["doctor", "--json"]).json();
}

#[test]
fn quiet_leaves_only_the_result() {
    let mut world = World::new();
    let server = ModelServer::start(ReplyScript::from_replies([MockReply::text("Just this.")]));
    let flags = world.uses(&server, VendorFormat::OpenAi);
    let done = world.run(&[&flags[..], &["-q"]].concat(), "Say it").exits(0);
    assert_eq!((done.out.as_str(), done.err.as_str()), ("Just this.\n", ""));
}

#[test]
fn pipes_get_no_colours_and_no_moving_picture() {
    let mut world = World::new();
    let server = ModelServer::start(ReplyScript::from_replies([MockReply::text("Done.")]));
    let flags = world.uses(&server, VendorFormat::OpenAi);
    let done = world.run(&flags, "Say it").exits(0);
    assert!(!done.out.contains('\x1b') && !done.err.contains('\x1b'), "{done:?}");
}
