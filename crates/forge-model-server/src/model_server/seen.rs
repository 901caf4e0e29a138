//! The neutral view of a request: what a scripted model sees, whatever the vendor's shape.

use serde_json::Value;

use super::{VendorFormat, native};

/// One HTTP request as it came in, kept for assertions.
#[derive(Clone, Debug)]
pub struct RecordedRequest {
    /// `POST`, `GET`, …
    pub method: String,
    /// Path with query.
    pub path: String,
    /// Header names in lower case, values as sent, in order.
    pub headers: Vec<(String, String)>,
    /// The body, byte for byte.
    pub body: Vec<u8>,
    /// The body as JSON, `Null` if it is none.
    pub json: Value,
    /// The wire shape, if the path belongs to a model call.
    pub shape: Option<VendorFormat>,
}

impl RecordedRequest {
    /// The first header of this (lower case) name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// Who wrote a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SeenRole {
    /// Instructions inside the message list (OpenAI, Ollama).
    System,
    /// The person.
    User,
    /// The model.
    Assistant,
    /// A tool's result.
    Tool,
}

/// A message of the conversation as sent by the client. A vendor message that holds several tool results is
/// shown as several messages of role [`SeenRole::Tool`].
#[derive(Clone, Debug)]
pub struct SeenMessage {
    /// Who wrote it.
    pub role: SeenRole,
    /// Its text.
    pub text: String,
    /// Tool calls of an assistant message.
    pub tool_calls: Vec<SeenCall>,
    /// Of a tool result: the id of the call it answers (empty where the format has none).
    pub answers: String,
    /// Of a tool result: the tool's name, where the format carries it.
    pub tool: String,
}

/// A tool call in an assistant message that the client sent back.
#[derive(Clone, Debug)]
pub struct SeenCall {
    /// Its id (empty where the format has none).
    pub id: String,
    /// The tool.
    pub name: String,
    /// The arguments; text that is not JSON is a string value.
    pub arguments: Value,
}

/// A tool the request offers.
#[derive(Clone, Debug)]
pub struct SeenTool {
    /// Its name.
    pub name: String,
    /// Its purpose.
    pub description: String,
    /// The JSON schema of its parameters.
    pub parameters: Value,
}

/// A model call in neutral form.
#[derive(Clone, Debug)]
pub struct SeenModelCall {
    /// The vendor shape it came in.
    pub shape: VendorFormat,
    /// The model asked for.
    pub model: String,
    /// The system prompt, from wherever the shape carries it.
    pub system: String,
    /// The conversation without the system prompt.
    pub messages: Vec<SeenMessage>,
    /// The tools offered.
    pub tools: Vec<SeenTool>,
    /// The limit of output tokens, if sent.
    pub max_tokens: Option<u64>,
    /// Whether the answer is to be streamed.
    pub stream: bool,
    /// Whether usage is reported in the stream (OpenAI reports it only when asked).
    pub usage_wanted: bool,
    /// The request as it came.
    pub http: RecordedRequest,
}

impl SeenModelCall {
    /// The turn of the conversation: how many assistant messages it holds already.
    pub fn turn_index(&self) -> usize {
        self.messages.iter().filter(|message| message.role == SeenRole::Assistant).count()
    }

    /// The text of the last tool result, if the conversation ends in results.
    pub fn last_tool_result(&self) -> Option<&str> {
        self.messages
            .last()
            .filter(|message| message.role == SeenRole::Tool)
            .map(|message| message.text.as_str())
    }

    /// The results at the end of the conversation, in order.
    pub fn tool_results(&self) -> Vec<&SeenMessage> {
        let tail = self.messages.iter().rev().take_while(|message| message.role == SeenRole::Tool).count();
        self.messages[self.messages.len() - tail..].iter().collect()
    }

    /// The text of the last message a person wrote.
    pub fn last_user_text(&self) -> &str {
        self.messages
            .iter()
            .rev()
            .find(|message| message.role == SeenRole::User)
            .map_or("", |message| message.text.as_str())
    }

    /// Whether a tool of this name is offered.
    pub fn offers_tool(&self, tool: &str) -> bool {
        self.tools.iter().any(|seen| seen.name == tool)
    }

    /// Of the alternatives `a|b|c` the first that is offered, else the first.
    pub(super) fn offered_name(&self, alternatives: &str) -> String {
        let mut names = alternatives.split('|');
        let first = names.clone().next().unwrap_or_default();
        names.find(|name| self.offers_tool(name)).unwrap_or(first).to_owned()
    }

    /// Reads a request body of the given shape. Fields that are missing or of another type read as empty: the
    /// strict rules are in [`super::rules`].
    pub(super) fn from_request(shape: VendorFormat, mut http: RecordedRequest) -> Self {
        // Taken out while it is read and put back below: copying it would be the dearest part of a call.
        let json = std::mem::take(&mut http.json);
        let (body, path) = (&json, http.path.clone());
        let mut call = Self {
            shape,
            model: text_of(&body["model"]),
            system: String::new(),
            messages: Vec::new(),
            tools: Vec::new(),
            max_tokens: None,
            stream: body["stream"].as_bool().unwrap_or(false),
            usage_wanted: true,
            http,
        };
        match shape {
            VendorFormat::OpenAi => read_openai(&mut call, body),
            VendorFormat::Anthropic => read_anthropic(&mut call, body),
            VendorFormat::Gemini => read_gemini(&mut call, body, &path),
            VendorFormat::Ollama => read_ollama(&mut call, body),
            VendorFormat::Responses => native::read_responses(&mut call, body),
            VendorFormat::Generate => native::read_generate(&mut call, body),
            VendorFormat::Completion => native::read_completion(&mut call, body),
        }
        call.http.json = json;
        call
    }

    pub(super) fn push_message(&mut self, role: SeenRole, text: String, tool_calls: Vec<SeenCall>) {
        if role == SeenRole::System && self.messages.is_empty() {
            self.system.push_str(&text);
        } else {
            self.messages.push(SeenMessage {
                role,
                text,
                tool_calls,
                answers: String::new(),
                tool: String::new(),
            });
        }
    }

    pub(super) fn push_result(&mut self, answers: String, tool: String, text: String) {
        self.messages.push(SeenMessage { role: SeenRole::Tool, text, tool_calls: Vec::new(), answers, tool });
    }
}

fn read_openai(call: &mut SeenModelCall, body: &Value) {
    call.max_tokens = body["max_completion_tokens"].as_u64().or_else(|| body["max_tokens"].as_u64());
    call.usage_wanted = !call.stream || body["stream_options"]["include_usage"].as_bool().unwrap_or(false);
    call.tools = openai_tools(body);
    for message in array_items(&body["messages"]) {
        let text = text_of(&message["content"]);
        match message["role"].as_str() {
            Some("system" | "developer") => call.push_message(SeenRole::System, text, Vec::new()),
            Some("assistant") => {
                let calls = array_items(&message["tool_calls"]).map(openai_call).collect();
                call.push_message(SeenRole::Assistant, text, calls);
            }
            Some("tool") => call.push_result(text_of(&message["tool_call_id"]), String::new(), text),
            _ => call.push_message(SeenRole::User, text, Vec::new()),
        }
    }
}

fn openai_call(call: &Value) -> SeenCall {
    let text = text_of(&call["function"]["arguments"]);
    let arguments = serde_json::from_str(&text).unwrap_or(Value::String(text));
    SeenCall { id: text_of(&call["id"]), name: text_of(&call["function"]["name"]), arguments }
}

fn openai_tools(body: &Value) -> Vec<SeenTool> {
    array_items(&body["tools"])
        .map(|tool| SeenTool {
            name: text_of(&tool["function"]["name"]),
            description: text_of(&tool["function"]["description"]),
            parameters: tool["function"]["parameters"].clone(),
        })
        .collect()
}

fn read_anthropic(call: &mut SeenModelCall, body: &Value) {
    call.max_tokens = body["max_tokens"].as_u64();
    call.system = text_of(&body["system"]);
    call.tools = array_items(&body["tools"])
        .map(|tool| SeenTool {
            name: text_of(&tool["name"]),
            description: text_of(&tool["description"]),
            parameters: tool["input_schema"].clone(),
        })
        .collect();
    for message in array_items(&body["messages"]) {
        let content = &message["content"];
        let of_type = |kind: &'static str| array_items(content).filter(move |block| block["type"] == kind);
        if message["role"] == "assistant" {
            let calls = of_type("tool_use")
                .map(|block| SeenCall {
                    id: text_of(&block["id"]),
                    name: text_of(&block["name"]),
                    arguments: block["input"].clone(),
                })
                .collect();
            call.push_message(SeenRole::Assistant, text_of(content), calls);
            continue;
        }
        for block in of_type("tool_result") {
            call.push_result(text_of(&block["tool_use_id"]), String::new(), text_of(&block["content"]));
        }
        let text = text_of(content);
        if !text.is_empty() || of_type("tool_result").next().is_none() {
            call.push_message(SeenRole::User, text, Vec::new());
        }
    }
}

fn read_gemini(call: &mut SeenModelCall, body: &Value, path: &str) {
    let after = path.split("/models/").nth(1).unwrap_or_default();
    call.model = after.split(':').next().unwrap_or_default().to_owned();
    call.stream = after.contains(":streamGenerateContent");
    call.max_tokens = body["generationConfig"]["maxOutputTokens"].as_u64();
    call.system = text_of(&body["systemInstruction"]["parts"]);
    call.tools = array_items(&body["tools"])
        .flat_map(|group| array_items(&group["functionDeclarations"]))
        .map(|tool| {
            let schema = ["parametersJsonSchema", "parameters"].into_iter().map(|key| &tool[key]);
            SeenTool {
                name: text_of(&tool["name"]),
                description: text_of(&tool["description"]),
                parameters: schema.into_iter().find(|value| !value.is_null()).cloned().unwrap_or_default(),
            }
        })
        .collect();
    for message in array_items(&body["contents"]) {
        let parts = &message["parts"];
        let spoken: String = array_items(parts)
            .filter(|part| part["thought"] != true)
            .filter_map(|part| part["text"].as_str())
            .collect();
        if message["role"] == "model" {
            let calls = array_items(parts)
                .map(|part| &part["functionCall"])
                .filter(|function| !function.is_null())
                .map(|function| SeenCall {
                    id: text_of(&function["id"]),
                    name: text_of(&function["name"]),
                    arguments: function["args"].clone(),
                })
                .collect();
            call.push_message(SeenRole::Assistant, spoken, calls);
            continue;
        }
        let mut results = 0;
        for function in
            array_items(parts).map(|part| &part["functionResponse"]).filter(|value| !value.is_null())
        {
            results += 1;
            let text = gemini_result(&function["response"]);
            call.push_result(text_of(&function["id"]), text_of(&function["name"]), text);
        }
        if results == 0 || !spoken.is_empty() {
            call.push_message(SeenRole::User, spoken, Vec::new());
        }
    }
}

/// `response` is a free object; the documented keys are `output` and `error`.
fn gemini_result(response: &Value) -> String {
    let text = ["output", "error", "result"].into_iter().find_map(|key| response[key].as_str());
    text.map_or_else(|| response.to_string(), str::to_owned)
}

fn read_ollama(call: &mut SeenModelCall, body: &Value) {
    call.stream = body["stream"].as_bool().unwrap_or(true);
    call.max_tokens = body["options"]["num_predict"].as_u64();
    call.tools = openai_tools(body);
    for message in array_items(&body["messages"]) {
        let text = text_of(&message["content"]);
        match message["role"].as_str() {
            Some("system") => call.push_message(SeenRole::System, text, Vec::new()),
            Some("assistant") => {
                let calls = array_items(&message["tool_calls"])
                    .map(|tool_call| SeenCall {
                        id: text_of(&tool_call["id"]),
                        name: text_of(&tool_call["function"]["name"]),
                        arguments: tool_call["function"]["arguments"].clone(),
                    })
                    .collect();
                call.push_message(SeenRole::Assistant, text, calls);
            }
            Some("tool") => {
                call.push_result(text_of(&message["tool_call_id"]), text_of(&message["tool_name"]), text);
            }
            _ => call.push_message(SeenRole::User, text, Vec::new()),
        }
    }
}

pub(super) fn array_items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// A string, or the texts of a list of text blocks one after the other.
pub(super) fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(blocks) => blocks.iter().filter_map(|block| block["text"].as_str()).collect(),
        _ => String::new(),
    }
}
