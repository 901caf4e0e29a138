//! The log. Only this module prints log lines (OBS-2).

use crate::session::Session;
use forge_config::{LogFormat, ResolvedConfig};
use forge_runtime::Redactor;
use forge_terminal::{json, text};
use std::io::{self, Write};
use std::sync::Arc;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::writer::BoxMakeWriter;

/// Level used if no log was requested; the terminal then shows the run itself.
const DEFAULT_LOG_LEVEL: &str = "warn";

/// Destination of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogTarget {
    /// Stderr, on request.
    Here,
    /// A file, or no log was requested.
    Elsewhere,
}

/// A writer factory that redacts keys in all log lines.
struct RedactingMakeWriter {
    inner: BoxMakeWriter,
    redactor: Redactor,
    /// Makes a line safe to show on a terminal, now or later.
    harmless: fn(&str) -> String,
}

/// A writer for one log line.
struct RedactingWriter<'a> {
    inner: Box<dyn Write + 'a>,
    redactor: &'a Redactor,
    harmless: fn(&str) -> String,
}

impl<'a> MakeWriter<'a> for RedactingMakeWriter {
    type Writer = RedactingWriter<'a>;

    fn make_writer(&'a self) -> Self::Writer {
        RedactingWriter { inner: self.inner.make_writer(), redactor: &self.redactor, harmless: self.harmless }
    }
}

impl Write for RedactingWriter<'_> {
    /// Writes one line; `tracing` passes each line in a single call.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let clean = self.redactor.redact_for_display(&String::from_utf8_lossy(line));
        self.inner.write_all((self.harmless)(&clean).as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Starts the log as configured; `-vv` shows all debug lines of Forge. If the log file can't be opened, the log goes
/// to stderr, with a warning.
pub(crate) fn init_logging(session: &Session, loaded: &ResolvedConfig) -> LogTarget {
    let verbose = session.verbose;
    let settings = &loaded.settings.logging;
    let asked = loaded.is_set("logging.level") || settings.file.is_some();
    let level = match (verbose, asked) {
        (2.., _) => "debug",
        (_, true) => settings.level.as_str(),
        (_, false) => DEFAULT_LOG_LEVEL,
    };
    let filter = EnvFilter::try_new(level).unwrap_or_else(|_| EnvFilter::new(DEFAULT_LOG_LEVEL));
    let files = session.user_files(std::slice::from_ref(&loaded.repo));
    let file = settings.file.as_ref().map(|path| files.locate(&session.cwd.join(path)).open_append());
    let (writer, fault) = match file {
        Some(Ok(file)) => (BoxMakeWriter::new(Arc::new(file)), None),
        Some(Err(error)) => (BoxMakeWriter::new(std::io::stderr), Some(error)),
        None => (BoxMakeWriter::new(std::io::stderr), None),
    };
    let harmless = match settings.format {
        LogFormat::Json => json::escape_json,
        LogFormat::Text => text::sanitize_text,
    };
    let writer = RedactingMakeWriter {
        inner: writer,
        redactor: Redactor::new(loaded.secrets.values_to_redact()),
        harmless,
    };
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer).with_ansi(false);
    // A second start in the same process (tests) keeps the first log.
    let _ = match settings.format {
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
        LogFormat::Text => builder.try_init(),
    };
    if let (Some(error), Some(path)) = (fault, &settings.file) {
        tracing::warn!(path = %path.display(), error = error.reason(), "cannot open the log file");
    }
    let talkative = settings.file.is_none() && (asked || verbose >= 2);
    if talkative { LogTarget::Here } else { LogTarget::Elsewhere }
}
