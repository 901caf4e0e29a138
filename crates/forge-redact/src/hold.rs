//! Text that comes in pieces: what could be the beginning of a secret waits for what follows.

use super::{Redactor, patterns, without_keys};

/// A redactor for text that comes in pieces and is shown, never journalled.
#[derive(Debug, Default)]
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
        let rest = self.held.split_off(known.open_at(&self.held).min(open));
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
