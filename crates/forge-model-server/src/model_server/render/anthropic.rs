//! Anthropic messages: named events from `message_start` to `message_stop`, as published in the streaming part
//! of the reference of `POST /v1/messages`.

use serde_json::{Value, json};

use super::super::framing::ReplyFraming;
use super::super::script::{MockFinish, MockReply};
use super::super::seen::SeenModelCall;
use super::{RenderedEvent, argument_pieces, call_id};

pub(super) fn stream_events(
    call: &SeenModelCall,
    reply: &MockReply,
    framing: &ReplyFraming,
) -> Vec<RenderedEvent> {
    let mut events = vec![RenderedEvent::with_name(
        "message_start",
        &json!({"type": "message_start", "message": {
            "id": "msg_scripted", "type": "message", "role": "assistant", "model": call.model,
            "content": [], "stop_reason": null, "stop_sequence": null, "usage": start_usage(reply)}}),
    )];
    let mut index = 0;
    let mut block = |start: &Value, deltas: &[Value]| {
        events.push(RenderedEvent::with_name(
            "content_block_start",
            &json!({"type": "content_block_start", "index": index, "content_block": start}),
        ));
        for delta in deltas {
            events.push(RenderedEvent::with_name(
                "content_block_delta",
                &json!({"type": "content_block_delta", "index": index, "delta": delta}),
            ));
        }
        events.push(RenderedEvent::with_name(
            "content_block_stop",
            &json!({"type": "content_block_stop", "index": index}),
        ));
        index += 1;
    };
    if let Some(thinking) = &reply.thinking {
        let mut deltas: Vec<Value> = framing
            .text_pieces(&thinking.text)
            .iter()
            .map(|piece| json!({"type": "thinking_delta", "thinking": piece}))
            .collect();
        if let Some(signature) = &thinking.signature {
            deltas.push(json!({"type": "signature_delta", "signature": signature}));
        }
        block(&json!({"type": "thinking", "thinking": "", "signature": ""}), &deltas);
        if let Some(data) = &thinking.redacted {
            block(&json!({"type": "redacted_thinking", "data": data}), &[]);
        }
    }
    if !reply.text.is_empty() {
        let deltas: Vec<Value> = framing
            .text_pieces(&reply.text)
            .iter()
            .map(|piece| json!({"type": "text_delta", "text": piece}))
            .collect();
        block(&json!({"type": "text", "text": ""}), &deltas);
    }
    for (at, tool_call) in reply.tool_calls.iter().enumerate() {
        let text = tool_call.argument_text();
        let mut deltas = vec![json!({"type": "input_json_delta", "partial_json": ""})];
        deltas.extend(
            argument_pieces(&text)
                .into_iter()
                .map(|piece| json!({"type": "input_json_delta", "partial_json": piece})),
        );
        block(
            &json!({"type": "tool_use", "id": call_id(call, tool_call.id.as_deref(), at), "name": tool_call.name,
                "input": {}}),
            &deltas,
        );
    }
    let mut last = json!({"type": "message_delta",
        "delta": {"stop_reason": finish_reason(reply), "stop_sequence": null}});
    if let Some(usage) = reply.usage {
        last["usage"] = json!({"output_tokens": usage.output});
    }
    events.push(RenderedEvent::with_name("message_delta", &last));
    events.push(RenderedEvent::with_name("message_stop", &json!({"type": "message_stop"})).into_last());
    events
}

pub(super) fn json_body(call: &SeenModelCall, reply: &MockReply) -> Value {
    let mut content = Vec::new();
    if let Some(thinking) = &reply.thinking {
        content.push(json!({"type": "thinking", "thinking": thinking.text, "signature": thinking.signature}));
        if let Some(data) = &thinking.redacted {
            content.push(json!({"type": "redacted_thinking", "data": data}));
        }
    }
    if !reply.text.is_empty() {
        content.push(json!({"type": "text", "text": reply.text}));
    }
    for (at, tool_call) in reply.tool_calls.iter().enumerate() {
        content.push(json!({"type": "tool_use", "id": call_id(call, tool_call.id.as_deref(), at),
            "name": tool_call.name, "input": tool_call.with_signature()}));
    }
    let mut usage = start_usage(reply);
    usage["output_tokens"] = json!(reply.usage.unwrap_or_default().output);
    json!({"id": "msg_scripted", "type": "message", "role": "assistant", "model": call.model,
        "content": content, "stop_reason": finish_reason(reply), "stop_sequence": null, "usage": usage})
}

fn finish_reason(reply: &MockReply) -> &'static str {
    match reply.finish {
        MockFinish::Natural if !reply.tool_calls.is_empty() => "tool_use",
        MockFinish::Natural | MockFinish::Stop => "end_turn",
        MockFinish::Length => "max_tokens",
        MockFinish::Refusal => "refusal",
    }
}

/// The usage known when the answer begins: all of the prompt, and the first output token.
fn start_usage(reply: &MockReply) -> Value {
    let Some(usage) = reply.usage else { return json!({}) };
    json!({"input_tokens": usage.input, "cache_creation_input_tokens": usage.cache_write,
        "cache_read_input_tokens": usage.cached, "output_tokens": 1, "service_tier": "standard"})
}
