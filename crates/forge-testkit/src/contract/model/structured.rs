//! Cases about replies in JSON: asked for in the provider's own way, checked, with a word on what is wrong.

use forge_types::{ErrorKind, FinishReason, JsonFormat, ModelRequest, OnSchemaMismatch, ReplyFormat};
use serde_json::{Value, json};

use super::{AdapterSetup, Fixture, hello_messages, reply_calls, reply_text};
use crate::model_server::{MockFinish as Stop, MockReply, ReplyScript};

/// The form of a router's decision.
pub(super) fn decision_format() -> JsonFormat {
    let schema = json!({
        "type": "object",
        "properties": {
            "tool": {"type": "string", "enum": ["chat", "code"]},
            "content": {"type": "string", "minLength": 1},
        },
        "required": ["tool", "content"],
        "additionalProperties": false,
    });
    JsonFormat { name: "decision".to_owned(), schema, grammar: None, unfit: OnSchemaMismatch::Refuse }
}

fn structured_request(stage: &AdapterSetup) -> ModelRequest {
    let mut request = stage.build_request(hello_messages());
    request.tools.clear();
    request.format = ReplyFormat::Json(decision_format());
    request
}

/// What a model says that was asked for this: a call where the form is a tool, else text.
fn structured_script(said: &Value) -> ReplyScript {
    let said = said.clone();
    ReplyScript::always(move |call| match call.offers_tool("decision") {
        true => MockReply::call("decision", said.clone()),
        false => MockReply::text(said.to_string()),
    })
}

/// The schema is sent, a reply that fits is text and nothing else, one that does not is malformed.
pub async fn replies_in_json_are_asked_for_and_checked(fixture: &dyn Fixture) {
    let good = json!({"tool": "chat", "content": "Grüße"});
    let stage = AdapterSetup::new(fixture, structured_script(&good));
    let reply = stage.model.request_reply(structured_request(&stage), &()).await.expect("an answer");
    assert_eq!(serde_json::from_str::<Value>(&reply_text(&reply)).expect("nothing but JSON"), good);
    assert_eq!(reply.finish, FinishReason::Stop);
    assert!(reply_calls(&reply).is_empty());
    let request = stage.server.model_calls().remove(0).http;
    assert!(String::from_utf8_lossy(&request.body).contains("minLength"), "the schema is sent");
    for (bad, about) in [
        (json!({"tool": "chat", "content": ""}), "content"),
        (json!({"tool": "sing", "content": "x"}), "tool"),
        (json!({"tool": "chat"}), "content"),
        (json!({"tool": "chat", "content": "x", "mood": 1}), "mood"),
        (json!([1]), "object"),
    ] {
        let stage = AdapterSetup::new(fixture, structured_script(&bad));
        let error =
            stage.model.request_reply(structured_request(&stage), &()).await.expect_err("it does not fit");
        assert_eq!(error.kind, ErrorKind::MalformedResponse, "{error}");
        assert!(error.class().retryable() && error.message.contains(about), "{error}");
        assert_eq!(stage.server.model_calls().len(), 1, "asking again is decided elsewhere");
    }
    let stage = AdapterSetup::with_replies(fixture, [MockReply::text("Sure, here you are!")]);
    let error = stage.model.request_reply(structured_request(&stage), &()).await.expect_err("no JSON");
    assert_eq!(error.kind, ErrorKind::MalformedResponse, "{error}");
    let mut lenient = structured_request(&stage);
    lenient.format = ReplyFormat::Json(JsonFormat { unfit: OnSchemaMismatch::Pass, ..decision_format() });
    stage.server.set_script(ReplyScript::from_replies([MockReply::text("Sure, here you are!")]));
    let reply = stage.model.request_reply(lenient, &()).await.expect("whoever asked makes the best of it");
    assert_eq!(reply_text(&reply), "Sure, here you are!");
    let fenced = format!("```json\n{good}\n```");
    let stage = AdapterSetup::with_replies(fixture, [MockReply::text(fenced)]);
    let reply =
        stage.model.request_reply(structured_request(&stage), &()).await.expect("a fence does no harm");
    assert_eq!(reply_text(&reply), good.to_string());
    // What the limit cut is for the caller to judge.
    let stage =
        AdapterSetup::with_replies(fixture, [MockReply::text("{\"tool\": \"ch").with_finish(Stop::Length)]);
    let reply =
        stage.model.request_reply(structured_request(&stage), &()).await.expect("a cut answer is an answer");
    assert_eq!(reply.finish, FinishReason::Length);
}

/// Tools may be offered at the same time: then a reply is calls, or JSON of the form.
pub async fn a_reply_in_json_may_stand_beside_tools(fixture: &dyn Fixture) {
    let good = json!({"tool": "code", "content": "print()"});
    let stage = AdapterSetup::new(fixture, structured_script(&good));
    let mut request = stage.build_request(hello_messages());
    request.format = ReplyFormat::Json(decision_format());
    let reply = stage.model.request_reply(request.clone(), &()).await.expect("an answer");
    assert_eq!(serde_json::from_str::<Value>(&reply_text(&reply)).expect("JSON"), good);
    let seen = stage.server.model_calls().remove(0);
    assert!(seen.offers_tool("read_file"));
    stage.server.set_script(ReplyScript::from_replies([MockReply::call("read_file", json!({"path": "a"}))]));
    let reply = stage.model.request_reply(request, &()).await.expect("an answer");
    assert_eq!(reply.finish, FinishReason::ToolCalls);
    assert_eq!(reply_calls(&reply)[0].name, "read_file");
}

/// A form that nobody could check is refused before it is sent.
pub async fn forms_that_cannot_be_checked_are_refused(fixture: &dyn Fixture) {
    let stage = AdapterSetup::with_replies(fixture, []);
    for (name, schema, about) in [
        ("decision", json!({"type": "string", "pattern": "^a"}), "/pattern"),
        ("decision", json!({"$ref": "#/$defs/gone"}), "#/$defs/gone"),
        ("no name", json!({"type": "string"}), "no name"),
    ] {
        let mut request = structured_request(&stage);
        request.format = ReplyFormat::Json(JsonFormat {
            name: name.to_owned(),
            schema,
            grammar: None,
            unfit: OnSchemaMismatch::Refuse,
        });
        let error = stage.model.request_reply(request, &()).await.expect_err("it is refused");
        assert_eq!(error.kind, ErrorKind::Format, "{error}");
        assert!(error.message.contains(about), "{error}");
    }
    assert_eq!(stage.server.request_count(), 0);
}
