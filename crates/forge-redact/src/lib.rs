//! Redaction of secrets in everything that is journalled or shown live (SEC-6).
//!
//! Secrets are recognised in two ways: as values that this process loaded, in their common encodings, and by the
//! typical form of keys of well-known services. Values are redacted everywhere. Texts that only look like a key are
//! redacted in output and logs, never in the journal, so that a file with such a text can be edited exactly.

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
use parking_lot::RwLock;
use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// Replacement for a secret.
pub const REDACTED: &str = "***REDACTED***";
/// Minimum length of a secret; redacting shorter values would mangle ordinary text.
const MIN_SECRET_BYTES: usize = 8;

/// The secret values of this process. More can be added while it is in use.
#[derive(Default)]
pub struct Redactor {
    known: RwLock<Arc<KnownSecrets>>,
}

/// A snapshot of the known secrets.
#[derive(Default)]
struct KnownSecrets {
    secrets: BTreeSet<String>,
    /// All forms of all secrets.
    forms: TextFinder,
    /// All secrets in lower-case hex.
    hex: TextFinder,
}

/// A search for several texts at once.
#[derive(Default)]
struct TextFinder {
    /// Sorted texts.
    texts: Vec<String>,
    finder: Option<AhoCorasick>,
    longest: usize,
    /// First bytes of the texts.
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
                    // Tokens have thousands of characters, so building a full transition table would take longer than
                    // it could save.
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

    /// Returns the start of a suffix that could be the beginning of a match, or the length of the text if there is
    /// none.
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

    /// Returns the same for a reading, as a position in the original text of this length.
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

    /// Returns the redacted text, or `None` if it contained no secret. `more` means that the text may continue.
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

    /// Returns the ranges of secrets in any encoding, sorted and without overlap.
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
            let in_layer = self.find_in_dumps(&layer.text, more).into_iter();
            finds.extend(in_layer.map(|found| layer.original_range(found)));
        }
        if more {
            // A dump that is incomplete in one reading can look complete in another one, or be overlapped by a find of
            // the characters next to its digits. It is held back, and redacted as a whole once its end is known.
            let open = self.open_start(text, &layers);
            let held_back = text.len() - open <= self.max_pending_bytes();
            finds.retain(|found| !held_back || found.start < open);
        }
        merge_overlapping(finds)
    }

    /// Returns the start of an incomplete dump in any reading of a text, or the length of the text if there is none.
    fn open_start(&self, text: &str, layers: &[DecodedText]) -> usize {
        let in_layers = layers
            .iter()
            .filter_map(|layer| layer.original_start(self.open_dump_start(&layer.text[..layer.cut])));
        in_layers.fold(self.open_dump_start(text), usize::min)
    }

    /// Returns the start of a suffix that could be the beginning of a secret or of a dump of one, or the length of the
    /// text if there is none.
    fn partial_secret_start(&self, text: &str) -> usize {
        if self.secrets.is_empty() {
            return text.len();
        }
        let views = decoded_text::decode_all(text, Reach::Open);
        let begun = self.partial_form_in(text, &views);
        ceil_char_boundary(text, begun.min(self.open_start(text, &views.layers)))
    }

    /// Returns the start of a suffix that matches more of a secret than ordinary text would by chance, or the length of
    /// the text if there is none.
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

    /// Returns the ranges of secrets in hex dumps, as far as their lines have ended.
    fn find_in_dumps(&self, text: &str, more: bool) -> Vec<Range<usize>> {
        let dump = HexDump::find_dumps(text, more);
        let finds = self.hex.texts.iter().flat_map(|digits| dump.find(digits, more));
        let places = finds.filter_map(|(_, found)| match found {
            Found::Whole(places) => Some(places),
            Found::Open => None,
        });
        places.flatten().collect()
    }

    /// Returns the start of a secret in a dump at the end of the text that is still incomplete, or lacks the characters
    /// next to it.
    fn open_dump_start(&self, text: &str) -> usize {
        let dump = HexDump::find_dumps(text, true);
        let finds = self.hex.texts.iter().flat_map(|digits| dump.find(digits, true));
        let open = finds.filter_map(|(at, found)| matches!(found, Found::Open).then_some(at));
        open.fold(hex_dump::open_group_start(text), usize::min)
    }
}

/// Sorts ranges and merges overlapping ones.
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

/// Returns the first character boundary at or after `at`.
fn ceil_char_boundary(text: &str, at: usize) -> usize {
    (at..=text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len())
}

impl Redactor {
    /// Creates a redactor for these values.
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a str>) -> Self {
        let redactor = Self::default();
        redactor.add_secrets(secrets);
        redactor
    }

    /// Adds values to redact from now on.
    pub fn add_secrets<'a>(&self, secrets: impl IntoIterator<Item = &'a str>) {
        let known = self.known_secrets();
        let new = |secret: &&str| secret.len() >= MIN_SECRET_BYTES && !known.secrets.contains(*secret);
        let new: Vec<String> = secrets.into_iter().filter(new).map(str::to_owned).collect();
        if !new.is_empty() {
            let mut place = self.known.write();
            // Another thread may have added values in the meantime.
            let all = place.secrets.iter().cloned().chain(new).collect();
            *place = Arc::new(KnownSecrets::new(all));
        }
    }

    fn known_secrets(&self) -> Arc<KnownSecrets> {
        self.known.read().clone()
    }

    /// Returns the redacted text, or `None` if it contained no secret.
    pub fn redacted_text(&self, text: &str) -> Option<String> {
        self.known_secrets().redact_text(text, false)
    }

    /// Redacts secrets in a text.
    pub fn redact_in_place(&self, text: &mut String) {
        if let Some(clean) = self.known_secrets().redact_text(text, false) {
            *text = clean;
        }
    }

    /// Redacts secrets, and texts that look like a key, for output and logs.
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
