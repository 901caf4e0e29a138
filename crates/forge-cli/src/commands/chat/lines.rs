//! Lines of the user: edited on a terminal, as they come from anywhere else. A thread of its own reads them, so that
//! signals are heard meanwhile.

use rustyline::error::ReadlineError;
use rustyline::history::FileHistory;
use rustyline::{Config, Editor};
use std::io::BufRead as _;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// What came.
#[derive(Debug)]
pub(super) enum Came {
    /// A line.
    Text(String),
    /// Ctrl-C at the prompt.
    Interrupted,
    /// Ctrl-D, or the end of the input.
    End,
    /// The input can't be read.
    Failed(String),
}

/// Entries that the history file keeps.
const HISTORY: usize = 1_000;
/// Longest line that is read from a pipe; far more than a task may have.
const LONGEST: u64 = 1 << 20;

/// Reads lines when it is asked to.
pub(super) struct Lines {
    asks: Sender<String>,
    lines: UnboundedReceiver<Came>,
}

impl Lines {
    /// Lines of a terminal, with a history in this file.
    pub(super) fn edited(history: PathBuf) -> Self {
        Self::read_by(move |asks, lines| edit(&history, asks, lines))
    }

    /// Lines of a pipe or file.
    pub(super) fn plain() -> Self {
        Self::read_by(|asks, lines| {
            let mut input = std::io::stdin().lock();
            for _ in asks {
                let mut line = Vec::new();
                let came = match std::io::Read::take(&mut input, LONGEST).read_until(b'\n', &mut line) {
                    Ok(0) => Came::End,
                    Ok(_) => Came::Text(String::from_utf8_lossy(&line).into_owned()),
                    Err(error) => Came::Failed(error.to_string()),
                };
                if lines.send(came).is_err() {
                    return;
                }
            }
        })
    }

    fn read_by(work: impl FnOnce(Receiver<String>, UnboundedSender<Came>) + Send + 'static) -> Self {
        let (asks, asked) = channel();
        let (sender, lines) = unbounded_channel();
        // Without the thread the first wait for a line says that none will come.
        let _ = std::thread::Builder::new().name("lines".to_owned()).spawn(move || work(asked, sender));
        Self { asks, lines }
    }

    /// Asks for the next line. A prompt is shown on terminals only.
    pub(super) fn ask(&self, prompt: &str) {
        // A reader that is gone shows itself in `next`.
        let _ = self.asks.send(prompt.to_owned());
    }

    /// The line that was asked for.
    pub(super) async fn next(&mut self) -> Came {
        self.lines.recv().await.unwrap_or(Came::End)
    }
}

fn edit(history: &PathBuf, asks: Receiver<String>, lines: UnboundedSender<Came>) {
    let config = Config::builder()
        .max_history_size(HISTORY)
        .map(|config| config.auto_add_history(true).history_ignore_space(true).build());
    let editor = config.and_then(Editor::<(), FileHistory>::with_config);
    let mut editor = match editor {
        Ok(editor) => editor,
        Err(error) => {
            let _ = lines.send(Came::Failed(error.to_string()));
            return;
        }
    };
    // There is none the first time.
    let _ = editor.load_history(history);
    for prompt in asks {
        let came = match editor.readline(&prompt) {
            Ok(line) => {
                // What can't be kept is only not there next time.
                let _ = editor.append_history(history);
                Came::Text(line)
            }
            Err(ReadlineError::Interrupted) => Came::Interrupted,
            Err(ReadlineError::Eof) => Came::End,
            Err(error) => Came::Failed(error.to_string()),
        };
        if lines.send(came).is_err() {
            return;
        }
    }
}
