//! Messages of a conversation, independent of any provider's wire format.

use crate::{Digest, ToolArguments};
use serde::{Deserialize, Serialize};

/// Maximum number of characters of a model's or tool's message in a request (MEM-3).
pub const MAX_MESSAGE_CHARS: u64 = 50_000;
/// Bytes reserved for the note that a message was truncated.
const CUT_NOTE_BYTES: u64 = 512;

/// The speaker of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Instructions that precede the conversation.
    System,
    /// The person or program that gave the task.
    User,
    /// The model.
    Assistant,
    /// The outcome of a tool call.
    Tool,
}

/// A text that is stored inline if short, and by content hash if long.
///
/// Journals and folds hold references, so that their size is independent of a tool's output. In a
/// [`crate::ModelRequest`] every payload is inline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Payload {
    /// The text itself.
    Inline(String),
    /// A text that is a blob in the store.
    Stored {
        /// The content hash.
        blob: Digest,
        /// The length in bytes.
        bytes: u64,
        /// The length in characters.
        chars: u64,
    },
}

impl Payload {
    /// Returns the text, if it is inline.
    pub fn inline_text(&self) -> Option<&str> {
        match self {
            Self::Inline(text) => Some(text),
            Self::Stored { .. } => None,
        }
    }

    /// Returns the length in bytes.
    pub fn byte_len(&self) -> u64 {
        match self {
            Self::Inline(text) => text.len() as u64,
            Self::Stored { bytes, .. } => *bytes,
        }
    }

    /// Returns the length in characters.
    pub fn char_len(&self) -> u64 {
        match self {
            Self::Inline(text) => text.chars().count() as u64,
            Self::Stored { chars, .. } => *chars,
        }
    }

    /// Returns whether the text is empty.
    pub fn is_empty(&self) -> bool {
        self.byte_len() == 0
    }
}

impl From<String> for Payload {
    fn from(text: String) -> Self {
        Self::Inline(text)
    }
}

impl From<&str> for Payload {
    fn from(text: &str) -> Self {
        Self::Inline(text.to_owned())
    }
}

/// Provider state that must be sent back verbatim: thought signatures, encrypted reasoning.
///
/// Sent only to the provider and model that produced it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpaqueState {
    /// The provider that produced the state.
    pub provider: String,
    /// The model that produced the state.
    pub model: String,
    /// The state as JSON text that only the provider's adapter understands.
    pub data: String,
}

/// A tool call that a model requested.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolCall {
    /// The id that links the outcome to the call; empty if the provider gives none.
    pub id: String,
    /// The tool's name as the model wrote it.
    pub name: String,
    /// The arguments.
    pub arguments: ToolArguments,
}

/// The outcome of a tool call as the model sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolResultPart {
    /// The call's id.
    pub call_id: String,
    /// The tool's name.
    pub name: String,
    /// The tool's output, or the error.
    pub content: Payload,
    /// Whether the tool succeeded.
    pub ok: bool,
}

/// The content of a part of a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum PartKind {
    /// Text.
    Text {
        /// The text.
        text: Payload,
    },
    /// A tool call (assistant only).
    Call(ToolCall),
    /// A tool call's outcome (tool only).
    Result(ToolResultPart),
    /// Hidden reasoning: only its opaque state is sent; its readable text is for display.
    Reasoning {
        /// A readable summary, possibly empty.
        text: Payload,
    },
}

/// A part of a message, in the order in which the model produced the parts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessagePart {
    /// The content.
    #[serde(flatten)]
    pub kind: PartKind,
    /// Provider state that belongs to this part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opaque: Option<OpaqueState>,
}

impl MessagePart {
    /// Creates a text part.
    pub fn text(text: impl Into<Payload>) -> Self {
        Self { kind: PartKind::Text { text: text.into() }, opaque: None }
    }

    /// Creates a tool call part.
    pub fn call(call: ToolCall) -> Self {
        Self { kind: PartKind::Call(call), opaque: None }
    }

    /// Returns the number of characters that the part adds to a request.
    pub fn char_len(&self) -> u64 {
        match &self.kind {
            PartKind::Text { text } => text.char_len(),
            PartKind::Call(call) => call.arguments.chars().count() as u64,
            PartKind::Result(result) => result.content.char_len(),
            PartKind::Reasoning { .. } => 0,
        }
    }

    /// Creates a tool result part.
    pub fn result(result: ToolResultPart) -> Self {
        Self { kind: PartKind::Result(result), opaque: None }
    }
}

/// One message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// The speaker.
    pub role: Role,
    /// The parts, in order.
    pub parts: Vec<MessagePart>,
}

impl Message {
    /// Creates a message of the user.
    pub fn user(text: impl Into<Payload>) -> Self {
        Self { role: Role::User, parts: vec![MessagePart::text(text)] }
    }

    /// Creates a message of the model that contains only text.
    pub fn assistant(text: impl Into<Payload>) -> Self {
        Self { role: Role::Assistant, parts: vec![MessagePart::text(text)] }
    }

    /// Creates a message with the outcome of a tool call.
    pub fn tool(result: ToolResultPart) -> Self {
        Self { role: Role::Tool, parts: vec![MessagePart::result(result)] }
    }

    /// Returns the tool calls in order.
    pub fn tool_calls(&self) -> impl Iterator<Item = &ToolCall> {
        self.parts.iter().filter_map(|part| match &part.kind {
            PartKind::Call(call) => Some(call),
            _ => None,
        })
    }

    /// Returns the text parts in order.
    pub fn text_parts(&self) -> impl Iterator<Item = &Payload> {
        self.parts.iter().filter_map(|part| match &part.kind {
            PartKind::Text { text } => Some(text),
            _ => None,
        })
    }

    /// Returns all payloads, for code that stores or loads them.
    pub fn payloads_mut(&mut self) -> impl Iterator<Item = &mut Payload> {
        self.parts.iter_mut().filter_map(|part| match &mut part.kind {
            PartKind::Text { text } | PartKind::Reasoning { text } => Some(text),
            PartKind::Result(result) => Some(&mut result.content),
            PartKind::Call(_) => None,
        })
    }

    /// Returns whether all payloads are inline.
    pub fn is_inline(&self) -> bool {
        self.parts.iter().all(|part| match &part.kind {
            PartKind::Text { text } | PartKind::Reasoning { text } => text.inline_text().is_some(),
            PartKind::Result(result) => result.content.inline_text().is_some(),
            PartKind::Call(_) => true,
        })
    }

    /// Returns the approximate number of bytes that the message adds to a request, in which all messages except the
    /// user's are truncated to [`MAX_MESSAGE_CHARS`].
    pub fn sent_bytes(&self) -> u64 {
        let bytes = self.approx_bytes();
        if self.role == Role::User || bytes <= MAX_MESSAGE_CHARS {
            return bytes;
        }
        // A truncated text has at least as many bytes as characters, and no more bytes than before.
        let chars: u64 = self.parts.iter().map(MessagePart::char_len).sum();
        if chars <= MAX_MESSAGE_CHARS {
            return bytes;
        }
        let opaque: u64 = self
            .parts
            .iter()
            .filter_map(|part| part.opaque.as_ref())
            .map(|opaque| opaque.data.len() as u64)
            .sum();
        let share = u128::from(bytes - opaque) * u128::from(MAX_MESSAGE_CHARS) / u128::from(chars);
        u64::try_from(share).unwrap_or(bytes).saturating_add(opaque).saturating_add(CUT_NOTE_BYTES)
    }

    /// Returns the approximate size in bytes.
    pub fn approx_bytes(&self) -> u64 {
        self.parts
            .iter()
            .map(|part| {
                let own = match &part.kind {
                    PartKind::Text { text } => text.byte_len(),
                    PartKind::Call(call) => (call.arguments.len() + call.name.len()) as u64,
                    PartKind::Result(result) => result.content.byte_len(),
                    PartKind::Reasoning { .. } => 0,
                };
                own + part.opaque.as_ref().map_or(0, |o| o.data.len() as u64) + 16
            })
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_round_trip_with_opaque_state() {
        let mut message = Message::assistant("hi");
        message.parts.push(MessagePart {
            kind: PartKind::Call(ToolCall { id: "c".into(), name: "t".into(), arguments: "{}".into() }),
            opaque: Some(OpaqueState { provider: "p".into(), model: "m".into(), data: "\"sig\"".into() }),
        });
        let json = serde_json::to_string(&message).unwrap();
        assert_eq!(serde_json::from_str::<Message>(&json).unwrap(), message);
    }
}
