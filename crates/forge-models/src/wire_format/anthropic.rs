//! Anthropic messages, as published in the reference of `POST /v1/messages` and its streaming part.
//!
//! Consecutive messages of one side are sent as one, tool results before text. Thinking blocks are opaque state: the
//! whole block, signature included, is sent back unchanged.
//!
//! Prompt caching is requested with marks ("cache breakpoints", at most four): one after tools and system prompt, one
//! at the end of the conversation, and one at its previous end. The service looks back over only 20 blocks, and the
//! third mark lets it find the cache entry after a longer turn. The marks are not part of the cached content: without
//! them, each request extends the bytes of the one before.
//!
//! A reply in JSON is requested as the call of a tool with that schema, which every model of this API supports; the
//! call is returned as the reply's text.

use std::borrow::Cow;

use forge_catalog::vendors::StructuredMode;
use forge_types::{FinishReason, ModelRequest, ParameterSchema, PartKind, Role, Usage};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::{EncodedRequest, StreamDecoder, StreamProgress, WireFormat, WireRequest, parse_event};
use crate::reply_builder::{
    ReplyBuilder, StreamError, inline_text, own_state, reasoning_part, sendable_arguments,
};
use crate::sse::FrameEvent;

/// API version implemented here.
const API_VERSION: &str = "2023-06-01";
/// Reply limit where neither the request nor the catalog has one; the field is mandatory.
const DEFAULT_MAX_TOKENS: u64 = 4096;

// ---- request -------------------------------------------------------------------------------------------------

#[derive(Serialize)]
struct AnthropicRequest<'a> {
    model: &'a str,
    stream: bool,
    max_tokens: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_p: Option<f64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tools: Vec<AnthropicTool<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_choice: Option<ToolChoice<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    system: Option<[SystemBlock; 1]>,
    // Last, so that a longer conversation extends the bytes of a shorter one.
    messages: Vec<AnthropicMessage<'a>>,
}

/// A mark for the end of the cached prefix of the prompt.
#[derive(Clone, Copy, Serialize)]
struct CacheControl {
    r#type: &'static str,
}

const EPHEMERAL_CACHE: CacheControl = CacheControl { r#type: "ephemeral" };

#[derive(Serialize)]
struct SystemBlock {
    r#type: &'static str,
    text: String,
    cache_control: CacheControl,
}

#[derive(Serialize)]
struct AnthropicTool<'a> {
    name: &'a str,
    description: &'a str,
    input_schema: InputSchema<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cache_control: Option<CacheControl>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum InputSchema<'a> {
    /// Parameters of a tool.
    Tool(ParameterSchema<'a>),
    /// Schema of a reply.
    Reply(&'a Value),
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum ToolChoice<'a> {
    Any,
    Tool { name: &'a str },
}

#[derive(Serialize)]
struct AnthropicMessage<'a> {
    role: &'static str,
    content: Vec<AnthropicBlock<'a>>,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum ContentBlock<'a> {
    Text {
        text: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        cache_control: Option<CacheControl>,
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
        cache_control: Option<CacheControl>,
    },
}

#[derive(Serialize)]
#[serde(untagged)]
enum AnthropicBlock<'a> {
    Made(ContentBlock<'a>),
    Verbatim(Box<RawValue>),
}

/// Encodes the request.
pub(super) fn encode_request(call: &WireRequest<'_>) -> EncodedRequest {
    let request = call.request;
    let model = &request.route.model;
    let temperature = call.temperature();
    let system = call.full_system_prompt();
    let mut tools = build_tools(call);
    if let (true, Some(last)) = (system.is_empty(), tools.last_mut()) {
        last.cache_control = Some(EPHEMERAL_CACHE);
    }
    let body = AnthropicRequest {
        model,
        stream: true,
        max_tokens: request
            .settings
            .max_tokens
            .or_else(|| {
                call.catalog
                    .model_facts(call.vendor.name, model)
                    .max_output
                    .map(|most| most.min(DEFAULT_MAX_TOKENS))
            })
            .unwrap_or(DEFAULT_MAX_TOKENS),
        temperature,
        // Newer models refuse a request that sets both.
        top_p: call.top_p().filter(|_| temperature.is_none()),
        tool_choice: call.json_format_by(StructuredMode::Tool).map(|format| match request.tools.is_empty() {
            true => ToolChoice::Tool { name: &format.name },
            false => ToolChoice::Any,
        }),
        tools,
        system: (!system.is_empty()).then_some([SystemBlock {
            r#type: "text",
            text: system,
            cache_control: EPHEMERAL_CACHE,
        }]),
        messages: mark_cache_points(build_messages(request)),
    };
    let headers = vec![("anthropic-version", API_VERSION.to_owned())];
    EncodedRequest { headers, ..EncodedRequest::from_json(WireFormat::Anthropic.path(), &body) }
}

/// Returns the tools, followed by the one that produces a reply in JSON.
fn build_tools<'a>(call: &WireRequest<'a>) -> Vec<AnthropicTool<'a>> {
    let own = call.request.tools.iter().map(|tool| AnthropicTool {
        name: &tool.name,
        description: &tool.description,
        input_schema: InputSchema::Tool(tool.parameters()),
        cache_control: None,
    });
    let answer = call.json_format_by(StructuredMode::Tool).map(|format| AnthropicTool {
        name: &format.name,
        description: "Gives the final answer. Its arguments are the answer.",
        input_schema: InputSchema::Reply(&format.schema),
        cache_control: None,
    });
    own.chain(answer).collect()
}

/// Marks the end of the last two messages of the user's side, which are the ends of this request and of the previous
/// one.
fn mark_cache_points(mut messages: Vec<AnthropicMessage<'_>>) -> Vec<AnthropicMessage<'_>> {
    for message in messages.iter_mut().rev().filter(|message| message.role == "user").take(2) {
        if let Some(AnthropicBlock::Made(
            ContentBlock::Text { cache_control, .. } | ContentBlock::ToolResult { cache_control, .. },
        )) = message.content.last_mut()
        {
            *cache_control = Some(EPHEMERAL_CACHE);
        }
    }
    messages
}

fn build_messages(request: &ModelRequest) -> Vec<AnthropicMessage<'_>> {
    let mut sent: Vec<AnthropicMessage<'_>> = Vec::with_capacity(request.messages.len());
    for message in &request.messages {
        let role = match message.role {
            Role::System => continue,
            Role::Assistant => "assistant",
            Role::User | Role::Tool => "user",
        };
        let blocks: Vec<AnthropicBlock<'_>> =
            message.parts.iter().filter_map(|part| build_block(part, request)).collect();
        if blocks.is_empty() {
            continue;
        }
        match sent.last_mut() {
            Some(last) if last.role == role => last.content.extend(blocks),
            _ => sent.push(AnthropicMessage { role, content: blocks }),
        }
    }
    sent
}

fn build_block<'a>(part: &'a forge_types::MessagePart, request: &ModelRequest) -> Option<AnthropicBlock<'a>> {
    match &part.kind {
        // The API refuses blocks that contain only white space.
        PartKind::Text { text } => Some(inline_text(text))
            .filter(|text| !text.trim().is_empty())
            .map(|text| AnthropicBlock::Made(ContentBlock::Text { text, cache_control: None })),
        PartKind::Call(call) => Some(AnthropicBlock::Made(ContentBlock::ToolUse {
            id: valid_id(&call.id),
            name: &call.name,
            input: sendable_arguments(call),
        })),
        PartKind::Result(result) => Some(AnthropicBlock::Made(ContentBlock::ToolResult {
            tool_use_id: valid_id(&result.call_id),
            content: inline_text(&result.content),
            is_error: !result.ok,
            cache_control: None,
        })),
        PartKind::Reasoning { .. } => {
            let state = own_state(part, request)?;
            RawValue::from_string(state.to_owned()).ok().map(AnthropicBlock::Verbatim)
        }
    }
}

/// Replaces characters that this provider refuses in ids of other providers.
fn valid_id(id: &str) -> String {
    id.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' }).collect()
}

// ---- reply ---------------------------------------------------------------------------------------------------

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum AnthropicEvent {
    MessageStart {
        message: StartedMessage,
    },
    ContentBlockStart {
        index: u64,
        content_block: Value,
    },
    ContentBlockDelta {
        index: u64,
        delta: BlockDelta,
    },
    ContentBlockStop {
        index: u64,
    },
    MessageDelta {
        delta: StopDelta,
        #[serde(default)]
        usage: Option<AnthropicUsage>,
    },
    MessageStop,
    Error {
        error: Value,
    },
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
struct StartedMessage {
    #[serde(default)]
    model: Option<String>,
    #[serde(default)]
    usage: Option<AnthropicUsage>,
}

#[derive(Deserialize)]
#[serde(tag = "type")]
enum BlockDelta {
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
struct StopDelta {
    #[serde(default)]
    stop_reason: Option<String>,
}

#[derive(Clone, Copy, Default, Deserialize)]
struct AnthropicUsage {
    #[serde(default)]
    input_tokens: Option<u64>,
    #[serde(default)]
    cache_creation_input_tokens: Option<u64>,
    #[serde(default)]
    cache_read_input_tokens: Option<u64>,
    #[serde(default)]
    output_tokens: Option<u64>,
}

/// The content block being read.
enum OpenBlock {
    Text,
    Call {
        place: usize,
    },
    /// A block that is sent back verbatim: its growing fields in the order of arrival.
    Thinking {
        place: usize,
        text: String,
        signature: String,
    },
    /// The call that produces a reply in JSON, and whether any of its input has arrived.
    Answer {
        started: bool,
    },
    Ignored,
}

/// A decoder for the events from `message_start` to `message_stop`.
#[derive(Default)]
pub(super) struct AnthropicDecoder {
    open: Option<(u64, OpenBlock)>,
    counts: AnthropicUsage,
    /// Whether the final count of output tokens has arrived.
    counted: bool,
    /// Tool with the call that becomes the reply's text.
    answer: Option<String>,
}

impl AnthropicDecoder {
    pub(super) fn new(call: &WireRequest<'_>) -> Self {
        let answer = call.json_format_by(StructuredMode::Tool).map(|format| format.name.clone());
        Self { answer, ..Self::default() }
    }
}

impl StreamDecoder for AnthropicDecoder {
    fn decode_event(
        &mut self,
        event: FrameEvent<'_>,
        reply: &mut ReplyBuilder<'_>,
    ) -> Result<StreamProgress, StreamError> {
        match parse_event(&event)? {
            AnthropicEvent::MessageStart { message } => {
                reply.model = message.model;
                self.counts = message.usage.unwrap_or_default();
            }
            AnthropicEvent::ContentBlockStart { index, content_block } => {
                self.open = Some((index, open_block(&content_block, self.answer.as_deref(), reply)));
            }
            AnthropicEvent::ContentBlockDelta { index, delta } => match &mut self.open {
                Some((at, open)) if *at == index => extend_block(open, delta, reply),
                _ => {
                    return Err(StreamError::Malformed(format!(
                        "a delta for block {index}, which is not open"
                    )));
                }
            },
            AnthropicEvent::ContentBlockStop { index } => {
                if let Some((_, open)) = self.open.take_if(|(at, _)| *at == index) {
                    close_block(open, reply);
                }
            }
            AnthropicEvent::MessageDelta { delta, usage } => {
                if let Some(reason) = delta.stop_reason {
                    reply.finish = Some(match parse_stop_reason(&reason) {
                        FinishReason::ToolCalls if !reply.has_calls() => FinishReason::Stop,
                        finish => finish,
                    });
                }
                if let Some(last) = usage {
                    self.counted |= last.output_tokens.is_some();
                    self.counts = self.counts.updated_by(last);
                }
                reply.usage = self.to_usage();
            }
            AnthropicEvent::MessageStop if reply.finish.is_none() => {
                return Err(StreamError::Malformed("message_stop without a stop reason".to_owned()));
            }
            AnthropicEvent::MessageStop => return Ok(StreamProgress::Done),
            AnthropicEvent::Error { error } => {
                return Err(StreamError::Reported(Box::new(json!({"type": "error", "error": error}))));
            }
            // Pings, and event types that the API's versioning policy allows to be added.
            AnthropicEvent::Other => {}
        }
        Ok(StreamProgress::More)
    }
}

impl AnthropicDecoder {
    fn to_usage(&self) -> Option<Usage> {
        let cached = self.counts.cache_read_input_tokens.unwrap_or(0);
        let cache_write = self.counts.cache_creation_input_tokens.unwrap_or(0);
        let output = self.counts.output_tokens.filter(|_| self.counted)?;
        let input = self.counts.input_tokens? + cached + cache_write;
        Some(Usage { input, output, cached, cache_write, known: true })
    }
}

impl AnthropicUsage {
    /// Merges a later count: counts are running totals and replace earlier ones.
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

fn open_block(block: &Value, answer: Option<&str>, reply: &mut ReplyBuilder<'_>) -> OpenBlock {
    let field = |name: &str| block[name].as_str().unwrap_or_default();
    match field("type") {
        "text" => {
            reply.push_text(field("text"));
            OpenBlock::Text
        }
        "tool_use" => {
            // The input arrives in deltas; servers that send it whole put it here.
            let whole = block["input"].as_object().filter(|input| !input.is_empty());
            let arguments = whole.map(|_| block["input"].to_string()).unwrap_or_default();
            if answer == Some(field("name")) {
                reply.push_text(&arguments);
                return OpenBlock::Answer { started: !arguments.is_empty() };
            }
            OpenBlock::Call { place: reply.push_call(field("id"), field("name"), &arguments) }
        }
        "thinking" => {
            let place = reply.push_part(reasoning_part("", None));
            OpenBlock::Thinking {
                place,
                text: field("thinking").to_owned(),
                signature: field("signature").to_owned(),
            }
        }
        "redacted_thinking" => {
            let opaque = reply.opaque_state(block.to_string());
            reply.push_part(reasoning_part("", Some(opaque)));
            OpenBlock::Ignored
        }
        _ => OpenBlock::Ignored,
    }
}

fn extend_block(open: &mut OpenBlock, delta: BlockDelta, reply: &mut ReplyBuilder<'_>) {
    match (open, delta) {
        (OpenBlock::Text, BlockDelta::Text { text }) => reply.push_text(&text),
        (OpenBlock::Call { place }, BlockDelta::InputJson { partial_json }) => {
            reply.output_bytes += partial_json.len() as u64;
            if let Some(call) = reply.call_at(*place) {
                call.arguments.push_str(&partial_json);
            }
        }
        (OpenBlock::Answer { started: begun }, BlockDelta::InputJson { partial_json }) => {
            *begun |= !partial_json.is_empty();
            reply.push_text(&partial_json);
        }
        (OpenBlock::Thinking { text, .. }, BlockDelta::Thinking { thinking }) => {
            reply.emit_reasoning(&thinking);
            text.push_str(&thinking);
        }
        (OpenBlock::Thinking { signature, .. }, BlockDelta::Signature { signature: more }) => {
            signature.push_str(&more);
        }
        _ => {}
    }
}

fn close_block(open: OpenBlock, reply: &mut ReplyBuilder<'_>) {
    if matches!(open, OpenBlock::Answer { started: false }) {
        // A tool without arguments is called without any input.
        reply.push_text("{}");
    }
    if let OpenBlock::Thinking { place, text, signature } = open {
        let block = json!({"type": "thinking", "thinking": text, "signature": signature});
        // A block without its signature would be refused, so it is shown but not stored.
        let opaque = (!signature.is_empty()).then(|| reply.opaque_state(block.to_string()));
        reply.parts[place] = reasoning_part(&text, opaque);
    }
}

fn parse_stop_reason(reason: &str) -> FinishReason {
    match reason {
        "end_turn" | "stop_sequence" | "pause_turn" => FinishReason::Stop,
        "tool_use" => FinishReason::ToolCalls,
        "max_tokens" | "model_context_window_exceeded" => FinishReason::Length,
        _ => FinishReason::Error,
    }
}
