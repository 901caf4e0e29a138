//! Gemini `streamGenerateContent?alt=sse`: unnamed events that each hold a part of the candidate; the one with a
//! `finishReason` ends the answer. As published in the reference of `GenerateContentResponse`.

use serde_json::{Value, json};

use super::super::framing::Framing;
use super::super::script::{Call, Finish, Reply};
use super::super::seen::ModelCall;
use super::Event;

pub(super) fn events(call: &ModelCall, reply: &Reply, framing: &Framing) -> Vec<Event> {
    let chunk = |parts: Vec<Value>, finish: Option<&str>| {
        let mut candidate = json!({"content": {"role": "model", "parts": parts}, "index": 0});
        if let Some(finish) = finish {
            candidate["finishReason"] = json!(finish);
        }
        envelope(call, reply, &candidate)
    };
    let mut events = Vec::new();
    if let Some(thinking) = &reply.thinking {
        for piece in framing.pieces(&thinking.text) {
            events.push(Event::data(&chunk(vec![json!({"text": piece, "thought": true})], None)));
        }
    }
    for piece in framing.pieces(&reply.text) {
        events.push(Event::data(&chunk(vec![json!({"text": piece})], None)));
    }
    let calls: Vec<Value> = reply.tool_calls.iter().map(call_part).collect();
    if !calls.is_empty() {
        events.push(Event::data(&chunk(calls, None)));
    }
    let last = signature_part(reply).unwrap_or_else(|| json!({"text": ""}));
    events.push(Event::data(&chunk(vec![last], Some(finish(reply)))).last());
    events
}

pub(super) fn whole(call: &ModelCall, reply: &Reply) -> Value {
    let mut parts = Vec::new();
    if let Some(thinking) = &reply.thinking {
        parts.push(json!({"text": thinking.text, "thought": true}));
    }
    if !reply.text.is_empty() {
        parts.push(json!({"text": reply.text}));
    }
    parts.extend(reply.tool_calls.iter().map(call_part));
    parts.extend(signature_part(reply));
    let candidate = json!({"content": {"role": "model", "parts": parts}, "index": 0,
        "finishReason": finish(reply)});
    envelope(call, reply, &candidate)
}

fn call_part(call: &Call) -> Value {
    let mut function = json!({"name": call.name, "args": call.argument_value()});
    if let Some(id) = &call.id {
        function["id"] = json!(id);
    }
    let mut part = json!({"functionCall": function});
    if let Some(signature) = &call.signature {
        part["thoughtSignature"] = json!(signature);
    }
    part
}

/// The signature over the thinking comes at the end, on an empty text part.
fn signature_part(reply: &Reply) -> Option<Value> {
    let signature = reply.thinking.as_ref()?.signature.as_ref()?;
    Some(json!({"text": "", "thoughtSignature": signature}))
}

fn envelope(call: &ModelCall, reply: &Reply, candidate: &Value) -> Value {
    let mut whole = json!({"candidates": [candidate], "modelVersion": call.model,
        "responseId": "scripted"});
    if let Some(usage) = reply.usage {
        let prompt = usage.input + usage.cached + usage.cache_write;
        whole["usageMetadata"] = json!({"promptTokenCount": prompt, "candidatesTokenCount": usage.output,
            "totalTokenCount": prompt + usage.output, "cachedContentTokenCount": usage.cached});
    }
    whole
}

fn finish(reply: &Reply) -> &'static str {
    match reply.finish {
        Finish::Natural | Finish::Stop => "STOP",
        Finish::Length => "MAX_TOKENS",
        Finish::Refusal => "SAFETY",
    }
}
