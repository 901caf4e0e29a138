//! Requests to models and their replies.

use crate::{Message, MessagePart, PartKind, ToolCall, ToolSpec, Usage};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;

/// A provider and one of its models.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ModelRoute {
    /// The provider's name, such as `openai`.
    pub provider: String,
    /// The provider's name for the model.
    pub model: String,
}

impl fmt::Display for ModelRoute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.provider, self.model)
    }
}

/// Settings of a model call; `None` is not sent.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelSettings {
    /// Maximum number of tokens of the reply.
    pub max_tokens: Option<u64>,
    /// Sampling temperature.
    pub temperature: Option<f64>,
    /// Nucleus sampling.
    pub top_p: Option<f64>,
    /// Maximum silence before the first byte and between bytes, in milliseconds.
    pub timeout_ms: u64,
}

/// A request to a model. All payloads are inline.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelRequest {
    /// The provider and model to call.
    pub route: ModelRoute,
    /// The system prompt.
    pub system: String,
    /// The conversation so far.
    pub messages: Vec<Arc<Message>>,
    /// The tools that the model may call.
    pub tools: Vec<ToolSpec>,
    /// Settings.
    pub settings: ModelSettings,
    /// The required format of the reply.
    pub format: ReplyFormat,
    /// The organization to charge, if not the provider's configured one; ignored by providers without organizations.
    pub organization: Option<String>,
}

/// The required format of a reply's text.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ReplyFormat {
    /// Free text.
    #[default]
    Text,
    /// One JSON value that matches a schema. Requested in the provider's own way and validated on receipt.
    Json(JsonFormat),
}

/// The format of a structured reply.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JsonFormat {
    /// The name: ASCII letters, digits, `_` and `-`, at most 64; some providers show it to the model.
    pub name: String,
    /// The JSON Schema of the reply. Providers with strict schemas require every property to be listed as required
    /// and `additionalProperties` to be false.
    pub schema: serde_json::Value,
    /// A GBNF grammar, for servers that accept one; without it, these servers use the schema.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grammar: Option<String>,
    /// The handling of a reply that does not match.
    #[serde(default)]
    pub unfit: OnSchemaMismatch,
}

/// The handling of a reply that does not match its schema.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnSchemaMismatch {
    /// The reply is rejected as `malformed_response`.
    #[default]
    Refuse,
    /// The reply is returned unvalidated; the caller handles it.
    Pass,
}

/// The reason why a reply ended. Recorded only; `Length` alone affects decisions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// The model finished.
    Stop,
    /// The model requested tool calls.
    ToolCalls,
    /// The token limit was reached.
    Length,
    /// Another reason, such as a content filter.
    Error,
}

impl FinishReason {
    /// Returns the name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::ToolCalls => "tool_calls",
            Self::Length => "length",
            Self::Error => "error",
        }
    }
}

/// A complete reply of a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelReply {
    /// Text, reasoning and tool calls in the order of their arrival.
    pub parts: Vec<MessagePart>,
    /// Tokens used.
    pub usage: Usage,
    /// The model that answered, by the provider's name for it.
    pub model: String,
    /// The reason why the reply ended.
    pub finish: FinishReason,
    /// Milliseconds from the send to the last byte.
    pub latency_ms: u64,
}

impl ModelReply {
    /// Returns the tool calls in order.
    pub fn tool_calls(&self) -> impl Iterator<Item = &ToolCall> {
        self.parts.iter().filter_map(|part| match &part.kind {
            PartKind::Call(call) => Some(call),
            _ => None,
        })
    }

    /// Returns the inline texts in order.
    pub fn inline_texts(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match &part.kind {
            PartKind::Text { text } => text.inline_text(),
            _ => None,
        })
    }

    /// Returns whether the reply holds neither text nor tool calls.
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

/// A request to embed texts as vectors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EmbedRequest {
    /// The provider and model to call.
    pub route: ModelRoute,
    /// The texts; one vector is returned for each.
    pub texts: Vec<String>,
    /// The organization to charge, as in [`ModelRequest`].
    pub organization: Option<String>,
    /// Maximum time for the whole response, in milliseconds.
    pub timeout_ms: u64,
}

/// The vectors of a request's texts.
#[derive(Clone, Debug, PartialEq)]
pub struct Embeddings {
    /// One vector per text, in the order of the texts, all of the same length.
    pub vectors: Vec<Vec<f32>>,
    /// Tokens used; all of them count as `input`.
    pub usage: Usage,
    /// The model that answered, by the provider's name for it.
    pub model: String,
}
