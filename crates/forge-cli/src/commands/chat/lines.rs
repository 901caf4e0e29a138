//! User input: edited lines on a terminal, plain lines otherwise. A separate thread reads them, so that signals are
//! handled meanwhile.

use rustyline::error::ReadlineError;
use rustyline::history::FileHistory;
use rustyline::{Config, Editor};
use std::io::BufRead as _;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// A result of reading input.
#[derive(Debug)]
pub(super) enum InputEvent {
    /// A line.
    Text(String),
    /// Ctrl-C at the prompt.
    Interrupted,
    /// Ctrl-D, or the end of the input.
    End,
    /// An error while reading.
    Failed(String),
}

/// Maximum number of entries in the history file.
const MAX_HISTORY_ENTRIES: usize = 1_000;
/// Maximum length of a line from a pipe, far more than a task may have.
const MAX_LINE_BYTES: u64 = 1 << 20;

/// A reader of lines on request.
pub(super) struct LineReader {
    asks: Sender<String>,
    lines: UnboundedReceiver<InputEvent>,
}

impl LineReader {
    /// Reads lines from a terminal, with a history in this file.
    pub(super) fn from_terminal(history: PathBuf) -> Self {
        Self::spawn_reader(move |asks, lines| read_edited_lines(&history, asks, lines))
    }

    /// Reads lines from a pipe or file.
    pub(super) fn from_stdin() -> Self {
        Self::spawn_reader(|asks, lines| {
            let mut input = std::io::stdin().lock();
            for _ in asks {
                let mut line = Vec::new();
                let came = match std::io::Read::take(&mut input, MAX_LINE_BYTES).read_until(b'\n', &mut line)
                {
                    Ok(0) => InputEvent::End,
                    Ok(_) => InputEvent::Text(String::from_utf8_lossy(&line).into_owned()),
                    Err(error) => InputEvent::Failed(error.to_string()),
                };
                if lines.send(came).is_err() {
                    return;
                }
            }
        })
    }

    fn spawn_reader(
        work: impl FnOnce(Receiver<String>, UnboundedSender<InputEvent>) + Send + 'static,
    ) -> Self {
        let (asks, asked) = channel();
        let (sender, lines) = unbounded_channel();
        // If the thread can't start, the first `next` returns the end of the input.
        let _ = std::thread::Builder::new().name("lines".to_owned()).spawn(move || work(asked, sender));
        Self { asks, lines }
    }

    /// Requests the next line. The prompt is shown on terminals only.
    pub(super) fn request_line(&self, prompt: &str) {
        // If the reader is gone, `next` reports it.
        let _ = self.asks.send(prompt.to_owned());
    }

    /// Waits for the requested line.
    pub(super) async fn next(&mut self) -> InputEvent {
        self.lines.recv().await.unwrap_or(InputEvent::End)
    }
}

fn read_edited_lines(history: &PathBuf, asks: Receiver<String>, lines: UnboundedSender<InputEvent>) {
    let config = Config::builder()
        .max_history_size(MAX_HISTORY_ENTRIES)
        .map(|config| config.auto_add_history(true).history_ignore_space(true).build());
    let editor = config.and_then(Editor::<(), FileHistory>::with_config);
    let mut editor = match editor {
        Ok(editor) => editor,
        Err(error) => {
            let _ = lines.send(InputEvent::Failed(error.to_string()));
            return;
        }
    };
    // The first time, there is no history.
    let _ = editor.load_history(history);
    for prompt in asks {
        let came = match editor.readline(&prompt) {
            Ok(line) => {
                // A line that can't be saved is only missing next time.
                let _ = editor.append_history(history);
                InputEvent::Text(line)
            }
            Err(ReadlineError::Interrupted) => InputEvent::Interrupted,
            Err(ReadlineError::Eof) => InputEvent::End,
            Err(error) => InputEvent::Failed(error.to_string()),
        };
        if lines.send(came).is_err() {
            return;
        }
    }
}
