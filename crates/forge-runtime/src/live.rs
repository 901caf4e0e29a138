//! What can be watched while a run works: wire events as they are appended, and lossy live frames in between.

use crate::redact::{HoldBack, Redactor};
use forge_ports::Deltas;
use forge_ports::sandbox::{OutputSink, Stream};
use forge_types::wire::{LiveFrame, OutputStream, WireEvent};
use std::sync::{Arc, Mutex, PoisonError};

/// Watches a run from within the process that drives it. Calls must return at once.
pub trait LiveSink: Send + Sync {
    /// An event was appended.
    fn event(&self, event: &WireEvent);

    /// Something is on its way; never journalled, may be lost.
    fn frame(&self, frame: LiveFrame);
}

/// Nobody watches.
impl LiveSink for () {
    fn event(&self, _event: &WireEvent) {}
    fn frame(&self, _frame: LiveFrame) {}
}

/// Passes a model's text on, without secrets.
pub(crate) struct LiveDeltas {
    sink: Arc<dyn LiveSink>,
    redactor: Arc<Redactor>,
    text: Mutex<HoldBack>,
    reasoning: Mutex<HoldBack>,
}

impl LiveDeltas {
    pub(crate) fn new(sink: Arc<dyn LiveSink>, redactor: Arc<Redactor>) -> Self {
        Self { sink, redactor, text: Mutex::default(), reasoning: Mutex::default() }
    }

    pub(crate) fn flush(&self) {
        self.show_reasoning(lock(&self.reasoning).flush());
        self.show_text(lock(&self.text).flush());
    }

    fn show_text(&self, text: String) {
        if !text.is_empty() {
            self.sink.frame(LiveFrame::ModelDelta { text });
        }
    }

    fn show_reasoning(&self, text: String) {
        if !text.is_empty() {
            self.sink.frame(LiveFrame::Reasoning { text });
        }
    }
}

impl Deltas for LiveDeltas {
    fn text(&self, text: &str) {
        let text = lock(&self.text).push(&self.redactor, text);
        self.show_text(text);
    }

    fn reasoning(&self, text: &str) {
        let text = lock(&self.reasoning).push(&self.redactor, text);
        self.show_reasoning(text);
    }
}

/// Passes a command's output on by lines, without secrets.
pub(crate) struct LiveOutput {
    sink: Arc<dyn LiveSink>,
    redactor: Arc<Redactor>,
    lines: Mutex<[Line; 2]>,
}

/// A line that has not ended yet: bytes that came last, and what waits of the text before them.
#[derive(Default)]
struct Line {
    bytes: Vec<u8>,
    hold: HoldBack,
}

impl Line {
    /// The next piece of it for showing; `None` if there is nothing.
    fn take(&mut self, redactor: &Redactor, ended: Ended) -> Option<String> {
        let bytes = std::mem::take(&mut self.bytes);
        let mut text = self.hold.push(redactor, &String::from_utf8_lossy(&bytes));
        if ended == Ended::Yes {
            text.push_str(&self.hold.flush());
        }
        (ended == Ended::Yes || !text.is_empty()).then_some(text)
    }

    fn is_empty(&self) -> bool {
        self.bytes.is_empty() && self.hold.is_empty()
    }
}

/// Whether a line is complete.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ended {
    /// Yes.
    Yes,
    /// No, but it is too long to wait for its end.
    No,
}

/// A line longer than this is shown in pieces.
const LONGEST_LINE: usize = 4096;

impl LiveOutput {
    pub(crate) fn new(sink: Arc<dyn LiveSink>, redactor: Arc<Redactor>) -> Self {
        Self { sink, redactor, lines: Mutex::default() }
    }

    pub(crate) fn flush(&self) {
        let rest = std::mem::take(&mut *lock(&self.lines));
        for (stream, mut line) in [Stream::Stdout, Stream::Stderr].into_iter().zip(rest) {
            if !line.is_empty()
                && let Some(text) = line.take(&self.redactor, Ended::Yes)
            {
                self.show(stream, text);
            }
        }
    }

    fn show(&self, stream: Stream, line: String) {
        let stream = match stream {
            Stream::Stdout => OutputStream::Stdout,
            Stream::Stderr => OutputStream::Stderr,
        };
        self.sink.frame(LiveFrame::ExecOutput { stream, line });
    }
}

impl OutputSink for LiveOutput {
    fn output(&self, stream: Stream, bytes: &[u8]) {
        let mut lines = lock(&self.lines);
        let held = &mut lines[usize::from(stream == Stream::Stderr)];
        let mut done = Vec::new();
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            held.bytes.extend_from_slice(piece);
            if held.bytes.ends_with(b"\n") {
                while held.bytes.last().is_some_and(|byte| matches!(byte, b'\n' | b'\r')) {
                    held.bytes.pop();
                }
                done.extend(held.take(&self.redactor, Ended::Yes));
            } else if held.bytes.len() > LONGEST_LINE {
                done.extend(held.take(&self.redactor, Ended::No));
            }
        }
        drop(lines);
        for line in done {
            self.show(stream, line);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
