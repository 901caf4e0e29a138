//! The log: the one place where log lines are printed (OBS-2).

use crate::ui::{json, text};
use forge_config::{LogFormat, ResolvedConfig};
use forge_runtime::Redactor;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::sync::Arc;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::writer::BoxMakeWriter;

/// Lines of this level are printed when nobody asked for a log: the terminal shows the run itself.
const DEFAULT_LOG_LEVEL: &str = "warn";

/// Where the log's lines go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogTarget {
    /// To stderr, as somebody asked for.
    Here,
    /// To a file, or nowhere.
    Elsewhere,
}

/// Takes keys out of the log's lines, whoever wrote them.
struct RedactingMakeWriter {
    inner: BoxMakeWriter,
    redactor: Redactor,
    /// Makes a line harmless for the terminal on which it is shown, now or later.
    harmless: fn(&str) -> String,
}

/// A line on its way to the log.
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
    /// A line comes in one piece.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let clean = self.redactor.redact_for_display(&String::from_utf8_lossy(line));
        self.inner.write_all((self.harmless)(&clean).as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Starts the log as the settings want it; `-vv` shows everything of Forge's own. A file that can't be opened
/// leaves the log on stderr, and says so there.
pub(crate) fn init_logging(loaded: &ResolvedConfig, verbose: u8) -> LogTarget {
    let settings = &loaded.settings.logging;
    let asked = loaded.is_set("logging.level") || settings.file.is_some();
    let level = match (verbose, asked) {
        (2.., _) => "debug",
        (_, true) => settings.level.as_str(),
        (_, false) => DEFAULT_LOG_LEVEL,
    };
    let filter = EnvFilter::try_new(level).unwrap_or_else(|_| EnvFilter::new(DEFAULT_LOG_LEVEL));
    let file = settings.file.as_ref().map(|path| OpenOptions::new().create(true).append(true).open(path));
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
    // A second start in one process (tests) keeps the first log.
    let _ = match settings.format {
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
        LogFormat::Text => builder.try_init(),
    };
    if let (Some(error), Some(path)) = (fault, &settings.file) {
        tracing::warn!(path = %path.display(), %error, "the log file can't be opened");
    }
    let talkative = settings.file.is_none() && (asked || verbose >= 2);
    if talkative { LogTarget::Here } else { LogTarget::Elsewhere }
}
