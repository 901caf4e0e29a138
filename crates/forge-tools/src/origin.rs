//! Reading of the remote `origin` from a repository's git configuration, without git.
//!
//! The configuration is treated as text: no program it names is started, and no file it names is included. Addresses
//! that other settings would rewrite (`url.<base>.insteadOf`) are taken as written. If the remote has more than one
//! address, none is used.

use crate::create_pr::{parse_remote, parse_repository};
use forge_types::RemoteRepository;

/// Returns the repository of the remote `origin` in this git configuration, if it is exactly one on a server.
pub fn origin_repository(config: &str) -> Option<RemoteRepository> {
    let mut urls = config_values(config, "remote", Some("origin"), "url");
    urls.dedup();
    let [url] = urls.as_slice() else { return None };
    let (host, path) = parse_remote(url.trim())?;
    let (owner, name) = parse_repository(&path)?;
    Some(RemoteRepository { host: host.to_ascii_lowercase(), repository: format!("{owner}/{name}") })
}

/// Returns the working tree that this git configuration sets (`core.worktree`).
pub fn work_tree(config: &str) -> Option<String> {
    config_values(config, "core", None, "worktree").pop()
}

/// Returns all values of a key, in the syntax of git-config(1). Stops at an unreadable line: git refuses such a file.
fn config_values(config: &str, section: &str, subsection: Option<&str>, key: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut chars =
        ConfigChars { rest: config.strip_prefix('\u{feff}').unwrap_or(config).chars().peekable() };
    let mut inside = false;
    loop {
        match chars.skip_blank() {
            None => return found,
            Some('#' | ';') => chars.skip_line(),
            Some('[') => match chars.read_header() {
                Some((name, sub)) => {
                    inside = name.eq_ignore_ascii_case(section) && sub.as_deref() == subsection;
                }
                None => return Vec::new(),
            },
            Some(c) if c.is_ascii_alphabetic() => match chars.read_assignment() {
                Some((name, value)) if inside && name.eq_ignore_ascii_case(key) => found.push(value),
                Some(_) => {}
                None => return Vec::new(),
            },
            Some(_) => return Vec::new(),
        }
    }
}

/// A reader of a configuration's characters.
struct ConfigChars<'a> {
    rest: std::iter::Peekable<std::str::Chars<'a>>,
}

impl ConfigChars<'_> {
    fn next(&mut self) -> Option<char> {
        match self.rest.next() {
            Some('\r') if self.rest.peek() == Some(&'\n') => self.rest.next(),
            other => other,
        }
    }

    /// Skips white space and returns the next character without consuming it.
    fn skip_blank(&mut self) -> Option<char> {
        while self.rest.peek().is_some_and(|c| c.is_whitespace()) {
            self.rest.next();
        }
        self.rest.peek().copied()
    }

    fn skip_line(&mut self) {
        while !matches!(self.rest.next(), None | Some('\n')) {}
    }

    /// Reads `[section]`, `[section.sub]` or `[section "sub"]`.
    fn read_header(&mut self) -> Option<(String, Option<String>)> {
        let mut name = String::new();
        self.next();
        loop {
            match self.next()? {
                ']' => {
                    // The old spelling of a subsection, which is case-insensitive.
                    let split = name.split_once('.');
                    let split = split.map(|(name, sub)| (name.to_owned(), Some(sub.to_ascii_lowercase())));
                    return Some(split.unwrap_or((name, None)));
                }
                c if c.is_ascii_alphanumeric() || c == '-' || c == '.' => name.push(c),
                ' ' | '\t' => break,
                _ => return None,
            }
        }
        while matches!(self.rest.peek(), Some(' ' | '\t')) {
            self.rest.next();
        }
        if self.next()? != '"' {
            return None;
        }
        let mut sub = String::new();
        loop {
            match self.next()? {
                '"' => break,
                '\n' => return None,
                '\\' => sub.push(self.next()?),
                c => sub.push(c),
            }
        }
        (self.next()? == ']').then_some((name, Some(sub)))
    }

    /// Reads `key = value` to the end of its line; a key alone is true.
    fn read_assignment(&mut self) -> Option<(String, String)> {
        let mut name = String::new();
        while let Some(&c) = self.rest.peek() {
            if !(c.is_ascii_alphanumeric() || c == '-') {
                break;
            }
            name.push(c);
            self.rest.next();
        }
        while matches!(self.rest.peek(), Some(' ' | '\t')) {
            self.rest.next();
        }
        match self.next() {
            None | Some('\n') => Some((name, "true".to_owned())),
            Some('=') => Some((name, self.read_value()?)),
            Some('#' | ';') => {
                self.skip_line();
                Some((name, "true".to_owned()))
            }
            Some(_) => None,
        }
    }

    fn read_value(&mut self) -> Option<String> {
        let (mut value, mut kept, mut quoted) = (String::new(), 0, false);
        loop {
            match self.next() {
                None | Some('\n') if quoted => return None,
                None | Some('\n') => break,
                Some('"') => {
                    quoted = !quoted;
                    kept = value.len();
                }
                Some('\\') => {
                    match self.next()? {
                        '\n' => continue,
                        'n' => value.push('\n'),
                        't' => value.push('\t'),
                        'b' => value.push('\u{8}'),
                        c @ ('"' | '\\') => value.push(c),
                        _ => return None,
                    }
                    kept = value.len();
                }
                Some('#' | ';') if !quoted => {
                    self.skip_line();
                    break;
                }
                Some(c) if c.is_whitespace() && !quoted => {
                    if !value.is_empty() {
                        value.push(c);
                    }
                }
                Some(c) => {
                    value.push(c);
                    kept = value.len();
                }
            }
        }
        // White space at the end counts only if it was quoted.
        value.truncate(kept);
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_origin_is_read_as_git_reads_it() {
        for (config, wanted) in [
            (
                "[remote \"origin\"]\n\turl = https://github.com/o/n.git\n\tfetch = +x:y\n",
                Some("github.com o/n"),
            ),
            ("[REMOTE \"origin\"] URL=git@GitHub.com:o/n # mine\n", Some("github.com o/n")),
            ("[remote.origin]\nurl = \"https://t:k@github.com/o/n\"\n", Some("github.com o/n")),
            (
                "\u{feff}; x\r\n[core]\r\n\tbare\r\n[remote \"origin\"]\r\n\turl = https://a.test/\\\r\no/n\r\n",
                Some("a.test o/n"),
            ),
            ("[remote \"o\\rigin\"]\nurl = https://github.com/o/n ; x\n", Some("github.com o/n")),
            ("[remote \"Origin\"]\nurl = https://github.com/o/n\n", None),
            ("[remote \"other\"]\nurl = https://github.com/o/n\n", None),
            ("[remote \"origin\"]\nurl = /srv/n.git\n", None),
            ("[remote \"origin\"]\nurl = https://github.com/o/n\nurl = https://github.com/evil/n\n", None),
            (
                "[remote \"origin\"]\nurl = https://github.com/o/n\n[remote \"origin\"]\nurl=git@github.com:e/n\n",
                None,
            ),
            ("[remote \"origin\"]\nurl = https://github.com/o/n\n[broken\n", None),
            (
                "[url \"https://github.com/evil/\"]\ninsteadOf = o:\n[remote \"origin\"]\nurl = o:n/m\n",
                Some("o n/m"),
            ),
            ("", None),
        ] {
            let read =
                origin_repository(config).map(|origin| format!("{} {}", origin.host, origin.repository));
            assert_eq!(read.as_deref(), wanted, "{config:?}");
        }
        assert_eq!(work_tree("[core]\nworktree = ../../../sub\n").as_deref(), Some("../../../sub"));
    }

    proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text in "(\\PC|\n|\\[remote \"origin\"\\]|url|=|\"|\\\\){0,40}") {
            let _ = origin_repository(&text);
        }
    }
}
