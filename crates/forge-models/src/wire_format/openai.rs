//! OpenAI chat completions, as published in the API reference of `POST /v1/chat/completions`; also the format of
//! OpenRouter, llama.cpp, vLLM and many others. Their differences are data in [`forge_catalog::vendors`].
//!
//! Opaque state: OpenRouter's `reasoning_details` (documented under "Preserving reasoning") and the `reasoning_content`
//! of several servers are sent back on the assistant message that they came with.

use std::borrow::Cow;
use std::collections::BTreeMap;

use forge_catalog::vendors::StructuredMode;
use forge_types::{FinishReason, Message, ModelRequest, ParameterSchema, PartKind, Role, Usage};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::{
    EncodedRequest, StreamDecoder, StreamProgress, WireFormat, WireRequest, argument_text, parse_event,
};
use crate::reply_builder::{
    ReplyBuilder, StreamError, inline_text, join_text, own_state, reasoning_part, sendable_arguments,
};
use crate::sse::FrameEvent;

// ---- request -------------------------------------------------------------------------------------------------

#[derive(Serialize)]
struct OpenAiRequest<'a> {
    model: &'a str,
    stream: bool,
    stream_options: StreamOptions,
    #[serde(flatten)]
    allowance: Map<String, Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_p: Option<f64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tools: Vec<OpenAiTool<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_format: Option<ResponseFormat<'a>>,
    /// A parameter of llama.cpp.
    #[serde(skip_serializing_if = "Option::is_none")]
    grammar: Option<&'a str>,
    // Last, so that a longer conversation extends the bytes of a shorter one.
    messages: Vec<OpenAiMessage<'a>>,
}

#[derive(Serialize)]
struct StreamOptions {
    include_usage: bool,
}

#[derive(Serialize)]
#[serde(tag = "type", rename = "json_schema")]
struct ResponseFormat<'a> {
    json_schema: JsonSchemaFormat<'a>,
}

#[derive(Serialize)]
struct JsonSchemaFormat<'a> {
    name: &'a str,
    strict: bool,
    schema: &'a Value,
}

#[derive(Serialize)]
pub(super) struct OpenAiTool<'a> {
    r#type: &'static str,
    function: OpenAiFunction<'a>,
}

#[derive(Serialize)]
struct OpenAiFunction<'a> {
    name: &'a str,
    description: &'a str,
    parameters: ParameterSchema<'a>,
}

#[derive(Serialize)]
struct OpenAiMessage<'a> {
    role: &'static str,
    content: Cow<'a, str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<OpenAiCall<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_call_id: Option<&'a str>,
    #[serde(flatten)]
    state: BTreeMap<String, Box<RawValue>>,
}

#[derive(Serialize)]
struct OpenAiCall<'a> {
    id: &'a str,
    r#type: &'static str,
    function: OpenAiCallFunction<'a>,
}

#[derive(Serialize)]
struct OpenAiCallFunction<'a> {
    name: &'a str,
    arguments: Cow<'a, str>,
}

/// Encodes the request.
pub(super) fn encode_request(call: &WireRequest<'_>) -> EncodedRequest {
    let request = call.request;
    let settings = &request.settings;
    let allowance = settings.max_tokens.map(|tokens| (call.vendor.allowance.to_owned(), tokens.into()));
    let own_grammar =
        call.json_format_by(StructuredMode::Grammar).and_then(|format| format.grammar.as_deref());
    let by_schema =
        call.json_format_by(StructuredMode::Schema).or_else(|| call.json_format_by(StructuredMode::Grammar));
    let body = OpenAiRequest {
        model: &request.route.model,
        stream: true,
        stream_options: StreamOptions { include_usage: true },
        allowance: allowance.into_iter().collect(),
        temperature: call.temperature(),
        top_p: call.top_p(),
        tools: build_tools(request),
        response_format: by_schema.filter(|_| own_grammar.is_none()).map(|format| ResponseFormat {
            json_schema: JsonSchemaFormat { name: &format.name, strict: true, schema: &format.schema },
        }),
        grammar: own_grammar,
        messages: build_messages(call),
    };
    EncodedRequest::from_json(WireFormat::OpenAi.path(), &body)
}

/// Returns the tools in the format of OpenAI and Ollama.
pub(super) fn build_tools(request: &ModelRequest) -> Vec<OpenAiTool<'_>> {
    request
        .tools
        .iter()
        .map(|tool| OpenAiTool {
            r#type: "function",
            function: OpenAiFunction {
                name: &tool.name,
                description: &tool.description,
                parameters: tool.parameters(),
            },
        })
        .collect()
}

fn build_messages<'a>(call: &WireRequest<'a>) -> Vec<OpenAiMessage<'a>> {
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
            Role::Assistant => sent.push(assistant_message(message, request)),
            Role::Tool => sent.extend(message.parts.iter().filter_map(|part| match &part.kind {
                PartKind::Result(result) => Some(OpenAiMessage {
                    tool_call_id: Some(&result.call_id),
                    ..text_message("tool", Cow::Borrowed(inline_text(&result.content)))
                }),
                _ => None,
            })),
        }
    }
    sent
}

fn text_message<'a>(role: &'static str, content: Cow<'a, str>) -> OpenAiMessage<'a> {
    OpenAiMessage { role, content, tool_calls: Vec::new(), tool_call_id: None, state: BTreeMap::new() }
}

fn assistant_message<'a>(message: &'a Message, request: &ModelRequest) -> OpenAiMessage<'a> {
    let mut sent = text_message("assistant", join_text(&message.parts));
    for part in &message.parts {
        if let Some(data) = own_state(part, request)
            && let Ok(fields) = serde_json::from_str::<BTreeMap<String, Box<RawValue>>>(data)
        {
            sent.state.extend(fields);
        }
        if let PartKind::Call(call) = &part.kind {
            let arguments = match sendable_arguments(call) {
                Cow::Borrowed(raw) => Cow::Borrowed(raw.get()),
                Cow::Owned(raw) => Cow::Owned(raw.get().to_owned()),
            };
            sent.tool_calls.push(OpenAiCall {
                id: &call.id,
                r#type: "function",
                function: OpenAiCallFunction { name: &call.name, arguments },
            });
        }
    }
    sent
}

// ---- reply ---------------------------------------------------------------------------------------------------

#[derive(Deserialize)]
struct OpenAiChunk<'a> {
    #[serde(default)]
    model: Option<String>,
    #[serde(default, borrow)]
    choices: Vec<OpenAiChoice<'a>>,
    #[serde(default)]
    usage: Option<OpenAiUsage>,
    #[serde(default)]
    error: Option<Value>,
}

#[derive(Deserialize)]
struct OpenAiChoice<'a> {
    #[serde(default)]
    index: u32,
    #[serde(default, borrow)]
    delta: Option<ChoiceDelta<'a>>,
    #[serde(default)]
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct ChoiceDelta<'a> {
    #[serde(default)]
    content: Option<String>,
    #[serde(default)]
    refusal: Option<String>,
    #[serde(default)]
    reasoning_content: Option<String>,
    #[serde(default)]
    reasoning: Option<String>,
    #[serde(default)]
    reasoning_details: Option<Vec<Map<String, Value>>>,
    #[serde(default, borrow)]
    tool_calls: Option<Vec<CallDelta<'a>>>,
}

#[derive(Deserialize)]
struct CallDelta<'a> {
    #[serde(default)]
    index: Option<u64>,
    #[serde(default)]
    id: Option<String>,
    #[serde(default, borrow)]
    function: Option<FunctionDelta<'a>>,
}

#[derive(Deserialize)]
struct FunctionDelta<'a> {
    #[serde(default)]
    name: Option<String>,
    #[serde(default, borrow)]
    arguments: Option<&'a RawValue>,
}

#[derive(Clone, Copy, Deserialize)]
struct OpenAiUsage {
    #[serde(default)]
    prompt_tokens: Option<u64>,
    #[serde(default)]
    completion_tokens: Option<u64>,
    #[serde(default)]
    prompt_tokens_details: Option<PromptDetails>,
}

#[derive(Clone, Copy, Deserialize)]
struct PromptDetails {
    #[serde(default)]
    cached_tokens: Option<u64>,
    #[serde(default)]
    cache_write_tokens: Option<u64>,
}

/// The field that carried the reasoning; it is sent back under the same name.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ReasoningField {
    Content,
    Reasoning,
}

/// A decoder for a stream of `chat.completion.chunk`s.
#[derive(Default)]
pub(super) struct OpenAiDecoder {
    /// Wire index and part index of each call that has begun.
    calls: Vec<(u64, usize)>,
    details: Vec<Map<String, Value>>,
    reasoning: Option<(ReasoningField, String)>,
}

impl StreamDecoder for OpenAiDecoder {
    fn decode_event(
        &mut self,
        event: FrameEvent<'_>,
        reply: &mut ReplyBuilder<'_>,
    ) -> Result<StreamProgress, StreamError> {
        if event.data.trim_ascii() == b"[DONE]" {
            if reply.finish.is_none() {
                return Err(StreamError::Malformed("the stream ended without a finish reason".to_owned()));
            }
            self.attach_state(reply);
            return Ok(StreamProgress::Done);
        }
        let chunk: OpenAiChunk<'_> = parse_event(&event)?;
        if let Some(error) = chunk.error.filter(|error| !error.is_null()) {
            return Err(StreamError::Reported(Box::new(serde_json::json!({"error": error}))));
        }
        if reply.model.is_none() {
            reply.model = chunk.model;
        }
        if let Some(counts) = chunk.usage {
            reply.usage = counts.to_usage().or(reply.usage);
        }
        for choice in chunk.choices.into_iter().filter(|choice| choice.index == 0) {
            if let Some(delta) = choice.delta {
                self.apply_delta(delta, reply);
            }
            if let Some(reason) = choice.finish_reason {
                reply.finish = Some(parse_finish_reason(&reason));
            }
        }
        if reply.finish.is_some() {
            self.attach_state(reply);
        }
        Ok(StreamProgress::More)
    }

    /// A few servers omit `[DONE]`. Once the finish reason and the usage, which follows it, have arrived, the reply is
    /// complete.
    fn is_complete_without_terminal(&self, reply: &ReplyBuilder<'_>) -> bool {
        reply.finish.is_some() && reply.usage.is_some()
    }
}

impl OpenAiDecoder {
    fn apply_delta(&mut self, delta: ChoiceDelta<'_>, reply: &mut ReplyBuilder<'_>) {
        if let Some(text) = delta.reasoning_content {
            self.push_reasoning(ReasoningField::Content, &text, reply);
        } else if let Some(text) = delta.reasoning {
            self.push_reasoning(ReasoningField::Reasoning, &text, reply);
        }
        for detail in delta.reasoning_details.into_iter().flatten() {
            self.merge_detail(detail);
        }
        for text in [delta.content, delta.refusal].into_iter().flatten() {
            reply.push_text(&text);
        }
        for call in delta.tool_calls.into_iter().flatten() {
            self.apply_call_delta(&call, reply);
        }
    }

    fn push_reasoning(&mut self, field: ReasoningField, text: &str, reply: &mut ReplyBuilder<'_>) {
        reply.push_reasoning(text);
        self.reasoning.get_or_insert_with(|| (field, String::new())).1.push_str(text);
    }

    /// Merges pieces of one detail, which share index and type: their texts are concatenated, other fields are kept.
    fn merge_detail(&mut self, piece: Map<String, Value>) {
        let key = |detail: &Map<String, Value>| (detail.get("index").cloned(), detail.get("type").cloned());
        let last =
            self.details.last_mut().filter(|last| last.contains_key("index") && key(last) == key(&piece));
        let Some(whole) = last else {
            self.details.push(piece);
            return;
        };
        for (name, value) in piece {
            match (whole.get_mut(&name), value) {
                (Some(Value::String(begun)), Value::String(more))
                    if matches!(name.as_str(), "text" | "summary" | "data") =>
                {
                    begun.push_str(&more);
                }
                (Some(_), Value::Null) => {}
                (_, value) => {
                    whole.insert(name, value);
                }
            }
        }
    }

    fn apply_call_delta(&mut self, delta: &CallDelta<'_>, reply: &mut ReplyBuilder<'_>) {
        let id = delta.id.as_deref().unwrap_or_default();
        let name = delta.function.as_ref().and_then(|function| function.name.as_deref()).unwrap_or_default();
        let arguments = delta.function.as_ref().and_then(|function| function.arguments);
        let arguments = arguments.map(argument_text).unwrap_or_default();
        let index = delta.index.unwrap_or_else(|| match self.calls.last() {
            // Without an index, a name begins a new call.
            Some((last, _)) if name.is_empty() => *last,
            Some((last, _)) => last + 1,
            None => 0,
        });
        let place = self.calls.iter().rev().find(|(known, _)| *known == index).map(|(_, place)| *place);
        let begun = place.and_then(|place| reply.call_at(place)).filter(|call| {
            // Some servers give every call the index 0: a different id with a name is a new call.
            id.is_empty() || name.is_empty() || call.id.is_empty() || call.id == id
        });
        match begun {
            Some(call) => {
                if call.id.is_empty() {
                    call.id.push_str(id);
                }
                if call.name.is_empty() {
                    call.name.push_str(name);
                }
                call.arguments.push_str(&arguments);
                reply.output_bytes += arguments.len() as u64;
            }
            None => {
                let place = reply.push_call(id, name, &arguments);
                self.calls.push((index, place));
            }
        }
    }

    /// Adds the state to send back to the reasoning part, once the reply is complete.
    fn attach_state(&mut self, reply: &mut ReplyBuilder<'_>) {
        let details = std::mem::take(&mut self.details);
        let reasoning = self.reasoning.take();
        let state = if !details.is_empty() {
            serde_json::json!({"reasoning_details": details})
        } else if let Some((field, text)) = reasoning {
            match field {
                ReasoningField::Content => serde_json::json!({"reasoning_content": text}),
                ReasoningField::Reasoning => serde_json::json!({"reasoning": text}),
            }
        } else {
            return;
        };
        let opaque = reply.opaque_state(state.to_string());
        match reply.parts.iter_mut().find(|part| matches!(part.kind, PartKind::Reasoning { .. })) {
            Some(part) => part.opaque = Some(opaque),
            None => reply.parts.insert(0, reasoning_part("", Some(opaque))),
        }
    }
}

fn parse_finish_reason(reason: &str) -> FinishReason {
    match reason {
        "stop" | "eos" => FinishReason::Stop,
        "tool_calls" | "function_call" => FinishReason::ToolCalls,
        "length" => FinishReason::Length,
        _ => FinishReason::Error,
    }
}

impl OpenAiUsage {
    fn to_usage(self) -> Option<Usage> {
        let details = self.prompt_tokens_details;
        Some(Usage {
            input: self.prompt_tokens?,
            output: self.completion_tokens?,
            cached: details.and_then(|details| details.cached_tokens).unwrap_or(0),
            cache_write: details.and_then(|details| details.cache_write_tokens).unwrap_or(0),
            known: true,
        })
    }
}
