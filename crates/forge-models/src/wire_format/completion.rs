//! llama.cpp `POST /completion` and `POST /apply-template`, as published in the README of the project's server: one
//! text in, one text out, server-sent events.
//!
//! The server renders the prompt with the template that came with the model; a server without that endpoint gets a
//! plain rendering. Grammars and schemas constrain the reply. A conversation returns to the slot that answered it
//! before, where its prompt is cached.

use std::hash::{DefaultHasher, Hash, Hasher};

use forge_catalog::vendors::StructuredMode;
use forge_types::{FinishReason, Usage};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::text_tools::{self, TextToolParser};
use super::{EncodedRequest, StreamDecoder, StreamProgress, WireFormat, WireRequest, parse_event};
use crate::reply_builder::{ReplyBuilder, StreamError, join_text};
use crate::sse::FrameEvent;

/// Reply limit in tokens where none is given; the server's default is unlimited.
const DEFAULT_MAX_TOKENS: u64 = 512;
/// Text with which a model without a template would start the next turn.
const NEXT_TURN: &str = "\n\n### User:";

// ---- request -------------------------------------------------------------------------------------------------

#[derive(Serialize)]
struct CompletionRequest<'a> {
    model: &'a str,
    stream: bool,
    cache_prompt: bool,
    n_predict: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_p: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    json_schema: Option<&'a Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    grammar: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stop: Option<[&'static str; 1]>,
    // Late, so that a longer conversation extends the bytes of a shorter one.
    prompt: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id_slot: Option<u64>,
}

/// Encodes the request.
pub(super) fn encode_request(call: &WireRequest<'_>) -> EncodedRequest {
    let plain = call.prompt.is_none().then(|| render_fallback_prompt(call));
    let form = call.json_format_by(StructuredMode::Grammar);
    let grammar = form.and_then(|form| form.grammar.as_deref());
    let body = CompletionRequest {
        model: &call.request.route.model,
        stream: true,
        cache_prompt: true,
        n_predict: call.request.settings.max_tokens.unwrap_or(DEFAULT_MAX_TOKENS),
        temperature: call.temperature(),
        top_p: call.top_p(),
        json_schema: form.filter(|_| grammar.is_none()).map(|form| &form.schema),
        grammar,
        stop: plain.is_some().then_some([NEXT_TURN]),
        prompt: call.prompt.as_deref().or(plain.as_deref()).unwrap_or_default(),
        id_slot: call.slot,
    };
    EncodedRequest::from_json(WireFormat::Completion.path(), &body)
}

/// Encodes the request for the server's rendering of the conversation.
pub(crate) fn encode_template_request(call: &WireRequest<'_>) -> EncodedRequest {
    let system = text_tools::tool_system_prompt(call);
    let head = (!system.is_empty()).then(|| json!({"role": "system", "content": system}));
    let turns = text_tools::render_turns(call);
    let turns = turns.into_iter().map(|(role, content)| json!({"role": role, "content": content}));
    let messages: Vec<Value> = head.into_iter().chain(turns).collect();
    EncodedRequest::from_json("/apply-template", &json!({"messages": messages}))
}

/// Renders the conversation under headings, for a server without a template.
fn render_fallback_prompt(call: &WireRequest<'_>) -> String {
    let mut prompt = String::new();
    let system = text_tools::tool_system_prompt(call);
    if !system.is_empty() {
        prompt.push_str(&format!("### System:\n{system}\n\n"));
    }
    for (speaker, text) in text_tools::render_turns(call) {
        let heading = if speaker == "assistant" { "Assistant" } else { "User" };
        prompt.push_str(&format!("### {heading}:\n{text}\n\n"));
    }
    prompt + "### Assistant:\n"
}

/// A key that identifies a growing conversation: a hash of its model, system prompt and first message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ConversationKey(u64);

impl ConversationKey {
    pub(crate) fn from_request(call: &WireRequest<'_>) -> Self {
        let mut hasher = DefaultHasher::new();
        call.request.route.model.hash(&mut hasher);
        call.request.system.hash(&mut hasher);
        call.request.messages.first().map(|message| join_text(&message.parts)).hash(&mut hasher);
        Self(hasher.finish())
    }
}

// ---- reply ---------------------------------------------------------------------------------------------------

#[derive(Deserialize)]
struct CompletionChunk {
    #[serde(default)]
    content: String,
    #[serde(default)]
    stop: bool,
    #[serde(default)]
    stop_type: Option<String>,
    #[serde(default)]
    truncated: bool,
    #[serde(default)]
    model: Option<String>,
    #[serde(default)]
    id_slot: Option<i64>,
    #[serde(default)]
    tokens_evaluated: Option<u64>,
    #[serde(default)]
    tokens_predicted: Option<u64>,
    #[serde(default)]
    timings: Option<CompletionTimings>,
    #[serde(default)]
    error: Option<Value>,
}

#[derive(Clone, Copy, Deserialize)]
struct CompletionTimings {
    /// Tokens of the prompt found in the cache; older servers omit the field.
    #[serde(default)]
    cache_n: Option<u64>,
    /// Tokens of the prompt that were processed.
    #[serde(default)]
    prompt_n: Option<u64>,
}

/// A decoder for the events up to the one with `stop`.
#[derive(Default)]
pub(super) struct CompletionDecoder {
    listener: TextToolParser,
}

impl StreamDecoder for CompletionDecoder {
    fn decode_event(
        &mut self,
        event: FrameEvent<'_>,
        reply: &mut ReplyBuilder<'_>,
    ) -> Result<StreamProgress, StreamError> {
        let chunk: CompletionChunk = parse_event(&event)?;
        if let Some(error) = chunk.error {
            return Err(StreamError::Reported(Box::new(json!({"error": error}))));
        }
        self.listener.push(&chunk.content, reply);
        if !chunk.stop {
            return Ok(StreamProgress::More);
        }
        let reason = match chunk.stop_type.as_deref() {
            Some("limit") => FinishReason::Length,
            _ if chunk.truncated => FinishReason::Length,
            _ => FinishReason::Stop,
        };
        reply.finish = Some(self.listener.finish(reason, reply));
        reply.usage = chunk.to_usage();
        reply.slot = chunk.id_slot.and_then(|slot| u64::try_from(slot).ok());
        reply.model = chunk.model;
        Ok(StreamProgress::Done)
    }
}

impl CompletionChunk {
    /// Returns the usage. `tokens_cached` is ignored: it counts the content of the slot afterwards, not cache hits.
    fn to_usage(&self) -> Option<Usage> {
        let (input, output) = (self.tokens_evaluated?, self.tokens_predicted?);
        let timings = self.timings;
        let worked = timings.and_then(|timings| timings.prompt_n).map(|worked| input.saturating_sub(worked));
        let cached = timings.and_then(|timings| timings.cache_n).or(worked).unwrap_or(0).min(input);
        Some(Usage { input, output, cached, cache_write: 0, known: true })
    }
}
