//! Parsing of lists, pipelines, simple commands and redirections.

use super::{MAX_DEPTH, Redirect, ShellFault, ShellScript, SimpleCommand, Word, WordPiece};

/// Words that end a list; the caller checks that the right one follows.
const CLOSING_WORDS: [&str; 8] = ["then", "elif", "else", "fi", "do", "done", "esac", "}"];

/// A here-document with a body that follows the next newline.
pub(super) struct PendingHeredoc {
    number: usize,
    delimiter: String,
    literal: bool,
    strip_tabs: bool,
}

/// A parser that reads one text from left to right.
pub(super) struct ShellParser<'a> {
    pub(super) src: &'a str,
    pub(super) at: usize,
    pub(super) depth: u32,
    pub(super) out: ShellScript,
    pub(super) pending: Vec<PendingHeredoc>,
    pub(super) function: Option<usize>,
    pipelines: usize,
}

pub(super) type Parsed<T> = Result<T, ShellFault>;

impl<'a> ShellParser<'a> {
    pub(super) fn new(src: &'a str, depth: u32) -> Self {
        let (out, pending) = (ShellScript::default(), Vec::new());
        Self { src, at: 0, depth, out, pending, function: None, pipelines: 0 }
    }

    pub(super) fn parse_script(mut self) -> Parsed<ShellScript> {
        self.parse_list()?;
        if self.at < self.src.len() {
            return Err(ShellFault::Syntax("an unmatched closing word or bracket"));
        }
        Ok(self.out)
    }

    pub(super) fn peek(&self) -> Option<u8> {
        self.src.as_bytes().get(self.at).copied()
    }

    pub(super) fn starts_with(&self, text: &str) -> bool {
        self.src.as_bytes()[self.at..].starts_with(text.as_bytes())
    }

    pub(super) fn eat_text(&mut self, text: &str) -> bool {
        let found = self.starts_with(text);
        if found {
            self.at += text.len();
        }
        found
    }

    /// Runs `read` one level deeper.
    pub(super) fn with_depth<T>(&mut self, read: impl FnOnce(&mut Self) -> Parsed<T>) -> Parsed<T> {
        if self.depth >= MAX_DEPTH {
            return Err(ShellFault::TooDeep);
        }
        self.depth += 1;
        let result = read(self);
        self.depth -= 1;
        result
    }

    /// Skips blanks, joined lines and a comment. Must be called only between words.
    pub(super) fn skip_blanks(&mut self) {
        loop {
            match self.peek() {
                Some(b' ' | b'\t') => self.at += 1,
                Some(b'\\') if self.starts_with("\\\n") => self.at += 2,
                Some(b'#') => {
                    let rest = &self.src[self.at..];
                    self.at += rest.find('\n').unwrap_or(rest.len());
                }
                _ => return,
            }
        }
    }

    /// Skips blanks and newlines; the bodies of pending here-documents follow the first newline.
    pub(super) fn skip_newlines(&mut self) -> Parsed<()> {
        loop {
            self.skip_blanks();
            if !self.eat_text("\n") {
                return Ok(());
            }
            self.read_documents()?;
        }
    }

    /// Returns the unquoted word here if it is one whole word; for reserved words.
    pub(super) fn unquoted_word(&self) -> &'a str {
        let rest = &self.src[self.at..];
        let end = rest.find([' ', '\t', '\n', ';', '&', '|', '<', '>', '(', ')', '\'', '"', '$', '`', '\\']);
        let word = &rest[..end.unwrap_or(rest.len())];
        match rest.as_bytes().get(word.len()) {
            Some(b'\'' | b'"' | b'$' | b'`' | b'\\') => "",
            _ => word,
        }
    }

    pub(super) fn eat_word(&mut self, word: &str) -> bool {
        let found = self.unquoted_word() == word;
        if found {
            self.at += word.len();
        }
        found
    }

    pub(super) fn expect_word(&mut self, word: &str, fault: &'static str) -> Parsed<()> {
        self.skip_newlines()?;
        if self.eat_word(word) { Ok(()) } else { Err(ShellFault::Syntax(fault)) }
    }

    fn at_closer(&self) -> bool {
        match self.peek() {
            None | Some(b')') => true,
            Some(b';') => self.starts_with(";;") || self.starts_with(";&"),
            _ => CLOSING_WORDS.contains(&self.unquoted_word()),
        }
    }

    /// Parses commands up to the end, a closing bracket or a closing word, which is not consumed.
    pub(super) fn parse_list(&mut self) -> Parsed<()> {
        loop {
            self.skip_newlines()?;
            if self.at_closer() {
                return Ok(());
            }
            let first = self.out.commands.len();
            self.parse_and_or()?;
            self.skip_blanks();
            match self.peek() {
                None | Some(b')' | b'\n') => {}
                Some(b'&') => {
                    self.at += 1;
                    for command in &mut self.out.commands[first..] {
                        command.background = true;
                    }
                }
                Some(b';') if self.at_closer() => {}
                Some(b';') => self.at += 1,
                Some(_) => return Err(ShellFault::Syntax("a word or bracket where a separator is expected")),
            }
        }
    }

    /// Parses a list in brackets or a substitution, with its closing bracket.
    pub(super) fn parse_list_to_paren(&mut self) -> Parsed<()> {
        let pending = self.pending.len();
        self.with_depth(Self::parse_list)?;
        if self.pending.len() != pending {
            return Err(ShellFault::Syntax("a here-document without text"));
        }
        if self.eat_text(")") { Ok(()) } else { Err(ShellFault::Syntax("a missing `)`")) }
    }

    fn parse_and_or(&mut self) -> Parsed<()> {
        loop {
            self.parse_pipeline()?;
            self.skip_blanks();
            if !self.eat_text("&&") && !self.eat_text("||") {
                return Ok(());
            }
            self.skip_newlines()?;
        }
    }

    fn parse_pipeline(&mut self) -> Parsed<()> {
        self.skip_blanks();
        while self.eat_word("!") || self.eat_word("time") {
            self.skip_blanks();
            while self.eat_word("-p") || self.eat_word("--") {
                self.skip_blanks();
            }
        }
        let first = self.out.commands.len();
        let mut last = self.parse_command()?;
        let mut many = false;
        loop {
            self.skip_blanks();
            if self.starts_with("||") || !self.eat_text("|") {
                break;
            }
            self.eat_text("&");
            many = true;
            self.skip_newlines()?;
            let next = self.parse_command()?;
            if let Some(next) = next {
                self.out.commands[next].stdin_from = last;
            }
            last = next;
        }
        if many {
            self.pipelines += 1;
            for command in self.out.commands[first..].iter_mut().filter(|c| c.pipeline == 0) {
                command.pipeline = self.pipelines;
            }
        }
        Ok(())
    }

    /// Parses a simple command; returns its number unless it is the definition of a function.
    pub(super) fn parse_simple(&mut self) -> Parsed<Option<usize>> {
        let mut simple = SimpleCommand { function: self.function, ..SimpleCommand::default() };
        let start = self.at;
        loop {
            self.skip_blanks();
            if let Some(redirect) = self.parse_redirect()? {
                simple.redirects.push(redirect);
                continue;
            }
            if self.peek() == Some(b'(') {
                let name = match simple.words.as_slice() {
                    [name] if simple.assigns.is_empty() && simple.redirects.is_empty() => name.literal_text(),
                    _ => None,
                };
                let name = name.ok_or(ShellFault::Syntax("an unexpected `(`"))?;
                self.at += 1;
                self.skip_blanks();
                if !self.eat_text(")") {
                    return Err(ShellFault::Syntax("an unexpected `(`"));
                }
                self.define_function(name, self.depth == 0)?;
                return Ok(None);
            }
            let Some(mut word) = self.parse_word()? else { break };
            if word.raw.ends_with('=') && self.peek() == Some(b'(') {
                self.parse_array()?;
                word.pieces.push(WordPiece::Opaque { quoted: false });
            }
            match word.split_assignment() {
                Some(assign) if simple.words.is_empty() => simple.assigns.push(assign),
                _ => simple.words.push(word),
            }
        }
        if self.at == start {
            return Err(ShellFault::Syntax("a missing command"));
        }
        self.out.commands.push(simple);
        Ok(Some(self.out.commands.len() - 1))
    }

    /// Parses `(a b c)` after `name=`.
    fn parse_array(&mut self) -> Parsed<()> {
        self.at += 1;
        loop {
            self.skip_newlines()?;
            if self.eat_text(")") {
                return Ok(());
            }
            if self.parse_word()?.is_none() {
                return Err(ShellFault::Syntax("an unterminated array"));
            }
        }
    }

    /// Parses redirections after a compound command.
    pub(super) fn parse_trailing_redirects(&mut self) -> Parsed<()> {
        let mut redirects = Vec::new();
        loop {
            self.skip_blanks();
            match self.parse_redirect()? {
                Some(redirect) => redirects.push(redirect),
                None => break,
            }
        }
        if !redirects.is_empty() {
            self.out.commands.push(SimpleCommand {
                redirects,
                function: self.function,
                ..SimpleCommand::default()
            });
        }
        Ok(())
    }

    /// Parses a redirection, if there is one here.
    fn parse_redirect(&mut self) -> Parsed<Option<Redirect>> {
        let start = self.at;
        let rest = &self.src[self.at..];
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let variable = match rest.strip_prefix('{').and_then(|r| r.split_once('}')) {
            Some((name, after)) if is_name(name) && after.starts_with(['<', '>']) => name.len() + 2,
            _ => 0,
        };
        self.at += digits.max(variable);
        let operators = ["<<<", "<<-", "<<", "<&", "<>", "<", ">>", ">&", ">|", ">", "&>>", "&>"];
        let process = self.starts_with("<(") || self.starts_with(">(");
        let found = operators.into_iter().find(|op| !process && self.starts_with(op));
        let Some(operator) = found.filter(|op| !op.starts_with('&') || self.at == start) else {
            self.at = start;
            return Ok(None);
        };
        self.at += operator.len();
        self.skip_blanks();
        let target = self.parse_word()?.ok_or(ShellFault::Syntax("a redirection without a target"))?;
        Ok(Some(match operator {
            "<<<" => Redirect::String(target),
            "<<" | "<<-" => {
                let delimiter = target
                    .literal_text()
                    .ok_or(ShellFault::Syntax("a here-document with a variable delimiter"))?;
                let number = self.out.documents.len();
                let literal = target.raw.replace("\\\n", "").contains(['\'', '"', '\\']);
                self.out.documents.push(Word::default());
                self.pending.push(PendingHeredoc {
                    number,
                    delimiter,
                    literal,
                    strip_tabs: operator == "<<-",
                });
                Redirect::Document(number)
            }
            _ => Redirect::File { writes: operator.contains('>'), target },
        }))
    }

    /// Reads the bodies of pending here-documents; the position is just after a newline.
    fn read_documents(&mut self) -> Parsed<()> {
        for pending in std::mem::take(&mut self.pending) {
            let mut body = String::new();
            let mut joined = String::new();
            while self.at < self.src.len() {
                let rest = &self.src[self.at..];
                let line = rest.split('\n').next().unwrap_or_default();
                self.at = (self.at + line.len() + 1).min(self.src.len());
                let line = if pending.strip_tabs { line.trim_start_matches('\t') } else { line };
                let slashes = line.len() - line.trim_end_matches('\\').len();
                // Shells join lines before they look for the end; finding the end too early is the safe mistake.
                joined.push_str(line);
                if line == pending.delimiter || joined == pending.delimiter {
                    break;
                }
                body.push_str(line);
                body.push('\n');
                if pending.literal || slashes % 2 == 0 {
                    joined.clear();
                } else {
                    joined.pop();
                }
            }
            let word = if pending.literal {
                let pieces = vec![WordPiece::Text { text: body.clone(), quoted: true }];
                Word { pieces, raw: body }
            } else {
                self.parse_nested(&body, |inner| inner.parse_heredoc_body())?
            };
            self.out.documents[pending.number] = word;
        }
        Ok(())
    }

    /// Parses a text that is not part of `src` (a here-document, the unescaped inside of backquotes) and adds its
    /// contents.
    pub(super) fn parse_nested<T>(
        &mut self,
        text: &str,
        read: impl FnOnce(&mut ShellParser<'_>) -> Parsed<T>,
    ) -> Parsed<T> {
        if self.depth >= MAX_DEPTH {
            return Err(ShellFault::TooDeep);
        }
        let mut inner = ShellParser::new(text, self.depth + 1);
        // Append to the earlier results, so that numbers stay valid.
        inner.out = std::mem::take(&mut self.out);
        inner.function = self.function;
        inner.pipelines = self.pipelines;
        let result = read(&mut inner);
        let whole = inner.at >= text.len();
        self.pipelines = inner.pipelines;
        self.out = inner.out;
        match result {
            Ok(_) if !whole => Err(ShellFault::Syntax("an unmatched closing word or bracket")),
            other => other,
        }
    }
}

/// Returns whether a text is the name of a variable.
pub(super) fn is_name(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && text.bytes().next().is_some_and(|b| !b.is_ascii_digit())
}
