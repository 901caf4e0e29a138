//! Wire events as readable lines, the same for a live run, `forge logs` and a pipe.

use crate::HintFormatter;
use crate::style::Style;
use crate::text::{
    error_with_hints, format_count, format_dollars, format_duration, hint_sentence, limit_text, one_line,
    pluralize, sanitize_text, truncate_text,
};
use forge_types::{RouteStage, RunId, RunStatus, Timestamp, WaitingFor};
use forge_wire::{
    BudgetChanged, BudgetLevel, ModelFailed, RunFinished, ToolCompleted, WaitRequested, WireData, WireEvent,
};
use serde_json::Value;
use std::collections::HashMap;

/// Maximum width of a tool's main argument, in columns.
const MAX_ARGUMENT_COLUMNS: usize = 80;

/// Kinds of lines, which decide colour and sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineKind {
    /// Start of a turn.
    Turn,
    /// Text of the model.
    ModelText,
    /// A success.
    Good,
    /// A failure.
    Bad,
    /// End of a completed run.
    Completed,
    /// End of any other run.
    Ended,
    /// A possible problem.
    Warn,
    /// A secondary remark.
    Note,
}

/// A line that is safe to print on a terminal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventLine {
    /// Kind of the line.
    pub tone: LineKind,
    /// Text without sign and colour.
    pub text: String,
}

impl EventLine {
    fn new(tone: LineKind, text: impl Into<String>) -> Self {
        Self { tone, text: text.into() }
    }

    /// Formats the line with sign and colour.
    pub fn to_styled(&self, style: Style) -> String {
        match self.tone {
            LineKind::Turn => style.dim(&format!("· {}", self.text)),
            LineKind::ModelText => self.text.clone(),
            LineKind::Completed => style.green(&self.text),
            LineKind::Ended => style.red(&self.text),
            LineKind::Good => format!("  {} {}", style.green("✓"), self.text),
            LineKind::Bad => format!("  {} {}", style.red("✗"), self.text),
            LineKind::Warn => style.yellow(&format!("! {}", self.text)),
            LineKind::Note => style.dim(&self.text),
        }
    }

    /// Formats the line without colours, for a pipe.
    pub fn to_unstyled(&self) -> String {
        match self.tone {
            LineKind::Turn | LineKind::Completed | LineKind::Ended => format!("-- {}", self.text),
            LineKind::Good => format!("  ok      {}", self.text),
            LineKind::Bad => format!("  failed  {}", self.text),
            LineKind::Warn => format!("  note    {}", self.text),
            LineKind::ModelText | LineKind::Note => self.text.clone(),
        }
    }
}

/// Formats the events of a run in order, and remembers the labels of tool calls.
#[derive(Clone, Debug)]
pub struct EventFormatter {
    hint_text: HintFormatter,
    calls: HashMap<String, String>,
    /// Message of the last failed model call, which the run's error often repeats.
    last_failure: String,
}

impl EventFormatter {
    /// Creates a formatter that words next steps with `hint_text`.
    pub fn new(hint_text: HintFormatter) -> Self {
        Self { hint_text, calls: HashMap::new(), last_failure: String::new() }
    }

    /// Formats one event, mostly as one line or none.
    pub fn format(&mut self, event: &WireEvent) -> Vec<EventLine> {
        match &event.data {
            WireData::RunCreated(created) => {
                let task = truncate_text(&one_line(&created.task), 200);
                let repo = one_line(&created.repo);
                vec![EventLine::new(LineKind::Note, format!("run {} in {repo}: {task}", event.run_id))]
            }
            WireData::RunStarted(started) if started.attempt > 1 => {
                vec![EventLine::new(LineKind::Note, format!("resumed (attempt {})", started.attempt))]
            }
            WireData::IterationStarted(turn) => vec![EventLine::new(
                LineKind::Turn,
                match turn.max {
                    Some(max) => format!("turn {} of {max}", turn.n),
                    None => format!("turn {}", turn.n),
                },
            )],
            // An expected choice is not reported.
            WireData::ModelRouted(routed)
                if routed.stage == RouteStage::Availability && !routed.rejected.is_empty() =>
            {
                let text =
                    format!("using {}/{}: {}", routed.provider, routed.model, one_line(&routed.reason));
                vec![EventLine::new(LineKind::Warn, text)]
            }
            WireData::ModelRequested(asked) => match (asked.attempt, asked.delay_ms) {
                (1, None) => Vec::new(),
                (attempt, None) => {
                    vec![EventLine::new(LineKind::Note, format!("retrying (attempt {attempt})"))]
                }
                (attempt, Some(ms)) => {
                    let text = format!("retrying in {} (attempt {attempt})", format_duration(ms));
                    vec![EventLine::new(LineKind::Note, text)]
                }
            },
            WireData::ModelCompleted(reply) => model_text_lines(&reply.text),
            WireData::ModelFailed(failed) => {
                self.last_failure.clone_from(&failed.message);
                format_model_failed(failed)
            }
            WireData::ToolCalled(call) => {
                self.calls.insert(call.call_id.clone(), tool_label(&call.tool, &call.arguments));
                Vec::new()
            }
            WireData::ToolCompleted(done) => vec![self.format_tool_completed(done)],
            WireData::SandboxChanged(changed) if changed.restarted == Some(true) => {
                vec![EventLine::new(LineKind::Warn, "the sandbox stopped and was restarted")]
            }
            WireData::GuardChecked(guard) if guard.verdict == "deny" => {
                vec![EventLine::new(LineKind::Warn, format!("refused: {}", one_line(&guard.detail)))]
            }
            // A change within the same status: the conversation was compacted.
            WireData::RunChanged(changed) if changed.from == changed.to => {
                let reason = changed.reason.as_deref().map(one_line);
                reason.into_iter().map(|reason| EventLine::new(LineKind::Note, reason)).collect()
            }
            WireData::BudgetChanged(budget) => vec![EventLine::new(LineKind::Warn, budget_line(budget))],
            WireData::WaitRequested(wait) => {
                vec![EventLine::new(LineKind::Warn, format_wait(event.run_id, wait))]
            }
            WireData::WaitResolved(resolved) if resolved.decision == "resume" => {
                vec![EventLine::new(LineKind::Note, "resumed")]
            }
            WireData::RunFinished(finished) => self.format_run_finished(finished),
            _ => Vec::new(),
        }
    }

    /// Returns the label of a running call.
    pub fn label_of(&self, call_id: &str) -> Option<&str> {
        self.calls.get(call_id).map(String::as_str)
    }

    fn format_run_finished(&self, finished: &RunFinished) -> Vec<EventLine> {
        let what = match (finished.status, finished.limit) {
            (RunStatus::TimedOut, Some(limit)) => format!("stopped by the {}", limit_text(limit)),
            (status, _) => status.name().to_owned(),
        };
        let text = format!(
            "{what} after {}, {}, {} tokens, {}",
            pluralize(finished.iterations as usize, "turn", "turns"),
            format_duration(finished.duration_ms),
            format_count(finished.tokens.total),
            format_dollars(finished.cost_usd),
        );
        let tone =
            if finished.status == RunStatus::Completed { LineKind::Completed } else { LineKind::Ended };
        let error = finished.error.as_ref().map(|error| {
            let repeated = error.message == self.last_failure;
            one_line(&if repeated {
                hint_sentence(error, self.hint_text)
            } else {
                error_with_hints(error, self.hint_text)
            })
        });
        let error = error.filter(|text| !text.is_empty()).map(|text| EventLine::new(LineKind::Bad, text));
        error.into_iter().chain([EventLine::new(tone, text)]).collect()
    }

    fn format_tool_completed(&mut self, done: &ToolCompleted) -> EventLine {
        let label = self.calls.remove(&done.call_id).unwrap_or_else(|| one_line(&done.tool));
        let mut facts = Vec::new();
        if let Some(code) = done.exit_code {
            facts.push(format!("exit {code}"));
        } else if !done.ok {
            facts.push(failure_reason(done));
        }
        if done.duration_ms > 0 {
            facts.push(format_duration(done.duration_ms));
        }
        let facts = if facts.is_empty() { String::new() } else { format!(" ({})", facts.join(", ")) };
        EventLine::new(if done.ok { LineKind::Good } else { LineKind::Bad }, label + &facts)
    }
}

fn model_text_lines(text: &str) -> Vec<EventLine> {
    sanitize_text(text.trim()).lines().map(|line| EventLine::new(LineKind::ModelText, line)).collect()
}

fn failure_reason(done: &ToolCompleted) -> String {
    let detail = done.detail.as_deref().map(one_line).unwrap_or_default();
    match (&done.error, detail.is_empty()) {
        (_, false) => truncate_text(&detail, 120),
        (Some(kind), true) => one_line(kind),
        (None, true) => "failed".to_owned(),
    }
}

fn format_model_failed(failed: &ModelFailed) -> Vec<EventLine> {
    let text = format!("the model call failed: {} ({})", one_line(&failed.message), one_line(&failed.reason));
    vec![EventLine::new(if failed.retryable { LineKind::Warn } else { LineKind::Bad }, text)]
}

fn budget_line(budget: &BudgetChanged) -> String {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counts that were integers")]
    let whole = |amount: f64| amount as u64;
    let amounts = match budget.budget.name() {
        "cost" => format!("{} of {}", format_dollars(budget.used), format_dollars(budget.limit)),
        "time" => {
            format!("{} of {}", format_duration(whole(budget.used)), format_duration(whole(budget.limit)))
        }
        _ => format!("{} of {}", format_count(whole(budget.used)), format_count(whole(budget.limit))),
    };
    match budget.level {
        BudgetLevel::Alert => format!("the {} budget is nearly used up: {amounts}", budget.budget.name()),
        BudgetLevel::Exceeded => format!("the {} budget is used up: {amounts}", budget.budget.name()),
    }
}

fn format_wait(run: RunId, wait: &WaitRequested) -> String {
    let reason = wait.reason.as_deref().map(|reason| format!(": {}", one_line(reason))).unwrap_or_default();
    let time = |time: Timestamp| time.to_string().chars().skip(11).take(5).collect::<String>();
    let until = wait.until.map(|until| format!(" until {} UTC", time(until))).unwrap_or_default();
    let what = match wait.waiting_for {
        WaitingFor::Retry => "rate limited".to_owned(),
        other => format!("waiting ({})", other.name()),
    };
    let command = match wait.waiting_for {
        WaitingFor::Budget => {
            format!("forge budget raise {run} USD, or forge resume {run} with --max-cost or --max-tokens")
        }
        _ => format!("forge resume {run}"),
    };
    format!("{what}{until}{reason}; continue: {command}")
}

/// Returns the tool's name and its most telling argument.
pub fn tool_label(tool: &str, arguments: &Value) -> String {
    const LABEL_ARGUMENTS: [&str; 8] =
        ["command", "path", "pattern", "glob", "filename", "url", "name", "query"];
    let telling = LABEL_ARGUMENTS.iter().find_map(|key| arguments.get(key).and_then(Value::as_str));
    let argument = match (telling, arguments) {
        (Some(text), _) => one_line(text),
        (None, Value::Object(map)) if map.is_empty() => String::new(),
        (None, Value::String(text)) => one_line(text),
        (None, other) => one_line(&other.to_string()),
    };
    format!("{} {}", one_line(tool), truncate_text(&argument, MAX_ARGUMENT_COLUMNS)).trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use forge_wire::{GuardChecked, ModelCompleted, ToolCalled};
    use serde_json::json;

    fn event(data: WireData) -> WireEvent {
        let run = RunId::from_u128(1);
        WireEvent {
            seq: 1,
            id: String::new(),
            ts: Timestamp::default(),
            run_id: run,
            root_id: run,
            step_id: None,
            correlation_id: String::new(),
            trace_id: String::new(),
            data,
        }
    }

    fn called(id: &str, tool: &str, arguments: Value) -> WireEvent {
        let (call_id, tool) = (id.to_owned(), tool.to_owned());
        event(WireData::ToolCalled(ToolCalled { call_id, tool, arguments, iteration: 1 }))
    }

    fn completed(id: &str, ok: bool, exit_code: Option<i32>, detail: Option<&str>) -> WireEvent {
        event(WireData::ToolCompleted(ToolCompleted {
            call_id: id.to_owned(),
            tool: "x".to_owned(),
            ok,
            exit_code,
            output_chars: 0,
            truncated: false,
            duration_ms: 1_200,
            error: None,
            detail: detail.map(str::to_owned),
        }))
    }

    fn plain(story: &mut EventFormatter, event: &WireEvent) -> String {
        story.format(event).iter().map(EventLine::to_unstyled).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn a_tool_call_is_one_line_with_its_argument_and_its_result() {
        let mut story = EventFormatter::new(|_| String::new());
        assert_eq!(plain(&mut story, &called("1", "run_shell", json!({"command": "make\ntest"}))), "");
        assert_eq!(story.label_of("1"), Some("run_shell make test"));
        let line = plain(&mut story, &completed("1", true, Some(0), None));
        assert_eq!(line, "  ok      run_shell make test (exit 0, 1.2 s)");
        plain(&mut story, &called("2", "read_file", json!({"path": "a"})));
        let line = plain(&mut story, &completed("2", false, None, Some("there is no file a\nat all")));
        assert_eq!(line, "  failed  read_file a (there is no file a at all, 1.2 s)");
    }

    #[test]
    fn nothing_that_a_model_or_tool_says_reaches_the_terminal_unchanged() {
        let evil = "\x1b]0;title\x07\u{202e}";
        let mut story = EventFormatter::new(|_| String::new());
        let reply = ModelCompleted {
            provider: "p".into(),
            model: "m".into(),
            usage: forge_types::Usage::default(),
            cost_usd: None,
            latency_ms: 1,
            finish: forge_types::FinishReason::Stop,
            text: evil.into(),
        };
        let guard = GuardChecked {
            guard: "command".into(),
            name: "t".into(),
            verdict: "deny".into(),
            detail: evil.into(),
        };
        let mut all = String::new();
        for event in [
            event(WireData::ModelCompleted(reply)),
            event(WireData::GuardChecked(guard)),
            called("1", evil, json!({"path": evil})),
            completed("1", false, None, Some(evil)),
            called("2", "t", json!(evil)),
            completed("2", true, None, None),
        ] {
            all += &plain(&mut story, &event);
        }
        assert!(!all.contains(['\x1b', '\x07', '\u{202e}']), "{all:?}");
    }
}
