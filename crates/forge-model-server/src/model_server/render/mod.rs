//! Neutral replies in each vendor's words: a list of events for the wire, plus whole answers and error bodies.

mod anthropic;
mod completion;
mod errors;
mod gemini;
mod generate;
mod ollama;
mod openai;
mod responses;
mod text_tools;

use serde_json::Value;

pub use errors::VendorErrorKind;

use super::VendorFormat;
use super::framing::{LineEnd, ReplyFraming, StreamKeepAlive};
use super::script::MockReply;
use super::seen::SeenModelCall;

/// One event of a stream before it is put into lines.
pub(super) struct RenderedEvent {
    /// The SSE event name, where the vendor uses one.
    name: Option<&'static str>,
    /// The payload: JSON, or a bare word such as `[DONE]`.
    data: String,
    /// Whether a stream is complete only with this event.
    terminal: bool,
}

impl RenderedEvent {
    fn data(value: &Value) -> Self {
        Self { name: None, data: value.to_string(), terminal: false }
    }

    fn with_name(name: &'static str, value: &Value) -> Self {
        Self { name: Some(name), data: value.to_string(), terminal: false }
    }

    fn into_last(mut self) -> Self {
        self.terminal = true;
        self
    }
}

/// The bytes of a rendered stream and where its events end.
pub(super) struct RenderedStream {
    pub(super) bytes: Vec<u8>,
    pub(super) event_ends: Vec<usize>,
    /// Where the first terminal event begins.
    pub(super) terminal_at: usize,
}

/// The `Content-Type` of a streamed answer.
pub(super) fn content_type(shape: VendorFormat) -> &'static str {
    match shape {
        _ if shape.is_lines() => "application/x-ndjson",
        _ => "text/event-stream",
    }
}

/// The events of a reply.
pub(super) fn stream_events(
    call: &SeenModelCall,
    reply: &MockReply,
    framing: &ReplyFraming,
) -> Vec<RenderedEvent> {
    match call.shape {
        VendorFormat::OpenAi => openai::stream_events(call, reply, framing),
        VendorFormat::Anthropic => anthropic::stream_events(call, reply, framing),
        VendorFormat::Gemini => gemini::stream_events(call, reply, framing),
        VendorFormat::Ollama => ollama::stream_events(call, reply, framing),
        VendorFormat::Responses => responses::stream_events(call, reply, framing),
        VendorFormat::Generate => generate::stream_events(call, reply, framing),
        VendorFormat::Completion => completion::stream_events(call, reply, framing),
    }
}

/// The reply as one JSON body, for requests that ask for no stream.
pub(super) fn json_body(call: &SeenModelCall, reply: &MockReply) -> Value {
    match call.shape {
        VendorFormat::OpenAi => openai::json_body(call, reply),
        VendorFormat::Anthropic => anthropic::json_body(call, reply),
        VendorFormat::Gemini => gemini::json_body(call, reply),
        VendorFormat::Ollama => ollama::json_body(call, reply),
        VendorFormat::Responses => responses::json_body(call, reply),
        VendorFormat::Generate => generate::json_body(call, reply),
        VendorFormat::Completion => completion::json_body(call, reply),
    }
}

/// Status and body of a vendor error.
pub(super) fn error_response(call: &SeenModelCall, kind: VendorErrorKind) -> (u16, String) {
    let (status, body) = errors::error_response(call.shape, &call.model, kind);
    (status, body.to_string())
}

/// The vendor's body for a 400 with this message.
pub(super) fn refusal_body(shape: VendorFormat, message: &str) -> String {
    errors::error_body(shape, 400, message).to_string()
}

/// The vendor's body for a bare status.
pub(super) fn status_body(shape: VendorFormat, code: u16) -> String {
    errors::error_body(shape, code, &format!("scripted status {code}")).to_string()
}

/// An error in the middle of a stream.
pub(super) fn error_event(call: &SeenModelCall, kind: VendorErrorKind) -> RenderedEvent {
    let (_, body) = errors::error_response(call.shape, &call.model, kind);
    match call.shape {
        VendorFormat::Anthropic => RenderedEvent::with_name("error", &body),
        VendorFormat::Responses => RenderedEvent::with_name("error", &responses::error_event_data(&body)),
        _ => RenderedEvent::data(&body),
    }
}

/// An event whose payload is cut JSON.
pub(super) fn broken_event(shape: VendorFormat) -> RenderedEvent {
    let name = match shape {
        VendorFormat::Anthropic => Some("content_block_delta"),
        VendorFormat::Responses => Some("response.output_text.delta"),
        _ => None,
    };
    RenderedEvent { name, data: "{\"id\": \"x\", \"choices\": [{".to_owned(), terminal: false }
}

/// Puts events into lines.
pub(super) fn render_lines(
    shape: VendorFormat,
    events: &[RenderedEvent],
    framing: &ReplyFraming,
) -> RenderedStream {
    let mut out = RenderedStream { bytes: Vec::new(), event_ends: Vec::new(), terminal_at: usize::MAX };
    let end = match (framing.line_end, shape) {
        (LineEnd::Lf, _) => "\n",
        (LineEnd::Cr, _) if shape.is_lines() => "\n",
        (LineEnd::CrLf, _) => "\r\n",
        (LineEnd::Cr, _) => "\r",
    };
    for event in events {
        if framing.keep_alive == StreamKeepAlive::Chatty {
            out.bytes.extend_from_slice(render_keep_alive(shape, end).as_bytes());
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

fn render_keep_alive(shape: VendorFormat, end: &str) -> String {
    match shape {
        VendorFormat::Ollama | VendorFormat::Generate => end.to_owned(),
        VendorFormat::Anthropic => format!("event: ping{end}data: {{\"type\": \"ping\"}}{end}{end}"),
        VendorFormat::OpenAi | VendorFormat::Responses | VendorFormat::Gemini | VendorFormat::Completion => {
            format!(": keep-alive{end}{end}")
        }
    }
}

/// A time stamp for fields that must hold one; the same in every answer, so that answers can be compared.
const CREATED_UNIX_SECS: u64 = 1_760_000_000;

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
fn call_id(call: &SeenModelCall, given: Option<&str>, index: usize) -> String {
    given.map_or_else(|| format!("call_{}_{index}", call.turn_index()), str::to_owned)
}
