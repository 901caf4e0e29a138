//! What the real services refuse: a client that breaks these rules gets status 400 here as it would there.

use std::collections::BTreeSet;

use serde_json::Value;

use super::VendorFormat;
use super::seen::{SeenModelCall, SeenRole, array_items};

/// The first rule that the request breaks, as the message of a 400.
pub(super) fn broken_rule(call: &SeenModelCall) -> Option<String> {
    if call.http.json.is_null() {
        return Some("We could not parse the JSON body of your request.".to_owned());
    }
    if call.model.is_empty() {
        return Some("you must provide a model parameter".to_owned());
    }
    if call.messages.is_empty() {
        return Some("messages: at least one message is required".to_owned());
    }
    unanswered_call(call).or_else(|| match call.shape {
        VendorFormat::OpenAi => check_openai(call),
        VendorFormat::Anthropic => check_anthropic(call),
        VendorFormat::Gemini => check_gemini(call),
        VendorFormat::Ollama => check_ollama(call),
        VendorFormat::Responses => check_responses(call),
        VendorFormat::Generate | VendorFormat::Completion => None,
    })
}

/// Every tool call must be answered directly after the message that made it, and nothing else may be.
fn unanswered_call(call: &SeenModelCall) -> Option<String> {
    let mut at = 0;
    while at < call.messages.len() {
        let message = &call.messages[at];
        let results: Vec<_> =
            call.messages[at + 1..].iter().take_while(|next| next.role == SeenRole::Tool).collect();
        if message.role == SeenRole::Tool {
            return Some(format!("messages.{at}: a tool result must follow the message with its tool call"));
        }
        if results.len() != message.tool_calls.len() {
            return Some(format!(
                "messages.{at}: {} tool calls must be followed by as many tool results, found {}",
                message.tool_calls.len(),
                results.len()
            ));
        }
        let wanted: BTreeSet<_> = message.tool_calls.iter().map(|made| made.id.as_str()).collect();
        let given: BTreeSet<_> = results.iter().map(|result| result.answers.as_str()).collect();
        let has_ids =
            matches!(call.shape, VendorFormat::OpenAi | VendorFormat::Responses | VendorFormat::Anthropic);
        if has_ids && wanted != given {
            return Some(format!("messages.{at}: tool call ids {wanted:?} are answered by {given:?}"));
        }
        at += 1 + results.len();
    }
    None
}

fn check_openai(call: &SeenModelCall) -> Option<String> {
    for message in array_items(&call.http.json["messages"]) {
        for made in array_items(&message["tool_calls"]) {
            if !made["function"]["arguments"].is_string() {
                return Some("messages: tool call arguments must be a string".to_owned());
            }
        }
    }
    None
}

fn check_responses(call: &SeenModelCall) -> Option<String> {
    let stored = call.http.json["store"] != false;
    for (at, item) in array_items(&call.http.json["input"]).enumerate() {
        if item["type"] == "function_call" && !item["arguments"].is_string() {
            return Some(format!("input[{at}].arguments: expected a string"));
        }
        if item["type"] == "reasoning" && !stored && !item["encrypted_content"].is_string() {
            let id = item["id"].as_str().unwrap_or_default();
            return Some(format!(
                "Item with id '{id}' not found. Items are not persisted when `store` is false."
            ));
        }
        if item["type"] == "message" && item["content"].as_array().is_some_and(Vec::is_empty) {
            return Some(format!("input[{at}].content: must not be empty"));
        }
    }
    None
}

/// Marks where the prompt is to be cached: at most four, and none on thinking.
fn check_cache_marks(call: &SeenModelCall) -> Option<String> {
    let body = &call.http.json;
    let on = |list: &Value| array_items(list).filter(|block| !block["cache_control"].is_null()).count();
    let messages: Vec<&Value> = array_items(&body["messages"]).map(|message| &message["content"]).collect();
    let all: usize =
        on(&body["system"]) + on(&body["tools"]) + messages.iter().map(|content| on(content)).sum::<usize>();
    let thinking = messages.into_iter().flat_map(array_items).any(|block| {
        !block["cache_control"].is_null()
            && block["type"].as_str().is_some_and(|kind| kind.contains("thinking"))
    });
    match (all, thinking) {
        (5.., _) => Some(format!("A maximum of 4 blocks with cache_control may be provided. Found {all}.")),
        (_, true) => Some("cache_control cannot be set on thinking blocks".to_owned()),
        _ => None,
    }
}

fn check_anthropic(call: &SeenModelCall) -> Option<String> {
    if let Some(wrong) = check_cache_marks(call) {
        return Some(wrong);
    }
    if call.max_tokens.is_none() {
        return Some("max_tokens: Field required".to_owned());
    }
    if call.http.header("anthropic-version").is_none() {
        return Some("anthropic-version: header is required".to_owned());
    }
    let mut previous = "assistant";
    for (at, message) in array_items(&call.http.json["messages"]).enumerate() {
        let role = message["role"].as_str().unwrap_or_default();
        if role == previous {
            return Some(format!("messages.{at}: roles must alternate between \"user\" and \"assistant\""));
        }
        previous = if role == "assistant" { "assistant" } else { "user" };
        let mut ids = BTreeSet::new();
        for block in array_items(&message["content"]) {
            if block["type"] == "tool_use" && !ids.insert(block["id"].to_string()) {
                return Some(format!("messages.{at}: `tool_use` ids must be unique"));
            }
            if block["type"] == "tool_use" && !block["input"].is_object() {
                return Some(format!("messages.{at}: tool_use.input: Input should be a valid dictionary"));
            }
            if block["type"] == "text" && block["text"].as_str().is_none_or(|text| text.trim().is_empty()) {
                return Some(format!("messages.{at}: text content blocks must contain non-whitespace text"));
            }
            if block["type"] == "thinking" && !block["signature"].is_string() {
                return Some(format!("messages.{at}: thinking.signature: Field required"));
            }
        }
        if message["content"].as_array().is_some_and(Vec::is_empty) || message["content"] == "" {
            return Some(format!("messages.{at}: all messages must have non-empty content"));
        }
    }
    None
}

fn check_gemini(call: &SeenModelCall) -> Option<String> {
    for (at, content) in array_items(&call.http.json["contents"]).enumerate() {
        let parts = content["parts"].as_array().map_or(0, Vec::len);
        if parts == 0 {
            return Some(format!("contents[{at}].parts must not be empty"));
        }
        for part in array_items(&content["parts"]) {
            let args = &part["functionCall"]["args"];
            if !args.is_null() && !args.is_object() {
                return Some(format!("contents[{at}]: functionCall.args must be a struct"));
            }
            let response = &part["functionResponse"];
            if !response.is_null() && (!response["response"].is_object() || !response["name"].is_string()) {
                return Some(format!("contents[{at}]: functionResponse needs name and a struct response"));
            }
        }
    }
    None
}

fn check_ollama(call: &SeenModelCall) -> Option<String> {
    for message in array_items(&call.http.json["messages"]) {
        for made in array_items(&message["tool_calls"]) {
            if !matches!(made["function"]["arguments"], Value::Object(_)) {
                return Some("json: cannot unmarshal string into tool call arguments".to_owned());
            }
        }
    }
    None
}
