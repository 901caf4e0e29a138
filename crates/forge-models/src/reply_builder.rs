//! A reply under construction: its parts in the order of arrival, and the text streamed to the observer.

use std::borrow::Cow;

use forge_ports::DeltaSink;
use forge_types::{FinishReason, MessagePart, ModelRequest, OpaqueState, PartKind, Payload, ToolCall, Usage};
use serde_json::value::RawValue;

/// An unusable stream.
#[derive(Debug)]
pub(crate) enum StreamError {
    /// The stream violates the wire format, as described.
    Malformed(String),
    /// The provider reports an error inside the stream.
    Reported(Box<serde_json::Value>),
}

/// The reply as read so far.
pub(crate) struct ReplyBuilder<'a> {
    deltas: &'a dyn DeltaSink,
    provider: &'a str,
    asked_model: &'a str,
    pub(crate) parts: Vec<MessagePart>,
    pub(crate) usage: Option<Usage>,
    pub(crate) finish: Option<FinishReason>,
    pub(crate) model: Option<String>,
    /// Slot of the server that holds the conversation, where servers have slots.
    pub(crate) slot: Option<u64>,
    /// Bytes of text, reasoning and arguments, from which output tokens are estimated.
    pub(crate) output_bytes: u64,
}

impl<'a> ReplyBuilder<'a> {
    pub(crate) fn new(request: &'a ModelRequest, deltas: &'a dyn DeltaSink) -> Self {
        Self {
            deltas,
            provider: &request.route.provider,
            asked_model: &request.route.model,
            parts: Vec::new(),
            usage: None,
            finish: None,
            model: None,
            slot: None,
            output_bytes: 0,
        }
    }

    /// Wraps opaque state with the provider and model of this conversation.
    pub(crate) fn opaque_state(&self, data: String) -> OpaqueState {
        OpaqueState { provider: self.provider.to_owned(), model: self.asked_model.to_owned(), data }
    }

    /// Appends text to the previous part, or to a new one if the previous part carries opaque state.
    pub(crate) fn push_text(&mut self, text: &str) {
        if text.is_empty() {
            return;
        }
        self.deltas.push_text(text);
        self.output_bytes += text.len() as u64;
        match self.parts.last_mut() {
            Some(MessagePart { kind: PartKind::Text { text: Payload::Inline(whole) }, opaque: None }) => {
                whole.push_str(text);
            }
            _ => self.parts.push(MessagePart::text(text)),
        }
    }

    /// Appends reasoning, for people, to the previous reasoning.
    pub(crate) fn push_reasoning(&mut self, text: &str) {
        if text.is_empty() {
            return;
        }
        self.deltas.push_reasoning(text);
        self.output_bytes += text.len() as u64;
        match self.parts.last_mut() {
            Some(MessagePart {
                kind: PartKind::Reasoning { text: Payload::Inline(whole) },
                opaque: None,
            }) => {
                whole.push_str(text);
            }
            _ => self.parts.push(reasoning_part(text, None)),
        }
    }

    /// Streams text that the caller adds as a separate part.
    pub(crate) fn emit_text(&mut self, text: &str) {
        self.deltas.push_text(text);
        self.output_bytes += text.len() as u64;
    }

    /// Streams reasoning that the caller adds as a separate part.
    pub(crate) fn emit_reasoning(&mut self, text: &str) {
        if !text.is_empty() {
            self.deltas.push_reasoning(text);
            self.output_bytes += text.len() as u64;
        }
    }

    /// Adds a complete part and returns its index.
    pub(crate) fn push_part(&mut self, part: MessagePart) -> usize {
        self.parts.push(part);
        self.parts.len() - 1
    }

    /// Adds a tool call and returns its index.
    pub(crate) fn push_call(&mut self, id: &str, name: &str, arguments: &str) -> usize {
        self.output_bytes += (name.len() + arguments.len()) as u64;
        self.push_part(MessagePart::call(ToolCall {
            id: id.into(),
            name: name.into(),
            arguments: arguments.into(),
        }))
    }

    /// Returns the tool call at an index that [`Self::push_call`] returned.
    pub(crate) fn call_at(&mut self, place: usize) -> Option<&mut ToolCall> {
        match self.parts.get_mut(place).map(|part| &mut part.kind) {
            Some(PartKind::Call(call)) => Some(call),
            _ => None,
        }
    }

    /// Returns whether there are tool calls.
    pub(crate) fn has_calls(&self) -> bool {
        self.parts.iter().any(|part| matches!(part.kind, PartKind::Call(_)))
    }
}

/// Creates a reasoning part.
pub(crate) fn reasoning_part(text: &str, opaque: Option<OpaqueState>) -> MessagePart {
    MessagePart { kind: PartKind::Reasoning { text: text.into() }, opaque }
}

/// Returns the opaque state of a part if it belongs to the provider and model of the request.
pub(crate) fn own_state<'p>(part: &'p MessagePart, request: &ModelRequest) -> Option<&'p str> {
    part.opaque
        .as_ref()
        .filter(|opaque| opaque.provider == request.route.provider && opaque.model == request.route.model)
        .map(|opaque| opaque.data.as_str())
}

/// Returns the text of a payload. All payloads of a request are inline, which is checked before encoding.
pub(crate) fn inline_text(payload: &Payload) -> &str {
    payload.inline_text().unwrap_or_default()
}

/// Returns the concatenated text of all text parts.
pub(crate) fn join_text(parts: &[MessagePart]) -> Cow<'_, str> {
    let mut texts = parts.iter().filter_map(|part| match &part.kind {
        PartKind::Text { text } => Some(inline_text(text)),
        _ => None,
    });
    let first = texts.next().unwrap_or_default();
    match texts.next() {
        None => Cow::Borrowed(first),
        Some(second) => {
            let mut whole = first.to_owned() + second;
            texts.for_each(|text| whole.push_str(text));
            Cow::Owned(whole)
        }
    }
}

/// Returns the arguments of a call in the form sent back to a provider: verbatim if they are a JSON object, else
/// wrapped in one, because several services refuse a conversation with anything else.
pub(crate) fn sendable_arguments(call: &ToolCall) -> Cow<'_, RawValue> {
    let text = call.arguments.trim();
    let text = if text.is_empty() { "{}" } else { text };
    match serde_json::from_str::<&RawValue>(text) {
        Ok(raw) if text.starts_with('{') => Cow::Borrowed(raw),
        _ => {
            let wrapped = serde_json::json!({"unparsed_arguments": call.arguments}).to_string();
            Cow::Owned(RawValue::from_string(wrapped).expect("an object just written is JSON"))
        }
    }
}
