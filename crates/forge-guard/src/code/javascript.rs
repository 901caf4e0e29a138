//! JavaScript and TypeScript.

use super::tokens::{Placed, Reader, Token, chain, in_name, mark, name, text};
use super::{Warning, system_file};

/// Templates in templates that are looked into.
const MAX_DEPTH: u32 = 4;

/// Modules with rule and what they do.
const MODULES: [(&str, &str, &str); 18] = [
    ("child_process", "process", "starts programs"),
    ("cluster", "process", "starts processes"),
    ("execa", "process", "starts programs"),
    ("vm", "eval", "runs text as code"),
    ("ffi-napi", "native", "calls native code"),
    ("net", "network", "opens connections"),
    ("tls", "network", "opens connections"),
    ("dgram", "network", "opens connections"),
    ("dns", "network", "asks for names"),
    ("http", "network", "opens connections"),
    ("https", "network", "opens connections"),
    ("http2", "network", "opens connections"),
    ("undici", "network", "opens connections"),
    ("axios", "network", "opens connections"),
    ("node-fetch", "network", "opens connections"),
    ("got", "network", "opens connections"),
    ("ws", "network", "opens connections"),
    ("request", "network", "opens connections"),
];

/// What is called.
const FUNCTIONS: [(&str, &str, &str); 13] = [
    ("eval", "eval", "runs text as code"),
    ("Function", "eval", "runs text as code"),
    ("fetch", "network", "opens connections"),
    ("XMLHttpRequest", "network", "opens connections"),
    ("WebSocket", "network", "opens connections"),
    ("EventSource", "network", "opens connections"),
    ("process.binding", "native", "reaches into the runtime"),
    ("process._linkedBinding", "native", "reaches into the runtime"),
    ("process.dlopen", "native", "calls native code"),
    ("Deno.run", "process", "starts programs"),
    ("Deno.Command", "process", "starts programs"),
    ("Bun.spawn", "process", "starts programs"),
    ("Bun.spawnSync", "process", "starts programs"),
];

/// What deserves a second look.
pub(super) fn check(code: &str) -> Vec<Warning> {
    let mut tokens = Vec::new();
    tokenize(code, 1, 0, &mut tokens);
    let mut found = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        at = step(&tokens, at, &mut found);
    }
    found
}

fn tokenize(code: &str, line: u32, depth: u32, tokens: &mut Vec<Placed>) {
    let mut reader = Reader::new(code, line);
    while let Some(c) = reader.peek() {
        let line = reader.line;
        if reader.take("//") || reader.take("#!") {
            reader.while_(|c| c != '\n');
        } else if reader.take("/*") {
            while reader.peek().is_some() && !reader.take("*/") {
                reader.next();
            }
        } else if c == '"' || c == '\'' {
            reader.next();
            let text = reader.until(&c.to_string(), true);
            tokens.push((line, Token::Text(text)));
        } else if c == '`' {
            reader.next();
            template(&mut reader, depth, tokens);
        } else if in_name(c) {
            let name = reader.while_(in_name);
            tokens.push((line, Token::Name(name)));
        } else if c == '/' && expression_begins(tokens) {
            regular_expression(&mut reader);
            tokens.push((line, Token::Text(String::new())));
        } else {
            reader.next();
            if !c.is_whitespace() {
                tokens.push((line, Token::Mark(c)));
            }
        }
    }
}

/// Whether a slash begins a regular expression here, judged by what stands before it.
fn expression_begins(tokens: &[Placed]) -> bool {
    const WORDS: [&str; 8] = ["return", "typeof", "case", "in", "of", "delete", "void", "throw"];
    match tokens.last() {
        None => true,
        Some((_, Token::Text(_))) => false,
        Some((_, Token::Name(name))) => WORDS.contains(&name.as_str()),
        Some((_, Token::Mark(c))) => !matches!(c, ')' | ']' | '}'),
    }
}

fn regular_expression(reader: &mut Reader) {
    reader.next();
    let mut class = false;
    while let Some(c) = reader.peek().filter(|&c| c != '\n') {
        reader.next();
        match c {
            '\\' => {
                reader.next();
            }
            '[' => class = true,
            ']' => class = false,
            '/' if !class => break,
            _ => {}
        }
    }
}

/// A template behind its first mark: its text, and the code in `${…}`.
fn template(reader: &mut Reader, depth: u32, tokens: &mut Vec<Placed>) {
    let line = reader.line;
    let mut text = String::new();
    let mut code = Vec::new();
    while let Some(c) = reader.next() {
        match c {
            '`' => break,
            '\\' => {
                reader.next();
            }
            '$' if reader.take("{") => {
                let start = reader.line;
                code.push((start, enclosed(reader)));
            }
            c => text.push(c),
        }
    }
    tokens.push((line, Token::Text(text)));
    for (line, code) in code {
        if depth < MAX_DEPTH {
            tokens.push((line, Token::Mark('(')));
            tokenize(&code, line, depth + 1, tokens);
            tokens.push((line, Token::Mark(')')));
        }
    }
}

/// The code up to the brace that closes it.
fn enclosed(reader: &mut Reader) -> String {
    let mut open = 1;
    let mut code = String::new();
    while let Some(c) = reader.next() {
        open += i32::from(c == '{') - i32::from(c == '}');
        if open == 0 {
            break;
        }
        code.push(c);
        if matches!(c, '"' | '\'') {
            code.push_str(&reader.until(&c.to_string(), true));
            code.push(c);
        }
    }
    code
}

fn step(tokens: &[Placed], at: usize, found: &mut Vec<Warning>) -> usize {
    let line = tokens[at].0;
    if let Some(text) = text(tokens, at) {
        found.extend(system_file(line, text));
        return at + 1;
    }
    let Some((parts, end)) = chain(tokens, at) else { return at + 1 };
    let other = at > 0
        && (mark(tokens, at - 1) == Some('.') || matches!(name(tokens, at - 1), Some("function" | "class")));
    if other {
        return end;
    }
    let globals = ["globalThis", "window", "global", "self"];
    let parts = if parts.len() > 1 && globals.contains(&parts[0]) { &parts[1..] } else { &parts[..] };
    let path = parts.join(".");
    let called = mark(tokens, end) == Some('(') || at > 0 && name(tokens, at - 1) == Some("new");
    match path.as_str() {
        "require" | "import" if mark(tokens, end) == Some('(') => match text(tokens, end + 1) {
            Some(name) => module(line, name, found),
            None => found.push(Warning {
                line,
                rule: "dynamic-import",
                message: format!("`{path}` loads what an expression names"),
            }),
        },
        // `import "x"` and `… from "x"`.
        "import" | "from" => {
            if let Some(name) = text(tokens, end) {
                module(line, name, found);
            }
        }
        _ => {
            let known =
                FUNCTIONS.iter().find(|(known, ..)| *known == path && (called || known.contains('.')));
            if let Some((_, rule, does)) = known {
                found.push(Warning { line, rule, message: format!("`{path}` {does}") });
            }
        }
    }
    end
}

fn module(line: u32, name: &str, found: &mut Vec<Warning>) {
    let name = name.strip_prefix("node:").unwrap_or(name);
    let of =
        |module: &str| name.strip_prefix(module).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    if let Some((module, rule, does)) = MODULES.iter().find(|(module, ..)| of(module)) {
        found.push(Warning { line, rule, message: format!("`{module}` {does}") });
    }
}
