//! The wire shapes: one file each, all alike in what they offer.
//!
//! A shape turns a neutral request into bytes (`encode`) and the events of a stream into a reply ([`Decode`]). It
//! knows nothing of HTTP, and of vendors only what [`crate::vendors`] says.

mod anthropic;
mod gemini;
mod ollama;
mod openai;

use std::borrow::Cow;

use forge_types::ModelRequest;
use serde_json::value::RawValue;

use crate::assembly::{Assembly, Fault};
use crate::options::Key;
use crate::sse::Event;
use crate::vendors::Vendor;

/// A wire shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Shape {
    /// OpenAI chat completions.
    OpenAi,
    /// Anthropic messages.
    Anthropic,
    /// Gemini `streamGenerateContent`.
    Gemini,
    /// Ollama `/api/chat`.
    Ollama,
    /// No wire: replies from a file.
    Scripted,
}

/// How the events of a stream are framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// Server-sent events.
    Sse,
    /// One JSON object per line.
    Lines,
}

/// What is sent: a path below the API version, headers, a body.
pub(crate) struct Encoded {
    pub(crate) path: String,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Vec<u8>,
}

/// Whether the stream goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// More must come.
    More,
    /// That was the terminal event.
    Done,
}

/// Reads the events of one stream.
pub(crate) trait Decode: Send {
    /// Takes an event.
    fn event(&mut self, event: Event<'_>, reply: &mut Assembly<'_>) -> Result<Progress, Fault>;

    /// Whether a stream that ends here properly is whole though its terminal event is missing.
    fn whole_without_terminal(&self, _reply: &Assembly<'_>) -> bool {
        false
    }
}

impl Shape {
    /// The request as bytes; the same request always gives the same bytes.
    pub(crate) fn encode(self, vendor: &Vendor, request: &ModelRequest) -> Encoded {
        match self {
            Self::Anthropic => anthropic::encode(vendor, request),
            Self::Gemini => gemini::encode(request),
            Self::Ollama => ollama::encode(request),
            Self::OpenAi | Self::Scripted => openai::encode(vendor, request),
        }
    }

    /// A reader for the answer.
    pub(crate) fn decoder(self) -> Box<dyn Decode> {
        match self {
            Self::Anthropic => Box::new(anthropic::Decoder::default()),
            Self::Gemini => Box::new(gemini::Decoder::default()),
            Self::Ollama => Box::new(ollama::Decoder::default()),
            Self::OpenAi | Self::Scripted => Box::new(openai::Decoder::default()),
        }
    }

    /// How its streams are framed.
    pub(crate) fn framing(self) -> Framing {
        match self {
            Self::Ollama => Framing::Lines,
            _ => Framing::Sse,
        }
    }

    /// The header that carries the key.
    pub(crate) fn key_header(self, key: &Key) -> (&'static str, String) {
        match self {
            Self::Anthropic => ("x-api-key", key.reveal().to_owned()),
            Self::Gemini => ("x-goog-api-key", key.reveal().to_owned()),
            _ => ("authorization", format!("Bearer {}", key.reveal())),
        }
    }
}

/// Parses an event's payload.
fn parse<'e, T: serde::Deserialize<'e>>(event: &Event<'e>) -> Result<T, Fault> {
    serde_json::from_slice(event.data).map_err(|error| Fault::Malformed(format!("{error}")))
}

/// The system prompt and, after it, system messages of the conversation: shapes with a field of its own for the
/// prompt have no other place for them.
fn whole_system(request: &ModelRequest) -> String {
    let mut system = request.system.clone();
    for message in request.messages.iter().filter(|message| message.role == forge_types::Role::System) {
        if !system.is_empty() {
            system.push_str("\n\n");
        }
        system.push_str(&crate::assembly::joined(&message.parts));
    }
    system
}

/// The text of a call's arguments as they stand on the wire: the content of a string (the normal form of some
/// shapes, text that was no JSON in the others), or the object itself, verbatim.
fn argument_text(raw: &RawValue) -> Cow<'_, str> {
    match serde_json::from_str::<String>(raw.get()) {
        Ok(text) => Cow::Owned(text),
        Err(_) if raw.get() == "null" => Cow::Borrowed(""),
        Err(_) => Cow::Borrowed(raw.get()),
    }
}
