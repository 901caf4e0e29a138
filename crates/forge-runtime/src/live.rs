//! What can be watched while a run works: wire events as they are appended, and lossy live frames in between.

use forge_ports::Deltas;
use forge_ports::sandbox::{OutputSink, Stream};
use forge_redact::{HoldBack, Redactor};
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

/// What waits of the text of a reply that the token limit cut off: it goes on in the next reply, and so may a secret.
#[derive(Clone, Debug, Default)]
pub(crate) struct CutText(Arc<Mutex<Option<HoldBack>>>);

/// Passes a model's text on, without secrets.
pub(crate) struct LiveDeltas {
    sink: Arc<dyn LiveSink>,
    redactor: Arc<Redactor>,
    text: Mutex<HoldBack>,
    reasoning: Mutex<HoldBack>,
    cut: CutText,
}

/// How a reply ended whose text was passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReplyEnd {
    /// It is whole.
    Whole,
    /// Its text goes on in the next reply.
    Cut,
    /// It failed: what came of it is void, and another one takes its place.
    Failed,
}

impl LiveDeltas {
    pub(crate) fn new(sink: Arc<dyn LiveSink>, redactor: Arc<Redactor>, cut: CutText) -> Self {
        let text = lock(&cut.0).clone().unwrap_or_default();
        Self { sink, redactor, text: Mutex::new(text), reasoning: Mutex::default(), cut }
    }

    /// Shows what waited, unless it has to wait for the next reply.
    pub(crate) fn end(&self, how: ReplyEnd) {
        self.show_reasoning(lock(&self.reasoning).flush(&self.redactor));
        let mut cut = lock(&self.cut.0);
        match how {
            ReplyEnd::Whole => *cut = None,
            ReplyEnd::Cut => {
                *cut = Some(lock(&self.text).clone());
                return;
            }
            // What waits may have begun in the reply before.
            ReplyEnd::Failed if cut.is_some() => return,
            ReplyEnd::Failed => {}
        }
        drop(cut);
        self.show_text(lock(&self.text).flush(&self.redactor));
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

/// A line that has not ended yet: bytes that came last, what waits of the text before them, and what may be shown of it.
#[derive(Default)]
struct Line {
    bytes: Vec<u8>,
    hold: HoldBack,
    clean: String,
}

impl Line {
    /// The next lines for showing, or a piece of one that is long.
    fn take(&mut self, redactor: &Redactor, ended: Ended) -> Vec<String> {
        let bytes = std::mem::take(&mut self.bytes);
        let mut text = String::from_utf8_lossy(&bytes).into_owned();
        if ended == Ended::Yes && goes_on(&text) {
            text.push('\n');
            self.clean += &self.hold.push(redactor, &text);
            let whole = self.clean.rfind('\n').map(|at| self.clean.drain(..=at).collect::<String>());
            return whole.iter().flat_map(|whole| whole.lines()).map(str::to_owned).collect();
        }
        self.clean += &self.hold.push(redactor, &text);
        if ended == Ended::Yes {
            self.clean += &self.hold.flush(redactor);
        }
        let clean = std::mem::take(&mut self.clean);
        match ended {
            Ended::Yes => clean.split('\n').map(str::to_owned).collect(),
            Ended::No => Some(clean).filter(|clean| !clean.is_empty()).into_iter().collect(),
        }
    }

    fn is_empty(&self) -> bool {
        self.bytes.is_empty() && self.hold.is_empty() && self.clean.is_empty()
    }
}

/// Characters of a word with which a line may end that was wrapped.
const WRAPPED_WORD: usize = 16;

/// Whether a line looks like one of several into which an encoder or a dump of bytes broke a long text, so that a secret
/// may go on in the next one, whatever stands before its words.
fn goes_on(line: &str) -> bool {
    let last = line.trim().rsplit(char::is_whitespace).next().unwrap_or_default();
    let words =
        line.split(|c: char| !c.is_alphanumeric()).map(|word| word.strip_prefix("0x").unwrap_or(word));
    let bytes = words.filter(|word| !word.is_empty() && word.len().is_multiple_of(2));
    last.len() >= WRAPPED_WORD || bytes.into_iter().any(|word| word.bytes().all(|b| b.is_ascii_hexdigit()))
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
            if line.is_empty() {
                continue;
            }
            let bytes = std::mem::take(&mut line.bytes);
            line.clean += &line.hold.push(&self.redactor, &String::from_utf8_lossy(&bytes));
            line.clean += &line.hold.flush(&self.redactor);
            for text in line.clean.lines() {
                self.show(stream, text.to_owned());
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
