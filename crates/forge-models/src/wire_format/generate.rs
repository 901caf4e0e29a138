//! Ollama `/api/generate`, as published in the project's API document: one text in, one text out, a JSON object per
//! line. The server's template treats the prompt as one turn, so a longer conversation is written out in it: the first
//! message has no heading, each later turn has one, so that every prompt extends the previous one.

use std::fmt::Write as _;

use forge_catalog::vendors::StructuredMode;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::ollama::{OllamaOptions, parse_done_reason};
use super::text_tools::{self, TextToolParser};
use super::{
    EncodedRequest, StreamDecoder, StreamProgress, WireFormat, WireRequest, parse_event, usage_without_cache,
};
use crate::reply_builder::{ReplyBuilder, StreamError};
use crate::sse::FrameEvent;

// ---- request -------------------------------------------------------------------------------------------------

#[derive(Serialize)]
struct GenerateRequest<'a> {
    model: &'a str,
    stream: bool,
    options: OllamaOptions,
    #[serde(skip_serializing_if = "Option::is_none")]
    format: Option<&'a Value>,
    #[serde(skip_serializing_if = "String::is_empty")]
    system: String,
    // Last, so that a longer conversation extends the bytes of a shorter one.
    prompt: String,
}

/// Encodes the request.
pub(super) fn encode_request(call: &WireRequest<'_>) -> EncodedRequest {
    let body = GenerateRequest {
        model: &call.request.route.model,
        stream: true,
        options: OllamaOptions::from_request(call),
        format: call.json_format_by(StructuredMode::Schema).map(|format| &format.schema),
        system: text_tools::tool_system_prompt(call),
        prompt: render_prompt(call),
    };
    EncodedRequest::from_json(WireFormat::Generate.path(), &body)
}

/// Renders the conversation as one text.
fn render_prompt(call: &WireRequest<'_>) -> String {
    let mut prompt = String::new();
    for (at, (speaker, text)) in text_tools::render_turns(call).into_iter().enumerate() {
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
struct GenerateChunk {
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

/// A decoder for the lines up to the one with `done`.
#[derive(Default)]
pub(super) struct GenerateDecoder {
    listener: TextToolParser,
}

impl StreamDecoder for GenerateDecoder {
    fn decode_event(
        &mut self,
        event: FrameEvent<'_>,
        reply: &mut ReplyBuilder<'_>,
    ) -> Result<StreamProgress, StreamError> {
        let line: GenerateChunk = parse_event(&event)?;
        if let Some(error) = line.error {
            return Err(StreamError::Reported(Box::new(serde_json::json!({"error": error}))));
        }
        reply.model = reply.model.take().or(line.model);
        reply.push_reasoning(&line.thinking.unwrap_or_default());
        self.listener.push(&line.response, reply);
        if !line.done {
            return Ok(StreamProgress::More);
        }
        let reason = parse_done_reason(line.done_reason.as_deref(), false);
        reply.finish = Some(self.listener.finish(reason, reply));
        if let (Some(input), Some(output)) = (line.prompt_eval_count, line.eval_count) {
            reply.usage = Some(usage_without_cache(input, output));
        }
        Ok(StreamProgress::Done)
    }
}
