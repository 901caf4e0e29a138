//! Cases about replies in JSON: asked for in the provider's own way, checked, with a word on what is wrong.

use forge_types::{ErrorKind, Finish, JsonFormat, ModelRequest, ReplyFormat, Unfit};
use serde_json::{Value, json};

use super::{Fixture, Stage, calls, hello, text};
use crate::model_server::{Finish as Stop, Reply, Script};

/// The form of a router's decision.
pub(super) fn decision() -> JsonFormat {
    let schema = json!({
        "type": "object",
        "properties": {
            "tool": {"type": "string", "enum": ["chat", "code"]},
            "content": {"type": "string", "minLength": 1},
        },
        "required": ["tool", "content"],
        "additionalProperties": false,
    });
    JsonFormat { name: "decision".to_owned(), schema, grammar: None, unfit: Unfit::Refuse }
}

fn asking(stage: &Stage) -> ModelRequest {
    let mut request = stage.request(hello());
    request.tools.clear();
    request.format = ReplyFormat::Json(decision());
    request
}

/// What a model says that was asked for this: a call where the form is a tool, else text.
fn saying(said: &Value) -> Script {
    let said = said.clone();
    Script::always(move |call| match call.offers("decision") {
        true => Reply::call("decision", said.clone()),
        false => Reply::text(said.to_string()),
    })
}

/// The schema is sent, a reply that fits is text and nothing else, one that does not is malformed.
pub async fn replies_in_json_are_asked_for_and_checked(fixture: &dyn Fixture) {
    let good = json!({"tool": "chat", "content": "Grüße"});
    let stage = Stage::new(fixture, saying(&good));
    let reply = stage.model.reply(asking(&stage), &()).await.expect("an answer");
    assert_eq!(serde_json::from_str::<Value>(&text(&reply)).expect("nothing but JSON"), good);
    assert_eq!(reply.finish, Finish::Stop);
    assert!(calls(&reply).is_empty());
    let request = stage.server.calls().remove(0).http;
    assert!(String::from_utf8_lossy(&request.body).contains("minLength"), "the schema is sent");
    for (bad, about) in [
        (json!({"tool": "chat", "content": ""}), "content"),
        (json!({"tool": "sing", "content": "x"}), "tool"),
        (json!({"tool": "chat"}), "content"),
        (json!({"tool": "chat", "content": "x", "mood": 1}), "mood"),
        (json!([1]), "object"),
    ] {
        let stage = Stage::new(fixture, saying(&bad));
        let error = stage.model.reply(asking(&stage), &()).await.expect_err("it does not fit");
        assert_eq!(error.kind, ErrorKind::MalformedResponse, "{error}");
        assert!(error.class().retryable() && error.message.contains(about), "{error}");
        assert_eq!(stage.server.calls().len(), 1, "asking again is decided elsewhere");
    }
    let stage = Stage::of(fixture, [Reply::text("Sure, here you are!")]);
    let error = stage.model.reply(asking(&stage), &()).await.expect_err("no JSON");
    assert_eq!(error.kind, ErrorKind::MalformedResponse, "{error}");
    let mut lenient = asking(&stage);
    lenient.format = ReplyFormat::Json(JsonFormat { unfit: Unfit::Pass, ..decision() });
    stage.server.set_script(Script::of([Reply::text("Sure, here you are!")]));
    let reply = stage.model.reply(lenient, &()).await.expect("whoever asked makes the best of it");
    assert_eq!(text(&reply), "Sure, here you are!");
    let fenced = format!("```json\n{good}\n```");
    let stage = Stage::of(fixture, [Reply::text(fenced)]);
    let reply = stage.model.reply(asking(&stage), &()).await.expect("a fence does no harm");
    assert_eq!(text(&reply), good.to_string());
    // What the limit cut is for the caller to judge.
    let stage = Stage::of(fixture, [Reply::text("{\"tool\": \"ch").with_finish(Stop::Length)]);
    let reply = stage.model.reply(asking(&stage), &()).await.expect("a cut answer is an answer");
    assert_eq!(reply.finish, Finish::Length);
}

/// Tools may be offered at the same time: then a reply is calls, or JSON of the form.
pub async fn a_reply_in_json_may_stand_beside_tools(fixture: &dyn Fixture) {
    let good = json!({"tool": "code", "content": "print()"});
    let stage = Stage::new(fixture, saying(&good));
    let mut request = stage.request(hello());
    request.format = ReplyFormat::Json(decision());
    let reply = stage.model.reply(request.clone(), &()).await.expect("an answer");
    assert_eq!(serde_json::from_str::<Value>(&text(&reply)).expect("JSON"), good);
    let seen = stage.server.calls().remove(0);
    assert!(seen.offers("read_file"));
    stage.server.set_script(Script::of([Reply::call("read_file", json!({"path": "a"}))]));
    let reply = stage.model.reply(request, &()).await.expect("an answer");
    assert_eq!(reply.finish, Finish::ToolCalls);
    assert_eq!(calls(&reply)[0].name, "read_file");
}

/// A form that nobody could check is refused before it is sent.
pub async fn forms_that_cannot_be_checked_are_refused(fixture: &dyn Fixture) {
    let stage = Stage::of(fixture, []);
    for (name, schema, about) in [
        ("decision", json!({"type": "string", "pattern": "^a"}), "/pattern"),
        ("decision", json!({"$ref": "#/$defs/gone"}), "#/$defs/gone"),
        ("no name", json!({"type": "string"}), "no name"),
    ] {
        let mut request = asking(&stage);
        request.format = ReplyFormat::Json(JsonFormat {
            name: name.to_owned(),
            schema,
            grammar: None,
            unfit: Unfit::Refuse,
        });
        let error = stage.model.reply(request, &()).await.expect_err("it is refused");
        assert_eq!(error.kind, ErrorKind::Format, "{error}");
        assert!(error.message.contains(about), "{error}");
    }
    assert_eq!(stage.server.request_count(), 0);
}
