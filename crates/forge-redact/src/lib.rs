//! Secrets taken out of everything that is journalled or shown live (SEC-6).
//!
//! Two things are known: the values that this process loaded, in the forms in which they commonly appear, and what keys
//! of well-known services look like. Values are removed everywhere; what only looks like a key is removed from what
//! people and logs see, never from the journal, so that a file that holds such a text can be edited exactly.

mod dump;
mod event;
mod forms;
mod hold;
mod patterns;
mod pieces;
mod views;

pub use hold::{HoldBack, HoldBytes};
pub use patterns::without_keys;

use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};
use dump::{Dump, Found};
use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, PoisonError, RwLock};
use views::{Reach, View, Views};

/// What stands in the place of a secret.
pub const REDACTED: &str = "***REDACTED***";
/// Shorter values are no secrets, and removing them would mangle ordinary text.
const SHORTEST: usize = 8;

/// Knows the secret values of this process. It may learn more while it is in use.
#[derive(Default)]
pub struct Redactor {
    known: RwLock<Arc<Known>>,
}

/// What is known at some moment.
#[derive(Default)]
struct Known {
    secrets: BTreeSet<String>,
    /// All forms of all secrets.
    forms: Finder,
    /// All secrets in hex, in lower case.
    hex: Finder,
}

/// Texts that are looked for, all at once.
#[derive(Default)]
struct Finder {
    /// Sorted.
    texts: Vec<String>,
    finder: Option<AhoCorasick>,
    longest: usize,
    /// The bytes with which one of them begins.
    firsts: BTreeSet<u8>,
}

impl Finder {
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

    fn in_text<'a>(&'a self, text: &'a str) -> impl Iterator<Item = Range<usize>> + 'a {
        self.finder.iter().flat_map(move |finder| finder.find_iter(text)).map(|found| found.range())
    }

    /// Where the end of the text begins that could be the beginning of something; its length if there is none.
    fn open_at(&self, text: &str) -> usize {
        let from = ceil(text, text.len().saturating_sub(self.longest.saturating_sub(1)));
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
    fn open_in(&self, view: &View, length: usize) -> usize {
        let at = self.open_at(&view.text[..view.cut]);
        view.place(at).unwrap_or(length)
    }
}

impl Known {
    fn new(secrets: BTreeSet<String>) -> Self {
        let forms = Finder::new(secrets.iter().flat_map(|secret| forms::of(secret)).collect());
        let hex = Finder::new(secrets.iter().map(|secret| forms::hex(secret)).collect());
        Self { secrets, forms, hex }
    }

    /// The text without secrets, if it held any. With `more`, it may go on.
    fn clean(&self, text: &str, more: bool) -> Option<String> {
        let finds = self.found(text, more);
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
    fn found(&self, text: &str, more: bool) -> Vec<Range<usize>> {
        if self.secrets.is_empty() {
            return Vec::new();
        }
        let mut finds: Vec<Range<usize>> = self.forms.in_text(text).collect();
        let Views { layers, words, hex } = views::of(text, Reach::Whole);
        for (views, finder) in [(&layers, &self.forms), (&words, &self.forms), (&hex, &self.hex)] {
            for view in views {
                finds.extend(finder.in_text(&view.text).map(|found| view.original(found)));
            }
        }
        finds.extend(self.in_dumps(text, more));
        for layer in &layers {
            finds.extend(self.in_dumps(&layer.text, more).into_iter().map(|found| layer.original(found)));
        }
        apart(finds)
    }

    /// Where the end of the text begins that could be the beginning of a secret, or of a dump of one; its length if there
    /// is none.
    fn open_at(&self, text: &str) -> usize {
        let views = views::of(text, Reach::Open);
        let begun = self.begun_in(text, &views);
        if self.secrets.is_empty() {
            return begun;
        }
        let in_layers =
            views.layers.iter().filter_map(|layer| layer.place(self.open_dump(&layer.text[..layer.cut])));
        ceil(text, in_layers.fold(begun.min(self.open_dump(text)), usize::min))
    }

    /// Where the end of the text begins that is more of the beginning of a secret than ordinary text would have by chance;
    /// its length if there is none.
    fn begun_at(&self, text: &str) -> usize {
        let enough = |whole: usize, at: usize| whole - at >= SHORTEST;
        let at = self.forms.open_at(text);
        let mut begun = if enough(text.len(), at) { at } else { text.len() };
        let Views { layers, words, hex } = views::of(text, Reach::Open);
        for (views, finder) in [(&layers, &self.forms), (&words, &self.forms), (&hex, &self.hex)] {
            for view in views {
                let at = finder.open_at(&view.text[..view.cut]);
                let place = view.place(at).filter(|_| enough(view.cut, at));
                begun = begun.min(place.unwrap_or(text.len()));
            }
        }
        ceil(text, begun)
    }

    fn begun_in(&self, text: &str, Views { layers, words, hex }: &Views) -> usize {
        let mut begun = self.forms.open_at(text);
        for (views, finder) in [(layers, &self.forms), (words, &self.forms), (hex, &self.hex)] {
            for view in views {
                begun = begun.min(finder.open_in(view, text.len()));
            }
        }
        ceil(text, begun)
    }

    /// Where secrets are in dumps of bytes, as far as their lines have ended.
    fn in_dumps(&self, text: &str, more: bool) -> Vec<Range<usize>> {
        let dump = Dump::of(text, more);
        let finds = self.hex.texts.iter().flat_map(|digits| dump.find(digits, more));
        let places = finds.filter_map(|(_, found)| match found {
            Found::Whole(places) => Some(places),
            Found::Open => None,
        });
        places.flatten().collect()
    }

    /// Where in the dump with which a text ends a secret may begin whose end, or what stands beside it, is to come.
    fn open_dump(&self, text: &str) -> usize {
        let dump = Dump::of(text, true);
        let finds = self.hex.texts.iter().flat_map(|digits| dump.find(digits, true));
        let open = finds.filter_map(|(at, found)| matches!(found, Found::Open).then_some(at));
        open.min().unwrap_or(text.len())
    }
}

/// Places in order, none over another.
fn apart(mut finds: Vec<Range<usize>>) -> Vec<Range<usize>> {
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
fn ceil(text: &str, at: usize) -> usize {
    (at..=text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len())
}

impl Redactor {
    /// A redactor of these values.
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a str>) -> Self {
        let redactor = Self::default();
        redactor.learn(secrets);
        redactor
    }

    /// From now on these values are removed as well.
    pub fn learn<'a>(&self, secrets: impl IntoIterator<Item = &'a str>) {
        let known = self.known();
        let new = |secret: &&str| secret.len() >= SHORTEST && !known.secrets.contains(*secret);
        let new: Vec<String> = secrets.into_iter().filter(new).map(str::to_owned).collect();
        if !new.is_empty() {
            let mut place = self.known.write().unwrap_or_else(PoisonError::into_inner);
            // Somebody else may have learnt something meanwhile.
            let all = place.secrets.iter().cloned().chain(new).collect();
            *place = Arc::new(Known::new(all));
        }
    }

    fn known(&self) -> Arc<Known> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The text without secrets, if it held any.
    pub fn cleaned(&self, text: &str) -> Option<String> {
        self.known().clean(text, false)
    }

    /// Takes secrets out of a text.
    pub fn text(&self, text: &mut String) {
        if let Some(clean) = self.known().clean(text, false) {
            *text = clean;
        }
    }

    /// Takes secrets, and what looks like a key, out of a text that people or logs see.
    pub fn shown(&self, text: &str) -> String {
        let clean = self.known().clean(text, false);
        without_keys(clean.as_deref().unwrap_or(text)).into_owned()
    }
}

impl fmt::Debug for Redactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redactor").field("secrets", &self.known().secrets.len()).finish()
    }
}
