//! Parsing of words: quotes, parameters and substitutions.

use super::parser::{Parsed, ShellParser, is_name};
use super::{ShellFault, Word, WordPiece};

impl ShellParser<'_> {
    /// Parses the word here; `None` at a separator.
    pub(super) fn parse_word(&mut self) -> Parsed<Option<Word>> {
        let start = self.at;
        let mut word = Word::default();
        while let Some(byte) = self.peek() {
            match byte {
                b' ' | b'\t' | b'\n' | b';' | b'&' | b'|' | b'(' | b')' => break,
                b'<' | b'>' => {
                    if !self.starts_with("<(") && !self.starts_with(">(") {
                        break;
                    }
                    self.at += 2;
                    self.parse_list_to_paren()?;
                    word.pieces.push(WordPiece::Opaque { quoted: true });
                }
                b'\'' => self.parse_single_quoted(&mut word)?,
                b'"' => {
                    self.at += 1;
                    self.parse_double_quoted(&mut word)?;
                }
                b'\\' => self.parse_escape(&mut word)?,
                b'$' => self.parse_dollar(&mut word, false)?,
                b'`' => self.parse_backquotes(&mut word, false)?,
                _ => self.parse_character(&mut word, false),
            }
        }
        if self.at == start {
            return Ok(None);
        }
        self.src[start..self.at].clone_into(&mut word.raw);
        self.out.hides |= word.hides_substitution();
        Ok(Some(word))
    }

    fn parse_character(&mut self, word: &mut Word, quoted: bool) {
        if let Some(c) = self.src[self.at..].chars().next() {
            word.push(c.encode_utf8(&mut [0; 4]), quoted);
            self.at += c.len_utf8();
        }
    }

    fn parse_single_quoted(&mut self, word: &mut Word) -> Parsed<()> {
        let rest = &self.src[self.at + 1..];
        let end = rest.find('\'').ok_or(ShellFault::Syntax("an unterminated quote"))?;
        word.push(&rest[..end], true);
        self.at += end + 2;
        Ok(())
    }

    fn parse_escape(&mut self, word: &mut Word) -> Parsed<()> {
        self.at += 1;
        match self.peek() {
            None => return Err(ShellFault::Syntax("a `\\` at the end")),
            Some(b'\n') => self.at += 1,
            Some(_) => self.parse_character(word, true),
        }
        Ok(())
    }

    /// Parses the inside of `"…"` after the opening quote.
    fn parse_double_quoted(&mut self, word: &mut Word) -> Parsed<()> {
        word.push("", true);
        loop {
            match self.peek() {
                None => return Err(ShellFault::Syntax("an unterminated quote")),
                Some(b'"') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(_) => self.parse_expandable(word)?,
            }
        }
    }

    /// Parses a here-document's body with expansions.
    pub(super) fn parse_heredoc_body(&mut self) -> Parsed<Word> {
        let mut word = Word::default();
        while self.peek().is_some() {
            self.parse_expandable(&mut word)?;
        }
        self.src.clone_into(&mut word.raw);
        Ok(word)
    }

    /// Parses one step within double quotes or a here-document.
    fn parse_expandable(&mut self, word: &mut Word) -> Parsed<()> {
        match self.peek() {
            Some(b'\\') => match self.src.as_bytes().get(self.at + 1) {
                Some(b'$' | b'"' | b'`' | b'\\' | b'\n') => return self.parse_escape(word),
                _ => self.parse_character(word, true),
            },
            Some(b'$') => return self.parse_dollar(word, true),
            Some(b'`') => return self.parse_backquotes(word, true),
            _ => self.parse_character(word, true),
        }
        Ok(())
    }

    fn parse_dollar(&mut self, word: &mut Word, quoted: bool) -> Parsed<()> {
        let rest = &self.src[self.at + 1..];
        match rest.as_bytes().first() {
            Some(b'(') => {
                self.at += 2;
                if self.peek() == Some(b'(')
                    && let Some(end) = self.find_arithmetic_end(self.at + 1)?
                {
                    self.at += 1;
                    self.parse_arithmetic(end)?;
                } else {
                    self.parse_list_to_paren()?;
                }
                word.pieces.push(WordPiece::Opaque { quoted });
            }
            Some(b'{') => {
                self.at += 2;
                self.with_depth(|parser| parser.parse_braced(word, quoted))?;
            }
            Some(b'[') => return Err(ShellFault::Syntax("`$[`, which shells read differently")),
            Some(b'\'') if !quoted => {
                self.at += 2;
                self.parse_ansi_quoted(word)?;
            }
            Some(b'"') if !quoted => {
                self.at += 2;
                self.parse_double_quoted(word)?;
            }
            Some(b'@' | b'*' | b'#' | b'?' | b'-' | b'$' | b'!' | b'0'..=b'9') => {
                word.pieces.push(WordPiece::Param { name: rest[..1].to_owned(), quoted });
                self.at += 2;
            }
            _ => {
                let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
                if end == 0 {
                    word.push("$", quoted);
                } else {
                    word.pieces.push(WordPiece::Param { name: rest[..end].to_owned(), quoted });
                }
                self.at += 1 + end;
            }
        }
        Ok(())
    }

    /// Parses the inside of `${…}`.
    fn parse_braced(&mut self, word: &mut Word, quoted: bool) -> Parsed<()> {
        let rest = &self.src[self.at..];
        if let Some((name, _)) = rest.split_once('}')
            && (is_name(name) || matches!(name, "@" | "*" | "#" | "?" | "-" | "$" | "!" | "0"))
        {
            word.pieces.push(WordPiece::Param { name: name.to_owned(), quoted });
            self.at += name.len() + 1;
            return Ok(());
        }
        if rest.starts_with([' ', '\t', '\n', '|', '(']) {
            return Err(ShellFault::Syntax("a command in `${ }`"));
        }
        self.out.evaluates = true;
        let mut inside = Word::default();
        loop {
            match self.peek() {
                None => return Err(ShellFault::Syntax("`${` without `}`")),
                Some(b'}') => {
                    self.at += 1;
                    break;
                }
                // Shells disagree on the meaning of a quote here.
                Some(b'\'' | b'"') if quoted => return Err(ShellFault::Syntax("quotes in a quoted `${ }`")),
                Some(b'"') => {
                    self.at += 1;
                    self.parse_double_quoted(&mut inside)?;
                }
                Some(b'\'') => self.parse_single_quoted(&mut inside)?,
                Some(b'\\') => self.parse_escape(&mut inside)?,
                Some(b'$') => self.parse_dollar(&mut inside, quoted)?,
                Some(b'`') => self.parse_backquotes(&mut inside, quoted)?,
                Some(b'<' | b'>') if !quoted && (self.starts_with("<(") || self.starts_with(">(")) => {
                    self.at += 2;
                    self.parse_list_to_paren()?;
                }
                Some(_) => self.parse_character(&mut inside, true),
            }
        }
        self.out.hides |= inside.hides_substitution();
        word.pieces.push(WordPiece::Opaque { quoted });
        Ok(())
    }

    /// Parses the inside of `` `…` ``, which has its own rule for backslashes.
    fn parse_backquotes(&mut self, word: &mut Word, quoted: bool) -> Parsed<()> {
        let mut inside = String::new();
        self.at += 1;
        loop {
            let rest = &self.src[self.at..];
            let c = rest.chars().next().ok_or(ShellFault::Syntax("an unterminated backquote"))?;
            self.at += c.len_utf8();
            match c {
                '`' => break,
                '\\' => {
                    let next = self.src[self.at..].chars().next();
                    let next = next.ok_or(ShellFault::Syntax("an unterminated backquote"))?;
                    if !(matches!(next, '`' | '\\' | '$') || quoted && next == '"') {
                        inside.push('\\');
                    }
                    inside.push(next);
                    self.at += next.len_utf8();
                }
                _ => inside.push(c),
            }
        }
        self.parse_nested(&inside, |inner| inner.parse_list())?;
        word.pieces.push(WordPiece::Opaque { quoted });
        Ok(())
    }

    /// Parses the inside of `$'…'`.
    fn parse_ansi_quoted(&mut self, word: &mut Word) -> Parsed<()> {
        let mut text = String::new();
        loop {
            let rest = &self.src[self.at..];
            let c = rest.chars().next().ok_or(ShellFault::Syntax("an unterminated quote"))?;
            self.at += c.len_utf8();
            match c {
                '\'' => break,
                '\\' => match self.parse_ansi_escape() {
                    // A NUL ends the text and a lone byte is no character, so the shell's value is unknown.
                    Some('\0' | '\u{80}'..) | None => {
                        word.pieces.push(WordPiece::Opaque { quoted: true });
                    }
                    Some(c) => text.push(c),
                },
                _ => text.push(c),
            }
        }
        word.push(&text, true);
        Ok(())
    }

    /// Returns the character of an escape in `$'…'`, after the backslash.
    fn parse_ansi_escape(&mut self) -> Option<char> {
        let c = self.src[self.at..].chars().next()?;
        self.at += c.len_utf8();
        let simple = match c {
            'a' => '\x07',
            'b' => '\x08',
            'e' | 'E' => '\x1b',
            'f' => '\x0c',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'v' => '\x0b',
            '\\' | '\'' | '"' | '?' => c,
            'x' => return self.parse_char_code(16, 2),
            'u' => return self.parse_char_code(16, 4),
            'U' => return self.parse_char_code(16, 8),
            '0'..='7' => {
                self.at -= 1;
                return self.parse_char_code(8, 3);
            }
            _ => return None,
        };
        Some(simple)
    }

    fn parse_char_code(&mut self, radix: u32, most: usize) -> Option<char> {
        let rest = &self.src[self.at..];
        let digits = rest.chars().take(most).take_while(|c| c.is_digit(radix)).count();
        let value = u32::from_str_radix(&rest[..digits], radix).ok()?;
        self.at += digits;
        char::from_u32(value)
    }

    /// Finds the `))` that ends the arithmetic which begins at `from`; `None` if it is a list in two brackets.
    pub(super) fn find_arithmetic_end(&self, from: usize) -> Parsed<Option<usize>> {
        let bytes = self.src.as_bytes();
        let mut depth = 1_u32;
        for (i, byte) in bytes.iter().enumerate().skip(from) {
            match byte {
                b'(' => depth += 1,
                b')' => depth -= 1,
                b'\'' | b'"' | b'\\' => return Err(ShellFault::Syntax("quotes in `(( ))`")),
                _ => {}
            }
            if depth == 0 {
                return Ok((bytes.get(i + 1) == Some(&b')')).then_some(i));
            }
        }
        Err(ShellFault::Syntax("a missing `)`"))
    }

    /// Parses arithmetic up to `end`, for the substitutions in it.
    pub(super) fn parse_arithmetic(&mut self, end: usize) -> Parsed<()> {
        self.out.evaluates = true;
        let mut inside = Word::default();
        while self.at < end {
            match self.peek() {
                Some(b'$') => self.with_depth(|parser| parser.parse_dollar(&mut inside, true))?,
                Some(b'`') => self.parse_backquotes(&mut inside, true)?,
                _ => self.parse_character(&mut inside, true),
            }
        }
        if self.at != end {
            return Err(ShellFault::Syntax("a missing `))`"));
        }
        self.at += 2;
        Ok(())
    }
}
