//! The one module that prints. Results go to stdout, everything else to stderr.

pub(crate) mod events;
mod hidden_input;
pub(crate) mod json;
pub(crate) mod live;
mod progress;
pub(crate) mod redact;
pub(crate) mod report;
pub(crate) mod style;
pub(crate) mod table;
pub(crate) mod text;
pub(crate) mod turn_display;

use crate::error::CliError;
use forge_runtime::redact_keys;
use serde::Serialize;
use std::io::{IsTerminal as _, Write as _};
use style::{ColorMode, Style};

/// How much is said on stderr.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Verbosity {
    /// What is wrong.
    Quiet,
    /// What happens.
    Normal,
    /// Every line of command output as well.
    Verbose,
}

/// What stands on stdout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StdoutFormat {
    /// Text for people.
    Text,
    /// One JSON document.
    Json,
}

/// Columns of a terminal that does not say how wide it is.
const DEFAULT_TERMINAL_COLUMNS: usize = 100;

/// What this process prints to.
#[derive(Clone, Debug)]
pub(crate) struct Ui {
    pub(crate) format: StdoutFormat,
    pub(crate) volume: Verbosity,
    pub(crate) out: Style,
    pub(crate) err: Style,
    pub(crate) out_is_terminal: bool,
    pub(crate) err_is_terminal: bool,
    pub(crate) in_is_terminal: bool,
}

/// What decides about colours, as typed and as set.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ColorPreference {
    /// `--no-color`
    pub(crate) flag: bool,
    /// `NO_COLOR` is set (to anything).
    pub(crate) variable: bool,
    /// `TERM=dumb`
    pub(crate) dumb: bool,
}

impl Ui {
    /// Looks at the three standard streams.
    pub(crate) fn new(format: StdoutFormat, volume: Verbosity, wish: ColorPreference) -> Self {
        let colors = |terminal: bool| {
            let wanted = terminal && !wish.flag && !wish.variable && !wish.dumb;
            if wanted { ColorMode::On } else { ColorMode::Off }
        };
        let out_is_terminal = std::io::stdout().is_terminal();
        let err_is_terminal = std::io::stderr().is_terminal() && !wish.dumb;
        Self {
            format,
            volume,
            out: Style::new(colors(out_is_terminal)),
            err: Style::new(colors(err_is_terminal)),
            out_is_terminal,
            err_is_terminal,
            in_is_terminal: std::io::stdin().is_terminal(),
        }
    }

    /// Whether a person can be asked.
    pub(crate) const fn is_interactive(&self) -> bool {
        self.in_is_terminal && self.err_is_terminal && matches!(self.format, StdoutFormat::Text)
    }

    /// Columns of stdout; without a limit where it is no terminal.
    pub(crate) fn out_width(&self) -> usize {
        if self.out_is_terminal { terminal_width(&std::io::stdout()) } else { usize::MAX / 2 }
    }

    /// A result as text. Whoever reads our stdout may stop reading; that is no fault.
    pub(crate) fn print_line(&self, line: &str) {
        self.try_print_line(line);
    }

    /// Lines of a result.
    pub(crate) fn print_lines(&self, lines: &[String]) {
        lines.iter().for_each(|line| self.print_line(line));
    }

    /// A line of an endless result; says whether somebody still reads.
    pub(crate) fn try_print_line(&self, line: &str) -> bool {
        writeln!(std::io::stdout().lock(), "{}", redact_keys(line)).is_ok()
    }

    /// A result as JSON, indented for a person's eye.
    pub(crate) fn print_json<T: Serialize>(&self, value: &T) {
        if let Ok(text) = json::to_pretty_json(value) {
            self.try_print_line(&text);
        }
    }

    /// A result as one line of JSON; says whether somebody still reads.
    pub(crate) fn print_json_line<T: Serialize>(&self, value: &T) -> bool {
        let line = json::to_json_line(value).unwrap_or_default();
        let mut out = std::io::stdout().lock();
        writeln!(out, "{}", redact_keys(&line)).and_then(|()| out.flush()).is_ok()
    }

    /// Something worth knowing, on stderr.
    pub(crate) fn print_note(&self, line: &str) {
        if self.volume > Verbosity::Quiet {
            self.print_notice(line);
        }
    }

    /// Something that must be read, on stderr; also when quiet.
    pub(crate) fn print_notice(&self, line: &str) {
        // In one piece: stderr is not buffered, and others may write there too.
        let _ = std::io::stderr().lock().write_all(format!("{}\n", redact_keys(line)).as_bytes());
    }

    /// A secret as a result, which is what was asked for.
    pub(crate) fn print_raw_line(&self, line: &str) {
        let _ = writeln!(std::io::stdout().lock(), "{line}");
    }

    /// Something that may be wrong, on stderr; also when quiet.
    pub(crate) fn print_warning(&self, line: &str) {
        let head = self.err.yellow("warning:");
        self.print_notice(&format!("{head} {line}"));
    }

    /// An error, on stderr, with what to do next; with `--json` also on stdout, as JSON.
    pub(crate) fn print_error(&self, error: &CliError) {
        self.print_notice(&format!("{} {}", self.err.red("error:"), text::sanitize_text(&error.message)));
        for hint in &error.hints {
            self.print_notice(&format!("  {} {}", self.err.cyan("hint:"), text::sanitize_text(hint)));
        }
        if self.format == StdoutFormat::Json {
            self.print_json(&serde_json::json!({"error": {"message": error.message, "hints": error.hints}}));
        }
    }

    /// Asks a question that is answered with yes or no; never without a terminal.
    pub(crate) fn confirm(&self, question: &str) -> bool {
        if !self.is_interactive() {
            return false;
        }
        let answer = self.ask_line(&format!("{question} [y/N] "));
        matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes")
    }

    /// Asks for something that is not shown while it is typed; `None` if nobody can be asked, or nobody answers. Stdin may
    /// go elsewhere: the terminal itself is asked.
    pub(crate) fn ask_hidden(&self, question: &str) -> Option<String> {
        if std::io::stderr().is_terminal() { hidden_input::read_hidden_line(question) } else { None }
    }

    /// Asks for a line; empty without a terminal.
    pub(crate) fn ask_line(&self, question: &str) -> String {
        if !self.is_interactive() {
            return String::new();
        }
        let mut err = std::io::stderr().lock();
        let _ = write!(err, "{question}").and_then(|()| err.flush());
        drop(err);
        let mut answer = String::new();
        let _ = std::io::stdin().read_line(&mut answer);
        answer
    }
}

/// Columns of the terminal behind `stream`.
pub(crate) fn terminal_width(stream: &impl std::os::fd::AsFd) -> usize {
    let size = rustix::termios::tcgetwinsize(stream).map(|size| usize::from(size.ws_col));
    size.ok().filter(|columns| *columns > 0).unwrap_or(DEFAULT_TERMINAL_COLUMNS)
}
