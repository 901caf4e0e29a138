//! The router's prompt, and the format of its replies.

use super::CHAT_TOOL;
use super::reply::describe_content;
use super::rules::{RULES_PROMPT, STEPS_PROMPT};
use crate::context;
use forge_types::{
    JsonFormat, Message, MessagePart, OnSchemaMismatch, PartKind, ReplyFormat, Role, RunState, ToolSpec,
};
use serde_json::json;
use std::fmt::Write as _;
use std::sync::Arc;

/// Builds the router's system prompt: rules, tools, the user's own instructions. Facts of the memory are appended
/// later.
pub fn system_prompt(tools: &[ToolSpec], max_steps: u32, own: Option<&str>) -> String {
    let mut prompt = String::from(RULES_PROMPT);
    if max_steps > 1 {
        prompt.push_str(STEPS_PROMPT);
    }
    prompt.push_str("\nTools:\n");
    for tool in tools {
        let purpose =
            tool.description.split_once(['.', ';']).map_or(tool.description.as_str(), |(head, _)| head);
        let _ = writeln!(prompt, "- {}: {purpose}; content: {}", tool.name, describe_content(tool));
    }
    let done = if max_steps > 1 { ", \"done\": true" } else { "" };
    let _ = write!(
        prompt,
        "\nExample. User: Hello! You: {{\"tool\": \"{CHAT_TOOL}\", \"content\": \"Hello! How can I help you?\"{done}}}\n"
    );
    context::add_instructions(&mut prompt, own);
    prompt
}

/// Returns the format of a router's reply: one of the enabled tools and a text. Replies in other formats are parsed
/// too.
pub fn reply_format(tools: &[ToolSpec], max_steps: u32) -> ReplyFormat {
    let names: Vec<&str> = tools.iter().map(|tool| tool.name.as_str()).collect();
    let mut properties = json!({
        "tool": {"type": "string", "enum": names},
        "content": {"type": "string"},
    });
    let mut required = vec!["tool", "content"];
    if max_steps > 1 {
        properties["done"] = json!({"type": "boolean"});
        required.push("done");
    }
    let schema = json!({
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    });
    let grammar = Some(reply_grammar(&names, max_steps));
    ReplyFormat::Json(JsonFormat {
        name: "router".to_owned(),
        schema,
        grammar,
        unfit: OnSchemaMismatch::Pass,
    })
}

/// Returns the same format as a GBNF grammar. It requires a character in the content that is not a space, which not all
/// schema dialects can express.
fn reply_grammar(names: &[&str], max_steps: u32) -> String {
    let tools: Vec<_> = names.iter().map(|name| format!(r#""\"{name}\"""#)).collect();
    let done = if max_steps > 1 { r#" ", \"done\": " ("true" | "false")"# } else { "" };
    format!(
        "root ::= \"{{\\\"tool\\\": \" tool \", \\\"content\\\": \\\"\" solid char* \"\\\"\"{done} \"}}\"\n\
         tool ::= {}\n\
         solid ::= [^\"\\\\ \\x7F\\x00-\\x1F] | \"\\\\\" [\"\\\\/]\n\
         char ::= [^\"\\\\\\x7F\\x00-\\x1F] | \"\\\\\" ([\"\\\\/bfnrt] | \"u\" hex hex hex hex)\n\
         hex ::= [0-9a-fA-F]\n",
        tools.join(" | ")
    )
}

/// Formats an answer of an earlier turn as the router would have written it.
pub fn format_answer(content: &str) -> String {
    // Spelled as in the grammar, so that the model sees only one spelling.
    format!("{{\"tool\": \"{CHAT_TOOL}\", \"content\": {}}}", serde_json::Value::from(content))
}

/// Returns the conversation as the router's model sees it: its own text verbatim, and tool results as messages. The
/// request offers no native tools, so the conversation must not contain native calls.
pub fn router_messages(state: &RunState) -> Vec<Arc<Message>> {
    state.messages.iter().map(router_message).collect()
}

fn router_message(message: &Arc<Message>) -> Arc<Message> {
    match message.role {
        Role::Assistant if message.tool_calls().next().is_some() => {
            let texts = message.text_parts().cloned().map(MessagePart::text).collect();
            Arc::new(Message { role: Role::Assistant, parts: texts })
        }
        Role::Tool => {
            let parts = message.parts.iter().filter_map(|part| match &part.kind {
                PartKind::Result(result) => {
                    let head = if result.ok { "Output" } else { "Failure" };
                    let head = format!("{head} of the tool {}:\n", result.name);
                    Some([MessagePart::text(head), MessagePart::text(result.content.clone())])
                }
                _ => None,
            });
            Arc::new(Message { role: Role::User, parts: parts.flatten().collect() })
        }
        _ => message.clone(),
    }
}
