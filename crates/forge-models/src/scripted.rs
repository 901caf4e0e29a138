//! The scripted provider: replies from a JSON file, for the demo and for tests. It must be configured explicitly.
//!
//! `{"replies": [{"text": "…", "tool_calls": [{"id": "…", "name": "…", "arguments": {…}}], "finish": "stop"}]}`: the
//! index of the reply is the number of assistant messages in the request, so that a repeated request gets the same
//! answer, also from another process.

use std::sync::OnceLock;

use forge_ports::DeltaSink;
use forge_ports::model::Error;
use forge_types::{FinishReason, MessagePart, ModelReply, ModelRequest, Role, ToolCall, Usage};
use serde::Deserialize;
use serde_json::Value;

use crate::errors;
use crate::options::ScriptSource;
use crate::reply_builder::{inline_text, reasoning_part};

/// Characters per streamed piece of text.
const DELTA_CHARS: usize = 16;
/// Largest size of a script in bytes.
const MAX_SCRIPT_BYTES: u64 = 16 << 20;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ModelScriptFile {
    replies: Vec<ScriptReply>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct ScriptReply {
    text: String,
    thinking: String,
    tool_calls: Vec<ScriptCall>,
    finish: Option<FinishReason>,
    usage: Option<ScriptUsage>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ScriptCall {
    #[serde(default)]
    id: String,
    name: String,
    #[serde(default)]
    arguments: Value,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ScriptUsage {
    input: u64,
    output: u64,
}

/// The replies, read at the first call.
#[derive(Debug)]
pub(crate) struct ModelScript {
    source: ScriptSource,
    file: OnceLock<Result<ModelScriptFile, String>>,
}

impl ModelScript {
    pub(crate) fn new(source: ScriptSource) -> Self {
        Self { source, file: OnceLock::new() }
    }

    /// Returns the reply for this turn of the conversation.
    pub(crate) fn reply_for(
        &self,
        request: &ModelRequest,
        deltas: &dyn DeltaSink,
    ) -> Result<ModelReply, Error> {
        let file = self.file.get_or_init(|| self.load()).as_ref();
        let file = file.map_err(|why| errors::invalid_request(why.clone()))?;
        let turn = request.messages.iter().filter(|message| message.role == Role::Assistant).count();
        let reply = file.replies.get(turn).ok_or_else(|| {
            errors::invalid_request(format!(
                "the model script has {} replies, but this is turn {}",
                file.replies.len(),
                turn + 1
            ))
        })?;
        deltas.push_reasoning(&reply.thinking);
        let characters: Vec<char> = reply.text.chars().collect();
        for piece in characters.chunks(DELTA_CHARS) {
            deltas.push_text(&piece.iter().collect::<String>());
        }
        Ok(reply.to_model_reply(request))
    }

    fn load(&self) -> Result<ModelScriptFile, String> {
        let (text, name) = match &self.source {
            ScriptSource::Text(text) => (text.clone(), "the built-in script".to_owned()),
            ScriptSource::File(path) => {
                let name = path.display().to_string();
                let text = forge_files::read_text(path, MAX_SCRIPT_BYTES)
                    .map_err(|error| format!("can't read the model script {name}: {}", error.reason()))?;
                (text, name)
            }
        };
        serde_json::from_str(&text).map_err(|error| format!("{name} is not a model script: {error}"))
    }
}

impl ScriptReply {
    fn to_model_reply(&self, request: &ModelRequest) -> ModelReply {
        let mut parts = Vec::new();
        if !self.thinking.is_empty() {
            parts.push(reasoning_part(&self.thinking, None));
        }
        if !self.text.is_empty() {
            parts.push(MessagePart::text(self.text.as_str()));
        }
        parts.extend(self.tool_calls.iter().map(|call| {
            let arguments = match &call.arguments {
                Value::Null => "{}".to_owned(),
                // Text is sent unchanged: a script may contain invalid arguments on purpose.
                Value::String(raw) => raw.clone(),
                object => object.to_string(),
            };
            MessagePart::call(ToolCall {
                id: call.id.clone(),
                name: call.name.clone(),
                arguments: arguments.into(),
            })
        }));
        let natural = if self.tool_calls.is_empty() { FinishReason::Stop } else { FinishReason::ToolCalls };
        ModelReply {
            usage: self.usage.map_or_else(|| estimate_usage(request, &parts), ScriptUsage::to_usage),
            parts,
            model: request.route.model.clone(),
            finish: self.finish.unwrap_or(natural),
            latency_ms: 0,
        }
    }
}

impl ScriptUsage {
    const fn to_usage(self) -> Usage {
        Usage { input: self.input, output: self.output, cached: 0, cache_write: 0, known: true }
    }
}

fn estimate_usage(request: &ModelRequest, reply: &[MessagePart]) -> Usage {
    let bytes: u64 = request.messages.iter().map(|message| message.approx_bytes()).sum();
    let written: usize = reply
        .iter()
        .map(|part| match &part.kind {
            forge_types::PartKind::Text { text } | forge_types::PartKind::Reasoning { text } => {
                inline_text(text).len()
            }
            forge_types::PartKind::Call(call) => call.name.len() + call.arguments.len(),
            forge_types::PartKind::Result(_) => 0,
        })
        .sum();
    Usage {
        input: (bytes + request.system.len() as u64).div_ceil(4),
        output: (written as u64).div_ceil(4),
        cached: 0,
        cache_write: 0,
        known: false,
    }
}
