//! One connection: read a request, find the reply, put it on the wire with whatever fault it carries.

use std::io::{self, BufReader, Read, Write};
use std::net::TcpStream;
use std::ops::ControlFlow;
use std::sync::atomic::Ordering;

use serde_json::Value;

use super::framing::Framing;
use super::render::{self, ErrorKind};
use super::script::{Cut, Fault, Reply};
use super::seen::{ModelCall, Recorded};
use super::{Record, Rules, Shape, State, beside, http, lock, rules};

/// Whether the connection may carry another request.
pub(super) type Next = ControlFlow<()>;

/// Serves requests until the client or a fault ends the connection.
pub(super) fn serve(stream: &TcpStream, state: &State) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::with_capacity(64 << 10, stream);
    let mut writer = stream;
    while let Some(request) = http::read(&mut reader, &mut writer)? {
        let close = request.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        let recorded = record(state, request);
        let next = match recorded.shape {
            Some(shape) if recorded.method == "POST" => {
                answer_call(stream, state, ModelCall::read(shape, recorded))?
            }
            _ => beside::answer(stream, state, &recorded)?,
        };
        if close || next.is_break() {
            return Ok(());
        }
    }
    Ok(())
}

fn record(state: &State, request: http::Request) -> Recorded {
    let recorded = Recorded {
        json: serde_json::from_slice(&request.body).unwrap_or(Value::Null),
        shape: Shape::of_path(&request.path),
        method: request.method,
        path: request.path,
        headers: request.headers,
        body: request.body,
    };
    let mut log = lock(&state.log);
    log.count += 1;
    if state.settings.record == Record::All {
        log.requests.push(recorded.clone());
    }
    state.bell.notify_all();
    recorded
}

fn answer_call(stream: &TcpStream, state: &State, call: ModelCall) -> io::Result<Next> {
    if let Some((status, body)) = refusal(state, &call) {
        return send_json(stream, status, &[], &body);
    }
    let reply = lock(&state.script).answer(&call);
    let Some(reply) = reply else {
        let message = "the script of this test model has no reply left";
        return send_json(stream, 400, &[], &render::refusal(call.shape, message));
    };
    let framing = reply.framing.clone().unwrap_or_else(|| state.settings.framing.clone());
    match &reply.fault {
        Some(Fault::Status { code, headers, body }) => {
            let body = body.clone().unwrap_or_else(|| render::status_body(call.shape, *code));
            send_json(stream, *code, headers, &body)
        }
        Some(Fault::Error(kind)) => send_error(stream, &call, *kind, &[]),
        Some(Fault::ErrorWith(kind, headers)) => send_error(stream, &call, *kind, headers),
        Some(Fault::Refuse) => Ok(Next::Break(())),
        Some(Fault::Hang) => {
            wait_for_close(stream);
            Ok(Next::Break(()))
        }
        Some(Fault::ErrorBody(kind)) => {
            let (_, body) = render::error(&call, *kind);
            send_json(stream, 200, &[], &body)
        }
        Some(Fault::ErrorBodyAsStream(kind)) => {
            let (_, body) = render::error(&call, *kind);
            send(stream, 200, render::content_type(call.shape), body.as_bytes())
        }
        Some(Fault::NotAStream) => send(stream, 200, "text/html", b"<html>a proxy's login page</html>"),
        _ if !call.stream => {
            if let Some(gate) = &reply.hold {
                gate.wait(|| state.stopping.load(Ordering::SeqCst));
            }
            send_json(stream, 200, &[], &render::whole(&call, &reply).to_string())
        }
        _ => send_stream(stream, state, &call, &reply, &framing),
    }
}

/// What a real service refuses before it looks at the conversation's meaning.
fn refusal(state: &State, call: &ModelCall) -> Option<(u16, String)> {
    if state.settings.key.as_deref().is_some_and(|key| key_of(call) != Some(key)) {
        return Some(render::error(call, ErrorKind::Auth));
    }
    if state.settings.models.as_ref().is_some_and(|models| !models.contains(&call.model)) {
        return Some(render::error(call, ErrorKind::UnknownModel));
    }
    if state.settings.rules == Rules::Lenient {
        return None;
    }
    rules::broken_rule(call).map(|message| (400, render::refusal(call.shape, &message)))
}

fn key_of(call: &ModelCall) -> Option<&str> {
    match call.shape {
        Shape::OpenAi | Shape::Responses | Shape::Ollama | Shape::Generate | Shape::Completion => {
            call.http.header("authorization")?.strip_prefix("Bearer ")
        }
        Shape::Anthropic => call.http.header("x-api-key"),
        Shape::Gemini => call
            .http
            .header("x-goog-api-key")
            .or_else(|| call.http.path.split(['?', '&']).find_map(|pair| pair.strip_prefix("key="))),
    }
}

fn send_stream(
    stream: &TcpStream,
    state: &State,
    call: &ModelCall,
    reply: &Reply,
    framing: &Framing,
) -> io::Result<Next> {
    let mut events = render::events(call, reply, framing);
    let middle = events.len() / 2;
    match &reply.fault {
        Some(Fault::MalformedEvent) => events.insert(middle, render::broken_event(call.shape)),
        Some(Fault::StreamError(kind)) => {
            events.truncate(middle.max(1));
            events.push(render::error_event(call, *kind));
        }
        _ => {}
    }
    let rendered = render::lines(call.shape, &events, framing);
    let (bytes, ends) = (&rendered.bytes, &rendered.event_ends);
    let cuts = framing.chunker.cuts(bytes, ends);
    let half = ends.get(middle.saturating_sub(1)).copied().unwrap_or(0).min(rendered.terminal_at);
    let head = http::head(200, render::content_type(call.shape), &[], None);
    match &reply.fault {
        Some(Fault::Stall) => {
            write(stream, head, pieces(bytes, &cuts, half), b"")?;
            wait_for_close(stream);
            Ok(Next::Break(()))
        }
        Some(Fault::Endless) => {
            write(stream, head, pieces(bytes, &cuts, half), b"")?;
            let begin = if middle > 1 { ends[middle - 2] } else { 0 };
            send_for_ever(stream, state, &bytes[begin..half])?;
            Ok(Next::Break(()))
        }
        Some(Fault::Cut(Cut::MidChunk)) => {
            let torn = (half + 9).min(bytes.len() - 1);
            // A chunk announced longer than what comes: the client's transport must notice.
            let tail = format!("{:x}\r\n", bytes.len() - half + 1000).into_bytes();
            let tail = [tail.as_slice(), &bytes[half..torn]].concat();
            write(stream, head, pieces(bytes, &cuts, half), &tail)?;
            Ok(Next::Break(()))
        }
        Some(Fault::Cut(Cut::BeforeTerminal)) => {
            write(stream, head, pieces(bytes, &cuts, rendered.terminal_at), http::LAST_CHUNK)?;
            Ok(Next::Continue(()))
        }
        Some(Fault::Cut(Cut::AfterTerminal)) => {
            write(stream, head, pieces(bytes, &cuts, bytes.len()), b"")?;
            Ok(Next::Break(()))
        }
        _ => {
            let begun = reply.hold.as_ref().map_or(0, |_| half);
            if let Some(gate) = &reply.hold {
                write(stream, head.clone(), pieces(bytes, &cuts, begun), b"")?;
                gate.wait(|| state.stopping.load(Ordering::SeqCst));
            }
            let head = if begun > 0 || reply.hold.is_some() { Vec::new() } else { head };
            write(stream, head, pieces_from(bytes, &cuts, begun), http::LAST_CHUNK)?;
            Ok(Next::Continue(()))
        }
    }
}

/// The chunks of `bytes[..end]`.
fn pieces(bytes: &[u8], cuts: &[usize], end: usize) -> Vec<u8> {
    let inner = cuts.iter().copied().filter(|&cut| cut < end).chain([end]);
    chunks(bytes, 0, inner)
}

/// The chunks of `bytes[begin..]`.
fn pieces_from(bytes: &[u8], cuts: &[usize], begin: usize) -> Vec<u8> {
    chunks(bytes, begin, cuts.iter().copied().filter(|&cut| cut > begin))
}

fn chunks(bytes: &[u8], begin: usize, ends: impl Iterator<Item = usize>) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() + bytes.len() / 4);
    let mut at = begin;
    for end in ends {
        http::push_chunk(&mut out, &bytes[at..end]);
        at = end;
    }
    out
}

/// One write for all of it: a small answer is one segment on the wire.
fn write(mut stream: &TcpStream, mut head: Vec<u8>, body: Vec<u8>, tail: &[u8]) -> io::Result<()> {
    head.extend_from_slice(&body);
    head.extend_from_slice(tail);
    stream.write_all(&head)
}

/// Repeats one event until the client gives up or the server ends.
fn send_for_ever(mut stream: &TcpStream, state: &State, event: &[u8]) -> io::Result<()> {
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
    call: &ModelCall,
    kind: ErrorKind,
    headers: &[(String, String)],
) -> io::Result<Next> {
    let (status, body) = render::error(call, kind);
    send_json(stream, status, headers, &body)
}

pub(super) fn send_json(
    stream: &TcpStream,
    status: u16,
    headers: &[(String, String)],
    body: &str,
) -> io::Result<Next> {
    let head = http::head(status, "application/json", headers, Some(body.len()));
    write(stream, head, body.as_bytes().to_vec(), b"")?;
    Ok(Next::Continue(()))
}

fn send(stream: &TcpStream, status: u16, content_type: &str, body: &[u8]) -> io::Result<Next> {
    let head = http::head(status, content_type, &[], Some(body.len()));
    write(stream, head, body.to_vec(), b"")?;
    Ok(Next::Continue(()))
}
