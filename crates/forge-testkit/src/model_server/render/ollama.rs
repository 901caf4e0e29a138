//! Ollama `/api/chat`: one JSON object per line, the last with `done: true` and the counts. As published in the
//! project's API document.

use serde_json::{Value, json};

use super::super::framing::Framing;
use super::super::script::{Finish, Reply};
use super::super::seen::ModelCall;
use super::Event;

const CREATED_AT: &str = "2026-01-01T00:00:00.000000Z";

pub(super) fn events(call: &ModelCall, reply: &Reply, framing: &Framing) -> Vec<Event> {
    let line = |message: Value| {
        Event::data(&json!({"model": call.model, "created_at": CREATED_AT, "message": message,
            "done": false}))
    };
    let mut events = Vec::new();
    if let Some(thinking) = &reply.thinking {
        for piece in framing.pieces(&thinking.text) {
            events.push(line(json!({"role": "assistant", "content": "", "thinking": piece})));
        }
    }
    for piece in framing.pieces(&reply.text) {
        events.push(line(json!({"role": "assistant", "content": piece})));
    }
    for call in calls(reply) {
        events.push(line(json!({"role": "assistant", "content": "", "tool_calls": [call]})));
    }
    events.push(Event::data(&ending(call, reply, json!({"role": "assistant", "content": ""}))).last());
    events
}

pub(super) fn whole(call: &ModelCall, reply: &Reply) -> Value {
    let mut message = json!({"role": "assistant", "content": reply.text});
    if let Some(thinking) = &reply.thinking {
        message["thinking"] = json!(thinking.text);
    }
    let calls = calls(reply);
    if !calls.is_empty() {
        message["tool_calls"] = Value::Array(calls);
    }
    ending(call, reply, message)
}

fn calls(reply: &Reply) -> Vec<Value> {
    reply
        .tool_calls
        .iter()
        .enumerate()
        .map(|(index, call)| {
            let mut value = json!({"function": {"index": index, "name": call.name,
                "arguments": call.argument_value()}});
            if let Some(id) = &call.id {
                value["id"] = json!(id);
            }
            value
        })
        .collect()
}

fn ending(call: &ModelCall, reply: &Reply, message: Value) -> Value {
    let reason = match reply.finish {
        Finish::Length => "length",
        Finish::Natural | Finish::Stop | Finish::Refusal => "stop",
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
