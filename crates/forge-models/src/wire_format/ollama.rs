//! Ollama `/api/chat`, as published in the project's API document: one JSON object per line.
//!
//! The context window is always set in the request: the server's default is small and cuts a longer prompt silently.

use std::borrow::Cow;

use forge_catalog::vendors::StructuredMode;
use forge_types::{FinishReason, Message, PartKind, Role};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use super::openai::{OpenAiTool, build_tools};
use super::{
    EncodedRequest, StreamDecoder, StreamProgress, WireFormat, WireRequest, argument_text, parse_event,
    usage_without_cache,
};
use crate::reply_builder::{ReplyBuilder, StreamError, inline_text, join_text, sendable_arguments};
use crate::sse::FrameEvent;

// ---- request -------------------------------------------------------------------------------------------------

#[derive(Serialize)]
struct OllamaRequest<'a> {
    model: &'a str,
    stream: bool,
    options: OllamaOptions,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tools: Vec<OpenAiTool<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    format: Option<&'a Value>,
    // Last, so that a longer conversation extends the bytes of a shorter one.
    messages: Vec<OllamaMessage<'a>>,
}

#[derive(Serialize)]
pub(super) struct OllamaOptions {
    num_ctx: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    num_predict: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_p: Option<f64>,
}

#[derive(Serialize)]
struct OllamaMessage<'a> {
    role: &'static str,
    content: Cow<'a, str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<OllamaCall<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_name: Option<&'a str>,
}

#[derive(Serialize)]
struct OllamaCall<'a> {
    function: OllamaFunction<'a>,
}

#[derive(Serialize)]
struct OllamaFunction<'a> {
    name: &'a str,
    arguments: Cow<'a, RawValue>,
}

impl OllamaOptions {
    pub(super) fn from_request(call: &WireRequest<'_>) -> Self {
        let request = call.request;
        Self {
            num_ctx: call.catalog.model_facts(&request.route.provider, &request.route.model).window,
            num_predict: request.settings.max_tokens,
            temperature: call.temperature(),
            top_p: call.top_p(),
        }
    }
}

/// Encodes the request.
pub(super) fn encode_request(call: &WireRequest<'_>) -> EncodedRequest {
    let body = OllamaRequest {
        model: &call.request.route.model,
        stream: true,
        options: OllamaOptions::from_request(call),
        tools: build_tools(call.request),
        format: call.json_format_by(StructuredMode::Schema).map(|format| &format.schema),
        messages: build_messages(call),
    };
    EncodedRequest::from_json(WireFormat::Ollama.path(), &body)
}

fn build_messages<'a>(call: &WireRequest<'a>) -> Vec<OllamaMessage<'a>> {
    let request = call.request;
    let mut sent = Vec::with_capacity(request.messages.len() + 1);
    let system = call.system_prompt();
    if !system.is_empty() {
        sent.push(text_message("system", system));
    }
    for message in &request.messages {
        match message.role {
            Role::System => sent.push(text_message("system", join_text(&message.parts))),
            Role::User => sent.push(text_message("user", join_text(&message.parts))),
            Role::Assistant => sent.push(assistant_message(message)),
            Role::Tool => sent.extend(message.parts.iter().filter_map(|part| match &part.kind {
                PartKind::Result(result) => Some(OllamaMessage {
                    tool_name: Some(&result.name),
                    ..text_message("tool", Cow::Borrowed(inline_text(&result.content)))
                }),
                _ => None,
            })),
        }
    }
    sent
}

fn text_message<'a>(role: &'static str, content: Cow<'a, str>) -> OllamaMessage<'a> {
    OllamaMessage { role, content, tool_calls: Vec::new(), tool_name: None }
}

fn assistant_message(message: &Message) -> OllamaMessage<'_> {
    let mut sent = text_message("assistant", join_text(&message.parts));
    sent.tool_calls = message
        .tool_calls()
        .map(|call| OllamaCall {
            function: OllamaFunction { name: &call.name, arguments: sendable_arguments(call) },
        })
        .collect();
    sent
}

// ---- reply ---------------------------------------------------------------------------------------------------

#[derive(Deserialize)]
struct OllamaChunk<'a> {
    #[serde(default)]
    model: Option<String>,
    #[serde(default, borrow)]
    message: Option<OllamaReceivedMessage<'a>>,
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

#[derive(Deserialize)]
struct OllamaReceivedMessage<'a> {
    #[serde(default)]
    content: Option<String>,
    #[serde(default)]
    thinking: Option<String>,
    #[serde(default, borrow)]
    tool_calls: Option<Vec<OllamaReceivedCall<'a>>>,
}

#[derive(Deserialize)]
struct OllamaReceivedCall<'a> {
    #[serde(default)]
    id: Option<String>,
    #[serde(borrow)]
    function: ReceivedFunction<'a>,
}

#[derive(Deserialize)]
struct ReceivedFunction<'a> {
    #[serde(default)]
    name: String,
    #[serde(default, borrow)]
    arguments: Option<&'a RawValue>,
}

/// A decoder for the lines up to the one with `done`.
#[derive(Default)]
pub(super) struct OllamaDecoder {}

impl StreamDecoder for OllamaDecoder {
    fn decode_event(
        &mut self,
        event: FrameEvent<'_>,
        reply: &mut ReplyBuilder<'_>,
    ) -> Result<StreamProgress, StreamError> {
        let line: OllamaChunk<'_> = parse_event(&event)?;
        if let Some(error) = line.error {
            return Err(StreamError::Reported(Box::new(serde_json::json!({"error": error}))));
        }
        reply.model = reply.model.take().or(line.model);
        if let Some(message) = line.message {
            reply.push_reasoning(&message.thinking.unwrap_or_default());
            reply.push_text(&message.content.unwrap_or_default());
            for call in message.tool_calls.into_iter().flatten() {
                let arguments = call.function.arguments.map_or(Cow::Borrowed(""), argument_text);
                reply.push_call(call.id.as_deref().unwrap_or_default(), &call.function.name, &arguments);
            }
        }
        if !line.done {
            return Ok(StreamProgress::More);
        }
        reply.finish = Some(parse_done_reason(line.done_reason.as_deref(), reply.has_calls()));
        if let (Some(input), Some(output)) = (line.prompt_eval_count, line.eval_count) {
            reply.usage = Some(usage_without_cache(input, output));
        }
        Ok(StreamProgress::Done)
    }
}

/// Returns the finish reason in the last line.
pub(super) fn parse_done_reason(reason: Option<&str>, has_calls: bool) -> FinishReason {
    match reason {
        Some("length") => FinishReason::Length,
        Some("stop") | None if has_calls => FinishReason::ToolCalls,
        Some("stop") | None => FinishReason::Stop,
        Some(_) => FinishReason::Error,
    }
}
