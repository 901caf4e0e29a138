//! Live view of a run: wire events as they are appended, and lossy live frames in between.

use forge_ports::DeltaSink;
use forge_ports::sandbox::{OutputSink, StdStream};
use forge_redact::{Redactor, StreamRedactor};
use forge_wire::{LiveFrame, OutputStream, WireEvent};
use parking_lot::Mutex;
use std::sync::Arc;

/// An observer of a run in the process that drives it. Calls must return at once.
pub trait LiveSink: Send + Sync {
    /// Receives an event that was appended.
    fn on_event(&self, event: &WireEvent);

    /// Receives a live frame, which is never journalled and may be lost.
    fn on_frame(&self, frame: LiveFrame);
}

/// A sink that ignores everything.
impl LiveSink for () {
    fn on_event(&self, _event: &WireEvent) {}
    fn on_frame(&self, _frame: LiveFrame) {}
}

/// Withheld text of a reply that the token limit cut off: it continues in the next reply, and so may a secret.
#[derive(Clone, Debug, Default)]
pub(crate) struct CutText(Arc<Mutex<Option<StreamRedactor>>>);

/// A sink that forwards a model's text without secrets.
pub(crate) struct LiveDeltas {
    sink: Arc<dyn LiveSink>,
    redactor: Arc<Redactor>,
    text: Mutex<StreamRedactor>,
    reasoning: Mutex<StreamRedactor>,
    cut: CutText,
}

/// The end of a forwarded reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReplyEnd {
    /// The reply is complete.
    Whole,
    /// The text continues in the next reply.
    Cut,
    /// The reply failed: it is void, and another one replaces it.
    Failed,
}

impl LiveDeltas {
    pub(crate) fn new(sink: Arc<dyn LiveSink>, redactor: Arc<Redactor>, cut: CutText) -> Self {
        let text = lock(&cut.0).clone().unwrap_or_default();
        Self { sink, redactor, text: Mutex::new(text), reasoning: Mutex::default(), cut }
    }

    /// Sends the withheld text, unless it has to wait for the next reply.
    pub(crate) fn end(&self, how: ReplyEnd) {
        self.send_reasoning(lock(&self.reasoning).flush(&self.redactor));
        let mut cut = lock(&self.cut.0);
        match how {
            ReplyEnd::Whole => *cut = None,
            ReplyEnd::Cut => {
                *cut = Some(lock(&self.text).clone());
                return;
            }
            // The withheld text may have begun in the previous reply.
            ReplyEnd::Failed if cut.is_some() => return,
            ReplyEnd::Failed => {}
        }
        drop(cut);
        self.send_text(lock(&self.text).flush(&self.redactor));
    }

    fn send_text(&self, text: String) {
        if !text.is_empty() {
            self.sink.on_frame(LiveFrame::ModelDelta { text });
        }
    }

    fn send_reasoning(&self, text: String) {
        if !text.is_empty() {
            self.sink.on_frame(LiveFrame::Reasoning { text });
        }
    }
}

impl DeltaSink for LiveDeltas {
    fn push_text(&self, text: &str) {
        let text = lock(&self.text).push(&self.redactor, text);
        self.send_text(text);
    }

    fn push_reasoning(&self, text: &str) {
        let text = lock(&self.reasoning).push(&self.redactor, text);
        self.send_reasoning(text);
    }
}

/// A sink that forwards a command's output by lines, without secrets.
pub(crate) struct LiveOutput {
    sink: Arc<dyn LiveSink>,
    redactor: Arc<Redactor>,
    lines: Mutex<[PendingLine; 2]>,
}

/// A line that has not ended yet: its latest bytes, the withheld text before them, and the text that may be
/// shown.
#[derive(Default)]
struct PendingLine {
    bytes: Vec<u8>,
    hold: StreamRedactor,
    clean: String,
}

impl PendingLine {
    /// Returns the next lines to show, or a piece of a long one.
    fn drain_lines(&mut self, redactor: &Redactor, ended: LineCompleteness) -> Vec<String> {
        let bytes = std::mem::take(&mut self.bytes);
        let mut text = String::from_utf8_lossy(&bytes).into_owned();
        if ended == LineCompleteness::Yes && is_wrapped_part(&text) {
            text.push('\n');
            self.clean += &self.hold.push(redactor, &text);
            let whole = self.clean.rfind('\n').map(|at| self.clean.drain(..=at).collect::<String>());
            return whole.iter().flat_map(|whole| whole.lines()).map(str::to_owned).collect();
        }
        self.clean += &self.hold.push(redactor, &text);
        if ended == LineCompleteness::Yes {
            self.clean += &self.hold.flush(redactor);
        }
        let clean = std::mem::take(&mut self.clean);
        match ended {
            LineCompleteness::Yes => clean.split('\n').map(str::to_owned).collect(),
            LineCompleteness::No => Some(clean).filter(|clean| !clean.is_empty()).into_iter().collect(),
        }
    }

    fn is_empty(&self) -> bool {
        self.bytes.is_empty() && self.hold.is_empty() && self.clean.is_empty()
    }
}

/// The length, in bytes, from which a line's last word suggests that the line was wrapped.
const MIN_WRAPPED_WORD_BYTES: usize = 16;

/// Returns whether a line looks like a part of a long text that an encoder or a hex dump broke into lines, so
/// that a secret may continue in the next line, regardless of what precedes its words.
fn is_wrapped_part(line: &str) -> bool {
    let last = line.trim().rsplit(char::is_whitespace).next().unwrap_or_default();
    let words =
        line.split(|c: char| !c.is_alphanumeric()).map(|word| word.strip_prefix("0x").unwrap_or(word));
    let bytes = words.filter(|word| !word.is_empty() && word.len().is_multiple_of(2));
    last.len() >= MIN_WRAPPED_WORD_BYTES
        || bytes.into_iter().any(|word| word.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// The completeness of a line.
#[derive(Clone, Copy, PartialEq, Eq)]
enum LineCompleteness {
    /// The line is complete.
    Yes,
    /// The line is incomplete, but too long to wait for its end.
    No,
}

/// The longest line, in bytes, that is shown in one piece.
const MAX_LINE_BYTES: usize = 4096;

impl LiveOutput {
    pub(crate) fn new(sink: Arc<dyn LiveSink>, redactor: Arc<Redactor>) -> Self {
        Self { sink, redactor, lines: Mutex::default() }
    }

    pub(crate) fn flush(&self) {
        let rest = std::mem::take(&mut *lock(&self.lines));
        for (stream, mut line) in [StdStream::Stdout, StdStream::Stderr].into_iter().zip(rest) {
            if line.is_empty() {
                continue;
            }
            let bytes = std::mem::take(&mut line.bytes);
            line.clean += &line.hold.push(&self.redactor, &String::from_utf8_lossy(&bytes));
            line.clean += &line.hold.flush(&self.redactor);
            for text in line.clean.lines() {
                self.send_line(stream, text.to_owned());
            }
        }
    }

    fn send_line(&self, stream: StdStream, line: String) {
        let stream = match stream {
            StdStream::Stdout => OutputStream::Stdout,
            StdStream::Stderr => OutputStream::Stderr,
        };
        self.sink.on_frame(LiveFrame::ExecOutput { stream, line });
    }
}

impl OutputSink for LiveOutput {
    fn write_output(&self, stream: StdStream, bytes: &[u8]) {
        let mut lines = lock(&self.lines);
        let held = &mut lines[usize::from(stream == StdStream::Stderr)];
        let mut done = Vec::new();
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            held.bytes.extend_from_slice(piece);
            if held.bytes.ends_with(b"\n") {
                while held.bytes.last().is_some_and(|byte| matches!(byte, b'\n' | b'\r')) {
                    held.bytes.pop();
                }
                done.extend(held.drain_lines(&self.redactor, LineCompleteness::Yes));
            } else if held.bytes.len() > MAX_LINE_BYTES {
                done.extend(held.drain_lines(&self.redactor, LineCompleteness::No));
            }
        }
        drop(lines);
        for line in done {
            self.send_line(stream, line);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> parking_lot::MutexGuard<'_, T> {
    mutex.lock()
}
