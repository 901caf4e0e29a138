//! Wire events as lines that people read: the same for a live run, `forge logs` and a pipe.

use super::style::Style;
use super::text::{clean, count, cut, dollars, duration, one_line, plural};
use forge_types::wire::{
    BudgetChanged, BudgetLevel, ModelFailed, RunFinished, ToolCompleted, WaitRequested, WireData, WireEvent,
};
use forge_types::{RouteStage, RunId, RunStatus, WaitingFor};
use serde_json::Value;
use std::collections::HashMap;

/// Columns of a tool's main argument.
const ARGUMENT: usize = 80;

/// What a line is, for its colour and sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tone {
    /// A turn begins.
    Turn,
    /// The model's words.
    Said,
    /// Something worked.
    Good,
    /// Something did not.
    Bad,
    /// The run ended well.
    Completed,
    /// The run ended otherwise.
    Ended,
    /// Something may be wrong.
    Warn,
    /// Beside the point.
    Note,
}

/// A line, already harmless for a terminal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) tone: Tone,
    pub(crate) text: String,
}

impl Line {
    fn new(tone: Tone, text: impl Into<String>) -> Self {
        Self { tone, text: text.into() }
    }

    /// With sign and colour.
    pub(crate) fn styled(&self, style: Style) -> String {
        match self.tone {
            Tone::Turn => style.dim(&format!("· {}", self.text)),
            Tone::Said => self.text.clone(),
            Tone::Completed => style.green(&self.text),
            Tone::Ended => style.red(&self.text),
            Tone::Good => format!("  {} {}", style.green("✓"), self.text),
            Tone::Bad => format!("  {} {}", style.red("✗"), self.text),
            Tone::Warn => style.yellow(&format!("! {}", self.text)),
            Tone::Note => style.dim(&self.text),
        }
    }

    /// Without colours, for a pipe.
    pub(crate) fn plain(&self) -> String {
        match self.tone {
            Tone::Turn | Tone::Completed | Tone::Ended => format!("-- {}", self.text),
            Tone::Good => format!("  ok      {}", self.text),
            Tone::Bad => format!("  failed  {}", self.text),
            Tone::Warn => format!("  note    {}", self.text),
            Tone::Said | Tone::Note => self.text.clone(),
        }
    }
}

/// Tells a run's events in order; remembers what calls were about.
#[derive(Clone, Debug, Default)]
pub(crate) struct Story {
    calls: HashMap<String, String>,
    /// What the last failed model call said, which an error of the run often repeats.
    last_failure: String,
}

impl Story {
    /// The lines of one event, mostly one or none.
    pub(crate) fn tell(&mut self, event: &WireEvent) -> Vec<Line> {
        match &event.data {
            WireData::RunCreated(created) => {
                let task = cut(&one_line(&created.task), 200);
                let repo = one_line(&created.repo);
                vec![Line::new(Tone::Note, format!("run {} in {repo}: {task}", event.run_id))]
            }
            WireData::RunStarted(started) if started.attempt > 1 => {
                vec![Line::new(Tone::Note, format!("taken again (attempt {})", started.attempt))]
            }
            WireData::IterationStarted(turn) => vec![Line::new(
                Tone::Turn,
                match turn.max {
                    Some(max) => format!("turn {} of {max}", turn.n),
                    None => format!("turn {}", turn.n),
                },
            )],
            // What was expected is no news.
            WireData::ModelRouted(routed)
                if routed.stage == RouteStage::Availability && !routed.rejected.is_empty() =>
            {
                let text =
                    format!("asking {}/{}: {}", routed.provider, routed.model, one_line(&routed.reason));
                vec![Line::new(Tone::Warn, text)]
            }
            WireData::ModelRequested(asked) => match (asked.attempt, asked.delay_ms) {
                (1, None) => Vec::new(),
                (attempt, None) => vec![Line::new(Tone::Note, format!("asking again (attempt {attempt})"))],
                (attempt, Some(ms)) => {
                    let text = format!("asking again in {} (attempt {attempt})", duration(ms));
                    vec![Line::new(Tone::Note, text)]
                }
            },
            WireData::ModelCompleted(reply) => said(&reply.text),
            WireData::ModelFailed(failed) => {
                self.last_failure.clone_from(&failed.message);
                model_failed(failed)
            }
            WireData::ToolCalled(call) => {
                self.calls.insert(call.call_id.clone(), label(&call.tool, &call.arguments));
                Vec::new()
            }
            WireData::ToolCompleted(done) => vec![self.tool_completed(done)],
            WireData::SandboxChanged(changed) if changed.restarted == Some(true) => {
                vec![Line::new(Tone::Warn, "the sandbox went away and was started again")]
            }
            WireData::GuardChecked(guard) if guard.verdict == "deny" => {
                vec![Line::new(Tone::Warn, format!("refused: {}", one_line(&guard.detail)))]
            }
            // Within a run that goes on: the conversation was compacted.
            WireData::RunChanged(changed) if changed.from == changed.to => {
                let reason = changed.reason.as_deref().map(one_line);
                reason.into_iter().map(|reason| Line::new(Tone::Note, reason)).collect()
            }
            WireData::BudgetChanged(budget) => vec![Line::new(Tone::Warn, budget_line(budget))],
            WireData::WaitRequested(wait) => vec![Line::new(Tone::Warn, waiting(event.run_id, wait))],
            WireData::WaitResolved(resolved) if resolved.decision == "resume" => {
                vec![Line::new(Tone::Note, "going on")]
            }
            WireData::RunFinished(finished) => self.ended(finished),
            _ => Vec::new(),
        }
    }

    /// What a call is about, while it runs.
    pub(crate) fn label_of(&self, call_id: &str) -> Option<&str> {
        self.calls.get(call_id).map(String::as_str)
    }

    fn ended(&self, finished: &RunFinished) -> Vec<Line> {
        let what = match (finished.status, finished.limit) {
            (RunStatus::TimedOut, Some(limit)) => format!("timed_out (limit: {limit})"),
            (status, _) => status.name().to_owned(),
        };
        let text = format!(
            "{what} after {}, {}, {} tokens, {}",
            plural(finished.iterations as usize, "turn", "turns"),
            duration(finished.duration_ms),
            count(finished.tokens.total),
            dollars(finished.cost_usd),
        );
        let tone = if finished.status == RunStatus::Completed { Tone::Completed } else { Tone::Ended };
        let error = finished.error.as_ref().filter(|error| error.message != self.last_failure);
        let error = error.map(|error| Line::new(Tone::Bad, one_line(&error.message)));
        error.into_iter().chain([Line::new(tone, text)]).collect()
    }

    fn tool_completed(&mut self, done: &ToolCompleted) -> Line {
        let label = self.calls.remove(&done.call_id).unwrap_or_else(|| one_line(&done.tool));
        let mut facts = Vec::new();
        if let Some(code) = done.exit_code {
            facts.push(format!("exit {code}"));
        } else if !done.ok {
            facts.push(fault(done));
        }
        if done.duration_ms > 0 {
            facts.push(duration(done.duration_ms));
        }
        let facts = if facts.is_empty() { String::new() } else { format!(" ({})", facts.join(", ")) };
        Line::new(if done.ok { Tone::Good } else { Tone::Bad }, label + &facts)
    }
}

fn said(text: &str) -> Vec<Line> {
    clean(text.trim()).lines().map(|line| Line::new(Tone::Said, line)).collect()
}

fn fault(done: &ToolCompleted) -> String {
    let detail = done.detail.as_deref().map(one_line).unwrap_or_default();
    match (&done.error, detail.is_empty()) {
        (_, false) => cut(&detail, 120),
        (Some(kind), true) => one_line(kind),
        (None, true) => "failed".to_owned(),
    }
}

fn model_failed(failed: &ModelFailed) -> Vec<Line> {
    let text = format!("the model call failed: {} ({})", one_line(&failed.message), one_line(&failed.reason));
    vec![Line::new(if failed.retryable { Tone::Warn } else { Tone::Bad }, text)]
}

fn budget_line(budget: &BudgetChanged) -> String {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counts that were integers")]
    let whole = |amount: f64| amount as u64;
    let amounts = match budget.budget.name() {
        "cost" => format!("{} of {}", dollars(budget.used), dollars(budget.limit)),
        "time" => format!("{} of {}", duration(whole(budget.used)), duration(whole(budget.limit))),
        _ => format!("{} of {}", count(whole(budget.used)), count(whole(budget.limit))),
    };
    match budget.level {
        BudgetLevel::Alert => format!("the {} budget is nearly used: {amounts}", budget.budget.name()),
        BudgetLevel::Exceeded => format!("the {} budget is used up: {amounts}", budget.budget.name()),
    }
}

fn waiting(run: RunId, wait: &WaitRequested) -> String {
    let reason = wait.reason.as_deref().map(|reason| format!(": {}", one_line(reason))).unwrap_or_default();
    let until = wait.until.map(|time| format!(" until {time}")).unwrap_or_default();
    let next = match wait.waiting_for {
        WaitingFor::Budget => format!("`forge resume {run} --max-cost … --max-tokens …` raises its limits"),
        _ => format!("`forge resume {run}` goes on"),
    };
    format!("waiting ({}){until}{reason}; {next}", wait.waiting_for.name())
}

/// The tool and the argument that says most.
pub(crate) fn label(tool: &str, arguments: &Value) -> String {
    const TELLING: [&str; 8] = ["command", "path", "pattern", "glob", "filename", "url", "name", "query"];
    let telling = TELLING.iter().find_map(|key| arguments.get(key).and_then(Value::as_str));
    let argument = match (telling, arguments) {
        (Some(text), _) => one_line(text),
        (None, Value::Object(map)) if map.is_empty() => String::new(),
        (None, Value::String(text)) => one_line(text),
        (None, other) => one_line(&other.to_string()),
    };
    format!("{} {}", one_line(tool), cut(&argument, ARGUMENT)).trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use forge_types::Timestamp;
    use forge_types::wire::{GuardChecked, ModelCompleted, ToolCalled};
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

    fn plain(story: &mut Story, event: &WireEvent) -> String {
        story.tell(event).iter().map(Line::plain).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn a_tool_call_is_one_line_with_its_argument_and_its_result() {
        let mut story = Story::default();
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
        let mut story = Story::default();
        let reply = ModelCompleted {
            provider: "p".into(),
            model: "m".into(),
            usage: forge_types::Usage::default(),
            cost_usd: None,
            latency_ms: 1,
            finish: forge_types::Finish::Stop,
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
