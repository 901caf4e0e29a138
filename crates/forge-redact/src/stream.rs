//! Redaction of text that arrives in pieces: a possible beginning of a secret is held back until more follows.

use super::{KnownSecrets, MIN_SECRET_BYTES, Redactor, patterns, redact_keys};

/// Maximum number of bytes held back, unless secrets are longer. Beyond it the text is passed on unchanged, so that no
/// output can make the buffer grow without limit.
const MAX_PENDING_BYTES: usize = 64 << 10;
/// Minimum expansion of a secret's length up to which its encodings are found.
const MIN_EXPANSION_FACTOR: usize = 8;

/// A redactor for text that arrives in pieces and is shown, never journalled.
#[derive(Clone, Debug, Default)]
pub struct StreamRedactor {
    pending: String,
    /// Whether the text shown last ends inside a word, so that no key starts there.
    in_word: bool,
}

/// Substitute for the word already shown; no key starts with it.
const WORD_PLACEHOLDER: &str = "a";

impl StreamRedactor {
    /// Adds text and returns the part that can be shown.
    pub fn push(&mut self, redactor: &Redactor, text: &str) -> String {
        self.pending.push_str(text);
        let known = redactor.known_secrets();
        if let Some(clean) = known.redact_text(&self.pending, true) {
            self.pending = clean;
        }
        let open = self.find_in_context(patterns::partial_key_start);
        let rest = self.pending.split_off(known.pending_start(&self.pending, open));
        let shown = self.redact_keys();
        self.in_word = self.pending.bytes().next_back().map_or(self.in_word, patterns::is_in_word);
        self.pending = rest;
        shown
    }

    /// Returns whether nothing is held back.
    pub fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// Returns the remaining text.
    pub fn flush(&mut self, redactor: &Redactor) -> String {
        // Nothing follows, so a partial match is not a secret.
        if let Some(clean) = redactor.known_secrets().redact_text(&self.pending, false) {
            self.pending = clean;
        }
        let shown = self.redact_keys();
        *self = Self::default();
        shown
    }

    fn redact_keys(&self) -> String {
        if self.in_word {
            let whole = format!("{WORD_PLACEHOLDER}{}", self.pending);
            redact_keys(&whole)[WORD_PLACEHOLDER.len()..].to_owned()
        } else {
            redact_keys(&self.pending).into_owned()
        }
    }

    fn find_in_context(&self, find: impl Fn(&str) -> usize) -> usize {
        if self.in_word {
            find(&format!("{WORD_PLACEHOLDER}{}", self.pending)) - WORD_PLACEHOLDER.len()
        } else {
            find(&self.pending)
        }
    }
}

impl KnownSecrets {
    /// Returns the start of the text to hold back; `open` is the start for another reason.
    fn pending_start(&self, text: &str, open: usize) -> usize {
        let from = self.partial_secret_start(text).min(open);
        if text.len() - from > self.max_pending_bytes() { text.len() } else { from }
    }

    /// Returns the maximum number of bytes that a stream holds back.
    pub(super) fn max_pending_bytes(&self) -> usize {
        MAX_PENDING_BYTES.max(self.forms.longest.saturating_mul(MIN_EXPANSION_FACTOR))
    }
}

/// A redactor for bytes that arrive in pieces and are passed on. Known values are redacted in the text among them;
/// everything else is unchanged, including texts that only look like a key.
#[derive(Debug, Default)]
pub struct ByteStreamRedactor {
    pending: String,
    /// The beginning of an incomplete character.
    partial_char: Vec<u8>,
}

impl ByteStreamRedactor {
    /// Adds bytes and returns those that can be passed on.
    pub fn push(&mut self, redactor: &Redactor, bytes: &[u8]) -> Vec<u8> {
        let known = redactor.known_secrets();
        if known.secrets.is_empty() && self.pending.is_empty() && self.partial_char.is_empty() {
            return bytes.to_owned();
        }
        let mut all = std::mem::take(&mut self.partial_char);
        all.extend_from_slice(bytes);
        let mut passed = Vec::with_capacity(all.len());
        let mut chunks = all.utf8_chunks().peekable();
        while let Some(chunk) = chunks.next() {
            let (text, other) = (chunk.valid(), chunk.invalid());
            if other.is_empty() {
                self.pending.push_str(text);
                self.emit_certain(&known, &mut passed);
            } else if chunks.peek().is_none() && is_partial_char(other) {
                self.pending.push_str(text);
                self.emit_certain(&known, &mut passed);
                self.partial_char = other.to_owned();
            } else {
                // Text this short between bytes that are not text contains no secret.
                if self.pending.len() + text.len() < MIN_SECRET_BYTES {
                    passed.append(&mut std::mem::take(&mut self.pending).into_bytes());
                    passed.extend_from_slice(text.as_bytes());
                } else {
                    self.pending.push_str(text);
                    self.emit_all(&known, &mut passed);
                }
                passed.extend_from_slice(other);
            }
        }
        passed
    }

    /// Returns the remaining bytes.
    pub fn flush(&mut self, redactor: &Redactor) -> Vec<u8> {
        let mut passed = Vec::new();
        self.emit_all(&redactor.known_secrets(), &mut passed);
        passed.append(&mut self.partial_char);
        passed
    }

    fn emit_certain(&mut self, known: &KnownSecrets, passed: &mut Vec<u8>) {
        if let Some(clean) = known.redact_text(&self.pending, true) {
            self.pending = clean;
        }
        let rest = self.pending.split_off(known.pending_start(&self.pending, self.pending.len()));
        passed.append(&mut std::mem::replace(&mut self.pending, rest).into_bytes());
    }

    fn emit_all(&mut self, known: &KnownSecrets, passed: &mut Vec<u8>) {
        let held = std::mem::take(&mut self.pending);
        passed.append(&mut known.redact_text(&held, false).unwrap_or(held).into_bytes());
    }
}

/// Returns whether bytes are the beginning of a character.
fn is_partial_char(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|error| error.error_len().is_none())
}
