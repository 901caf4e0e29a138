//! Secrets taken out of events and messages.
//!
//! Every type is taken apart field by field, without `..`: a new field does not compile until somebody decided whether a
//! server, a tool or a repository can fill it.

use super::pieces::Around;
use super::{Known, Redactor};
use forge_types::{
    ApplyOutcome, Command, Compaction, Conflict, Created, Effect, EgressRecord, ErrorInfo, EventKind,
    FileChange, Finish, Layer, LayerState, Message, ModelCall, ModelReply, Opaque, Outcome, Part, PartKind,
    Payload, Rejected, SandboxReport, Summary, SummaryCost, ToolCall, ToolOutput, ToolResultPart, ToolRun,
};

/// What stands in the place of the id of a call that holds a secret, before its number: providers take nothing but letters,
/// digits, `_` and `-`.
const REDACTED_ID: &str = "call_redacted_";

impl Redactor {
    /// Takes secrets out of all that an event holds.
    pub fn event(&self, kind: &mut EventKind) {
        let known = self.known();
        if !known.secrets.is_empty() {
            Walk::new(&known).event(kind);
        }
    }

    /// Takes secrets out of a reply that goes on where the text `before` ended, from which they were taken already: no part
    /// of a secret is left where the two meet.
    pub fn reply(&self, reply: &mut ModelReply, before: &str) {
        let known = self.known();
        if !known.secrets.is_empty() {
            Walk::new(&known).reply(reply, before);
        }
    }

    /// Takes secrets out of what is known of a sandbox.
    pub fn report(&self, report: &mut SandboxReport) {
        let known = self.known();
        if !known.secrets.is_empty() {
            Walk::new(&known).report(report);
        }
    }
}

/// A way through an event.
struct Walk<'a> {
    known: &'a Known,
    /// Ids of calls that hold a secret, each once: their place here is the number that stands for them.
    ids: Vec<String>,
}

impl<'a> Walk<'a> {
    const fn new(known: &'a Known) -> Self {
        Self { known, ids: Vec::new() }
    }

    fn text(&self, text: &mut String) -> bool {
        let clean = self.known.clean(text, false);
        let held = clean.is_some();
        if let Some(clean) = clean {
            *text = clean;
        }
        held
    }

    fn texts<'t>(&self, texts: impl IntoIterator<Item = &'t mut String>) {
        for text in texts {
            self.text(text);
        }
    }

    fn payload(&self, payload: &mut Payload) {
        match payload {
            Payload::Inline(text) => drop(self.text(text)),
            // Its text was looked at before it was put there.
            Payload::Stored { blob: _, bytes: _, chars: _ } => {}
        }
    }

    fn event(&mut self, kind: &mut EventKind) {
        match kind {
            EventKind::Created(created) => self.created(created),
            EventKind::Commanded { id: _, command } => self.command(command),
            EventKind::Intended { effect: _, what, reserved: _, snapshot: _ } => self.effect(what),
            EventKind::Settled { effect: _, outcome, snapshot: _ } => self.outcome(outcome),
            // The id is that of a call in the state, which got it from a reply that was cleaned.
            EventKind::Judged { call_id: _, tool, verdict: _, error } => {
                self.text(tool);
                self.error(error);
            }
            EventKind::SandboxChanged { state: _, report } => {
                report.iter_mut().for_each(|report| self.report(report));
            }
            EventKind::Compacted { gone: _, cause: _, by: _, text, recall: _, note } => {
                self.payload(text);
                self.texts(note);
            }
            EventKind::Reached { records } => records.iter_mut().for_each(|record| self.record(record)),
            EventKind::Applied { to: _, outcome } => self.applied(outcome),
            EventKind::StatusChanged { from: _, to: _, waiting_for: _, until: _, reason } => {
                self.texts(reason);
            }
            EventKind::Finished { status: _, limit: _, error, files_modified, snapshot: _, answer } => {
                error.iter_mut().for_each(|error| self.error(error));
                self.texts(files_modified);
                answer.iter_mut().for_each(|answer| self.payload(answer));
            }
            // Forge's own words, hashes and numbers.
            EventKind::Claimed { worker: _, attempt: _ }
            | EventKind::Surveyed { manifest: _ }
            | EventKind::Restored { to: _, travel: _, applied: _ } => {}
        }
    }

    fn created(&mut self, created: &mut Created) {
        let Created { task, repo: _, pipeline: _, source: _, history, root: _, plan: _, correlation_id: _ } =
            created;
        self.payload(task);
        history.iter_mut().for_each(|message| self.message(message));
    }

    fn command(&self, command: &mut Command) {
        match command {
            Command::Cancel { by } => drop(self.text(by)),
            Command::Steer { text } => drop(self.text(text)),
            Command::Pause | Command::Resume { limits: _ } => {}
        }
    }

    fn effect(&self, effect: &mut Effect) {
        match effect {
            Effect::CallModel(call) => {
                let ModelCall {
                    iteration: _,
                    attempt: _,
                    max_tokens: _,
                    not_before: _,
                    input_estimate: _,
                    target: _,
                    passed,
                } = call;
                for Rejected { provider, model, reason } in passed {
                    self.texts([provider, model, reason]);
                }
            }
            Effect::RunTool(run) => {
                let ToolRun { call, access: _, attempt: _, not_before: _ } = run;
                // As in `Judged`, the id comes from the state.
                let ToolCall { id: _, name, arguments } = call;
                self.texts([name, arguments]);
            }
            Effect::Compact(compaction) => {
                let Compaction { gone: _, cause: _, attempt: _, ask: _, room: _, most: _, note } = compaction;
                self.texts(note);
            }
        }
    }

    fn outcome(&mut self, outcome: &mut Outcome) {
        match outcome {
            Outcome::Replied { reply, cost: _ } => self.reply(reply, ""),
            Outcome::ModelFailed { error } => self.error(error),
            Outcome::ToolDone { output } => {
                let ToolOutput {
                    content,
                    error: _,
                    exit_code: _,
                    timed_out: _,
                    truncated: _,
                    output_chars: _,
                    duration_ms: _,
                } = output;
                self.payload(content);
            }
            Outcome::Summarised { summary } => {
                let Summary { text, by: _, note, asked } = summary;
                self.payload(text);
                self.texts(note);
                if let Some(SummaryCost { model, usage: _, latency_ms: _, finish: _, cost: _ }) = asked {
                    self.text(model);
                }
            }
            Outcome::SandboxLost { why } => drop(self.text(why)),
            Outcome::Cancelled | Outcome::Interrupted => {}
        }
    }

    fn error(&self, error: &mut ErrorInfo) {
        let ErrorInfo { kind: _, message, retryable: _, retry_after_ms: _ } = error;
        self.text(message);
    }

    fn report(&self, report: &mut SandboxReport) {
        let SandboxReport { backend, id, view, layers, masked, warnings } = report;
        self.texts([backend, id, view]);
        self.texts(masked);
        self.texts(warnings);
        for Layer { name, state, remedy } in layers {
            self.text(name);
            self.texts(remedy);
            match state {
                LayerState::Enforced => {}
                LayerState::Degraded(why) | LayerState::Absent(why) => drop(self.text(why)),
            }
        }
    }

    fn record(&self, record: &mut EgressRecord) {
        let EgressRecord { at: _, host, port: _, verdict: _, why, count: _, sent: _, received: _ } = record;
        self.texts([host, why]);
    }

    fn applied(&self, outcome: &mut ApplyOutcome) {
        match outcome {
            ApplyOutcome::Done { changed, merged, notes } => {
                for FileChange { path, kind: _, added: _, removed: _ } in changed {
                    self.text(path);
                }
                self.texts(merged);
                self.texts(notes);
            }
            ApplyOutcome::Published { branch, commit } => self.texts([branch, commit]),
            ApplyOutcome::Conflicts { conflicts } => {
                for Conflict { path, why, merges: _ } in conflicts {
                    self.texts([path, why]);
                }
            }
            ApplyOutcome::Failed { why } => drop(self.text(why)),
        }
    }

    fn reply(&mut self, reply: &mut ModelReply, before: &str) {
        let ModelReply { parts, usage: _, model, finish, latency_ms: _ } = reply;
        self.text(model);
        // What the token limit cut off goes on in the next reply.
        self.parts(parts, Around { before, goes_on: *finish == Finish::Length });
    }

    fn message(&mut self, message: &mut Message) {
        let Message { role: _, parts } = message;
        self.parts(parts, Around::default());
    }

    /// Parts of one message. Those of one kind are read as one text, whatever stands between them.
    fn parts(&mut self, parts: &mut [Part], around: Around<'_>) {
        let (mut said, mut thought) = (Vec::new(), Vec::new());
        for Part { kind, opaque } in parts.iter_mut() {
            match kind {
                PartKind::Text { text: Payload::Inline(text) } => said.push(text),
                PartKind::Reasoning { text: Payload::Inline(text) } => thought.push(text),
                PartKind::Text { text } | PartKind::Reasoning { text } => self.payload(text),
                PartKind::Call(ToolCall { id, name, arguments }) => {
                    self.id(id);
                    self.texts([name, arguments]);
                }
                PartKind::Result(ToolResultPart { call_id, name, content, ok: _ }) => {
                    self.id(call_id);
                    self.text(name);
                    self.payload(content);
                }
            }
            // Its provider takes it as it was or not at all, and does without it.
            if opaque.as_ref().is_some_and(|opaque| self.holds(opaque)) {
                *opaque = None;
            }
        }
        self.known.clean_pieces(&mut said, around);
        let thought = self.known.clean_pieces(&mut thought, Around { before: "", ..around });
        if thought.contains(&true) {
            // The state of one part may stand for the thoughts of others, in pieces of its own.
            let thoughts = parts.iter_mut().filter(|part| matches!(part.kind, PartKind::Reasoning { .. }));
            thoughts.for_each(|part| part.opaque = None);
        }
    }

    fn holds(&self, opaque: &Opaque) -> bool {
        let Opaque { provider, model, data } = opaque;
        [provider, model, data].into_iter().any(|text| self.known.clean(text, false).is_some())
    }

    /// Two calls whose ids differ have different ones afterwards, and a result that of its call.
    fn id(&mut self, id: &mut String) {
        if self.known.clean(id, false).is_none() {
            return;
        }
        let known = self.ids.iter().position(|known| known == id);
        let number = known.unwrap_or(self.ids.len()) + 1;
        let old = std::mem::replace(id, format!("{REDACTED_ID}{number}"));
        if known.is_none() {
            self.ids.push(old);
        }
    }
}
