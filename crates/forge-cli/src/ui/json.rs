//! JSON as it is printed: the same values for programs, and nothing in it that a terminal acts on.

use serde::Serialize;
use std::fmt::Write as _;

/// A value on one line.
pub(crate) fn to_json_line<T: Serialize>(value: &T) -> serde_json::Result<String> {
    serde_json::to_string(value).map(|text| escape_json(&text))
}

/// A value over several lines, indented for a person's eye.
pub(crate) fn to_pretty_json<T: Serialize>(value: &T) -> serde_json::Result<String> {
    serde_json::to_string_pretty(value).map(|text| escape_json(&text))
}

/// A JSON text in which characters that a terminal acts on, or that show a text in another order than it has, are
/// written as escapes. They can stand in strings only, so that the value is the same.
///
/// It is done always, not only for a terminal: what was written into a file is shown on one later.
pub(crate) fn escape_json(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        if is_terminal_active(c) {
            // All of them lie in the first plane, where one escape is enough.
            let _ = write!(out, "\\u{:04x}", u32::from(c));
        } else {
            out.push(c);
        }
    }
    out
}

/// Whether a terminal may act on a character: controls beyond those that JSON escapes itself, marks of direction, and
/// line ends that are no newline.
pub(crate) const fn is_terminal_active(c: char) -> bool {
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
