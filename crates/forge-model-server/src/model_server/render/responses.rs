//! OpenAI responses: named events from `response.created` to `response.completed`, as published in the streaming
//! part of the reference of `POST /v1/responses`.

use serde_json::{Value, json};

use super::super::framing::ReplyFraming;
use super::super::script::{MockFinish, MockReply};
use super::super::seen::SeenModelCall;
use super::{CREATED_UNIX_SECS, RenderedEvent, argument_pieces, call_id};

pub(super) fn stream_events(
    call: &SeenModelCall,
    reply: &MockReply,
    framing: &ReplyFraming,
) -> Vec<RenderedEvent> {
    let mut stream = EventSequence { events: Vec::new() };
    stream.push_event(
        "response.created",
        json!({"response": {"id": "resp_scripted", "object": "response",
        "created_at": CREATED_UNIX_SECS, "status": "in_progress", "model": call.model, "output": []}}),
    );
    for (index, item) in output_items(call, reply).iter().enumerate() {
        let at = |mut fields: Value| {
            fields["output_index"] = json!(index);
            fields["item_id"] = item["id"].clone();
            fields
        };
        let mut begun = item.clone();
        for (field, empty) in [("summary", json!([])), ("content", json!([])), ("arguments", json!(""))] {
            if !begun[field].is_null() {
                begun[field] = empty;
            }
        }
        begun.as_object_mut().expect("an item").remove("encrypted_content");
        stream.push_event("response.output_item.added", json!({"output_index": index, "item": begun}));
        match item["type"].as_str() {
            Some("reasoning") => {
                for piece in framing.text_pieces(item["summary"][0]["text"].as_str().unwrap_or_default()) {
                    let delta = at(json!({"summary_index": 0, "delta": piece}));
                    stream.push_event("response.reasoning_summary_text.delta", delta);
                }
            }
            Some("function_call") => {
                for piece in argument_pieces(item["arguments"].as_str().unwrap_or_default()) {
                    stream.push_event("response.function_call_arguments.delta", at(json!({"delta": piece})));
                }
                let done = at(json!({"arguments": item["arguments"]}));
                stream.push_event("response.function_call_arguments.done", done);
            }
            _ => {
                let part = &item["content"][0];
                let (name, text) = match part["refusal"].as_str() {
                    Some(refusal) => ("response.refusal.delta", refusal),
                    None => ("response.output_text.delta", part["text"].as_str().unwrap_or_default()),
                };
                stream.push_event("response.content_part.added", at(json!({"content_index": 0})));
                for piece in framing.text_pieces(text) {
                    stream.push_event(name, at(json!({"content_index": 0, "delta": piece})));
                }
                stream
                    .push_event("response.content_part.done", at(json!({"content_index": 0, "part": part})));
            }
        }
        stream.push_event("response.output_item.done", json!({"output_index": index, "item": item}));
    }
    let name = if reply.finish == MockFinish::Length { "response.incomplete" } else { "response.completed" };
    stream.push_event(name, json!({"response": json_body(call, reply)}));
    let last = stream.events.pop().expect("one was put").into_last();
    stream.events.push(last);
    stream.events
}

struct EventSequence {
    events: Vec<RenderedEvent>,
}

impl EventSequence {
    fn push_event(&mut self, name: &'static str, mut fields: Value) {
        fields["type"] = json!(name);
        fields["sequence_number"] = json!(self.events.len());
        self.events.push(RenderedEvent::with_name(name, &fields));
    }
}

pub(super) fn json_body(call: &SeenModelCall, reply: &MockReply) -> Value {
    let mut whole = json!({"id": "resp_scripted", "object": "response", "created_at": CREATED_UNIX_SECS,
        "status": "completed", "model": call.model, "output": output_items(call, reply), "error": null,
        "incomplete_details": null});
    if reply.finish == MockFinish::Length {
        whole["status"] = json!("incomplete");
        whole["incomplete_details"] = json!({"reason": "max_output_tokens"});
    }
    if let Some(usage) = reply.usage {
        let prompt = usage.input + usage.cached + usage.cache_write;
        whole["usage"] = json!({"input_tokens": prompt, "output_tokens": usage.output,
            "total_tokens": prompt + usage.output, "output_tokens_details": {"reasoning_tokens": 0},
            "input_tokens_details": {"cached_tokens": usage.cached, "cache_write_tokens": usage.cache_write}});
    }
    whole
}

/// The vendor's error as an event of a stream: its fields stand at the top.
pub(super) fn error_event_data(body: &Value) -> Value {
    let error = &body["error"];
    json!({"type": "error", "code": error["code"], "message": error["message"], "param": null,
        "sequence_number": 3})
}

/// The items of a reply.
fn output_items(call: &SeenModelCall, reply: &MockReply) -> Vec<Value> {
    let mut items = Vec::new();
    if let Some(thinking) = &reply.thinking {
        let mut item = json!({"type": "reasoning", "id": "rs_scripted",
            "summary": [{"type": "summary_text", "text": thinking.text}]});
        if let Some(signature) = &thinking.signature {
            item["encrypted_content"] = json!(signature);
        }
        items.push(item);
    }
    if !reply.text.is_empty() {
        let content = match reply.finish {
            MockFinish::Refusal => json!({"type": "refusal", "refusal": reply.text}),
            _ => json!({"type": "output_text", "text": reply.text, "annotations": []}),
        };
        items.push(json!({"type": "message", "id": "msg_scripted", "role": "assistant",
            "status": "completed", "content": [content]}));
    }
    for (at, made) in reply.tool_calls.iter().enumerate() {
        items.push(json!({"type": "function_call", "id": format!("fc_scripted_{at}"), "status": "completed",
            "call_id": call_id(call, made.id.as_deref(), at), "name": made.name,
            "arguments": made.argument_text()}));
    }
    items
}
