//! The parts of the model contract that a real llama.cpp server and a very small model can show, at each of its
//! endpoints: `real_server http://127.0.0.1:PORT [http://127.0.0.1:PORT_OF_EMBEDDINGS]`. `scripts/test-model.sh` runs
//! it.
//!
//! What a model says is its own affair; what is checked is that requests are taken, streams are read to their end,
//! tokens are counted, faults have their kinds, and forms of replies are kept.
#![allow(clippy::print_stdout, reason = "a program that reports")]

use parking_lot::Mutex;
use std::process::ExitCode;
use std::sync::Arc;

use forge_models::{ApiKey, ModelProviders, Options, ProviderOptions};
use forge_ports::{DeltaSink, Embedder, Model};
use forge_types::{
    EmbedRequest, ErrorKind, FinishReason, JsonFormat, Message, MessagePart, ModelReply, ModelRequest,
    ModelRoute, ModelSettings, OnSchemaMismatch, ParamSpec, ParamType, ReplyFormat, Role, ToolAccess,
    ToolCall, ToolCategory, ToolResultPart, ToolSpec,
};
use serde_json::{Value, json};

/// Provider, endpoint below the server's root, and whether the endpoint says what was cached.
const ENDPOINTS: &[(&str, &str, bool)] = &[
    ("llama_cpp", "", true),
    ("llama_cpp", "/v1/responses", true),
    ("llama_cpp", "/v1/messages", true),
    ("llama_cpp", "/completion", true),
    ("custom", "/v1/chat/completions", true),
];
/// Replies that must have the wanted form, all of them.
const DECISIONS: usize = 12;

type Outcome = Result<String, String>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let Some(root) = std::env::args().nth(1) else {
        println!("usage: real_server http://127.0.0.1:PORT");
        return ExitCode::from(2);
    };
    let root = root.trim_end_matches('/').trim_end_matches("/v1");
    let mut failed = 0;
    let mut passed = 0;
    for (provider, endpoint, tells_cache) in ENDPOINTS {
        let stage = Stage::new(provider, &format!("{root}{endpoint}"));
        let place = if endpoint.is_empty() { "/v1/chat/completions" } else { endpoint };
        let by_words = *provider == "custom" || *endpoint == "/v1/messages";
        let cases: [(&str, Outcome); 9] = [
            ("plain answer", stage.plain().await),
            ("streamed answer", stage.streamed().await),
            ("length stop", stage.length().await),
            ("tool round trip", stage.tools().await),
            ("cached prompt", stage.cached(*tells_cache).await),
            ("prompt too long", stage.overflow().await),
            ("silence", stage.silence().await),
            ("reply by a grammar", if by_words { Ok("not here".to_owned()) } else { stage.grammar().await }),
            ("replies in JSON", stage.decisions(by_words).await),
        ];
        for (case, outcome) in cases {
            match outcome {
                Ok(said) => {
                    passed += 1;
                    println!("ok      {provider} {place}: {case}: {said}");
                }
                Err(why) => {
                    failed += 1;
                    println!("FAILED  {provider} {place}: {case}: {why}");
                }
            }
        }
    }
    if let Some(root) = std::env::args().nth(2) {
        match Stage::new("llama_cpp", root.trim_end_matches("/v1")).embeddings().await {
            Ok(said) => {
                passed += 1;
                println!("ok      llama_cpp /v1/embeddings: {said}");
            }
            Err(why) => {
                failed += 1;
                println!("FAILED  llama_cpp /v1/embeddings: {why}");
            }
        }
    }
    println!("{passed} passed, {failed} failed");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

struct Stage {
    models: ModelProviders,
    route: ModelRoute,
}

#[derive(Default)]
struct Heard(Mutex<Vec<String>>);

impl DeltaSink for Heard {
    fn push_text(&self, text: &str) {
        self.0.lock().push(text.to_owned());
    }
}

impl Stage {
    fn new(provider: &str, url: &str) -> Self {
        let options = ProviderOptions {
            base_url: Some(url.to_owned()),
            key: Some(ApiKey::new("none")),
            ..ProviderOptions::with_name(provider)
        };
        let (models, faults) =
            ModelProviders::new(&Options { providers: vec![options], ..Options::default() });
        assert!(faults.is_empty(), "a provider with a base URL: {faults:?}");
        Self { models, route: ModelRoute { provider: provider.to_owned(), model: "smollm2".to_owned() } }
    }

    fn request(&self, messages: Vec<Message>) -> ModelRequest {
        ModelRequest {
            route: self.route.clone(),
            system: "You are a terse assistant.".to_owned(),
            messages: messages.into_iter().map(Arc::new).collect(),
            tools: Vec::new(),
            settings: ModelSettings {
                max_tokens: Some(24),
                temperature: Some(0.0),
                top_p: None,
                timeout_ms: 120_000,
            },
            format: ReplyFormat::Text,
            organization: None,
        }
    }

    async fn ask(&self, request: ModelRequest) -> Result<ModelReply, String> {
        self.models.request_reply(request, &()).await.map_err(|error| error.to_string())
    }

    async fn plain(&self) -> Outcome {
        let reply = self.ask(self.request(vec![Message::user("Name one colour.")])).await?;
        let usage = reply.usage;
        ensure(!text(&reply).trim().is_empty(), "the answer is empty")?;
        ensure(usage.known && usage.input > 5 && usage.output > 0, &format!("usage {usage:?}"))?;
        Ok(format!("{} tokens in, {} out", usage.input, usage.output))
    }

    async fn streamed(&self) -> Outcome {
        let heard = Heard::default();
        let request = self.request(vec![Message::user("Count from one to ten.")]);
        let reply = self.models.request_reply(request, &heard).await.map_err(|error| error.to_string())?;
        let pieces = heard.0.lock().clone();
        ensure(pieces.concat() == text(&reply), "what was shown is not the answer")?;
        ensure(pieces.len() > 2, "it came in one piece")?;
        Ok(format!("{} pieces", pieces.len()))
    }

    async fn length(&self) -> Outcome {
        let mut request = self.request(vec![Message::user("Tell a long story about the sea.")]);
        request.settings.max_tokens = Some(6);
        let reply = self.ask(request).await?;
        ensure(reply.finish == FinishReason::Length, &format!("it ended with {:?}", reply.finish))?;
        ensure(reply.usage.output <= 7, "more tokens than allowed")?;
        Ok(format!("cut after {} tokens", reply.usage.output))
    }

    /// A conversation with a call and its result is taken, beside a tool that is offered.
    async fn tools(&self) -> Outcome {
        let call = ToolCall {
            id: "call_1".to_owned(),
            name: "read_file".to_owned(),
            arguments: r#"{"path":"notes.txt"}"#.into(),
        };
        let result = ToolResultPart {
            call_id: "call_1".to_owned(),
            name: "read_file".to_owned(),
            content: "The meeting is on Monday.".into(),
            ok: true,
        };
        let mut request = self.request(vec![
            Message::user("When is the meeting? It stands in notes.txt."),
            Message { role: Role::Assistant, parts: vec![MessagePart::call(call)] },
            Message::tool(result),
        ]);
        request.tools = vec![ToolSpec {
            name: "read_file".to_owned(),
            aliases: Vec::new(),
            description: "Reads a file.".to_owned(),
            params: vec![ParamSpec::required("path", ParamType::String, "which")],
            access: ToolAccess::Read,
            category: ToolCategory::Builtin,
        }];
        let reply = self.ask(request).await?;
        Ok(format!("{} calls, {} characters", reply.tool_calls().count(), text(&reply).len()))
    }

    /// The second request extends the first, so the server has most of it already.
    async fn cached(&self, tells: bool) -> Outcome {
        let long = "The quick brown fox jumps over the lazy dog. ".repeat(40);
        let mut messages = vec![Message::user(format!("{long}Say yes."))];
        let first = self.ask(self.request(messages.clone())).await?;
        messages.push(Message { role: Role::Assistant, parts: first.parts });
        messages.push(Message::user("Again."));
        let second = self.ask(self.request(messages)).await?;
        let usage = second.usage;
        ensure(!tells || usage.cached * 2 > usage.input, &format!("usage {usage:?}"))?;
        Ok(format!("{} of {} prompt tokens", usage.cached, usage.input))
    }

    async fn overflow(&self) -> Outcome {
        let long = "one two three four five six seven eight nine ten ".repeat(2_000);
        let error = self.models.request_reply(self.request(vec![Message::user(long)]), &()).await;
        let error = error.err().ok_or("it was answered")?;
        ensure(error.kind == ErrorKind::ContextOverflow, &format!("{:?}: {error}", error.kind))?;
        Ok("told as such".to_owned())
    }

    async fn silence(&self) -> Outcome {
        let mut request = self.request(vec![Message::user("Hello there, how are you today?".repeat(50))]);
        request.settings.timeout_ms = 1;
        let error =
            self.models.request_reply(request, &()).await.err().ok_or("it was answered within 1 ms")?;
        ensure(error.kind == ErrorKind::Timeout, &format!("{:?}: {error}", error.kind))?;
        Ok("ends in a timeout".to_owned())
    }

    /// The same text has the same vector, another text another one.
    async fn embeddings(&self) -> Outcome {
        let request = EmbedRequest {
            route: self.route.clone(),
            texts: ["the sea", "a parser", "the sea"].map(str::to_owned).to_vec(),
            organization: None,
            timeout_ms: 60_000,
        };
        let found = self.models.embed(request).await.map_err(|error| error.to_string())?;
        let near = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
        let [one, other, again] = &found.vectors[..] else { return Err("not three vectors".to_owned()) };
        ensure(near(one, again) > near(one, other), "the same text is no nearer than another")?;
        Ok(format!("3 vectors of {}, usage {}", one.len(), found.usage.input))
    }

    /// A grammar of the caller's own is kept to the letter.
    async fn grammar(&self) -> Outcome {
        let mut request = self.request(vec![Message::user("Talk to me.")]);
        let grammar = r#"root ::= "{\"tool\": \"chat\", \"content\": \"" [a-z]{1,8} "\"}""#;
        let form = JsonFormat { grammar: Some(grammar.to_owned()), ..decision() };
        request.format = ReplyFormat::Json(form);
        request.settings.max_tokens = Some(60);
        let reply = self.ask(request).await?;
        let said = text(&reply);
        ensure(said.starts_with(r#"{"tool": "chat", "content": ""#), &said)?;
        Ok(said)
    }

    /// A router's decisions. Where the form is only asked for in words, a model of this size may miss it: then it
    /// has to be told as malformed.
    async fn decisions(&self, by_words: bool) -> Outcome {
        let mut kept = 0;
        for at in 0..DECISIONS {
            let mut request = self.request(vec![Message::user(format!("Write a program that prints {at}."))]);
            request.system = "You choose a tool: chat to talk, code to write Python.".to_owned();
            request.settings.temperature = Some(0.8);
            request.settings.max_tokens = Some(120);
            request.format = ReplyFormat::Json(decision());
            match self.models.request_reply(request, &()).await {
                Ok(reply) if reply.finish == FinishReason::Stop => {
                    let said: Value =
                        serde_json::from_str(&text(&reply)).map_err(|error| error.to_string())?;
                    let tool = said["tool"].as_str().unwrap_or_default();
                    ensure(["chat", "code"].contains(&tool), &format!("{said}"))?;
                    ensure(
                        said["content"].as_str().is_some_and(|content| !content.is_empty()),
                        "no content",
                    )?;
                    kept += 1;
                }
                Ok(reply) if !by_words => return Err(format!("{:?}: {}", reply.finish, text(&reply))),
                Err(error) if !(by_words && error.kind == ErrorKind::MalformedResponse) => {
                    return Err(error.to_string());
                }
                _ => {}
            }
        }
        ensure(by_words || kept == DECISIONS, &format!("{kept} of {DECISIONS}"))?;
        Ok(format!("{kept} of {DECISIONS} have the form"))
    }
}

/// The form of a router's decision. The content is short, since a model this small may find no end.
fn decision() -> JsonFormat {
    let schema = json!({
        "type": "object",
        "properties": {
            "tool": {"type": "string", "enum": ["chat", "code"]},
            "content": {"type": "string", "minLength": 1, "maxLength": 40},
        },
        "required": ["tool", "content"],
        "additionalProperties": false,
    });
    JsonFormat { name: "decision".to_owned(), schema, grammar: None, unfit: OnSchemaMismatch::Refuse }
}

fn text(reply: &ModelReply) -> String {
    let message = Message { role: Role::Assistant, parts: reply.parts.clone() };
    message.text_parts().filter_map(|text| text.inline_text()).collect()
}

fn ensure(holds: bool, why: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(why.to_owned()) }
}
