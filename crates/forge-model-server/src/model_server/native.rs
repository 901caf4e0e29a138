//! Requests of the endpoints that came later: OpenAI's responses, Ollama's `/api/generate`, llama.cpp's
//! `/completion` with its `/apply-template`. Where a format is one text, the conversation is read from it: turns,
//! calls and results as clients write them down.

use serde_json::Value;

use super::seen::{SeenCall, SeenModelCall, SeenRole, SeenTool, array_items, text_of};

pub(super) fn read_responses(call: &mut SeenModelCall, body: &Value) {
    call.max_tokens = body["max_output_tokens"].as_u64();
    call.system = text_of(&body["instructions"]);
    call.tools = array_items(&body["tools"])
        .map(|tool| SeenTool {
            name: text_of(&tool["name"]),
            description: text_of(&tool["description"]),
            parameters: tool["parameters"].clone(),
        })
        .collect();
    for item in array_items(&body["input"]) {
        match (item["type"].as_str(), item["role"].as_str()) {
            (Some("function_call"), _) => {
                let text = text_of(&item["arguments"]);
                let arguments = serde_json::from_str(&text).unwrap_or(Value::String(text));
                let made =
                    SeenCall { id: text_of(&item["call_id"]), name: text_of(&item["name"]), arguments };
                open_reply(call).push(made);
            }
            (Some("function_call_output"), _) => {
                call.push_result(text_of(&item["call_id"]), String::new(), text_of(&item["output"]));
            }
            (Some("reasoning"), _) => {}
            (_, Some("assistant")) => {
                call.push_message(SeenRole::Assistant, text_of(&item["content"]), Vec::new())
            }
            (_, Some("system" | "developer")) => {
                call.push_message(SeenRole::System, text_of(&item["content"]), Vec::new());
            }
            _ => call.push_message(SeenRole::User, text_of(&item["content"]), Vec::new()),
        }
    }
}

/// The calls of the model's message at the end, which is begun if it is not there.
fn open_reply(call: &mut SeenModelCall) -> &mut Vec<SeenCall> {
    if call.messages.last().is_none_or(|last| last.role != SeenRole::Assistant) {
        call.push_message(SeenRole::User, String::new(), Vec::new());
        if let Some(last) = call.messages.last_mut() {
            last.role = SeenRole::Assistant;
        }
    }
    &mut call.messages.last_mut().expect("one was pushed").tool_calls
}

pub(super) fn read_generate(call: &mut SeenModelCall, body: &Value) {
    call.stream = body["stream"].as_bool().unwrap_or(true);
    call.max_tokens = body["options"]["num_predict"].as_u64();
    read_system(call, &text_of(&body["system"]));
    read_headings(call, &format!("\n\n### User:\n{}", text_of(&body["prompt"])));
}

pub(super) fn read_completion(call: &mut SeenModelCall, body: &Value) {
    call.max_tokens = body["n_predict"].as_u64();
    let prompt = text_of(&body["prompt"]);
    if !prompt.contains(TURN_BEGIN) {
        let prompt = prompt.trim_end_matches("### Assistant:\n");
        read_headings(call, &format!("\n\n{}", prompt.trim_end()));
        return;
    }
    for turn in prompt.split(TURN_BEGIN).skip(1) {
        let Some((role, text)) = turn.split_once('\n') else { continue };
        // The turn that the model is to write has no end yet.
        let Some((text, _)) = text.rsplit_once(TURN_END) else { continue };
        read_turn(call, role, text);
    }
}

const TURN_BEGIN: &str = "<|im_start|>";
const TURN_END: &str = "<|im_end|>";

/// A conversation as the template of many open models has it, ready for the model's turn.
pub(super) fn chat_ml(body: &Value) -> String {
    let turn = |message: &Value| {
        let (role, text) = (text_of(&message["role"]), text_of(&message["content"]));
        format!("{TURN_BEGIN}{role}\n{text}{TURN_END}\n")
    };
    array_items(&body["messages"]).map(turn).collect::<String>() + TURN_BEGIN + "assistant\n"
}

fn read_headings(call: &mut SeenModelCall, prompt: &str) {
    for turn in prompt.split("\n\n### ").skip(1) {
        if let Some((heading, text)) = turn.split_once(":\n") {
            read_turn(call, &heading.to_ascii_lowercase(), text);
        }
    }
}

/// The system prompt and, behind it, the tools.
fn read_system(call: &mut SeenModelCall, text: &str) {
    let Some((before, tools)) = text.split_once("You can call tools.") else {
        call.system = text.to_owned();
        return;
    };
    call.system = before.trim_end().to_owned();
    call.tools = tools
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .map(|tool| SeenTool {
            name: text_of(&tool["name"]),
            description: text_of(&tool["description"]),
            parameters: tool["parameters"].clone(),
        })
        .collect();
}

fn read_turn(call: &mut SeenModelCall, role: &str, text: &str) {
    match role {
        "system" => read_system(call, text),
        "assistant" => {
            let (spoken, made) = split_tagged(text, "<tool_call>", "</tool_call>");
            let calls = made
                .iter()
                .map(|made| SeenCall {
                    id: String::new(),
                    name: text_of(&made["name"]),
                    arguments: made["arguments"].clone(),
                })
                .collect();
            call.push_message(SeenRole::Assistant, spoken, calls);
        }
        _ => {
            let (spoken, results) = split_tagged(text, "<tool_response>", "</tool_response>");
            for result in &results {
                let content =
                    if result["content"].is_string() { &result["content"] } else { &result["error"] };
                call.push_result(String::new(), text_of(&result["name"]), text_of(content));
            }
            if results.is_empty() || !spoken.is_empty() {
                call.push_message(SeenRole::User, spoken, Vec::new());
            }
        }
    }
}

/// The text outside of a pair of tags, and the JSON values inside.
fn split_tagged(text: &str, open: &str, close: &str) -> (String, Vec<Value>) {
    let mut pieces = text.split(open);
    let mut outside = pieces.next().unwrap_or_default().to_owned();
    let mut inside = Vec::new();
    for piece in pieces {
        let (json, after) = piece.split_once(close).unwrap_or((piece, ""));
        inside.push(serde_json::from_str(json.trim()).unwrap_or(Value::Null));
        outside.push_str(after);
    }
    (outside.trim().to_owned(), inside)
}
