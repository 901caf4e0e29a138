//! Animated display of a run on a terminal: finished lines stay, and the current state is redrawn below them.

use crate::HintFormatter;
use crate::events::{EventFormatter, EventLine, LineKind};
use crate::style::Style;
use crate::text::{
    format_count, format_dollars, format_duration, one_line, sanitize_text, text_columns, truncate_text,
    truncate_text_start,
};
use forge_wire::{LiveFrame, WireData, WireEvent};
use std::collections::VecDeque;
use std::time::Instant;

const SPINNER_FRAMES: [char; 8] = ['⠋', '⠙', '⠸', '⠴', '⠦', '⠧', '⠇', '⠏'];
/// Maximum number of output lines kept of a failed command.
const MAX_OUTPUT_LINES: usize = 8;

/// State of the display. Its methods return lines to keep, or the text to write to the terminal.
pub(crate) struct ProgressDisplay {
    style: Style,
    verbose: bool,
    story: EventFormatter,
    started: Instant,
    turn: String,
    tokens: u64,
    cost: f64,
    cost_known: bool,
    /// Streamed text of the current reply, and its last, unfinished line.
    streamed: String,
    partial: String,
    thinking: String,
    running: Vec<(String, Instant)>,
    output: VecDeque<String>,
    footer_rows: usize,
}

impl ProgressDisplay {
    /// Creates an empty display.
    pub(crate) fn new(style: Style, verbose: bool, hint_text: HintFormatter) -> Self {
        Self {
            style,
            verbose,
            story: EventFormatter::new(hint_text),
            started: Instant::now(),
            turn: String::new(),
            tokens: 0,
            cost: 0.0,
            cost_known: true,
            streamed: String::new(),
            partial: String::new(),
            thinking: String::new(),
            running: Vec::new(),
            output: VecDeque::new(),
            footer_rows: 0,
        }
    }

    /// Applies an event and returns the lines to keep.
    pub(crate) fn apply_event(&mut self, event: &WireEvent) -> Vec<String> {
        let mut stay = Vec::new();
        let mut lines = self.story.format(event);
        match &event.data {
            WireData::IterationStarted(turn) => {
                self.turn = match turn.max {
                    Some(max) => format!("turn {}/{max}", turn.n),
                    None => format!("turn {}", turn.n),
                };
                // The status line shows it.
                lines.clear();
            }
            WireData::ModelRequested(_) => self.clear_reply(),
            WireData::ModelCompleted(reply) => {
                self.tokens += reply.usage.input + reply.usage.output;
                self.cost += reply.cost_usd.unwrap_or(0.0);
                self.cost_known &= reply.cost_usd.is_some();
                let rest = std::mem::take(&mut self.partial);
                if self.streamed.trim() == reply.text.trim() {
                    // The text has been streamed in full.
                    lines.clear();
                    if !rest.is_empty() {
                        stay.push(rest);
                    }
                } else if !self.streamed.is_empty() && !rest.is_empty() {
                    stay.push(self.style.dim(&rest));
                }
                self.clear_reply();
            }
            WireData::ModelFailed(_) => {
                let rest = std::mem::take(&mut self.partial);
                if !rest.is_empty() {
                    stay.push(self.style.dim(&format!("{rest} …")));
                }
                self.clear_reply();
            }
            WireData::ToolCalled(call) => self.running.push((call.call_id.clone(), Instant::now())),
            WireData::ToolCompleted(done) => {
                self.running.retain(|(id, _)| *id != done.call_id);
                let failed_command = done.exit_code.is_some_and(|code| code != 0);
                stay.extend(lines.drain(..).map(|line| line.to_styled(self.style)));
                if failed_command && !self.verbose {
                    stay.extend(self.output.iter().map(|line| self.style.dim(&format!("      {line}"))));
                }
                if self.running.is_empty() {
                    self.output.clear();
                }
            }
            WireData::RunCreated(_) => lines.clear(),
            // The summary at the end shows it.
            WireData::RunFinished(_) => lines.retain(|line| line.tone == LineKind::Bad),
            _ => {}
        }
        stay.extend(lines.iter().map(|line: &EventLine| line.to_styled(self.style)));
        stay
    }

    /// Applies a live frame and returns the lines to keep.
    pub(crate) fn apply_frame(&mut self, frame: &LiveFrame) -> Vec<String> {
        match frame {
            LiveFrame::ModelDelta { text } => {
                self.thinking.clear();
                self.streamed.push_str(text);
                self.partial.push_str(&sanitize_text(text));
                let mut stay = Vec::new();
                while let Some(end) = self.partial.find('\n') {
                    let rest = self.partial.split_off(end + 1);
                    let line = std::mem::replace(&mut self.partial, rest);
                    stay.push(line.trim_end().to_owned());
                }
                // Skip empty lines before the first word.
                if stay.iter().all(String::is_empty) && self.streamed.trim().is_empty() {
                    stay.clear();
                }
                stay
            }
            LiveFrame::Reasoning { text } => {
                self.thinking.push_str(text);
                self.thinking = truncate_text_start(&one_line(&self.thinking), 200);
                Vec::new()
            }
            LiveFrame::Debug { name, data } => {
                vec![self.style.dim(&sanitize_text(&format!("{name} {data}")))]
            }
            LiveFrame::ExecOutput { line, .. } => {
                let line = sanitize_text(line).replace('\t', "    ");
                if self.verbose {
                    return vec![self.style.dim(&format!("      {line}"))];
                }
                if line.trim().is_empty() {
                    return Vec::new();
                }
                if self.output.len() == MAX_OUTPUT_LINES {
                    self.output.pop_front();
                }
                self.output.push_back(line);
                Vec::new()
            }
        }
    }

    fn clear_reply(&mut self) {
        self.streamed.clear();
        self.partial.clear();
        self.thinking.clear();
    }

    /// Erases the footer, prints the lines to keep and redraws the footer, as one write to avoid flicker.
    pub(crate) fn draw(&mut self, stay: &[String], width: usize) -> String {
        let mut out = self.erase_footer();
        for line in stay {
            out.push_str(line);
            out.push('\n');
        }
        let footer = self.footer_lines(width.saturating_sub(1).max(1));
        self.footer_rows = footer.len();
        out.push_str(&footer.join("\n"));
        out
    }

    /// Draws the final state: the lines to keep, without a footer.
    pub(crate) fn draw_final(&mut self, stay: &[String]) -> String {
        let mut out = self.erase_footer();
        for line in stay {
            out.push_str(line);
            out.push('\n');
        }
        let rest = std::mem::take(&mut self.partial);
        if !rest.is_empty() {
            out.push_str(&rest);
            out.push('\n');
        }
        out
    }

    /// Erases the footer.
    fn erase_footer(&mut self) -> String {
        let mut out = String::new();
        if self.footer_rows > 0 {
            out.push('\r');
            if self.footer_rows > 1 {
                out.push_str(&format!("\x1b[{}A", self.footer_rows - 1));
            }
            out.push_str("\x1b[J");
        }
        self.footer_rows = 0;
        out
    }

    fn footer_lines(&self, width: usize) -> Vec<String> {
        let mut rows = Vec::new();
        if !self.partial.is_empty() {
            let shown = self.partial.replace('\t', "    ");
            let shown = if text_columns(&shown) > width { truncate_text_start(&shown, width) } else { shown };
            rows.push(self.style.dim(&shown));
        } else if !self.thinking.is_empty() {
            rows.push(self.style.dim(&truncate_text_start(&format!("thinking: {}", self.thinking), width)));
        } else if let Some(line) = self.output.back().filter(|_| !self.running.is_empty()) {
            rows.push(self.style.dim(&truncate_text(&format!("      {line}"), width)));
        }
        rows.push(self.status_line(width));
        rows
    }

    fn status_line(&self, width: usize) -> String {
        let mut facts = Vec::new();
        if !self.turn.is_empty() {
            facts.push(self.turn.clone());
        }
        facts.push(format!("{} tokens", format_count(self.tokens)));
        facts.push(match self.cost_known {
            true => format_dollars(self.cost),
            false => format!("{} + unknown prices", format_dollars(self.cost)),
        });
        let elapsed = self.started.elapsed();
        facts.push(match elapsed.as_secs() {
            seconds @ 0..60 => format!("{seconds} s"),
            seconds => format_duration(seconds * 1_000),
        });
        match self.running.as_slice() {
            [] => {}
            [(id, _)] => facts.push(self.story.label_of(id).unwrap_or("a tool").to_owned()),
            many => facts.push(format!("{} tools", many.len())),
        }
        let sign = SPINNER_FRAMES[(elapsed.as_millis() / 120 % SPINNER_FRAMES.len() as u128) as usize];
        let text = truncate_text(&format!("{sign} {}", facts.join(" · ")), width);
        self.style.cyan(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::style::ColorMode;

    fn progress() -> ProgressDisplay {
        ProgressDisplay::new(Style::new(ColorMode::Off), false, |_| String::new())
    }

    fn delta(text: &str) -> LiveFrame {
        LiveFrame::ModelDelta { text: text.to_owned() }
    }

    #[test]
    fn whole_lines_stay_and_the_last_one_is_redrawn() {
        let mut progress = progress();
        assert_eq!(progress.apply_frame(&delta("\n")), Vec::<String>::new());
        assert_eq!(progress.apply_frame(&delta("one\ntwo\nth")), ["one", "two"]);
        let first = progress.draw(&[], 40);
        assert!(first.starts_with("th\n⠋ 0 tokens"), "{first:?}");
        assert_eq!(progress.apply_frame(&delta("ree\n")), ["three"]);
        let second = progress.draw(&["three".to_owned()], 40);
        assert!(second.starts_with("\r\x1b[1A\x1b[Jthree\n⠋ 0 tokens"), "{second:?}");
        assert_eq!(progress.erase_footer(), "\r\x1b[J");
        assert_eq!(progress.erase_footer(), "");
    }

    #[test]
    fn nothing_drawn_is_wider_than_the_terminal_or_holds_foreign_control_characters() {
        let mut progress = progress();
        progress.apply_frame(&delta(&"wide \x1b[2J日本".repeat(30)));
        let picture = progress.draw(&[], 30);
        assert!(picture.lines().all(|line| text_columns(line) < 30), "{picture}");
        assert!(!picture.contains("\x1b[2J"));
    }

    #[test]
    fn only_the_end_of_a_commands_output_is_kept() {
        let mut progress = progress();
        for n in 0..100 {
            let line = format!("line {n}");
            progress.apply_frame(&LiveFrame::ExecOutput { stream: forge_wire::OutputStream::Stdout, line });
        }
        assert_eq!(progress.output.len(), MAX_OUTPUT_LINES);
        assert_eq!(progress.output.back().map(String::as_str), Some("line 99"));
    }
}
