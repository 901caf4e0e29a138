//! OpenAI responses, as published in the API reference of `POST /v1/responses` and its streaming events.
//!
//! Nothing is stored at the provider (`store: false`): each request holds the whole conversation as items. Opaque
//! state: reasoning items with their `encrypted_content` go back verbatim, in their place before the items they led
//! to. The encryption is asked for from models that reason; the others refuse to be asked.

use std::borrow::Cow;
use std::collections::HashMap;

use forge_types::{Finish, ModelRequest, Parameters, Part, PartKind, Role, Usage};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::{Call, Decode, Encoded, Progress, Shape, parse};
use crate::assembly::{Assembly, Fault, inline, joined, own_state, reasoning_part, sendable_arguments};
use crate::sse::Event;
use crate::vendors::Structured;

// ---- request -------------------------------------------------------------------------------------------------

#[derive(Serialize)]
struct Body<'a> {
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
    text: Option<TextForm<'a>>,
    /// llama.cpp's own parameters: its server reads no `text.format`.
    #[serde(skip_serializing_if = "Option::is_none")]
    json_schema: Option<&'a Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    grammar: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tools: Vec<Tool<'a>>,
    #[serde(skip_serializing_if = "str::is_empty")]
    instructions: Cow<'a, str>,
    // Last, so that a longer conversation extends the bytes of a shorter one.
    input: Vec<Item<'a>>,
}

#[derive(Serialize)]
struct TextForm<'a> {
    format: SchemaForm<'a>,
}

#[derive(Serialize)]
struct SchemaForm<'a> {
    r#type: &'static str,
    name: &'a str,
    strict: bool,
    schema: &'a Value,
}

#[derive(Serialize)]
struct Tool<'a> {
    r#type: &'static str,
    name: &'a str,
    description: &'a str,
    parameters: Parameters<'a>,
    /// Strict schemas want every parameter required; those of tools have optional ones.
    strict: bool,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Made<'a> {
    Message { role: &'static str, content: [Content<'a>; 1] },
    FunctionCall { call_id: &'a str, name: &'a str, arguments: String },
    FunctionCallOutput { call_id: &'a str, output: &'a str },
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Content<'a> {
    InputText { text: Cow<'a, str> },
    OutputText { text: Cow<'a, str> },
}

#[derive(Serialize)]
#[serde(untagged)]
enum Item<'a> {
    Made(Made<'a>),
    Verbatim(Box<RawValue>),
}

/// The request as bytes.
pub(super) fn encode(call: &Call<'_>) -> Encoded {
    let request = call.request;
    let model = &request.route.model;
    let by_grammar = call.json_by(Structured::Grammar);
    let grammar = by_grammar.and_then(|form| form.grammar.as_deref());
    let body = Body {
        model,
        stream: true,
        store: false,
        include: call.catalog.reasons(call.vendor.name, model).then_some(["reasoning.encrypted_content"]),
        max_output_tokens: request.settings.max_tokens,
        temperature: call.temperature(),
        top_p: call.top_p(),
        json_schema: by_grammar.filter(|_| grammar.is_none()).map(|form| &form.schema),
        grammar,
        text: call.json_by(Structured::Schema).map(|form| TextForm {
            format: SchemaForm {
                r#type: "json_schema",
                name: &form.name,
                strict: true,
                schema: &form.schema,
            },
        }),
        tools: request
            .tools
            .iter()
            .map(|tool| Tool {
                r#type: "function",
                name: &tool.name,
                description: &tool.description,
                parameters: tool.parameters(),
                strict: false,
            })
            .collect(),
        instructions: call.system(),
        input: items(request),
    };
    Encoded::to(Shape::Responses.path(), &body)
}

fn items(request: &ModelRequest) -> Vec<Item<'_>> {
    let mut items = Vec::with_capacity(request.messages.len());
    for message in &request.messages {
        let role = match message.role {
            Role::System => "system",
            Role::User => "user",
            Role::Assistant => {
                items.extend(message.parts.iter().filter_map(|part| said(part, request)));
                continue;
            }
            Role::Tool => {
                items.extend(message.parts.iter().filter_map(outcome));
                continue;
            }
        };
        let content = [Content::InputText { text: joined(&message.parts) }];
        items.push(Item::Made(Made::Message { role, content }));
    }
    items
}

/// The item of a part of the model's.
fn said<'a>(part: &'a Part, request: &ModelRequest) -> Option<Item<'a>> {
    match &part.kind {
        PartKind::Text { text } => Some(inline(text)).filter(|text| !text.is_empty()).map(|text| {
            let content = [Content::OutputText { text: Cow::Borrowed(text) }];
            Item::Made(Made::Message { role: "assistant", content })
        }),
        PartKind::Call(call) => Some(Item::Made(Made::FunctionCall {
            call_id: &call.id,
            name: &call.name,
            arguments: sendable_arguments(call).get().to_owned(),
        })),
        PartKind::Reasoning { .. } => {
            RawValue::from_string(own_state(part, request)?.to_owned()).ok().map(Item::Verbatim)
        }
        PartKind::Result(_) => None,
    }
}

fn outcome(part: &Part) -> Option<Item<'_>> {
    match &part.kind {
        PartKind::Result(result) => Some(Item::Made(Made::FunctionCallOutput {
            call_id: &result.call_id,
            output: inline(&result.content),
        })),
        _ => None,
    }
}

// ---- reply ---------------------------------------------------------------------------------------------------

/// An event; which fields it has depends on its type.
#[derive(Deserialize)]
struct Streamed<'a> {
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
    response: Option<Ending>,
    #[serde(default)]
    error: Option<Value>,
    #[serde(default)]
    message: Option<Value>,
    #[serde(default)]
    code: Option<Value>,
}

#[derive(Deserialize)]
struct Received {
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
    summary: Vec<Piece>,
    #[serde(default)]
    content: Option<Vec<Piece>>,
}

#[derive(Deserialize)]
struct Piece {
    #[serde(default)]
    text: Option<String>,
    #[serde(default)]
    refusal: Option<String>,
}

#[derive(Deserialize)]
struct Ending {
    #[serde(default)]
    status: Option<String>,
    #[serde(default)]
    model: Option<String>,
    #[serde(default)]
    error: Option<Value>,
    #[serde(default)]
    incomplete_details: Option<Incomplete>,
    #[serde(default)]
    usage: Option<Counts>,
}

#[derive(Deserialize)]
struct Incomplete {
    #[serde(default)]
    reason: Option<String>,
}

#[derive(Clone, Copy, Deserialize)]
struct Counts {
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

/// What names an item in later events: its place in the output, or its id where a server leaves the place out.
#[derive(PartialEq, Eq, Hash)]
enum Name {
    Place(u64),
    Id(String),
}

impl Name {
    fn of(place: Option<u64>, id: Option<&str>) -> Self {
        match place {
            Some(place) => Self::Place(place),
            None => Self::Id(id.unwrap_or_default().to_owned()),
        }
    }
}

/// Reads the events up to `response.completed`, `response.incomplete` or `response.failed`.
#[derive(Default)]
pub(super) struct Decoder {
    /// Calls and reasoning items begun, and their places among the parts.
    begun: HashMap<Name, usize>,
    /// Whether text came for the message that is open.
    spoken: bool,
    refused: bool,
    /// The reply's allowance: llama.cpp's server calls a reply complete that this has cut.
    allowance: Option<u64>,
}

impl Decoder {
    pub(super) fn new(call: &Call<'_>) -> Self {
        Self { allowance: call.request.settings.max_tokens, ..Self::default() }
    }
}

impl Decode for Decoder {
    fn event(&mut self, event: Event<'_>, reply: &mut Assembly<'_>) -> Result<Progress, Fault> {
        if event.data.trim_ascii() == b"[DONE]" {
            return match reply.finish {
                Some(_) => Ok(Progress::Done),
                None => Err(Fault::Malformed("the stream ended without `response.completed`".to_owned())),
            };
        }
        let streamed: Streamed<'_> = parse(&event)?;
        let delta = streamed.delta.unwrap_or_default();
        match (&*streamed.kind, streamed.item, streamed.response) {
            ("response.output_item.added", Some(item), _) => {
                self.added(streamed.output_index, &received(item)?, reply);
            }
            ("response.output_item.done", Some(item), _) => self.done(streamed.output_index, item, reply)?,
            ("response.output_text.delta" | "response.refusal.delta", ..) => {
                self.refused |= streamed.kind == "response.refusal.delta";
                self.spoken = true;
                reply.text(&delta);
            }
            ("response.reasoning_summary_text.delta" | "response.reasoning_text.delta", ..) => {
                reply.live_reasoning(&delta);
            }
            ("response.function_call_arguments.delta", ..) => {
                let name = Name::of(streamed.output_index, streamed.item_id.as_deref());
                let place = self.begun.get(&name).copied();
                let Some(call) = place.and_then(|place| reply.call_at(place)) else {
                    return Err(Fault::Malformed("arguments for a call that was not begun".to_owned()));
                };
                call.arguments.push_str(&delta);
                reply.output_bytes += delta.len() as u64;
            }
            ("response.completed" | "response.incomplete" | "response.failed", _, Some(response)) => {
                return self.ended(response, reply);
            }
            (kind, ..) if kind == "error" || streamed.error.is_some() => {
                // The message stands at the top level here, or below `error` as everywhere else.
                let own = || json!({"message": streamed.message, "code": streamed.code});
                let error = streamed.error.clone().filter(Value::is_object).unwrap_or_else(own);
                return Err(Fault::Reported(Box::new(json!({"error": error}))));
            }
            _ => {}
        }
        Ok(Progress::More)
    }
}

impl Decoder {
    fn added(&mut self, place: Option<u64>, item: &Received, reply: &mut Assembly<'_>) {
        let name = Name::of(place, item.id.as_deref());
        match item.kind.as_str() {
            "function_call" => {
                let at = reply.call(
                    item.call_id.as_deref().unwrap_or_default(),
                    item.name.as_deref().unwrap_or_default(),
                    item.arguments.as_deref().unwrap_or_default(),
                );
                self.begun.insert(name, at);
            }
            "reasoning" => {
                let at = reply.push(reasoning_part("", None));
                self.begun.insert(name, at);
            }
            _ => self.spoken = false,
        }
    }

    /// A whole item: what it says counts, whatever its pieces said before.
    fn done(&mut self, place: Option<u64>, raw: &RawValue, reply: &mut Assembly<'_>) -> Result<(), Fault> {
        let item = received(raw)?;
        let name = Name::of(place, item.id.as_deref());
        match item.kind.as_str() {
            "function_call" => {
                if !self.begun.contains_key(&name) {
                    self.added(place, &item, reply);
                }
                let place = self.begun.get(&name).copied();
                if let (Some(call), Some(whole)) =
                    (place.and_then(|place| reply.call_at(place)), item.arguments)
                {
                    call.arguments = whole;
                }
            }
            "reasoning" => {
                let pieces = item.summary.iter().chain(item.content.iter().flatten());
                let texts: Vec<_> = pieces.filter_map(|piece| piece.text.as_deref()).collect();
                // Without its encryption the item would have to be stored at the provider.
                let keeps = item.encrypted_content.as_deref().is_some_and(|content| !content.is_empty());
                let opaque = keeps.then(|| reply.opaque(raw.get().to_owned()));
                let part = reasoning_part(&texts.join("\n\n"), opaque);
                match self.begun.get(&name) {
                    Some(place) => reply.parts[*place] = part,
                    None => drop(reply.push(part)),
                }
            }
            "message" => {
                let pieces = item.content.unwrap_or_default();
                self.refused |= pieces.iter().any(|piece| piece.refusal.is_some());
                if !std::mem::take(&mut self.spoken) {
                    for text in pieces.into_iter().filter_map(|piece| piece.text.or(piece.refusal)) {
                        reply.text(&text);
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn ended(&self, response: Ending, reply: &mut Assembly<'_>) -> Result<Progress, Fault> {
        if let Some(error) = response.error.filter(|error| !error.is_null()) {
            return Err(Fault::Reported(Box::new(json!({"error": error}))));
        }
        reply.model = response.model;
        reply.usage = response.usage.and_then(Counts::usage);
        let used_up =
            reply.usage.is_some_and(|usage| Some(usage.output) >= self.allowance.or(Some(u64::MAX)));
        let reason = response.incomplete_details.and_then(|details| details.reason);
        reply.finish = Some(match (response.status.as_deref(), reason.as_deref()) {
            (Some("incomplete"), Some("max_output_tokens")) => Finish::Length,
            (Some("completed") | None, _) if self.refused => Finish::Error,
            (Some("completed") | None, _) if reply.has_calls() => Finish::ToolCalls,
            (Some("completed") | None, _) if used_up => Finish::Length,
            (Some("completed") | None, _) => Finish::Stop,
            _ => Finish::Error,
        });
        Ok(Progress::Done)
    }
}

fn received(raw: &RawValue) -> Result<Received, Fault> {
    serde_json::from_str(raw.get()).map_err(|error| Fault::Malformed(error.to_string()))
}

impl Counts {
    fn usage(self) -> Option<Usage> {
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
