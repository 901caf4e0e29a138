//! A conversation as it is seen: words while they come, tools while they run, and one answer at the end.

use super::events::{Line, Story, Tone};
use super::text::{clean, one_line};
use super::{Format, Ui, Volume};
use forge_types::wire::{LiveFrame, WireData, WireEvent};
use std::io::Write as _;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Tools whose result is the answer itself.
const ANSWERING: [&str; 3] = ["chat", "code", "agent"];

#[derive(Default)]
struct Said {
    story: Story,
    /// What the reply that is on its way has said so far.
    reply: String,
    /// Whether the cursor stands behind words of a reply.
    open: bool,
}

/// One turn being shown.
pub(crate) struct Talk {
    ui: Ui,
    said: Mutex<Said>,
}

impl Talk {
    /// Shows a turn. Words are streamed where a person sees them come.
    pub(crate) fn new(ui: &Ui) -> Self {
        Self { ui: ui.clone(), said: Mutex::default() }
    }

    fn streams(&self) -> bool {
        self.ui.out_is_terminal && self.ui.format == Format::Text
    }

    fn lock(&self) -> MutexGuard<'_, Said> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something is on its way.
    pub(crate) fn frame(&self, frame: &LiveFrame) {
        match frame {
            LiveFrame::ModelDelta { text } if self.streams() => {
                let mut said = self.lock();
                let first = said.reply.trim().is_empty();
                said.reply.push_str(text);
                let text = if first { text.trim_start() } else { text };
                if !text.is_empty() {
                    said.open = true;
                    self.write(&clean(text));
                }
            }
            LiveFrame::ExecOutput { line, .. } if self.ui.volume == Volume::Verbose => {
                self.aside(&self.ui.err.dim(&format!("      {}", clean(line))));
            }
            LiveFrame::Debug { name, data } => {
                self.aside(&self.ui.err.dim(&clean(&format!("{name} {data}"))));
            }
            _ => {}
        }
    }

    /// Something happened.
    pub(crate) fn event(&self, event: &WireEvent) {
        let mut said = self.lock();
        let lines = said.story.tell(event);
        let shown = match &event.data {
            WireData::RunCreated(_) | WireData::RunFinished(_) | WireData::ModelCompleted(_) => false,
            // The end of the turn says it.
            WireData::ModelFailed(failed) => failed.retryable,
            WireData::ToolCompleted(done) => !ANSWERING.contains(&done.tool.as_str()),
            _ => true,
        };
        // A new reply begins. The words of a call that answers are the answer.
        if let WireData::IterationStarted(_) = event.data {
            said.reply.clear();
        }
        drop(said);
        let lines = lines.iter().filter(|line| shown && line.tone != Tone::Turn && line.tone != Tone::Said);
        for line in lines.map(|line: &Line| self.line(line)).collect::<Vec<_>>() {
            self.aside(&line);
        }
    }

    fn line(&self, line: &Line) -> String {
        if self.ui.err_is_terminal { line.styled(self.ui.err) } else { line.plain() }
    }

    /// A line beside the conversation, never in the midst of one.
    fn aside(&self, line: &str) {
        if self.ui.volume > Volume::Quiet {
            self.break_line();
            self.ui.note(line);
        }
    }

    fn break_line(&self) {
        if std::mem::take(&mut self.lock().open) {
            self.write("\n");
        }
    }

    fn write(&self, text: &str) {
        let mut out = std::io::stdout().lock();
        // Whoever read our stdout may have left; the turn goes on.
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    }

    /// The answer, unless it has just been streamed; `why` says on stderr why it is none.
    pub(crate) fn end(&self, output: &str, why: Option<&str>) {
        let streamed = self.lock().reply.trim() == output.trim();
        let open = self.lock().open;
        self.break_line();
        if !(streamed && open) {
            self.ui.line(&clean(output.trim()));
        }
        if let Some(why) = why.filter(|why| one_line(why) != one_line(output)) {
            self.ui.warn(&clean(why));
        }
    }
}
