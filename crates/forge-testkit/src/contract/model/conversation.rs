//! Cases about conversations: tool calls, results, the system prompt, opaque state, stable prefixes.

use forge_types::{FinishReason, Message, ModelRoute};
use serde_json::{Value, json};

use super::{
    AdapterSetup, Fixture, admitted_message, assistant_message, hello_messages, model_request, reply_calls,
    reply_text, result_messages, strip_state,
};
use crate::model_server::{
    MockFinish as Stop, MockReply, ModelServer, ModelServerSettings, ReplyScript, SeenRole, VendorFormat,
};

/// Several calls in one reply come in order, with ids and arguments.
pub async fn parallel_tool_calls(fixture: &dyn Fixture) {
    let reply = MockReply::text("I will look.")
        .and_call("call_x", "read_file", json!({"path": "a ü.rs", "deep": {"list": [1, 2.5, null]}}))
        .and_call("call_y", "list_files", json!({}));
    let reply = AdapterSetup::with_replies(fixture, [reply]).expect_reply().await;
    assert_eq!(reply_text(&reply), "I will look.");
    assert_eq!(reply.finish, FinishReason::ToolCalls);
    let calls = reply_calls(&reply);
    assert_eq!(calls.iter().map(|call| call.name.as_str()).collect::<Vec<_>>(), ["read_file", "list_files"]);
    let ids = if fixture.vendor_format().has_call_ids() { ["call_x", "call_y"] } else { ["", ""] };
    assert_eq!(calls.iter().map(|call| call.id.as_str()).collect::<Vec<_>>(), ids);
    let arguments: Value = serde_json::from_str(&calls[0].arguments).expect("JSON");
    assert_eq!(arguments, json!({"path": "a ü.rs", "deep": {"list": [1, 2.5, null]}}));
    assert!(calls[1].arguments.parsed().expect("an object").is_empty());
}

/// Results reach the model behind the calls they answer, in order, failures too.
pub async fn tool_results_go_back(fixture: &dyn Fixture) {
    let stage = AdapterSetup::with_replies(
        fixture,
        [
            MockReply::call("read_file", json!({"path": "a"})).and_call("call_2", "list_files", json!({})),
            MockReply::call("list_files", json!({})),
            MockReply::text("done"),
        ],
    );
    let mut messages = hello_messages();
    for ok in [true, false] {
        let message = admitted_message(&stage.ask_model(messages.clone()).await.expect("calls"));
        messages.push(message.clone());
        messages.extend(result_messages(&message, ok));
    }
    assert_eq!(
        reply_text(&stage.ask_model(messages).await.expect("the server takes the conversation")),
        "done"
    );
    let last = stage.server.model_calls().pop().expect("three requests");
    let roles: Vec<_> = last.messages.iter().map(|message| message.role).collect();
    assert_eq!(
        roles,
        [
            SeenRole::User,
            SeenRole::Assistant,
            SeenRole::Tool,
            SeenRole::Tool,
            SeenRole::Assistant,
            SeenRole::Tool
        ],
        "two results, then one"
    );
    let results: Vec<_> = last.messages.iter().filter(|message| message.role == SeenRole::Tool).collect();
    assert_eq!(results[0].text, "result of read_file ü");
    assert_eq!(results[1].text, "result of list_files ü");
    assert_eq!(last.messages[1].tool_calls[0].arguments, json!({"path": "a"}));
}

/// The system prompt is sent as one, never as a user message.
pub async fn the_system_prompt_stays_one(fixture: &dyn Fixture) {
    let stage = AdapterSetup::with_replies(fixture, [MockReply::text("ok")]);
    stage.expect_reply().await;
    let call = &stage.server.model_calls()[0];
    assert_eq!(call.system, "You are careful.");
    assert_eq!(call.messages.len(), 1);
    assert_eq!(call.last_user_text(), "hello");
}

/// Tools are offered with purpose and parameters.
pub async fn tools_are_offered(fixture: &dyn Fixture) {
    let stage = AdapterSetup::with_replies(fixture, [MockReply::text("ok")]);
    stage.expect_reply().await;
    let call = &stage.server.model_calls()[0];
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
        let stage = AdapterSetup::with_replies(
            fixture,
            [MockReply::default().and_raw_call("c1", "read_file", broken), MockReply::text("sorry")],
        );
        let reply = stage.expect_reply().await;
        let call = reply_calls(&reply).remove(0);
        let (got, sent): (Result<Value, _>, Result<Value, _>) =
            (serde_json::from_str(&call.arguments), serde_json::from_str(broken));
        match sent {
            Ok(sent) => assert_eq!(got.expect("JSON stays JSON"), sent),
            Err(_) => assert_eq!(call.arguments, broken),
        }
        assert!(call.arguments.parsed().is_err(), "the caller is told that {broken} can't be used");
        let mut messages = hello_messages();
        messages.push(assistant_message(&reply));
        messages.extend(result_messages(&assistant_message(&reply), false));
        assert_eq!(reply_text(&stage.ask_model(messages).await.expect("the service takes it back")), "sorry");
    }
}

/// Two calls with one id arrive as two calls with one id.
pub async fn duplicate_ids_are_delivered_as_they_are(fixture: &dyn Fixture) {
    let reply = MockReply::default().and_call("same", "read_file", json!({"path": "a"})).and_call(
        "same",
        "read_file",
        json!({"path": "b"}),
    );
    let reply = AdapterSetup::with_replies(fixture, [reply]).expect_reply().await;
    let calls = reply_calls(&reply);
    assert_eq!(calls.len(), 2);
    let id = if fixture.vendor_format().has_call_ids() { "same" } else { "" };
    assert!(calls.iter().all(|call| call.id == id));
    assert!(calls[0].arguments.contains("\"a\"") && calls[1].arguments.contains("\"b\""));
}

/// A tool that does not exist is for the caller to judge; so is a call that the token limit cut.
pub async fn unknown_tools_are_delivered_as_they_are(fixture: &dyn Fixture) {
    let reply = MockReply::call("no_such_tool", json!({"x": 1})).with_finish(Stop::Length);
    let reply = AdapterSetup::with_replies(fixture, [reply]).expect_reply().await;
    assert_eq!(reply_calls(&reply)[0].name, "no_such_tool");
    assert_eq!(reply.finish, FinishReason::Length);
}

/// A reply with whatever opaque state the shape has.
fn stateful_reply() -> MockReply {
    let mut reply = MockReply::text("with state")
        .with_thinking("deep thought", Some("c2lnLXRleHQ="))
        .and_call("call_s", "read_file", json!({"path": "a"}))
        .signed("c2lnLWNhbGw=");
    if let Some(thinking) = &mut reply.thinking {
        thinking.redacted = Some("cmVkYWN0ZWQ=".to_owned());
    }
    reply
}

/// What must be found in the next request's messages, per shape.
fn state_markers(shape: VendorFormat) -> &'static [&'static str] {
    match shape {
        VendorFormat::OpenAi => {
            &[r#""reasoning_details":[{"#, r#""signature":"c2lnLXRleHQ=""#, r#""text":"deep thought""#]
        }
        VendorFormat::Anthropic => &[
            r#""signature":"c2lnLXRleHQ=""#,
            r#""thinking":"deep thought""#,
            r#"{"data":"cmVkYWN0ZWQ=","type":"redacted_thinking"}"#,
        ],
        VendorFormat::Gemini => {
            &[r#""thoughtSignature":"c2lnLWNhbGw=""#, r#""thoughtSignature":"c2lnLXRleHQ=""#]
        }
        VendorFormat::Responses => &[
            r#"{"encrypted_content":"c2lnLXRleHQ=","id":"rs_scripted","#,
            r#""summary":[{"text":"deep thought","type":"summary_text"}],"type":"reasoning"}"#,
        ],
        VendorFormat::Ollama | VendorFormat::Generate | VendorFormat::Completion => &[],
    }
}

async fn second_request(fixture: &dyn Fixture, route: &ModelRoute, keep_state: bool) -> (Value, String) {
    let stage = AdapterSetup::with_replies(fixture, [stateful_reply(), MockReply::text("done")]);
    let reply = stage.expect_reply().await;
    let mut message = assistant_message(&reply);
    if !keep_state {
        message.parts = message.parts.iter().map(strip_state).collect();
    }
    let mut messages = hello_messages();
    messages.push(message.clone());
    messages.extend(result_messages(&message, true));
    stage.model.request_reply(model_request(route, messages), &()).await.expect("an answer");
    let request = stage.server.recorded_requests().pop().expect("two requests");
    (request.json, String::from_utf8(request.body).expect("UTF-8"))
}

/// Signatures and encrypted reasoning go back to where they came from, on the parts they came with.
pub async fn opaque_state_goes_back_verbatim(fixture: &dyn Fixture) {
    let (json, body) = second_request(fixture, &fixture.route(), true).await;
    for mark in state_markers(fixture.vendor_format()) {
        assert!(body.contains(mark), "{mark} is missing in {body}");
    }
    match fixture.vendor_format() {
        VendorFormat::Gemini => {
            let parts = json["contents"][1]["parts"].as_array().expect("parts").clone();
            let call = parts.iter().find(|part| !part["functionCall"].is_null()).expect("the call");
            assert_eq!(call["thoughtSignature"], "c2lnLWNhbGw=", "on the part that carried it");
            assert_eq!(call["functionCall"]["id"], "call_s");
            assert_eq!(json["contents"][2]["parts"][0]["functionResponse"]["id"], "call_s");
        }
        VendorFormat::Anthropic => {
            assert_eq!(json["messages"][1]["content"][0]["type"], "thinking", "first of all")
        }
        VendorFormat::Responses => assert_eq!(json["input"][1]["type"], "reasoning", "before what it led to"),
        VendorFormat::OpenAi | VendorFormat::Ollama | VendorFormat::Generate | VendorFormat::Completion => {}
    }
}

/// Another model never sees state that it did not make; neither does anyone if it was dropped.
pub async fn foreign_state_is_not_sent(fixture: &dyn Fixture) {
    let other = ModelRoute { model: "another-model".to_owned(), ..fixture.route() };
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
        stateful_reply(),
        MockReply::text("b").and_call("call_2", "list_files", json!({"z": 1, "a": 2})),
        MockReply::default().and_raw_call("call_3", "read_file", "{broken"),
        MockReply::text("d"),
        MockReply::text("d"),
    ];
    let server = ModelServer::start_with(ReplyScript::from_replies(replies), ModelServerSettings::default())
        .expect("a server");
    let stage = AdapterSetup::with_server(fixture, server);
    let mut messages = hello_messages();
    for turn in 0..3 {
        let message = assistant_message(&stage.ask_model(messages.clone()).await.expect("an answer"));
        messages.push(message.clone());
        messages.extend(result_messages(&message, turn != 1));
    }
    stage.ask_model(messages.clone()).await.expect("an answer");
    stage.ask_model(messages).await.expect("the same again");
    let bodies = request_bodies(&stage, fixture.vendor_format());
    assert_eq!(bodies[3], bodies[4]);
    extend_each_other(&bodies[..4]);
}

/// So do the requests of a long conversation: what a provider has cached of one serves the next.
pub async fn fifty_steps_extend_each_other(fixture: &dyn Fixture) {
    let script = ReplyScript::always(|call| match call.turn_index() {
        49.. => MockReply::text("done"),
        turn if turn % 7 == 3 => stateful_reply(),
        turn => MockReply::text(format!("step {turn} ü"))
            .and_call(format!("call_{turn}"), "read_file", json!({"path": format!("{turn}.rs")}))
            .and_call(format!("more_{turn}"), "list_files", json!({})),
    });
    let stage = AdapterSetup::new(fixture, script);
    let mut messages = hello_messages();
    for _ in 0..50 {
        let message = assistant_message(&stage.ask_model(messages.clone()).await.expect("an answer"));
        messages.push(message.clone());
        messages.extend(result_messages(&message, true));
    }
    let bodies = request_bodies(&stage, fixture.vendor_format());
    assert_eq!(bodies.len(), 50);
    extend_each_other(&bodies);
}

/// The bytes of all model calls, without what may move: marks of where to cache, the slot that a server named.
fn request_bodies(stage: &AdapterSetup, shape: VendorFormat) -> Vec<String> {
    let calls = stage.server.model_calls().into_iter();
    calls
        .map(|call| {
            let body = String::from_utf8(call.http.body).expect("UTF-8");
            match shape {
                VendorFormat::Anthropic => body.replace(r#","cache_control":{"type":"ephemeral"}"#, ""),
                VendorFormat::Completion => body.replace(r#","id_slot":0}"#, "}"),
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
    let stage = AdapterSetup::with_replies(fixture, [MockReply::text("a"), MockReply::text("b")]);
    let mut set = stage.build_request(hello_messages());
    set.settings.temperature = Some(0.25);
    set.settings.max_tokens = Some(77);
    stage.model.request_reply(set, &()).await.expect("an answer");
    let mut unset = stage.build_request(vec![Message::user("x")]);
    unset.settings.max_tokens = None;
    stage.model.request_reply(unset, &()).await.expect("an answer");
    let calls = stage.server.model_calls();
    assert_eq!(calls[0].max_tokens, Some(77));
    let body = |at: usize| String::from_utf8_lossy(&calls[at].http.body).into_owned();
    assert!(body(0).contains("\"temperature\":0.25"));
    assert!(!body(1).contains("temperature") && !body(1).contains("top_p"));
    // One format makes the limit mandatory, and one server would never stop without.
    let limited = matches!(fixture.vendor_format(), VendorFormat::Anthropic | VendorFormat::Completion);
    assert_eq!(calls[1].max_tokens.is_some(), limited);
    assert!(calls.iter().all(|call| call.stream));
    assert_eq!(calls[0].messages.len(), 1, "only the question");
}
