//! llama.cpp `/completion`: unnamed events with pieces of text, the last with `stop: true` and the counts. As
//! published in the README of the project's server.

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
    let pieces = framing.text_pieces(&reply_text(reply));
    let mut events: Vec<RenderedEvent> = pieces
        .iter()
        .map(|piece| {
            RenderedEvent::data(
                &json!({"index": 0, "content": piece, "tokens": [1], "stop": false, "id_slot": 0}),
            )
        })
        .collect();
    events.push(RenderedEvent::data(&final_chunk(call, reply, "")).into_last());
    events
}

pub(super) fn json_body(call: &SeenModelCall, reply: &MockReply) -> Value {
    final_chunk(call, reply, &reply_text(reply))
}

/// All that the model says: this format sets nothing apart.
fn reply_text(reply: &MockReply) -> String {
    match &reply.thinking {
        Some(thinking) => {
            format!("<think>{}</think>\n{}", thinking.text, text_tools::reply_with_calls(reply))
        }
        None => text_tools::reply_with_calls(reply),
    }
}

fn final_chunk(call: &SeenModelCall, reply: &MockReply, text: &str) -> Value {
    let stop = match reply.finish {
        MockFinish::Length => "limit",
        MockFinish::Natural | MockFinish::Stop | MockFinish::Refusal => "eos",
    };
    let mut end = json!({"index": 0, "content": text, "stop": true, "id_slot": 0, "model": call.model,
        "stop_type": stop, "truncated": false, "tokens_cached": 99});
    if let Some(usage) = reply.usage {
        let worked = usage.input + usage.cache_write;
        end["tokens_evaluated"] = json!(worked + usage.cached);
        end["tokens_predicted"] = json!(usage.output);
        end["timings"] = json!({"cache_n": usage.cached, "prompt_n": worked, "predicted_n": usage.output});
    }
    end
}
