//! Everything that a model's server does wrong: the run ends right or tries again, nothing is done twice, and the
//! message says what happened.

use crate::harness::{Done, World};
use forge_testkit::model_server::{Cut, ErrorKind, Fault, Finish, ModelServer, Reply, Script, Shape};
use serde_json::json;

/// Replies that write a file, meet `fault` where it is put, and end.
struct Story {
    world: World,
    server: ModelServer,
    done: Done,
}

fn tell(shape: Shape, replies: impl IntoIterator<Item = Reply>, code: i32) -> Story {
    tell_with(shape, replies, code, &[])
}

fn tell_with(shape: Shape, replies: impl IntoIterator<Item = Reply>, code: i32, flags: &[&str]) -> Story {
    let mut world = World::new();
    // Silence on the wire is noticed after a second, so that a hang does not hold the test up.
    world.set("FORGE_MODEL_TIMEOUT_SECONDS", "1");
    let server = ModelServer::start(Script::of(replies));
    let all = [&world.uses(&server, shape)[..], flags].concat();
    let done = world.run(&all, "Write the file").exits(code);
    Story { world, server, done }
}

fn append() -> Reply {
    let command = json!({"command": "echo once >> log.txt"});
    Reply::text("I write.").and_call("c1", "run_shell", command)
}

/// A fault between the one thing done and the end: tried again, and the thing is not done twice.
fn tried_again(fault: &Reply, says: &str) {
    for shape in Shape::ALL {
        let story = tell(shape, [append(), fault.clone(), Reply::text("Done.")], 0);
        assert_eq!(story.world.read("log.txt"), "once\n", "{shape:?}");
        assert_eq!(story.server.calls().len(), 3, "{shape:?}");
        let calls = story.server.calls();
        assert_eq!(format!("{:?}", calls[1].messages), format!("{:?}", calls[2].messages), "{shape:?}");
        assert!(story.done.err.contains(says), "{shape:?}: no `{says}` in\n{}", story.done.err);
        assert!(story.done.out.contains("Done."), "{shape:?}: {}", story.done.out);
    }
}

#[test]
fn a_429_with_retry_after_is_waited_for() {
    let headers = vec![("Retry-After".to_owned(), "1".to_owned())];
    tried_again(&Reply::fault(Fault::ErrorWith(ErrorKind::RateLimit, headers)), "rate_limit");
}

#[test]
fn a_500_is_tried_again() {
    tried_again(&Reply::status(500), "overloaded");
}

#[test]
fn an_overloaded_service_is_tried_again() {
    tried_again(&Reply::error(ErrorKind::Overloaded), "overloaded");
    tried_again(&Reply::status(529), "overloaded");
}

#[test]
fn an_error_inside_a_stream_is_tried_again() {
    tried_again(&Reply::fault(Fault::StreamError(ErrorKind::Overloaded)), "the model call failed");
}

#[test]
fn a_server_that_never_answers_is_given_up_and_tried_again() {
    tried_again(&Reply::fault(Fault::Hang), "timeout");
}

#[test]
fn a_stream_that_stops_in_the_middle_is_given_up_and_tried_again() {
    tried_again(&Reply::fault(Fault::Stall), "timeout");
}

#[test]
fn a_cut_stream_is_never_an_answer() {
    for cut in [Cut::MidChunk, Cut::BeforeTerminal] {
        tried_again(&Reply::fault(Fault::Cut(cut)), "the model call failed");
    }
}

#[test]
fn an_answer_that_is_whole_counts_although_the_connection_breaks_after_it() {
    for shape in Shape::ALL {
        let whole = Reply::text("Done.").with_fault(Fault::Cut(Cut::AfterTerminal));
        let story = tell(shape, [append(), whole], 0);
        assert_eq!(story.server.calls().len(), 2, "{shape:?}");
    }
}

#[test]
fn an_event_that_is_not_json_is_tried_again() {
    tried_again(&Reply::fault(Fault::MalformedEvent), "malformed_response");
}

#[test]
fn a_page_in_place_of_a_stream_is_tried_again_once() {
    tried_again(&Reply::fault(Fault::NotAStream), "the model call failed");
}

#[test]
fn a_connection_that_is_closed_at_once_is_tried_again() {
    for shape in Shape::ALL {
        let story = tell(shape, [Reply::fault(Fault::Refuse), append(), Reply::text("Done.")], 0);
        assert_eq!(story.server.calls().len(), 3, "{shape:?}");
        story.done.says(&["the model call failed"]);
    }
}

#[test]
fn a_kept_connection_that_was_closed_meanwhile_is_no_failure() {
    let story = tell(Shape::OpenAi, [append(), Reply::fault(Fault::Refuse), Reply::text("Done.")], 0);
    assert_eq!(story.world.read("log.txt"), "once\n");
    assert!(!story.done.err.contains("failed"), "{}", story.done.err);
}

#[test]
fn five_failures_end_the_run_with_their_reason() {
    let story = tell(Shape::OpenAi, (0..9).map(|_| Reply::status(500)), 1);
    assert_eq!(story.server.calls().len(), 5);
    let runs = story.world.runs();
    assert_eq!((&runs[0]["status"], &runs[0]["error_kind"]), (&"failed".into(), &"overloaded".into()));
    story.done.says(&["attempt 5"]);
}

#[test]
fn a_very_long_retry_after_parks_the_run() {
    let headers = vec![("Retry-After".to_owned(), "3600".to_owned())];
    let fault = Reply::fault(Fault::ErrorWith(ErrorKind::RateLimit, headers));
    let story = tell(Shape::Anthropic, [append(), fault, Reply::text("Done.")], 5);
    let id = story.world.only_run();
    let story_done = story.done.says(&["waiting (retry)", &format!("forge resume {id}")]);
    assert!(story_done.out.contains("waiting"), "{}", story_done.out);
    story.world.forge(&["resume", &id]).exits(0).shows(&["Done."]);
    assert_eq!(story.world.read("log.txt"), "once\n");
}

#[test]
fn a_tool_call_with_broken_arguments_is_never_run_and_the_model_is_told() {
    for shape in Shape::ALL {
        let broken = Reply::default().and_raw_call("c1", "run_shell", r#"{"command": "echo bad >> log.t"#);
        let story = tell(shape, [broken, append(), Reply::text("Done.")], 0);
        assert_eq!(story.world.read("log.txt"), "once\n", "{shape:?}");
        let calls = story.server.calls();
        let told = calls[1].last_tool_result().unwrap();
        assert!(told.contains("JSON"), "{shape:?}: {told}");
    }
}

#[test]
fn a_reply_cut_at_the_token_limit_is_continued_and_its_calls_are_not_run() {
    for shape in Shape::ALL {
        let cut = Reply::text("I be").with_finish(Finish::Length);
        let cut_call = append().with_finish(Finish::Length);
        let story = tell(shape, [cut, Reply::text("gin and end.")], 0);
        assert!(story.done.out.contains("I begin and end."), "{shape:?}: {}", story.done.out);
        let (first, second) = (&story.server.calls()[0], &story.server.calls()[1]);
        assert!(second.max_tokens > first.max_tokens, "{shape:?}: a larger allowance");
        let story = tell(shape, [cut_call, append(), Reply::text("Done.")], 0);
        assert_eq!(story.world.read("log.txt"), "once\n", "{shape:?}");
    }
}

#[test]
fn of_two_tool_calls_with_one_id_only_the_first_is_run() {
    for shape in [Shape::OpenAi, Shape::Anthropic] {
        let command = |word: &str| json!({"command": format!("echo {word} >> log.txt")});
        let twice = Reply::default().and_call("same", "run_shell", command("first")).and_call(
            "same",
            "run_shell",
            command("second"),
        );
        let story = tell(shape, [twice, Reply::text("Done.")], 0);
        assert_eq!(story.world.read("log.txt"), "first\n", "{shape:?}");
        let calls = story.server.calls();
        assert_eq!(calls[1].tool_results().len(), 2, "{shape:?}: each call has one result");
    }
}

#[test]
fn an_unknown_tool_is_answered_with_those_there_are() {
    for shape in Shape::ALL {
        let unknown = Reply::call("teleport", json!({"to": "Mars"}));
        let story = tell(shape, [unknown, append(), Reply::text("Done.")], 0);
        let calls = story.server.calls();
        let told = calls[1].last_tool_result().unwrap();
        assert!(told.contains("teleport") && told.contains("read_file"), "{shape:?}: {told}");
        assert_eq!(story.world.tools(&story.world.only_run()), ["teleport:false", "run_shell:true"]);
    }
}

#[test]
fn a_stop_beside_tool_calls_does_not_end_the_run() {
    for shape in [Shape::OpenAi, Shape::Ollama] {
        let story = tell(shape, [append().with_finish(Finish::Stop), Reply::text("Done.")], 0);
        assert_eq!(story.world.read("log.txt"), "once\n", "{shape:?}");
    }
}

#[test]
fn a_refused_command_does_not_end_the_run() {
    let refused = Reply::call("run_shell", json!({"command": "echo a; rm -rf /"}));
    let story = tell(Shape::OpenAi, [refused, append(), Reply::text("Done.")], 0);
    assert_eq!(story.world.tools(&story.world.only_run()), ["run_shell:false", "run_shell:true"]);
    story.done.says(&["refused"]);
}

#[test]
fn no_credit_and_no_permission_end_the_run_at_once() {
    for (kind, word) in [(ErrorKind::Billing, "billing"), (ErrorKind::Forbidden, "auth")] {
        let story = tell(Shape::Anthropic, [Reply::error(kind), Reply::text("Done.")], 1);
        assert_eq!(story.server.calls().len(), 1);
        assert_eq!(story.world.runs()[0]["error_kind"], word);
    }
}

#[test]
fn output_of_a_command_is_kept_in_bounds_and_told_to_be_cut() {
    let flood = Reply::call("run_shell", json!({"command": "yes x | head -c 3000000"}));
    let story = tell(Shape::OpenAi, [flood, Reply::text("Done.")], 0);
    let calls = story.server.calls();
    let told = calls[1].last_tool_result().unwrap();
    assert!(told.len() < 200_000, "{} bytes", told.len());
}

#[test]
fn control_characters_from_a_model_or_a_command_never_reach_the_terminal() {
    let evil = "\u{1b}]0;owned\u{7} \u{1b}[2J";
    let reply =
        Reply::text(evil).and_call("c1", "run_shell", json!({"command": "printf '\\033[2Jx'; exit 3"}));
    let story = tell_with(Shape::OpenAi, [reply, Reply::text(evil)], 0, &["-v"]);
    assert!(!story.done.out.contains('\u{1b}') && !story.done.err.contains('\u{1b}'), "{:?}", story.done);
}
