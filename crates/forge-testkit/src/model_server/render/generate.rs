//! Ollama `/api/generate`: one JSON object per line, the last with `done: true` and the counts. As published in the
//! project's API document.

use serde_json::{Value, json};

use super::super::framing::Framing;
use super::super::script::{Finish, Reply};
use super::super::seen::ModelCall;
use super::{Event, spoken};

pub(super) fn events(call: &ModelCall, reply: &Reply, framing: &Framing) -> Vec<Event> {
    let line = |mut line: Value| {
        line["model"] = json!(call.model);
        line["created_at"] = json!("2026-01-01T00:00:00.000000Z");
        line["done"] = json!(false);
        Event::data(&line)
    };
    let mut events = Vec::new();
    if let Some(thinking) = &reply.thinking {
        let pieces = framing.pieces(&thinking.text);
        events.extend(pieces.iter().map(|piece| line(json!({"response": "", "thinking": piece}))));
    }
    let pieces = framing.pieces(&spoken::text(reply));
    events.extend(pieces.iter().map(|piece| line(json!({"response": piece}))));
    events.push(Event::data(&ending(call, reply, "")).last());
    events
}

pub(super) fn whole(call: &ModelCall, reply: &Reply) -> Value {
    let mut whole = ending(call, reply, &spoken::text(reply));
    if let Some(thinking) = &reply.thinking {
        whole["thinking"] = json!(thinking.text);
    }
    whole
}

fn ending(call: &ModelCall, reply: &Reply, text: &str) -> Value {
    let reason = match reply.finish {
        Finish::Length => "length",
        Finish::Natural | Finish::Stop | Finish::Refusal => "stop",
    };
    let mut end = json!({"model": call.model, "created_at": "2026-01-01T00:00:00.000000Z", "response": text,
        "done": true, "done_reason": reason, "context": [1, 2, 3], "total_duration": 1_000_000});
    if let Some(usage) = reply.usage {
        end["prompt_eval_count"] = json!(usage.input + usage.cached + usage.cache_write);
        end["eval_count"] = json!(usage.output);
    }
    end
}
