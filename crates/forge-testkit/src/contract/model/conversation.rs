//! Cases about conversations: tool calls, results, the system prompt, opaque state, stable prefixes.

use forge_types::{Finish, Message, Route};
use serde_json::{Value, json};

use super::{Fixture, Stage, admitted, calls, hello, request, results, said, stripped, text};
use crate::model_server::{Finish as Stop, ModelServer, Reply, Role, Script, Settings, Shape};

/// Several calls in one reply come in order, with ids and arguments.
pub async fn parallel_tool_calls(fixture: &dyn Fixture) {
    let reply = Reply::text("I will look.")
        .and_call("call_x", "read_file", json!({"path": "a ü.rs", "deep": {"list": [1, 2.5, null]}}))
        .and_call("call_y", "list_files", json!({}));
    let reply = Stage::of(fixture, [reply]).answer().await;
    assert_eq!(text(&reply), "I will look.");
    assert_eq!(reply.finish, Finish::ToolCalls);
    let calls = calls(&reply);
    assert_eq!(calls.iter().map(|call| call.name.as_str()).collect::<Vec<_>>(), ["read_file", "list_files"]);
    let ids = if fixture.shape().has_call_ids() { ["call_x", "call_y"] } else { ["", ""] };
    assert_eq!(calls.iter().map(|call| call.id.as_str()).collect::<Vec<_>>(), ids);
    let arguments: Value = serde_json::from_str(&calls[0].arguments).expect("JSON");
    assert_eq!(arguments, json!({"path": "a ü.rs", "deep": {"list": [1, 2.5, null]}}));
    assert!(calls[1].parsed().expect("an object").is_empty());
}

/// Results reach the model behind the calls they answer, in order, failures too.
pub async fn tool_results_go_back(fixture: &dyn Fixture) {
    let stage = Stage::of(
        fixture,
        [
            Reply::call("read_file", json!({"path": "a"})).and_call("call_2", "list_files", json!({})),
            Reply::call("list_files", json!({})),
            Reply::text("done"),
        ],
    );
    let mut messages = hello();
    for ok in [true, false] {
        let message = admitted(&stage.ask(messages.clone()).await.expect("calls"));
        messages.push(message.clone());
        messages.extend(results(&message, ok));
    }
    assert_eq!(text(&stage.ask(messages).await.expect("the server takes the conversation")), "done");
    let last = stage.server.calls().pop().expect("three requests");
    let roles: Vec<_> = last.messages.iter().map(|message| message.role).collect();
    assert_eq!(
        roles,
        [Role::User, Role::Assistant, Role::Tool, Role::Tool, Role::Assistant, Role::Tool],
        "two results, then one"
    );
    let results: Vec<_> = last.messages.iter().filter(|message| message.role == Role::Tool).collect();
    assert_eq!(results[0].text, "result of read_file ü");
    assert_eq!(results[1].text, "result of list_files ü");
    assert_eq!(last.messages[1].tool_calls[0].arguments, json!({"path": "a"}));
}

/// The system prompt is sent as one, never as a user message.
pub async fn the_system_prompt_stays_one(fixture: &dyn Fixture) {
    let stage = Stage::of(fixture, [Reply::text("ok")]);
    stage.answer().await;
    let call = &stage.server.calls()[0];
    assert_eq!(call.system, "You are careful.");
    assert_eq!(call.messages.len(), 1);
    assert_eq!(call.last_user_text(), "hello");
}

/// Tools are offered with purpose and parameters.
pub async fn tools_are_offered(fixture: &dyn Fixture) {
    let stage = Stage::of(fixture, [Reply::text("ok")]);
    stage.answer().await;
    let call = &stage.server.calls()[0];
    assert_eq!(
        call.tools.iter().map(|tool| tool.name.as_str()).collect::<Vec<_>>(),
        ["read_file", "list_files"]
    );
    assert_eq!(call.tools[0].description, "does read_file");
    assert_eq!(call.tools[0].parameters["properties"]["path"]["type"], "string");
    assert_eq!(call.tools[0].parameters["required"], json!(["path"]));
}

/// Arguments that are no JSON arrive as the model wrote them, and the conversation goes on afterwards.
pub async fn broken_arguments_are_delivered_as_they_are(fixture: &dyn Fixture) {
    for broken in ["{\"path\": \"a", "path=a", "[1, 2]"] {
        let stage = Stage::of(
            fixture,
            [Reply::default().and_raw_call("c1", "read_file", broken), Reply::text("sorry")],
        );
        let reply = stage.answer().await;
        let call = calls(&reply).remove(0);
        let (got, sent): (Result<Value, _>, Result<Value, _>) =
            (serde_json::from_str(&call.arguments), serde_json::from_str(broken));
        match sent {
            Ok(sent) => assert_eq!(got.expect("JSON stays JSON"), sent),
            Err(_) => assert_eq!(call.arguments, broken),
        }
        assert!(call.parsed().is_err(), "the caller is told that {broken} can't be used");
        let mut messages = hello();
        messages.push(said(&reply));
        messages.extend(results(&said(&reply), false));
        assert_eq!(text(&stage.ask(messages).await.expect("the service takes it back")), "sorry");
    }
}

/// Two calls with one id arrive as two calls with one id.
pub async fn duplicate_ids_are_delivered_as_they_are(fixture: &dyn Fixture) {
    let reply = Reply::default().and_call("same", "read_file", json!({"path": "a"})).and_call(
        "same",
        "read_file",
        json!({"path": "b"}),
    );
    let reply = Stage::of(fixture, [reply]).answer().await;
    let calls = calls(&reply);
    assert_eq!(calls.len(), 2);
    let id = if fixture.shape().has_call_ids() { "same" } else { "" };
    assert!(calls.iter().all(|call| call.id == id));
    assert!(calls[0].arguments.contains("\"a\"") && calls[1].arguments.contains("\"b\""));
}

/// A tool that does not exist is for the caller to judge; so is a call that the token limit cut.
pub async fn unknown_tools_are_delivered_as_they_are(fixture: &dyn Fixture) {
    let reply = Reply::call("no_such_tool", json!({"x": 1})).with_finish(Stop::Length);
    let reply = Stage::of(fixture, [reply]).answer().await;
    assert_eq!(calls(&reply)[0].name, "no_such_tool");
    assert_eq!(reply.finish, Finish::Length);
}

/// A reply with whatever opaque state the shape has.
fn stateful() -> Reply {
    let mut reply = Reply::text("with state")
        .with_thinking("deep thought", Some("c2lnLXRleHQ="))
        .and_call("call_s", "read_file", json!({"path": "a"}))
        .signed("c2lnLWNhbGw=");
    if let Some(thinking) = &mut reply.thinking {
        thinking.redacted = Some("cmVkYWN0ZWQ=".to_owned());
    }
    reply
}

/// What must be found in the next request's messages, per shape.
fn marks(shape: Shape) -> &'static [&'static str] {
    match shape {
        Shape::OpenAi => {
            &[r#""reasoning_details":[{"#, r#""signature":"c2lnLXRleHQ=""#, r#""text":"deep thought""#]
        }
        Shape::Anthropic => &[
            r#""signature":"c2lnLXRleHQ=""#,
            r#""thinking":"deep thought""#,
            r#"{"data":"cmVkYWN0ZWQ=","type":"redacted_thinking"}"#,
        ],
        Shape::Gemini => &[r#""thoughtSignature":"c2lnLWNhbGw=""#, r#""thoughtSignature":"c2lnLXRleHQ=""#],
        Shape::Responses => &[
            r#"{"encrypted_content":"c2lnLXRleHQ=","id":"rs_scripted","#,
            r#""summary":[{"text":"deep thought","type":"summary_text"}],"type":"reasoning"}"#,
        ],
        Shape::Ollama | Shape::Generate | Shape::Completion => &[],
    }
}

async fn second_request(fixture: &dyn Fixture, route: &Route, keep_state: bool) -> (Value, String) {
    let stage = Stage::of(fixture, [stateful(), Reply::text("done")]);
    let reply = stage.answer().await;
    let mut message = said(&reply);
    if !keep_state {
        message.parts = message.parts.iter().map(stripped).collect();
    }
    let mut messages = hello();
    messages.push(message.clone());
    messages.extend(results(&message, true));
    stage.model.reply(request(route, messages), &()).await.expect("an answer");
    let request = stage.server.requests().pop().expect("two requests");
    (request.json, String::from_utf8(request.body).expect("UTF-8"))
}

/// Signatures and encrypted reasoning go back to where they came from, on the parts they came with.
pub async fn opaque_state_goes_back_verbatim(fixture: &dyn Fixture) {
    let (json, body) = second_request(fixture, &fixture.route(), true).await;
    for mark in marks(fixture.shape()) {
        assert!(body.contains(mark), "{mark} is missing in {body}");
    }
    match fixture.shape() {
        Shape::Gemini => {
            let parts = json["contents"][1]["parts"].as_array().expect("parts").clone();
            let call = parts.iter().find(|part| !part["functionCall"].is_null()).expect("the call");
            assert_eq!(call["thoughtSignature"], "c2lnLWNhbGw=", "on the part that carried it");
            assert_eq!(call["functionCall"]["id"], "call_s");
            assert_eq!(json["contents"][2]["parts"][0]["functionResponse"]["id"], "call_s");
        }
        Shape::Anthropic => assert_eq!(json["messages"][1]["content"][0]["type"], "thinking", "first of all"),
        Shape::Responses => assert_eq!(json["input"][1]["type"], "reasoning", "before what it led to"),
        Shape::OpenAi | Shape::Ollama | Shape::Generate | Shape::Completion => {}
    }
}

/// Another model never sees state that it did not make; neither does anyone if it was dropped.
pub async fn foreign_state_is_not_sent(fixture: &dyn Fixture) {
    let other = Route { model: "another-model".to_owned(), ..fixture.route() };
    for (route, keep_state) in [(&other, true), (&fixture.route(), false)] {
        let (_, body) = second_request(fixture, route, keep_state).await;
        for secret in ["c2lnLXRleHQ=", "c2lnLWNhbGw=", "cmVkYWN0ZWQ=", "deep thought"] {
            assert!(!body.contains(secret), "{secret} went to {route}: {body}");
        }
    }
}

/// A longer conversation extends a shorter one's bytes; the same request has the same bytes.
pub async fn each_request_extends_the_one_before(fixture: &dyn Fixture) {
    let replies = [
        stateful(),
        Reply::text("b").and_call("call_2", "list_files", json!({"z": 1, "a": 2})),
        Reply::default().and_raw_call("call_3", "read_file", "{broken"),
        Reply::text("d"),
        Reply::text("d"),
    ];
    let server = ModelServer::start_with(Script::of(replies), Settings::default()).expect("a server");
    let stage = Stage::on(fixture, server);
    let mut messages = hello();
    for turn in 0..3 {
        let message = said(&stage.ask(messages.clone()).await.expect("an answer"));
        messages.push(message.clone());
        messages.extend(results(&message, turn != 1));
    }
    stage.ask(messages.clone()).await.expect("an answer");
    stage.ask(messages).await.expect("the same again");
    let bodies = bodies(&stage, fixture.shape());
    assert_eq!(bodies[3], bodies[4]);
    extend_each_other(&bodies[..4]);
}

/// So do the requests of a long conversation: what a provider has cached of one serves the next.
pub async fn fifty_steps_extend_each_other(fixture: &dyn Fixture) {
    let script = Script::always(|call| match call.turn() {
        49.. => Reply::text("done"),
        turn if turn % 7 == 3 => stateful(),
        turn => Reply::text(format!("step {turn} ü"))
            .and_call(format!("call_{turn}"), "read_file", json!({"path": format!("{turn}.rs")}))
            .and_call(format!("more_{turn}"), "list_files", json!({})),
    });
    let stage = Stage::new(fixture, script);
    let mut messages = hello();
    for _ in 0..50 {
        let message = said(&stage.ask(messages.clone()).await.expect("an answer"));
        messages.push(message.clone());
        messages.extend(results(&message, true));
    }
    let bodies = bodies(&stage, fixture.shape());
    assert_eq!(bodies.len(), 50);
    extend_each_other(&bodies);
}

/// The bytes of all model calls, without what may move: marks of where to cache, the slot that a server named.
fn bodies(stage: &Stage, shape: Shape) -> Vec<String> {
    let calls = stage.server.calls().into_iter();
    calls
        .map(|call| {
            let body = String::from_utf8(call.http.body).expect("UTF-8");
            match shape {
                Shape::Anthropic => body.replace(r#","cache_control":{"type":"ephemeral"}"#, ""),
                Shape::Completion => body.replace(r#","id_slot":0}"#, "}"),
                _ => body,
            }
        })
        .collect()
}

fn extend_each_other(bodies: &[String]) {
    for pair in bodies.windows(2) {
        // The conversation stands last: all that ends a body is its list or text, and the object around it.
        let shorter = pair[0].strip_suffix("]}").or_else(|| pair[0].strip_suffix("\"}"));
        let shorter = shorter.expect("the conversation stands last");
        assert!(pair[1].starts_with(shorter), "{}\nis not extended by\n{}", pair[0], pair[1]);
    }
}

/// What is not set is not sent.
pub async fn settings_are_sent_only_when_set(fixture: &dyn Fixture) {
    let stage = Stage::of(fixture, [Reply::text("a"), Reply::text("b")]);
    let mut set = stage.request(hello());
    set.settings.temperature = Some(0.25);
    set.settings.max_tokens = Some(77);
    stage.model.reply(set, &()).await.expect("an answer");
    let mut unset = stage.request(vec![Message::user("x")]);
    unset.settings.max_tokens = None;
    stage.model.reply(unset, &()).await.expect("an answer");
    let calls = stage.server.calls();
    assert_eq!(calls[0].max_tokens, Some(77));
    let body = |at: usize| String::from_utf8_lossy(&calls[at].http.body).into_owned();
    assert!(body(0).contains("\"temperature\":0.25"));
    assert!(!body(1).contains("temperature") && !body(1).contains("top_p"));
    // One format makes the limit mandatory, and one server would never stop without.
    let limited = matches!(fixture.shape(), Shape::Anthropic | Shape::Completion);
    assert_eq!(calls[1].max_tokens.is_some(), limited);
    assert!(calls.iter().all(|call| call.stream));
    assert_eq!(calls[0].messages.len(), 1, "only the question");
}
