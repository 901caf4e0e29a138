//! Gemini `models/{model}:streamGenerateContent?alt=sse`, as published in the reference of the Gemini API.
//!
//! Opaque state: a `thoughtSignature` belongs to the part that carried it and goes back on that very part; a
//! signed part is never joined with another. The id of a function call, where the API gives one, is kept the same
//! way, since ids of a run are its own.

use std::borrow::Cow;
use std::collections::HashMap;

use forge_types::{Finish, ModelRequest, Parameters, Part, PartKind, Role, Usage};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::{Call, Decode, Encoded, Progress, argument_text, parse};
use crate::assembly::{Assembly, Fault, inline, own_state, reasoning_part, sendable_arguments};
use crate::sse::Event;
use crate::vendors::Structured;

// ---- request -------------------------------------------------------------------------------------------------

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    generation_config: GenerationConfig<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    system_instruction: Option<Instruction>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tools: Option<[Tools<'a>; 1]>,
    // Last, so that a longer conversation extends the bytes of a shorter one.
    contents: Vec<Content<'a>>,
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
struct Instruction {
    parts: [InstructionPart; 1],
}

#[derive(Serialize)]
struct InstructionPart {
    text: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Tools<'a> {
    function_declarations: Vec<Declaration<'a>>,
}

#[derive(Serialize)]
struct Declaration<'a> {
    name: &'a str,
    description: &'a str,
    /// Left out for a tool without parameters: the API refuses an object without properties.
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters: Option<Parameters<'a>>,
}

#[derive(Serialize)]
struct Content<'a> {
    role: &'static str,
    parts: Vec<Sent<'a>>,
}

#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Sent<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    function_call: Option<SentCall<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    function_response: Option<SentResult<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    thought: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    thought_signature: Option<String>,
}

#[derive(Serialize)]
struct SentCall<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    name: &'a str,
    args: Cow<'a, RawValue>,
}

#[derive(Serialize)]
struct SentResult<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    name: &'a str,
    response: Response<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum Response<'a> {
    Output(&'a str),
    Error(&'a str),
}

/// What is kept of a part, as JSON in its opaque state.
#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct State {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    thought_signature: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    /// Whether the part was a thought.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    thought: Option<bool>,
}

/// The request as bytes.
pub(super) fn encode(call: &Call<'_>) -> Encoded {
    let request = call.request;
    let system = call.whole_system();
    let schema = call.json_by(Structured::Schema).map(|format| &format.schema);
    let declarations: Vec<_> = request
        .tools
        .iter()
        .map(|tool| Declaration {
            name: &tool.name,
            description: &tool.description,
            parameters: (!tool.params.is_empty()).then(|| tool.parameters()),
        })
        .collect();
    let body = Body {
        generation_config: GenerationConfig {
            max_output_tokens: request.settings.max_tokens,
            temperature: call.temperature(),
            top_p: call.top_p(),
            response_mime_type: schema.map(|_| "application/json"),
            response_json_schema: schema,
        },
        system_instruction: (!system.is_empty())
            .then_some(Instruction { parts: [InstructionPart { text: system }] }),
        tools: (!declarations.is_empty()).then_some([Tools { function_declarations: declarations }]),
        contents: contents(request),
    };
    Encoded::to(
        format!("/models/{}:streamGenerateContent?alt=sse", model_segment(&request.route.model)),
        &body,
    )
}

/// A model's name as it stands in a path.
pub(crate) fn model_segment(model: &str) -> String {
    path_segment(model.strip_prefix("models/").unwrap_or(model))
}

/// Percent-encodes what may not stand in a path segment (RFC 3986, `pchar`), so that a model's name can't lead
/// elsewhere.
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

fn contents(request: &ModelRequest) -> Vec<Content<'_>> {
    let mut contents: Vec<Content<'_>> = Vec::with_capacity(request.messages.len());
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
                .and_then(|data| serde_json::from_str::<State>(data).ok())
                .unwrap_or_default();
            if let PartKind::Call(call) = &part.kind {
                calls.insert(&call.id, (&call.name, state.id.clone()));
            }
            parts.extend(sent(part, state, &calls));
        }
        if parts.is_empty() {
            continue;
        }
        match contents.last_mut() {
            Some(last) if last.role == role => last.parts.extend(parts),
            _ => contents.push(Content { role, parts }),
        }
    }
    contents
}

fn sent<'a>(
    part: &'a Part,
    state: State,
    calls: &HashMap<&str, (&'a str, Option<String>)>,
) -> Option<Sent<'a>> {
    let signature = state.thought_signature;
    match &part.kind {
        PartKind::Text { text } if text.is_empty() && signature.is_none() => None,
        PartKind::Text { text } => {
            Some(Sent { text: Some(inline(text)), thought_signature: signature, ..Sent::default() })
        }
        PartKind::Call(call) => Some(Sent {
            function_call: Some(SentCall { id: state.id, name: &call.name, args: sendable_arguments(call) }),
            thought_signature: signature,
            ..Sent::default()
        }),
        PartKind::Result(result) => {
            let (name, id) = calls
                .get(result.call_id.as_str())
                .map_or((result.name.as_str(), None), |(name, id)| (*name, id.clone()));
            let text = inline(&result.content);
            let response = if result.ok { Response::Output(text) } else { Response::Error(text) };
            Some(Sent { function_response: Some(SentResult { id, name, response }), ..Sent::default() })
        }
        // Thoughts are for people; only a signature on one must go back.
        PartKind::Reasoning { text } => signature.map(|signature| Sent {
            text: Some(inline(text)),
            thought: state.thought,
            thought_signature: Some(signature),
            ..Sent::default()
        }),
    }
}

// ---- reply ---------------------------------------------------------------------------------------------------

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Chunk<'a> {
    #[serde(default, borrow)]
    candidates: Vec<Candidate<'a>>,
    #[serde(default)]
    prompt_feedback: Option<Feedback>,
    #[serde(default)]
    usage_metadata: Option<Counts>,
    #[serde(default)]
    model_version: Option<String>,
    #[serde(default)]
    error: Option<Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Candidate<'a> {
    #[serde(default)]
    index: u32,
    #[serde(default, borrow)]
    content: Option<Received<'a>>,
    #[serde(default)]
    finish_reason: Option<String>,
    #[serde(default)]
    finish_message: Option<String>,
}

#[derive(Deserialize)]
struct Received<'a> {
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
    function_call: Option<ReceivedCall<'a>>,
}

#[derive(Deserialize)]
struct ReceivedCall<'a> {
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    name: String,
    #[serde(default, borrow)]
    args: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Feedback {
    #[serde(default)]
    block_reason: Option<String>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Counts {
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

/// Reads a stream of `GenerateContentResponse`s. The one with a finish reason is the terminal event.
#[derive(Default)]
pub(super) struct Decoder {}

impl Decode for Decoder {
    fn event(&mut self, event: Event<'_>, reply: &mut Assembly<'_>) -> Result<Progress, Fault> {
        let chunk: Chunk<'_> = parse(&event)?;
        if let Some(error) = chunk.error {
            return Err(Fault::Reported(Box::new(json!({"error": error}))));
        }
        if let Some(reason) = chunk.prompt_feedback.and_then(|feedback| feedback.block_reason) {
            let message = format!("the prompt was blocked: {reason}");
            return Err(Fault::Reported(Box::new(json!({"error": {"code": 400, "message": message}}))));
        }
        reply.model = reply.model.take().or(chunk.model_version);
        if let Some(counts) = chunk.usage_metadata {
            reply.usage = counts.usage().or(reply.usage);
        }
        for candidate in chunk.candidates.into_iter().filter(|candidate| candidate.index == 0) {
            for part in candidate.content.into_iter().flat_map(|content| content.parts) {
                take(part, reply);
            }
            if let Some(reason) = candidate.finish_reason {
                let why = candidate.finish_message.unwrap_or_default();
                reply.finish = Some(finish(&reason, &why, reply.has_calls())?);
            }
        }
        Ok(if reply.finish.is_some() { Progress::Done } else { Progress::More })
    }
}

fn take(part: ReceivedPart<'_>, reply: &mut Assembly<'_>) {
    let state = State {
        thought_signature: part.thought_signature,
        id: part.function_call.as_ref().and_then(|call| call.id.clone()).filter(|id| !id.is_empty()),
        thought: part.thought.then_some(true),
    };
    let keeps = state.thought_signature.is_some() || state.id.is_some();
    let opaque =
        keeps.then(|| reply.opaque(serde_json::to_string(&state).expect("strings always serialize")));
    if let Some(call) = part.function_call {
        let arguments = call.args.map_or(Cow::Borrowed(""), argument_text);
        let place = reply.call(call.id.as_deref().unwrap_or_default(), &call.name, &arguments);
        reply.parts[place].opaque = opaque;
        return;
    }
    let text = part.text.unwrap_or_default();
    match opaque {
        None if part.thought => reply.reasoning(&text),
        None => reply.text(&text),
        Some(opaque) if part.thought || text.is_empty() => {
            reply.live_reasoning(&text);
            reply.push(reasoning_part(&text, Some(opaque)));
        }
        Some(opaque) => {
            reply.live_text(&text);
            reply.push(Part { kind: PartKind::Text { text: text.into() }, opaque: Some(opaque) });
        }
    }
}

fn finish(reason: &str, why: &str, has_calls: bool) -> Result<Finish, Fault> {
    match reason {
        "STOP" if has_calls => Ok(Finish::ToolCalls),
        "STOP" => Ok(Finish::Stop),
        "MAX_TOKENS" => Ok(Finish::Length),
        // The model wrote a call that the service itself could not read: nothing of it is usable.
        "MALFORMED_FUNCTION_CALL" => Err(Fault::Malformed(
            format!("the model wrote a malformed function call {why}").trim().to_owned(),
        )),
        _ => Ok(Finish::Error),
    }
}

impl Counts {
    fn usage(self) -> Option<Usage> {
        Some(Usage {
            input: self.prompt_token_count? + self.tool_use_prompt_token_count.unwrap_or(0),
            output: self.candidates_token_count.unwrap_or(0) + self.thoughts_token_count.unwrap_or(0),
            cached: self.cached_content_token_count.unwrap_or(0),
            cache_write: 0,
            known: true,
        })
    }
}
