//! Patterns of keys of well-known services, by which a key can be redacted without being known to the process.

use super::REDACTED;
use std::borrow::Cow;

/// A key pattern: its head, the bytes allowed after it, and their minimum number.
struct KeyPattern {
    head: &'static str,
    body: fn(u8) -> bool,
    least: usize,
}

const fn key_pattern(head: &'static str, body: fn(u8) -> bool, least: usize) -> KeyPattern {
    KeyPattern { head, body, least }
}

fn is_alphanumeric(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
}

fn is_word_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

fn is_dashed_word_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-'
}

fn is_dotted_word_byte(byte: u8) -> bool {
    is_dashed_word_byte(byte) || byte == b'.'
}

fn is_upper_or_digit(byte: u8) -> bool {
    byte.is_ascii_uppercase() || byte.is_ascii_digit()
}

/// The patterns; a longer head comes before a head that is its prefix.
const KEY_PATTERNS: &[KeyPattern] = &[
    key_pattern("sk-ant-", is_dashed_word_byte, 20),
    key_pattern("sk-proj-", is_dashed_word_byte, 20),
    key_pattern("sk-", is_dashed_word_byte, 20),
    key_pattern("key-", is_alphanumeric, 20),
    key_pattern("ghp_", is_alphanumeric, 36),
    key_pattern("ghs_", is_alphanumeric, 36),
    key_pattern("gho_", is_alphanumeric, 36),
    key_pattern("ghu_", is_alphanumeric, 36),
    key_pattern("ghr_", is_alphanumeric, 36),
    key_pattern("github_pat_", is_word_byte, 22),
    key_pattern("glpat-", is_dashed_word_byte, 20),
    key_pattern("xoxb-", is_dashed_word_byte, 10),
    key_pattern("xoxp-", is_dashed_word_byte, 10),
    key_pattern("AKIA", is_upper_or_digit, 16),
    key_pattern("AIza", is_dashed_word_byte, 35),
    // Tokens with claims (RFC 7519): three parts, the first of which starts like this.
    key_pattern("eyJ", is_dotted_word_byte, 60),
];

/// Maximum number of bytes held back as a possible key.
const MAX_KEY_LOOKBACK_BYTES: usize = 8 << 10;

/// Returns whether a byte is part of a word, so that no key starts after it.
pub(super) fn is_in_word(byte: u8) -> bool {
    is_word_byte(byte)
}

/// Returns whether a key can start here, which is not possible inside a word.
fn at_boundary(bytes: &[u8], at: usize) -> bool {
    at == 0
        || !is_word_byte(bytes[at - 1])
        || ends_with_colour(&bytes[..at])
        || ends_with_escape(&bytes[..at])
}

/// Returns whether a text ends with an escape of JSON or of a URL; its last letter is not part of a word.
fn ends_with_escape(bytes: &[u8]) -> bool {
    let hex = |bytes: &[u8], digits: usize| bytes.iter().rev().take(digits).all(u8::is_ascii_hexdigit);
    match bytes {
        [.., b'\\', b'n' | b'r' | b't' | b'b' | b'f'] | [.., b'\\', b'u', _, _, _, _] | [.., b'%', _, _] => {
            let digits = match bytes {
                [.., b'\\', b'u', _, _, _, _] => 4,
                [.., b'%', _, _] => 2,
                _ => 0,
            };
            hex(bytes, digits)
        }
        _ => false,
    }
}

/// Returns whether a text ends with a terminal colour code, which ends with a letter but is not a word.
fn ends_with_colour(bytes: &[u8]) -> bool {
    let Some(code) = bytes.strip_suffix(b"m") else { return false };
    let digits = code.iter().rev().take_while(|byte| byte.is_ascii_digit() || **byte == b';').count();
    code[..code.len() - digits].ends_with(b"\x1b[")
}

/// Returns the end of the key that starts here.
fn key_end(bytes: &[u8], at: usize) -> Option<usize> {
    if !at_boundary(bytes, at) {
        return None;
    }
    let rest = &bytes[at..];
    KEY_PATTERNS.iter().find_map(|look| {
        let body = rest.strip_prefix(look.head.as_bytes())?;
        let length = body.iter().take_while(|byte| (look.body)(**byte)).count();
        (length >= look.least).then_some(at + look.head.len() + length)
    })
}

/// Returns whether the text from here to its end could become a key if more follows.
fn may_become_key(bytes: &[u8], at: usize) -> bool {
    let rest = &bytes[at..];
    at_boundary(bytes, at)
        && KEY_PATTERNS.iter().any(|look| {
            let head = look.head.as_bytes();
            match rest.strip_prefix(head) {
                Some(body) => body.iter().all(|byte| (look.body)(*byte)),
                None => head.starts_with(rest),
            }
        })
}

/// Returns whether some key starts with this byte.
fn may_start_key(byte: u8) -> bool {
    matches!(byte, b's' | b'k' | b'g' | b'x' | b'A' | b'e')
}

/// Redacts everything that looks like a key.
pub fn redact_keys(text: &str) -> Cow<'_, str> {
    let bytes = text.as_bytes();
    let mut clean = String::new();
    let (mut kept, mut at) = (0, 0);
    while at < bytes.len() {
        match may_start_key(bytes[at]).then(|| key_end(bytes, at)).flatten() {
            Some(end) => {
                clean.push_str(&text[kept..at]);
                clean.push_str(REDACTED);
                (kept, at) = (end, end);
            }
            None => at += 1,
        }
    }
    if kept == 0 {
        return Cow::Borrowed(text);
    }
    clean.push_str(&text[kept..]);
    Cow::Owned(clean)
}

/// Returns the start of a suffix that could become a key if more follows, or the length of the text if there is none.
pub(super) fn partial_key_start(text: &str) -> usize {
    let bytes = text.as_bytes();
    let run = bytes
        .iter()
        .rev()
        .take(MAX_KEY_LOOKBACK_BYTES)
        .take_while(|byte| is_dotted_word_byte(**byte))
        .count();
    (bytes.len() - run..bytes.len()).find(|at| may_become_key(bytes, *at)).unwrap_or(bytes.len())
}
