//! Extraction of JSON objects from other text, in time linear in the length of the text.

use serde_json::{Map, Value};

/// An object and the position in its text.
pub(super) struct FoundObject {
    pub(super) end: usize,
    pub(super) start: usize,
    pub(super) map: Map<String, Value>,
}

/// Maximum number of malformed objects that are examined, from the end of the text.
const MAX_REPAIRED_OBJECTS: usize = 32;
/// Maximum depth of nested objects that are examined.
const MAX_DEPTH: u32 = 8;

/// Finds all objects of a text, ordered by their ends. Valid JSON is taken as it is; otherwise raw line ends inside
/// strings and commas before a closing brace are tolerated.
pub(super) fn find_objects(text: &str) -> Vec<FoundObject> {
    let mut found = strict_objects(text);
    found.extend(repaired_objects(text, &found));
    found.sort_by_key(|object| (object.end, std::cmp::Reverse(object.start)));
    found
}

/// Finds the valid objects. The parser stops at 128 levels, which bounds the cost of each start position.
fn strict_objects(text: &str) -> Vec<FoundObject> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(start) = text[at..].find('{').map(|offset| at + offset) {
        let mut values = serde_json::Deserializer::from_str(&text[start..]).into_iter::<Value>();
        match values.next() {
            Some(Ok(Value::Object(map))) => {
                at = start + values.byte_offset();
                found.push(FoundObject { start, end: at, map });
            }
            _ => at = start + 1,
        }
    }
    found
}

/// Finds objects with balanced braces (ignoring those in strings) that are valid once repaired.
fn repaired_objects(text: &str, strict: &[FoundObject]) -> Vec<FoundObject> {
    let mut found: Vec<FoundObject> = Vec::new();
    let fresh =
        |start: usize, end: usize| !strict.iter().any(|object| object.start < end && start < object.end);
    // Looked up here, since spans may be nested and a search in each would not be linear.
    let keys: Vec<usize> = text.match_indices("\"tool\"").map(|(at, _)| at).collect();
    let holds_key = |start: usize, end: usize| {
        keys.get(keys.partition_point(|at| *at < start)).is_some_and(|at| *at < end)
    };
    let candidates = balanced_spans(text)
        .into_iter()
        .rev()
        .filter(|&(start, end)| holds_key(start, end) && text[start + 1..].trim_start().starts_with('"'))
        .take(MAX_REPAIRED_OBJECTS);
    for (start, end) in candidates {
        let inside = found.iter().any(|object| object.start <= start && end <= object.end);
        if inside || !fresh(start, end) {
            continue;
        }
        if let Ok(Value::Object(map)) = serde_json::from_str(&repair_json(&text[start..end])) {
            found.push(FoundObject { start, end, map });
        }
    }
    found
}

/// Returns the balanced objects, ordered by their ends.
fn balanced_spans(text: &str) -> Vec<(usize, usize)> {
    let mut spans = Vec::new();
    let mut open = Vec::new();
    let (mut string, mut escaped) = (false, false);
    for (at, byte) in text.bytes().enumerate() {
        if string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => string = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => string = !open.is_empty(),
            b'{' => open.push(at),
            b'}' => spans.extend(open.pop().map(|start| (start, at + 1))),
            _ => {}
        }
    }
    spans
}

fn repair_json(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    let (mut string, mut escaped) = (false, false);
    for (at, c) in text.char_indices() {
        if string {
            match c {
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                c if c.is_ascii_control() => {}
                c => out.push(c),
            }
            match c {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                '"' => string = false,
                _ => {}
            }
        } else {
            string = c == '"';
            let dangling = c == ',' && text[at + 1..].trim_start().starts_with('}');
            if !dangling {
                out.push(c);
            }
        }
    }
    out
}

/// Returns the object itself if `wanted` accepts it, else the last nested object that it accepts.
pub(super) fn find_within<T>(
    map: &Map<String, Value>,
    wanted: &dyn Fn(&Map<String, Value>) -> Option<T>,
) -> Option<T> {
    search_object(map, wanted, MAX_DEPTH)
}

fn search_object<T>(
    map: &Map<String, Value>,
    wanted: &dyn Fn(&Map<String, Value>) -> Option<T>,
    depth: u32,
) -> Option<T> {
    if let Some(taken) = wanted(map) {
        return Some(taken);
    }
    if depth == 0 {
        return None;
    }
    map.values().rev().find_map(|value| match value {
        Value::Object(inner) => search_object(inner, wanted, depth - 1),
        Value::Array(items) => items.iter().rev().find_map(|item| match item {
            Value::Object(inner) => search_object(inner, wanted, depth - 1),
            _ => None,
        }),
        _ => None,
    })
}
