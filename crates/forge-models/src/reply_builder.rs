//! A reply while it grows: parts in the order in which they come, and what is live of it.

use std::borrow::Cow;

use forge_ports::DeltaSink;
use forge_types::{FinishReason, MessagePart, ModelRequest, OpaqueState, PartKind, Payload, ToolCall, Usage};
use serde_json::value::RawValue;

/// Why a stream can't be taken as an answer.
#[derive(Debug)]
pub(crate) enum StreamError {
    /// It is not what the wire format promises; says how.
    Malformed(String),
    /// The provider reports an error inside the stream.
    Reported(Box<serde_json::Value>),
}

/// What was read of a reply so far.
pub(crate) struct ReplyBuilder<'a> {
    deltas: &'a dyn DeltaSink,
    provider: &'a str,
    asked_model: &'a str,
    pub(crate) parts: Vec<MessagePart>,
    pub(crate) usage: Option<Usage>,
    pub(crate) finish: Option<FinishReason>,
    pub(crate) model: Option<String>,
    /// The server's slot that holds the conversation now, where a server has such a thing.
    pub(crate) slot: Option<u64>,
    /// Bytes of text, reasoning and arguments: what output tokens are estimated from.
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

    /// Opaque state in this conversation's name.
    pub(crate) fn opaque_state(&self, data: String) -> OpaqueState {
        OpaqueState { provider: self.provider.to_owned(), model: self.asked_model.to_owned(), data }
    }

    /// More text. It joins the part before it unless that part carries state of its own.
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

    /// More reasoning, for people; joins the reasoning before it.
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

    /// Shows text that the caller puts into a part of its own.
    pub(crate) fn emit_text(&mut self, text: &str) {
        self.deltas.push_text(text);
        self.output_bytes += text.len() as u64;
    }

    /// Shows reasoning that the caller puts into a part of its own.
    pub(crate) fn emit_reasoning(&mut self, text: &str) {
        if !text.is_empty() {
            self.deltas.push_reasoning(text);
            self.output_bytes += text.len() as u64;
        }
    }

    /// A part that is whole at once. Returns its place.
    pub(crate) fn push_part(&mut self, part: MessagePart) -> usize {
        self.parts.push(part);
        self.parts.len() - 1
    }

    /// A new tool call. Returns its place.
    pub(crate) fn push_call(&mut self, id: &str, name: &str, arguments: &str) -> usize {
        self.output_bytes += (name.len() + arguments.len()) as u64;
        self.push_part(MessagePart::call(ToolCall {
            id: id.into(),
            name: name.into(),
            arguments: arguments.into(),
        }))
    }

    /// The tool call at a place that [`Assembly::call`] gave.
    pub(crate) fn call_at(&mut self, place: usize) -> Option<&mut ToolCall> {
        match self.parts.get_mut(place).map(|part| &mut part.kind) {
            Some(PartKind::Call(call)) => Some(call),
            _ => None,
        }
    }

    /// Whether a tool call was made.
    pub(crate) fn has_calls(&self) -> bool {
        self.parts.iter().any(|part| matches!(part.kind, PartKind::Call(_)))
    }
}

/// A reasoning part.
pub(crate) fn reasoning_part(text: &str, opaque: Option<OpaqueState>) -> MessagePart {
    MessagePart { kind: PartKind::Reasoning { text: text.into() }, opaque }
}

/// The state of a part if it belongs to the provider and model that are asked now.
pub(crate) fn own_state<'p>(part: &'p MessagePart, request: &ModelRequest) -> Option<&'p str> {
    part.opaque
        .as_ref()
        .filter(|opaque| opaque.provider == request.route.provider && opaque.model == request.route.model)
        .map(|opaque| opaque.data.as_str())
}

/// The text of a payload; a request holds all of them inline, which is checked before it is encoded.
pub(crate) fn inline_text(payload: &Payload) -> &str {
    payload.inline_text().unwrap_or_default()
}

/// The text of all text parts, one after the other.
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

/// The arguments of a call for the way back to a provider: verbatim if they are a JSON object; broken ones are
/// wrapped in one, since several services refuse a conversation that holds anything else.
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
