//! The stream parsers against arbitrary borders.

use std::ops::ControlFlow;

use forge_models::sse::{Ndjson, Sse};
use proptest::prelude::*;

type Events = Vec<(Vec<u8>, Vec<u8>)>;

fn sse(pieces: &[&[u8]]) -> Events {
    let mut parser = Sse::new();
    let mut events = Vec::new();
    for piece in pieces {
        let flow = parser.push(piece, |event| {
            events.push((event.name.to_vec(), event.data.to_vec()));
            ControlFlow::<()>::Continue(())
        });
        assert!(flow.unwrap().is_continue());
    }
    events
}

fn lines(pieces: &[&[u8]]) -> (Vec<Vec<u8>>, Option<Vec<u8>>) {
    let mut splitter = Ndjson::new();
    let mut found = Vec::new();
    for piece in pieces {
        let flow = splitter.push(piece, |event| {
            found.push(event.data.to_vec());
            ControlFlow::<()>::Continue(())
        });
        assert!(flow.unwrap().is_continue());
    }
    let rest = splitter.last_line().map(|event| event.data.to_vec());
    (found, rest)
}

/// `bytes` in pieces that end at `cuts` (taken modulo the length).
fn cut<'a>(bytes: &'a [u8], cuts: &[usize]) -> Vec<&'a [u8]> {
    let mut ends: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
    ends.push(bytes.len());
    ends.sort_unstable();
    let mut at = 0;
    ends.into_iter()
        .map(|end| {
            let piece = &bytes[at..end];
            at = end;
            piece
        })
        .collect()
}

/// The standard's algorithm on the whole text, written the slow and plain way.
fn reference(text: &str) -> Events {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let unified = text.replace("\r\n", "\n").replace('\r', "\n");
    let mut events = Events::new();
    let (mut name, mut data): (String, Option<String>) = Default::default();
    let mut lines: Vec<&str> = unified.split('\n').collect();
    lines.pop(); // what follows the last line end is no line yet
    for line in lines {
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            _ if line.is_empty() => {
                if let Some(data) = data.take() {
                    events.push((name.clone().into_bytes(), data.into_bytes()));
                }
                name.clear();
            }
            "data" => match &mut data {
                Some(whole) => whole.push_str(&format!("\n{value}")),
                None => data = Some(value.to_owned()),
            },
            "event" => value.clone_into(&mut name),
            _ => {}
        }
    }
    events
}

/// Texts made of what matters to the grammar, and of characters of several bytes.
fn streams() -> impl Strategy<Value = String> {
    let token = prop_oneof![
        Just("data:"),
        Just("data: "),
        Just("event: "),
        Just("event:x"),
        Just(":"),
        Just(": keep-alive"),
        Just("id: 7"),
        Just("\n"),
        Just("\r"),
        Just("\r\n"),
        Just("\n\n"),
        Just("{\"a\":1}"),
        Just("ü世🌍"),
        Just(" "),
        Just("dat"),
        Just("\u{feff}"),
    ];
    proptest::collection::vec(token, 0..40).prop_map(|tokens| tokens.concat())
}

proptest! {
    #[test]
    fn borders_of_pieces_mean_nothing(text in streams(), cuts in proptest::collection::vec(any::<usize>(), 0..12)) {
        let bytes = text.as_bytes();
        prop_assert_eq!(sse(&cut(bytes, &cuts)), reference(&text));
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        prop_assert_eq!(sse(&single), reference(&text));
    }

    #[test]
    fn lines_are_the_same_however_they_come(text in streams(), cuts in proptest::collection::vec(any::<usize>(), 0..12)) {
        prop_assert_eq!(lines(&cut(text.as_bytes(), &cuts)), lines(&[text.as_bytes()]));
    }

    #[test]
    fn any_bytes_at_all_are_taken(bytes in proptest::collection::vec(any::<u8>(), 0..300), cuts in proptest::collection::vec(any::<usize>(), 0..6)) {
        prop_assert_eq!(sse(&cut(&bytes, &cuts)), sse(&[&bytes]));
    }
}

#[test]
fn events_with_names_many_lines_and_comments() {
    let events =
        sse(&[b": hi\nevent: a\ndata: 1\ndata:2\nid: x\n\ndata\n\n\nevent: lost\n\ndata: unfinished\n"]);
    assert_eq!(events, [(b"a".to_vec(), b"1\n2".to_vec()), (b"".to_vec(), b"".to_vec())]);
}

#[test]
fn a_parser_stops_when_told() {
    let mut parser = Sse::new();
    let mut seen = 0;
    let flow = parser.push(b"data: 1\n\ndata: 2\n\n", |_| {
        seen += 1;
        ControlFlow::Break(7)
    });
    assert_eq!((flow.unwrap(), seen), (ControlFlow::Break(7), 1));
}

#[test]
fn the_last_line_of_ndjson_needs_no_end() {
    let (found, rest) = lines(&[b"{\"a\":1}\r\n\n  \n{\"b\"", b":2}"]);
    assert_eq!(found, [b"{\"a\":1}".to_vec()]);
    assert_eq!(rest.unwrap(), b"{\"b\":2}");
}
