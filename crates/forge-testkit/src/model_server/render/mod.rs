//! Neutral replies in each vendor's words: a list of events for the wire, plus whole answers and error bodies.

mod anthropic;
mod completion;
mod errors;
mod gemini;
mod generate;
mod ollama;
mod openai;
mod responses;
mod spoken;

use serde_json::Value;

pub use errors::ErrorKind;

use super::Shape;
use super::framing::{Framing, KeepAlive, LineEnd};
use super::script::Reply;
use super::seen::ModelCall;

/// One event of a stream before it is put into lines.
pub(super) struct Event {
    /// The SSE event name, where the vendor uses one.
    name: Option<&'static str>,
    /// The payload: JSON, or a bare word such as `[DONE]`.
    data: String,
    /// Whether a stream is complete only with this event.
    terminal: bool,
}

impl Event {
    fn data(value: &Value) -> Self {
        Self { name: None, data: value.to_string(), terminal: false }
    }

    fn named(name: &'static str, value: &Value) -> Self {
        Self { name: Some(name), data: value.to_string(), terminal: false }
    }

    fn last(mut self) -> Self {
        self.terminal = true;
        self
    }
}

/// The bytes of a rendered stream and where its events end.
pub(super) struct Rendered {
    pub(super) bytes: Vec<u8>,
    pub(super) event_ends: Vec<usize>,
    /// Where the first terminal event begins.
    pub(super) terminal_at: usize,
}

/// The `Content-Type` of a streamed answer.
pub(super) fn content_type(shape: Shape) -> &'static str {
    match shape {
        _ if shape.is_lines() => "application/x-ndjson",
        _ => "text/event-stream",
    }
}

/// The events of a reply.
pub(super) fn events(call: &ModelCall, reply: &Reply, framing: &Framing) -> Vec<Event> {
    match call.shape {
        Shape::OpenAi => openai::events(call, reply, framing),
        Shape::Anthropic => anthropic::events(call, reply, framing),
        Shape::Gemini => gemini::events(call, reply, framing),
        Shape::Ollama => ollama::events(call, reply, framing),
        Shape::Responses => responses::events(call, reply, framing),
        Shape::Generate => generate::events(call, reply, framing),
        Shape::Completion => completion::events(call, reply, framing),
    }
}

/// The reply as one JSON body, for requests that ask for no stream.
pub(super) fn whole(call: &ModelCall, reply: &Reply) -> Value {
    match call.shape {
        Shape::OpenAi => openai::whole(call, reply),
        Shape::Anthropic => anthropic::whole(call, reply),
        Shape::Gemini => gemini::whole(call, reply),
        Shape::Ollama => ollama::whole(call, reply),
        Shape::Responses => responses::whole(call, reply),
        Shape::Generate => generate::whole(call, reply),
        Shape::Completion => completion::whole(call, reply),
    }
}

/// Status and body of a vendor error.
pub(super) fn error(call: &ModelCall, kind: ErrorKind) -> (u16, String) {
    let (status, body) = errors::error(call.shape, &call.model, kind);
    (status, body.to_string())
}

/// The vendor's body for a 400 with this message.
pub(super) fn refusal(shape: Shape, message: &str) -> String {
    errors::body(shape, 400, message).to_string()
}

/// The vendor's body for a bare status.
pub(super) fn status_body(shape: Shape, code: u16) -> String {
    errors::body(shape, code, &format!("scripted status {code}")).to_string()
}

/// An error in the middle of a stream.
pub(super) fn error_event(call: &ModelCall, kind: ErrorKind) -> Event {
    let (_, body) = errors::error(call.shape, &call.model, kind);
    match call.shape {
        Shape::Anthropic => Event::named("error", &body),
        Shape::Responses => Event::named("error", &responses::error(&body)),
        _ => Event::data(&body),
    }
}

/// An event whose payload is cut JSON.
pub(super) fn broken_event(shape: Shape) -> Event {
    let name = match shape {
        Shape::Anthropic => Some("content_block_delta"),
        Shape::Responses => Some("response.output_text.delta"),
        _ => None,
    };
    Event { name, data: "{\"id\": \"x\", \"choices\": [{".to_owned(), terminal: false }
}

/// Puts events into lines.
pub(super) fn lines(shape: Shape, events: &[Event], framing: &Framing) -> Rendered {
    let mut out = Rendered { bytes: Vec::new(), event_ends: Vec::new(), terminal_at: usize::MAX };
    let end = match (framing.line_end, shape) {
        (LineEnd::Lf, _) => "\n",
        (LineEnd::Cr, _) if shape.is_lines() => "\n",
        (LineEnd::CrLf, _) => "\r\n",
        (LineEnd::Cr, _) => "\r",
    };
    for event in events {
        if framing.keep_alive == KeepAlive::Chatty {
            out.bytes.extend_from_slice(keep_alive(shape, end).as_bytes());
        }
        if event.terminal {
            out.terminal_at = out.terminal_at.min(out.bytes.len());
        }
        if shape.is_lines() {
            out.bytes.extend_from_slice(event.data.as_bytes());
            out.bytes.extend_from_slice(end.as_bytes());
        } else {
            if let Some(name) = event.name {
                out.bytes.extend_from_slice(format!("event: {name}{end}").as_bytes());
            }
            out.bytes.extend_from_slice(format!("data: {}{end}{end}", event.data).as_bytes());
        }
        out.event_ends.push(out.bytes.len());
    }
    out.terminal_at = out.terminal_at.min(out.bytes.len());
    out
}

fn keep_alive(shape: Shape, end: &str) -> String {
    match shape {
        Shape::Ollama | Shape::Generate => end.to_owned(),
        Shape::Anthropic => format!("event: ping{end}data: {{\"type\": \"ping\"}}{end}{end}"),
        Shape::OpenAi | Shape::Responses | Shape::Gemini | Shape::Completion => {
            format!(": keep-alive{end}{end}")
        }
    }
}

/// A time stamp for fields that must hold one; the same in every answer, so that answers can be compared.
const CREATED: u64 = 1_760_000_000;

/// `text` in up to three pieces, cut at character borders: how vendors stream argument JSON.
fn argument_pieces(text: &str) -> Vec<&str> {
    let middle = |from: usize| {
        (from..=text.len()).find(|&at| text.is_char_boundary(at)).unwrap_or(text.len()).max(from)
    };
    let (first, second) = (middle(text.len() / 3), middle(text.len() * 2 / 3));
    [&text[..first], &text[first..second], &text[second..]]
        .into_iter()
        .filter(|piece| !piece.is_empty())
        .collect()
}

/// The id of the call at `index`, numbered by turn where the script names none: for formats that require one.
fn call_id(call: &ModelCall, given: Option<&str>, index: usize) -> String {
    given.map_or_else(|| format!("call_{}_{index}", call.turn()), str::to_owned)
}
