//! Ollama `/api/chat`: one JSON object per line, the last with `done: true` and the counts. As published in the
//! project's API document.

use serde_json::{Value, json};

use super::super::framing::ReplyFraming;
use super::super::script::{MockFinish, MockReply};
use super::super::seen::SeenModelCall;
use super::RenderedEvent;

const CREATED_AT: &str = "2026-01-01T00:00:00.000000Z";

pub(super) fn stream_events(
    call: &SeenModelCall,
    reply: &MockReply,
    framing: &ReplyFraming,
) -> Vec<RenderedEvent> {
    let line = |message: Value| {
        RenderedEvent::data(&json!({"model": call.model, "created_at": CREATED_AT, "message": message,
            "done": false}))
    };
    let mut events = Vec::new();
    if let Some(thinking) = &reply.thinking {
        for piece in framing.text_pieces(&thinking.text) {
            events.push(line(json!({"role": "assistant", "content": "", "thinking": piece})));
        }
    }
    for piece in framing.text_pieces(&reply.text) {
        events.push(line(json!({"role": "assistant", "content": piece})));
    }
    for call in tool_calls(reply) {
        events.push(line(json!({"role": "assistant", "content": "", "tool_calls": [call]})));
    }
    events.push(
        RenderedEvent::data(&final_chunk(call, reply, json!({"role": "assistant", "content": ""})))
            .into_last(),
    );
    events
}

pub(super) fn json_body(call: &SeenModelCall, reply: &MockReply) -> Value {
    let mut message = json!({"role": "assistant", "content": reply.text});
    if let Some(thinking) = &reply.thinking {
        message["thinking"] = json!(thinking.text);
    }
    let calls = tool_calls(reply);
    if !calls.is_empty() {
        message["tool_calls"] = Value::Array(calls);
    }
    final_chunk(call, reply, message)
}

fn tool_calls(reply: &MockReply) -> Vec<Value> {
    reply
        .tool_calls
        .iter()
        .enumerate()
        .map(|(index, call)| {
            let mut value = json!({"function": {"index": index, "name": call.name,
                "arguments": call.with_signature()}});
            if let Some(id) = &call.id {
                value["id"] = json!(id);
            }
            value
        })
        .collect()
}

fn final_chunk(call: &SeenModelCall, reply: &MockReply, message: Value) -> Value {
    let reason = match reply.finish {
        MockFinish::Length => "length",
        MockFinish::Natural | MockFinish::Stop | MockFinish::Refusal => "stop",
    };
    let mut end = json!({"model": call.model, "created_at": CREATED_AT, "message": message, "done": true,
        "done_reason": reason, "total_duration": 1_000_000, "load_duration": 1_000,
        "prompt_eval_duration": 1_000, "eval_duration": 1_000});
    if let Some(usage) = reply.usage {
        end["prompt_eval_count"] = json!(usage.input + usage.cached + usage.cache_write);
        end["eval_count"] = json!(usage.output);
    }
    end
}
