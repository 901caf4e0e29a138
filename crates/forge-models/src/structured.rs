//! Replies in JSON: the instruction for models that accept no schema, and the validation of replies.

use forge_types::{FinishReason, JsonFormat, MessagePart, ModelReply, PartKind, Payload};
use serde_json::Value;

use crate::schema;

/// Returns the system prompt followed by the instruction.
pub(crate) fn with_instruction(system: &str, schema: &Value) -> String {
    let between = if system.is_empty() { "" } else { "\n\n" };
    format!(
        "{system}{between}Answer with one JSON value and nothing else: no words around it, no code fence. \
         It must fit this JSON Schema:\n{schema}"
    )
}

/// Checks that a schema is supported.
///
/// # Errors
/// A description of the error.
pub(crate) fn check_format(format: &JsonFormat) -> Result<(), String> {
    let named = |name: &str| {
        (1..=64).contains(&name.len())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
    };
    if !named(&format.name) {
        return Err(format!(
            "`{}` is not a valid schema name: use 1 to 64 letters, digits, `_` and `-`",
            format.name
        ));
    }
    schema::check_supported(&format.schema).map_err(|why| format!("schema `{}`: {why}", format.name))
}

/// Validates a complete reply and reduces its text to the JSON. A reply that was cut, was refused or calls tools has no
/// JSON and is passed on unchanged.
///
/// # Errors
/// A description of the mismatch.
pub(crate) fn validate_reply(reply: &mut ModelReply, format: &JsonFormat) -> Result<(), String> {
    if reply.finish != FinishReason::Stop || reply.tool_calls().next().is_some() {
        return Ok(());
    }
    let is_text = |part: &MessagePart| matches!(part.kind, PartKind::Text { .. });
    let said: String = reply.parts.iter().filter_map(text_of).collect();
    let json = extract_json(&said);
    if json.is_empty() {
        return Err(format!("it has no text, but JSON for the schema `{}` is required", format.name));
    }
    let value: Value = serde_json::from_str(json)
        .map_err(|error| format!("it is not the JSON that the schema `{}` requires: {error}", format.name))?;
    schema::validate_value(&format.schema, &value)
        .map_err(|why| format!("it does not match the schema `{}`: {why}", format.name))?;
    if json.len() != said.len() {
        let json = json.to_owned();
        let place = reply.parts.iter().position(is_text).unwrap_or(0);
        reply.parts.retain(|part| !is_text(part));
        reply.parts.insert(place.min(reply.parts.len()), MessagePart::text(json));
    }
    Ok(())
}

fn text_of(part: &MessagePart) -> Option<&str> {
    match &part.kind {
        PartKind::Text { text: Payload::Inline(text) } => Some(text),
        _ => None,
    }
}

/// Returns the text without what models add around JSON: white space, reasoning before it, a code fence.
fn extract_json(text: &str) -> &str {
    let mut text = text.trim();
    if let Some((_, after)) = text.strip_prefix("<think>").and_then(|rest| rest.split_once("</think>")) {
        text = after.trim();
    }
    let fenced = text.strip_prefix("```").and_then(|rest| rest.strip_suffix("```"));
    match fenced.map(|inner| inner.split_once('\n').map_or(inner, |(_, body)| body)) {
        Some(inner) => inner.trim(),
        None => text,
    }
}
