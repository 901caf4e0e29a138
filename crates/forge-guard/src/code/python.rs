//! Static check of Python.

use super::tokens::{
    CharReader, CodeToken, LineToken, is_name_char, mark_at, name_at, read_dotted_name, text_at,
};
use super::{StaticWarning, system_file};
use std::collections::BTreeMap;

/// Maximum nesting of strings (`f"{f'{x}'}"`) that are checked.
const MAX_DEPTH: u32 = 4;

/// Risky modules, reported when imported: name, rule and effect.
const RISKY_MODULES: [(&str, &str, &str); 20] = [
    ("subprocess", "process", "starts programs"),
    ("pty", "process", "starts programs"),
    ("ctypes", "native", "calls native code"),
    ("cffi", "native", "calls native code"),
    ("socket", "network", "opens connections"),
    ("socketserver", "network", "opens connections"),
    ("ssl", "network", "opens connections"),
    ("urllib.request", "network", "opens connections"),
    ("urllib3", "network", "opens connections"),
    ("requests", "network", "opens connections"),
    ("httpx", "network", "opens connections"),
    ("aiohttp", "network", "opens connections"),
    ("http.client", "network", "opens connections"),
    ("http.server", "network", "opens connections"),
    ("ftplib", "network", "opens connections"),
    ("smtplib", "network", "opens connections"),
    ("telnetlib", "network", "opens connections"),
    ("xmlrpc.client", "network", "opens connections"),
    ("websockets", "network", "opens connections"),
    ("paramiko", "network", "opens connections"),
];

/// Risky functions: name, rule and effect; a trailing `*` matches the rest of a name.
const RISKY_FUNCTIONS: [(&str, &str, &str); 24] = [
    ("os.system", "process", "starts programs"),
    ("os.popen", "process", "starts programs"),
    ("os.exec*", "process", "starts programs"),
    ("os.spawn*", "process", "starts programs"),
    ("os.posix_spawn*", "process", "starts programs"),
    ("os.startfile", "process", "starts programs"),
    ("os.fork", "process", "starts processes"),
    ("os.forkpty", "process", "starts processes"),
    ("asyncio.create_subprocess_*", "process", "starts programs"),
    ("asyncio.open_connection", "network", "opens connections"),
    ("eval", "eval", "runs text as code"),
    ("exec", "eval", "runs text as code"),
    ("compile", "eval", "compiles text to code"),
    ("builtins.eval", "eval", "runs text as code"),
    ("builtins.exec", "eval", "runs text as code"),
    ("builtins.compile", "eval", "compiles text to code"),
    ("code.Interactive*", "eval", "runs text as code"),
    ("__import__", "dynamic-import", "imports a module by name"),
    ("builtins.__import__", "dynamic-import", "imports a module by name"),
    ("importlib.import_module", "dynamic-import", "imports a module by name"),
    ("pickle.load*", "unpickle", "runs code from pickled bytes"),
    ("marshal.load*", "unpickle", "loads code from bytes"),
    ("dill.load*", "unpickle", "runs code from pickled bytes"),
    ("shelve.open", "unpickle", "runs code from pickled bytes"),
];

/// Returns the warnings about a program.
pub(super) fn scan_python(code: &str) -> Vec<StaticWarning> {
    let mut tokens = Vec::new();
    tokenize(code, 1, 0, &mut tokens);
    let mut checker = PythonChecker { tokens: &tokens, aliases: BTreeMap::new(), found: Vec::new() };
    let mut at = 0;
    while at < tokens.len() {
        at = checker.scan_token(at);
    }
    checker.found
}

fn tokenize(code: &str, line: u32, depth: u32, tokens: &mut Vec<LineToken>) {
    let mut reader = CharReader::new(code, line);
    while let Some(c) = reader.peek() {
        let line = reader.line;
        if c == '#' {
            reader.read_while(|c| c != '\n');
        } else if c == '"' || c == '\'' {
            read_string(&mut reader, "", depth, tokens);
        } else if is_name_char(c) {
            let name = reader.read_while(is_name_char);
            let prefix = name.len() <= 2 && name.chars().all(|c| "rbufRBUFtT".contains(c));
            if prefix && matches!(reader.peek(), Some('"' | '\'')) {
                read_string(&mut reader, &name, depth, tokens);
            } else {
                tokens.push((line, CodeToken::Name(name)));
            }
        } else {
            reader.next();
            // A line continued with a backslash is one line.
            if c == '\\' {
                reader.eat_text("\n");
            } else if c == '\n' || !c.is_whitespace() {
                tokens.push((line, CodeToken::Mark(c)));
            }
        }
    }
}

fn read_string(reader: &mut CharReader, prefix: &str, depth: u32, tokens: &mut Vec<LineToken>) {
    let line = reader.line;
    let quote = reader.next().unwrap_or('"');
    let long: String = [quote; 3].iter().collect();
    let text = if reader.eat_text(&long[1..]) {
        reader.read_until(&long, false)
    } else {
        reader.read_until(&long[..1], true)
    };
    if depth < MAX_DEPTH && prefix.contains(['f', 'F', 't', 'T']) {
        tokenize_fstring(&text, line, depth + 1, tokens);
    }
    tokens.push((line, CodeToken::Text(text)));
}

/// Reads the expressions in an f-string.
fn tokenize_fstring(text: &str, line: u32, depth: u32, tokens: &mut Vec<LineToken>) {
    let mut reader = CharReader::new(text, line);
    while let Some(c) = reader.next() {
        if c != '{' || reader.eat_text("{") {
            continue;
        }
        let (start, mut open, mut inside) = (reader.line, 1, String::new());
        while let Some(c) = reader.next() {
            open += i32::from(c == '{') - i32::from(c == '}');
            if open == 0 {
                break;
            }
            inside.push(c);
        }
        tokenize(&inside, start, depth, tokens);
    }
}

struct PythonChecker<'a> {
    tokens: &'a [LineToken],
    /// Full names of imported names, from the imports so far.
    aliases: BTreeMap<&'a str, String>,
    found: Vec<StaticWarning>,
}

impl<'a> PythonChecker<'a> {
    fn warn(&mut self, line: u32, rule: &'static str, message: String) {
        self.found.push(StaticWarning { line, rule, message });
    }

    /// Checks a token and returns the position of the next one.
    fn scan_token(&mut self, at: usize) -> usize {
        let line = self.tokens[at].0;
        if let Some(text) = text_at(self.tokens, at) {
            self.found.extend(system_file(line, text));
            return at + 1;
        }
        let begins = at == 0 || matches!(mark_at(self.tokens, at - 1), Some('\n' | ';' | ':'));
        match name_at(self.tokens, at) {
            Some("import") if begins => return self.read_import(at + 1),
            Some("from") if begins => return self.read_from_import(at + 1),
            _ => {}
        }
        let Some((parts, end)) = read_dotted_name(self.tokens, at) else { return at + 1 };
        // A method, or the definition of a function, only shares the name.
        let other = at > 0
            && (mark_at(self.tokens, at - 1) == Some('.')
                || matches!(name_at(self.tokens, at - 1), Some("def" | "class")));
        if !other {
            let path = self.qualified_name(&parts);
            self.check_name(line, &path, mark_at(self.tokens, end) == Some('('));
            if path == "getattr" {
                self.check_getattr(line, end);
            }
        }
        end
    }

    fn qualified_name(&self, parts: &[&str]) -> String {
        let first = self.aliases.get(parts[0]).map_or(parts[0], String::as_str);
        std::iter::once(first).chain(parts[1..].iter().copied()).collect::<Vec<_>>().join(".")
    }

    fn check_name(&mut self, line: u32, path: &str, called: bool) {
        let plain = !path.contains('.');
        let fits = |pattern: &str| match pattern.strip_suffix('*') {
            Some(start) => path.starts_with(start),
            None => path == pattern,
        };
        // Names without a module count only when called: `compile` is a common variable.
        if let Some((_, rule, does)) =
            RISKY_FUNCTIONS.iter().find(|(pattern, ..)| fits(pattern) && (called || !plain))
        {
            self.warn(line, rule, format!("`{path}` {does}"));
        } else if !plain || called {
            self.check_module(line, path, "");
        }
    }

    fn check_module(&mut self, line: u32, path: &str, how: &str) {
        let of = |module: &str| {
            path.strip_prefix(module).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        if let Some((module, rule, does)) = RISKY_MODULES.iter().find(|(module, ..)| of(module)) {
            self.warn(line, rule, format!("{how}`{module}` {does}"));
        }
    }

    /// Checks calls such as `getattr(os, "system")`.
    fn check_getattr(&mut self, line: u32, at: usize) {
        if mark_at(self.tokens, at) != Some('(') {
            return;
        }
        let Some((parts, end)) = read_dotted_name(self.tokens, at + 1) else { return };
        if mark_at(self.tokens, end) == Some(',')
            && let Some(wanted) = text_at(self.tokens, end + 1)
        {
            let path = format!("{}.{wanted}", self.qualified_name(&parts));
            self.check_name(line, &path, true);
        }
    }

    fn read_import(&mut self, mut at: usize) -> usize {
        while let Some((parts, end)) = read_dotted_name(self.tokens, at) {
            let path = parts.join(".");
            self.check_module(self.tokens[at].0, &path, "");
            at = end;
            if name_at(self.tokens, at) == Some("as")
                && let Some(alias) = name_at(self.tokens, at + 1)
            {
                self.aliases.insert(alias, path);
                at += 2;
            }
            if mark_at(self.tokens, at) != Some(',') {
                break;
            }
            at += 1;
        }
        at
    }

    fn read_from_import(&mut self, at: usize) -> usize {
        let Some((parts, end)) = read_dotted_name(self.tokens, at) else { return at };
        if name_at(self.tokens, end) != Some("import") {
            return end;
        }
        let module = parts.join(".");
        let mut at = end + 1;
        let wrapped = mark_at(self.tokens, at) == Some('(');
        at += usize::from(wrapped);
        loop {
            if let Some(item) = name_at(self.tokens, at) {
                let path = format!("{module}.{item}");
                let line = self.tokens[at].0;
                self.check_name(line, &path, false);
                let alias = (name_at(self.tokens, at + 1) == Some("as"))
                    .then(|| name_at(self.tokens, at + 2))
                    .flatten();
                self.aliases.insert(alias.unwrap_or(item), path);
                at += if alias.is_some() { 3 } else { 1 };
            } else if matches!(mark_at(self.tokens, at), Some(','))
                || wrapped && mark_at(self.tokens, at) == Some('\n')
            {
                at += 1;
            } else {
                return at;
            }
        }
    }
}
