//! Redaction of texts in several pieces that are read as one: a secret may start in one piece and end in another.

use super::{
    DecodedTexts, KnownSecrets, REDACTED, Reach, TextFinder, ceil_char_boundary, decoded_text,
    merge_overlapping,
};
use std::ops::Range;

/// Minimum length of the end of a secret that is redacted; a shorter one reveals nothing and may be ordinary text.
const MIN_TAIL_BYTES: usize = 4;

/// The text around the pieces.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct PieceContext<'a> {
    /// The already redacted text that the pieces continue.
    pub(super) before: &'a str,
    /// Whether more text will follow the pieces, so that they may end with the beginning of a secret.
    pub(super) goes_on: bool,
}

impl KnownSecrets {
    /// Redacts consecutive pieces; returns for each whether it contained a secret.
    pub(super) fn redact_pieces(&self, pieces: &mut [&mut String], around: PieceContext<'_>) -> Vec<bool> {
        // Each piece alone first: some patterns, such as a dump, are recognised only at the start of a piece.
        let mut held: Vec<bool> = pieces.iter_mut().map(|piece| self.redact_one(piece)).collect();
        let filled = pieces.iter().filter(|piece| !piece.is_empty()).count();
        if self.secrets.is_empty() || filled == 0 {
            return held;
        }
        if filled == 1 && around.before.is_empty() && !around.goes_on {
            return held;
        }
        let mut whole = around.before.to_owned();
        pieces.iter().for_each(|piece| whole.push_str(piece));
        let finds = self.find_in_context(&whole, around);
        let mut start = around.before.len();
        for (piece, held) in pieces.iter_mut().zip(&mut held) {
            let end = start + piece.len();
            *held |= cut_ranges(piece, start, &finds);
            start = end;
        }
        held
    }

    fn redact_one(&self, text: &mut String) -> bool {
        let clean = self.redact_text(text, false);
        let held = clean.is_some();
        if let Some(clean) = clean {
            *text = clean;
        }
        held
    }

    /// Returns the ranges of secrets in the pieces; `whole` starts with the text before them.
    fn find_in_context(&self, whole: &str, around: PieceContext<'_>) -> Vec<Range<usize>> {
        let mut finds = self.find_secrets(whole, false);
        let from = around.before.len();
        if around.before.ends_with(REDACTED) {
            finds.push(from..from + self.secret_tail_len(&whole[from..], around.goes_on));
        }
        if around.goes_on {
            finds.push(self.partial_form_start(whole)..whole.len());
        }
        // The text before the pieces is not changed.
        let within = finds.into_iter().map(|found| found.start.max(from)..found.end);
        merge_overlapping(within.filter(|found| !found.is_empty()).collect())
    }

    /// Returns the length of the prefix that is the rest of a secret redacted at the end of the preceding text.
    fn secret_tail_len(&self, text: &str, goes_on: bool) -> usize {
        let DecodedTexts { layers, words, hex } = decoded_text::decode_all(text, Reach::Whole);
        let mut rest = self.forms.tail_match_len(text, goes_on);
        for (views, finder) in [(&layers, &self.forms), (&words, &self.forms), (&hex, &self.hex)] {
            for view in views {
                let length = finder.tail_match_len(&view.text, goes_on);
                rest = rest.max(if length > 0 { view.original_range(0..length).end } else { 0 });
            }
        }
        ceil_char_boundary(text, rest)
    }
}

impl TextFinder {
    /// Returns the length of the prefix that is the end of one of the texts, or the middle of one if that is the whole
    /// text.
    fn tail_match_len(&self, text: &str, goes_on: bool) -> usize {
        let ends = self.texts.iter().flat_map(|known| {
            let places = known.char_indices().map(|(at, _)| at).skip(1);
            places.map(|at| &known[at..]).filter(|end| text.starts_with(end) || end.starts_with(text))
        });
        let length = ends.map(|end| end.len().min(text.len())).max().unwrap_or(0);
        let is_all = goes_on && length == text.len();
        if length < MIN_TAIL_BYTES && !is_all { 0 } else { length }
    }
}

/// Redacts ranges in a piece; `start` is the position of the piece in the text to which the ranges refer.
fn cut_ranges(piece: &mut String, start: usize, finds: &[Range<usize>]) -> bool {
    let end = start + piece.len();
    let (mut clean, mut kept) = (String::new(), 0);
    for found in finds.iter().filter(|found| found.start < end && start < found.end) {
        let (from, until) = (found.start.max(start) - start, found.end.min(end) - start);
        clean.push_str(&piece[kept..from]);
        // The whole secret gets one marker, but no piece may become empty without a trace.
        if found.start >= start || (from, until) == (0, piece.len()) {
            clean.push_str(REDACTED);
        }
        kept = until;
    }
    let held = kept > 0;
    if held {
        clean.push_str(&piece[kept..]);
        *piece = clean;
    }
    held
}
