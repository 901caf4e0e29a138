//! The scripted model server seen from outside: plain sockets, the four wire formats, the faults.

#![allow(clippy::unwrap_used, reason = "the helpers of a test may panic like the test")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use forge_testkit::model_server::{
    Chunker, Gate, LineEnd, MockReply, MockUsage, ModelServer, ModelServerSettings, ReplyFault, ReplyFraming,
    ReplyScript, SeenRole, StreamCut, StreamKeepAlive, VendorErrorKind, VendorFormat,
};
use serde_json::{Value, json};

/// An answer as it came: status, headers, body pieces (one per HTTP chunk), and whether it ended properly.
struct Answer {
    status: u16,
    head: String,
    pieces: Vec<Vec<u8>>,
    whole: bool,
}

impl Answer {
    fn text(&self) -> String {
        String::from_utf8(self.pieces.concat()).unwrap()
    }
}

fn post(server: &ModelServer, path: &str, headers: &str, body: &Value) -> Answer {
    let mut stream = TcpStream::connect(server.address()).unwrap();
    let body = body.to_string();
    write!(
        stream,
        "POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n{headers}\r\n{body}",
        body.len()
    )
    .unwrap();
    read_answer(&mut BufReader::new(stream))
}

fn read_answer(reader: &mut impl BufRead) -> Answer {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).unwrap_or(0) == 0 {
            return Answer { status: 0, head, pieces: Vec::new(), whole: false };
        }
    }
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let mut answer = Answer { status, head: head.clone(), pieces: Vec::new(), whole: false };
    if let Some(length) = length {
        let mut body = vec![0; length.parse().unwrap()];
        answer.whole = reader.read_exact(&mut body).is_ok();
        answer.pieces.push(body);
        return answer;
    }
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return answer;
        }
        let size = usize::from_str_radix(line.trim(), 16).unwrap();
        let mut piece = vec![0; size + 2];
        if reader.read_exact(&mut piece).is_err() {
            return answer;
        }
        if size == 0 {
            answer.whole = true;
            return answer;
        }
        piece.truncate(size);
        answer.pieces.push(piece);
    }
}

/// A minimal request of the shape: path, extra headers, body.
fn request(shape: VendorFormat) -> (&'static str, &'static str, Value) {
    let messages = json!([{"role": "user", "content": "hello"}]);
    match shape {
        VendorFormat::OpenAi => (
            "/v1/chat/completions",
            "",
            json!({"model": "m", "messages": messages, "stream": true,
                "stream_options": {"include_usage": true}}),
        ),
        VendorFormat::Anthropic => (
            "/v1/messages",
            "anthropic-version: 2023-06-01\r\n",
            json!({"model": "m", "messages": messages, "stream": true, "max_tokens": 100}),
        ),
        VendorFormat::Gemini => (
            "/v1beta/models/m:streamGenerateContent?alt=sse",
            "",
            json!({"contents": [{"role": "user", "parts": [{"text": "hello"}]}]}),
        ),
        VendorFormat::Ollama => ("/api/chat", "", json!({"model": "m", "messages": messages})),
        VendorFormat::Responses => (
            "/v1/responses",
            "",
            json!({"model": "m", "stream": true, "store": false, "input": [{"type": "message", "role": "user",
                "content": [{"type": "input_text", "text": "hello"}]}]}),
        ),
        VendorFormat::Generate => ("/api/generate", "", json!({"model": "m", "prompt": "hello"})),
        VendorFormat::Completion => (
            "/completion",
            "",
            json!({"model": "m", "stream": true, "prompt": "### User:\nhello\n\n### Assistant:\n"}),
        ),
    }
}

fn ask(server: &ModelServer, shape: VendorFormat) -> Answer {
    let (path, headers, body) = request(shape);
    post(server, path, headers, &body)
}

fn rich_reply() -> MockReply {
    MockReply::text("Grüße, 世界 🌍 and all")
        .with_thinking("let me see", Some("c2ln"))
        .and_call("call_1", "read_file", json!({"path": "ü.txt"}))
        .and_call("call_2", "list", json!({}))
        .with_usage(Some(MockUsage { input: 7, output: 3, cached: 20, cache_write: 4 }))
}

#[test]
fn each_shape_speaks_its_vendors_format() {
    for (shape, signs) in [
        (
            VendorFormat::OpenAi,
            &["data: [DONE]", "\"cached_tokens\":20", "\"finish_reason\":\"tool_calls\""][..],
        ),
        (
            VendorFormat::Anthropic,
            &[
                "event: message_start",
                "signature_delta",
                "input_json_delta",
                "\"cache_read_input_tokens\":20",
            ],
        ),
        (
            VendorFormat::Gemini,
            &["\"functionCall\"", "\"thoughtSignature\":\"c2ln\"", "\"finishReason\":\"STOP\""],
        ),
        (
            VendorFormat::Ollama,
            &["\"arguments\":{\"path\":\"ü.txt\"}", "\"prompt_eval_count\":31", "\"done\":true"],
        ),
        (
            VendorFormat::Responses,
            &[
                "event: response.completed",
                "\"encrypted_content\":\"c2ln\"",
                "\"cached_tokens\":20",
                "response.function_call_arguments.delta",
            ],
        ),
        (VendorFormat::Generate, &["l_call>", "\"prompt_eval_count\":31", "\"done\":true"]),
        (
            VendorFormat::Completion,
            &["<think>", "\"cache_n\":20", "\"tokens_evaluated\":31", "\"stop\":true"],
        ),
    ] {
        let server = ModelServer::start(ReplyScript::from_replies([rich_reply()]));
        let answer = ask(&server, shape);
        assert_eq!(answer.status, 200);
        assert!(answer.whole);
        for sign in signs {
            assert!(answer.text().contains(sign), "{shape:?} lacks {sign}: {}", answer.text());
        }
    }
}

#[test]
fn every_way_of_cutting_carries_the_same_bytes() {
    for shape in VendorFormat::ALL {
        let whole =
            ask(&ModelServer::start_split(ReplyScript::from_replies([rich_reply()]), Chunker::Whole), shape);
        assert_eq!(whole.pieces.len(), 1);
        for chunker in [Chunker::Events, Chunker::Bytes(1), Chunker::prime_sizes(), Chunker::Hostile] {
            let cut = ask(
                &ModelServer::start_split(ReplyScript::from_replies([rich_reply()]), chunker.clone()),
                shape,
            );
            assert_eq!(cut.text(), whole.text(), "{shape:?} {chunker:?}");
            assert!(cut.pieces.len() > 3);
            if chunker == Chunker::Hostile {
                assert!(cut.pieces.iter().any(|piece| std::str::from_utf8(piece).is_err()));
            }
        }
    }
}

#[test]
fn line_ends_and_keep_alives_are_as_asked() {
    let framing = ReplyFraming {
        line_end: LineEnd::CrLf,
        keep_alive: StreamKeepAlive::Chatty,
        ..ReplyFraming::default()
    };
    let settings = ModelServerSettings { framing, ..ModelServerSettings::default() };
    let server =
        ModelServer::start_with(ReplyScript::from_replies([MockReply::text("hi")]), settings).unwrap();
    let text = ask(&server, VendorFormat::OpenAi).text();
    assert!(text.starts_with(": keep-alive\r\n\r\ndata: {"));
    assert!(!text.replace("\r\n", "").contains(['\r', '\n']));
}

#[test]
fn faults_show_on_the_wire() {
    let headers = vec![("retry-after".to_owned(), "7".to_owned())];
    let server = ModelServer::start(ReplyScript::from_replies([
        MockReply::default().with_fault(ReplyFault::ErrorWith(VendorErrorKind::RateLimit, headers)),
        MockReply::error(VendorErrorKind::Overloaded),
        MockReply::fault(ReplyFault::Refuse),
        MockReply::fault(ReplyFault::Cut(StreamCut::MidChunk)),
        MockReply::fault(ReplyFault::Cut(StreamCut::BeforeTerminal)),
        MockReply::fault(ReplyFault::Cut(StreamCut::AfterTerminal)),
        MockReply::fault(ReplyFault::MalformedEvent),
        MockReply::text("x").and_raw_call("c", "t", "{\"a\": "),
    ]));
    let ask = || ask(&server, VendorFormat::Anthropic);
    let limited = ask();
    assert_eq!(limited.status, 429);
    assert!(limited.head.contains("retry-after: 7"));
    assert!(limited.text().contains("rate_limit_error"));
    assert_eq!(ask().status, 529);
    assert_eq!(ask().status, 0, "closed without an answer");
    let torn = ask();
    assert!(!torn.whole && !torn.text().contains("message_stop") && !torn.text().is_empty());
    let short = ask();
    assert!(short.whole && !short.text().contains("message_stop"));
    let late = ask();
    assert!(!late.whole && late.text().contains("message_stop"));
    assert!(ask().text().contains("\"choices\": [{\n"));
    assert!(ask().text().contains("\"partial_json\":\": \""), "the arguments end where they were cut");
    assert_eq!(ask().status, 400, "the script is over");
}

#[test]
fn closures_see_the_conversation_in_one_form_for_all_shapes() {
    let conversations = [
        (
            "/v1/chat/completions",
            json!({"model": "m", "stream": true, "tools": [{"type": "function", "function": {"name": "read"}}],
                "messages": [{"role": "system", "content": "sys"}, {"role": "user", "content": "go"},
                    {"role": "assistant", "content": null, "tool_calls": [{"id": "c1", "type": "function",
                        "function": {"name": "read", "arguments": "{\"path\":\"a\"}"}}]},
                    {"role": "tool", "tool_call_id": "c1", "content": "result"}]}),
        ),
        (
            "/v1/messages",
            json!({"model": "m", "stream": true, "max_tokens": 5, "tools": [{"name": "read"}],
                "system": [{"type": "text", "text": "sys"}],
                "messages": [{"role": "user", "content": "go"},
                    {"role": "assistant", "content": [{"type": "tool_use", "id": "c1", "name": "read",
                        "input": {"path": "a"}}]},
                    {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c1",
                        "content": "result"}]}]}),
        ),
        (
            "/v1beta/models/m:streamGenerateContent?alt=sse",
            json!({"systemInstruction": {"parts": [{"text": "sys"}]},
                "tools": [{"functionDeclarations": [{"name": "read"}]}],
                "contents": [{"role": "user", "parts": [{"text": "go"}]},
                    {"role": "model", "parts": [{"functionCall": {"name": "read", "args": {"path": "a"}}}]},
                    {"role": "user", "parts": [{"functionResponse": {"name": "read",
                        "response": {"output": "result"}}}]}]}),
        ),
        (
            "/api/chat",
            json!({"model": "m", "tools": [{"type": "function", "function": {"name": "read"}}],
                "messages": [{"role": "system", "content": "sys"}, {"role": "user", "content": "go"},
                    {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "read",
                        "arguments": {"path": "a"}}}]},
                    {"role": "tool", "tool_name": "read", "content": "result"}]}),
        ),
    ];
    for (path, body) in conversations {
        let server = ModelServer::start(ReplyScript::always(|call| {
            assert_eq!((call.system.as_str(), call.last_user_text(), call.turn_index()), ("sys", "go", 1));
            assert_eq!(call.messages[1].role, SeenRole::Assistant);
            assert_eq!(call.messages[1].tool_calls[0].arguments, json!({"path": "a"}));
            assert!(call.offers_tool("read"));
            MockReply::text(format!("saw {}", call.last_tool_result().unwrap()))
        }));
        let answer = post(&server, path, "anthropic-version: 2023-06-01\r\n", &body);
        assert!(answer.text().contains("saw result"), "{path}: {} {}", answer.status, answer.text());
    }
}

#[test]
fn a_conversation_a_real_service_would_refuse_is_refused() {
    let server = ModelServer::start(ReplyScript::always(|_| MockReply::text("never")));
    let unanswered = json!([{"role": "user", "content": "go"},
        {"role": "assistant", "content": "", "tool_calls": [{"id": "c1", "type": "function",
            "function": {"name": "read", "arguments": "{}"}}]},
        {"role": "user", "content": "and?"}]);
    let answer = post(&server, "/v1/chat/completions", "", &json!({"model": "m", "messages": unanswered}));
    assert_eq!(answer.status, 400);
    assert!(answer.text().contains("tool results"));
    let (path, _, body) = request(VendorFormat::Anthropic);
    assert!(post(&server, path, "", &body).text().contains("anthropic-version"));
}

#[test]
fn keys_and_model_names_are_checked_in_the_vendors_way() {
    let settings = ModelServerSettings {
        key: Some("k1".into()),
        models: Some(vec!["m".into()]),
        ..ModelServerSettings::default()
    };
    let server = ModelServer::start_with(ReplyScript::always(|_| MockReply::text("ok")), settings).unwrap();
    let (path, _, body) = request(VendorFormat::OpenAi);
    assert_eq!(post(&server, path, "authorization: Bearer k2\r\n", &body).status, 401);
    assert_eq!(post(&server, path, "authorization: Bearer k1\r\n", &body).status, 200);
    let (path, _, body) = request(VendorFormat::Gemini);
    assert_eq!(post(&server, path, "x-goog-api-key: k1\r\n", &body).status, 200);
    let other = path.replace("/m:", "/other:");
    assert_eq!(post(&server, &other, "x-goog-api-key: k1\r\n", &body).status, 404);
}

#[test]
fn a_script_file_answers_by_turn_and_picks_an_offered_tool() {
    let script = ReplyScript::from_json(
        r#"{"select": "by_turn", "replies": [
            {"tool_calls": [{"name": "bash|read", "arguments": {"command": "true"}}], "repeat": 2},
            {"text": "finished"}]}"#,
    )
    .unwrap();
    let server = ModelServer::start(script);
    let body = |turns: usize| {
        let mut messages = vec![json!({"role": "user", "content": "go"})];
        for _ in 0..turns {
            messages.push(json!({"role": "assistant", "content": "x"}));
            messages.push(json!({"role": "user", "content": "more"}));
        }
        json!({"model": "m", "messages": messages, "tools": [{"function": {"name": "read"}}]})
    };
    let ask = |turns| post(&server, "/v1/chat/completions", "", &body(turns)).text();
    assert!(ask(2).contains("finished"));
    assert!(ask(0).contains("\"name\":\"read\""));
    assert!(ask(1).contains("\"name\":\"read\""));
    let error = ReplyScript::from_json(r#"{"replies": [{"txt": "x"}]}"#).err().unwrap();
    assert!(error.contains("txt"));
}

#[test]
fn a_gate_holds_the_stream_in_the_middle_and_one_connection_serves_many_requests() {
    let gate = Gate::new();
    let server = ModelServer::start(ReplyScript::from_replies([
        MockReply::text("first and a long second part").with_gate(&gate),
        MockReply::text("again"),
    ]));
    let (path, _, body) = request(VendorFormat::OpenAi);
    let body = body.to_string();
    let mut stream = TcpStream::connect(server.address()).unwrap();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let head = format!("POST {path} HTTP/1.1\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    stream.write_all(head.as_bytes()).unwrap();
    let mut seen = String::new();
    while !seen.contains("first") {
        assert!(reader.read_line(&mut seen).unwrap() > 0);
    }
    assert!(!seen.contains("[DONE]"));
    gate.open();
    while !seen.ends_with("\r\n0\r\n\r\n") {
        assert!(reader.read_line(&mut seen).unwrap() > 0);
    }
    assert!(seen.contains("[DONE]"));
    stream.write_all(head.as_bytes()).unwrap();
    assert!(read_answer(&mut reader).text().contains("again"));
    assert!(server.wait_for_requests(2, Duration::from_secs(5)));
}

#[test]
fn dropping_the_server_ends_a_request_that_hangs() {
    let server = ModelServer::start(ReplyScript::from_replies([MockReply::fault(ReplyFault::Hang)]));
    let (path, _, body) = request(VendorFormat::Ollama);
    let mut stream = TcpStream::connect(server.address()).unwrap();
    let body = body.to_string();
    write!(stream, "POST {path} HTTP/1.1\r\ncontent-length: {}\r\n\r\n{body}", body.len()).unwrap();
    assert!(server.wait_for_requests(1, Duration::from_secs(5)));
    drop(server);
    let mut rest = Vec::new();
    assert!(matches!(stream.read_to_end(&mut rest), Ok(0) | Err(_)));
}

#[test]
fn requests_are_recorded_byte_for_byte() {
    let server = ModelServer::start(ReplyScript::from_replies([MockReply::text("x")]));
    let (path, _, body) = request(VendorFormat::OpenAi);
    post(&server, path, "authorization: Bearer secret\r\n", &body);
    let requests = server.recorded_requests();
    assert_eq!(requests[0].body, body.to_string().into_bytes());
    assert_eq!(requests[0].header("authorization"), Some("Bearer secret"));
    assert_eq!(requests[0].shape, Some(VendorFormat::OpenAi));
}
