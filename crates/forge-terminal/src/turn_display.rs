//! Display of a chat turn: streamed text, tool calls, and one answer at the end.

use crate::events::{EventFormatter, EventLine, LineKind};
use crate::text::{one_line, sanitize_text};
use crate::{StdoutFormat, Ui, Verbosity};
use forge_wire::{LiveFrame, WireData, WireEvent};
use parking_lot::{Mutex, MutexGuard};
use std::io::Write as _;

/// Tools with a result that is the answer itself.
const ANSWERING_TOOLS: [&str; 3] = ["chat", "code", "agent"];

struct TurnState {
    story: EventFormatter,
    /// Text streamed of the current reply.
    reply: String,
    /// Whether the cursor is behind text of a reply.
    open: bool,
}

/// Display of one turn.
pub struct TurnDisplay {
    ui: Ui,
    state: Mutex<TurnState>,
}

impl TurnDisplay {
    /// Creates the display. Text is streamed only to a terminal.
    pub fn new(ui: &Ui) -> Self {
        let story = EventFormatter::new(ui.hint_text);
        Self { ui: ui.clone(), state: Mutex::new(TurnState { story, reply: String::new(), open: false }) }
    }

    fn is_streaming(&self) -> bool {
        self.ui.out_is_terminal && self.ui.format == StdoutFormat::Text
    }

    fn lock_state(&self) -> MutexGuard<'_, TurnState> {
        self.state.lock()
    }

    /// Shows a live frame.
    pub fn show_frame(&self, frame: &LiveFrame) {
        match frame {
            LiveFrame::ModelDelta { text } if self.is_streaming() => {
                let mut said = self.lock_state();
                let first = said.reply.trim().is_empty();
                said.reply.push_str(text);
                let text = if first { text.trim_start() } else { text };
                if !text.is_empty() {
                    said.open = true;
                    self.write_stdout(&sanitize_text(text));
                }
            }
            LiveFrame::ExecOutput { line, .. } if self.ui.volume == Verbosity::Verbose => {
                self.print_aside(&self.ui.err.dim(&format!("      {}", sanitize_text(line))));
            }
            LiveFrame::Debug { name, data } => {
                self.print_aside(&self.ui.err.dim(&sanitize_text(&format!("{name} {data}"))));
            }
            _ => {}
        }
    }

    /// Shows an event.
    pub fn show_event(&self, event: &WireEvent) {
        let mut said = self.lock_state();
        let lines = said.story.format(event);
        let shown = match &event.data {
            WireData::RunCreated(_) | WireData::RunFinished(_) | WireData::ModelCompleted(_) => false,
            // The end of the turn reports it.
            WireData::ModelFailed(failed) => failed.retryable,
            WireData::ToolCompleted(done) => !ANSWERING_TOOLS.contains(&done.tool.as_str()),
            _ => true,
        };
        // A new reply begins. The text of a call that answers is the answer.
        if let WireData::IterationStarted(_) = event.data {
            said.reply.clear();
        }
        drop(said);
        let lines = lines
            .iter()
            .filter(|line| shown && line.tone != LineKind::Turn && line.tone != LineKind::ModelText);
        for line in lines.map(|line: &EventLine| self.format_line(line)).collect::<Vec<_>>() {
            self.print_aside(&line);
        }
    }

    fn format_line(&self, line: &EventLine) -> String {
        if self.ui.err_is_terminal { line.to_styled(self.ui.err) } else { line.to_unstyled() }
    }

    /// Prints a line between the lines of the conversation.
    fn print_aside(&self, line: &str) {
        if self.ui.volume > Verbosity::Quiet {
            self.break_line();
            self.ui.print_note(line);
        }
    }

    fn break_line(&self) {
        if std::mem::take(&mut self.lock_state().open) {
            self.write_stdout("\n");
        }
    }

    fn write_stdout(&self, text: &str) {
        let mut out = std::io::stdout().lock();
        // A closed stdout does not end the turn.
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    }

    /// Prints the answer, unless it was just streamed; `why` explains on stderr why there is none.
    pub fn finish(&self, output: &str, why: Option<&str>) {
        let streamed = self.lock_state().reply.trim() == output.trim();
        let open = self.lock_state().open;
        self.break_line();
        if !(streamed && open) {
            self.ui.print_line(&sanitize_text(output.trim()));
        }
        if let Some(why) = why.filter(|why| one_line(why) != one_line(output)) {
            self.ui.print_warning(&sanitize_text(why));
        }
    }
}
