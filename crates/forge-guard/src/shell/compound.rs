//! Compound commands: groups, conditions, loops, cases, tests and functions.

use super::parser::{Parser, is_name};
use super::{Fault, Simple};

type Parsed<T> = Result<T, Fault>;

impl Parser<'_> {
    /// One command of a pipeline: its number, if it is a simple one.
    pub(super) fn command(&mut self) -> Parsed<Option<usize>> {
        self.skip_blanks();
        if self.peek() == Some(b'(') {
            if self.looking_at("((")
                && let Some(end) = self.arithmetic_end(self.at + 2)?
            {
                self.out.brackets.push(self.src[self.at + 2..end].to_owned());
                self.at += 2;
                self.arithmetic(end)?;
            } else {
                self.at += 1;
                self.list_to_paren()?;
            }
            self.trailing_redirects()?;
            return Ok(None);
        }
        let word = self.plain_word();
        let compound: fn(&mut Self) -> Parsed<()> = match word {
            "{" => Self::group,
            "if" => Self::condition,
            "while" | "until" => Self::repetition,
            "for" | "select" => Self::iteration,
            "case" => Self::case,
            "[[" => Self::test,
            "function" => Self::function,
            "coproc" => return Err(Fault::Syntax("`coproc`")),
            _ => return self.simple(),
        };
        self.at += word.len();
        self.deeper(compound)?;
        self.trailing_redirects()?;
        Ok(None)
    }

    fn group(&mut self) -> Parsed<()> {
        self.list()?;
        self.expect_word("}", "`{` without `}`")
    }

    fn condition(&mut self) -> Parsed<()> {
        self.list()?;
        self.expect_word("then", "`if` without `then`")?;
        self.list()?;
        while self.take_word("elif") {
            self.list()?;
            self.expect_word("then", "`elif` without `then`")?;
            self.list()?;
        }
        if self.take_word("else") {
            self.list()?;
        }
        self.expect_word("fi", "`if` without `fi`")
    }

    fn repetition(&mut self) -> Parsed<()> {
        self.list()?;
        self.body()
    }

    fn body(&mut self) -> Parsed<()> {
        self.expect_word("do", "a loop without `do`")?;
        self.list()?;
        self.expect_word("done", "a loop without `done`")
    }

    fn iteration(&mut self) -> Parsed<()> {
        self.skip_blanks();
        if self.looking_at("((") {
            let end = self.arithmetic_end(self.at + 2)?.ok_or(Fault::Syntax("`for ((` without `))`"))?;
            self.at += 2;
            self.arithmetic(end)?;
        } else {
            let name = self.plain_word().to_owned();
            if !is_name(&name) {
                return Err(Fault::Syntax("a loop without a variable"));
            }
            self.at += name.len();
            self.out.loop_variables.push(name);
            self.skip_newlines()?;
            if self.take_word("in") {
                loop {
                    self.skip_blanks();
                    if self.word()?.is_none() {
                        break;
                    }
                }
            }
        }
        self.skip_blanks();
        self.take(";");
        self.skip_newlines()?;
        if self.take_word("{") { self.group() } else { self.body() }
    }

    fn case(&mut self) -> Parsed<()> {
        self.skip_blanks();
        self.word()?.ok_or(Fault::Syntax("`case` without a word"))?;
        self.expect_word("in", "`case` without `in`")?;
        loop {
            self.skip_newlines()?;
            if self.take_word("esac") {
                return Ok(());
            }
            self.take("(");
            loop {
                self.skip_blanks();
                self.word()?.ok_or(Fault::Syntax("a `case` without a pattern"))?;
                self.skip_blanks();
                if !self.take("|") {
                    break;
                }
            }
            if !self.take(")") {
                return Err(Fault::Syntax("a pattern without `)`"));
            }
            self.list()?;
            if !self.take(";;&") && !self.take(";;") && !self.take(";&") {
                return self.expect_word("esac", "`case` without `esac`");
            }
        }
    }

    /// `[[ … ]]`: its words are no commands, but may hold some.
    fn test(&mut self) -> Parsed<()> {
        self.out.evaluates = true;
        loop {
            self.skip_newlines()?;
            if self.take_word("]]") {
                return Ok(());
            }
            match self.peek() {
                None => return Err(Fault::Syntax("`[[` without `]]`")),
                Some(b'<' | b'>') if self.looking_at("<(") || self.looking_at(">(") => {
                    self.word()?;
                }
                Some(b'<' | b'>' | b'(' | b')' | b'|' | b'&' | b';') => self.at += 1,
                Some(_) => {
                    self.word()?;
                }
            }
        }
    }

    fn function(&mut self) -> Parsed<()> {
        self.skip_blanks();
        let name = self.word()?.and_then(|word| word.literal());
        let name = name.ok_or(Fault::Syntax("`function` without a name"))?;
        self.skip_blanks();
        if self.looking_at("()") {
            self.at += 2;
        }
        // The word `function` begins a compound command.
        self.define(name, self.depth == 1)
    }

    /// The body of a function: its commands count as if they stood in the line.
    pub(super) fn define(&mut self, name: String, plain: bool) -> Parsed<()> {
        if plain && self.function.is_none() {
            self.out.defined.push((self.out.functions.len(), self.out.commands.len()));
        }
        let outer = self.function.replace(self.out.functions.len());
        self.out.functions.push(name);
        self.skip_newlines()?;
        let first = self.out.commands.len();
        let body = self.deeper(Self::command);
        self.function = outer;
        if body?.is_some() {
            return Err(Fault::Syntax("a function whose body is not in brackets"));
        }
        debug_assert!(self.out.commands[first..].iter().all(|c: &Simple| c.function.is_some()));
        Ok(())
    }
}
