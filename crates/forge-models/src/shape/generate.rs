//! Ollama `/api/generate`, as published in the project's API document: one text in, one text out, a JSON object per
//! line. The server's template makes one turn of the prompt, so a longer conversation is written down in it: the
//! first question stands bare, each later turn under a heading, so that every prompt extends the one before.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::ollama::{Settings, finish};
use super::spoken::{self, Listener};
use super::{Call, Decode, Encoded, Progress, Shape, parse, uncached};
use crate::assembly::{Assembly, Fault};
use crate::sse::Event;
use crate::vendors::Structured;

// ---- request -------------------------------------------------------------------------------------------------

#[derive(Serialize)]
struct Body<'a> {
    model: &'a str,
    stream: bool,
    options: Settings,
    #[serde(skip_serializing_if = "Option::is_none")]
    format: Option<&'a Value>,
    #[serde(skip_serializing_if = "String::is_empty")]
    system: String,
    // Last, so that a longer conversation extends the bytes of a shorter one.
    prompt: String,
}

/// The request as bytes.
pub(super) fn encode(call: &Call<'_>) -> Encoded {
    let body = Body {
        model: &call.request.route.model,
        stream: true,
        options: Settings::of(call),
        format: call.json_by(Structured::Schema).map(|format| &format.schema),
        system: spoken::system(call),
        prompt: prompt(call),
    };
    Encoded::to(Shape::Generate.path(), &body)
}

/// The conversation as one text.
fn prompt(call: &Call<'_>) -> String {
    let mut prompt = String::new();
    for (at, (speaker, text)) in spoken::turns(call).into_iter().enumerate() {
        let heading = if speaker == "assistant" { "Assistant" } else { "User" };
        let _ = match at {
            0 if speaker == "user" => write!(prompt, "{text}"),
            _ => write!(prompt, "\n\n### {heading}:\n{text}"),
        };
    }
    prompt
}

// ---- reply ---------------------------------------------------------------------------------------------------

#[derive(Deserialize)]
struct Line {
    #[serde(default)]
    model: Option<String>,
    #[serde(default)]
    response: String,
    #[serde(default)]
    thinking: Option<String>,
    #[serde(default)]
    done: bool,
    #[serde(default)]
    done_reason: Option<String>,
    #[serde(default)]
    prompt_eval_count: Option<u64>,
    #[serde(default)]
    eval_count: Option<u64>,
    #[serde(default)]
    error: Option<Value>,
}

/// Reads the lines up to the one that says `done`.
#[derive(Default)]
pub(super) struct Decoder {
    listener: Listener,
}

impl Decode for Decoder {
    fn event(&mut self, event: Event<'_>, reply: &mut Assembly<'_>) -> Result<Progress, Fault> {
        let line: Line = parse(&event)?;
        if let Some(error) = line.error {
            return Err(Fault::Reported(Box::new(serde_json::json!({"error": error}))));
        }
        reply.model = reply.model.take().or(line.model);
        reply.reasoning(&line.thinking.unwrap_or_default());
        self.listener.hear(&line.response, reply);
        if !line.done {
            return Ok(Progress::More);
        }
        let reason = finish(line.done_reason.as_deref(), false);
        reply.finish = Some(self.listener.finish(reason, reply));
        if let (Some(input), Some(output)) = (line.prompt_eval_count, line.eval_count) {
            reply.usage = Some(uncached(input, output));
        }
        Ok(Progress::Done)
    }
}
