//! POSIX sh and bash, as far as words go. What a command line may run is judged by [`super::super::command`].

use super::tokens::Reader;
use super::{Warning, system_file};

/// Substitutions in substitutions that are looked into.
const MAX_DEPTH: u32 = 8;

/// Programs with rule and what they do.
const PROGRAMS: [(&str, &str, &str); 22] = [
    ("eval", "eval", "runs text as code"),
    ("curl", "network", "opens connections"),
    ("wget", "network", "opens connections"),
    ("nc", "network", "opens connections"),
    ("ncat", "network", "opens connections"),
    ("netcat", "network", "opens connections"),
    ("socat", "network", "opens connections"),
    ("telnet", "network", "opens connections"),
    ("ssh", "network", "opens connections"),
    ("scp", "network", "opens connections"),
    ("sftp", "network", "opens connections"),
    ("ftp", "network", "opens connections"),
    ("rsync", "network", "opens connections"),
    ("sudo", "privilege", "asks for more rights"),
    ("su", "privilege", "asks for more rights"),
    ("doas", "privilege", "asks for more rights"),
    ("chroot", "privilege", "changes the root folder"),
    ("mount", "privilege", "changes mounts"),
    ("unshare", "privilege", "makes namespaces"),
    ("nsenter", "privilege", "enters namespaces"),
    ("insmod", "privilege", "loads a kernel module"),
    ("modprobe", "privilege", "loads a kernel module"),
];

/// Words behind which a command begins.
const BEFORE: [&str; 10] = ["then", "do", "else", "elif", "if", "while", "until", "!", "time", "exec"];

/// What deserves a second look.
pub(super) fn check(code: &str) -> Vec<Warning> {
    let mut found = Vec::new();
    script(code, 1, 0, &mut found);
    found
}

fn script(code: &str, line: u32, depth: u32, found: &mut Vec<Warning>) {
    let mut reader = Reader::new(code, line);
    let mut begins = true;
    let mut documents: Vec<String> = Vec::new();
    while let Some(c) = reader.peek() {
        match c {
            '#' => {
                reader.while_(|c| c != '\n');
            }
            '\n' => {
                reader.next();
                begins = true;
                documents.drain(..).for_each(|end| skip_document(&mut reader, &end));
            }
            ';' | '|' | '&' | '(' | ')' | '{' | '}' | '`' => {
                reader.next();
                begins = true;
            }
            '<' | '>' => {
                reader.next();
                if c == '<' && reader.take("<") && reader.peek() != Some('<') {
                    reader.take("-");
                    reader.while_(|c| c == ' ');
                    documents.push(word(&mut reader, MAX_DEPTH, found));
                }
            }
            c if c.is_whitespace() => {
                reader.next();
            }
            _ => {
                let line = reader.line;
                let word = word(&mut reader, depth, found);
                judge(line, &word, begins, found);
                let assigns = word.split_once('=').is_some_and(|(name, _)| {
                    !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || c == '_')
                });
                begins = begins && (assigns || BEFORE.contains(&word.as_str()));
            }
        }
    }
}

fn judge(line: u32, word: &str, begins: bool, found: &mut Vec<Warning>) {
    found.extend(system_file(line, word));
    if word.contains("/dev/tcp/") || word.contains("/dev/udp/") {
        found.push(Warning {
            line,
            rule: "network",
            message: "opens connections through /dev/tcp".to_owned(),
        });
    }
    let program = word.rsplit('/').next().unwrap_or_default();
    if begins && let Some((program, rule, does)) = PROGRAMS.iter().find(|(name, ..)| *name == program) {
        found.push(Warning { line, rule, message: format!("`{program}` {does}") });
    }
}

/// A word without its quotation marks; what is substituted in it is looked at as well.
fn word(reader: &mut Reader, depth: u32, found: &mut Vec<Warning>) -> String {
    let mut word = String::new();
    let start = reader.line;
    while let Some(c) = reader.peek() {
        match c {
            '\'' => {
                reader.next();
                // Nothing is escaped in single quotes.
                word.push_str(&reader.while_(|c| c != '\''));
                reader.next();
            }
            '"' => {
                reader.next();
                let text = reader.until("\"", false);
                substituted(&text, start, depth, found);
                word.push_str(&text);
            }
            '\\' => {
                reader.next();
                word.extend(reader.next().filter(|&c| c != '\n'));
            }
            '$' if reader.ahead(1) == Some('(') => {
                reader.take("$(");
                let line = reader.line;
                let inside = enclosed(reader);
                if depth < MAX_DEPTH {
                    script(&inside, line, depth + 1, found);
                }
                word.push('$');
            }
            c if c.is_whitespace() || ";|&()<>`".contains(c) => break,
            c => {
                reader.next();
                word.push(c);
            }
        }
    }
    word
}

/// The substitutions in a text with double quotes.
fn substituted(text: &str, line: u32, depth: u32, found: &mut Vec<Warning>) {
    let mut reader = Reader::new(text, line);
    while let Some(c) = reader.next() {
        if c == '\\' {
            reader.next();
            continue;
        }
        let line = reader.line;
        let inside = match c {
            '$' if reader.take("(") => enclosed(&mut reader),
            '`' => reader.until("`", false),
            _ => continue,
        };
        if depth < MAX_DEPTH {
            script(&inside, line, depth + 1, found);
        }
    }
}

fn enclosed(reader: &mut Reader) -> String {
    let mut open = 1;
    let mut inside = String::new();
    while let Some(c) = reader.next() {
        open += i32::from(c == '(') - i32::from(c == ')');
        if open == 0 {
            break;
        }
        inside.push(c);
    }
    inside
}

/// The lines of a here-document are no commands.
fn skip_document(reader: &mut Reader, end: &str) {
    while reader.peek().is_some() {
        let line = reader.while_(|c| c != '\n');
        reader.next();
        if line.trim_start_matches('\t') == end {
            return;
        }
    }
}
