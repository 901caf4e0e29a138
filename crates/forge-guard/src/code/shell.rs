//! Static check of POSIX sh and bash, by words alone. Whether a command may run is decided by
//! [`super::super::command`].

use super::tokens::CharReader;
use super::{StaticWarning, system_file};

/// Maximum nesting of substitutions that are checked.
const MAX_DEPTH: u32 = 8;

/// Risky programs: name, rule and effect.
const RISKY_PROGRAMS: [(&str, &str, &str); 22] = [
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
    ("sudo", "privilege", "requests more privileges"),
    ("su", "privilege", "requests more privileges"),
    ("doas", "privilege", "requests more privileges"),
    ("chroot", "privilege", "changes the root directory"),
    ("mount", "privilege", "changes mounts"),
    ("unshare", "privilege", "makes namespaces"),
    ("nsenter", "privilege", "enters namespaces"),
    ("insmod", "privilege", "loads a kernel module"),
    ("modprobe", "privilege", "loads a kernel module"),
];

/// Words that precede a command.
const COMMAND_PREFIX_WORDS: [&str; 10] =
    ["then", "do", "else", "elif", "if", "while", "until", "!", "time", "exec"];

/// Returns the warnings about a script.
pub(super) fn scan_shell(code: &str) -> Vec<StaticWarning> {
    let mut found = Vec::new();
    scan_script(code, 1, 0, &mut found);
    found
}

fn scan_script(code: &str, line: u32, depth: u32, found: &mut Vec<StaticWarning>) {
    let mut reader = CharReader::new(code, line);
    let mut begins = true;
    let mut documents: Vec<String> = Vec::new();
    while let Some(c) = reader.peek() {
        match c {
            '#' => {
                reader.read_while(|c| c != '\n');
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
                if c == '<' && reader.eat_text("<") && reader.peek() != Some('<') {
                    reader.eat_text("-");
                    reader.read_while(|c| c == ' ');
                    documents.push(read_word(&mut reader, MAX_DEPTH, found));
                }
            }
            c if c.is_whitespace() => {
                reader.next();
            }
            _ => {
                let line = reader.line;
                let word = read_word(&mut reader, depth, found);
                check_word(line, &word, begins, found);
                let assigns = word.split_once('=').is_some_and(|(name, _)| {
                    !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || c == '_')
                });
                begins = begins && (assigns || COMMAND_PREFIX_WORDS.contains(&word.as_str()));
            }
        }
    }
}

fn check_word(line: u32, word: &str, begins: bool, found: &mut Vec<StaticWarning>) {
    found.extend(system_file(line, word));
    if word.contains("/dev/tcp/") || word.contains("/dev/udp/") {
        found.push(StaticWarning {
            line,
            rule: "network",
            message: "opens connections through /dev/tcp".to_owned(),
        });
    }
    let program = word.rsplit('/').next().unwrap_or_default();
    if begins && let Some((program, rule, does)) = RISKY_PROGRAMS.iter().find(|(name, ..)| *name == program) {
        found.push(StaticWarning { line, rule, message: format!("`{program}` {does}") });
    }
}

/// Reads a word without its quotation marks and checks the substitutions in it.
fn read_word(reader: &mut CharReader, depth: u32, found: &mut Vec<StaticWarning>) -> String {
    let mut word = String::new();
    let start = reader.line;
    while let Some(c) = reader.peek() {
        match c {
            '\'' => {
                reader.next();
                // Single quotes have no escapes.
                word.push_str(&reader.read_while(|c| c != '\''));
                reader.next();
            }
            '"' => {
                reader.next();
                let text = reader.read_until("\"", false);
                scan_substitutions(&text, start, depth, found);
                word.push_str(&text);
            }
            '\\' => {
                reader.next();
                word.extend(reader.next().filter(|&c| c != '\n'));
            }
            '$' if reader.peek_at(1) == Some('(') => {
                reader.eat_text("$(");
                let line = reader.line;
                let inside = read_parenthesized(reader);
                if depth < MAX_DEPTH {
                    scan_script(&inside, line, depth + 1, found);
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

/// Checks the substitutions in a double-quoted text.
fn scan_substitutions(text: &str, line: u32, depth: u32, found: &mut Vec<StaticWarning>) {
    let mut reader = CharReader::new(text, line);
    while let Some(c) = reader.next() {
        if c == '\\' {
            reader.next();
            continue;
        }
        let line = reader.line;
        let inside = match c {
            '$' if reader.eat_text("(") => read_parenthesized(&mut reader),
            '`' => reader.read_until("`", false),
            _ => continue,
        };
        if depth < MAX_DEPTH {
            scan_script(&inside, line, depth + 1, found);
        }
    }
}

fn read_parenthesized(reader: &mut CharReader) -> String {
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

/// Skips a here-document, which contains no commands.
fn skip_document(reader: &mut CharReader, end: &str) {
    while reader.peek().is_some() {
        let line = reader.read_while(|c| c != '\n');
        reader.next();
        if line.trim_start_matches('\t') == end {
            return;
        }
    }
}
