//! YAML: values with their lines.
//!
//! The parser does not report positions, so line numbers come from a separate scan that finds block mappings by their
//! indentation. They are used in messages only; a value that the scan does not find has the line of the nearest section
//! above.

use super::{ConfigLeaf, SyntaxError, join_path};
use crate::schema::RawSetting;
use serde_norway::Value;
use std::collections::BTreeMap;

/// Parses a YAML text into its values.
pub(crate) fn parse_yaml(text: &str) -> Result<Vec<ConfigLeaf>, SyntaxError> {
    let value: Value = serde_norway::from_str(text).map_err(|error| SyntaxError {
        line: error.location().map_or(0, |place| place.line()),
        problem: error.to_string(),
    })?;
    let lines = key_lines(text);
    let mut out = Vec::new();
    match &value {
        Value::Null => {}
        Value::Mapping(_) => walk_value(&value, "", 0, &lines, &mut out),
        other => {
            let problem = format!("expected `key: value` lines, found {}", raw_value(other).describe());
            return Err(SyntaxError { line: 1, problem });
        }
    }
    Ok(out)
}

fn walk_value(
    value: &Value,
    prefix: &str,
    line: usize,
    lines: &BTreeMap<String, usize>,
    out: &mut Vec<ConfigLeaf>,
) {
    let Value::Mapping(mapping) = value else {
        out.push(ConfigLeaf { path: prefix.to_owned(), line, raw: raw_value(value) });
        return;
    };
    for (name, inner) in mapping {
        let name = match name {
            Value::String(name) => name.clone(),
            Value::Number(number) => number.to_string(),
            Value::Bool(value) => value.to_string(),
            _ => "?".to_owned(),
        };
        let path = join_path(prefix, &name);
        let line = lines.get(&path).copied().unwrap_or(line);
        walk_value(inner, &path, line, lines, out);
    }
}

fn raw_value(value: &Value) -> RawSetting {
    match value {
        Value::Null => RawSetting::Null,
        Value::Bool(value) => RawSetting::Bool(*value),
        Value::Number(number) => match (number.as_u64(), number.as_i64(), number.as_f64()) {
            (Some(number), ..) => RawSetting::Int(i128::from(number)),
            (None, Some(number), _) => RawSetting::Int(i128::from(number)),
            (None, None, Some(number)) => RawSetting::Float(number),
            (None, None, None) => RawSetting::Other("a number out of range"),
        },
        Value::String(text) => RawSetting::Text(text.clone()),
        Value::Sequence(items) => RawSetting::List(items.iter().map(raw_value).collect()),
        Value::Mapping(fields) => {
            let name = |name: &Value| name.as_str().unwrap_or("?").to_owned();
            RawSetting::Table(fields.iter().map(|(field, value)| (name(field), raw_value(value))).collect())
        }
        Value::Tagged(_) => RawSetting::Other("a tagged value"),
    }
}

/// Returns the line number, from 1, of every key of a block mapping.
fn key_lines(text: &str) -> BTreeMap<String, usize> {
    scan_keys(text).into_iter().map(|key| (key.path, key.line)).rev().collect()
}

/// A `key:` line of a block mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeyLine {
    /// Path of the key.
    pub path: String,
    /// Line number, from 1.
    pub line: usize,
    /// Number of spaces before the key.
    pub indent: usize,
    /// Offset of the value in the line, after the colon.
    pub value_at: usize,
}

/// Finds every `key:` line. Lines of block texts may be among them; their paths lie below a key without a mapping.
pub(crate) fn scan_keys(text: &str) -> Vec<KeyLine> {
    let mut open: Vec<(usize, String)> = Vec::new();
    let mut out = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let body = line.trim_start_matches(' ');
        let indent = line.len() - body.len();
        let Some((name, after)) = split_key(body) else { continue };
        while open.last().is_some_and(|(outer, _)| *outer >= indent) {
            open.pop();
        }
        let path = join_path(open.last().map_or("", |(_, path)| path.as_str()), name);
        out.push(KeyLine { path: path.clone(), line: number + 1, indent, value_at: indent + after });
        open.push((indent, path));
    }
    out
}

/// Returns the key at the start of a line and the offset of its value.
fn split_key(body: &str) -> Option<(&str, usize)> {
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
        let found = parse_yaml(text).unwrap();
        let at = |path: &str| found.iter().find(|leaf| leaf.path == path).map(|leaf| leaf.line);
        assert_eq!(at("agent.max_iterations"), Some(3));
        assert_eq!(at("agent.on_limit"), Some(5));
        assert_eq!(at("model.name"), Some(6));
    }
}
