//! The wire formats, one file each, all with the same interface.
//!
//! A wire format turns a neutral request into bytes ([`encode_request`]) and the events of a stream into a reply
//! ([`StreamDecoder`]). It is independent of HTTP, and of vendors except for the data in [`forge_catalog::vendors`].

mod anthropic;
mod completion;
mod gemini;
mod generate;
mod ollama;
mod openai;
mod responses;
mod text_tools;

use std::borrow::Cow;

use forge_catalog::models::SamplingParameter;
use forge_catalog::vendors::{StructuredMode, Vendor};
use forge_catalog::{Catalog, WireFormat};
use forge_types::{JsonFormat, ModelRequest, ReplyFormat, Usage};
use serde_json::value::RawValue;

use crate::key::ApiKey;
use crate::reply_builder::{ReplyBuilder, StreamError};
use crate::sse::FrameEvent;
use crate::structured;

pub(crate) use completion::{ConversationKey, encode_template_request};
pub(crate) use gemini::model_segment;

/// The framing of a stream's events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StreamFraming {
    /// Server-sent events.
    Sse,
    /// One JSON object per line.
    Lines,
}

/// A request with everything that determines its bytes.
pub(crate) struct WireRequest<'a> {
    pub(crate) vendor: &'static Vendor,
    pub(crate) catalog: &'a Catalog,
    pub(crate) request: &'a ModelRequest,
    /// Schema of the reply and the means of obtaining it; `None` means any text.
    pub(crate) json: Option<(&'a JsonFormat, StructuredMode)>,
    /// Conversation as one text, for the formats that send it so.
    pub(crate) prompt: Option<String>,
    /// Slot of the server that holds the beginning of the conversation, if known.
    pub(crate) slot: Option<u64>,
}

impl<'a> WireRequest<'a> {
    pub(crate) fn new(
        vendor: &'static Vendor,
        wire_format: WireFormat,
        catalog: &'a Catalog,
        request: &'a ModelRequest,
    ) -> Self {
        let json = match &request.format {
            ReplyFormat::Text => None,
            ReplyFormat::Json(format) => {
                Some((format, vendor.structured_mode(wire_format, request.tools.len())))
            }
        };
        Self { vendor, catalog, request, json, prompt: None, slot: None }
    }

    /// Returns the schema of the reply if it is requested by this means.
    fn json_format_by(&self, way: StructuredMode) -> Option<&'a JsonFormat> {
        self.json.filter(|(_, by)| *by == way).map(|(format, _)| format)
    }

    /// Returns a parameter if it is set and the model supports it.
    fn accepted_parameter(&self, value: Option<f64>, parameter: SamplingParameter) -> Option<f64> {
        value.filter(|_| {
            !self.catalog.refuses_parameter(self.vendor.name, &self.request.route.model, parameter)
        })
    }

    fn temperature(&self) -> Option<f64> {
        self.accepted_parameter(self.request.settings.temperature, SamplingParameter::Temperature)
    }

    fn top_p(&self) -> Option<f64> {
        self.accepted_parameter(self.request.settings.top_p, SamplingParameter::TopP)
    }

    /// Returns the system prompt, with the instruction for JSON if the schema is requested by one.
    fn system_prompt(&self) -> Cow<'a, str> {
        match self.json_format_by(StructuredMode::Instruction) {
            None => Cow::Borrowed(self.request.system.as_str()),
            Some(format) => Cow::Owned(structured::with_instruction(&self.request.system, &format.schema)),
        }
    }

    /// Returns the system prompt followed by the conversation's system messages: formats with a separate field for the
    /// prompt have no other place for them.
    fn full_system_prompt(&self) -> String {
        let mut system = self.system_prompt().into_owned();
        let later = self.request.messages.iter().filter(|message| message.role == forge_types::Role::System);
        for message in later {
            if !system.is_empty() {
                system.push_str("\n\n");
            }
            system.push_str(&crate::reply_builder::join_text(&message.parts));
        }
        system
    }
}

/// The encoded request: a path below the API version, headers, a body.
pub(crate) struct EncodedRequest {
    pub(crate) path: String,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Vec<u8>,
}

impl EncodedRequest {
    fn from_json(path: impl Into<String>, body: &impl serde::Serialize) -> Self {
        let body = serde_json::to_vec(body).expect("strings and numbers always serialize");
        Self { path: path.into(), headers: Vec::new(), body }
    }
}

/// The state of the stream after an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StreamProgress {
    /// More events follow.
    More,
    /// The event was the terminal one.
    Done,
}

/// A decoder for the events of one stream.
pub(crate) trait StreamDecoder: Send {
    /// Decodes an event.
    fn decode_event(
        &mut self,
        event: FrameEvent<'_>,
        reply: &mut ReplyBuilder<'_>,
    ) -> Result<StreamProgress, StreamError>;

    /// Returns whether a stream that ends here without its terminal event is complete.
    fn is_complete_without_terminal(&self, _reply: &ReplyBuilder<'_>) -> bool {
        false
    }
}

/// Encodes the request; equal requests are encoded as equal bytes.
pub(crate) fn encode_request(wire_format: WireFormat, call: &WireRequest<'_>) -> EncodedRequest {
    match wire_format {
        WireFormat::OpenAi | WireFormat::Scripted => openai::encode_request(call),
        WireFormat::Responses => responses::encode_request(call),
        WireFormat::Anthropic => anthropic::encode_request(call),
        WireFormat::Gemini => gemini::encode_request(call),
        WireFormat::Ollama => ollama::encode_request(call),
        WireFormat::Generate => generate::encode_request(call),
        WireFormat::Completion => completion::encode_request(call),
    }
}

/// Creates a decoder for the reply.
pub(crate) fn new_decoder(wire_format: WireFormat, call: &WireRequest<'_>) -> Box<dyn StreamDecoder> {
    match wire_format {
        WireFormat::OpenAi | WireFormat::Scripted => Box::new(openai::OpenAiDecoder::default()),
        WireFormat::Responses => Box::new(responses::ResponsesDecoder::new(call)),
        WireFormat::Anthropic => Box::new(anthropic::AnthropicDecoder::new(call)),
        WireFormat::Gemini => Box::new(gemini::GeminiDecoder::default()),
        WireFormat::Ollama => Box::new(ollama::OllamaDecoder::default()),
        WireFormat::Generate => Box::new(generate::GenerateDecoder::default()),
        WireFormat::Completion => Box::new(completion::CompletionDecoder::default()),
    }
}

/// Returns the framing of streams.
pub(crate) const fn stream_framing(wire_format: WireFormat) -> StreamFraming {
    match wire_format {
        WireFormat::Ollama | WireFormat::Generate => StreamFraming::Lines,
        _ => StreamFraming::Sse,
    }
}

/// Returns the header that carries the API key.
pub(crate) fn key_header(wire_format: WireFormat, key: &ApiKey) -> (&'static str, String) {
    match wire_format {
        WireFormat::Anthropic => ("x-api-key", key.reveal().to_owned()),
        WireFormat::Gemini => ("x-goog-api-key", key.reveal().to_owned()),
        _ => ("authorization", format!("Bearer {}", key.reveal())),
    }
}

/// Parses an event's payload.
fn parse_event<'e, T: serde::Deserialize<'e>>(event: &FrameEvent<'e>) -> Result<T, StreamError> {
    serde_json::from_slice(event.data).map_err(|error| StreamError::Malformed(format!("{error}")))
}

/// Returns the usage of a server that reports no cache.
const fn usage_without_cache(input: u64, output: u64) -> Usage {
    Usage { input, output, cached: 0, cache_write: 0, known: true }
}

/// Returns the text of a call's arguments: the content of a string (the normal form of some formats, invalid JSON in
/// the others), or the object itself, verbatim.
fn argument_text(raw: &RawValue) -> Cow<'_, str> {
    match serde_json::from_str::<String>(raw.get()) {
        Ok(text) => Cow::Owned(text),
        Err(_) if raw.get() == "null" => Cow::Borrowed(""),
        Err(_) => Cow::Borrowed(raw.get()),
    }
}
