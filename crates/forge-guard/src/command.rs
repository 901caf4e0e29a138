//! The policy for commands that a model may run (TOOL-25).
//!
//! The whole line is parsed, and every simple command in it counts, wherever it occurs: in lists, pipes, substitutions,
//! bodies of loops and functions, and in text that the line passes to another shell.

use super::forbidden::{self, basename};
use super::shell::{self, Redirect, ShellFault, ShellScript, ShellVars, SimpleCommand, Word};
use super::wrapper::{self, InnerProgram};
use forge_types::{CommandRules, ErrorClass};

/// Maximum nesting of text (`sh -c "sh -c …"`) that is checked.
const MAX_TEXT_DEPTH: u32 = 8;
/// Maximum total size of nested text that is checked, in bytes.
const MAX_TEXT_BYTES: usize = 1 << 20;
/// Maximum nesting of programs that run programs (`env nice timeout …`).
const MAX_WRAPPERS: u32 = 20;
/// Maximum number of functions per line that are followed through their calls.
const MAX_FUNCTIONS: usize = 200;
/// Maximum number of a wrapper's arguments tried as the start of the inner command.
const MAX_INNER_STARTS: usize = 64;

/// Shell builtins that affect only the shell's own state; a list of programs does not forbid them.
const SHELL_BUILTINS: [&str; 18] = [
    ":", "true", "false", "cd", "pwd", "echo", "printf", "test", "[", "exit", "return", "break", "continue",
    "shift", "wait", "set", "export", "local",
];
const SHELL_PROGRAMS: [&str; 8] = ["sh", "bash", "dash", "ash", "zsh", "ksh", "mksh", "rbash"];

/// The reason why a command is refused, worded so that the model can act on it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandRefusal {
    /// The command is always forbidden.
    #[error("refused: `{command}` is always forbidden, because {why}. Leave it out")]
    Forbidden {
        /// The refused command.
        command: String,
        /// The reason.
        why: &'static str,
    },
    /// The program is not on the list.
    #[error(
        "refused: `{program}` is not in runtime.allowed_shell_commands. Allowed: {allowed}, and the shell's own cd, echo, test \
         and the like. Every program in the line must be on this list"
    )]
    NotAllowed {
        /// The program.
        program: String,
        /// The list.
        allowed: String,
    },
    /// Only listed programs may run, and it is undecidable which programs the line runs.
    #[error(
        "refused: {what}, so the programs it runs can't be determined. Write them out. Allowed: {allowed}"
    )]
    Unclear {
        /// The undecidable part.
        what: String,
        /// The list.
        allowed: String,
    },
}

impl CommandRefusal {
    /// Returns the class of this error, which decides how the caller handles it.
    pub const fn class(&self) -> ErrorClass {
        ErrorClass::Denied
    }
}

/// Checks a shell line.
///
/// # Errors
/// [`CommandRefusal`] if any command in the line must not run.
pub fn check_command(line: &str, rules: &CommandRules) -> Result<(), CommandRefusal> {
    let mut checker = CommandChecker {
        allowed: &rules.allowed,
        vars: ShellVars::from([("IFS".to_owned(), " ".to_owned())]),
        functions: Vec::new(),
        here: 0,
        fed: false,
        at_root: false,
        bytes: MAX_TEXT_BYTES,
        depth: 0,
        wrappers: 0,
    };
    checker.check_line(line)
}

type CheckResult = Result<(), CommandRefusal>;

struct CommandChecker<'a> {
    allowed: &'a [String],
    vars: ShellVars,
    /// Functions of the line, each with the number of the first command for which it is certainly defined.
    functions: Vec<(String, usize)>,
    /// The number of the current command; the maximum within a function, because its body runs later.
    here: usize,
    /// Whether another command supplies the remaining arguments, as with `xargs`.
    fed: bool,
    at_root: bool,
    bytes: usize,
    depth: u32,
    wrappers: u32,
}

impl CommandChecker<'_> {
    fn has_allowlist(&self) -> bool {
        !self.allowed.is_empty()
    }

    fn refuse_unclear(&self, what: impl Into<String>) -> CheckResult {
        if self.has_allowlist() {
            return Err(CommandRefusal::Unclear { what: what.into(), allowed: self.allowed.join(", ") });
        }
        Ok(())
    }

    fn forbid_command(command: &str, why: &'static str) -> CheckResult {
        Err(CommandRefusal::Forbidden { command: shorten_text(command), why })
    }

    fn check_line(&mut self, line: &str) -> CheckResult {
        if line.contains('\0') {
            return Self::forbid_command(line, "it contains a NUL character");
        }
        if self.depth >= MAX_TEXT_DEPTH || line.len() > self.bytes {
            return Self::forbid_command(line, "it is too long or too deeply nested to be checked");
        }
        self.depth += 1;
        self.bytes -= line.len();
        let verdict = match shell::parse_line(line) {
            Ok(script) => self.check_script(&script),
            Err(ShellFault::TooDeep) => Self::forbid_command(line, "it is too deeply nested to be checked"),
            Err(ShellFault::Syntax(what)) => self
                .refuse_unclear(format!("the line can't be parsed ({what})"))
                .and_then(|()| self.check_fragments(line)),
        };
        self.depth -= 1;
        verdict
    }

    /// Checks a line that can't be parsed as a whole: a shell still runs the part before the fault.
    fn check_fragments(&self, line: &str) -> CheckResult {
        for fragment in line.split(['\n', ';', '&', '|', '(', ')', '{', '}', '`']) {
            let words: Vec<_> = fragment
                .split_whitespace()
                .map(|word| Some(word.replace(['\'', '"', '\\'], "")))
                .take(MAX_INNER_STARTS)
                .collect();
            let found =
                (0..words.len()).find_map(|from| forbidden::forbidden_reason(&words[from..], self.at_root));
            if let Some(why) = found {
                return Self::forbid_command(fragment.trim(), why);
            }
        }
        Ok(())
    }

    fn check_script(&mut self, script: &ShellScript) -> CheckResult {
        if script.functions.len() > MAX_FUNCTIONS {
            return Self::forbid_command("function", "the line has too many to be checked");
        }
        if forbidden::is_fork_bomb(script) {
            return Self::forbid_command(
                script.functions.first().map_or("", String::as_str),
                "it is a fork bomb",
            );
        }
        let (outer, here) = (self.functions.clone(), self.here);
        self.functions.retain(|(_, from)| *from <= here);
        self.functions.iter_mut().for_each(|(_, from)| *from = 0);
        let defined =
            script.defined.iter().filter_map(|(name, from)| Some((script.functions.get(*name)?, from)));
        self.functions.extend(defined.map(|(name, from)| (name.clone(), *from)));
        let verdict = self.check_commands(script);
        (self.functions, self.here) = (outer, here);
        verdict
    }

    fn check_commands(&mut self, script: &ShellScript) -> CheckResult {
        if let Some(name) = script.loop_variables.iter().find(|name| steers_execution(name)) {
            self.refuse_unclear(format!("`{name}` decides which programs run"))?;
        }
        if script.evaluates && script.hides {
            self.refuse_unclear("a quoted text contains a command that arithmetic or a test may run")?;
        }
        for inside in &script.brackets {
            self.refuse_unclear("`((`, which shells read differently: `[ ]` and `$(( ))` do the same")?;
            self.check_line(inside)?;
        }
        for (number, command) in script.commands.iter().enumerate() {
            self.here = if command.function.is_some() { usize::MAX } else { number };
            self.check_simple(command, script)?;
        }
        Ok(())
    }

    fn check_simple(&mut self, command: &SimpleCommand, script: &ShellScript) -> CheckResult {
        for (name, value) in &command.assigns {
            self.check_assignment(name)?;
            if command.words.is_empty() {
                match value.literal_text() {
                    Some(value) => self.vars.insert(name.clone(), value),
                    None => self.vars.remove(name),
                };
            }
        }
        for redirect in &command.redirects {
            let Redirect::File { writes: true, target } = redirect else { continue };
            if target.expand_fields(&self.vars).iter().flatten().any(|path| forbidden::is_device(path)) {
                return Self::forbid_command(&target.raw, "it is a device that must not be written to");
            }
        }
        if command.words.is_empty() { Ok(()) } else { self.check_program(&command.words, command, script) }
    }

    fn check_assignment(&self, name: &str) -> CheckResult {
        if steers_execution(name) {
            self.refuse_unclear(format!("`{name}` decides which programs run"))
        } else {
            Ok(())
        }
    }

    /// Checks a program that another one runs.
    fn check_inner(&mut self, words: &[Word], command: &SimpleCommand, script: &ShellScript) -> CheckResult {
        if self.wrappers >= MAX_WRAPPERS {
            return Self::forbid_command(&words[0].raw, "it is too deeply nested to be checked");
        }
        self.wrappers += 1;
        let verdict = self.check_program(words, command, script);
        self.wrappers -= 1;
        verdict
    }

    /// Checks a program with its arguments.
    fn check_program(
        &mut self,
        words: &[Word],
        command: &SimpleCommand,
        script: &ShellScript,
    ) -> CheckResult {
        let argv: Vec<Option<String>> =
            words.iter().flat_map(|word| word.expand_fields(&self.vars)).collect();
        let shown = || words.iter().map(|word| word.raw.as_str()).collect::<Vec<_>>().join(" ");
        if let Some(why) = forbidden::forbidden_reason(&argv, self.at_root) {
            return Self::forbid_command(&shown(), why);
        }
        let Some(head) = words.first().and_then(Word::fixed_text) else {
            self.refuse_unclear(format!("`{}` is assembled by the shell", shown()))?;
            // Without a list only certainly harmful commands are refused, so check the known values of the words.
            return self.check_resolved(&argv);
        };
        // Another program starts only programs, even if a function has the same name.
        let known = |(name, from): &(String, usize)| *name == head && *from <= self.here;
        if self.wrappers == 0 && self.functions.iter().any(known) {
            return Ok(());
        }
        // A file of the workspace need not be the program it is named after.
        let name = if self.has_allowlist() && !is_standard(&head) { head.as_str() } else { basename(&head) };
        if let Some(wrapper) = wrapper::find_wrapper(name) {
            return self.check_wrapped(&head, wrapper, words, command, script);
        }
        match name {
            _ if SHELL_PROGRAMS.contains(&name) => self.check_shell(&head, words, command, script),
            "eval" => self.check_texts(&words[1..], " "),
            "trap" => match words.get(1).and_then(Word::fixed_text) {
                Some(option) if option.starts_with('-') => {
                    self.refuse_unclear("an option of `trap` hides its command")
                }
                _ => self.check_texts(words.get(1..2).unwrap_or_default(), " "),
            },
            "find" => {
                self.check_allowed(&head)?;
                self.check_find(words, command, script)
            }
            "cd" => {
                let target = argv.get(1).cloned().flatten().unwrap_or_default();
                self.at_root =
                    !target.is_empty() && target.chars().all(|c| "/.".contains(c)) && target.starts_with('/');
                Ok(())
            }
            "export" | "local" | "printf" => self.check_declaration(name, &words[1..]),
            "set" | "test" | "[" | "wait" => self.check_evaluation(name, &words[1..]),
            _ => self.check_allowed(&head),
        }
    }

    /// Checks a command with a first word that is known only through variables of the line.
    fn check_resolved(&mut self, argv: &[Option<String>]) -> CheckResult {
        let words: Option<Vec<&str>> = argv.iter().map(Option::as_deref).collect();
        match words {
            Some(words) if self.depth + 1 < MAX_TEXT_DEPTH && !words.is_empty() => {
                let quoted: Vec<_> =
                    words.iter().map(|word| format!("'{}'", word.replace('\'', r"'\''"))).collect();
                self.check_line(&quoted.join(" "))
            }
            _ => Ok(()),
        }
    }

    fn check_allowed(&self, head: &str) -> CheckResult {
        let name = basename(head);
        let listed = |entry: &String| entry == head || (is_standard(head) && entry == name);
        if !self.has_allowlist() || self.allowed.iter().any(listed) || SHELL_BUILTINS.contains(&head) {
            return Ok(());
        }
        Err(CommandRefusal::NotAllowed { program: shorten_text(head), allowed: self.allowed.join(", ") })
    }

    fn check_declaration(&self, name: &str, words: &[Word]) -> CheckResult {
        for word in words {
            let fixed = word.fixed_text();
            if name == "printf" {
                let option = fixed.as_deref().is_some_and(|text| text.starts_with("-v"));
                if option || (fixed.is_none() && word.raw.starts_with(['-', '$'])) {
                    return self.refuse_unclear("`printf` sets a variable");
                }
                return Ok(());
            }
            let variable = word.raw.split(['=', '+', '[']).next().unwrap_or_default();
            if fixed.is_none() && variable.contains(['$', '`', '"', '\'', '{', '\\']) {
                return self
                    .refuse_unclear(format!("`{}` sets variables that can't be determined", word.raw));
            }
            self.check_assignment(
                fixed.as_deref().and_then(|text| text.split(['=', '+']).next()).unwrap_or(variable),
            )?;
        }
        Ok(())
    }

    /// Checks options that make builtins evaluate a text or set variables for every program.
    fn check_evaluation(&self, name: &str, words: &[Word]) -> CheckResult {
        for word in words {
            let Some(text) = word.fixed_text() else { continue };
            let option = text.starts_with('-') && !text.starts_with("--");
            let bad = match name {
                "set" => {
                    (option && text.contains(['a', 'k'])) || matches!(text.as_str(), "allexport" | "keyword")
                }
                "wait" => option && text.contains('p'),
                _ => text == "-v",
            };
            if bad {
                return self.refuse_unclear(format!(
                    "`{name} {text}` evaluates a text or sets variables of programs"
                ));
            }
        }
        Ok(())
    }

    fn check_wrapped(
        &mut self,
        head: &str,
        wrapper: &wrapper::Wrapper,
        words: &[Word],
        command: &SimpleCommand,
        script: &ShellScript,
    ) -> CheckResult {
        let first = words.get(1).and_then(Word::fixed_text);
        if head == "command" && matches!(first.as_deref(), Some("-v" | "-V")) {
            return Ok(());
        }
        if !wrapper.transparent {
            self.check_allowed(head)?;
        }
        if wrapper.assigns {
            for word in words.iter().filter(|word| word.raw.contains('=') || word.fixed_text().is_some()) {
                let text = word.literal_text().unwrap_or_else(|| word.raw.trim_matches('"').to_owned());
                let name = text.split('=').next().unwrap_or_default();
                if name.contains(['$', '`', '"', '\'']) {
                    self.refuse_unclear(format!("`{}` sets a variable that can't be determined", word.raw))?;
                }
                self.check_assignment(name)?;
            }
        }
        let inner = wrapper.locate_inner(words);
        if let InnerProgram::At(at) = inner {
            let before = self.fed;
            if basename(head) == "xargs" {
                self.check_piped_arguments(&words[at..], command, script)?;
                self.fed = true;
            }
            let verdict = self.check_inner(&words[at..], command, script);
            self.fed = before;
            return verdict;
        }
        if inner == InnerProgram::Absent && self.fed {
            return self.refuse_unclear(format!("`{head}` starts what `xargs` reads"));
        }
        if inner == InnerProgram::Absent {
            return Ok(());
        }
        self.refuse_unclear(format!("the arguments of `{head}` are ambiguous"))?;
        for from in 1..words.len().min(MAX_INNER_STARTS) {
            let known = words[from].fixed_text();
            let script_taker =
                known.as_deref().map(basename).is_some_and(|n| SHELL_PROGRAMS.contains(&n) || n == "rm");
            if script_taker {
                self.check_inner(&words[from..], command, script)?;
            } else if known.is_some_and(|text| text.contains(' ')) {
                // `env -S "rm -rf /"`
                self.check_texts(&words[from..], " ")?;
            }
        }
        Ok(())
    }

    /// Checks commands such as `echo / | xargs rm -rf`, which turn piped text into arguments.
    fn check_piped_arguments(
        &self,
        words: &[Word],
        command: &SimpleCommand,
        script: &ShellScript,
    ) -> CheckResult {
        let Some(input) = self.piped_text(command, script) else { return Ok(()) };
        let mut argv: Vec<_> = words.iter().flat_map(|word| word.expand_fields(&self.vars)).collect();
        argv.extend(input.split_whitespace().take(MAX_INNER_STARTS).map(|word| Some(word.to_owned())));
        match forbidden::forbidden_reason(&argv, self.at_root) {
            Some(why) => Self::forbid_command(&argv.into_iter().flatten().collect::<Vec<_>>().join(" "), why),
            None => Ok(()),
        }
    }

    /// Returns the text that `echo` or `printf` pipes into a command.
    fn piped_text(&self, command: &SimpleCommand, script: &ShellScript) -> Option<String> {
        let before = script.commands.get(command.stdin_from?)?;
        let name = before.words.first()?.fixed_text()?;
        if !matches!(name.as_str(), "echo" | "printf") {
            return None;
        }
        let words: Vec<_> =
            before.words[1..].iter().flat_map(|word| word.expand_fields(&self.vars)).flatten().collect();
        Some(words.join(" ").replace("\\n", "\n"))
    }

    /// Checks words that a shell evaluates as text.
    fn check_texts(&mut self, words: &[Word], separator: &str) -> CheckResult {
        let mut text = Vec::new();
        for word in words {
            let fields = word.expand_fields(&self.vars);
            if word.fixed_text().is_none() {
                self.refuse_unclear(format!("`{}` becomes a command only at run time", word.raw))?;
            }
            text.extend(fields.into_iter().map(Option::unwrap_or_default));
        }
        self.check_line(&text.join(separator))
    }

    /// Checks `sh -c "…"`, `sh script` and `sh < script`.
    fn check_shell(
        &mut self,
        head: &str,
        words: &[Word],
        command: &SimpleCommand,
        script: &ShellScript,
    ) -> CheckResult {
        let mut text = false;
        let mut at = 1;
        while let Some(word) = words.get(at) {
            let Some(option) = word.fixed_text() else { break };
            if option == "--" || option == "-" || !option.starts_with(['-', '+']) {
                at += usize::from(option == "--" || option == "-");
                break;
            }
            if let Some(long) = option.strip_prefix("--") {
                if !matches!(long, "login" | "norc" | "noprofile" | "posix" | "verbose") {
                    self.refuse_unclear(format!("`{head} {option}` is not known"))?;
                }
            } else {
                text |= option.starts_with('-') && option.contains('c');
                at += usize::from(option.contains(['o', 'O']));
            }
            at += 1;
        }
        if text {
            // Another shell does not inherit the functions of this one.
            let functions = std::mem::take(&mut self.functions);
            let verdict = self.check_texts(words.get(at..=at).unwrap_or_default(), " ");
            self.functions = functions;
            return verdict;
        }
        self.check_allowed(head)?;
        for redirect in &command.redirects {
            let word = match redirect {
                Redirect::String(word) => word,
                Redirect::Document(number) => &script.documents[*number],
                Redirect::File { .. } => continue,
            };
            self.check_texts(std::slice::from_ref(word), " ")?;
        }
        match self.piped_text(command, script) {
            Some(text) if at >= words.len() => self.check_line(&text),
            _ => Ok(()),
        }
    }

    /// Checks `find … -exec program … ;`.
    fn check_find(&mut self, words: &[Word], command: &SimpleCommand, script: &ShellScript) -> CheckResult {
        let mut at = 1;
        while let Some(word) = words.get(at) {
            at += 1;
            let Some(action) = word.fixed_text() else {
                // An unquoted value may expand to another action.
                if !word.is_one_field() && word.literal_text().is_none() {
                    self.refuse_unclear(format!("`{}` may become an action of `find`", word.raw))?;
                }
                continue;
            };
            if matches!(action.as_str(), "-exec" | "-execdir" | "-ok" | "-okdir") {
                let ends = |word: &Word| matches!(word.literal_text().as_deref(), Some(";" | "+"));
                let end = words[at..].iter().position(ends).map_or(words.len(), |found| at + found);
                if at < end {
                    self.check_inner(&words[at..end], command, script)?;
                }
                at = end;
            }
        }
        Ok(())
    }
}

/// Returns whether a program is given by its bare name or in a system directory.
fn is_standard(head: &str) -> bool {
    let name = basename(head);
    let directories = ["", "/bin/", "/usr/bin/", "/usr/local/bin/"];
    directories.iter().any(|directory| head.strip_prefix(directory) == Some(name))
}

/// Returns whether a variable decides which program another name or program runs.
fn steers_execution(name: &str) -> bool {
    matches!(
        name,
        "PATH"
            | "IFS"
            | "ENV"
            | "BASH_ENV"
            | "SHELLOPTS"
            | "BASHOPTS"
            | "PROMPT_COMMAND"
            | "PS4"
            | "PAGER"
            | "EDITOR"
            | "VISUAL"
            | "SHELL"
            | "RUSTC"
            | "RUSTC_WRAPPER"
            | "RUSTC_WORKSPACE_WRAPPER"
            | "RUSTDOC"
            | "PYTHONSTARTUP"
            | "PYTHONPATH"
            | "PYTHONHOME"
            | "NODE_OPTIONS"
            | "PERL5OPT"
            | "RUBYOPT"
    ) || ["LD_", "GIT_", "BASH_FUNC_", "CARGO_TARGET_", "DYLD_"].iter().any(|prefix| name.starts_with(prefix))
}

fn shorten_text(text: &str) -> String {
    let mut chars = text.chars();
    let short: String = chars.by_ref().take(120).collect();
    if chars.next().is_some() { short + "…" } else { short }
}
