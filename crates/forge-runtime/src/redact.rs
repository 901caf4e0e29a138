//! Secrets taken out of everything that is journalled or shown live (SEC-6).

use aho_corasick::{AhoCorasick, MatchKind};
use forge_types::{EventKind, Outcome, PartKind, Payload};

/// What stands in the place of a secret.
pub const REDACTED: &str = "***REDACTED***";
/// Shorter values are no secrets, and removing them would mangle ordinary text.
const SHORTEST: usize = 8;

/// Knows the secret values of this process.
#[derive(Debug, Default)]
pub struct Redactor {
    finder: Option<AhoCorasick>,
    longest: usize,
}

impl Redactor {
    /// A redactor of these values; their JSON-escaped forms are removed as well.
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a str>) -> Self {
        let mut values: Vec<String> = Vec::new();
        for secret in secrets.into_iter().filter(|secret| secret.len() >= SHORTEST) {
            values.push(secret.to_owned());
            if let Ok(escaped) = serde_json::to_string(secret) {
                values.push(escaped.trim_matches('"').to_owned());
            }
        }
        values.sort();
        values.dedup();
        let longest = values.iter().map(String::len).max().unwrap_or(0);
        let finder = (!values.is_empty())
            .then(|| AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(&values).ok())
            .flatten();
        Self { finder, longest }
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

    /// Takes secrets out of a text.
    pub fn text(&self, text: &mut String) {
        if let Some(clean) = self.clean(text) {
            *text = clean;
        }
    }

    /// Takes secrets out of all that an event holds.
    pub fn event(&self, kind: &mut EventKind) {
        if self.finder.is_none() {
            return;
        }
        for payload in kind.payloads_mut() {
            if let Payload::Inline(text) = payload {
                self.text(text);
            }
        }
        match kind {
            EventKind::Settled { outcome: Outcome::Replied { reply, .. }, .. } => {
                for part in &mut reply.parts {
                    if let PartKind::Call(call) = &mut part.kind {
                        self.text(&mut call.arguments);
                        self.text(&mut call.name);
                    }
                }
            }
            EventKind::Settled { outcome: Outcome::ModelFailed { error }, .. }
            | EventKind::Judged { error, .. } => self.text(&mut error.message),
            EventKind::Finished { error: Some(error), .. } => self.text(&mut error.message),
            EventKind::Settled { outcome: Outcome::SandboxLost { why }, .. }
            | EventKind::StatusChanged { reason: Some(why), .. } => self.text(why),
            EventKind::Created(created) => {
                if let Payload::Inline(text) = &mut created.task {
                    self.text(text);
                }
            }
            EventKind::Commanded { command: forge_types::Command::Steer { text }, .. } => self.text(text),
            _ => {}
        }
    }
}

/// A redactor for text that comes in pieces: holds back as much as could be the beginning of a secret.
#[derive(Debug, Default)]
pub struct HoldBack {
    held: String,
}

impl HoldBack {
    /// Takes more text and gives what can be shown.
    pub fn push(&mut self, redactor: &Redactor, text: &str) -> String {
        self.held.push_str(text);
        redactor.text(&mut self.held);
        let keep = redactor.longest.saturating_sub(1);
        let mut at = self.held.len().saturating_sub(keep);
        while !self.held.is_char_boundary(at) {
            at -= 1;
        }
        let rest = self.held.split_off(at);
        std::mem::replace(&mut self.held, rest)
    }

    /// Gives the rest.
    pub fn flush(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_secret_never_gets_through_in_any_form() {
        let redactor = Redactor::new(["sk-secret-1234", "with\"quote-99", "short"]);
        let mut text = "a sk-secret-1234 b with\\\"quote-99 short".to_owned();
        redactor.text(&mut text);
        assert_eq!(text, "a ***REDACTED*** b ***REDACTED*** short");
    }

    proptest! {
        #[test]
        fn pieces_show_the_same_as_the_whole(
            before in "[a-zä ]{0,20}", after in "[a-zä ]{0,20}", cuts in prop::collection::vec(0_usize..60, 0..6)
        ) {
            let redactor = Redactor::new(["sk-secret-1234"]);
            let whole = format!("{before}sk-secret-1234{after}");
            let mut cuts: Vec<_> = cuts.into_iter().filter(|c| *c <= whole.len() && whole.is_char_boundary(*c)).collect();
            cuts.extend([0, whole.len()]);
            cuts.sort_unstable();
            let mut hold = HoldBack::default();
            let mut shown = String::new();
            for pair in cuts.windows(2) {
                shown += &hold.push(&redactor, &whole[pair[0]..pair[1]]);
            }
            shown += &hold.flush();
            prop_assert_eq!(shown, format!("{before}{REDACTED}{after}"));
        }
    }
}
