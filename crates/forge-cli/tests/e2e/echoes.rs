//! A server that says back the key that it was sent, in pieces and in fields that nobody looks at; and commands in a sandbox
//! that print one.

use crate::floods::holding;
use crate::harness::{Done, KEY, World};
use crate::secrets::on_a_terminal;
use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};

/// A key of the proxy that does not look like one.
const PROXY_KEY: &str = "svc-KEY/9+proxy=value";

/// What one reply streams: the deltas, and why it ends.
type Streamed = (Vec<Value>, &'static str);

/// A server that answers one request after the other with these; it goes on until the test ends.
fn serve(replies: Vec<Streamed>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for ((deltas, finish), stream) in replies.iter().zip(listener.incoming().flatten()) {
            // Whoever asked may have gone.
            let _ = answer(stream, deltas, finish);
        }
    });
    address
}

fn answer(mut stream: TcpStream, deltas: &[Value], finish: &str) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let (mut line, mut length) = (String::new(), 0);
    while reader.read_line(&mut line)? > 2 {
        if let Some(count) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = count.trim().parse().unwrap_or(0);
        }
        line.clear();
    }
    reader.read_exact(&mut vec![0; length])?;
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n";
    stream.write_all(head.as_bytes())?;
    let mut send = |delta: &Value, finish: Option<&str>| {
        let choice = json!({"index": 0, "delta": delta, "finish_reason": finish});
        let usage = finish.map(|_| json!({"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}));
        let chunk = json!({"id": KEY, "object": "chat.completion.chunk", "created": 1, "model": format!("m-{KEY}"),
                           "choices": [choice], "usage": usage});
        stream.write_all(format!("data: {chunk}\n\n").as_bytes())
    };
    for delta in deltas {
        send(delta, None)?;
    }
    send(&json!({}), Some(finish))?;
    stream.write_all(b"data: [DONE]\n\n")
}

fn call(id: &str, arguments: &Value) -> Value {
    let function = json!({"name": "list_directory", "arguments": arguments.to_string()});
    json!({"tool_calls": [{"index": 0, "id": id, "type": "function", "function": function}]})
}

/// Runs a task against these replies; the key must be neither shown nor kept, by any command.
fn run_against(replies: Vec<Streamed>) -> (World, Done) {
    let mut world = World::new();
    let at = serve(replies);
    world.set("OPENAI_API_KEY", KEY).set("OPENAI_BASE_URL", &format!("http://{at}/v1"));
    let words = ["run", "Say it", "-v", "--provider", "openai", "--model", "tiny"];
    let done = world.forge(&words).exits(0);
    let run = world.only_run();
    let mut said = vec![done.out.clone(), done.err.clone()];
    for words in [&["logs", &run, "--json"][..], &["logs", &run], &["status", &run, "--json"]] {
        said.push(world.forge(words).exits(0).out);
    }
    for text in said {
        assert!(!text.contains(KEY), "{text}");
    }
    assert_eq!(holding(&world.path("data"), KEY.as_bytes()), Vec::<String>::new());
    (world, done)
}

#[test]
fn a_key_in_pieces_with_other_things_between_is_not_seen() {
    let (first, last) = KEY.split_at(9);
    let said = |text: &str| json!({"content": text});
    let thought = |text: &str| json!({"reasoning_content": text});
    let first_call = call("c1", &json!({"path": "."}));
    let replies = vec![
        (vec![said(first), first_call, said(last)], "tool_calls"),
        (vec![thought(first), said("So: "), thought(last), said(first), thought("hm"), said(last)], "stop"),
    ];
    let (_, done) = run_against(replies);
    assert!(done.out.contains("So: ***REDACTED***"), "{}", done.out);
}

#[test]
fn a_key_that_the_token_limit_cuts_in_two_is_not_seen() {
    for at in [3, 9, KEY.len() - 1] {
        let (first, last) = KEY.split_at(at);
        let long = "word ".repeat(2_000);
        let replies = vec![
            (vec![json!({"content": format!("{long}It is {first}")})], "length"),
            (vec![json!({"content": format!("{last}, so.")})], "stop"),
        ];
        let (_, done) = run_against(replies);
        let shown = done.out.lines().find(|line| line.contains("It is")).unwrap_or_default();
        assert!(shown.contains("***REDACTED***") && !shown.contains("9abcdef"), "{at}: {}", &shown[9_000..]);
    }
}

#[test]
fn fields_that_nobody_reads_keep_no_key_either() {
    let thoughts = json!({"reasoning_content": format!("The key is {KEY}.")});
    let id = format!("call_{KEY}");
    let replies = vec![
        (vec![thoughts, call(&id, &json!({"path": "."}))], "tool_calls"),
        (vec![call(&id, &json!({"path": "."}))], "tool_calls"),
        (vec![json!({"content": "Done."})], "stop"),
    ];
    let (world, done) = run_against(replies);
    assert!(done.out.contains("Done."), "{}", done.out);
    // Both calls were run, each with its own result.
    assert_eq!(world.tools(&world.only_run()), ["list_directory:true", "list_directory:true"]);
}

/// A world whose proxy has a key, and which has a file with it.
fn proxied() -> World {
    let mut world = World::new();
    world.set("FORGE_EGRESS_ALLOWED_DOMAINS", "example.test");
    world.set("FORGE_EGRESS_KEYS", "example.test=SVC_KEY").set("SVC_KEY", PROXY_KEY);
    let evil = "\u{1b}]52;c;eA==\u{7}\u{9b}2J\u{202e}";
    world.file("said", &format!("{PROXY_KEY} {KEY}0123456789 {evil}ä\n"));
    world
}

const CAT: [&str; 6] = ["sandbox", "exec", "--", "sh", "-c", "cat said; cat said >&2; printf '\\377%s' ä"];

#[test]
fn a_pipe_gets_the_bytes_of_a_command_but_for_loaded_keys() {
    let world = proxied();
    let command = world.command(&CAT).output().expect("it runs");
    let whole = std::fs::read_to_string(world.repo().join("said")).expect("the file");
    let expected = whole.replace(PROXY_KEY, "***REDACTED***");
    assert_eq!(command.stdout, [expected.as_bytes(), b"\xff", "ä".as_bytes()].concat());
    assert!(String::from_utf8_lossy(&command.stderr).contains(&expected));
    let json = [&["--json"], &CAT[..]].concat();
    let said = world.forge(&json).exits(0);
    assert!(!said.out.contains(PROXY_KEY) && !said.out.contains("0123456789"), "{}", said.out);
    assert!(said.json()["stdout"].as_str().expect("a text").starts_with("***REDACTED*** ***REDACTED***"));
}

#[test]
fn a_terminal_shows_what_a_command_printed_and_obeys_none_of_it() {
    let world = proxied();
    let line = "forge sandbox exec -- cat said";
    let Some((code, shown)) = on_a_terminal(&world, line, &[]) else { return };
    assert_eq!(code, 0, "{shown}");
    let printed = shown.lines().find(|line| line.contains("***REDACTED***")).expect("the line");
    assert!(printed.contains("***REDACTED*** ***REDACTED***") && printed.ends_with('ä'), "{printed:?}");
    assert!(!printed.contains(['\u{1b}', '\u{7}', '\u{9b}', '\u{202e}']), "{printed:?}");
    assert!(!shown.contains(PROXY_KEY), "{shown}");
}
