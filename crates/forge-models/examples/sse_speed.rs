//! How fast streams are taken apart: MB/s on one core, for streams as they come from providers.
//!
//! `cargo run --release --package forge-models --example sse_speed` prints one line per stream: its name, bytes per
//! event, and the speed of the framing alone. Printed, never asserted. The streams in `streams/` are whole answers of
//! llama.cpp's server, recorded at four of its endpoints; the others are single events as the vendors document them.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use forge_models::sse::{FrameEvent, Ndjson, Sse};

/// How long each stream is measured.
const LASTS: Duration = Duration::from_millis(700);
/// What a read from a socket gives at most.
const PIECE: usize = 16 << 10;
/// Streams are repeated to about this many bytes, so that pieces end everywhere in them.
const AT_LEAST: usize = 512 << 10;

fn main() {
    for (name, stream) in [
        ("recorded-chat", include_str!("streams/chat.sse")),
        ("recorded-responses", include_str!("streams/responses.sse")),
        ("recorded-messages", include_str!("streams/messages.sse")),
        ("recorded-completion", include_str!("streams/completion.sse")),
        ("openai-chat", OPENAI),
        ("anthropic", ANTHROPIC),
        ("gemini", GEMINI),
    ] {
        measure(name, stream, count_of(stream, "data:"), |stream, events| {
            let mut parser = Sse::new();
            for piece in stream.chunks(PIECE) {
                let _ = parser.push(piece, |event| count(event, events)).expect("events of some bytes");
            }
        });
    }
    measure("ollama-lines", OLLAMA, 1, |stream, events| {
        let mut parser = Ndjson::new();
        for piece in stream.chunks(PIECE) {
            let _ = parser.push(piece, |event| count(event, events)).expect("lines of some bytes");
        }
    });
}

/// How many lines begin so.
fn count_of(stream: &str, begin: &str) -> usize {
    stream.lines().filter(|line| line.starts_with(begin)).count()
}

fn count(event: FrameEvent<'_>, events: &mut usize) -> ControlFlow<()> {
    *events += std::hint::black_box(event.data).len().min(1);
    ControlFlow::Continue(())
}

/// Prints the speed of `pass` over a stream of so many events.
fn measure(name: &str, stream: &str, events: usize, pass: impl Fn(&[u8], &mut usize)) {
    let times = AT_LEAST.div_ceil(stream.len());
    let long = stream.repeat(times);
    let found = speed(&long, times * events, |count| pass(long.as_bytes(), count));
    report(name, stream.len() / events, found);
}

/// Millions of bytes per second.
fn speed(stream: &str, expected: usize, mut pass: impl FnMut(&mut usize)) -> f64 {
    let mut events = 0;
    pass(&mut events);
    assert_eq!(events, expected, "every event is handed out");
    let (started, mut bytes) = (Instant::now(), 0);
    while started.elapsed() < LASTS {
        pass(&mut events);
        bytes += stream.len();
    }
    bytes as f64 / started.elapsed().as_secs_f64() / 1e6
}

#[allow(clippy::print_stdout, reason = "a program that reports")]
fn report(name: &str, size: usize, speed: f64) {
    println!("sse {name}: {speed:.0} MB/s, {size} bytes per event");
}

const OPENAI: &str = "data: {\"id\":\"chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT\",\"object\":\"chat.completion.chunk\",\"created\":1741569952,\"model\":\"gpt-4o-2024-08-06\",\"service_tier\":\"default\",\"system_fingerprint\":\"fp_50cad350e4\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\" the workspace\"},\"logprobs\":null,\"finish_reason\":null}]}\n\n";
const ANTHROPIC: &str = "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\" the workspace\"}}\n\n";
const GEMINI: &str = "data: {\"candidates\": [{\"content\": {\"parts\": [{\"text\": \"The workspace holds a library of three crates, each of which has its own tests and its own documentation. The second one is where the parser lives; it reads events from a stream and hands each of them out as soon as it is whole.\"}],\"role\": \"model\"},\"index\": 0}],\"usageMetadata\": {\"promptTokenCount\": 214,\"candidatesTokenCount\": 48,\"totalTokenCount\": 262},\"modelVersion\": \"gemini-2.5-flash\",\"responseId\": \"Zk0Ya\"}\r\n\r\n";
const OLLAMA: &str = "{\"model\":\"llama3\",\"created_at\":\"2026-01-01T00:00:00.000000Z\",\"message\":{\"role\":\"assistant\",\"content\":\" the\"},\"done\":false}\n";
