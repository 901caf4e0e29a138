//! Anthropic messages, as published in the reference of `POST /v1/messages` and its streaming part.
//!
//! Consecutive messages of one side are sent as one, tool results before text. Thinking blocks are opaque state:
//! the whole block, signature included, goes back unchanged.
//!
//! The prompt cache is asked for with marks ("cache breakpoints", of which four are allowed): one behind tools and
//! system prompt, one at the end of the conversation, and one where the conversation ended the last time, so that
//! a turn of more than the 20 blocks which the service looks back over still finds it. The marks are no part of what
//! is cached: but for them, each request extends the bytes of the one before.
//!
//! A reply in JSON is asked for as the call of a tool with that schema, which every model of this API can do; the
//! call is given out as the text that it stands for.

use std::borrow::Cow;

use forge_types::{Finish, ModelRequest, Parameters, PartKind, Role, Usage};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::{Call, Decode, Encoded, Progress, Shape, parse};
use crate::assembly::{Assembly, Fault, inline, own_state, reasoning_part, sendable_arguments};
use crate::sse::Event;
use crate::vendors::Structured;

/// The version of the API that this file speaks.
const VERSION: &str = "2023-06-01";
/// The reply's allowance where neither the request nor the catalog names one; the field is mandatory.
const ALLOWANCE: u64 = 4096;

// ---- request -------------------------------------------------------------------------------------------------

#[derive(Serialize)]
struct Body<'a> {
    model: &'a str,
    stream: bool,
    max_tokens: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_p: Option<f64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tools: Vec<Tool<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_choice: Option<ToolChoice<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    system: Option<[SystemBlock; 1]>,
    // Last, so that a longer conversation extends the bytes of a shorter one.
    messages: Vec<Sent<'a>>,
}

/// A place up to which the prompt is to be kept.
#[derive(Clone, Copy, Serialize)]
struct Mark {
    r#type: &'static str,
}

const MARK: Mark = Mark { r#type: "ephemeral" };

#[derive(Serialize)]
struct SystemBlock {
    r#type: &'static str,
    text: String,
    cache_control: Mark,
}

#[derive(Serialize)]
struct Tool<'a> {
    name: &'a str,
    description: &'a str,
    input_schema: InputSchema<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cache_control: Option<Mark>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum InputSchema<'a> {
    /// What a tool takes.
    Tool(Parameters<'a>),
    /// The form of a reply.
    Reply(&'a Value),
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum ToolChoice<'a> {
    Any,
    Tool { name: &'a str },
}

#[derive(Serialize)]
struct Sent<'a> {
    role: &'static str,
    content: Vec<Block<'a>>,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Tagged<'a> {
    Text {
        text: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        cache_control: Option<Mark>,
    },
    ToolUse {
        id: String,
        name: &'a str,
        input: Cow<'a, RawValue>,
    },
    ToolResult {
        tool_use_id: String,
        #[serde(skip_serializing_if = "str::is_empty")]
        content: &'a str,
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        is_error: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        cache_control: Option<Mark>,
    },
}

#[derive(Serialize)]
#[serde(untagged)]
enum Block<'a> {
    Made(Tagged<'a>),
    Verbatim(Box<RawValue>),
}

/// The request as bytes.
pub(super) fn encode(call: &Call<'_>) -> Encoded {
    let request = call.request;
    let model = &request.route.model;
    let temperature = call.temperature();
    let system = call.whole_system();
    let mut tools = tools(call);
    if let (true, Some(last)) = (system.is_empty(), tools.last_mut()) {
        last.cache_control = Some(MARK);
    }
    let body = Body {
        model,
        stream: true,
        max_tokens: request
            .settings
            .max_tokens
            .or_else(|| {
                call.catalog.facts(call.vendor.name, model).max_output.map(|most| most.min(ALLOWANCE))
            })
            .unwrap_or(ALLOWANCE),
        temperature,
        // Newer models refuse a request that sets both.
        top_p: call.top_p().filter(|_| temperature.is_none()),
        tool_choice: call.json_by(Structured::Tool).map(|format| match request.tools.is_empty() {
            true => ToolChoice::Tool { name: &format.name },
            false => ToolChoice::Any,
        }),
        tools,
        system: (!system.is_empty()).then_some([SystemBlock {
            r#type: "text",
            text: system,
            cache_control: MARK,
        }]),
        messages: marked(messages(request)),
    };
    let headers = vec![("anthropic-version", VERSION.to_owned())];
    Encoded { headers, ..Encoded::to(Shape::Anthropic.path(), &body) }
}

/// The tools, and behind them the one that stands for a reply in JSON.
fn tools<'a>(call: &Call<'a>) -> Vec<Tool<'a>> {
    let own = call.request.tools.iter().map(|tool| Tool {
        name: &tool.name,
        description: &tool.description,
        input_schema: InputSchema::Tool(tool.parameters()),
        cache_control: None,
    });
    let answer = call.json_by(Structured::Tool).map(|format| Tool {
        name: &format.name,
        description: "Gives the final answer. Its arguments are the answer.",
        input_schema: InputSchema::Reply(&format.schema),
        cache_control: None,
    });
    own.chain(answer).collect()
}

/// Marks the end of the last two messages of the user's side: where this request ends and where the last one did.
fn marked(mut messages: Vec<Sent<'_>>) -> Vec<Sent<'_>> {
    for message in messages.iter_mut().rev().filter(|message| message.role == "user").take(2) {
        if let Some(Block::Made(
            Tagged::Text { cache_control, .. } | Tagged::ToolResult { cache_control, .. },
        )) = message.content.last_mut()
        {
            *cache_control = Some(MARK);
        }
    }
    messages
}

fn messages(request: &ModelRequest) -> Vec<Sent<'_>> {
    let mut sent: Vec<Sent<'_>> = Vec::with_capacity(request.messages.len());
    for message in &request.messages {
        let role = match message.role {
            Role::System => continue,
            Role::Assistant => "assistant",
            Role::User | Role::Tool => "user",
        };
        let blocks: Vec<Block<'_>> = message.parts.iter().filter_map(|part| block(part, request)).collect();
        if blocks.is_empty() {
            continue;
        }
        match sent.last_mut() {
            Some(last) if last.role == role => last.content.extend(blocks),
            _ => sent.push(Sent { role, content: blocks }),
        }
    }
    sent
}

fn block<'a>(part: &'a forge_types::Part, request: &ModelRequest) -> Option<Block<'a>> {
    match &part.kind {
        // The API refuses blocks of nothing but white space.
        PartKind::Text { text } => Some(inline(text))
            .filter(|text| !text.trim().is_empty())
            .map(|text| Block::Made(Tagged::Text { text, cache_control: None })),
        PartKind::Call(call) => Some(Block::Made(Tagged::ToolUse {
            id: valid_id(&call.id),
            name: &call.name,
            input: sendable_arguments(call),
        })),
        PartKind::Result(result) => Some(Block::Made(Tagged::ToolResult {
            tool_use_id: valid_id(&result.call_id),
            content: inline(&result.content),
            is_error: !result.ok,
            cache_control: None,
        })),
        PartKind::Reasoning { .. } => {
            let state = own_state(part, request)?;
            RawValue::from_string(state.to_owned()).ok().map(Block::Verbatim)
        }
    }
}

/// Ids of other providers may hold characters that this one refuses.
fn valid_id(id: &str) -> String {
    id.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' }).collect()
}

// ---- reply ---------------------------------------------------------------------------------------------------

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Streamed {
    MessageStart {
        message: Started,
    },
    ContentBlockStart {
        index: u64,
        content_block: Value,
    },
    ContentBlockDelta {
        index: u64,
        delta: Delta,
    },
    ContentBlockStop {
        index: u64,
    },
    MessageDelta {
        delta: Ending,
        #[serde(default)]
        usage: Option<Counts>,
    },
    MessageStop,
    Error {
        error: Value,
    },
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
struct Started {
    #[serde(default)]
    model: Option<String>,
    #[serde(default)]
    usage: Option<Counts>,
}

#[derive(Deserialize)]
#[serde(tag = "type")]
enum Delta {
    #[serde(rename = "text_delta")]
    Text { text: String },
    #[serde(rename = "input_json_delta")]
    InputJson { partial_json: String },
    #[serde(rename = "thinking_delta")]
    Thinking { thinking: String },
    #[serde(rename = "signature_delta")]
    Signature { signature: String },
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
struct Ending {
    #[serde(default)]
    stop_reason: Option<String>,
}

#[derive(Clone, Copy, Default, Deserialize)]
struct Counts {
    #[serde(default)]
    input_tokens: Option<u64>,
    #[serde(default)]
    cache_creation_input_tokens: Option<u64>,
    #[serde(default)]
    cache_read_input_tokens: Option<u64>,
    #[serde(default)]
    output_tokens: Option<u64>,
}

/// The content block that is being read.
enum Open {
    Text,
    Call {
        place: usize,
    },
    /// A block that goes back verbatim: its fields as they grow, in the order in which they came.
    Thinking {
        place: usize,
        text: String,
        signature: String,
    },
    /// The call that stands for a reply in JSON; whether any of it has come.
    Answer {
        begun: bool,
    },
    Ignored,
}

/// Reads the events from `message_start` to `message_stop`.
#[derive(Default)]
pub(super) struct Decoder {
    open: Option<(u64, Open)>,
    counts: Counts,
    /// Whether the final count of output tokens was there.
    counted: bool,
    /// The tool whose call is the reply's text.
    answer: Option<String>,
}

impl Decoder {
    pub(super) fn new(call: &Call<'_>) -> Self {
        let answer = call.json_by(Structured::Tool).map(|format| format.name.clone());
        Self { answer, ..Self::default() }
    }
}

impl Decode for Decoder {
    fn event(&mut self, event: Event<'_>, reply: &mut Assembly<'_>) -> Result<Progress, Fault> {
        match parse(&event)? {
            Streamed::MessageStart { message } => {
                reply.model = message.model;
                self.counts = message.usage.unwrap_or_default();
            }
            Streamed::ContentBlockStart { index, content_block } => {
                self.open = Some((index, open(&content_block, self.answer.as_deref(), reply)));
            }
            Streamed::ContentBlockDelta { index, delta } => match &mut self.open {
                Some((at, open)) if *at == index => grow(open, delta, reply),
                _ => return Err(Fault::Malformed(format!("a delta for block {index}, which is not open"))),
            },
            Streamed::ContentBlockStop { index } => {
                if let Some((_, open)) = self.open.take_if(|(at, _)| *at == index) {
                    close(open, reply);
                }
            }
            Streamed::MessageDelta { delta, usage } => {
                if let Some(reason) = delta.stop_reason {
                    reply.finish = Some(match finish(&reason) {
                        Finish::ToolCalls if !reply.has_calls() => Finish::Stop,
                        finish => finish,
                    });
                }
                if let Some(last) = usage {
                    self.counted |= last.output_tokens.is_some();
                    self.counts = self.counts.updated_by(last);
                }
                reply.usage = self.usage();
            }
            Streamed::MessageStop if reply.finish.is_none() => {
                return Err(Fault::Malformed("message_stop without a stop reason".to_owned()));
            }
            Streamed::MessageStop => return Ok(Progress::Done),
            Streamed::Error { error } => {
                return Err(Fault::Reported(Box::new(json!({"type": "error", "error": error}))));
            }
            // Pings, and event types that the API's rules of versioning allow to come.
            Streamed::Other => {}
        }
        Ok(Progress::More)
    }
}

impl Decoder {
    fn usage(&self) -> Option<Usage> {
        let cached = self.counts.cache_read_input_tokens.unwrap_or(0);
        let cache_write = self.counts.cache_creation_input_tokens.unwrap_or(0);
        let output = self.counts.output_tokens.filter(|_| self.counted)?;
        let input = self.counts.input_tokens? + cached + cache_write;
        Some(Usage { input, output, cached, cache_write, known: true })
    }
}

impl Counts {
    /// Later counts are running totals and replace earlier ones.
    fn updated_by(self, later: Self) -> Self {
        Self {
            input_tokens: later.input_tokens.or(self.input_tokens),
            cache_creation_input_tokens: later
                .cache_creation_input_tokens
                .or(self.cache_creation_input_tokens),
            cache_read_input_tokens: later.cache_read_input_tokens.or(self.cache_read_input_tokens),
            output_tokens: later.output_tokens.or(self.output_tokens),
        }
    }
}

fn open(block: &Value, answer: Option<&str>, reply: &mut Assembly<'_>) -> Open {
    let field = |name: &str| block[name].as_str().unwrap_or_default();
    match field("type") {
        "text" => {
            reply.text(field("text"));
            Open::Text
        }
        "tool_use" => {
            // The input comes in deltas; servers that send it whole put it here.
            let whole = block["input"].as_object().filter(|input| !input.is_empty());
            let arguments = whole.map(|_| block["input"].to_string()).unwrap_or_default();
            if answer == Some(field("name")) {
                reply.text(&arguments);
                return Open::Answer { begun: !arguments.is_empty() };
            }
            Open::Call { place: reply.call(field("id"), field("name"), &arguments) }
        }
        "thinking" => {
            let place = reply.push(reasoning_part("", None));
            Open::Thinking {
                place,
                text: field("thinking").to_owned(),
                signature: field("signature").to_owned(),
            }
        }
        "redacted_thinking" => {
            let opaque = reply.opaque(block.to_string());
            reply.push(reasoning_part("", Some(opaque)));
            Open::Ignored
        }
        _ => Open::Ignored,
    }
}

fn grow(open: &mut Open, delta: Delta, reply: &mut Assembly<'_>) {
    match (open, delta) {
        (Open::Text, Delta::Text { text }) => reply.text(&text),
        (Open::Call { place }, Delta::InputJson { partial_json }) => {
            reply.output_bytes += partial_json.len() as u64;
            if let Some(call) = reply.call_at(*place) {
                call.arguments.push_str(&partial_json);
            }
        }
        (Open::Answer { begun }, Delta::InputJson { partial_json }) => {
            *begun |= !partial_json.is_empty();
            reply.text(&partial_json);
        }
        (Open::Thinking { text, .. }, Delta::Thinking { thinking }) => {
            reply.live_reasoning(&thinking);
            text.push_str(&thinking);
        }
        (Open::Thinking { signature, .. }, Delta::Signature { signature: more }) => {
            signature.push_str(&more);
        }
        _ => {}
    }
}

fn close(open: Open, reply: &mut Assembly<'_>) {
    if matches!(open, Open::Answer { begun: false }) {
        // A tool without arguments is called without a word.
        reply.text("{}");
    }
    if let Open::Thinking { place, text, signature } = open {
        let block = json!({"type": "thinking", "thinking": text, "signature": signature});
        // A block without its signature would be refused; it is shown and forgotten.
        let opaque = (!signature.is_empty()).then(|| reply.opaque(block.to_string()));
        reply.parts[place] = reasoning_part(&text, opaque);
    }
}

fn finish(reason: &str) -> Finish {
    match reason {
        "end_turn" | "stop_sequence" | "pause_turn" => Finish::Stop,
        "tool_use" => Finish::ToolCalls,
        "max_tokens" | "model_context_window_exceeded" => Finish::Length,
        _ => Finish::Error,
    }
}
