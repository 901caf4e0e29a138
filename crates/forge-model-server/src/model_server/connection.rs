//! One connection: read a request, find the reply, put it on the wire with whatever fault it carries.

use std::io::{self, BufReader, Read, Write};
use std::net::TcpStream;
use std::ops::ControlFlow;
use std::sync::atomic::Ordering;

use serde_json::Value;

use super::framing::ReplyFraming;
use super::render::{self, VendorErrorKind};
use super::script::{MockReply, ReplyFault, StreamCut};
use super::seen::{RecordedRequest, SeenModelCall};
use super::{ModelServerState, RecordMode, RuleMode, VendorFormat, auxiliary_routes, http, lock, rules};

/// Whether the connection may carry another request.
pub(super) type ConnectionFlow = ControlFlow<()>;

/// Serves requests until the client or a fault ends the connection.
pub(super) fn serve_requests(stream: &TcpStream, state: &ModelServerState) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::with_capacity(64 << 10, stream);
    let mut writer = stream;
    while let Some(request) = http::read_request(&mut reader, &mut writer)? {
        let close = request.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        let recorded = record_request(state, request);
        let next = match recorded.shape {
            Some(shape) if recorded.method == "POST" => {
                answer_call(stream, state, SeenModelCall::from_request(shape, recorded))?
            }
            _ => auxiliary_routes::answer_auxiliary(stream, state, &recorded)?,
        };
        if close || next.is_break() {
            return Ok(());
        }
    }
    Ok(())
}

fn record_request(state: &ModelServerState, request: http::HttpRequest) -> RecordedRequest {
    let recorded = RecordedRequest {
        json: serde_json::from_slice(&request.body).unwrap_or(Value::Null),
        shape: VendorFormat::from_path(&request.path),
        method: request.method,
        path: request.path,
        headers: request.headers,
        body: request.body,
    };
    let mut log = lock(&state.log);
    log.count += 1;
    if state.settings.record == RecordMode::All {
        log.requests.push(recorded.clone());
    }
    state.bell.notify_all();
    recorded
}

fn answer_call(
    stream: &TcpStream,
    state: &ModelServerState,
    call: SeenModelCall,
) -> io::Result<ConnectionFlow> {
    if let Some((status, body)) = service_refusal(state, &call) {
        return send_json(stream, status, &[], &body);
    }
    let reply = lock(&state.script).next_reply(&call);
    let Some(reply) = reply else {
        let message = "the script of this test model has no reply left";
        return send_json(stream, 400, &[], &render::refusal_body(call.shape, message));
    };
    let framing = reply.framing.clone().unwrap_or_else(|| state.settings.framing.clone());
    match &reply.fault {
        Some(ReplyFault::Status { code, headers, body }) => {
            let body = body.clone().unwrap_or_else(|| render::status_body(call.shape, *code));
            send_json(stream, *code, headers, &body)
        }
        Some(ReplyFault::Error(kind)) => send_error(stream, &call, *kind, &[]),
        Some(ReplyFault::ErrorWith(kind, headers)) => send_error(stream, &call, *kind, headers),
        Some(ReplyFault::Refuse) => Ok(ConnectionFlow::Break(())),
        Some(ReplyFault::Hang) => {
            wait_for_close(stream);
            Ok(ConnectionFlow::Break(()))
        }
        Some(ReplyFault::ErrorBody(kind)) => {
            let (_, body) = render::error_response(&call, *kind);
            send_json(stream, 200, &[], &body)
        }
        Some(ReplyFault::ErrorBodyAsStream(kind)) => {
            let (_, body) = render::error_response(&call, *kind);
            send_response(stream, 200, render::content_type(call.shape), body.as_bytes())
        }
        Some(ReplyFault::NotAStream) => {
            send_response(stream, 200, "text/html", b"<html>a proxy's login page</html>")
        }
        _ if !call.stream => {
            if let Some(gate) = &reply.hold {
                gate.wait(|| state.stopping.load(Ordering::SeqCst));
            }
            send_json(stream, 200, &[], &render::json_body(&call, &reply).to_string())
        }
        _ => send_stream(stream, state, &call, &reply, &framing),
    }
}

/// What a real service refuses before it looks at the conversation's meaning.
fn service_refusal(state: &ModelServerState, call: &SeenModelCall) -> Option<(u16, String)> {
    if state.settings.key.as_deref().is_some_and(|key| key_of(call) != Some(key)) {
        return Some(render::error_response(call, VendorErrorKind::Auth));
    }
    if state.settings.models.as_ref().is_some_and(|models| !models.contains(&call.model)) {
        return Some(render::error_response(call, VendorErrorKind::UnknownModel));
    }
    if state.settings.rules == RuleMode::Lenient {
        return None;
    }
    rules::broken_rule(call).map(|message| (400, render::refusal_body(call.shape, &message)))
}

fn key_of(call: &SeenModelCall) -> Option<&str> {
    match call.shape {
        VendorFormat::OpenAi
        | VendorFormat::Responses
        | VendorFormat::Ollama
        | VendorFormat::Generate
        | VendorFormat::Completion => call.http.header("authorization")?.strip_prefix("Bearer "),
        VendorFormat::Anthropic => call.http.header("x-api-key"),
        VendorFormat::Gemini => call
            .http
            .header("x-goog-api-key")
            .or_else(|| call.http.path.split(['?', '&']).find_map(|pair| pair.strip_prefix("key="))),
    }
}

fn send_stream(
    stream: &TcpStream,
    state: &ModelServerState,
    call: &SeenModelCall,
    reply: &MockReply,
    framing: &ReplyFraming,
) -> io::Result<ConnectionFlow> {
    let mut events = render::stream_events(call, reply, framing);
    let middle = events.len() / 2;
    match &reply.fault {
        Some(ReplyFault::MalformedEvent) => events.insert(middle, render::broken_event(call.shape)),
        Some(ReplyFault::StreamError(kind)) => {
            events.truncate(middle.max(1));
            events.push(render::error_event(call, *kind));
        }
        _ => {}
    }
    let rendered = render::render_lines(call.shape, &events, framing);
    let (bytes, ends) = (&rendered.bytes, &rendered.event_ends);
    let cuts = framing.chunker.cut_points(bytes, ends);
    let half = ends.get(middle.saturating_sub(1)).copied().unwrap_or(0).min(rendered.terminal_at);
    let head = http::response_head(200, render::content_type(call.shape), &[], None);
    match &reply.fault {
        Some(ReplyFault::Stall) => {
            write_response(stream, head, chunks_before(bytes, &cuts, half), b"")?;
            wait_for_close(stream);
            Ok(ConnectionFlow::Break(()))
        }
        Some(ReplyFault::Endless) => {
            write_response(stream, head, chunks_before(bytes, &cuts, half), b"")?;
            let begin = if middle > 1 { ends[middle - 2] } else { 0 };
            send_for_ever(stream, state, &bytes[begin..half])?;
            Ok(ConnectionFlow::Break(()))
        }
        Some(ReplyFault::Cut(StreamCut::MidChunk)) => {
            let torn = (half + 9).min(bytes.len() - 1);
            // A chunk announced longer than what comes: the client's transport must notice.
            let tail = format!("{:x}\r\n", bytes.len() - half + 1000).into_bytes();
            let tail = [tail.as_slice(), &bytes[half..torn]].concat();
            write_response(stream, head, chunks_before(bytes, &cuts, half), &tail)?;
            Ok(ConnectionFlow::Break(()))
        }
        Some(ReplyFault::Cut(StreamCut::BeforeTerminal)) => {
            write_response(
                stream,
                head,
                chunks_before(bytes, &cuts, rendered.terminal_at),
                http::LAST_CHUNK,
            )?;
            Ok(ConnectionFlow::Continue(()))
        }
        Some(ReplyFault::Cut(StreamCut::AfterTerminal)) => {
            write_response(stream, head, chunks_before(bytes, &cuts, bytes.len()), b"")?;
            Ok(ConnectionFlow::Break(()))
        }
        _ => {
            let begun = reply.hold.as_ref().map_or(0, |_| half);
            if let Some(gate) = &reply.hold {
                write_response(stream, head.clone(), chunks_before(bytes, &cuts, begun), b"")?;
                gate.wait(|| state.stopping.load(Ordering::SeqCst));
            }
            let head = if begun > 0 || reply.hold.is_some() { Vec::new() } else { head };
            write_response(stream, head, chunks_from(bytes, &cuts, begun), http::LAST_CHUNK)?;
            Ok(ConnectionFlow::Continue(()))
        }
    }
}

/// The chunks of `bytes[..end]`.
fn chunks_before(bytes: &[u8], cuts: &[usize], end: usize) -> Vec<u8> {
    let inner = cuts.iter().copied().filter(|&cut| cut < end).chain([end]);
    encode_chunks(bytes, 0, inner)
}

/// The chunks of `bytes[begin..]`.
fn chunks_from(bytes: &[u8], cuts: &[usize], begin: usize) -> Vec<u8> {
    encode_chunks(bytes, begin, cuts.iter().copied().filter(|&cut| cut > begin))
}

fn encode_chunks(bytes: &[u8], begin: usize, ends: impl Iterator<Item = usize>) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() + bytes.len() / 4);
    let mut at = begin;
    for end in ends {
        http::push_chunk(&mut out, &bytes[at..end]);
        at = end;
    }
    out
}

/// One write for all of it: a small answer is one segment on the wire.
fn write_response(mut stream: &TcpStream, mut head: Vec<u8>, body: Vec<u8>, tail: &[u8]) -> io::Result<()> {
    head.extend_from_slice(&body);
    head.extend_from_slice(tail);
    stream.write_all(&head)
}

/// Repeats one event until the client gives up or the server ends.
fn send_for_ever(mut stream: &TcpStream, state: &ModelServerState, event: &[u8]) -> io::Result<()> {
    let mut chunk = Vec::new();
    for _ in 0..64 {
        http::push_chunk(&mut chunk, event);
    }
    while !state.stopping.load(Ordering::SeqCst) {
        stream.write_all(&chunk)?;
    }
    Ok(())
}

/// Answers nothing until the client gives up or the server ends.
fn wait_for_close(mut stream: &TcpStream) {
    let mut rest = [0; 256];
    while matches!(stream.read(&mut rest), Ok(count) if count > 0) {}
}

fn send_error(
    stream: &TcpStream,
    call: &SeenModelCall,
    kind: VendorErrorKind,
    headers: &[(String, String)],
) -> io::Result<ConnectionFlow> {
    let (status, body) = render::error_response(call, kind);
    send_json(stream, status, headers, &body)
}

pub(super) fn send_json(
    stream: &TcpStream,
    status: u16,
    headers: &[(String, String)],
    body: &str,
) -> io::Result<ConnectionFlow> {
    let head = http::response_head(status, "application/json", headers, Some(body.len()));
    write_response(stream, head, body.as_bytes().to_vec(), b"")?;
    Ok(ConnectionFlow::Continue(()))
}

fn send_response(
    stream: &TcpStream,
    status: u16,
    content_type: &str,
    body: &[u8],
) -> io::Result<ConnectionFlow> {
    let head = http::response_head(status, content_type, &[], Some(body.len()));
    write_response(stream, head, body.to_vec(), b"")?;
    Ok(ConnectionFlow::Continue(()))
}
