//! Gemini `models/{model}:streamGenerateContent?alt=sse`, as published in the reference of the Gemini API.
//!
//! Opaque state: a `thoughtSignature` belongs to the part that carried it and is sent back on that same part; a signed
//! part is never merged with another. The API's id of a function call, if there is one, is stored in the same way,
//! because a run has its own ids.

use std::borrow::Cow;
use std::collections::HashMap;

use forge_catalog::vendors::StructuredMode;
use forge_types::{FinishReason, MessagePart, ModelRequest, ParameterSchema, PartKind, Role, Usage};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::{EncodedRequest, StreamDecoder, StreamProgress, WireRequest, argument_text, parse_event};
use crate::reply_builder::{
    ReplyBuilder, StreamError, inline_text, own_state, reasoning_part, sendable_arguments,
};
use crate::sse::FrameEvent;

// ---- request -------------------------------------------------------------------------------------------------

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct GeminiRequest<'a> {
    generation_config: GenerationConfig<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    system_instruction: Option<SystemInstruction>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tools: Option<[FunctionDeclarations<'a>; 1]>,
    // Last, so that a longer conversation extends the bytes of a shorter one.
    contents: Vec<GeminiContent<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct GenerationConfig<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    max_output_tokens: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_p: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_mime_type: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_json_schema: Option<&'a Value>,
}

#[derive(Serialize)]
struct SystemInstruction {
    parts: [InstructionPart; 1],
}

#[derive(Serialize)]
struct InstructionPart {
    text: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct FunctionDeclarations<'a> {
    function_declarations: Vec<FunctionDeclaration<'a>>,
}

#[derive(Serialize)]
struct FunctionDeclaration<'a> {
    name: &'a str,
    description: &'a str,
    /// Omitted for a tool without parameters: the API refuses an object without properties.
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters: Option<ParameterSchema<'a>>,
}

#[derive(Serialize)]
struct GeminiContent<'a> {
    role: &'static str,
    parts: Vec<GeminiPart<'a>>,
}

#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct GeminiPart<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    function_call: Option<GeminiCall<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    function_response: Option<GeminiFunctionResponse<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    thought: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    thought_signature: Option<String>,
}

#[derive(Serialize)]
struct GeminiCall<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    name: &'a str,
    args: Cow<'a, RawValue>,
}

#[derive(Serialize)]
struct GeminiFunctionResponse<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    name: &'a str,
    response: FunctionOutcome<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum FunctionOutcome<'a> {
    Output(&'a str),
    Error(&'a str),
}

/// The data stored for a part, as JSON in its opaque state.
#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PartState {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    thought_signature: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    /// Whether the part was a thought.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    thought: Option<bool>,
}

/// Encodes the request.
pub(super) fn encode_request(call: &WireRequest<'_>) -> EncodedRequest {
    let request = call.request;
    let system = call.full_system_prompt();
    let schema = call.json_format_by(StructuredMode::Schema).map(|format| &format.schema);
    let declarations: Vec<_> = request
        .tools
        .iter()
        .map(|tool| FunctionDeclaration {
            name: &tool.name,
            description: &tool.description,
            parameters: (!tool.params.is_empty()).then(|| tool.parameters()),
        })
        .collect();
    let body = GeminiRequest {
        generation_config: GenerationConfig {
            max_output_tokens: request.settings.max_tokens,
            temperature: call.temperature(),
            top_p: call.top_p(),
            response_mime_type: schema.map(|_| "application/json"),
            response_json_schema: schema,
        },
        system_instruction: (!system.is_empty())
            .then_some(SystemInstruction { parts: [InstructionPart { text: system }] }),
        tools: (!declarations.is_empty())
            .then_some([FunctionDeclarations { function_declarations: declarations }]),
        contents: build_contents(request),
    };
    EncodedRequest::from_json(
        format!("/models/{}:streamGenerateContent?alt=sse", model_segment(&request.route.model)),
        &body,
    )
}

/// Returns a model's name as a path segment.
pub(crate) fn model_segment(model: &str) -> String {
    path_segment(model.strip_prefix("models/").unwrap_or(model))
}

/// Percent-encodes characters that are invalid in a path segment (RFC 3986, `pchar`), so that a model's name can't
/// change the path.
fn path_segment(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'@') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

fn build_contents(request: &ModelRequest) -> Vec<GeminiContent<'_>> {
    let mut contents: Vec<GeminiContent<'_>> = Vec::with_capacity(request.messages.len());
    // The name and the API's own id of each call, by the run's id.
    let mut calls: HashMap<&str, (&str, Option<String>)> = HashMap::new();
    for message in &request.messages {
        let role = match message.role {
            Role::System => continue,
            Role::Assistant => "model",
            Role::User | Role::Tool => "user",
        };
        let mut parts = Vec::with_capacity(message.parts.len());
        for part in &message.parts {
            let state = own_state(part, request)
                .and_then(|data| serde_json::from_str::<PartState>(data).ok())
                .unwrap_or_default();
            if let PartKind::Call(call) = &part.kind {
                calls.insert(&call.id, (&call.name, state.id.clone()));
            }
            parts.extend(build_part(part, state, &calls));
        }
        if parts.is_empty() {
            continue;
        }
        match contents.last_mut() {
            Some(last) if last.role == role => last.parts.extend(parts),
            _ => contents.push(GeminiContent { role, parts }),
        }
    }
    contents
}

fn build_part<'a>(
    part: &'a MessagePart,
    state: PartState,
    calls: &HashMap<&str, (&'a str, Option<String>)>,
) -> Option<GeminiPart<'a>> {
    let signature = state.thought_signature;
    match &part.kind {
        PartKind::Text { text } if text.is_empty() && signature.is_none() => None,
        PartKind::Text { text } => Some(GeminiPart {
            text: Some(inline_text(text)),
            thought_signature: signature,
            ..GeminiPart::default()
        }),
        PartKind::Call(call) => Some(GeminiPart {
            function_call: Some(GeminiCall {
                id: state.id,
                name: &call.name,
                args: sendable_arguments(call),
            }),
            thought_signature: signature,
            ..GeminiPart::default()
        }),
        PartKind::Result(result) => {
            let (name, id) = calls
                .get(result.call_id.as_str())
                .map_or((result.name.as_str(), None), |(name, id)| (*name, id.clone()));
            let text = inline_text(&result.content);
            let response =
                if result.ok { FunctionOutcome::Output(text) } else { FunctionOutcome::Error(text) };
            Some(GeminiPart {
                function_response: Some(GeminiFunctionResponse { id, name, response }),
                ..GeminiPart::default()
            })
        }
        // Thoughts are for people; only a signature on one must be sent back.
        PartKind::Reasoning { text } => signature.map(|signature| GeminiPart {
            text: Some(inline_text(text)),
            thought: state.thought,
            thought_signature: Some(signature),
            ..GeminiPart::default()
        }),
    }
}

// ---- reply ---------------------------------------------------------------------------------------------------

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct GeminiChunk<'a> {
    #[serde(default, borrow)]
    candidates: Vec<GeminiCandidate<'a>>,
    #[serde(default)]
    prompt_feedback: Option<PromptFeedback>,
    #[serde(default)]
    usage_metadata: Option<GeminiUsage>,
    #[serde(default)]
    model_version: Option<String>,
    #[serde(default)]
    error: Option<Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct GeminiCandidate<'a> {
    #[serde(default)]
    index: u32,
    #[serde(default, borrow)]
    content: Option<CandidateContent<'a>>,
    #[serde(default)]
    finish_reason: Option<String>,
    #[serde(default)]
    finish_message: Option<String>,
}

#[derive(Deserialize)]
struct CandidateContent<'a> {
    #[serde(default, borrow)]
    parts: Vec<ReceivedPart<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ReceivedPart<'a> {
    #[serde(default)]
    text: Option<String>,
    #[serde(default)]
    thought: bool,
    #[serde(default)]
    thought_signature: Option<String>,
    #[serde(default, borrow)]
    function_call: Option<GeminiReceivedCall<'a>>,
}

#[derive(Deserialize)]
struct GeminiReceivedCall<'a> {
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    name: String,
    #[serde(default, borrow)]
    args: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PromptFeedback {
    #[serde(default)]
    block_reason: Option<String>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "camelCase")]
struct GeminiUsage {
    #[serde(default)]
    prompt_token_count: Option<u64>,
    #[serde(default)]
    tool_use_prompt_token_count: Option<u64>,
    #[serde(default)]
    candidates_token_count: Option<u64>,
    #[serde(default)]
    thoughts_token_count: Option<u64>,
    #[serde(default)]
    cached_content_token_count: Option<u64>,
}

/// A decoder for a stream of `GenerateContentResponse`s. The one with a finish reason is the terminal event.
#[derive(Default)]
pub(super) struct GeminiDecoder {}

impl StreamDecoder for GeminiDecoder {
    fn decode_event(
        &mut self,
        event: FrameEvent<'_>,
        reply: &mut ReplyBuilder<'_>,
    ) -> Result<StreamProgress, StreamError> {
        let chunk: GeminiChunk<'_> = parse_event(&event)?;
        if let Some(error) = chunk.error {
            return Err(StreamError::Reported(Box::new(json!({"error": error}))));
        }
        if let Some(reason) = chunk.prompt_feedback.and_then(|feedback| feedback.block_reason) {
            let message = format!("the prompt was blocked: {reason}");
            return Err(StreamError::Reported(Box::new(json!({"error": {"code": 400, "message": message}}))));
        }
        reply.model = reply.model.take().or(chunk.model_version);
        if let Some(counts) = chunk.usage_metadata {
            reply.usage = counts.to_usage().or(reply.usage);
        }
        for candidate in chunk.candidates.into_iter().filter(|candidate| candidate.index == 0) {
            for part in candidate.content.into_iter().flat_map(|content| content.parts) {
                push_received_part(part, reply);
            }
            if let Some(reason) = candidate.finish_reason {
                let why = candidate.finish_message.unwrap_or_default();
                reply.finish = Some(parse_finish_reason(&reason, &why, reply.has_calls())?);
            }
        }
        Ok(if reply.finish.is_some() { StreamProgress::Done } else { StreamProgress::More })
    }
}

fn push_received_part(part: ReceivedPart<'_>, reply: &mut ReplyBuilder<'_>) {
    let state = PartState {
        thought_signature: part.thought_signature,
        id: part.function_call.as_ref().and_then(|call| call.id.clone()).filter(|id| !id.is_empty()),
        thought: part.thought.then_some(true),
    };
    let keeps = state.thought_signature.is_some() || state.id.is_some();
    let opaque =
        keeps.then(|| reply.opaque_state(serde_json::to_string(&state).expect("strings always serialize")));
    if let Some(call) = part.function_call {
        let arguments = call.args.map_or(Cow::Borrowed(""), argument_text);
        let place = reply.push_call(call.id.as_deref().unwrap_or_default(), &call.name, &arguments);
        reply.parts[place].opaque = opaque;
        return;
    }
    let text = part.text.unwrap_or_default();
    match opaque {
        None if part.thought => reply.push_reasoning(&text),
        None => reply.push_text(&text),
        Some(opaque) if part.thought || text.is_empty() => {
            reply.emit_reasoning(&text);
            reply.push_part(reasoning_part(&text, Some(opaque)));
        }
        Some(opaque) => {
            reply.emit_text(&text);
            reply.push_part(MessagePart { kind: PartKind::Text { text: text.into() }, opaque: Some(opaque) });
        }
    }
}

fn parse_finish_reason(reason: &str, why: &str, has_calls: bool) -> Result<FinishReason, StreamError> {
    match reason {
        "STOP" if has_calls => Ok(FinishReason::ToolCalls),
        "STOP" => Ok(FinishReason::Stop),
        "MAX_TOKENS" => Ok(FinishReason::Length),
        // The service could not read a call that the model wrote, so nothing of it is usable.
        "MALFORMED_FUNCTION_CALL" => Err(StreamError::Malformed(
            format!("the model wrote a malformed function call {why}").trim().to_owned(),
        )),
        _ => Ok(FinishReason::Error),
    }
}

impl GeminiUsage {
    fn to_usage(self) -> Option<Usage> {
        Some(Usage {
            input: self.prompt_token_count? + self.tool_use_prompt_token_count.unwrap_or(0),
            output: self.candidates_token_count.unwrap_or(0) + self.thoughts_token_count.unwrap_or(0),
            cached: self.cached_content_token_count.unwrap_or(0),
            cache_write: 0,
            known: true,
        })
    }
}
