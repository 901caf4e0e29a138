//! Files of `NAME=value` lines, as given with `--env`.
//!
//! The grammar is small: blank lines and `#` comments; an optional `export`; values that are bare (a ` #` starts a
//! comment), in single quotes (taken literally) or in double quotes (`\n`, `\t`, `\r`, `\"`, `\\`, `\$`). A quoted
//! value may span lines. Nothing is expanded.

/// A variable set in the file.
#[derive(Clone, PartialEq, Eq)]
pub struct EnvAssignment {
    /// Name of the variable.
    pub name: String,
    /// Value of the variable.
    pub value: String,
    /// Line number, from 1.
    pub line: usize,
}

impl std::fmt::Debug for EnvAssignment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The value may be a key.
        f.debug_struct("Assignment")
            .field("name", &self.name)
            .field("line", &self.line)
            .finish_non_exhaustive()
    }
}

/// An invalid line. Its text is not stored, because it may hold an API key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DotenvLineError {
    /// Line number, from 1.
    pub line: usize,
    /// Description of the error.
    pub problem: &'static str,
}

/// Parses a whole file and reports every invalid line. The last value of a repeated name is used.
///
/// # Errors
/// All lines that do not have the form `NAME=value`.
pub fn parse(text: &str) -> Result<Vec<EnvAssignment>, Vec<DotenvLineError>> {
    let (mut out, mut faults): (Vec<EnvAssignment>, Vec<DotenvLineError>) = (Vec::new(), Vec::new());
    let mut rest = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut line = 1;
    while !rest.is_empty() {
        let before = rest;
        match parse_statement(rest) {
            Ok((assigned, tail)) => {
                rest = tail;
                if let Some((name, value)) = assigned {
                    out.retain(|earlier| earlier.name != name);
                    out.push(EnvAssignment { name, value, line });
                }
            }
            Err(problem) => {
                faults.push(DotenvLineError { line, problem });
                rest = after_line(rest);
            }
        }
        let eaten = &before[..before.len() - rest.len()];
        line += eaten.bytes().filter(|b| *b == b'\n').count();
    }
    if faults.is_empty() { Ok(out) } else { Err(faults) }
}

type ParsedStatement<'a> = (Option<(String, String)>, &'a str);

/// Parses one line, or more if a quoted value spans them.
fn parse_statement(text: &str) -> Result<ParsedStatement<'_>, &'static str> {
    let line = text.trim_start_matches([' ', '\t']);
    if line.is_empty() || line.starts_with(['\n', '\r', '#']) {
        return Ok((None, after_line(line)));
    }
    let line = match line.strip_prefix("export") {
        Some(tail) if tail.starts_with([' ', '\t']) => tail.trim_start_matches([' ', '\t']),
        _ => line,
    };
    let end = line.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(line.len());
    let (name, tail) = line.split_at(end);
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
        return Err("a name of letters, digits and _ is missing");
    }
    let Some(tail) = tail.trim_start_matches([' ', '\t']).strip_prefix('=') else {
        return Err("the = after the name is missing");
    };
    let tail = tail.trim_start_matches([' ', '\t']);
    let (value, tail) = match tail.chars().next() {
        Some('\'') => parse_single_quoted(&tail[1..])?,
        Some('"') => parse_double_quoted(&tail[1..])?,
        _ => parse_unquoted(tail),
    };
    if value.contains('\0') {
        return Err("the value holds a NUL");
    }
    Ok((Some((name.to_owned(), value)), tail))
}

fn parse_unquoted(text: &str) -> (String, &str) {
    let line = text.lines().next().unwrap_or_default();
    let end = line
        .char_indices()
        .find(|(at, c)| *c == '#' && (*at == 0 || line[..*at].ends_with([' ', '\t'])))
        .map_or(line.len(), |(at, _)| at);
    (line[..end].trim_end().to_owned(), after_line(text))
}

fn parse_single_quoted(text: &str) -> Result<(String, &str), &'static str> {
    let (value, tail) = text.split_once('\'').ok_or("the closing ' is missing")?;
    Ok((value.to_owned(), after_closing_quote(tail)?))
}

fn parse_double_quoted(text: &str) -> Result<(String, &str), &'static str> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Ok((value, after_closing_quote(&text[at + 1..])?)),
            '\\' => match chars.next() {
                Some((_, 'n')) => value.push('\n'),
                Some((_, 't')) => value.push('\t'),
                Some((_, 'r')) => value.push('\r'),
                Some((_, c @ ('"' | '\\' | '$'))) => value.push(c),
                Some((_, c)) => value.extend(['\\', c]),
                None => break,
            },
            c => value.push(c),
        }
    }
    Err("the closing \" is missing")
}

/// Checks the text after a closing quote, which must be empty or a comment.
fn after_closing_quote(text: &str) -> Result<&str, &'static str> {
    let line = text.lines().next().unwrap_or_default().trim();
    if line.is_empty() || line.starts_with('#') {
        Ok(after_line(text))
    } else {
        Err("there is text after the closing quote")
    }
}

fn after_line(text: &str) -> &str {
    text.split_once('\n').map_or("", |(_, tail)| tail)
}
