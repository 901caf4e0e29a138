//! Text that comes in pieces: what could be the beginning of a secret waits for what follows.

use super::{Known, Redactor, SHORTEST, patterns, without_keys};

/// Text that waits for what follows, in bytes, at most: beyond that it goes on as it is, so that no output makes it grow
/// without end. Longer secrets let more wait.
const MOST_HELD_BYTES: usize = 64 << 10;
/// In how many times its own length a secret is found at least.
const MOST_TIMES: usize = 8;

/// A redactor for text that comes in pieces and is shown, never journalled.
#[derive(Clone, Debug, Default)]
pub struct HoldBack {
    held: String,
    /// Whether what was shown last ends within a word: no key begins there.
    in_word: bool,
}

/// Stands for the word that was shown; no key begins with it.
const WORD: &str = "a";

impl HoldBack {
    /// Takes more text and gives what can be shown.
    pub fn push(&mut self, redactor: &Redactor, text: &str) -> String {
        self.held.push_str(text);
        let known = redactor.known();
        if let Some(clean) = known.clean(&self.held, true) {
            self.held = clean;
        }
        let open = self.in_its_place(patterns::open_at);
        let rest = self.held.split_off(known.held_from(&self.held, open));
        let shown = self.without_keys();
        self.in_word = self.held.bytes().next_back().map_or(self.in_word, patterns::in_word);
        self.held = rest;
        shown
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Gives the rest.
    pub fn flush(&mut self, redactor: &Redactor) -> String {
        // Now it is known that nothing follows.
        if let Some(clean) = redactor.known().clean(&self.held, false) {
            self.held = clean;
        }
        let shown = self.without_keys();
        *self = Self::default();
        shown
    }

    fn without_keys(&self) -> String {
        if self.in_word {
            let whole = format!("{WORD}{}", self.held);
            without_keys(&whole)[WORD.len()..].to_owned()
        } else {
            without_keys(&self.held).into_owned()
        }
    }

    fn in_its_place(&self, find: impl Fn(&str) -> usize) -> usize {
        if self.in_word { find(&format!("{WORD}{}", self.held)) - WORD.len() } else { find(&self.held) }
    }
}

impl Known {
    /// Where what waits of a text begins, of which another reason lets the end from `open` wait.
    fn held_from(&self, text: &str, open: usize) -> usize {
        let from = self.open_at(text).min(open);
        let most = MOST_HELD_BYTES.max(self.forms.longest.saturating_mul(MOST_TIMES));
        if text.len() - from > most { text.len() } else { from }
    }
}

/// A redactor for bytes that come in pieces and are passed on. Values that are known are taken out of what is text among
/// them; all else stays as it is, what only looks like a key included.
#[derive(Debug, Default)]
pub struct HoldBytes {
    held: String,
    /// The beginning of a character.
    cut: Vec<u8>,
}

impl HoldBytes {
    /// Takes more bytes and gives what can be passed on.
    pub fn push(&mut self, redactor: &Redactor, bytes: &[u8]) -> Vec<u8> {
        let known = redactor.known();
        if known.secrets.is_empty() && self.held.is_empty() && self.cut.is_empty() {
            return bytes.to_owned();
        }
        let mut all = std::mem::take(&mut self.cut);
        all.extend_from_slice(bytes);
        let mut passed = Vec::with_capacity(all.len());
        let mut chunks = all.utf8_chunks().peekable();
        while let Some(chunk) = chunks.next() {
            let (text, other) = (chunk.valid(), chunk.invalid());
            if other.is_empty() {
                self.held.push_str(text);
                self.pass(&known, &mut passed);
            } else if chunks.peek().is_none() && is_begun(other) {
                self.held.push_str(text);
                self.pass(&known, &mut passed);
                self.cut = other.to_owned();
            } else {
                // Between bytes that are no text, so few of them hold nothing.
                if self.held.len() + text.len() < SHORTEST {
                    passed.append(&mut std::mem::take(&mut self.held).into_bytes());
                    passed.extend_from_slice(text.as_bytes());
                } else {
                    self.held.push_str(text);
                    self.pass_all(&known, &mut passed);
                }
                passed.extend_from_slice(other);
            }
        }
        passed
    }

    /// Gives the rest.
    pub fn flush(&mut self, redactor: &Redactor) -> Vec<u8> {
        let mut passed = Vec::new();
        self.pass_all(&redactor.known(), &mut passed);
        passed.append(&mut self.cut);
        passed
    }

    fn pass(&mut self, known: &Known, passed: &mut Vec<u8>) {
        if let Some(clean) = known.clean(&self.held, true) {
            self.held = clean;
        }
        let rest = self.held.split_off(known.held_from(&self.held, self.held.len()));
        passed.append(&mut std::mem::replace(&mut self.held, rest).into_bytes());
    }

    fn pass_all(&mut self, known: &Known, passed: &mut Vec<u8>) {
        let held = std::mem::take(&mut self.held);
        passed.append(&mut known.clean(&held, false).unwrap_or(held).into_bytes());
    }
}

/// Whether bytes are the beginning of a character.
fn is_begun(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|error| error.error_len().is_none())
}
