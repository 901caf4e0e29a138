//! What is asked of a model and what it answers.

use crate::{Message, MessagePart, PartKind, ToolCall, ToolSpec, Usage};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;

/// A provider and one of its models.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ModelRoute {
    /// The provider's name, such as `openai`.
    pub provider: String,
    /// The model's name as the provider writes it.
    pub model: String,
}

impl fmt::Display for ModelRoute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.provider, self.model)
    }
}

/// Settings of a call; what is `None` is not sent.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelSettings {
    /// The reply's allowance in tokens.
    pub max_tokens: Option<u64>,
    /// Sampling temperature.
    pub temperature: Option<f64>,
    /// Nucleus sampling.
    pub top_p: Option<f64>,
    /// Longest silence on the wire: until the first byte, then between bytes; milliseconds.
    pub timeout_ms: u64,
}

/// One request to a model. Every payload in it is inline.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelRequest {
    /// Whom to ask.
    pub route: ModelRoute,
    /// The system prompt.
    pub system: String,
    /// The conversation so far.
    pub messages: Vec<Arc<Message>>,
    /// The tools that may be called.
    pub tools: Vec<ToolSpec>,
    /// Settings.
    pub settings: ModelSettings,
    /// What the reply has to look like.
    pub format: ReplyFormat,
    /// The organization that is charged, if not the provider's configured one; used by providers that know
    /// organizations, ignored by the others.
    pub organization: Option<String>,
}

/// What the text of a reply has to look like.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ReplyFormat {
    /// Whatever the model writes.
    #[default]
    Text,
    /// One JSON value that fits a schema: asked for in the provider's own way, and checked when it is there.
    Json(JsonFormat),
}

/// A form for structured replies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JsonFormat {
    /// Its name, of ASCII letters, digits, `_` and `-`, at most 64; some providers show it to the model.
    pub name: String,
    /// The JSON Schema that the reply must fit. Providers of strict schemas want every property required and
    /// `additionalProperties` false.
    pub schema: serde_json::Value,
    /// A grammar in GBNF, for servers that take grammars; without one these follow the schema.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grammar: Option<String>,
    /// What becomes of a reply that does not fit.
    #[serde(default)]
    pub unfit: OnSchemaMismatch,
}

/// What becomes of a reply that does not fit its form.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnSchemaMismatch {
    /// It is an error: `malformed_response`.
    #[default]
    Refuse,
    /// It is given as it is, unchecked: whoever asked makes the best of it.
    Pass,
}

/// Why a reply ended. Recorded, never decisive except for `Length`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// The model was done.
    Stop,
    /// The model wants tools to be run.
    ToolCalls,
    /// The allowance was used up.
    Length,
    /// Something else, such as a content filter.
    Error,
}

impl FinishReason {
    /// The name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::ToolCalls => "tool_calls",
            Self::Length => "length",
            Self::Error => "error",
        }
    }
}

/// A whole reply of a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelReply {
    /// Text, reasoning and tool calls in the order in which they came.
    pub parts: Vec<MessagePart>,
    /// Tokens used.
    pub usage: Usage,
    /// The model that answered, as the provider names it.
    pub model: String,
    /// Why it ended.
    pub finish: FinishReason,
    /// Milliseconds from sending to the last byte.
    pub latency_ms: u64,
}

impl ModelReply {
    /// The tool calls in order.
    pub fn tool_calls(&self) -> impl Iterator<Item = &ToolCall> {
        self.parts.iter().filter_map(|part| match &part.kind {
            PartKind::Call(call) => Some(call),
            _ => None,
        })
    }

    /// The texts that stand inline, in order.
    pub fn inline_texts(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match &part.kind {
            PartKind::Text { text } => text.inline_text(),
            _ => None,
        })
    }

    /// Whether it holds neither text nor tool calls.
    pub fn is_empty(&self) -> bool {
        self.parts.iter().all(|part| match &part.kind {
            PartKind::Text { text } => match text.inline_text() {
                Some(text) => text.trim().is_empty(),
                None => text.is_empty(),
            },
            PartKind::Reasoning { .. } => true,
            PartKind::Call(_) | PartKind::Result(_) => false,
        })
    }
}

/// Texts to be turned into vectors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EmbedRequest {
    /// Whom to ask.
    pub route: ModelRoute,
    /// The texts; each becomes one vector.
    pub texts: Vec<String>,
    /// The organization that is charged, as in [`ModelRequest`].
    pub organization: Option<String>,
    /// Longest time for the whole answer; milliseconds.
    pub timeout_ms: u64,
}

/// The vectors of texts.
#[derive(Clone, Debug, PartialEq)]
pub struct Embeddings {
    /// One vector per text, in the order of the texts, all of one length.
    pub vectors: Vec<Vec<f32>>,
    /// Tokens used; all of them are `input`.
    pub usage: Usage,
    /// The model that answered, as the provider names it.
    pub model: String,
}
