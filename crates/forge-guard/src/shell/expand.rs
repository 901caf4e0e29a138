//! Expansion of words, as far as possible without running anything.

use super::parser::is_name;
use super::{Word, WordPiece};
use std::collections::BTreeMap;

/// Variables with values that are known from the line itself.
pub(crate) type ShellVars = BTreeMap<String, String>;

/// Maximum number of words that one word may expand to; the rest is ignored.
const MAX_FIELDS: usize = 64;

/// The origin of a character of a word.
#[derive(Clone, Copy, PartialEq, Eq)]
enum CharOrigin {
    Unquoted,
    Quoted,
    Variable,
}

type OriginChars = Vec<(char, CharOrigin)>;
/// A brace expansion: the start and end of the braces, and the range of each choice.
type BraceExpansion = (usize, usize, Vec<(usize, usize)>);

impl Word {
    pub(super) fn push(&mut self, text: &str, quoted: bool) {
        if let Some(WordPiece::Text { text: last, quoted: same }) = self.pieces.last_mut()
            && *same == quoted
        {
            last.push_str(text);
            return;
        }
        self.pieces.push(WordPiece::Text { text: text.to_owned(), quoted });
    }

    /// Returns the text if the shell expands no part of it. Patterns and braces are kept as written.
    pub(crate) fn literal_text(&self) -> Option<String> {
        let text = |piece: &WordPiece| match piece {
            WordPiece::Text { text, .. } => Some(text.clone()),
            _ => None,
        };
        self.pieces.iter().map(text).collect()
    }

    /// Returns the text if the word is exactly this one word in every shell.
    pub(crate) fn fixed_text(&self) -> Option<String> {
        let expands = |piece: &WordPiece| match piece {
            WordPiece::Text { text, quoted: false } => text.contains(['*', '?', '[', '{', '~']),
            _ => false,
        };
        if self.raw != "[" && self.pieces.iter().any(expands) { None } else { self.literal_text() }
    }

    /// Returns whether the word stays one word, whatever its value.
    pub(crate) fn is_one_field(&self) -> bool {
        self.fixed_text().is_some()
            || self.pieces.iter().all(|piece| match piece {
                WordPiece::Text { text, quoted } => *quoted || !text.contains(['*', '?', '[', '{']),
                // "$@" expands to as many words as there are arguments.
                WordPiece::Param { name, quoted } => *quoted && name != "@",
                WordPiece::Opaque { quoted } => *quoted && !self.raw.contains('@'),
            })
    }

    /// Splits `NAME=value`, `NAME+=value` or `NAME[…]=value`, if the word is an assignment.
    pub(super) fn split_assignment(&self) -> Option<(String, Self)> {
        let Some(WordPiece::Text { text, quoted: false }) = self.pieces.first() else { return None };
        let name = text.split(['=', '+', '[']).next().filter(|name| is_name(name))?;
        let after = &text[name.len()..];
        let value = match after.as_bytes() {
            [b'=', ..] => &after[1..],
            [b'+', b'=', ..] => &after[2..],
            // The subscript may contain substitutions, so it may end in a later piece.
            [b'[', ..] if self.raw.contains("]=") || self.raw.contains("]+=") => {
                let opaque =
                    Self { pieces: vec![WordPiece::Opaque { quoted: false }], raw: self.raw.clone() };
                return Some((name.to_owned(), opaque));
            }
            _ => return None,
        };
        let mut pieces = vec![WordPiece::Text { text: value.to_owned(), quoted: false }];
        pieces.extend_from_slice(&self.pieces[1..]);
        if after.starts_with('+') {
            pieces.push(WordPiece::Opaque { quoted: true });
        }
        Some((name.to_owned(), Self { pieces, raw: self.raw.clone() }))
    }

    /// Returns whether the quoted text contains a substitution that runs only when the text is evaluated.
    pub(super) fn hides_substitution(&self) -> bool {
        let text: String = self
            .pieces
            .iter()
            .filter_map(|piece| match piece {
                WordPiece::Text { text, .. } => Some(text.as_str()),
                _ => None,
            })
            .collect();
        text.contains("$(") || text.contains('`')
    }

    /// Returns the words that the shell makes of this one; `None` for a word with an unknown value.
    pub(crate) fn expand_fields(&self, vars: &ShellVars) -> Vec<Option<String>> {
        let mut chars = OriginChars::new();
        let mut quoted_any = false;
        for piece in &self.pieces {
            match piece {
                WordPiece::Text { text, quoted } => {
                    quoted_any |= quoted;
                    let from = if *quoted { CharOrigin::Quoted } else { CharOrigin::Unquoted };
                    chars.extend(text.chars().map(|c| (c, from)));
                }
                WordPiece::Param { name, quoted } => {
                    let Some(value) = vars.get(name) else { return vec![None] };
                    quoted_any |= quoted;
                    let from = if *quoted { CharOrigin::Quoted } else { CharOrigin::Variable };
                    chars.extend(value.chars().map(|c| (c, from)));
                }
                WordPiece::Opaque { .. } => return vec![None],
            }
        }
        let mut fields = Vec::new();
        for word in expand_braces(chars) {
            let split = |&(c, from): &(char, CharOrigin)| from == CharOrigin::Variable && c.is_whitespace();
            for part in word.split(split) {
                if !part.is_empty() || quoted_any {
                    fields.push(Some(part.iter().map(|(c, _)| c).collect()));
                }
            }
        }
        fields
    }
}

/// Expands braces: `{a,b}c` becomes `ac` and `bc`. Ranges such as `{1..3}` are kept.
fn expand_braces(word: OriginChars) -> Vec<OriginChars> {
    let mut done = Vec::new();
    let mut open = vec![word];
    while let Some(word) = open.pop() {
        match find_brace(&word) {
            Some((start, end, cuts)) if open.len() + done.len() < MAX_FIELDS => {
                // The last choice is pushed first, so that the first one is popped first.
                for (from, to) in cuts.into_iter().rev() {
                    open.push([&word[..start], &word[from..to], &word[end + 1..]].concat());
                }
            }
            _ => done.push(word),
        }
    }
    done
}

/// Finds the first brace with several choices.
fn find_brace(word: &[(char, CharOrigin)]) -> Option<BraceExpansion> {
    let plain = |i: usize, c: char| word[i] == (c, CharOrigin::Unquoted);
    let start = (0..word.len()).find(|&i| plain(i, '{'))?;
    let (mut depth, mut from, mut cuts) = (0_u32, start + 1, Vec::new());
    for i in start + 1..word.len() {
        if plain(i, '{') {
            depth += 1;
        } else if plain(i, '}') && depth > 0 {
            depth -= 1;
        } else if plain(i, ',') && depth == 0 {
            cuts.push((from, i));
            from = i + 1;
        } else if plain(i, '}') {
            cuts.push((from, i));
            return (cuts.len() > 1).then_some((start, i, cuts));
        }
    }
    None
}
