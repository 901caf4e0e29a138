//! What is asked of a model and what it answers.

use crate::{Message, Part, PartKind, ToolCall, ToolSpec, Usage};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;

/// A provider and one of its models.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Route {
    /// The provider's name, such as `openai`.
    pub provider: String,
    /// The model's name as the provider writes it.
    pub model: String,
}

impl fmt::Display for Route {
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
    pub route: Route,
    /// The system prompt.
    pub system: String,
    /// The conversation so far.
    pub messages: Vec<Arc<Message>>,
    /// The tools that may be called.
    pub tools: Vec<ToolSpec>,
    /// Settings.
    pub settings: ModelSettings,
}

/// Why a reply ended. Recorded, never decisive except for `Length`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Finish {
    /// The model was done.
    Stop,
    /// The model wants tools to be run.
    ToolCalls,
    /// The allowance was used up.
    Length,
    /// Something else, such as a content filter.
    Error,
}

impl Finish {
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
    pub parts: Vec<Part>,
    /// Tokens used.
    pub usage: Usage,
    /// The model that answered, as the provider names it.
    pub model: String,
    /// Why it ended.
    pub finish: Finish,
    /// Milliseconds from sending to the last byte.
    pub latency_ms: u64,
}

impl ModelReply {
    /// The tool calls in order.
    pub fn calls(&self) -> impl Iterator<Item = &ToolCall> {
        self.parts.iter().filter_map(|part| match &part.kind {
            PartKind::Call(call) => Some(call),
            _ => None,
        })
    }

    /// Whether it holds neither text nor tool calls.
    pub fn is_empty(&self) -> bool {
        self.parts.iter().all(|part| match &part.kind {
            PartKind::Text { text } => match text.inline() {
                Some(text) => text.trim().is_empty(),
                None => text.is_empty(),
            },
            PartKind::Reasoning { .. } => true,
            PartKind::Call(_) | PartKind::Result(_) => false,
        })
    }
}
