//! What keys of well-known services look like. No process needs to know a key to hide it by its looks.

use super::REDACTED;
use std::borrow::Cow;

/// The looks of a key: how it begins, what it goes on with, and how much of that there is at least.
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

/// The looks, longer heads before those that they begin with.
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
    // Tokens that carry claims (RFC 7519): three parts, of which the first begins like this.
    key_pattern("eyJ", is_dotted_word_byte, 60),
];

/// A text that is held back is not held back for longer than this, in bytes.
const MAX_KEY_LOOKBACK_BYTES: usize = 8 << 10;

/// Whether a byte stands within a word, so that no key begins after it.
pub(super) fn is_in_word(byte: u8) -> bool {
    is_word_byte(byte)
}

/// Whether a key can begin here: in the middle of a word none does.
fn at_boundary(bytes: &[u8], at: usize) -> bool {
    at == 0
        || !is_word_byte(bytes[at - 1])
        || ends_with_colour(&bytes[..at])
        || ends_with_escape(&bytes[..at])
}

/// Whether a text ends with an escape of JSON or of a URL, whose last letter belongs to no word.
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

/// Whether a text ends with a terminal's colour code, which ends with a letter and is no word.
fn ends_with_colour(bytes: &[u8]) -> bool {
    let Some(code) = bytes.strip_suffix(b"m") else { return false };
    let digits = code.iter().rev().take_while(|byte| byte.is_ascii_digit() || **byte == b';').count();
    code[..code.len() - digits].ends_with(b"\x1b[")
}

/// The end of the key that begins here.
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

/// Whether the text from here to its end could become a key with what follows.
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

/// Whether a byte is the first one of some key.
fn may_start_key(byte: u8) -> bool {
    matches!(byte, b's' | b'k' | b'g' | b'x' | b'A' | b'e')
}

/// The text without what looks like a key.
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

/// Where the end of the text begins that could become a key with what follows; its length if there is none.
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
