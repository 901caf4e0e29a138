//! Gemini `streamGenerateContent?alt=sse`: unnamed events that each hold a part of the candidate; the one with a
//! `finishReason` ends the answer. As published in the reference of `GenerateContentResponse`.

use serde_json::{Value, json};

use super::super::framing::ReplyFraming;
use super::super::script::{MockCall, MockFinish, MockReply};
use super::super::seen::SeenModelCall;
use super::RenderedEvent;

pub(super) fn stream_events(
    call: &SeenModelCall,
    reply: &MockReply,
    framing: &ReplyFraming,
) -> Vec<RenderedEvent> {
    let chunk = |parts: Vec<Value>, finish: Option<&str>| {
        let mut candidate = json!({"content": {"role": "model", "parts": parts}, "index": 0});
        if let Some(finish) = finish {
            candidate["finishReason"] = json!(finish);
        }
        wrap_candidate(call, reply, &candidate)
    };
    let mut events = Vec::new();
    if let Some(thinking) = &reply.thinking {
        for piece in framing.text_pieces(&thinking.text) {
            events.push(RenderedEvent::data(&chunk(vec![json!({"text": piece, "thought": true})], None)));
        }
    }
    for piece in framing.text_pieces(&reply.text) {
        events.push(RenderedEvent::data(&chunk(vec![json!({"text": piece})], None)));
    }
    let calls: Vec<Value> = reply.tool_calls.iter().map(call_part).collect();
    if !calls.is_empty() {
        events.push(RenderedEvent::data(&chunk(calls, None)));
    }
    let last = signature_part(reply).unwrap_or_else(|| json!({"text": ""}));
    events.push(RenderedEvent::data(&chunk(vec![last], Some(finish_reason(reply)))).into_last());
    events
}

pub(super) fn json_body(call: &SeenModelCall, reply: &MockReply) -> Value {
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
        "finishReason": finish_reason(reply)});
    wrap_candidate(call, reply, &candidate)
}

fn call_part(call: &MockCall) -> Value {
    let mut function = json!({"name": call.name, "args": call.with_signature()});
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
fn signature_part(reply: &MockReply) -> Option<Value> {
    let signature = reply.thinking.as_ref()?.signature.as_ref()?;
    Some(json!({"text": "", "thoughtSignature": signature}))
}

fn wrap_candidate(call: &SeenModelCall, reply: &MockReply, candidate: &Value) -> Value {
    let mut whole = json!({"candidates": [candidate], "modelVersion": call.model,
        "responseId": "scripted"});
    if let Some(usage) = reply.usage {
        let prompt = usage.input + usage.cached + usage.cache_write;
        whole["usageMetadata"] = json!({"promptTokenCount": prompt, "candidatesTokenCount": usage.output,
            "totalTokenCount": prompt + usage.output, "cachedContentTokenCount": usage.cached});
    }
    whole
}

fn finish_reason(reply: &MockReply) -> &'static str {
    match reply.finish {
        MockFinish::Natural | MockFinish::Stop => "STOP",
        MockFinish::Length => "MAX_TOKENS",
        MockFinish::Refusal => "SAFETY",
    }
}
