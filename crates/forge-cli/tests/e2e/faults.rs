//! Everything that a model's server does wrong: the run ends right or tries again, nothing is done twice, and the
//! message says what happened.

use crate::harness::{Done, World};
use forge_testkit::model_server::{
    MockFinish, MockReply, ModelServer, ReplyFault, ReplyScript, StreamCut, VendorErrorKind, VendorFormat,
};
use serde_json::json;

/// Replies that write a file, meet `fault` where it is put, and end.
struct Story {
    world: World,
    server: ModelServer,
    done: Done,
}

fn tell(shape: VendorFormat, replies: impl IntoIterator<Item = MockReply>, code: i32) -> Story {
    tell_with(shape, replies, code, &[])
}

fn tell_with(
    shape: VendorFormat,
    replies: impl IntoIterator<Item = MockReply>,
    code: i32,
    flags: &[&str],
) -> Story {
    let mut world = World::new();
    // Silence on the wire is noticed after a second, so that a hang does not hold the test up.
    world.set("FORGE_MODEL_TIMEOUT_SECONDS", "1");
    let server = ModelServer::start(ReplyScript::from_replies(replies));
    let all = [&world.uses(&server, shape)[..], flags].concat();
    let done = world.run(&all, "Write the file").exits(code);
    Story { world, server, done }
}

fn append() -> MockReply {
    let command = json!({"command": "echo once >> log.txt"});
    MockReply::text("I write.").and_call("c1", "run_shell", command)
}

/// A fault between the one thing done and the end: tried again, and the thing is not done twice.
fn tried_again(fault: &MockReply, says: &str) {
    for shape in VendorFormat::ALL {
        let story = tell(shape, [append(), fault.clone(), MockReply::text("Done.")], 0);
        assert_eq!(story.world.read("log.txt"), "once\n", "{shape:?}");
        assert_eq!(story.server.model_calls().len(), 3, "{shape:?}");
        let calls = story.server.model_calls();
        assert_eq!(format!("{:?}", calls[1].messages), format!("{:?}", calls[2].messages), "{shape:?}");
        assert!(story.done.err.contains(says), "{shape:?}: no `{says}` in\n{}", story.done.err);
        assert!(story.done.out.contains("Done."), "{shape:?}: {}", story.done.out);
    }
}

#[test]
fn a_429_with_retry_after_is_waited_for() {
    let headers = vec![("Retry-After".to_owned(), "1".to_owned())];
    tried_again(&MockReply::fault(ReplyFault::ErrorWith(VendorErrorKind::RateLimit, headers)), "rate_limit");
}

#[test]
fn a_500_is_tried_again() {
    tried_again(&MockReply::status(500), "overloaded");
}

#[test]
fn an_overloaded_service_is_tried_again() {
    tried_again(&MockReply::error(VendorErrorKind::Overloaded), "overloaded");
    tried_again(&MockReply::status(529), "overloaded");
}

#[test]
fn an_error_inside_a_stream_is_tried_again() {
    tried_again(
        &MockReply::fault(ReplyFault::StreamError(VendorErrorKind::Overloaded)),
        "the model call failed",
    );
}

#[test]
fn a_server_that_never_answers_is_given_up_and_tried_again() {
    tried_again(&MockReply::fault(ReplyFault::Hang), "timeout");
}

#[test]
fn a_stream_that_stops_in_the_middle_is_given_up_and_tried_again() {
    tried_again(&MockReply::fault(ReplyFault::Stall), "timeout");
}

#[test]
fn a_cut_stream_is_never_an_answer() {
    for cut in [StreamCut::MidChunk, StreamCut::BeforeTerminal] {
        tried_again(&MockReply::fault(ReplyFault::Cut(cut)), "the model call failed");
    }
}

#[test]
fn an_answer_that_is_whole_counts_although_the_connection_breaks_after_it() {
    for shape in VendorFormat::ALL {
        let whole = MockReply::text("Done.").with_fault(ReplyFault::Cut(StreamCut::AfterTerminal));
        let story = tell(shape, [append(), whole], 0);
        assert_eq!(story.server.model_calls().len(), 2, "{shape:?}");
    }
}

#[test]
fn an_event_that_is_not_json_is_tried_again() {
    tried_again(&MockReply::fault(ReplyFault::MalformedEvent), "malformed_response");
}

#[test]
fn a_page_in_place_of_a_stream_is_tried_again_once() {
    tried_again(&MockReply::fault(ReplyFault::NotAStream), "the model call failed");
}

#[test]
fn a_connection_that_is_closed_at_once_is_tried_again() {
    for shape in VendorFormat::ALL {
        let story =
            tell(shape, [MockReply::fault(ReplyFault::Refuse), append(), MockReply::text("Done.")], 0);
        assert_eq!(story.server.model_calls().len(), 3, "{shape:?}");
        story.done.says(&["the model call failed"]);
    }
}

#[test]
fn a_kept_connection_that_was_closed_meanwhile_is_no_failure() {
    let story = tell(
        VendorFormat::OpenAi,
        [append(), MockReply::fault(ReplyFault::Refuse), MockReply::text("Done.")],
        0,
    );
    assert_eq!(story.world.read("log.txt"), "once\n");
    assert!(!story.done.err.contains("failed"), "{}", story.done.err);
}

#[test]
fn five_failures_end_the_run_with_their_reason() {
    let story = tell(VendorFormat::OpenAi, (0..9).map(|_| MockReply::status(500)), 1);
    assert_eq!(story.server.model_calls().len(), 5);
    let runs = story.world.runs();
    assert_eq!((&runs[0]["status"], &runs[0]["error_kind"]), (&"failed".into(), &"overloaded".into()));
    story.done.says(&["attempt 5"]);
}

#[test]
fn a_very_long_retry_after_parks_the_run() {
    let headers = vec![("Retry-After".to_owned(), "3600".to_owned())];
    let fault = MockReply::fault(ReplyFault::ErrorWith(VendorErrorKind::RateLimit, headers));
    let story = tell(VendorFormat::Anthropic, [append(), fault, MockReply::text("Done.")], 5);
    let id = story.world.only_run();
    let story_done = story.done.says(&["rate limited until", &format!("forge resume {id}")]);
    assert!(story_done.out.contains("waiting"), "{}", story_done.out);
    story.world.forge(&["resume", &id]).exits(0).shows(&["Done."]);
    assert_eq!(story.world.read("log.txt"), "once\n");
}

#[test]
fn a_tool_call_with_broken_arguments_is_never_run_and_the_model_is_told() {
    for shape in VendorFormat::ALL {
        let broken =
            MockReply::default().and_raw_call("c1", "run_shell", r#"{"command": "echo bad >> log.t"#);
        let story = tell(shape, [broken, append(), MockReply::text("Done.")], 0);
        assert_eq!(story.world.read("log.txt"), "once\n", "{shape:?}");
        let calls = story.server.model_calls();
        let told = calls[1].last_tool_result().unwrap();
        assert!(told.contains("JSON"), "{shape:?}: {told}");
    }
}

#[test]
fn a_reply_cut_at_the_token_limit_is_continued_and_its_calls_are_not_run() {
    for shape in VendorFormat::ALL {
        let cut = MockReply::text("I be").with_finish(MockFinish::Length);
        let cut_call = append().with_finish(MockFinish::Length);
        let story = tell(shape, [cut, MockReply::text("gin and end.")], 0);
        assert!(story.done.out.contains("I begin and end."), "{shape:?}: {}", story.done.out);
        let (first, second) = (&story.server.model_calls()[0], &story.server.model_calls()[1]);
        assert!(second.max_tokens > first.max_tokens, "{shape:?}: a larger allowance");
        let story = tell(shape, [cut_call, append(), MockReply::text("Done.")], 0);
        assert_eq!(story.world.read("log.txt"), "once\n", "{shape:?}");
    }
}

#[test]
fn of_two_tool_calls_with_one_id_only_the_first_is_run() {
    for shape in [VendorFormat::OpenAi, VendorFormat::Anthropic] {
        let command = |word: &str| json!({"command": format!("echo {word} >> log.txt")});
        let twice = MockReply::default().and_call("same", "run_shell", command("first")).and_call(
            "same",
            "run_shell",
            command("second"),
        );
        let story = tell(shape, [twice, MockReply::text("Done.")], 0);
        assert_eq!(story.world.read("log.txt"), "first\n", "{shape:?}");
        let calls = story.server.model_calls();
        assert_eq!(calls[1].tool_results().len(), 2, "{shape:?}: each call has one result");
    }
}

#[test]
fn an_unknown_tool_is_answered_with_those_there_are() {
    for shape in VendorFormat::ALL {
        let unknown = MockReply::call("teleport", json!({"to": "Mars"}));
        let story = tell(shape, [unknown, append(), MockReply::text("Done.")], 0);
        let calls = story.server.model_calls();
        let told = calls[1].last_tool_result().unwrap();
        assert!(told.contains("teleport") && told.contains("read_file"), "{shape:?}: {told}");
        assert_eq!(story.world.tools(&story.world.only_run()), ["teleport:false", "run_shell:true"]);
    }
}

#[test]
fn a_stop_beside_tool_calls_does_not_end_the_run() {
    for shape in [VendorFormat::OpenAi, VendorFormat::Ollama] {
        let story = tell(shape, [append().with_finish(MockFinish::Stop), MockReply::text("Done.")], 0);
        assert_eq!(story.world.read("log.txt"), "once\n", "{shape:?}");
    }
}

#[test]
fn a_refused_command_does_not_end_the_run() {
    let refused = MockReply::call("run_shell", json!({"command": "echo a; rm -rf /"}));
    let story = tell(VendorFormat::OpenAi, [refused, append(), MockReply::text("Done.")], 0);
    assert_eq!(story.world.tools(&story.world.only_run()), ["run_shell:false", "run_shell:true"]);
    story.done.says(&["refused"]);
}

#[test]
fn no_credit_and_no_permission_end_the_run_at_once() {
    for (kind, word) in [(VendorErrorKind::Billing, "billing"), (VendorErrorKind::Forbidden, "auth")] {
        let story = tell(VendorFormat::Anthropic, [MockReply::error(kind), MockReply::text("Done.")], 1);
        assert_eq!(story.server.model_calls().len(), 1);
        assert_eq!(story.world.runs()[0]["error_kind"], word);
    }
}

#[test]
fn output_of_a_command_is_kept_in_bounds_and_told_to_be_cut() {
    let flood = MockReply::call("run_shell", json!({"command": "yes x | head -c 3000000"}));
    let story = tell(VendorFormat::OpenAi, [flood, MockReply::text("Done.")], 0);
    let calls = story.server.model_calls();
    let told = calls[1].last_tool_result().unwrap();
    assert!(told.len() < 200_000, "{} bytes", told.len());
}

#[test]
fn control_characters_from_a_model_or_a_command_never_reach_the_terminal() {
    let evil = "\u{1b}]0;owned\u{7} \u{1b}[2J";
    let reply =
        MockReply::text(evil).and_call("c1", "run_shell", json!({"command": "printf '\\033[2Jx'; exit 3"}));
    let story = tell_with(VendorFormat::OpenAi, [reply, MockReply::text(evil)], 0, &["-v"]);
    assert!(!story.done.out.contains('\u{1b}') && !story.done.err.contains('\u{1b}'), "{:?}", story.done);
}
