//! Secrets taken out of everything that is journalled or shown live (SEC-6).
//!
//! Two things are known: the values that this process loaded, in the forms in which they commonly appear, and what keys
//! of well-known services look like. Values are removed everywhere; what only looks like a key is removed from what
//! people and logs see, never from the journal, so that a file that holds such a text can be edited exactly.

mod forms;
mod hold;
mod patterns;

pub use hold::HoldBack;
pub use patterns::without_keys;

use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};
use forge_types::{EventKind, Message, Outcome, Part, PartKind, Payload};
use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

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
    /// All forms of all secrets, sorted.
    forms: Vec<String>,
    finder: Option<AhoCorasick>,
    longest: usize,
}

impl Known {
    fn new(secrets: BTreeSet<String>) -> Self {
        let forms: BTreeSet<String> = secrets.iter().flat_map(|secret| forms::of(secret)).collect();
        let forms: Vec<String> = forms.into_iter().collect();
        let longest = forms.iter().map(String::len).max().unwrap_or(0);
        let finder = (!forms.is_empty())
            .then(|| {
                AhoCorasick::builder()
                    .match_kind(MatchKind::LeftmostLongest)
                    // Tokens have thousands of characters: a table of all transitions would take longer to make than
                    // it ever saves.
                    .kind(Some(AhoCorasickKind::NoncontiguousNFA))
                    .build(&forms)
                    .ok()
            })
            .flatten();
        Self { secrets, forms, finder, longest }
    }

    /// The text without secrets, if it held any.
    fn clean(&self, text: &str) -> Option<String> {
        let finder = self.finder.as_ref()?;
        finder.is_match(text).then(|| {
            let mut clean = String::with_capacity(text.len());
            finder.replace_all_with(text, &mut clean, |_, _, out| {
                out.push_str(REDACTED);
                true
            });
            clean
        })
    }

    /// Where the end of the text begins that could be the beginning of a secret; its length if there is none.
    fn open_at(&self, text: &str) -> usize {
        let from = text.len().saturating_sub(self.longest.saturating_sub(1));
        let starts = text[ceil(text, from)..].char_indices().map(|(at, _)| ceil(text, from) + at);
        let begins = |at: &usize| {
            let end = &text[*at..];
            let next = self.forms.partition_point(|form| form.as_str() < end);
            self.forms.get(next).is_some_and(|form| form.starts_with(end))
        };
        starts.into_iter().find(begins).unwrap_or(text.len())
    }
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
        self.known().clean(text)
    }

    /// Takes secrets out of a text.
    pub fn text(&self, text: &mut String) {
        if let Some(clean) = self.known().clean(text) {
            *text = clean;
        }
    }

    /// Takes secrets, and what looks like a key, out of a text that people or logs see.
    pub fn shown(&self, text: &str) -> String {
        let clean = self.known().clean(text);
        without_keys(clean.as_deref().unwrap_or(text)).into_owned()
    }

    /// Takes secrets out of all that an event holds.
    pub fn event(&self, kind: &mut EventKind) {
        if self.known().finder.is_none() {
            return;
        }
        for payload in kind.payloads_mut() {
            self.payload(payload);
        }
        match kind {
            EventKind::Settled { outcome: Outcome::Replied { reply, .. }, .. } => {
                self.calls(&mut reply.parts)
            }
            EventKind::Settled { outcome: Outcome::ModelFailed { error }, .. } => {
                self.text(&mut error.message)
            }
            EventKind::Judged { error, tool, .. } => {
                self.text(&mut error.message);
                self.text(tool);
            }
            EventKind::Finished { error, files_modified, .. } => {
                if let Some(error) = error {
                    self.text(&mut error.message);
                }
                files_modified.iter_mut().for_each(|path| self.text(path));
            }
            EventKind::Settled { outcome: Outcome::Summarised { summary }, .. } => {
                summary.note.iter_mut().for_each(|note| self.text(note));
            }
            EventKind::Compacted { note: Some(note), .. } => self.text(note),
            EventKind::Settled { outcome: Outcome::SandboxLost { why }, .. }
            | EventKind::StatusChanged { reason: Some(why), .. } => self.text(why),
            EventKind::Created(created) => {
                self.payload(&mut created.task);
                created.history.iter_mut().for_each(|message| self.message(message));
            }
            EventKind::Commanded { command: forge_types::Command::Steer { text }, .. } => self.text(text),
            _ => {}
        }
    }

    fn message(&self, message: &mut Message) {
        self.calls(&mut message.parts);
    }

    fn calls(&self, parts: &mut [Part]) {
        for part in parts {
            if let PartKind::Call(call) = &mut part.kind {
                self.text(&mut call.arguments);
                self.text(&mut call.name);
            }
        }
    }

    fn payload(&self, payload: &mut Payload) {
        if let Payload::Inline(text) = payload {
            self.text(text);
        }
    }
}

impl fmt::Debug for Redactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redactor").field("secrets", &self.known().secrets.len()).finish()
    }
}

#[cfg(test)]
mod tests;
