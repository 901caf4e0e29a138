//! Secrets taken out of everything that is journalled or shown live (SEC-6).
//!
//! Two things are known: the values that this process loaded, in the forms in which they commonly appear, and what keys
//! of well-known services look like. Values are removed everywhere; what only looks like a key is removed from what
//! people and logs see, never from the journal, so that a file that holds such a text can be edited exactly.

mod decoded_text;
mod encodings;
mod event;
mod hex_dump;
mod patterns;
mod pieces;
mod stream;

pub use patterns::redact_keys;
pub use stream::{ByteStreamRedactor, StreamRedactor};

use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};
use decoded_text::{DecodedText, DecodedTexts, Reach};
use hex_dump::{Found, HexDump};
use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, PoisonError, RwLock};

/// What stands in the place of a secret.
pub const REDACTED: &str = "***REDACTED***";
/// Shorter values are no secrets, and removing them would mangle ordinary text.
const MIN_SECRET_BYTES: usize = 8;

/// Knows the secret values of this process. It may learn more while it is in use.
#[derive(Default)]
pub struct Redactor {
    known: RwLock<Arc<KnownSecrets>>,
}

/// What is known at some moment.
#[derive(Default)]
struct KnownSecrets {
    secrets: BTreeSet<String>,
    /// All forms of all secrets.
    forms: TextFinder,
    /// All secrets in hex, in lower case.
    hex: TextFinder,
}

/// Texts that are looked for, all at once.
#[derive(Default)]
struct TextFinder {
    /// Sorted.
    texts: Vec<String>,
    finder: Option<AhoCorasick>,
    longest: usize,
    /// The bytes with which one of them begins.
    firsts: BTreeSet<u8>,
}

impl TextFinder {
    fn new(texts: BTreeSet<String>) -> Self {
        let texts: Vec<String> = texts.into_iter().collect();
        let longest = texts.iter().map(String::len).max().unwrap_or(0);
        let firsts = texts.iter().filter_map(|text| text.bytes().next()).collect();
        let finder = (!texts.is_empty())
            .then(|| {
                AhoCorasick::builder()
                    .match_kind(MatchKind::LeftmostLongest)
                    // Tokens have thousands of characters: a table of all transitions would take longer to make than
                    // it ever saves.
                    .kind(Some(AhoCorasickKind::NoncontiguousNFA))
                    .build(&texts)
                    .ok()
            })
            .flatten();
        Self { texts, finder, longest, firsts }
    }

    fn find_in<'a>(&'a self, text: &'a str) -> impl Iterator<Item = Range<usize>> + 'a {
        self.finder.iter().flat_map(move |finder| finder.find_iter(text)).map(|found| found.range())
    }

    /// Where the end of the text begins that could be the beginning of something; its length if there is none.
    fn partial_match_start(&self, text: &str) -> usize {
        let from = ceil_char_boundary(text, text.len().saturating_sub(self.longest.saturating_sub(1)));
        let bytes = text.as_bytes();
        let starts = text[from..].char_indices().map(|(at, _)| from + at);
        let mut starts = starts.filter(|at| self.firsts.contains(&bytes[*at]));
        let begins = |at: &usize| {
            let end = &text[*at..];
            let next = self.texts.partition_point(|known| known.as_str() < end);
            self.texts.get(next).is_some_and(|known| known.starts_with(end))
        };
        starts.find(begins).unwrap_or(text.len())
    }

    /// The same for a view, as a place in the original text of this length.
    fn partial_match_in(&self, view: &DecodedText, length: usize) -> usize {
        let at = self.partial_match_start(&view.text[..view.cut]);
        view.original_start(at).unwrap_or(length)
    }
}

impl KnownSecrets {
    fn new(secrets: BTreeSet<String>) -> Self {
        let forms =
            TextFinder::new(secrets.iter().flat_map(|secret| encodings::encoded_forms(secret)).collect());
        let hex = TextFinder::new(secrets.iter().map(|secret| encodings::hex_encode(secret)).collect());
        Self { secrets, forms, hex }
    }

    /// The text without secrets, if it held any. With `more`, it may go on.
    fn redact_text(&self, text: &str, more: bool) -> Option<String> {
        let finds = self.find_secrets(text, more);
        let mut clean = String::with_capacity(text.len());
        let mut kept = 0;
        for found in &finds {
            clean.push_str(&text[kept..found.start]);
            clean.push_str(REDACTED);
            kept = found.end;
        }
        clean.push_str(&text[kept..]);
        (!finds.is_empty()).then_some(clean)
    }

    /// Where secrets are in a text, however they are written there; in order, none over another.
    fn find_secrets(&self, text: &str, more: bool) -> Vec<Range<usize>> {
        if self.secrets.is_empty() {
            return Vec::new();
        }
        let mut finds: Vec<Range<usize>> = self.forms.find_in(text).collect();
        let DecodedTexts { layers, words, hex } = decoded_text::decode_all(text, Reach::Whole);
        for (views, finder) in [(&layers, &self.forms), (&words, &self.forms), (&hex, &self.hex)] {
            for view in views {
                finds.extend(finder.find_in(&view.text).map(|found| view.original_range(found)));
            }
        }
        finds.extend(self.find_in_dumps(text, more));
        for layer in &layers {
            finds.extend(
                self.find_in_dumps(&layer.text, more).into_iter().map(|found| layer.original_range(found)),
            );
        }
        merge_overlapping(finds)
    }

    /// Where the end of the text begins that could be the beginning of a secret, or of a dump of one; its length if there
    /// is none.
    fn partial_secret_start(&self, text: &str) -> usize {
        let views = decoded_text::decode_all(text, Reach::Open);
        let begun = self.partial_form_in(text, &views);
        if self.secrets.is_empty() {
            return begun;
        }
        let in_layers = views
            .layers
            .iter()
            .filter_map(|layer| layer.original_start(self.open_dump_start(&layer.text[..layer.cut])));
        ceil_char_boundary(text, in_layers.fold(begun.min(self.open_dump_start(text)), usize::min))
    }

    /// Where the end of the text begins that is more of the beginning of a secret than ordinary text would have by chance;
    /// its length if there is none.
    fn partial_form_start(&self, text: &str) -> usize {
        let enough = |whole: usize, at: usize| whole - at >= MIN_SECRET_BYTES;
        let at = self.forms.partial_match_start(text);
        let mut begun = if enough(text.len(), at) { at } else { text.len() };
        let DecodedTexts { layers, words, hex } = decoded_text::decode_all(text, Reach::Open);
        for (views, finder) in [(&layers, &self.forms), (&words, &self.forms), (&hex, &self.hex)] {
            for view in views {
                let at = finder.partial_match_start(&view.text[..view.cut]);
                let place = view.original_start(at).filter(|_| enough(view.cut, at));
                begun = begun.min(place.unwrap_or(text.len()));
            }
        }
        ceil_char_boundary(text, begun)
    }

    fn partial_form_in(&self, text: &str, DecodedTexts { layers, words, hex }: &DecodedTexts) -> usize {
        let mut begun = self.forms.partial_match_start(text);
        for (views, finder) in [(layers, &self.forms), (words, &self.forms), (hex, &self.hex)] {
            for view in views {
                begun = begun.min(finder.partial_match_in(view, text.len()));
            }
        }
        ceil_char_boundary(text, begun)
    }

    /// Where secrets are in dumps of bytes, as far as their lines have ended.
    fn find_in_dumps(&self, text: &str, more: bool) -> Vec<Range<usize>> {
        let dump = HexDump::find_dumps(text, more);
        let finds = self.hex.texts.iter().flat_map(|digits| dump.find(digits, more));
        let places = finds.filter_map(|(_, found)| match found {
            Found::Whole(places) => Some(places),
            Found::Open => None,
        });
        places.flatten().collect()
    }

    /// Where in the dump with which a text ends a secret may begin whose end, or what stands beside it, is to come.
    fn open_dump_start(&self, text: &str) -> usize {
        let dump = HexDump::find_dumps(text, true);
        let finds = self.hex.texts.iter().flat_map(|digits| dump.find(digits, true));
        let open = finds.filter_map(|(at, found)| matches!(found, Found::Open).then_some(at));
        open.min().unwrap_or(text.len())
    }
}

/// Places in order, none over another.
fn merge_overlapping(mut finds: Vec<Range<usize>>) -> Vec<Range<usize>> {
    finds.sort_by_key(|found| (found.start, found.end));
    let mut apart: Vec<Range<usize>> = Vec::with_capacity(finds.len());
    for found in finds {
        match apart.last_mut() {
            Some(last) if found.start < last.end => last.end = last.end.max(found.end),
            _ => apart.push(found),
        }
    }
    apart
}

/// The first place at or after `at` that lies between two characters.
fn ceil_char_boundary(text: &str, at: usize) -> usize {
    (at..=text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len())
}

impl Redactor {
    /// A redactor of these values.
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a str>) -> Self {
        let redactor = Self::default();
        redactor.add_secrets(secrets);
        redactor
    }

    /// From now on these values are removed as well.
    pub fn add_secrets<'a>(&self, secrets: impl IntoIterator<Item = &'a str>) {
        let known = self.known_secrets();
        let new = |secret: &&str| secret.len() >= MIN_SECRET_BYTES && !known.secrets.contains(*secret);
        let new: Vec<String> = secrets.into_iter().filter(new).map(str::to_owned).collect();
        if !new.is_empty() {
            let mut place = self.known.write().unwrap_or_else(PoisonError::into_inner);
            // Somebody else may have learnt something meanwhile.
            let all = place.secrets.iter().cloned().chain(new).collect();
            *place = Arc::new(KnownSecrets::new(all));
        }
    }

    fn known_secrets(&self) -> Arc<KnownSecrets> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The text without secrets, if it held any.
    pub fn redacted_text(&self, text: &str) -> Option<String> {
        self.known_secrets().redact_text(text, false)
    }

    /// Takes secrets out of a text.
    pub fn redact_in_place(&self, text: &mut String) {
        if let Some(clean) = self.known_secrets().redact_text(text, false) {
            *text = clean;
        }
    }

    /// Takes secrets, and what looks like a key, out of a text that people or logs see.
    pub fn redact_for_display(&self, text: &str) -> String {
        let clean = self.known_secrets().redact_text(text, false);
        redact_keys(clean.as_deref().unwrap_or(text)).into_owned()
    }
}

impl fmt::Debug for Redactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redactor").field("secrets", &self.known_secrets().secrets.len()).finish()
    }
}
