//! Conversations: through a pipe, on a terminal, and what is left of them.

use crate::harness::{World, skip, until};
use forge_testkit::model_server::{
    Gate, MockReply, ModelServer, ReplyScript, SeenModelCall, SeenRole, VendorErrorKind, VendorFormat,
};
use serde_json::{Value, json};
use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);

struct Said {
    code: Option<i32>,
    out: String,
    err: String,
}

/// Talks through a pipe.
fn talk(world: &World, words: &[&str], input: &str) -> Said {
    let mut command = world.command(&[&["chat"][..], words].concat());
    let pipes = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = pipes.spawn().expect("the program starts");
    // A conversation that never begins does not read.
    let _ = child.stdin.take().expect("a pipe").write_all(input.as_bytes());
    let output = child.wait_with_output().expect("it ends");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Said { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

/// The one memory in the data directory.
fn memory_file(world: &World) -> PathBuf {
    let memories = std::fs::read_dir(world.path("data/forge/memory")).expect("memories");
    let all: Vec<_> = memories.map(|entry| entry.expect("an entry").path().join("memory.json")).collect();
    assert_eq!(all.len(), 1, "{all:?}");
    all[0].clone()
}

fn memory(world: &World) -> Value {
    serde_json::from_str(&std::fs::read_to_string(memory_file(world)).expect("a memory")).expect("JSON")
}

fn texts(call: &SeenModelCall) -> Vec<(SeenRole, String)> {
    call.messages.iter().map(|message| (message.role, message.text.clone())).collect()
}

fn decision(content: &str) -> MockReply {
    MockReply::text(json!({"tool": "chat", "content": content}).to_string())
}

fn world(replies: impl IntoIterator<Item = MockReply>) -> (World, ModelServer, Vec<&'static str>) {
    let server = ModelServer::start(ReplyScript::from_replies(replies));
    let mut world = World::new();
    let flags = world.uses(&server, VendorFormat::OpenAi);
    (world, server, flags)
}

#[test]
fn one_line_in_one_answer_out() {
    let (world, server, flags) =
        world([MockReply::text("Hello Ada"), MockReply::text("You are Ada"), MockReply::text("Bye")]);
    let said = talk(&world, &flags, "I am Ada\n\nWho am I?\nBye");
    assert_eq!((said.code, said.out.as_str()), (Some(0), "Hello Ada\nYou are Ada\nBye\n"), "{}", said.err);
    let calls = server.model_calls();
    assert_eq!(
        texts(&calls[1]),
        [
            (SeenRole::User, "I am Ada".into()),
            (SeenRole::Assistant, "Hello Ada".into()),
            (SeenRole::User, "Who am I?".into())
        ]
    );
    for pair in calls.windows(2) {
        assert_eq!(pair[0].system, pair[1].system);
        let (before, after) = (texts(&pair[0]), texts(&pair[1]));
        assert_eq!(after[..before.len()], before[..], "each request extends the one before");
    }
    assert_eq!(world.runs().len(), 3, "each turn is a run");
    assert_eq!(memory(&world)["history"].as_array().map(Vec::len), Some(6));
}

#[test]
fn a_later_conversation_remembers_the_first_turn() {
    let (world, server, flags) = world([decision("Noted."), decision("It is 42.")]);
    let flags = [&flags[..], &["--executor", "router"]].concat();
    talk(&world, &flags, "The number is 42\n");
    let said = talk(&world, &flags, "Do you remember the number?\n");
    assert_eq!(said.out, "It is 42.\n");
    let last = texts(&server.model_calls()[1]);
    assert_eq!(last[0], (SeenRole::User, "The number is 42".into()), "{last:?}");
    assert_eq!(last[1].0, SeenRole::Assistant);
    assert!(last[1].1.contains("\"content\": \"Noted.\""), "as the router wrote it: {last:?}");
}

#[test]
fn an_error_is_a_message_and_never_part_of_the_memory() {
    let (world, server, flags) =
        world([MockReply::text("one"), MockReply::error(VendorErrorKind::Auth), MockReply::text("three")]);
    let said = talk(&world, &flags, "first\nsecond\nthird\n");
    assert_eq!(said.out, "one\nThe model backend is unavailable.\nthree\n", "{}", said.err);
    assert!(said.err.contains("401"), "{}", said.err);
    assert_eq!(said.code, Some(0), "the last turn was answered");
    let all = memory(&world).to_string();
    assert!(!all.contains("second") && !all.contains("unavailable"), "{all}");
    let last = texts(&server.model_calls()[2]);
    let words: Vec<_> = last.iter().map(|(_, text)| text.as_str()).collect();
    assert_eq!(words, ["first", "one", "third"]);
}

#[test]
fn a_script_hears_that_the_last_turn_failed() {
    let (world, _server, flags) = world([MockReply::error(VendorErrorKind::Auth)]);
    assert_eq!(talk(&world, &flags, "x\n").code, Some(1));
}

#[test]
fn facts_stand_in_the_prompt_until_they_change() {
    let remember = MockReply::call("remember", json!({"key": "favourite color", "value": "green"}));
    let (world, server, flags) = world([remember, MockReply::text("I will."), MockReply::text("Green.")]);
    talk(&world, &flags, "My favourite color is green\n");
    assert_eq!(memory(&world)["facts"], json!([{"key": "favourite color", "value": "green"}]));
    let said = talk(&world, &flags, "!clear\nWhich color do I like?\n!facts\n");
    assert_eq!(said.out.lines().next_back(), Some("favourite color = green"), "{}", said.out);
    let calls = server.model_calls();
    let last = calls.last().expect("a call");
    assert_eq!(texts(last).len(), 1, "what was said is forgotten");
    assert!(last.system.contains("- favourite color: green"), "{}", last.system);
}

#[test]
fn only_so_much_is_told_of_what_was_said() {
    let replies: Vec<_> = (0..15).map(|n| MockReply::text(format!("answer {n}"))).collect();
    let (world, server, flags) = world(replies);
    let input: String = (0..15).map(|n| format!("question {n}\n")).collect();
    talk(&world, &flags, &input);
    let last = texts(server.model_calls().last().expect("a call"));
    assert_eq!(last.len(), 21, "20 messages and the question");
    assert_eq!(last[0].1, "question 4");
    assert_eq!(memory(&world)["history"].as_array().map(Vec::len), Some(30), "the file keeps more");
}

#[test]
fn each_answer_is_json_if_that_is_wanted() {
    let (world, _server, flags) = world([MockReply::text("one"), MockReply::error(VendorErrorKind::Auth)]);
    let said = talk(&world, &[&flags[..], &["--json"]].concat(), "a\nb\n!bogus\n");
    let lines: Vec<Value> = said.out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!((&lines[0]["output"], &lines[0]["ok"]), (&json!("one"), &json!(true)));
    assert_eq!((&lines[1]["ok"], &lines[1]["status"]), (&json!(false), &json!("failed")));
    assert_eq!(lines[2]["ok"], false);
    assert!(lines[0]["run_id"].is_string());
}

#[test]
fn commands_of_the_conversation() {
    let (mut world, server, _) = world([MockReply::text("hi"), MockReply::text("other")]);
    world.set("FORGE_CUSTOM_UNUSED", "");
    let flags = world.uses(&server, VendorFormat::OpenAi);
    let said =
        talk(&world, &flags, "!help\n!model\n!model other\nhi\n!cost\n!memory\n!nope\n!!hi\n!exit\nnever\n");
    for part in ["!help ", "openai/tiny", "model changed to openai/other", "1 turn", "data/forge/memory/"] {
        assert!(said.out.contains(part), "{part}: {}", said.out);
    }
    assert!(said.err.contains("unknown command `!nope`"), "{}", said.err);
    let calls = server.model_calls();
    assert_eq!(calls.len(), 2);
    assert_eq!(calls[0].model, "other");
    assert_eq!(texts(&calls[1]).last().map(|m| m.1.clone()), Some("!hi".into()));
}

#[test]
fn react_turns_work_on_the_repository() {
    let write =
        MockReply::text("I write it.").and_call("", "write_file", json!({"path": "a.txt", "content": "x\n"}));
    let (world, _server, flags) = world([write, MockReply::text("Done.")]);
    let said = talk(&world, &flags, "Make a.txt\n");
    assert_eq!(said.out, "Done.\n");
    assert_eq!(world.read("a.txt"), "x\n");
    assert!(said.err.contains("write_file a.txt") && said.err.contains("changed: a.txt"), "{}", said.err);
    let run = world.only_run();
    world.forge(&["logs", &run]).exits(0).shows(&["write_file a.txt"]);
    world.forge(&["undo", &run, "--to", "0"]).exits(0);
    assert!(!world.repo().join("a.txt").exists(), "a turn is taken back like any run");
}

#[test]
fn a_damaged_memory_is_set_aside_and_nothing_ends() {
    let (world, _server, flags) = world([MockReply::text("first"), MockReply::text("hi")]);
    talk(&world, &flags, "one\n");
    std::fs::write(memory_file(&world), "{broken").expect("a file");
    let said = talk(&world, &flags, "hello\n");
    assert_eq!((said.code, said.out.as_str()), (Some(0), "hi\n"));
    assert!(said.err.contains("renamed to"), "{}", said.err);
    assert_eq!(memory(&world)["history"].as_array().map(Vec::len), Some(2));
}

#[test]
fn a_memory_that_can_not_be_written_is_a_warning() {
    let (mut world, _server, flags) = world([MockReply::text("hi"), MockReply::text("again")]);
    world.file("occupied", "x");
    let place = world.repo().join("occupied/memory.json");
    world.set("MEMORY_FILE", &place.display().to_string());
    let said = talk(&world, &flags, "hello\nonce more\n");
    assert_eq!((said.code, said.out.as_str()), (Some(0), "hi\nagain\n"), "{}", said.err);
    assert!(said.err.contains("memory") && said.err.contains("occupied"), "{}", said.err);
}

#[test]
fn without_a_memory_the_conversation_still_knows_what_was_said() {
    let (mut world, server, flags) = world([MockReply::text("a"), MockReply::text("b")]);
    world.set("MEMORY_ENABLED", "false");
    talk(&world, &flags, "one\ntwo\n");
    assert_eq!(texts(&server.model_calls()[1]).len(), 3);
    assert!(!world.repo().join(".forge").exists());
}

#[test]
fn bad_beginnings_are_errors_with_a_way_out() {
    let world = World::new();
    let said = talk(&world, &["--repo", "/nowhere/at/all"], "hi\n");
    assert_eq!(said.code, Some(2));
    let said = talk(&world, &["--executor", "magic"], "hi\n");
    assert_eq!(said.code, Some(2));
    assert!(said.err.contains("router"), "{}", said.err);
}

#[test]
fn an_endless_line_is_refused_and_the_conversation_goes_on() {
    let (world, _server, flags) = world([MockReply::text("fine")]);
    let said = talk(&world, &flags, &format!("{}\nshort\n", "x".repeat(20_000)));
    assert_eq!(said.out, "fine\n");
    assert!(said.err.contains("10000"), "{}", said.err);
}

/// A conversation on a terminal that `script` of util-linux makes.
struct Terminal {
    child: Child,
    screen: Arc<Mutex<String>>,
}

impl Terminal {
    #[allow(clippy::disallowed_methods, reason = "the test makes a terminal")]
    fn open(world: &World, words: &[&str]) -> Option<Self> {
        let inner = world.command(&[&["chat"][..], words].concat());
        let quoted = |text: &std::ffi::OsStr| format!("'{}'", text.to_string_lossy());
        let line: Vec<_> = [inner.get_program()].into_iter().chain(inner.get_args()).map(quoted).collect();
        let mut script = Command::new("script");
        let line = format!("stty cols 100 rows 24; exec {}", line.join(" "));
        script.args(["-qec", &line, "/dev/null"]).current_dir(world.repo()).env_clear();
        for (name, value) in inner.get_envs() {
            script.env(name, value.unwrap_or_default());
        }
        script
            .env("TERM", "xterm-256color")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = match script.spawn() {
            Ok(child) => child,
            Err(error) => {
                skip("a conversation on a terminal", &format!("script: {error}"));
                return None;
            }
        };
        let screen = Arc::new(Mutex::new(String::new()));
        let (mut out, seen) = (child.stdout.take().expect("a pipe"), screen.clone());
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = out.read(&mut bytes) {
                seen.lock().expect("no panic").push_str(&String::from_utf8_lossy(&bytes[..count]));
            }
        });
        Some(Self { child, screen })
    }

    fn types(&mut self, text: &str) {
        let pipe = self.child.stdin.as_mut().expect("a pipe");
        pipe.write_all(text.as_bytes()).and_then(|()| pipe.flush()).expect("the terminal reads");
    }

    fn shows(&self, text: &str) {
        until(text, || {
            let screen = self.screen.lock().expect("no panic");
            screen.contains(text).then_some(())
        });
    }

    /// How often the prompt was drawn for a fresh line is not told by its count, so each wait looks behind a mark.
    fn shows_after(&self, mark: &str, text: &str) {
        until(text, || {
            let screen = self.screen.lock().expect("no panic");
            screen.rsplit_once(mark).is_some_and(|(_, rest)| rest.contains(text)).then_some(())
        });
    }
}

impl Terminal {
    /// Waits for the end of the conversation. (`script` passes its exit code on, but may lose its last words.)
    fn ends(&mut self) {
        let status = until("the end", || self.child.try_wait().expect("a child"));
        assert!(status.success(), "{status}");
    }
}

impl Drop for Terminal {
    #[allow(clippy::print_stderr, reason = "what a failed test saw")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the terminal showed:\n{:?}", self.screen.lock());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn on_a_terminal_lines_are_edited_answers_stream_and_ctrl_c_cancels_the_turn_only() {
    let gate = Gate::new();
    let held = gate.clone();
    let server = ModelServer::start(ReplyScript::from_replies([
        MockReply::text("Hello from the model."),
        MockReply::text("This one is never finished").with_gate(&held),
        MockReply::text("Still here."),
    ]));
    let mut world = World::new();
    let flags = world.uses(&server, VendorFormat::OpenAi);
    let Some(mut terminal) = Terminal::open(&world, &flags) else { return };
    terminal.shows("› ");
    // A typing error is mended with the cursor keys.
    terminal.types("Hllo\x1b[D\x1b[D\x1b[De\r");
    terminal.shows("Hello from the model.");
    terminal.shows_after("Hello from the model.", "› ");
    terminal.types("Take your time\r");
    assert!(server.wait_for_requests(2, LONG));
    terminal.types("\x03");
    terminal.shows("(cancelled)");
    terminal.shows_after("(cancelled)", "› ");
    terminal.types("Are you there?\r");
    terminal.shows("Still here.");
    terminal.shows_after("Still here.", "› ");
    terminal.types("\x04");
    terminal.ends();
    let calls = server.model_calls();
    assert_eq!(texts(&calls[0])[0].1, "Hello", "the line was edited");
    let last: Vec<_> = texts(&calls[2]).into_iter().map(|(_, text)| text).collect();
    assert_eq!(
        last,
        ["Hello", "Hello from the model.", "Are you there?"],
        "the cancelled turn is not remembered"
    );
    let statuses: Vec<_> = world.runs().iter().map(|run| run["status"].clone()).collect();
    assert_eq!(statuses, [json!("completed"), json!("cancelled"), json!("completed")]);
    let history = std::fs::read_to_string(world.path("data/forge/chat_history")).expect("a history");
    assert!(history.contains("Take your time"), "{history}");
}

#[test]
fn a_routers_words_stream_without_their_json() {
    // The tool stands first, as the router's grammar has it.
    let reply = r#"{"tool": "chat", "content": "The answer is 42."}"#;
    let server = ModelServer::start(ReplyScript::from_replies([MockReply::text(reply)]));
    let mut world = World::new();
    let flags = world.uses(&server, VendorFormat::OpenAi);
    let words = [&flags[..], &["--executor", "router"]].concat();
    let Some(mut terminal) = Terminal::open(&world, &words) else { return };
    terminal.shows("› ");
    terminal.types("What is it?\r");
    terminal.shows("The answer is 42.");
    terminal.shows_after("The answer is 42.", "› ");
    terminal.types("!exit\r");
    terminal.ends();
    let screen = terminal.screen.lock().expect("no panic").clone();
    assert!(!screen.contains("\"tool\""), "{screen}");
    assert_eq!(screen.matches("The answer is 42.").count(), 1, "once: {screen}");
}
