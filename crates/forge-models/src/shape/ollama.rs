//! Ollama `/api/chat`, as published in the project's API document: one JSON object per line.
//!
//! The window is always asked for: the server's own default is small and cuts a longer prompt without a word.

use std::borrow::Cow;

use forge_types::{Finish, Message, PartKind, Role};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use super::openai::{Tool, tools};
use super::{Call, Decode, Encoded, Progress, Shape, argument_text, parse, uncached};
use crate::assembly::{Assembly, Fault, inline, joined, sendable_arguments};
use crate::sse::Event;
use crate::vendors::Structured;

// ---- request -------------------------------------------------------------------------------------------------

#[derive(Serialize)]
struct Body<'a> {
    model: &'a str,
    stream: bool,
    options: Settings,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tools: Vec<Tool<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    format: Option<&'a Value>,
    // Last, so that a longer conversation extends the bytes of a shorter one.
    messages: Vec<Sent<'a>>,
}

#[derive(Serialize)]
pub(super) struct Settings {
    num_ctx: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    num_predict: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_p: Option<f64>,
}

#[derive(Serialize)]
struct Sent<'a> {
    role: &'static str,
    content: Cow<'a, str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<SentCall<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_name: Option<&'a str>,
}

#[derive(Serialize)]
struct SentCall<'a> {
    function: SentFunction<'a>,
}

#[derive(Serialize)]
struct SentFunction<'a> {
    name: &'a str,
    arguments: Cow<'a, RawValue>,
}

impl Settings {
    pub(super) fn of(call: &Call<'_>) -> Self {
        let request = call.request;
        Self {
            num_ctx: call.catalog.facts(&request.route.provider, &request.route.model).window,
            num_predict: request.settings.max_tokens,
            temperature: call.temperature(),
            top_p: call.top_p(),
        }
    }
}

/// The request as bytes.
pub(super) fn encode(call: &Call<'_>) -> Encoded {
    let body = Body {
        model: &call.request.route.model,
        stream: true,
        options: Settings::of(call),
        tools: tools(call.request),
        format: call.json_by(Structured::Schema).map(|format| &format.schema),
        messages: messages(call),
    };
    Encoded::to(Shape::Ollama.path(), &body)
}

fn messages<'a>(call: &Call<'a>) -> Vec<Sent<'a>> {
    let request = call.request;
    let mut sent = Vec::with_capacity(request.messages.len() + 1);
    let system = call.system();
    if !system.is_empty() {
        sent.push(plain("system", system));
    }
    for message in &request.messages {
        match message.role {
            Role::System => sent.push(plain("system", joined(&message.parts))),
            Role::User => sent.push(plain("user", joined(&message.parts))),
            Role::Assistant => sent.push(assistant(message)),
            Role::Tool => sent.extend(message.parts.iter().filter_map(|part| match &part.kind {
                PartKind::Result(result) => Some(Sent {
                    tool_name: Some(&result.name),
                    ..plain("tool", Cow::Borrowed(inline(&result.content)))
                }),
                _ => None,
            })),
        }
    }
    sent
}

fn plain<'a>(role: &'static str, content: Cow<'a, str>) -> Sent<'a> {
    Sent { role, content, tool_calls: Vec::new(), tool_name: None }
}

fn assistant(message: &Message) -> Sent<'_> {
    let mut sent = plain("assistant", joined(&message.parts));
    sent.tool_calls = message
        .calls()
        .map(|call| SentCall {
            function: SentFunction { name: &call.name, arguments: sendable_arguments(call) },
        })
        .collect();
    sent
}

// ---- reply ---------------------------------------------------------------------------------------------------

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(default)]
    model: Option<String>,
    #[serde(default, borrow)]
    message: Option<Received<'a>>,
    #[serde(default)]
    done: bool,
    #[serde(default)]
    done_reason: Option<String>,
    #[serde(default)]
    prompt_eval_count: Option<u64>,
    #[serde(default)]
    eval_count: Option<u64>,
    #[serde(default)]
    error: Option<Value>,
}

#[derive(Deserialize)]
struct Received<'a> {
    #[serde(default)]
    content: Option<String>,
    #[serde(default)]
    thinking: Option<String>,
    #[serde(default, borrow)]
    tool_calls: Option<Vec<ReceivedCall<'a>>>,
}

#[derive(Deserialize)]
struct ReceivedCall<'a> {
    #[serde(default)]
    id: Option<String>,
    #[serde(borrow)]
    function: ReceivedFunction<'a>,
}

#[derive(Deserialize)]
struct ReceivedFunction<'a> {
    #[serde(default)]
    name: String,
    #[serde(default, borrow)]
    arguments: Option<&'a RawValue>,
}

/// Reads the lines up to the one that says `done`.
#[derive(Default)]
pub(super) struct Decoder {}

impl Decode for Decoder {
    fn event(&mut self, event: Event<'_>, reply: &mut Assembly<'_>) -> Result<Progress, Fault> {
        let line: Line<'_> = parse(&event)?;
        if let Some(error) = line.error {
            return Err(Fault::Reported(Box::new(serde_json::json!({"error": error}))));
        }
        reply.model = reply.model.take().or(line.model);
        if let Some(message) = line.message {
            reply.reasoning(&message.thinking.unwrap_or_default());
            reply.text(&message.content.unwrap_or_default());
            for call in message.tool_calls.into_iter().flatten() {
                let arguments = call.function.arguments.map_or(Cow::Borrowed(""), argument_text);
                reply.call(call.id.as_deref().unwrap_or_default(), &call.function.name, &arguments);
            }
        }
        if !line.done {
            return Ok(Progress::More);
        }
        reply.finish = Some(finish(line.done_reason.as_deref(), reply.has_calls()));
        if let (Some(input), Some(output)) = (line.prompt_eval_count, line.eval_count) {
            reply.usage = Some(uncached(input, output));
        }
        Ok(Progress::Done)
    }
}

/// The reason that the last line names.
pub(super) fn finish(reason: Option<&str>, has_calls: bool) -> Finish {
    match reason {
        Some("length") => Finish::Length,
        Some("stop") | None if has_calls => Finish::ToolCalls,
        Some("stop") | None => Finish::Stop,
        Some(_) => Finish::Error,
    }
}
