//! Compound commands: groups, conditions, loops, cases, tests and functions.

use super::parser::{Parsed, ShellParser, is_name};
use super::{ShellFault, SimpleCommand};

impl ShellParser<'_> {
    /// Parses one command of a pipeline; returns its number if it is a simple one.
    pub(super) fn parse_command(&mut self) -> Parsed<Option<usize>> {
        self.skip_blanks();
        if self.peek() == Some(b'(') {
            if self.starts_with("((")
                && let Some(end) = self.find_arithmetic_end(self.at + 2)?
            {
                self.out.brackets.push(self.src[self.at + 2..end].to_owned());
                self.at += 2;
                self.parse_arithmetic(end)?;
            } else {
                self.at += 1;
                self.parse_list_to_paren()?;
            }
            self.parse_trailing_redirects()?;
            return Ok(None);
        }
        let word = self.unquoted_word();
        let compound: fn(&mut Self) -> Parsed<()> = match word {
            "{" => Self::parse_group,
            "if" => Self::parse_condition,
            "while" | "until" => Self::parse_repetition,
            "for" | "select" => Self::parse_iteration,
            "case" => Self::parse_case,
            "[[" => Self::parse_test,
            "function" => Self::parse_function,
            "coproc" => return Err(ShellFault::Syntax("`coproc`")),
            _ => return self.parse_simple(),
        };
        self.at += word.len();
        self.with_depth(compound)?;
        self.parse_trailing_redirects()?;
        Ok(None)
    }

    fn parse_group(&mut self) -> Parsed<()> {
        self.parse_list()?;
        self.expect_word("}", "`{` without `}`")
    }

    fn parse_condition(&mut self) -> Parsed<()> {
        self.parse_list()?;
        self.expect_word("then", "`if` without `then`")?;
        self.parse_list()?;
        while self.eat_word("elif") {
            self.parse_list()?;
            self.expect_word("then", "`elif` without `then`")?;
            self.parse_list()?;
        }
        if self.eat_word("else") {
            self.parse_list()?;
        }
        self.expect_word("fi", "`if` without `fi`")
    }

    fn parse_repetition(&mut self) -> Parsed<()> {
        self.parse_list()?;
        self.parse_body()
    }

    fn parse_body(&mut self) -> Parsed<()> {
        self.expect_word("do", "a loop without `do`")?;
        self.parse_list()?;
        self.expect_word("done", "a loop without `done`")
    }

    fn parse_iteration(&mut self) -> Parsed<()> {
        self.skip_blanks();
        if self.starts_with("((") {
            let end =
                self.find_arithmetic_end(self.at + 2)?.ok_or(ShellFault::Syntax("`for ((` without `))`"))?;
            self.at += 2;
            self.parse_arithmetic(end)?;
        } else {
            let name = self.unquoted_word().to_owned();
            if !is_name(&name) {
                return Err(ShellFault::Syntax("a loop without a variable"));
            }
            self.at += name.len();
            self.out.loop_variables.push(name);
            self.skip_newlines()?;
            if self.eat_word("in") {
                loop {
                    self.skip_blanks();
                    if self.parse_word()?.is_none() {
                        break;
                    }
                }
            }
        }
        self.skip_blanks();
        self.eat_text(";");
        self.skip_newlines()?;
        if self.eat_word("{") { self.parse_group() } else { self.parse_body() }
    }

    fn parse_case(&mut self) -> Parsed<()> {
        self.skip_blanks();
        self.parse_word()?.ok_or(ShellFault::Syntax("`case` without a word"))?;
        self.expect_word("in", "`case` without `in`")?;
        loop {
            self.skip_newlines()?;
            if self.eat_word("esac") {
                return Ok(());
            }
            self.eat_text("(");
            loop {
                self.skip_blanks();
                self.parse_word()?.ok_or(ShellFault::Syntax("a `case` without a pattern"))?;
                self.skip_blanks();
                if !self.eat_text("|") {
                    break;
                }
            }
            if !self.eat_text(")") {
                return Err(ShellFault::Syntax("a pattern without `)`"));
            }
            self.parse_list()?;
            if !self.eat_text(";;&") && !self.eat_text(";;") && !self.eat_text(";&") {
                return self.expect_word("esac", "`case` without `esac`");
            }
        }
    }

    /// Parses `[[ … ]]`: its words are no commands, but may contain some.
    fn parse_test(&mut self) -> Parsed<()> {
        self.out.evaluates = true;
        loop {
            self.skip_newlines()?;
            if self.eat_word("]]") {
                return Ok(());
            }
            match self.peek() {
                None => return Err(ShellFault::Syntax("`[[` without `]]`")),
                Some(b'<' | b'>') if self.starts_with("<(") || self.starts_with(">(") => {
                    self.parse_word()?;
                }
                Some(b'<' | b'>' | b'(' | b')' | b'|' | b'&' | b';') => self.at += 1,
                Some(_) => {
                    self.parse_word()?;
                }
            }
        }
    }

    fn parse_function(&mut self) -> Parsed<()> {
        self.skip_blanks();
        let name = self.parse_word()?.and_then(|word| word.literal_text());
        let name = name.ok_or(ShellFault::Syntax("`function` without a name"))?;
        self.skip_blanks();
        if self.starts_with("()") {
            self.at += 2;
        }
        // The word `function` begins a compound command.
        self.define_function(name, self.depth == 1)
    }

    /// Parses the body of a function; its commands count as part of the line.
    pub(super) fn define_function(&mut self, name: String, plain: bool) -> Parsed<()> {
        if plain && self.function.is_none() {
            self.out.defined.push((self.out.functions.len(), self.out.commands.len()));
        }
        let outer = self.function.replace(self.out.functions.len());
        self.out.functions.push(name);
        self.skip_newlines()?;
        let first = self.out.commands.len();
        let body = self.with_depth(Self::parse_command);
        self.function = outer;
        if body?.is_some() {
            return Err(ShellFault::Syntax("a function body without brackets"));
        }
        debug_assert!(self.out.commands[first..].iter().all(|c: &SimpleCommand| c.function.is_some()));
        Ok(())
    }
}
