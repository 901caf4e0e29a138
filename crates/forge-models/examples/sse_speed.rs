//! How fast streams are taken apart: MB/s on one core, for streams as the vendors send them.
//!
//! `cargo run --release --package forge-models --example sse_speed` prints one line per stream: its name, bytes per
//! event, and the speed of the framing alone. Printed, never asserted.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use forge_models::sse::{Event, Ndjson, Sse};

/// How long each stream is measured.
const LASTS: Duration = Duration::from_millis(700);
/// What a read from a socket gives at most.
const PIECE: usize = 16 << 10;

fn main() {
    for (name, event) in [("openai-chat", OPENAI), ("anthropic", ANTHROPIC), ("gemini", GEMINI)] {
        let stream = event.repeat(2_000);
        report(
            name,
            event,
            speed(&stream, |events| {
                let mut parser = Sse::new();
                for piece in stream.as_bytes().chunks(PIECE) {
                    let _ = parser.push(piece, |event| count(event, events)).expect("events of some bytes");
                }
            }),
        );
    }
    let stream = OLLAMA.repeat(2_000);
    report(
        "ollama-lines",
        OLLAMA,
        speed(&stream, |events| {
            let mut parser = Ndjson::new();
            for piece in stream.as_bytes().chunks(PIECE) {
                let _ = parser.push(piece, |event| count(event, events)).expect("lines of some bytes");
            }
        }),
    );
}

fn count(event: Event<'_>, events: &mut usize) -> ControlFlow<()> {
    *events += std::hint::black_box(event.data).len().min(1);
    ControlFlow::Continue(())
}

/// Millions of bytes per second.
fn speed(stream: &str, mut pass: impl FnMut(&mut usize)) -> f64 {
    let mut events = 0;
    pass(&mut events);
    assert_eq!(events, 2_000, "every event is handed out");
    let (started, mut bytes) = (Instant::now(), 0);
    while started.elapsed() < LASTS {
        pass(&mut events);
        bytes += stream.len();
    }
    bytes as f64 / started.elapsed().as_secs_f64() / 1e6
}

#[allow(clippy::print_stdout, reason = "a program that reports")]
fn report(name: &str, event: &str, speed: f64) {
    println!("sse {name}: {speed:.0} MB/s, {} bytes per event", event.len());
}

const OPENAI: &str = "data: {\"id\":\"chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT\",\"object\":\"chat.completion.chunk\",\"created\":1741569952,\"model\":\"gpt-4o-2024-08-06\",\"service_tier\":\"default\",\"system_fingerprint\":\"fp_50cad350e4\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\" the workspace\"},\"logprobs\":null,\"finish_reason\":null}]}\n\n";
const ANTHROPIC: &str = "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\" the workspace\"}}\n\n";
const GEMINI: &str = "data: {\"candidates\": [{\"content\": {\"parts\": [{\"text\": \"The workspace holds a library of three crates, each of which has its own tests and its own documentation. The second one is where the parser lives; it reads events from a stream and hands each of them out as soon as it is whole.\"}],\"role\": \"model\"},\"index\": 0}],\"usageMetadata\": {\"promptTokenCount\": 214,\"candidatesTokenCount\": 48,\"totalTokenCount\": 262},\"modelVersion\": \"gemini-2.5-flash\",\"responseId\": \"Zk0Ya\"}\r\n\r\n";
const OLLAMA: &str = "{\"model\":\"llama3\",\"created_at\":\"2026-01-01T00:00:00.000000Z\",\"message\":{\"role\":\"assistant\",\"content\":\" the\"},\"done\":false}\n";
