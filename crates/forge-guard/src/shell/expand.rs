//! What a word stands for, as far as that can be told without running anything.

use super::parser::is_name;
use super::{Piece, Word};
use std::collections::BTreeMap;

/// Variables whose values are known from the line itself.
pub(crate) type Vars = BTreeMap<String, String>;

/// Words that one word may become; what goes beyond is not looked at.
const MAX_FIELDS: usize = 64;

/// Where a character of a word comes from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum From {
    Plain,
    Quoted,
    Variable,
}

type Chars = Vec<(char, From)>;
/// Where a brace begins and ends, and from where to where each of its choices goes.
type Brace = (usize, usize, Vec<(usize, usize)>);

impl Word {
    pub(super) fn push(&mut self, text: &str, quoted: bool) {
        if let Some(Piece::Text { text: last, quoted: same }) = self.pieces.last_mut()
            && *same == quoted
        {
            last.push_str(text);
            return;
        }
        self.pieces.push(Piece::Text { text: text.to_owned(), quoted });
    }

    /// The text, if no part of it is decided by the shell. Patterns and braces stand in it as written.
    pub(crate) fn literal(&self) -> Option<String> {
        let text = |piece: &Piece| match piece {
            Piece::Text { text, .. } => Some(text.clone()),
            _ => None,
        };
        self.pieces.iter().map(text).collect()
    }

    /// The text, if the word is exactly this one word whatever the shell does.
    pub(crate) fn fixed(&self) -> Option<String> {
        let expands = |piece: &Piece| match piece {
            Piece::Text { text, quoted: false } => text.contains(['*', '?', '[', '{', '~']),
            _ => false,
        };
        if self.raw != "[" && self.pieces.iter().any(expands) { None } else { self.literal() }
    }

    /// Whether the word stays one word, whatever its value.
    pub(crate) fn is_one_field(&self) -> bool {
        self.fixed().is_some()
            || self.pieces.iter().all(|piece| match piece {
                Piece::Text { text, quoted } => *quoted || !text.contains(['*', '?', '[', '{']),
                // "$@" is as many words as there are arguments.
                Piece::Param { name, quoted } => *quoted && name != "@",
                Piece::Opaque { quoted } => *quoted && !self.raw.contains('@'),
            })
    }

    /// `NAME=value`, `NAME+=value` or `NAME[…]=value`, if it is one.
    pub(super) fn assignment(&self) -> Option<(String, Self)> {
        let Some(Piece::Text { text, quoted: false }) = self.pieces.first() else { return None };
        let name = text.split(['=', '+', '[']).next().filter(|name| is_name(name))?;
        let after = &text[name.len()..];
        let value = match after.as_bytes() {
            [b'=', ..] => &after[1..],
            [b'+', b'=', ..] => &after[2..],
            // The subscript may hold substitutions, so its end may stand in a later piece.
            [b'[', ..] if self.raw.contains("]=") || self.raw.contains("]+=") => {
                let opaque = Self { pieces: vec![Piece::Opaque { quoted: false }], raw: self.raw.clone() };
                return Some((name.to_owned(), opaque));
            }
            _ => return None,
        };
        let mut pieces = vec![Piece::Text { text: value.to_owned(), quoted: false }];
        pieces.extend_from_slice(&self.pieces[1..]);
        if after.starts_with('+') {
            pieces.push(Piece::Opaque { quoted: true });
        }
        Some((name.to_owned(), Self { pieces, raw: self.raw.clone() }))
    }

    /// Whether its quoted text holds a substitution that stays dormant until something evaluates it.
    pub(super) fn hides_substitution(&self) -> bool {
        let text: String = self
            .pieces
            .iter()
            .filter_map(|piece| match piece {
                Piece::Text { text, .. } => Some(text.as_str()),
                _ => None,
            })
            .collect();
        text.contains("$(") || text.contains('`')
    }

    /// The words that the shell makes of it; `None` for one whose value is not known.
    pub(crate) fn fields(&self, vars: &Vars) -> Vec<Option<String>> {
        let mut chars = Chars::new();
        let mut quoted_any = false;
        for piece in &self.pieces {
            match piece {
                Piece::Text { text, quoted } => {
                    quoted_any |= quoted;
                    let from = if *quoted { From::Quoted } else { From::Plain };
                    chars.extend(text.chars().map(|c| (c, from)));
                }
                Piece::Param { name, quoted } => {
                    let Some(value) = vars.get(name) else { return vec![None] };
                    quoted_any |= quoted;
                    let from = if *quoted { From::Quoted } else { From::Variable };
                    chars.extend(value.chars().map(|c| (c, from)));
                }
                Piece::Opaque { .. } => return vec![None],
            }
        }
        let mut fields = Vec::new();
        for word in braces(chars) {
            let split = |&(c, from): &(char, From)| from == From::Variable && c.is_whitespace();
            for part in word.split(split) {
                if !part.is_empty() || quoted_any {
                    fields.push(Some(part.iter().map(|(c, _)| c).collect()));
                }
            }
        }
        fields
    }
}

/// Brace expansion: `{a,b}c` becomes `ac` and `bc`. Ranges such as `{1..3}` stay as they are.
fn braces(word: Chars) -> Vec<Chars> {
    let mut done = Vec::new();
    let mut open = vec![word];
    while let Some(word) = open.pop() {
        match choices(&word) {
            Some((start, end, cuts)) if open.len() + done.len() < MAX_FIELDS => {
                // The last choice is pushed first, so that the first one is taken first.
                for (from, to) in cuts.into_iter().rev() {
                    open.push([&word[..start], &word[from..to], &word[end + 1..]].concat());
                }
            }
            _ => done.push(word),
        }
    }
    done
}

/// The first brace with several choices: its beginning, its end, and each choice.
fn choices(word: &[(char, From)]) -> Option<Brace> {
    let plain = |i: usize, c: char| word[i] == (c, From::Plain);
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
