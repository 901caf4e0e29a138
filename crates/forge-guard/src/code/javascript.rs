//! Static check of JavaScript and TypeScript.

use super::tokens::{
    CharReader, CodeToken, LineToken, is_name_char, mark_at, name_at, read_dotted_name, text_at,
};
use super::{StaticWarning, system_file};

/// Maximum nesting of templates that are checked.
const MAX_DEPTH: u32 = 4;

/// Risky modules: name, rule and effect.
const RISKY_MODULES: [(&str, &str, &str); 18] = [
    ("child_process", "process", "starts programs"),
    ("cluster", "process", "starts processes"),
    ("execa", "process", "starts programs"),
    ("vm", "eval", "runs text as code"),
    ("ffi-napi", "native", "calls native code"),
    ("net", "network", "opens connections"),
    ("tls", "network", "opens connections"),
    ("dgram", "network", "opens connections"),
    ("dns", "network", "resolves host names"),
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

/// Risky functions: name, rule and effect.
const RISKY_FUNCTIONS: [(&str, &str, &str); 13] = [
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

/// Returns the warnings about a program.
pub(super) fn scan_javascript(code: &str) -> Vec<StaticWarning> {
    let mut tokens = Vec::new();
    tokenize(code, 1, 0, &mut tokens);
    let mut found = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        at = scan_token(&tokens, at, &mut found);
    }
    found
}

fn tokenize(code: &str, line: u32, depth: u32, tokens: &mut Vec<LineToken>) {
    let mut reader = CharReader::new(code, line);
    while let Some(c) = reader.peek() {
        let line = reader.line;
        if reader.eat_text("//") || reader.eat_text("#!") {
            reader.read_while(|c| c != '\n');
        } else if reader.eat_text("/*") {
            while reader.peek().is_some() && !reader.eat_text("*/") {
                reader.next();
            }
        } else if c == '"' || c == '\'' {
            reader.next();
            let text = reader.read_until(&c.to_string(), true);
            tokens.push((line, CodeToken::Text(text)));
        } else if c == '`' {
            reader.next();
            read_template(&mut reader, depth, tokens);
        } else if is_name_char(c) {
            let name = reader.read_while(is_name_char);
            tokens.push((line, CodeToken::Name(name)));
        } else if c == '/' && expression_begins(tokens) {
            regular_expression(&mut reader);
            tokens.push((line, CodeToken::Text(String::new())));
        } else {
            reader.next();
            if !c.is_whitespace() {
                tokens.push((line, CodeToken::Mark(c)));
            }
        }
    }
}

/// Returns whether a slash begins a regular expression here, judged by the preceding token.
fn expression_begins(tokens: &[LineToken]) -> bool {
    const REGEX_PREFIX_WORDS: [&str; 8] = ["return", "typeof", "case", "in", "of", "delete", "void", "throw"];
    match tokens.last() {
        None => true,
        Some((_, CodeToken::Text(_))) => false,
        Some((_, CodeToken::Name(name))) => REGEX_PREFIX_WORDS.contains(&name.as_str()),
        Some((_, CodeToken::Mark(c))) => !matches!(c, ')' | ']' | '}'),
    }
}

fn regular_expression(reader: &mut CharReader) {
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

/// Reads a template after its opening mark: its text, and the code in `${…}`.
fn read_template(reader: &mut CharReader, depth: u32, tokens: &mut Vec<LineToken>) {
    let line = reader.line;
    let mut text = String::new();
    let mut code = Vec::new();
    while let Some(c) = reader.next() {
        match c {
            '`' => break,
            '\\' => {
                reader.next();
            }
            '$' if reader.eat_text("{") => {
                let start = reader.line;
                code.push((start, read_braced_code(reader)));
            }
            c => text.push(c),
        }
    }
    tokens.push((line, CodeToken::Text(text)));
    for (line, code) in code {
        if depth < MAX_DEPTH {
            tokens.push((line, CodeToken::Mark('(')));
            tokenize(&code, line, depth + 1, tokens);
            tokens.push((line, CodeToken::Mark(')')));
        }
    }
}

/// Reads the code up to its closing brace.
fn read_braced_code(reader: &mut CharReader) -> String {
    let mut open = 1;
    let mut code = String::new();
    while let Some(c) = reader.next() {
        open += i32::from(c == '{') - i32::from(c == '}');
        if open == 0 {
            break;
        }
        code.push(c);
        if matches!(c, '"' | '\'') {
            code.push_str(&reader.read_until(&c.to_string(), true));
            code.push(c);
        }
    }
    code
}

fn scan_token(tokens: &[LineToken], at: usize, found: &mut Vec<StaticWarning>) -> usize {
    let line = tokens[at].0;
    if let Some(text) = text_at(tokens, at) {
        found.extend(system_file(line, text));
        return at + 1;
    }
    let Some((parts, end)) = read_dotted_name(tokens, at) else { return at + 1 };
    let other = at > 0
        && (mark_at(tokens, at - 1) == Some('.')
            || matches!(name_at(tokens, at - 1), Some("function" | "class")));
    if other {
        return end;
    }
    let globals = ["globalThis", "window", "global", "self"];
    let parts = if parts.len() > 1 && globals.contains(&parts[0]) { &parts[1..] } else { &parts[..] };
    let path = parts.join(".");
    let called = mark_at(tokens, end) == Some('(') || at > 0 && name_at(tokens, at - 1) == Some("new");
    match path.as_str() {
        "require" | "import" if mark_at(tokens, end) == Some('(') => match text_at(tokens, end + 1) {
            Some(name) => warn_module(line, name, found),
            None => found.push(StaticWarning {
                line,
                rule: "dynamic-import",
                message: format!("`{path}` loads a module named by an expression"),
            }),
        },
        // `import "x"` and `… from "x"`.
        "import" | "from" => {
            if let Some(name) = text_at(tokens, end) {
                warn_module(line, name, found);
            }
        }
        _ => {
            let known =
                RISKY_FUNCTIONS.iter().find(|(known, ..)| *known == path && (called || known.contains('.')));
            if let Some((_, rule, does)) = known {
                found.push(StaticWarning { line, rule, message: format!("`{path}` {does}") });
            }
        }
    }
    end
}

fn warn_module(line: u32, name: &str, found: &mut Vec<StaticWarning>) {
    let name = name.strip_prefix("node:").unwrap_or(name);
    let of =
        |module: &str| name.strip_prefix(module).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    if let Some((module, rule, does)) = RISKY_MODULES.iter().find(|(module, ..)| of(module)) {
        found.push(StaticWarning { line, rule, message: format!("`{module}` {does}") });
    }
}
