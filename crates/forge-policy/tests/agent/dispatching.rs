//! Stories of the router: one reply, one tool, and how that ends.

use super::*;
use forge_policy::router::{AgentResult, route_reply};

fn router(max_steps: u32) -> Plan {
    let mut plan = plan();
    plan.agent_mut().expect("an agent").tools.push(tool("chat", ToolAccess::Nothing, "content"));
    plan.agent_mut().expect("an agent").executor = Executor::Router { max_steps, debug: false };
    plan
}

/// `reply: TEXT` is what the router's model wrote; `failed: TEXT` a tool's failure.
fn told(max_steps: u32, story: &str) -> (String, AgentResult) {
    let mut world = World::new(router(max_steps));
    for line in story.lines() {
        let _ = writeln!(world.log, "{line}");
        match line.split_once(": ") {
            Some(("reply", text)) => {
                let parts = vec![MessagePart::text(text)];
                let usage = Usage { input: 100, output: 10, known: true, ..Usage::default() };
                let reply = ModelReply {
                    parts,
                    usage,
                    model: "m".into(),
                    finish: FinishReason::Length,
                    latency_ms: 1,
                };
                let (reply, _) = route_reply(reply, &world.plan.agent().expect("an agent").agent.tools);
                world.model(Outcome::Replied { reply, cost: Some(Money(1)) });
            }
            Some(("failed", text)) => {
                world.tool(Outcome::ToolDone { output: ToolOutput::failed(ErrorKind::Execution, text) });
            }
            _ if line == "empty" => world.tool(Outcome::ToolDone { output: ToolOutput::ok("") }),
            _ => world.happen(line),
        }
        world.decide();
    }
    let result = AgentResult::from_state(&world.state);
    (world.log, result)
}

fn ends(max_steps: u32, story: &str, last: &str, output: &str) -> AgentResult {
    let (log, result) = told(max_steps, story);
    assert!(log.trim_end().ends_with(last), "{log}");
    assert_eq!(result.output, output, "{log}");
    result
}

const CHAT: &str = r#"reply: {"tool":"chat","content":"hi"}"#;
const READ: &str = r#"reply: {"tool":"read","content":"a","done":false}"#;

#[test]
fn the_tools_output_is_the_answer() {
    let result = ends(1, &format!("begin\n{CHAT}\ntool: hi"), "=> completed", "hi");
    let wanted =
        AgentResult { output: "hi".into(), tool: Some("chat".into()), steps: 1, ok: true, error: None };
    assert_eq!(result, wanted);
}

#[test]
fn one_step_is_one_call_and_one_tool() {
    let (log, _) = told(1, &format!("begin\n{CHAT}\ntool: hi"));
    assert_eq!(
        log,
        "begin\n  running\n  ask #1 turn 1.1 max 1000\nreply: {\"tool\":\"chat\",\"content\":\"hi\"}\n  run #2 chat call_1_1.1\n\
         tool: hi\n  => completed\n"
    );
}

#[test]
fn a_step_is_never_dispatched_twice() {
    let story = format!("begin\n{READ}\ntool: A\n{READ}");
    let sentence = "Stopped: the router tried to repeat the same step.";
    let result = ends(3, &story, &format!("=> failed: {sentence} (loop_guard)"), sentence);
    assert_eq!((result.steps, result.ok), (1, false));
    // Another content is another step.
    let other = READ.replace("\"a\"", "\"b\"");
    ends(2, &format!("begin\n{READ}\ntool: A\n{other}\ntool: B"), "(budget_exceeded)", "B");
}

#[test]
fn wanting_more_than_is_allowed_ends_with_the_limit() {
    let result = ends(1, &format!("begin\n{READ}\ntool: A"), "(router.max_steps) (budget_exceeded)", "A");
    assert!(!result.ok);
    let (log, _) = told(1, &format!("begin\n{READ}\ntool: A"));
    assert!(log.contains("=> timed_out [steps]: the router asked for more than one step"), "{log}");
}

#[test]
fn a_tool_that_fails_or_says_nothing_is_named() {
    ends(
        1,
        &format!("begin\n{CHAT}\nfailed: broken"),
        "Tool error: chat: broken (execution)",
        "Tool error: chat",
    );
    ends(1, &format!("begin\n{CHAT}\nempty"), "Tool error: chat (empty_output)", "Tool error: chat");
    // Where more steps were wanted and are left, the model sees the failure and may choose again.
    let story = format!("begin\n{READ}\nfailed: no such file\n{CHAT}\ntool: hi");
    ends(2, &story, "=> completed", "hi");
}

#[test]
fn no_reply_and_no_model_are_fixed_sentences() {
    let sentence = "I could not generate a response. Please try again.";
    ends(1, "begin\nreply:  ", "(router_parse)", sentence);
    ends(1, "begin\nmodel fails: auth!", "it said auth! (auth)", "The model backend is unavailable.");
}

#[test]
fn a_crash_in_a_step_repeats_it_and_a_cancel_ends_it() {
    let (log, _) = told(1, &format!("begin\n{CHAT}\ncrash\ntool: hi"));
    assert!(log.contains("crash\n  run #3 chat call_1_1.2\ntool: hi\n  => completed"), "{log}");
    let (log, _) = told(1, &format!("begin\n{CHAT}\ncancel\ntool cancelled"));
    assert!(log.trim_end().ends_with("=> cancelled"), "{log}");
}

#[test]
fn refused_calls_are_failures_of_their_tool() {
    let story = "begin\nreply: {\"tool\":\"shell\",\"content\":\"sudo rm -rf /\"}";
    let (log, result) = told(1, story);
    assert!(log.contains("refuse call_1_1"), "{log}");
    assert_eq!(result.output, "Tool error: shell");
}
