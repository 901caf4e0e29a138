//! Messages of a conversation, as every provider's wire shape is made from them.

use crate::Digest;
use serde::{Deserialize, Serialize};

/// Characters of a message of the model or of a tool that a request holds at most (MEM-3).
pub const MAX_MESSAGE_CHARS: u64 = 50_000;
/// Bytes for saying that something was cut.
const CUT_NOTE_BYTES: u64 = 512;

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Instructions that stand before the conversation.
    System,
    /// The person or program that gave the task.
    User,
    /// The model.
    Assistant,
    /// The outcome of a tool call.
    Tool,
}

/// A text that stands inline while it is short and by content hash when it is long.
///
/// Journals and folds hold references, so that their size does not grow with a tool's output.
/// In a [`crate::ModelRequest`] every payload is inline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Payload {
    /// The text itself.
    Inline(String),
    /// The text as a blob of the store.
    Stored {
        /// Its content hash.
        blob: Digest,
        /// Its length in bytes.
        bytes: u64,
        /// Its length in characters.
        chars: u64,
    },
}

impl Payload {
    /// The text, if it stands inline.
    pub fn inline_text(&self) -> Option<&str> {
        match self {
            Self::Inline(text) => Some(text),
            Self::Stored { .. } => None,
        }
    }

    /// Length in bytes.
    pub fn byte_len(&self) -> u64 {
        match self {
            Self::Inline(text) => text.len() as u64,
            Self::Stored { bytes, .. } => *bytes,
        }
    }

    /// Length in characters.
    pub fn char_len(&self) -> u64 {
        match self {
            Self::Inline(text) => text.chars().count() as u64,
            Self::Stored { chars, .. } => *chars,
        }
    }

    /// Whether there is no text at all.
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

/// State of a provider that must come back verbatim: thought signatures, encrypted reasoning.
///
/// Only the provider and model that made it ever see it again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpaqueState {
    /// The provider that made it.
    pub provider: String,
    /// The model that made it.
    pub model: String,
    /// What it is, in JSON text that only the adapter of its provider understands.
    pub data: String,
}

/// A call of a tool that a model asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolCall {
    /// The id that ties the outcome to the call; empty if the provider gives none.
    pub id: String,
    /// The tool's name as the model wrote it.
    pub name: String,
    /// The arguments as JSON text, exactly as the model wrote them; may be broken.
    pub arguments: String,
}

impl ToolCall {
    /// The arguments as a JSON object; absent arguments are an empty one.
    ///
    /// # Errors
    /// Says in words for the model why the text is not a JSON object.
    pub fn parse_arguments(&self) -> Result<serde_json::Map<String, serde_json::Value>, String> {
        if self.arguments.trim().is_empty() {
            return Ok(serde_json::Map::new());
        }
        match serde_json::from_str(&self.arguments) {
            Ok(serde_json::Value::Object(map)) => Ok(map),
            Ok(_) => Err("the arguments are not a JSON object".to_owned()),
            Err(error) => Err(format!("the arguments are not valid JSON: {error}")),
        }
    }
}

/// The outcome of a tool call, as the model sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolResultPart {
    /// The call's id.
    pub call_id: String,
    /// The tool's name.
    pub name: String,
    /// What the tool said, or what went wrong.
    pub content: Payload,
    /// Whether it worked.
    pub ok: bool,
}

/// What a part of a message holds.
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
    /// Hidden reasoning: only its opaque state counts, its readable text is for people.
    Reasoning {
        /// A readable summary, possibly empty.
        text: Payload,
    },
}

/// One part of a message, in the order in which the model produced it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessagePart {
    /// What it holds.
    #[serde(flatten)]
    pub kind: PartKind,
    /// Provider state that belongs to just this part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opaque: Option<OpaqueState>,
}

impl MessagePart {
    /// A part with text.
    pub fn text(text: impl Into<Payload>) -> Self {
        Self { kind: PartKind::Text { text: text.into() }, opaque: None }
    }

    /// A part with a tool call.
    pub fn call(call: ToolCall) -> Self {
        Self { kind: PartKind::Call(call), opaque: None }
    }

    /// Characters of its text or arguments that a request holds.
    pub fn char_len(&self) -> u64 {
        match &self.kind {
            PartKind::Text { text } => text.char_len(),
            PartKind::Call(call) => call.arguments.chars().count() as u64,
            PartKind::Result(result) => result.content.char_len(),
            PartKind::Reasoning { .. } => 0,
        }
    }

    /// A part with a tool call's outcome.
    pub fn result(result: ToolResultPart) -> Self {
        Self { kind: PartKind::Result(result), opaque: None }
    }
}

/// One message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What is said, in order.
    pub parts: Vec<MessagePart>,
}

impl Message {
    /// A message of the user.
    pub fn user(text: impl Into<Payload>) -> Self {
        Self { role: Role::User, parts: vec![MessagePart::text(text)] }
    }

    /// A message of the model with text only.
    pub fn assistant(text: impl Into<Payload>) -> Self {
        Self { role: Role::Assistant, parts: vec![MessagePart::text(text)] }
    }

    /// The outcome of a tool call.
    pub fn tool(result: ToolResultPart) -> Self {
        Self { role: Role::Tool, parts: vec![MessagePart::result(result)] }
    }

    /// The tool calls in order.
    pub fn tool_calls(&self) -> impl Iterator<Item = &ToolCall> {
        self.parts.iter().filter_map(|part| match &part.kind {
            PartKind::Call(call) => Some(call),
            _ => None,
        })
    }

    /// The text parts in order.
    pub fn text_parts(&self) -> impl Iterator<Item = &Payload> {
        self.parts.iter().filter_map(|part| match &part.kind {
            PartKind::Text { text } => Some(text),
            _ => None,
        })
    }

    /// All payloads, for those who store or load them.
    pub fn payloads_mut(&mut self) -> impl Iterator<Item = &mut Payload> {
        self.parts.iter_mut().filter_map(|part| match &mut part.kind {
            PartKind::Text { text } | PartKind::Reasoning { text } => Some(text),
            PartKind::Result(result) => Some(&mut result.content),
            PartKind::Call(_) => None,
        })
    }

    /// Whether all its texts stand inline.
    pub fn is_inline(&self) -> bool {
        self.parts.iter().all(|part| match &part.kind {
            PartKind::Text { text } | PartKind::Reasoning { text } => text.inline_text().is_some(),
            PartKind::Result(result) => result.content.inline_text().is_some(),
            PartKind::Call(_) => true,
        })
    }

    /// About how many bytes it adds to a request, in which what was not said by a person is cut to
    /// [`MOST_MESSAGE_CHARS`].
    pub fn sent_bytes(&self) -> u64 {
        let bytes = self.approx_bytes();
        if self.role == Role::User || bytes <= MAX_MESSAGE_CHARS {
            return bytes;
        }
        // A cut text has at least as many bytes as characters, and at most as many as it has now.
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

    /// About how many bytes it has.
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
    fn arguments_must_be_a_json_object() {
        let call = |arguments: &str| ToolCall {
            id: "1".into(),
            name: "read_file".into(),
            arguments: arguments.into(),
        };
        assert!(call("").parse_arguments().unwrap().is_empty());
        assert_eq!(call(r#"{"path":"a"}"#).parse_arguments().unwrap()["path"], "a");
        assert!(call(r#"{"path":"#).parse_arguments().unwrap_err().contains("not valid JSON"));
        assert!(call("[1]").parse_arguments().unwrap_err().contains("not a JSON object"));
    }

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
