//! Ollama `/api/generate`: one JSON object per line, the last with `done: true` and the counts. As published in the
//! project's API document.

use serde_json::{Value, json};

use super::super::framing::ReplyFraming;
use super::super::script::{MockFinish, MockReply};
use super::super::seen::SeenModelCall;
use super::{RenderedEvent, text_tools};

pub(super) fn stream_events(
    call: &SeenModelCall,
    reply: &MockReply,
    framing: &ReplyFraming,
) -> Vec<RenderedEvent> {
    let line = |mut line: Value| {
        line["model"] = json!(call.model);
        line["created_at"] = json!("2026-01-01T00:00:00.000000Z");
        line["done"] = json!(false);
        RenderedEvent::data(&line)
    };
    let mut events = Vec::new();
    if let Some(thinking) = &reply.thinking {
        let pieces = framing.text_pieces(&thinking.text);
        events.extend(pieces.iter().map(|piece| line(json!({"response": "", "thinking": piece}))));
    }
    let pieces = framing.text_pieces(&text_tools::reply_with_calls(reply));
    events.extend(pieces.iter().map(|piece| line(json!({"response": piece}))));
    events.push(RenderedEvent::data(&final_chunk(call, reply, "")).into_last());
    events
}

pub(super) fn json_body(call: &SeenModelCall, reply: &MockReply) -> Value {
    let mut whole = final_chunk(call, reply, &text_tools::reply_with_calls(reply));
    if let Some(thinking) = &reply.thinking {
        whole["thinking"] = json!(thinking.text);
    }
    whole
}

fn final_chunk(call: &SeenModelCall, reply: &MockReply, text: &str) -> Value {
    let reason = match reply.finish {
        MockFinish::Length => "length",
        MockFinish::Natural | MockFinish::Stop | MockFinish::Refusal => "stop",
    };
    let mut end = json!({"model": call.model, "created_at": "2026-01-01T00:00:00.000000Z", "response": text,
        "done": true, "done_reason": reason, "context": [1, 2, 3], "total_duration": 1_000_000});
    if let Some(usage) = reply.usage {
        end["prompt_eval_count"] = json!(usage.input + usage.cached + usage.cache_write);
        end["eval_count"] = json!(usage.output);
    }
    end
}
