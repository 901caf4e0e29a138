//! YAML: values with their lines.
//!
//! The parser gives values without places, so lines come from a scan of our own that knows block mappings by their
//! indentation. It is used for messages only; what it does not find has the line of the nearest section above.

use super::{Leaf, SyntaxFault, join};
use crate::schema::Raw;
use serde_norway::Value;
use std::collections::BTreeMap;

/// The values of a YAML text.
pub(crate) fn leaves(text: &str) -> Result<Vec<Leaf>, SyntaxFault> {
    let value: Value = serde_norway::from_str(text).map_err(|error| SyntaxFault {
        line: error.location().map_or(0, |place| place.line()),
        problem: error.to_string(),
    })?;
    let lines = lines(text);
    let mut out = Vec::new();
    match &value {
        Value::Null => {}
        Value::Mapping(_) => walk(&value, "", 0, &lines, &mut out),
        other => {
            let problem = format!("expected `key: value` lines, found {}", raw(other).shown());
            return Err(SyntaxFault { line: 1, problem });
        }
    }
    Ok(out)
}

fn walk(value: &Value, prefix: &str, line: usize, lines: &BTreeMap<String, usize>, out: &mut Vec<Leaf>) {
    let Value::Mapping(mapping) = value else {
        out.push(Leaf { path: prefix.to_owned(), line, raw: raw(value) });
        return;
    };
    for (name, inner) in mapping {
        let name = match name {
            Value::String(name) => name.clone(),
            Value::Number(number) => number.to_string(),
            Value::Bool(value) => value.to_string(),
            _ => "?".to_owned(),
        };
        let path = join(prefix, &name);
        let line = lines.get(&path).copied().unwrap_or(line);
        walk(inner, &path, line, lines, out);
    }
}

fn raw(value: &Value) -> Raw {
    match value {
        Value::Null => Raw::Null,
        Value::Bool(value) => Raw::Bool(*value),
        Value::Number(number) => match (number.as_u64(), number.as_i64(), number.as_f64()) {
            (Some(number), ..) => Raw::Int(i128::from(number)),
            (None, Some(number), _) => Raw::Int(i128::from(number)),
            (None, None, Some(number)) => Raw::Float(number),
            (None, None, None) => Raw::Other("a number out of range"),
        },
        Value::String(text) => Raw::Text(text.clone()),
        Value::Sequence(items) => Raw::List(items.iter().map(raw).collect()),
        Value::Mapping(fields) => {
            let name = |name: &Value| name.as_str().unwrap_or("?").to_owned();
            Raw::Table(fields.iter().map(|(field, value)| (name(field), raw(value))).collect())
        }
        Value::Tagged(_) => Raw::Other("a tagged value"),
    }
}

/// The line, from 1, of every key of a block mapping.
fn lines(text: &str) -> BTreeMap<String, usize> {
    keys(text).into_iter().map(|key| (key.path, key.line)).rev().collect()
}

/// A `key:` line of a block mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeyLine {
    /// The path of the key.
    pub path: String,
    /// Its line, from 1.
    pub line: usize,
    /// Spaces in front of it.
    pub indent: usize,
    /// Where in the line its value starts, behind the colon.
    pub value_at: usize,
}

/// Every `key:` line. Lines of block texts may be among them; their paths lie below a key that holds no mapping.
pub(crate) fn keys(text: &str) -> Vec<KeyLine> {
    let mut open: Vec<(usize, String)> = Vec::new();
    let mut out = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let body = line.trim_start_matches(' ');
        let indent = line.len() - body.len();
        let Some((name, after)) = key_of(body) else { continue };
        while open.last().is_some_and(|(outer, _)| *outer >= indent) {
            open.pop();
        }
        let path = join(open.last().map_or("", |(_, path)| path.as_str()), name);
        out.push(KeyLine { path: path.clone(), line: number + 1, indent, value_at: indent + after });
        open.push((indent, path));
    }
    out
}

/// The key that a line starts with, and where its value starts.
fn key_of(body: &str) -> Option<(&str, usize)> {
    let (name, after) = match body.chars().next()? {
        quote @ ('"' | '\'') => {
            let end = body[1..].find(quote)? + 1;
            (&body[1..end], end + 1)
        }
        '#' | '-' => return None,
        _ => {
            let end = body.find(':')?;
            (&body[..end], end)
        }
    };
    let rest = body[after..].strip_prefix(':')?;
    (rest.is_empty() || rest.starts_with([' ', '\t'])).then_some((name.trim_end(), after + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_found_in_block_mappings() {
        let text = "# top\nagent:\n  max_iterations: 3 # few\n\n  \"on_limit\": end\nmodel: {name: x}\n";
        let found = leaves(text).unwrap();
        let at = |path: &str| found.iter().find(|leaf| leaf.path == path).map(|leaf| leaf.line);
        assert_eq!(at("agent.max_iterations"), Some(3));
        assert_eq!(at("agent.on_limit"), Some(5));
        assert_eq!(at("model.name"), Some(6));
    }
}
