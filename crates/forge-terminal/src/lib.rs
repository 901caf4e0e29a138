//! Output on a terminal or into a pipe. Results go to stdout, everything else to stderr; all that is printed is redacted.
//!
//! Wire events, summaries, tables and amounts become text here; commands, settings and runs are unknown.

pub mod events;
mod hidden_input;
pub mod json;
pub mod live;
mod progress;
pub mod redact;
pub mod report;
pub mod style;
pub mod table;
pub mod text;
pub mod turn_display;

use forge_redact::redact_keys;
use forge_types::NextStep;
use serde::Serialize;
use std::io::{IsTerminal as _, Write as _};
use style::{ColorMode, Style};

/// Amount of output on stderr.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verbosity {
    /// Errors and warnings only.
    Quiet,
    /// Progress as well.
    Normal,
    /// All output of commands as well.
    Verbose,
}

/// Formats of stdout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StdoutFormat {
    /// Human-readable text.
    Text,
    /// One JSON document.
    Json,
}

/// Width assumed for a terminal that does not report its own.
const DEFAULT_TERMINAL_COLUMNS: usize = 100;

/// A function that words a next step, as a phrase.
pub type HintFormatter = fn(&NextStep) -> String;

/// Output streams of this process.
#[derive(Clone, Debug)]
pub struct Ui {
    /// Format of stdout.
    pub format: StdoutFormat,
    /// Amount of output on stderr.
    pub volume: Verbosity,
    /// Colours of stdout.
    pub out: Style,
    /// Colours of stderr.
    pub err: Style,
    /// Whether stdout is a terminal.
    pub out_is_terminal: bool,
    /// Whether stderr is a terminal that can be animated.
    pub err_is_terminal: bool,
    /// Whether stdin is a terminal.
    pub in_is_terminal: bool,
    /// Wording of next steps.
    pub hint_text: HintFormatter,
}

/// Flag and environment variables that decide about colours.
#[derive(Clone, Copy, Debug, Default)]
pub struct ColorPreference {
    /// Presence of `--no-color`.
    pub flag: bool,
    /// Presence of `NO_COLOR` (with any value).
    pub variable: bool,
    /// Presence of `TERM=dumb`.
    pub dumb: bool,
}

impl Ui {
    /// Inspects the three standard streams.
    pub fn new(
        format: StdoutFormat,
        volume: Verbosity,
        wish: ColorPreference,
        hint_text: HintFormatter,
    ) -> Self {
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
            hint_text,
        }
    }

    /// Returns whether the user can be asked.
    pub const fn is_interactive(&self) -> bool {
        self.in_is_terminal && self.err_is_terminal && matches!(self.format, StdoutFormat::Text)
    }

    /// Returns the width of stdout in columns; unlimited if it is not a terminal.
    pub fn out_width(&self) -> usize {
        if self.out_is_terminal { terminal_width(&std::io::stdout()) } else { usize::MAX / 2 }
    }

    /// Prints a result as text. A closed stdout is not an error.
    pub fn print_line(&self, line: &str) {
        self.try_print_line(line);
    }

    /// Prints the lines of a result.
    pub fn print_lines(&self, lines: impl IntoIterator<Item = impl AsRef<str>>) {
        let _ = lines.into_iter().all(|line| self.try_print_line(line.as_ref()));
    }

    /// Prints a line of an endless result; returns whether stdout is still open.
    pub fn try_print_line(&self, line: &str) -> bool {
        writeln!(std::io::stdout().lock(), "{}", redact_keys(line)).is_ok()
    }

    /// Prints a result as indented JSON.
    pub fn print_json<T: Serialize>(&self, value: &T) {
        let _ = json::write_pretty_json(std::io::BufWriter::new(std::io::stdout().lock()), value);
    }

    /// Prints a result as one line of JSON; returns whether stdout is still open.
    pub fn print_json_line<T: Serialize>(&self, value: &T) -> bool {
        let line = json::to_json_line(value).unwrap_or_default();
        let mut out = std::io::stdout().lock();
        writeln!(out, "{}", redact_keys(&line)).and_then(|()| out.flush()).is_ok()
    }

    /// Prints a note on stderr, unless quiet.
    pub fn print_note(&self, line: &str) {
        if self.volume > Verbosity::Quiet {
            self.print_notice(line);
        }
    }

    /// Prints a notice on stderr, even when quiet.
    pub fn print_notice(&self, line: &str) {
        // A single write: stderr is unbuffered, and other processes may write to it.
        let _ = std::io::stderr().lock().write_all(format!("{}\n", redact_keys(line)).as_bytes());
    }

    /// Prints a requested secret, without redaction.
    pub fn print_raw_line(&self, line: &str) {
        let _ = writeln!(std::io::stdout().lock(), "{line}");
    }

    /// Prints a warning on stderr, even when quiet.
    pub fn print_warning(&self, line: &str) {
        let head = self.err.yellow("warning:");
        self.print_notice(&format!("{head} {line}"));
    }

    /// Prints an error with its hints on stderr; with a JSON format also on stdout, as JSON.
    pub fn print_error(&self, message: &str, hints: &[String]) {
        self.print_notice(&format!("{} {}", self.err.red("error:"), text::sanitize_text(message)));
        for hint in hints {
            self.print_notice(&format!("  {} {}", self.err.cyan("hint:"), text::sanitize_text(hint)));
        }
        if self.format == StdoutFormat::Json {
            self.print_json(&serde_json::json!({"error": {"message": message, "hints": hints}}));
        }
    }

    /// Asks a yes/no question; returns `false` without a terminal.
    pub fn confirm(&self, question: &str) -> bool {
        if !self.is_interactive() {
            return false;
        }
        let answer = self.ask_line(&format!("{question} [y/N] "));
        matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes")
    }

    /// Asks for input that is not echoed, on the terminal itself even if stdin is redirected. Returns `None` without a
    /// terminal or an answer.
    pub fn ask_hidden(&self, question: &str) -> Option<String> {
        if std::io::stderr().is_terminal() { hidden_input::read_hidden_line(question) } else { None }
    }

    /// Asks for a line; returns an empty one without a terminal.
    pub fn ask_line(&self, question: &str) -> String {
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

/// Returns the width of the terminal behind `stream`, in columns.
pub fn terminal_width(stream: &impl std::os::fd::AsFd) -> usize {
    let size = rustix::termios::tcgetwinsize(stream).map(|size| usize::from(size.ws_col));
    size.ok().filter(|columns| *columns > 0).unwrap_or(DEFAULT_TERMINAL_COLUMNS)
}
