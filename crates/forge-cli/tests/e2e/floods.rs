//! However much a command or a model's server says, Forge holds and prints only so much of it, and no key.

use crate::harness::{KEY, World};
use crate::watched::watch;
use forge_testkit::model_server::{MockReply, ModelServer, ReplyFault, ReplyScript, VendorFormat};
use serde_json::json;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;

/// Commands that do not stop by themselves, each cut after so many bytes.
const FLOODS: [&str; 6] = [
    "yes | head -c 3000000",
    "head -c 3000000 /dev/zero | tr '\\0' x",
    "yes \"$(printf '\\033[2J\\033]0;t\\007')\" | head -c 1000000",
    "head -c 1000000 /dev/urandom",
    "yes sk-sk-sk-sk-AKIAghp_ | head -c 1000000 >&2",
    "yes | head -c 1000000 & yes no | head -c 1000000 >&2; wait",
];

#[test]
fn a_flood_from_a_command_is_bounded_in_every_form_of_output() {
    for format in [&[][..], &["--json"], &["--output-format", "jsonl"]] {
        let mut world = World::new();
        let server = ModelServer::start(ReplyScript::always(|call| match FLOODS.get(call.turn_index()) {
            Some(flood) => MockReply::text("More.").and_call("c", "run_shell", json!({"command": flood})),
            None => MockReply::text("Done."),
        }));
        let words = [&["run", "Flood me"][..], format, &world.uses(&server, VendorFormat::OpenAi)].concat();
        let ended = watch(world.command(&words), &words, "");
        assert_eq!(ended.faults(), Vec::<String>::new());
        assert_eq!(ended.code, Some(0), "{}", ended.err);
        let bytes = ended.out.len() + ended.err.len();
        assert!(bytes < 4 << 20, "{format:?}: {bytes} bytes");
        assert_eq!(server.model_calls().len(), FLOODS.len() + 1);
    }
}

#[test]
fn a_program_that_floods_is_bounded_too() {
    let world = World::new();
    world.file("flood.py", "while True:\n    print('x' * 100000)\n");
    let words = ["sandbox", "exec", "--code", "flood.py", "--timeout", "2"];
    let ended = watch(world.command(&words), &words, "");
    assert_eq!(ended.faults(), Vec::<String>::new());
}

#[test]
fn an_endless_stream_of_events_is_bounded() {
    let mut world = World::new();
    world.set("FORGE_MODEL_TIMEOUT_SECONDS", "2").set("FORGE_RUNTIME_MAX_PIPELINE_DURATION_MS", "10000");
    let server =
        ModelServer::start(ReplyScript::always(|_| MockReply::text("More.").with_fault(ReplyFault::Endless)));
    let words = [&["run", "x"][..], &world.uses(&server, VendorFormat::OpenAi)].concat();
    let ended = watch(world.command(&words), &words, "");
    assert_eq!(ended.faults(), Vec::<String>::new());
    assert_ne!(ended.code, Some(0), "no answer came to an end");
}

/// Answers of a server that says back the key it was sent, beside what a terminal would obey.
const ANSWERS: [(&str, &str, &str); 6] = [
    ("401 No", "Content-Type: application/json", "{\"error\":{\"message\":\"wrong key @KEY@ @EVIL@\"}}"),
    ("400 Bad", "Content-Type: text/plain", "@EVIL@ Authorization: Bearer @KEY@ @EVIL@"),
    ("200 OK", "Content-Type: text/html", "<title>@KEY@</title>@EVIL@"),
    ("403 No", "Content-Type: application/json", "{\"error\":{\"message\":\"@ENDLESS@\"}}"),
    ("404 No", "Content-Type: text/plain", "@ENDLESS@"),
    ("302 Found", "Location: http://@ELSEWHERE@/@KEY@", ""),
];

#[test]
fn no_answer_of_a_server_shows_the_key_or_fills_the_memory() {
    let elsewhere = TcpListener::bind("127.0.0.1:0").expect("a port");
    elsewhere.set_nonblocking(true).expect("a socket");
    let other = elsewhere.local_addr().expect("an address");
    for (status, header, body) in ANSWERS {
        let mut world = World::new();
        let at = serve(status, header, body, other);
        world.set("FORGE_MODEL_TIMEOUT_SECONDS", "5").set("FORGE_MODEL_MAX_RETRIES", "1");
        world.set("FORGE_RUNTIME_MAX_PIPELINE_DURATION_MS", "20000");
        world.set("OPENAI_API_KEY", KEY).set("OPENAI_BASE_URL", &format!("http://{at}/v1"));
        let words = ["run", "x", "-v", "--provider", "openai", "--model", "tiny"];
        let ended = watch(world.command(&words), &words, "");
        assert_eq!(ended.faults(), Vec::<String>::new(), "{status}");
        assert_ne!(ended.code, Some(0), "{status}");
        let said = format!("{}{}", ended.out, ended.err);
        assert!(!said.contains(KEY), "{status}: {said}");
        assert!(!said.contains(['\u{1b}', '\u{7}', '\u{9b}', '\u{202e}']), "{status}: {said:?}");
        let kept = holding(&world.path("data"), KEY.as_bytes());
        assert_eq!(kept, Vec::<String>::new(), "{status}");
    }
    assert!(elsewhere.accept().is_err(), "a redirection was followed with a key in it");
}

/// A server that gives every request this answer; it goes on until the test ends.
fn serve(status: &'static str, header: &'static str, body: &'static str, other: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // Whoever asked may have gone.
            std::thread::spawn(move || drop(answer(stream, status, header, body, other)));
        }
    });
    address
}

fn answer(
    mut stream: TcpStream,
    status: &str,
    header: &str,
    body: &str,
    other: SocketAddr,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let (mut line, mut key, mut length) = (String::new(), String::new(), 0);
    while reader.read_line(&mut line)? > 2 {
        let lower = line.to_ascii_lowercase();
        if lower.starts_with("authorization:") {
            key = line.rsplit(' ').next().unwrap_or_default().trim().to_owned();
        }
        if let Some(count) = lower.strip_prefix("content-length:") {
            length = count.trim().parse().unwrap_or(0);
        }
        line.clear();
    }
    reader.read_exact(&mut vec![0; length])?;
    let put = |text: &str| {
        let evil = "\u{1b}]0;owned\u{7}\u{1b}[2J\u{9b}2J\u{202e}";
        text.replace("@KEY@", &key).replace("@EVIL@", evil).replace("@ELSEWHERE@", &other.to_string())
    };
    write!(stream, "HTTP/1.1 {status}\r\n{}\r\nConnection: close\r\n\r\n", put(header))?;
    let (start, rest) =
        body.split_once("@ENDLESS@").map_or((body, None), |(start, rest)| (start, Some(rest)));
    stream.write_all(put(start).as_bytes())?;
    let piece = format!("{key} ").repeat(2_000);
    while rest.is_some() {
        stream.write_all(piece.as_bytes())?;
    }
    Ok(())
}

/// Files below a directory that hold these bytes.
pub(crate) fn holding(top: &Path, bytes: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    let mut todo = vec![top.to_owned()];
    while let Some(path) = todo.pop() {
        let Ok(meta) = path.symlink_metadata() else { continue };
        if meta.is_dir() {
            todo.extend(std::fs::read_dir(&path).into_iter().flatten().flatten().map(|entry| entry.path()));
        } else if meta.is_file() {
            let content = std::fs::read(&path).unwrap_or_default();
            if content.windows(bytes.len()).any(|window| window == bytes) {
                found.push(path.display().to_string());
            }
        }
    }
    found
}
