//! The wire shapes: one file each, all alike in what they offer.
//!
//! A shape turns a neutral request into bytes ([`Shape::encode`]) and the events of a stream into a reply
//! ([`Decode`]). It knows nothing of HTTP, and of vendors only what [`crate::vendors`] says.

mod anthropic;
mod completion;
mod gemini;
mod generate;
mod ollama;
mod openai;
mod responses;
mod spoken;

use std::borrow::Cow;

use forge_types::{JsonFormat, ModelRequest, ReplyFormat, Usage};
use serde_json::value::RawValue;

use crate::assembly::{Assembly, Fault};
use crate::catalog::{Catalog, Refused};
use crate::options::Key;
use crate::sse::Event;
use crate::structured;
use crate::vendors::{Structured, Vendor};

pub(crate) use completion::{Conversation, template};
pub(crate) use gemini::model_segment;

/// A wire shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Shape {
    /// OpenAI chat completions.
    OpenAi,
    /// OpenAI responses.
    Responses,
    /// Anthropic messages.
    Anthropic,
    /// Gemini `streamGenerateContent`.
    Gemini,
    /// Ollama `/api/chat`.
    Ollama,
    /// Ollama `/api/generate`.
    Generate,
    /// llama.cpp `/completion`.
    Completion,
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

/// One request with all that its bytes depend on.
pub(crate) struct Call<'a> {
    pub(crate) vendor: &'static Vendor,
    pub(crate) catalog: &'a Catalog,
    pub(crate) request: &'a ModelRequest,
    /// The form of the reply and how it is asked for; `None`: any text.
    pub(crate) json: Option<(&'a JsonFormat, Structured)>,
    /// The conversation as one text, for the shape that sends it so.
    pub(crate) prompt: Option<String>,
    /// The server's slot that holds the conversation's beginning, if one is known to.
    pub(crate) slot: Option<u64>,
}

impl<'a> Call<'a> {
    pub(crate) fn new(
        vendor: &'static Vendor,
        shape: Shape,
        catalog: &'a Catalog,
        request: &'a ModelRequest,
    ) -> Self {
        let json = match &request.format {
            ReplyFormat::Text => None,
            ReplyFormat::Json(format) => Some((format, vendor.structured(shape, request.tools.len()))),
        };
        Self { vendor, catalog, request, json, prompt: None, slot: None }
    }

    /// The reply's form if it is asked for in this way.
    fn json_by(&self, way: Structured) -> Option<&'a JsonFormat> {
        self.json.filter(|(_, by)| *by == way).map(|(format, _)| format)
    }

    /// A parameter if it is set and the model takes it.
    fn wanted(&self, value: Option<f64>, parameter: Refused) -> Option<f64> {
        value.filter(|_| !self.catalog.refuses(self.vendor.name, &self.request.route.model, parameter))
    }

    fn temperature(&self) -> Option<f64> {
        self.wanted(self.request.settings.temperature, Refused::Temperature)
    }

    fn top_p(&self) -> Option<f64> {
        self.wanted(self.request.settings.top_p, Refused::TopP)
    }

    /// The system prompt, with the instruction for the reply's form where that is how it is asked for.
    fn system(&self) -> Cow<'a, str> {
        match self.json_by(Structured::Instruction) {
            None => Cow::Borrowed(self.request.system.as_str()),
            Some(format) => Cow::Owned(structured::with_instruction(&self.request.system, &format.schema)),
        }
    }

    /// The system prompt and, after it, system messages of the conversation: shapes with a field of its own for
    /// the prompt have no other place for them.
    fn whole_system(&self) -> String {
        let mut system = self.system().into_owned();
        let later = self.request.messages.iter().filter(|message| message.role == forge_types::Role::System);
        for message in later {
            if !system.is_empty() {
                system.push_str("\n\n");
            }
            system.push_str(&crate::assembly::joined(&message.parts));
        }
        system
    }
}

/// What is sent: a path below the API version, headers, a body.
pub(crate) struct Encoded {
    pub(crate) path: String,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Vec<u8>,
}

impl Encoded {
    fn to(path: impl Into<String>, body: &impl serde::Serialize) -> Self {
        let body = serde_json::to_vec(body).expect("strings and numbers always serialize");
        Self { path: path.into(), headers: Vec::new(), body }
    }
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
    pub(crate) fn encode(self, call: &Call<'_>) -> Encoded {
        match self {
            Self::OpenAi | Self::Scripted => openai::encode(call),
            Self::Responses => responses::encode(call),
            Self::Anthropic => anthropic::encode(call),
            Self::Gemini => gemini::encode(call),
            Self::Ollama => ollama::encode(call),
            Self::Generate => generate::encode(call),
            Self::Completion => completion::encode(call),
        }
    }

    /// A reader for the answer.
    pub(crate) fn decoder(self, call: &Call<'_>) -> Box<dyn Decode> {
        match self {
            Self::OpenAi | Self::Scripted => Box::new(openai::Decoder::default()),
            Self::Responses => Box::new(responses::Decoder::new(call)),
            Self::Anthropic => Box::new(anthropic::Decoder::new(call)),
            Self::Gemini => Box::new(gemini::Decoder::default()),
            Self::Ollama => Box::new(ollama::Decoder::default()),
            Self::Generate => Box::new(generate::Decoder::default()),
            Self::Completion => Box::new(completion::Decoder::default()),
        }
    }

    /// Its path below the API version, where that is always the same.
    pub(crate) const fn path(self) -> &'static str {
        match self {
            Self::OpenAi => "/chat/completions",
            Self::Responses => "/responses",
            Self::Anthropic => "/messages",
            Self::Ollama => "/chat",
            Self::Generate => "/generate",
            Self::Completion => "/completion",
            Self::Gemini | Self::Scripted => "",
        }
    }

    /// How its streams are framed.
    pub(crate) const fn framing(self) -> Framing {
        match self {
            Self::Ollama | Self::Generate => Framing::Lines,
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

/// Usage of a server that counts no cache.
const fn uncached(input: u64, output: u64) -> Usage {
    Usage { input, output, cached: 0, cache_write: 0, known: true }
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
