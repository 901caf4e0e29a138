//! What keys of well-known services look like. No process needs to know a key to hide it by its looks.

use super::REDACTED;
use std::borrow::Cow;

/// The looks of a key: how it begins, what it goes on with, and how much of that there is at least.
struct Look {
    head: &'static str,
    body: fn(u8) -> bool,
    least: usize,
}

const fn look(head: &'static str, body: fn(u8) -> bool, least: usize) -> Look {
    Look { head, body, least }
}

fn letters(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
}

fn words(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

fn dashed(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-'
}

fn dotted(byte: u8) -> bool {
    dashed(byte) || byte == b'.'
}

fn capitals(byte: u8) -> bool {
    byte.is_ascii_uppercase() || byte.is_ascii_digit()
}

/// The looks, longer heads before those that they begin with.
const LOOKS: &[Look] = &[
    look("sk-ant-", dashed, 20),
    look("sk-proj-", dashed, 20),
    look("sk-", dashed, 20),
    look("key-", letters, 20),
    look("ghp_", letters, 36),
    look("ghs_", letters, 36),
    look("gho_", letters, 36),
    look("ghu_", letters, 36),
    look("ghr_", letters, 36),
    look("github_pat_", words, 22),
    look("glpat-", dashed, 20),
    look("xoxb-", dashed, 10),
    look("xoxp-", dashed, 10),
    look("AKIA", capitals, 16),
    look("AIza", dashed, 35),
    // Tokens that carry claims (RFC 7519): three parts, of which the first begins like this.
    look("eyJ", dotted, 60),
];

/// A text that is held back is not held back for longer than this, in bytes.
const LONGEST: usize = 8 << 10;

/// Whether a byte stands within a word, so that no key begins after it.
pub(super) fn in_word(byte: u8) -> bool {
    words(byte)
}

/// Whether a key can begin here: in the middle of a word none does.
fn at_boundary(bytes: &[u8], at: usize) -> bool {
    at == 0 || !words(bytes[at - 1]) || after_colour(&bytes[..at]) || after_escape(&bytes[..at])
}

/// Whether a text ends with an escape of JSON or of a URL, whose last letter belongs to no word.
fn after_escape(bytes: &[u8]) -> bool {
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
fn after_colour(bytes: &[u8]) -> bool {
    let Some(code) = bytes.strip_suffix(b"m") else { return false };
    let digits = code.iter().rev().take_while(|byte| byte.is_ascii_digit() || **byte == b';').count();
    code[..code.len() - digits].ends_with(b"\x1b[")
}

/// The end of the key that begins here.
fn end_of(bytes: &[u8], at: usize) -> Option<usize> {
    if !at_boundary(bytes, at) {
        return None;
    }
    let rest = &bytes[at..];
    LOOKS.iter().find_map(|look| {
        let body = rest.strip_prefix(look.head.as_bytes())?;
        let length = body.iter().take_while(|byte| (look.body)(**byte)).count();
        (length >= look.least).then_some(at + look.head.len() + length)
    })
}

/// Whether the text from here to its end could become a key with what follows.
fn is_open(bytes: &[u8], at: usize) -> bool {
    let rest = &bytes[at..];
    at_boundary(bytes, at)
        && LOOKS.iter().any(|look| {
            let head = look.head.as_bytes();
            match rest.strip_prefix(head) {
                Some(body) => body.iter().all(|byte| (look.body)(*byte)),
                None => head.starts_with(rest),
            }
        })
}

/// Whether a byte is the first one of some key.
fn begins(byte: u8) -> bool {
    matches!(byte, b's' | b'k' | b'g' | b'x' | b'A' | b'e')
}

/// The text without what looks like a key.
pub fn without_keys(text: &str) -> Cow<'_, str> {
    let bytes = text.as_bytes();
    let mut clean = String::new();
    let (mut kept, mut at) = (0, 0);
    while at < bytes.len() {
        match begins(bytes[at]).then(|| end_of(bytes, at)).flatten() {
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
pub(super) fn open_at(text: &str) -> usize {
    let bytes = text.as_bytes();
    let run = bytes.iter().rev().take(LONGEST).take_while(|byte| dotted(**byte)).count();
    (bytes.len() - run..bytes.len()).find(|at| is_open(bytes, *at)).unwrap_or(bytes.len())
}
