//! JSON output: the same values for programs, without characters that a terminal acts on.

use serde::Serialize;
use std::fmt::Write as _;

/// Formats a value on one line.
pub fn to_json_line<T: Serialize>(value: &T) -> serde_json::Result<String> {
    serde_json::to_string(value).map(|text| escape_json(&text))
}

/// Formats a value on several, indented lines.
pub fn to_pretty_json<T: Serialize>(value: &T) -> serde_json::Result<String> {
    serde_json::to_string_pretty(value).map(|text| escape_json(&text))
}

/// Escapes characters that a terminal acts on or that reorder text. In JSON they occur only in strings, so the value
/// stays the same.
///
/// Applies to all output, not only on terminals: the content of a file may be shown on a terminal later.
pub fn escape_json(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        if is_terminal_active(c) {
            // All of them are in the Basic Multilingual Plane, where one escape is enough.
            let _ = write!(out, "\\u{:04x}", u32::from(c));
        } else {
            out.push(c);
        }
    }
    out
}

/// Returns whether a terminal may act on a character: control characters that JSON does not escape itself, direction
/// marks, and line separators other than newline.
pub const fn is_terminal_active(c: char) -> bool {
    matches!(
        c,
        '\u{7f}'..='\u{9f}'
            | '\u{61c}'
            | '\u{200e}'
            | '\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2066}'..='\u{2069}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_stay_the_same_and_nothing_acts() {
        for code in 0..0x3000_u32 {
            let Some(c) = char::from_u32(code) else { continue };
            let value = serde_json::json!({ format!("k{c}"): [format!("a{c}b\\{c}")] });
            for text in [to_json_line(&value).expect("JSON"), to_pretty_json(&value).expect("JSON")] {
                assert!(!text.contains(is_terminal_active), "{code:x}");
                let back: serde_json::Value = serde_json::from_str(&text).expect("JSON");
                assert_eq!(back, value);
            }
        }
        assert_eq!(to_json_line(&"a\u{9b}b\u{202e}ä😀").expect("JSON"), r#""a\u009bb\u202eä😀""#);
    }
}
