//! JSON output: the same values for programs, without characters that a terminal acts on.

use forge_redact::{Redactor, StreamRedactor};
use serde::Serialize;
use std::fmt::Write as _;
use std::io::{self, BufWriter, Write};

/// Maximum number of bytes of JSON that are redacted and escaped at once.
const MAX_PART_BYTES: usize = 64 << 10;

/// Formats a value on one line.
pub fn to_json_line<T: Serialize>(value: &T) -> serde_json::Result<String> {
    serde_json::to_string(value).map(|text| escape_json(&text))
}

/// Formats a value on several, indented lines.
pub fn to_pretty_json<T: Serialize>(value: &T) -> serde_json::Result<String> {
    serde_json::to_string_pretty(value).map(|text| escape_json(&text))
}

/// Writes a value on several, indented lines, without texts that look like a key. The value is never in memory as text,
/// because a diff is large.
pub fn write_pretty_json<T: Serialize>(out: impl Write, value: &T) -> io::Result<()> {
    let mut parts = PartWriter { out, partial_char: Vec::new(), keys: StreamRedactor::default() };
    let mut whole = BufWriter::with_capacity(MAX_PART_BYTES, &mut parts);
    serde_json::to_writer_pretty(&mut whole, value)?;
    whole.flush()?;
    drop(whole);
    parts.finish()
}

/// A writer of JSON that redacts and escapes it in parts.
struct PartWriter<W> {
    out: W,
    /// The beginning of an incomplete character.
    partial_char: Vec<u8>,
    keys: StreamRedactor,
}

impl<W: Write> PartWriter<W> {
    fn finish(mut self) -> io::Result<()> {
        let rest = self.keys.flush(&Redactor::default());
        self.out.write_all(escape_json(&rest).as_bytes())?;
        self.out.write_all(b"\n")?;
        self.out.flush()
    }
}

impl<W: Write> Write for PartWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = &bytes[..bytes.len().min(MAX_PART_BYTES)];
        self.partial_char.extend_from_slice(taken);
        let valid = match std::str::from_utf8(&self.partial_char) {
            Ok(text) => text.len(),
            Err(error) => error.valid_up_to(),
        };
        let rest = self.partial_char.split_off(valid);
        let text = String::from_utf8(std::mem::replace(&mut self.partial_char, rest));
        let shown = self.keys.push(&Redactor::default(), &text.map_err(io::Error::other)?);
        self.out.write_all(escape_json(&shown).as_bytes())?;
        Ok(taken.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
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
            let mut written = Vec::new();
            write_pretty_json(&mut written, &value).expect("JSON");
            let written = String::from_utf8(written).expect("text");
            assert_eq!(written, to_pretty_json(&value).expect("JSON") + "\n");
            for text in [to_json_line(&value).expect("JSON"), written] {
                assert!(!text.contains(is_terminal_active), "{code:x}");
                let back: serde_json::Value = serde_json::from_str(&text).expect("JSON");
                assert_eq!(back, value);
            }
        }
        // Characters and keys at the boundary of two parts.
        for at in 0..48 {
            let key = format!("ghp_{}", "a1".repeat(20));
            let text = format!("{}{key} ä😀{}", "-".repeat(MAX_PART_BYTES - at), "ä".repeat(MAX_PART_BYTES));
            let mut written = Vec::new();
            write_pretty_json(&mut written, &text).expect("JSON");
            let back: String = serde_json::from_slice(&written).expect("JSON");
            assert_eq!(back, text.replace(&key, forge_redact::REDACTED), "{at}");
        }
        assert_eq!(to_json_line(&"a\u{9b}b\u{202e}ä😀").expect("JSON"), r#""a\u009bb\u202eä😀""#);
    }
}
