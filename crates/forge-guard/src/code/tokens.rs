//! Tokens shared by the languages, and a character reader that counts lines.

/// A token of a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum CodeToken {
    /// A name or keyword.
    Name(String),
    /// A string without its quotation marks; escapes are kept as written.
    Text(String),
    /// Any other character that is not blank, including line ends in languages where they matter.
    Mark(char),
}

/// A token with its line, from 1.
pub(super) type LineToken = (u32, CodeToken);

/// A reader of characters.
pub(super) struct CharReader {
    chars: Vec<char>,
    at: usize,
    pub(super) line: u32,
}

impl CharReader {
    pub(super) fn new(text: &str, line: u32) -> Self {
        Self { chars: text.chars().collect(), at: 0, line }
    }

    pub(super) fn peek(&self) -> Option<char> {
        self.peek_at(0)
    }

    pub(super) fn peek_at(&self, count: usize) -> Option<char> {
        self.chars.get(self.at + count).copied()
    }

    pub(super) fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += 1;
        self.line += u32::from(c == '\n');
        Some(c)
    }

    /// Consumes a text if it comes next.
    pub(super) fn eat_text(&mut self, text: &str) -> bool {
        let stands = text.chars().enumerate().all(|(n, c)| self.peek_at(n) == Some(c));
        if stands {
            text.chars().for_each(|_| {
                self.next();
            });
        }
        stands
    }

    /// Consumes characters while they satisfy `fits`.
    pub(super) fn read_while(&mut self, fits: impl Fn(char) -> bool) -> String {
        let mut taken = String::new();
        while let Some(c) = self.peek().filter(|&c| fits(c)) {
            taken.push(c);
            self.next();
        }
        taken
    }

    /// Consumes everything up to and including a mark, and returns the text without the mark; escaped characters don't
    /// end it. Without a mark, a `single` line ends at its end and any other text at the end of the program.
    pub(super) fn read_until(&mut self, mark: &str, single: bool) -> String {
        let mut taken = String::new();
        while let Some(c) = self.peek() {
            if self.eat_text(mark) || single && c == '\n' {
                break;
            }
            self.next();
            taken.push(c);
            if c == '\\'
                && let Some(escaped) = self.next()
            {
                taken.push(escaped);
            }
        }
        taken
    }
}

/// Returns whether a character may be part of a name.
pub(super) fn is_name_char(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '$'
}

/// Reads a chain of names with dots that begins at a token: its parts and the position after it.
pub(super) fn read_dotted_name(tokens: &[LineToken], at: usize) -> Option<(Vec<&str>, usize)> {
    let CodeToken::Name(first) = &tokens.get(at)?.1 else { return None };
    let mut parts = vec![first.as_str()];
    let mut end = at + 1;
    loop {
        // `a?.b` is a chain too.
        let dot =
            end + usize::from(mark_at(tokens, end) == Some('?') && mark_at(tokens, end + 1) == Some('.'));
        match (mark_at(tokens, dot), tokens.get(dot + 1)) {
            (Some('.'), Some((_, CodeToken::Name(next)))) => {
                parts.push(next);
                end = dot + 2;
            }
            _ => return Some((parts, end)),
        }
    }
}

/// Returns the mark at a position.
pub(super) fn mark_at(tokens: &[LineToken], at: usize) -> Option<char> {
    match tokens.get(at) {
        Some((_, CodeToken::Mark(c))) => Some(*c),
        _ => None,
    }
}

/// Returns the text at a position.
pub(super) fn text_at(tokens: &[LineToken], at: usize) -> Option<&str> {
    match tokens.get(at) {
        Some((_, CodeToken::Text(text))) => Some(text),
        _ => None,
    }
}

/// Returns the name at a position.
pub(super) fn name_at(tokens: &[LineToken], at: usize) -> Option<&str> {
    match tokens.get(at) {
        Some((_, CodeToken::Name(name))) => Some(name),
        _ => None,
    }
}
