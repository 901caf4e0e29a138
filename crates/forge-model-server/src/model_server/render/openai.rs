//! OpenAI chat completions: `chat.completion.chunk` events and `[DONE]`, as published in the API reference of
//! `POST /v1/chat/completions` (also what OpenRouter, llama.cpp and vLLM send).

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
    let chunk = |delta: Value, finish: Value| {
        RenderedEvent::data(&json!({
            "id": "chatcmpl-scripted", "object": "chat.completion.chunk", "created": CREATED_UNIX_SECS,
            "model": call.model,
            "choices": [{"index": 0, "delta": delta, "finish_reason": finish, "logprobs": null}],
        }))
    };
    let mut events = vec![chunk(json!({"role": "assistant", "content": ""}), Value::Null)];
    if let Some(thinking) = &reply.thinking {
        let pieces = framing.text_pieces(&thinking.text);
        for piece in &pieces {
            events.push(match &thinking.signature {
                None => chunk(json!({"reasoning_content": piece}), Value::Null),
                Some(_) => chunk(
                    json!({"reasoning": piece, "reasoning_details": [{
                        "type": "reasoning.text", "text": piece, "format": "anthropic-claude-v1", "index": 0}]}),
                    Value::Null,
                ),
            });
        }
        if let Some(signature) = &thinking.signature {
            events.push(chunk(
                json!({"reasoning_details": [{"type": "reasoning.text", "signature": signature,
                    "format": "anthropic-claude-v1", "index": 0}]}),
                Value::Null,
            ));
        }
    }
    for piece in framing.text_pieces(&reply.text) {
        events.push(chunk(json!({"content": piece}), Value::Null));
    }
    for (index, tool_call) in reply.tool_calls.iter().enumerate() {
        events.push(chunk(
            json!({"tool_calls": [{"index": index, "id": call_id(call, tool_call.id.as_deref(), index), "type": "function",
                "function": {"name": tool_call.name, "arguments": ""}}]}),
            Value::Null,
        ));
        for piece in argument_pieces(&tool_call.argument_text()) {
            events.push(chunk(
                json!({"tool_calls": [{"index": index, "function": {"arguments": piece}}]}),
                Value::Null,
            ));
        }
    }
    events.push(chunk(json!({}), json!(finish_reason(reply))).into_last());
    if let (Some(_), true) = (reply.usage, call.usage_wanted) {
        events.push(RenderedEvent::data(&json!({
            "id": "chatcmpl-scripted", "object": "chat.completion.chunk", "created": CREATED_UNIX_SECS,
            "model": call.model, "choices": [], "usage": usage_json(reply),
        })));
    }
    events.push(RenderedEvent { name: None, data: "[DONE]".to_owned(), terminal: true });
    events
}

pub(super) fn json_body(call: &SeenModelCall, reply: &MockReply) -> Value {
    let calls: Vec<Value> = reply
        .tool_calls
        .iter()
        .enumerate()
        .map(|(index, tool_call)| {
            json!({"id": call_id(call, tool_call.id.as_deref(), index), "type": "function",
                "function": {"name": tool_call.name, "arguments": tool_call.argument_text()}})
        })
        .collect();
    let mut message = json!({"role": "assistant", "content": reply.text, "refusal": null});
    if !calls.is_empty() {
        message["tool_calls"] = Value::Array(calls);
    }
    json!({
        "id": "chatcmpl-scripted", "object": "chat.completion", "created": CREATED_UNIX_SECS, "model": call.model,
        "choices": [{"index": 0, "message": message, "finish_reason": finish_reason(reply), "logprobs": null}],
        "usage": usage_json(reply),
    })
}

fn finish_reason(reply: &MockReply) -> &'static str {
    match reply.finish {
        MockFinish::Natural if !reply.tool_calls.is_empty() => "tool_calls",
        MockFinish::Natural | MockFinish::Stop => "stop",
        MockFinish::Length => "length",
        MockFinish::Refusal => "content_filter",
    }
}

fn usage_json(reply: &MockReply) -> Value {
    let usage = reply.usage.unwrap_or_default();
    let prompt = usage.input + usage.cached + usage.cache_write;
    json!({
        "prompt_tokens": prompt, "completion_tokens": usage.output, "total_tokens": prompt + usage.output,
        "prompt_tokens_details": {"cached_tokens": usage.cached, "cache_write_tokens": usage.cache_write},
        "completion_tokens_details": {"reasoning_tokens": 0},
    })
}
