//! The decision as a part of the reply: a tool call that is added before the reply is journalled.

use super::parse::{DecisionSource, RouterDecision, parse};
use super::{CHAT_TOOL, CODE_TOOL};
use forge_types::{
    FinishReason, MessagePart, ModelReply, OpaqueState, ParamSpec, ParamType, PartKind, Payload, ToolAccess,
    ToolCall, ToolSpec,
};
use serde_json::{Map, Value};

/// Marks the router's own data on a call; no provider has this name.
const ROUTER_PROVIDER: &str = "forge.router";
const MORE_FIELD: &str = "more";

/// Returns the enabled tools that a router can be offered, which are those callable with a single text. The tool that
/// answers comes first.
pub fn offered_tools(enabled: Vec<ToolSpec>) -> Vec<ToolSpec> {
    let mut tools: Vec<_> = enabled.into_iter().filter(|tool| text_parameters(tool).is_some()).collect();
    tools.sort_by_key(|tool| if tool.name == CHAT_TOOL { 0 } else { 1 + u8::from(tool.name != CODE_TOOL) });
    tools
}

/// Returns the required parameters if a single text can fill them: one parameter, or a pair for a tool that only takes
/// notes.
fn text_parameters(tool: &ToolSpec) -> Option<Vec<&ParamSpec>> {
    let required: Vec<_> = tool.params.iter().filter(|param| param.required).collect();
    let most = if tool.access == ToolAccess::Nothing { 2 } else { 1 };
    let fits = (1..=most).contains(&required.len()) && required.iter().all(|p| p.kind == ParamType::String);
    fits.then_some(required)
}

/// Describes a tool's content for the model.
pub(super) fn describe_content(tool: &ToolSpec) -> String {
    match text_parameters(tool).as_deref() {
        Some([one]) if one.description.is_empty() => format!("the {}", one.name),
        Some([one]) => format!("the {}, {}", one.name, one.description),
        Some([one, two]) => format!("`{} = {}`", one.name, two.name),
        _ => "text".to_owned(),
    }
}

/// Returns a tool's arguments for a text.
fn text_arguments(tool: &ToolSpec, content: &str) -> Map<String, Value> {
    let mut arguments = Map::new();
    match text_parameters(tool).as_deref() {
        Some([one]) => {
            arguments.insert(one.name.clone(), content.into());
        }
        Some([one, two]) => {
            let (head, rest) = content.split_once(['=', ':', '\n']).unwrap_or((content, content));
            arguments.insert(one.name.clone(), head.trim().into());
            arguments.insert(two.name.clone(), rest.trim().into());
        }
        _ => {
            arguments.insert("content".to_owned(), content.into());
        }
    }
    arguments
}

/// Adds the decision to the reply as a tool call. An empty reply gets no call and no text; the model's text is kept as
/// reasoning.
pub fn route_reply(reply: ModelReply, tools: &[ToolSpec]) -> (ModelReply, RouterDecision) {
    let mut text = String::new();
    let mut rest = Vec::new();
    for part in reply.parts {
        match part.kind {
            PartKind::Text { text: Payload::Inline(more) } => text.push_str(&more),
            PartKind::Reasoning { .. } => rest.push(part),
            // A native tool call means the same.
            PartKind::Call(call) if text.is_empty() => text = as_text(&call),
            _ => {}
        }
    }
    let decision = parse(&text, tools);
    let (parts, finish) = match decision.how {
        DecisionSource::Empty => {
            let raw = PartKind::Reasoning { text: Payload::Inline(text) };
            rest.push(MessagePart { kind: raw, opaque: None });
            (rest, FinishReason::Stop)
        }
        _ => {
            rest.push(MessagePart::text(text));
            rest.push(decision_call(&decision, tools));
            (rest, FinishReason::ToolCalls)
        }
    };
    (ModelReply { parts, finish, ..reply }, decision)
}

fn decision_call(decision: &RouterDecision, tools: &[ToolSpec]) -> MessagePart {
    let tool = tools.iter().find(|tool| tool.name == decision.tool);
    let arguments = tool.map(|tool| text_arguments(tool, &decision.content)).unwrap_or_default();
    let call = ToolCall {
        id: String::new(),
        name: decision.tool.clone(),
        arguments: Value::Object(arguments).to_string().into(),
    };
    let opaque = decision.more.then(|| OpaqueState {
        provider: ROUTER_PROVIDER.to_owned(),
        model: String::new(),
        data: MORE_FIELD.to_owned(),
    });
    MessagePart { kind: PartKind::Call(call), opaque }
}

/// Returns whether the router asked for another step after this call.
pub(super) fn wants_more(part: &MessagePart) -> bool {
    part.opaque.as_ref().is_some_and(|opaque| opaque.provider == ROUTER_PROVIDER && opaque.data == MORE_FIELD)
}

fn as_text(call: &ToolCall) -> String {
    let arguments: Value = serde_json::from_str(&call.arguments).unwrap_or(Value::Null);
    let content = match &arguments {
        Value::Object(map) => match map.get("content").or_else(|| map.values().next()) {
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
            None => String::new(),
        },
        Value::Null => call.arguments.to_string(),
        other => other.to_string(),
    };
    serde_json::json!({"tool": call.name, "content": content}).to_string()
}
