//! Lists, pipelines, simple commands and redirections.

use super::{Fault, MAX_DEPTH, Piece, Redirect, Script, Simple, Word};

/// Words that end a list; whoever opened it checks that it is the right one.
const CLOSERS: [&str; 8] = ["then", "elif", "else", "fi", "do", "done", "esac", "}"];

/// A here-document whose body follows the next newline.
pub(super) struct Pending {
    number: usize,
    delimiter: String,
    literal: bool,
    strip_tabs: bool,
}

/// Reads one text from left to right.
pub(super) struct Parser<'a> {
    pub(super) src: &'a str,
    pub(super) at: usize,
    pub(super) depth: u32,
    pub(super) out: Script,
    pub(super) pending: Vec<Pending>,
    pub(super) function: Option<usize>,
    pipelines: usize,
}

type Parsed<T> = Result<T, Fault>;

impl<'a> Parser<'a> {
    pub(super) fn new(src: &'a str, depth: u32) -> Self {
        let (out, pending) = (Script::default(), Vec::new());
        Self { src, at: 0, depth, out, pending, function: None, pipelines: 0 }
    }

    pub(super) fn script(mut self) -> Parsed<Script> {
        self.list()?;
        if self.at < self.src.len() {
            return Err(Fault::Syntax("a closing word or bracket without its beginning"));
        }
        Ok(self.out)
    }

    pub(super) fn peek(&self) -> Option<u8> {
        self.src.as_bytes().get(self.at).copied()
    }

    pub(super) fn looking_at(&self, text: &str) -> bool {
        self.src.as_bytes()[self.at..].starts_with(text.as_bytes())
    }

    pub(super) fn take(&mut self, text: &str) -> bool {
        let found = self.looking_at(text);
        if found {
            self.at += text.len();
        }
        found
    }

    /// Runs `read` one level deeper.
    pub(super) fn deeper<T>(&mut self, read: impl FnOnce(&mut Self) -> Parsed<T>) -> Parsed<T> {
        if self.depth >= MAX_DEPTH {
            return Err(Fault::TooDeep);
        }
        self.depth += 1;
        let result = read(self);
        self.depth -= 1;
        result
    }

    /// Skips blanks, joined lines and a comment. To be called only between words.
    pub(super) fn skip_blanks(&mut self) {
        loop {
            match self.peek() {
                Some(b' ' | b'\t') => self.at += 1,
                Some(b'\\') if self.looking_at("\\\n") => self.at += 2,
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
            if !self.take("\n") {
                return Ok(());
            }
            self.read_documents()?;
        }
    }

    /// The unquoted word here, if it is one whole word; for reserved words.
    pub(super) fn plain_word(&self) -> &'a str {
        let rest = &self.src[self.at..];
        let end = rest.find([' ', '\t', '\n', ';', '&', '|', '<', '>', '(', ')', '\'', '"', '$', '`', '\\']);
        let word = &rest[..end.unwrap_or(rest.len())];
        match rest.as_bytes().get(word.len()) {
            Some(b'\'' | b'"' | b'$' | b'`' | b'\\') => "",
            _ => word,
        }
    }

    pub(super) fn take_word(&mut self, word: &str) -> bool {
        let found = self.plain_word() == word;
        if found {
            self.at += word.len();
        }
        found
    }

    pub(super) fn expect_word(&mut self, word: &str, fault: &'static str) -> Parsed<()> {
        self.skip_newlines()?;
        if self.take_word(word) { Ok(()) } else { Err(Fault::Syntax(fault)) }
    }

    fn at_closer(&self) -> bool {
        match self.peek() {
            None | Some(b')') => true,
            Some(b';') => self.looking_at(";;") || self.looking_at(";&"),
            _ => CLOSERS.contains(&self.plain_word()),
        }
    }

    /// Commands up to the end, a closing bracket or a closing word, which is left for the caller.
    pub(super) fn list(&mut self) -> Parsed<()> {
        loop {
            self.skip_newlines()?;
            if self.at_closer() {
                return Ok(());
            }
            let first = self.out.commands.len();
            self.and_or()?;
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
                Some(_) => return Err(Fault::Syntax("a word or bracket where a separator is expected")),
            }
        }
    }

    /// A list in brackets or substitution, with its closing bracket.
    pub(super) fn list_to_paren(&mut self) -> Parsed<()> {
        let pending = self.pending.len();
        self.deeper(Self::list)?;
        if self.pending.len() != pending {
            return Err(Fault::Syntax("a here-document without its text"));
        }
        if self.take(")") { Ok(()) } else { Err(Fault::Syntax("a missing `)`")) }
    }

    fn and_or(&mut self) -> Parsed<()> {
        loop {
            self.pipeline()?;
            self.skip_blanks();
            if !self.take("&&") && !self.take("||") {
                return Ok(());
            }
            self.skip_newlines()?;
        }
    }

    fn pipeline(&mut self) -> Parsed<()> {
        self.skip_blanks();
        while self.take_word("!") || self.take_word("time") {
            self.skip_blanks();
            while self.take_word("-p") || self.take_word("--") {
                self.skip_blanks();
            }
        }
        let first = self.out.commands.len();
        let mut last = self.command()?;
        let mut many = false;
        loop {
            self.skip_blanks();
            if self.looking_at("||") || !self.take("|") {
                break;
            }
            self.take("&");
            many = true;
            self.skip_newlines()?;
            let next = self.command()?;
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

    /// A simple command: its number, if it is not a function's definition.
    pub(super) fn simple(&mut self) -> Parsed<Option<usize>> {
        let mut simple = Simple { function: self.function, ..Simple::default() };
        let start = self.at;
        loop {
            self.skip_blanks();
            if let Some(redirect) = self.redirect()? {
                simple.redirects.push(redirect);
                continue;
            }
            if self.peek() == Some(b'(') {
                let name = match simple.words.as_slice() {
                    [name] if simple.assigns.is_empty() && simple.redirects.is_empty() => name.literal(),
                    _ => None,
                };
                let name = name.ok_or(Fault::Syntax("an unexpected `(`"))?;
                self.at += 1;
                self.skip_blanks();
                if !self.take(")") {
                    return Err(Fault::Syntax("an unexpected `(`"));
                }
                self.define(name, self.depth == 0)?;
                return Ok(None);
            }
            let Some(mut word) = self.word()? else { break };
            if word.raw.ends_with('=') && self.peek() == Some(b'(') {
                self.array()?;
                word.pieces.push(Piece::Opaque { quoted: false });
            }
            match word.assignment() {
                Some(assign) if simple.words.is_empty() => simple.assigns.push(assign),
                _ => simple.words.push(word),
            }
        }
        if self.at == start {
            return Err(Fault::Syntax("a missing command"));
        }
        self.out.commands.push(simple);
        Ok(Some(self.out.commands.len() - 1))
    }

    /// `(a b c)` after `name=`.
    fn array(&mut self) -> Parsed<()> {
        self.at += 1;
        loop {
            self.skip_newlines()?;
            if self.take(")") {
                return Ok(());
            }
            if self.word()?.is_none() {
                return Err(Fault::Syntax("an array without its end"));
            }
        }
    }

    /// Redirections after a compound command.
    pub(super) fn trailing_redirects(&mut self) -> Parsed<()> {
        let mut redirects = Vec::new();
        loop {
            self.skip_blanks();
            match self.redirect()? {
                Some(redirect) => redirects.push(redirect),
                None => break,
            }
        }
        if !redirects.is_empty() {
            self.out.commands.push(Simple { redirects, function: self.function, ..Simple::default() });
        }
        Ok(())
    }

    /// A redirection, if one stands here.
    fn redirect(&mut self) -> Parsed<Option<Redirect>> {
        let start = self.at;
        let rest = &self.src[self.at..];
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let variable = match rest.strip_prefix('{').and_then(|r| r.split_once('}')) {
            Some((name, after)) if is_name(name) && after.starts_with(['<', '>']) => name.len() + 2,
            _ => 0,
        };
        self.at += digits.max(variable);
        let operators = ["<<<", "<<-", "<<", "<&", "<>", "<", ">>", ">&", ">|", ">", "&>>", "&>"];
        let process = self.looking_at("<(") || self.looking_at(">(");
        let found = operators.into_iter().find(|op| !process && self.looking_at(op));
        let Some(operator) = found.filter(|op| !op.starts_with('&') || self.at == start) else {
            self.at = start;
            return Ok(None);
        };
        self.at += operator.len();
        self.skip_blanks();
        let target = self.word()?.ok_or(Fault::Syntax("a redirection without a target"))?;
        Ok(Some(match operator {
            "<<<" => Redirect::String(target),
            "<<" | "<<-" => {
                let delimiter =
                    target.literal().ok_or(Fault::Syntax("a here-document's end is not fixed"))?;
                let number = self.out.documents.len();
                let literal = target.raw.replace("\\\n", "").contains(['\'', '"', '\\']);
                self.out.documents.push(Word::default());
                self.pending.push(Pending { number, delimiter, literal, strip_tabs: operator == "<<-" });
                Redirect::Document(number)
            }
            _ => Redirect::File { writes: operator.contains('>'), target },
        }))
    }

    /// Reads the bodies of pending here-documents; the position is just behind a newline.
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
                // Shells join lines before they look for the end; seeing the end too early is the safe mistake.
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
                let pieces = vec![Piece::Text { text: body.clone(), quoted: true }];
                Word { pieces, raw: body }
            } else {
                self.nested(&body, |inner| inner.document())?
            };
            self.out.documents[pending.number] = word;
        }
        Ok(())
    }

    /// Reads a text that is not part of `src` (a here-document, the unescaped inside of backquotes) and takes
    /// over what it holds.
    pub(super) fn nested<T>(
        &mut self,
        text: &str,
        read: impl FnOnce(&mut Parser<'_>) -> Parsed<T>,
    ) -> Parsed<T> {
        if self.depth >= MAX_DEPTH {
            return Err(Fault::TooDeep);
        }
        let mut inner = Parser::new(text, self.depth + 1);
        // What is found joins what was found before, so numbers stay right.
        inner.out = std::mem::take(&mut self.out);
        inner.function = self.function;
        inner.pipelines = self.pipelines;
        let result = read(&mut inner);
        let whole = inner.at >= text.len();
        self.pipelines = inner.pipelines;
        self.out = inner.out;
        match result {
            Ok(_) if !whole => Err(Fault::Syntax("a closing word or bracket without its beginning")),
            other => other,
        }
    }
}

/// Whether a text is a variable's name.
pub(super) fn is_name(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && text.bytes().next().is_some_and(|b| !b.is_ascii_digit())
}
