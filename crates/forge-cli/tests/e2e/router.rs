//! The router: one reply, one tool, and what it says when something goes wrong.

use crate::harness::{Done, World};
use forge_testkit::model_server::{
    MockReply, ModelServer, ReplyScript, SeenModelCall, SeenRole, VendorErrorKind, VendorFormat,
};
use serde_json::{Value, json};

struct Routed {
    world: World,
    server: ModelServer,
    flags: Vec<&'static str>,
}

fn routed(replies: impl IntoIterator<Item = MockReply>) -> Routed {
    let server = ModelServer::start(ReplyScript::from_replies(replies));
    let mut world = World::new();
    let mut flags = world.uses(&server, VendorFormat::OpenAi);
    flags.extend(["--executor", "router"]);
    Routed { world, server, flags }
}

impl Routed {
    fn run(&self, task: &str) -> Done {
        self.world.run(&self.flags, task)
    }

    fn report(&self, task: &str) -> (Option<i32>, Value) {
        let done = self.world.run(&[&self.flags[..], &["--json"]].concat(), task);
        (done.code, done.json())
    }
}

fn decision(tool: &str, content: &str) -> MockReply {
    MockReply::text(json!({"tool": tool, "content": content}).to_string())
}

fn unfinished(tool: &str, content: &str) -> MockReply {
    MockReply::text(json!({"tool": tool, "content": content, "done": false}).to_string())
}

#[test]
fn the_tool_and_not_the_model_gives_the_answer() {
    let routed = routed([decision("chat", "Hello there")]);
    let (code, report) = routed.report("Hi");
    assert_eq!((code, &report["answer"]), (Some(0), &json!("Hello there")));
    let run = routed.world.only_run();
    assert_eq!(routed.world.tools(&run), ["chat:true"]);
    assert_eq!(routed.server.model_calls().len(), 1, "one model call");
}

#[test]
fn the_request_asks_for_strict_json_with_the_enabled_tools() {
    let routed = routed([decision("chat", "ok")]);
    routed.run("Hi").exits(0);
    let calls = routed.server.model_calls();
    let call = &calls[0];
    assert!(call.tools.is_empty(), "no tools of the provider's own kind");
    for part in ["exactly one tool", "- chat: ", "- code: ", "- remember: "] {
        assert!(call.system.contains(part), "{part}: {}", call.system);
    }
    let schema = &call.http.json["response_format"]["json_schema"]["schema"];
    assert_eq!(
        schema["properties"]["tool"]["enum"],
        json!(["chat", "code", "remember"]),
        "{}",
        call.http.json
    );
    assert_eq!(schema["required"], json!(["tool", "content"]));
}

#[test]
fn a_program_comes_back_as_text_that_python_takes() {
    let routed = routed([decision("generate_code", "```python\nprint(6 * 7)\n```")]);
    routed.run("Write a program").exits(0).shows(&["print(6 * 7)\n"]);
}

#[test]
fn replies_of_any_form_are_answers() {
    for (reply, answer) in [
        ("Assistant: just words", "just words"),
        ("<think>hm</think>{\"tool\":\"chat\",\"content\":\"thought\"}", "thought"),
        ("<tool_call>chat</tool_call><content>in xml</content>", "in xml"),
        ("{\"tool\":\"fly\",\"content\":\"unknown tool\"}", "unknown tool"),
    ] {
        let (code, report) = routed([MockReply::text(reply)]).report("x");
        assert_eq!((code, report["answer"].as_str()), (Some(0), Some(answer)), "{reply}");
    }
}

#[test]
fn a_reply_with_nothing_in_it_is_a_fixed_sentence_and_no_answer() {
    let (code, report) = routed([MockReply::text("  ")]).report("x");
    assert_eq!(code, Some(1));
    assert_eq!(report["answer"], "I could not generate a response. Please try again.");
    assert_eq!(report["error"]["kind"], "router_parse");
}

#[test]
fn a_tool_of_the_workspace_gets_the_content_as_its_argument() {
    let mut routed = routed([decision("read_file", "a.txt"), decision("run_shell", "echo new > b.txt")]);
    routed.world.set("FORGE_TOOLS_ENABLED", "read_file,run_shell,write_file");
    routed.world.file("a.txt", "what stands there\n");
    routed.run("Read a.txt").exits(0).shows(&["what stands there"]);
    routed.run("Write b.txt").exits(0);
    assert_eq!(routed.world.read("b.txt"), "new\n", "the result is applied");
    let system = &routed.server.model_calls()[0].system;
    assert!(!system.contains("- write_file"), "two texts are needed for it that are no pair: {system}");
}

#[test]
fn a_tool_that_fails_is_named() {
    let mut routed = routed([decision("read_file", "missing.txt")]);
    routed.world.set("FORGE_TOOLS_ENABLED", "read_file");
    let (code, report) = routed.report("Read it");
    assert_eq!((code, report["answer"].as_str()), (Some(1), Some("Tool error: read_file")));
    assert!(report["error"]["message"].as_str().is_some_and(|m| m.contains("missing.txt")), "{report}");
}

#[test]
fn a_step_that_is_asked_for_twice_ends_the_run() {
    let mut routed =
        routed([unfinished("read_file", "a.txt"), unfinished("read_file", "a.txt"), decision("chat", "no")]);
    routed
        .world
        .set("FORGE_TOOLS_ENABLED", "read_file")
        .set("FORGE_ROUTER_MAX_STEPS", "5")
        .file("a.txt", "x\n");
    let (code, report) = routed.report("Look");
    assert_eq!(code, Some(1));
    assert_eq!(report["answer"], "Stopped: the router tried to repeat the same step.");
    assert_eq!(report["error"]["kind"], "loop_guard");
    assert_eq!(routed.world.tools(&routed.world.only_run()), ["read_file:true"], "once");
}

#[test]
fn steps_follow_one_another_until_one_is_the_last() {
    let mut routed = routed([unfinished("read_file", "a.txt"), decision("chat", "It says x.")]);
    routed
        .world
        .set("FORGE_TOOLS_ENABLED", "read_file")
        .set("FORGE_ROUTER_MAX_STEPS", "2")
        .file("a.txt", "x\n");
    let (code, report) = routed.report("What does a.txt say?");
    assert_eq!((code, report["answer"].as_str()), (Some(0), Some("It says x.")));
    let calls = routed.server.model_calls();
    let texts =
        |call: &SeenModelCall| call.messages.iter().map(|m| (m.role, m.text.clone())).collect::<Vec<_>>();
    let (first, second) = (texts(&calls[0]), texts(&calls[1]));
    assert_eq!(second[..first.len()], first[..], "each request extends the one before");
    assert_eq!(second[1], (SeenRole::Assistant, unfinished("read_file", "a.txt").text));
    assert_eq!(second[2].0, SeenRole::User);
    assert!(second[2].1.contains("Output of the tool read_file") && second[2].1.contains('x'), "{second:?}");
}

#[test]
fn more_steps_than_are_allowed_end_the_run_with_its_limit() {
    for most in ["1", "2"] {
        let mut routed = routed([
            unfinished("read_file", "a.txt"),
            unfinished("read_file", "b.txt"),
            decision("chat", "no"),
        ]);
        routed.world.set("FORGE_TOOLS_ENABLED", "read_file").set("FORGE_ROUTER_MAX_STEPS", most);
        routed.world.file("a.txt", "first\n").file("b.txt", "second\n");
        let (code, report) = routed.report("Look");
        assert_eq!((code, &report["limit"]), (Some(3), &json!("steps")), "{report}");
        assert_eq!(routed.server.model_calls().len().to_string(), most);
    }
}

#[test]
fn a_provider_that_is_down_is_a_sentence() {
    let routed = routed([MockReply::error(VendorErrorKind::Auth)]);
    let (code, report) = routed.report("x");
    assert_eq!((code, report["answer"].as_str()), (Some(1), Some("The model backend is unavailable.")));
    assert!(report["error"]["message"].as_str().is_some_and(|m| m.contains("401")), "{report}");
}

#[test]
fn a_router_without_a_provider_asks_a_server_on_this_machine() {
    let world = World::new();
    let done = world.run(&["--executor", "router", "--json"], "x");
    assert_eq!(done.json()["provider"], "llama_cpp");
    assert_eq!(done.json()["answer"], "The model backend is unavailable.");
}

#[test]
fn each_step_is_told_where_faults_are_looked_for_and_nowhere_else() {
    let mut routed = routed([decision("chat", "Hello")]);
    routed.world.set("SHOW_DEBUG", "true");
    let done = routed.run("Hi").exits(0);
    for step in [
        "router.prompt {",
        "router.raw_output {",
        "router.decision {",
        "tool.dispatch {",
        "tool.result {",
        "tool.registered {",
    ] {
        let line = done.err.lines().find(|line| line.contains(step));
        assert!(line.is_some_and(|line| line.contains("\"duration_ms\"")), "{step}: {}", done.err);
    }
    assert!(done.err.contains("\"length\":5"), "{}", done.err);
    let kinds: Vec<_> =
        routed.world.events(&routed.world.only_run()).iter().map(|e| e["kind"].clone()).collect();
    assert!(
        !kinds.iter().any(|kind| kind.as_str().is_some_and(|kind| kind.starts_with("router."))),
        "{kinds:?}"
    );
}

#[test]
fn no_box_is_opened_for_words() {
    let mut routed = routed([decision("chat", "Hello")]);
    // A backend that can't be had here: nothing asks for it.
    routed.world.set("FORGE_SANDBOX_BACKEND", "docker").set("DOCKER_HOST", "unix:///nowhere/docker.sock");
    routed.run("Hi").exits(0).shows(&["Hello"]);
}

#[test]
fn a_run_of_the_router_goes_on_after_its_process_was_killed() {
    let gate = forge_testkit::model_server::Gate::new();
    let mine = gate.clone();
    let mut asked = 0;
    let server = ModelServer::start(ReplyScript::always(move |_| {
        asked += 1;
        let reply = decision("chat", "after all");
        if asked == 1 { reply.with_gate(&mine) } else { reply }
    }));
    let mut world = World::new();
    let flags = world.uses(&server, VendorFormat::OpenAi);
    let running = world.start(&[&["run", "x", "--executor", "router"][..], &flags].concat());
    assert!(server.wait_for_requests(1, std::time::Duration::from_secs(60)));
    running.signal(rustix::process::Signal::KILL);
    running.wait();
    let run = world.only_run();
    world.forge(&["resume", &run]).exits(0).shows(&["after all"]);
}

#[test]
fn canned_replies_stand_in_the_place_of_a_model() {
    let mut world = World::new();
    world.set(
        "FORGE_AGENT_STUB_REPLIES",
        "{\"tool\":\"run_shell\",\"content\":\"echo x > made.txt\"}\nAll done.",
    );
    world.run(&["--executor", "stub"], "x").exits(0).shows(&["All done.", "stub/stub"]);
    assert_eq!(world.read("made.txt"), "x\n");
}

#[test]
fn pretended_tools_run_nothing() {
    let mut world = World::new();
    world.set(
        "FORGE_AGENT_STUB_REPLIES",
        "{\"tool\":\"run_shell\",\"content\":\"echo x > made.txt\"}\nAll done.",
    );
    world.run(&["--executor", "stub", "--mock-tools"], "x").exits(0).shows(&["All done."]);
    assert!(!world.repo().join("made.txt").exists());
    assert_eq!(world.tools(&world.only_run()), ["run_shell:true"]);
}

const AGENT: &str = "import json, os, sys\n\
request = json.loads(sys.stdin.readline())\n\
open('made.txt', 'w').write(request['task'])\n\
print('not JSON')\n\
print(json.dumps({'output': 'home ' + os.environ['HOME'] + ' secret ' + os.environ.get('MY_SECRET', 'unseen')}))\n";

#[test]
fn a_framework_agent_works_in_the_sandbox_and_sees_nothing_of_the_environment() {
    let mut world = World::new();
    world.set("MY_SECRET", "s3cret").file("agent.py", AGENT);
    world.set("FORGE_FRAMEWORK", "langchain").set("FORGE_ENTRYPOINT", "agent.py");
    world.run(&[], "make it").exits(0).shows(&["home /workspace secret unseen"]);
    assert_eq!(world.read("made.txt"), "make it");
    world.set("FORGE_SANDBOX_ENV_VARS", "MY_SECRET");
    world.run(&[], "again").exits(0).shows(&["secret s3cret"]);
}

#[test]
fn a_framework_agent_that_fails_leaves_the_repository_alone() {
    let mut world = World::new();
    world.file("agent.sh", "echo half > made.txt\necho 'it broke' >&2\nexit 7\n");
    world.set("FORGE_ENTRYPOINT", "sh agent.sh");
    let done = world.run(&["--executor", "subprocess"], "x").exits(1);
    assert!(done.out.contains("exit code 7") && done.out.contains("it broke"), "{}", done.out);
    assert!(!world.repo().join("made.txt").exists());
    World::new().run(&["--executor", "subprocess"], "x").exits(2).says(&["set entrypoint"]);
}
