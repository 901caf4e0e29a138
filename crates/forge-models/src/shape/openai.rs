//! OpenAI chat completions, as published in the API reference of `POST /v1/chat/completions`; also the format of
//! OpenRouter, llama.cpp, vLLM and many others, whose differences are data in [`crate::vendors`].
//!
//! Opaque state: OpenRouter's `reasoning_details` (documented under "Preserving reasoning"), and
//! `reasoning_content` as several servers send it, go back on the assistant message they came with.

use std::borrow::Cow;
use std::collections::BTreeMap;

use forge_types::{Finish, Message, ModelRequest, Parameters, PartKind, Role, Usage};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::{Call, Decode, Encoded, Progress, Shape, argument_text, parse};
use crate::assembly::{Assembly, Fault, inline, joined, own_state, reasoning_part, sendable_arguments};
use crate::sse::Event;
use crate::vendors::Structured;

// ---- request -------------------------------------------------------------------------------------------------

#[derive(Serialize)]
struct Body<'a> {
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
    tools: Vec<Tool<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_format: Option<ResponseFormat<'a>>,
    /// llama.cpp's own parameter.
    #[serde(skip_serializing_if = "Option::is_none")]
    grammar: Option<&'a str>,
    // Last, so that a longer conversation extends the bytes of a shorter one.
    messages: Vec<Sent<'a>>,
}

#[derive(Serialize)]
struct StreamOptions {
    include_usage: bool,
}

#[derive(Serialize)]
#[serde(tag = "type", rename = "json_schema")]
struct ResponseFormat<'a> {
    json_schema: NamedSchema<'a>,
}

#[derive(Serialize)]
struct NamedSchema<'a> {
    name: &'a str,
    strict: bool,
    schema: &'a Value,
}

#[derive(Serialize)]
pub(super) struct Tool<'a> {
    r#type: &'static str,
    function: Function<'a>,
}

#[derive(Serialize)]
struct Function<'a> {
    name: &'a str,
    description: &'a str,
    parameters: Parameters<'a>,
}

#[derive(Serialize)]
struct Sent<'a> {
    role: &'static str,
    content: Cow<'a, str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<SentCall<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_call_id: Option<&'a str>,
    #[serde(flatten)]
    state: BTreeMap<String, Box<RawValue>>,
}

#[derive(Serialize)]
struct SentCall<'a> {
    id: &'a str,
    r#type: &'static str,
    function: SentFunction<'a>,
}

#[derive(Serialize)]
struct SentFunction<'a> {
    name: &'a str,
    arguments: Cow<'a, str>,
}

/// The request as bytes.
pub(super) fn encode(call: &Call<'_>) -> Encoded {
    let request = call.request;
    let settings = &request.settings;
    let allowance = settings.max_tokens.map(|tokens| (call.vendor.allowance.to_owned(), tokens.into()));
    let own_grammar = call.json_by(Structured::Grammar).and_then(|format| format.grammar.as_deref());
    let by_schema = call.json_by(Structured::Schema).or_else(|| call.json_by(Structured::Grammar));
    let body = Body {
        model: &request.route.model,
        stream: true,
        stream_options: StreamOptions { include_usage: true },
        allowance: allowance.into_iter().collect(),
        temperature: call.temperature(),
        top_p: call.top_p(),
        tools: tools(request),
        response_format: by_schema.filter(|_| own_grammar.is_none()).map(|format| ResponseFormat {
            json_schema: NamedSchema { name: &format.name, strict: true, schema: &format.schema },
        }),
        grammar: own_grammar,
        messages: messages(call),
    };
    Encoded::to(Shape::OpenAi.path(), &body)
}

/// The tools as OpenAI and Ollama have them.
pub(super) fn tools(request: &ModelRequest) -> Vec<Tool<'_>> {
    request
        .tools
        .iter()
        .map(|tool| Tool {
            r#type: "function",
            function: Function {
                name: &tool.name,
                description: &tool.description,
                parameters: tool.parameters(),
            },
        })
        .collect()
}

fn messages<'a>(call: &Call<'a>) -> Vec<Sent<'a>> {
    let request = call.request;
    let mut sent = Vec::with_capacity(request.messages.len() + 1);
    let system = call.system();
    if !system.is_empty() {
        sent.push(plain("system", system));
    }
    for message in &request.messages {
        match message.role {
            Role::System => sent.push(plain("system", joined(&message.parts))),
            Role::User => sent.push(plain("user", joined(&message.parts))),
            Role::Assistant => sent.push(assistant(message, request)),
            Role::Tool => sent.extend(message.parts.iter().filter_map(|part| match &part.kind {
                PartKind::Result(result) => Some(Sent {
                    tool_call_id: Some(&result.call_id),
                    ..plain("tool", Cow::Borrowed(inline(&result.content)))
                }),
                _ => None,
            })),
        }
    }
    sent
}

fn plain<'a>(role: &'static str, content: Cow<'a, str>) -> Sent<'a> {
    Sent { role, content, tool_calls: Vec::new(), tool_call_id: None, state: BTreeMap::new() }
}

fn assistant<'a>(message: &'a Message, request: &ModelRequest) -> Sent<'a> {
    let mut sent = plain("assistant", joined(&message.parts));
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
            sent.tool_calls.push(SentCall {
                id: &call.id,
                r#type: "function",
                function: SentFunction { name: &call.name, arguments },
            });
        }
    }
    sent
}

// ---- reply ---------------------------------------------------------------------------------------------------

#[derive(Deserialize)]
struct Chunk<'a> {
    #[serde(default)]
    model: Option<String>,
    #[serde(default, borrow)]
    choices: Vec<Choice<'a>>,
    #[serde(default)]
    usage: Option<Counts>,
    #[serde(default)]
    error: Option<Value>,
}

#[derive(Deserialize)]
struct Choice<'a> {
    #[serde(default)]
    index: u32,
    #[serde(default, borrow)]
    delta: Option<Delta<'a>>,
    #[serde(default)]
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct Delta<'a> {
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
struct Counts {
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

/// Which field of the stream carried the reasoning: it goes back under the same name.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ReasoningField {
    Content,
    Plain,
}

/// Reads a stream of `chat.completion.chunk`s.
#[derive(Default)]
pub(super) struct Decoder {
    /// The calls begun: wire index and place among the parts.
    calls: Vec<(u64, usize)>,
    details: Vec<Map<String, Value>>,
    reasoning: Option<(ReasoningField, String)>,
}

impl Decode for Decoder {
    fn event(&mut self, event: Event<'_>, reply: &mut Assembly<'_>) -> Result<Progress, Fault> {
        if event.data.trim_ascii() == b"[DONE]" {
            if reply.finish.is_none() {
                return Err(Fault::Malformed("the stream ended without a finish reason".to_owned()));
            }
            self.keep_state(reply);
            return Ok(Progress::Done);
        }
        let chunk: Chunk<'_> = parse(&event)?;
        if let Some(error) = chunk.error.filter(|error| !error.is_null()) {
            return Err(Fault::Reported(Box::new(serde_json::json!({"error": error}))));
        }
        if reply.model.is_none() {
            reply.model = chunk.model;
        }
        if let Some(counts) = chunk.usage {
            reply.usage = counts.usage().or(reply.usage);
        }
        for choice in chunk.choices.into_iter().filter(|choice| choice.index == 0) {
            if let Some(delta) = choice.delta {
                self.delta(delta, reply);
            }
            if let Some(reason) = choice.finish_reason {
                reply.finish = Some(finish(&reason));
            }
        }
        if reply.finish.is_some() {
            self.keep_state(reply);
        }
        Ok(Progress::More)
    }

    /// A few servers leave `[DONE]` out. When the finish reason and the usage, which comes after it, are there,
    /// nothing can be missing.
    fn whole_without_terminal(&self, reply: &Assembly<'_>) -> bool {
        reply.finish.is_some() && reply.usage.is_some()
    }
}

impl Decoder {
    fn delta(&mut self, delta: Delta<'_>, reply: &mut Assembly<'_>) {
        if let Some(text) = delta.reasoning_content {
            self.reason(ReasoningField::Content, &text, reply);
        } else if let Some(text) = delta.reasoning {
            self.reason(ReasoningField::Plain, &text, reply);
        }
        for detail in delta.reasoning_details.into_iter().flatten() {
            self.detail(detail);
        }
        for text in [delta.content, delta.refusal].into_iter().flatten() {
            reply.text(&text);
        }
        for call in delta.tool_calls.into_iter().flatten() {
            self.call(&call, reply);
        }
    }

    fn reason(&mut self, field: ReasoningField, text: &str, reply: &mut Assembly<'_>) {
        reply.reasoning(text);
        self.reasoning.get_or_insert_with(|| (field, String::new())).1.push_str(text);
    }

    /// Pieces of one detail share index and type: their texts are one text, their other fields stay.
    fn detail(&mut self, piece: Map<String, Value>) {
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

    fn call(&mut self, delta: &CallDelta<'_>, reply: &mut Assembly<'_>) {
        let id = delta.id.as_deref().unwrap_or_default();
        let name = delta.function.as_ref().and_then(|function| function.name.as_deref()).unwrap_or_default();
        let arguments = delta.function.as_ref().and_then(|function| function.arguments);
        let arguments = arguments.map(argument_text).unwrap_or_default();
        let index = delta.index.unwrap_or_else(|| match self.calls.last() {
            // Without an index a new name begins a new call.
            Some((last, _)) if name.is_empty() => *last,
            Some((last, _)) => last + 1,
            None => 0,
        });
        let place = self.calls.iter().rev().find(|(known, _)| *known == index).map(|(_, place)| *place);
        let begun = place.and_then(|place| reply.call_at(place)).filter(|call| {
            // Some servers give every call the index 0: another id with a name is another call.
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
                let place = reply.call(id, name, &arguments);
                self.calls.push((index, place));
            }
        }
    }

    /// Puts the state that must go back onto the reasoning part; done once, when the reply is complete.
    fn keep_state(&mut self, reply: &mut Assembly<'_>) {
        let details = std::mem::take(&mut self.details);
        let reasoning = self.reasoning.take();
        let state = if !details.is_empty() {
            serde_json::json!({"reasoning_details": details})
        } else if let Some((field, text)) = reasoning {
            match field {
                ReasoningField::Content => serde_json::json!({"reasoning_content": text}),
                ReasoningField::Plain => serde_json::json!({"reasoning": text}),
            }
        } else {
            return;
        };
        let opaque = reply.opaque(state.to_string());
        match reply.parts.iter_mut().find(|part| matches!(part.kind, PartKind::Reasoning { .. })) {
            Some(part) => part.opaque = Some(opaque),
            None => reply.parts.insert(0, reasoning_part("", Some(opaque))),
        }
    }
}

fn finish(reason: &str) -> Finish {
    match reason {
        "stop" | "eos" => Finish::Stop,
        "tool_calls" | "function_call" => Finish::ToolCalls,
        "length" => Finish::Length,
        _ => Finish::Error,
    }
}

impl Counts {
    fn usage(self) -> Option<Usage> {
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
