//! OpenAI responses, as published in the API reference of `POST /v1/responses` and its streaming events.
//!
//! The provider stores nothing (`store: false`): each request holds the whole conversation as items. Opaque state:
//! reasoning items with their `encrypted_content` are sent back verbatim, before the items that followed them. The
//! encryption is requested only from models that reason; the others refuse the request.

use std::borrow::Cow;
use std::collections::HashMap;

use forge_catalog::vendors::StructuredMode;
use forge_types::{FinishReason, MessagePart, ModelRequest, ParameterSchema, PartKind, Role, Usage};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::{EncodedRequest, StreamDecoder, StreamProgress, WireFormat, WireRequest, parse_event};
use crate::reply_builder::{
    ReplyBuilder, StreamError, inline_text, join_text, own_state, reasoning_part, sendable_arguments,
};
use crate::sse::FrameEvent;

// ---- request -------------------------------------------------------------------------------------------------

#[derive(Serialize)]
struct ResponsesRequest<'a> {
    model: &'a str,
    stream: bool,
    store: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    include: Option<[&'static str; 1]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_output_tokens: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_p: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<TextFormat<'a>>,
    /// Parameters of llama.cpp, which ignores `text.format`.
    #[serde(skip_serializing_if = "Option::is_none")]
    json_schema: Option<&'a Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    grammar: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tools: Vec<ResponsesTool<'a>>,
    #[serde(skip_serializing_if = "str::is_empty")]
    instructions: Cow<'a, str>,
    // Last, so that a longer conversation extends the bytes of a shorter one.
    input: Vec<ResponsesItem<'a>>,
}

#[derive(Serialize)]
struct TextFormat<'a> {
    format: TextSchemaFormat<'a>,
}

#[derive(Serialize)]
struct TextSchemaFormat<'a> {
    r#type: &'static str,
    name: &'a str,
    strict: bool,
    schema: &'a Value,
}

#[derive(Serialize)]
struct ResponsesTool<'a> {
    r#type: &'static str,
    name: &'a str,
    description: &'a str,
    parameters: ParameterSchema<'a>,
    /// Strict schemas require every parameter; those of tools have optional ones.
    strict: bool,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum InputItem<'a> {
    Message { role: &'static str, content: [ItemContent<'a>; 1] },
    FunctionCall { call_id: &'a str, name: &'a str, arguments: String },
    FunctionCallOutput { call_id: &'a str, output: &'a str },
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum ItemContent<'a> {
    InputText { text: Cow<'a, str> },
    OutputText { text: Cow<'a, str> },
}

#[derive(Serialize)]
#[serde(untagged)]
enum ResponsesItem<'a> {
    Made(InputItem<'a>),
    Verbatim(Box<RawValue>),
}

/// Encodes the request.
pub(super) fn encode_request(call: &WireRequest<'_>) -> EncodedRequest {
    let request = call.request;
    let model = &request.route.model;
    let by_grammar = call.json_format_by(StructuredMode::Grammar);
    let grammar = by_grammar.and_then(|form| form.grammar.as_deref());
    let body = ResponsesRequest {
        model,
        stream: true,
        store: false,
        include: call
            .catalog
            .supports_reasoning(call.vendor.name, model)
            .then_some(["reasoning.encrypted_content"]),
        max_output_tokens: request.settings.max_tokens,
        temperature: call.temperature(),
        top_p: call.top_p(),
        json_schema: by_grammar.filter(|_| grammar.is_none()).map(|form| &form.schema),
        grammar,
        text: call.json_format_by(StructuredMode::Schema).map(|form| TextFormat {
            format: TextSchemaFormat {
                r#type: "json_schema",
                name: &form.name,
                strict: true,
                schema: &form.schema,
            },
        }),
        tools: request
            .tools
            .iter()
            .map(|tool| ResponsesTool {
                r#type: "function",
                name: &tool.name,
                description: &tool.description,
                parameters: tool.parameters(),
                strict: false,
            })
            .collect(),
        instructions: call.system_prompt(),
        input: build_items(request),
    };
    EncodedRequest::from_json(WireFormat::Responses.path(), &body)
}

fn build_items(request: &ModelRequest) -> Vec<ResponsesItem<'_>> {
    let mut items = Vec::with_capacity(request.messages.len());
    for message in &request.messages {
        let role = match message.role {
            Role::System => "system",
            Role::User => "user",
            Role::Assistant => {
                items.extend(message.parts.iter().filter_map(|part| build_output_item(part, request)));
                continue;
            }
            Role::Tool => {
                items.extend(message.parts.iter().filter_map(build_result_item));
                continue;
            }
        };
        let content = [ItemContent::InputText { text: join_text(&message.parts) }];
        items.push(ResponsesItem::Made(InputItem::Message { role, content }));
    }
    items
}

/// Returns the item for a part of an assistant message.
fn build_output_item<'a>(part: &'a MessagePart, request: &ModelRequest) -> Option<ResponsesItem<'a>> {
    match &part.kind {
        PartKind::Text { text } => Some(inline_text(text)).filter(|text| !text.is_empty()).map(|text| {
            let content = [ItemContent::OutputText { text: Cow::Borrowed(text) }];
            ResponsesItem::Made(InputItem::Message { role: "assistant", content })
        }),
        PartKind::Call(call) => Some(ResponsesItem::Made(InputItem::FunctionCall {
            call_id: &call.id,
            name: &call.name,
            arguments: sendable_arguments(call).get().to_owned(),
        })),
        PartKind::Reasoning { .. } => {
            RawValue::from_string(own_state(part, request)?.to_owned()).ok().map(ResponsesItem::Verbatim)
        }
        PartKind::Result(_) => None,
    }
}

fn build_result_item(part: &MessagePart) -> Option<ResponsesItem<'_>> {
    match &part.kind {
        PartKind::Result(result) => Some(ResponsesItem::Made(InputItem::FunctionCallOutput {
            call_id: &result.call_id,
            output: inline_text(&result.content),
        })),
        _ => None,
    }
}

// ---- reply ---------------------------------------------------------------------------------------------------

/// An event; its fields depend on its type.
#[derive(Deserialize)]
struct ResponsesEvent<'a> {
    #[serde(rename = "type", default, borrow)]
    kind: Cow<'a, str>,
    #[serde(default)]
    output_index: Option<u64>,
    #[serde(default, borrow)]
    item_id: Option<Cow<'a, str>>,
    #[serde(default, borrow)]
    item: Option<&'a RawValue>,
    #[serde(default, borrow)]
    delta: Option<Cow<'a, str>>,
    #[serde(default)]
    response: Option<FinalResponse>,
    #[serde(default)]
    error: Option<Value>,
    #[serde(default)]
    message: Option<Value>,
    #[serde(default)]
    code: Option<Value>,
}

#[derive(Deserialize)]
struct OutputItem {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    call_id: Option<String>,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    arguments: Option<String>,
    #[serde(default)]
    encrypted_content: Option<String>,
    #[serde(default)]
    summary: Vec<OutputPiece>,
    #[serde(default)]
    content: Option<Vec<OutputPiece>>,
}

#[derive(Deserialize)]
struct OutputPiece {
    #[serde(default)]
    text: Option<String>,
    #[serde(default)]
    refusal: Option<String>,
}

#[derive(Deserialize)]
struct FinalResponse {
    #[serde(default)]
    status: Option<String>,
    #[serde(default)]
    model: Option<String>,
    #[serde(default)]
    error: Option<Value>,
    #[serde(default)]
    incomplete_details: Option<IncompleteDetails>,
    #[serde(default)]
    usage: Option<ResponsesUsage>,
}

#[derive(Deserialize)]
struct IncompleteDetails {
    #[serde(default)]
    reason: Option<String>,
}

#[derive(Clone, Copy, Deserialize)]
struct ResponsesUsage {
    #[serde(default)]
    input_tokens: Option<u64>,
    #[serde(default)]
    output_tokens: Option<u64>,
    #[serde(default)]
    input_tokens_details: Option<InputDetails>,
}

#[derive(Clone, Copy, Deserialize)]
struct InputDetails {
    #[serde(default)]
    cached_tokens: Option<u64>,
    #[serde(default)]
    cache_write_tokens: Option<u64>,
}

/// The key of an item in later events: its output index, or its id if a server omits the index.
#[derive(PartialEq, Eq, Hash)]
enum ItemKey {
    Index(u64),
    Id(String),
}

impl ItemKey {
    fn new(place: Option<u64>, id: Option<&str>) -> Self {
        match place {
            Some(place) => Self::Index(place),
            None => Self::Id(id.unwrap_or_default().to_owned()),
        }
    }
}

/// A decoder for the events up to `response.completed`, `response.incomplete` or `response.failed`.
#[derive(Default)]
pub(super) struct ResponsesDecoder {
    /// Part index of each call and reasoning item that has begun.
    started: HashMap<ItemKey, usize>,
    /// Whether text has arrived for the current message.
    text_streamed: bool,
    refused: bool,
    /// Reply limit: llama.cpp's server reports a reply that reached it as complete.
    allowance: Option<u64>,
}

impl ResponsesDecoder {
    pub(super) fn new(call: &WireRequest<'_>) -> Self {
        Self { allowance: call.request.settings.max_tokens, ..Self::default() }
    }
}

impl StreamDecoder for ResponsesDecoder {
    fn decode_event(
        &mut self,
        event: FrameEvent<'_>,
        reply: &mut ReplyBuilder<'_>,
    ) -> Result<StreamProgress, StreamError> {
        if event.data.trim_ascii() == b"[DONE]" {
            return match reply.finish {
                Some(_) => Ok(StreamProgress::Done),
                None => {
                    Err(StreamError::Malformed("the stream ended without `response.completed`".to_owned()))
                }
            };
        }
        let streamed: ResponsesEvent<'_> = parse_event(&event)?;
        let delta = streamed.delta.unwrap_or_default();
        match (&*streamed.kind, streamed.item, streamed.response) {
            ("response.output_item.added", Some(item), _) => {
                self.begin_item(streamed.output_index, &parse_item(item)?, reply);
            }
            ("response.output_item.done", Some(item), _) => {
                self.complete_item(streamed.output_index, item, reply)?
            }
            ("response.output_text.delta" | "response.refusal.delta", ..) => {
                self.refused |= streamed.kind == "response.refusal.delta";
                self.text_streamed = true;
                reply.push_text(&delta);
            }
            ("response.reasoning_summary_text.delta" | "response.reasoning_text.delta", ..) => {
                reply.emit_reasoning(&delta);
            }
            ("response.function_call_arguments.delta", ..) => {
                let name = ItemKey::new(streamed.output_index, streamed.item_id.as_deref());
                let place = self.started.get(&name).copied();
                let Some(call) = place.and_then(|place| reply.call_at(place)) else {
                    return Err(StreamError::Malformed("arguments for a call that was not begun".to_owned()));
                };
                call.arguments.push_str(&delta);
                reply.output_bytes += delta.len() as u64;
            }
            ("response.completed" | "response.incomplete" | "response.failed", _, Some(response)) => {
                return self.finish_response(response, reply);
            }
            (kind, ..) if kind == "error" || streamed.error.is_some() => {
                // The message is at the top level here, or below `error` as in all other formats.
                let own = || json!({"message": streamed.message, "code": streamed.code});
                let error = streamed.error.clone().filter(Value::is_object).unwrap_or_else(own);
                return Err(StreamError::Reported(Box::new(json!({"error": error}))));
            }
            _ => {}
        }
        Ok(StreamProgress::More)
    }
}

impl ResponsesDecoder {
    fn begin_item(&mut self, place: Option<u64>, item: &OutputItem, reply: &mut ReplyBuilder<'_>) {
        let name = ItemKey::new(place, item.id.as_deref());
        match item.kind.as_str() {
            "function_call" => {
                let at = reply.push_call(
                    item.call_id.as_deref().unwrap_or_default(),
                    item.name.as_deref().unwrap_or_default(),
                    item.arguments.as_deref().unwrap_or_default(),
                );
                self.started.insert(name, at);
            }
            "reasoning" => {
                let at = reply.push_part(reasoning_part("", None));
                self.started.insert(name, at);
            }
            _ => self.text_streamed = false,
        }
    }

    /// Processes a complete item, which overrides its earlier pieces.
    fn complete_item(
        &mut self,
        place: Option<u64>,
        raw: &RawValue,
        reply: &mut ReplyBuilder<'_>,
    ) -> Result<(), StreamError> {
        let item = parse_item(raw)?;
        let name = ItemKey::new(place, item.id.as_deref());
        match item.kind.as_str() {
            "function_call" => {
                if !self.started.contains_key(&name) {
                    self.begin_item(place, &item, reply);
                }
                let place = self.started.get(&name).copied();
                if let (Some(call), Some(whole)) =
                    (place.and_then(|place| reply.call_at(place)), item.arguments)
                {
                    call.arguments = whole.into();
                }
            }
            "reasoning" => {
                let pieces = item.summary.iter().chain(item.content.iter().flatten());
                let texts: Vec<_> = pieces.filter_map(|piece| piece.text.as_deref()).collect();
                // Without its encrypted content, the item would have to be stored at the provider.
                let keeps = item.encrypted_content.as_deref().is_some_and(|content| !content.is_empty());
                let opaque = keeps.then(|| reply.opaque_state(raw.get().to_owned()));
                let part = reasoning_part(&texts.join("\n\n"), opaque);
                match self.started.get(&name) {
                    Some(place) => reply.parts[*place] = part,
                    None => drop(reply.push_part(part)),
                }
            }
            "message" => {
                let pieces = item.content.unwrap_or_default();
                self.refused |= pieces.iter().any(|piece| piece.refusal.is_some());
                if !std::mem::take(&mut self.text_streamed) {
                    for text in pieces.into_iter().filter_map(|piece| piece.text.or(piece.refusal)) {
                        reply.push_text(&text);
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn finish_response(
        &self,
        response: FinalResponse,
        reply: &mut ReplyBuilder<'_>,
    ) -> Result<StreamProgress, StreamError> {
        if let Some(error) = response.error.filter(|error| !error.is_null()) {
            return Err(StreamError::Reported(Box::new(json!({"error": error}))));
        }
        reply.model = response.model;
        reply.usage = response.usage.and_then(ResponsesUsage::to_usage);
        let used_up =
            reply.usage.is_some_and(|usage| Some(usage.output) >= self.allowance.or(Some(u64::MAX)));
        let reason = response.incomplete_details.and_then(|details| details.reason);
        reply.finish = Some(match (response.status.as_deref(), reason.as_deref()) {
            (Some("incomplete"), Some("max_output_tokens")) => FinishReason::Length,
            (Some("completed") | None, _) if self.refused => FinishReason::Error,
            (Some("completed") | None, _) if reply.has_calls() => FinishReason::ToolCalls,
            (Some("completed") | None, _) if used_up => FinishReason::Length,
            (Some("completed") | None, _) => FinishReason::Stop,
            _ => FinishReason::Error,
        });
        Ok(StreamProgress::Done)
    }
}

fn parse_item(raw: &RawValue) -> Result<OutputItem, StreamError> {
    serde_json::from_str(raw.get()).map_err(|error| StreamError::Malformed(error.to_string()))
}

impl ResponsesUsage {
    fn to_usage(self) -> Option<Usage> {
        let details = self.input_tokens_details;
        Some(Usage {
            input: self.input_tokens?,
            output: self.output_tokens?,
            cached: details.and_then(|details| details.cached_tokens).unwrap_or(0),
            cache_write: details.and_then(|details| details.cache_write_tokens).unwrap_or(0),
            known: true,
        })
    }
}
