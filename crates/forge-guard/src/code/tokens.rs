//! Tokens that the languages share, and a reader of characters that counts lines.

/// Part of a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum CodeToken {
    /// A name or keyword.
    Name(String),
    /// A string without its quotation marks; escapes stand as they were written.
    Text(String),
    /// Anything else that is not blank. A line end is one too, where the language cares.
    Mark(char),
}

/// A token with its line, from 1.
pub(super) type LineToken = (u32, CodeToken);

/// Reads characters.
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

    /// Takes a text if it stands here.
    pub(super) fn eat_text(&mut self, text: &str) -> bool {
        let stands = text.chars().enumerate().all(|(n, c)| self.peek_at(n) == Some(c));
        if stands {
            text.chars().for_each(|_| {
                self.next();
            });
        }
        stands
    }

    /// Takes characters as long as they fit.
    pub(super) fn read_while(&mut self, fits: impl Fn(char) -> bool) -> String {
        let mut taken = String::new();
        while let Some(c) = self.peek().filter(|&c| fits(c)) {
            taken.push(c);
            self.next();
        }
        taken
    }

    /// Takes all up to a mark, which is taken but not given; escaped characters don't end it. Without a mark a
    /// `single` line ends at its end, anything else at the end of the program.
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

/// Whether a character may stand in a name.
pub(super) fn is_name_char(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '$'
}

/// A chain of names with dots, beginning at a token: its parts and the position behind it.
pub(super) fn read_dotted_name(tokens: &[LineToken], at: usize) -> Option<(Vec<&str>, usize)> {
    let CodeToken::Name(first) = &tokens.get(at)?.1 else { return None };
    let mut parts = vec![first.as_str()];
    let mut end = at + 1;
    loop {
        // `a?.b` is a chain as well.
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

/// The mark at a position.
pub(super) fn mark_at(tokens: &[LineToken], at: usize) -> Option<char> {
    match tokens.get(at) {
        Some((_, CodeToken::Mark(c))) => Some(*c),
        _ => None,
    }
}

/// The text at a position.
pub(super) fn text_at(tokens: &[LineToken], at: usize) -> Option<&str> {
    match tokens.get(at) {
        Some((_, CodeToken::Text(text))) => Some(text),
        _ => None,
    }
}

/// The name at a position.
pub(super) fn name_at(tokens: &[LineToken], at: usize) -> Option<&str> {
    match tokens.get(at) {
        Some((_, CodeToken::Name(name))) => Some(name),
        _ => None,
    }
}
