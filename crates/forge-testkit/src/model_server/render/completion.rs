//! llama.cpp `/completion`: unnamed events with pieces of text, the last with `stop: true` and the counts. As
//! published in the README of the project's server.

use serde_json::{Value, json};

use super::super::framing::Framing;
use super::super::script::{Finish, Reply};
use super::super::seen::ModelCall;
use super::{Event, spoken};

pub(super) fn events(call: &ModelCall, reply: &Reply, framing: &Framing) -> Vec<Event> {
    let pieces = framing.pieces(&text(reply));
    let mut events: Vec<Event> = pieces
        .iter()
        .map(|piece| {
            Event::data(&json!({"index": 0, "content": piece, "tokens": [1], "stop": false, "id_slot": 0}))
        })
        .collect();
    events.push(Event::data(&ending(call, reply, "")).last());
    events
}

pub(super) fn whole(call: &ModelCall, reply: &Reply) -> Value {
    ending(call, reply, &text(reply))
}

/// All that the model says: this format sets nothing apart.
fn text(reply: &Reply) -> String {
    match &reply.thinking {
        Some(thinking) => format!("<think>{}</think>\n{}", thinking.text, spoken::text(reply)),
        None => spoken::text(reply),
    }
}

fn ending(call: &ModelCall, reply: &Reply, text: &str) -> Value {
    let stop = match reply.finish {
        Finish::Length => "limit",
        Finish::Natural | Finish::Stop | Finish::Refusal => "eos",
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
