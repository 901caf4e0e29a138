//! Redaction of events and messages.
//!
//! Every type is destructured field by field without `..`, so a new field does not compile until its author has decided
//! whether a server, a tool or a repository can fill it.

use super::pieces::PieceContext;
use super::{KnownSecrets, Redactor};
use forge_types::{
    ApplyConflict, ApplyOutcome, ChildEnd, ChildRun, Compaction, ConversationSummary, Effect, EgressRecord,
    ErrorInfo, EventKind, FinishReason, Message, MessagePart, ModelCall, ModelReply, NextStep, OpaqueState,
    Outcome, PartKind, Payload, RejectedCandidate, RunCommand, RunCreation, SandboxLayer, SandboxLayerState,
    SandboxReport, SummaryCost, ToolArguments, ToolCall, ToolOutput, ToolResultPart, ToolRun,
    WorkspaceChange,
};

/// Prefix, before a number, of the ID that replaces a call ID containing a secret. Providers accept only letters,
/// digits, `_` and `-`.
const REDACTED_ID_PREFIX: &str = "call_redacted_";

impl Redactor {
    /// Redacts all fields of an event.
    pub fn redact_event(&self, kind: &mut EventKind) {
        let known = self.known_secrets();
        if !known.secrets.is_empty() {
            EventRedactor::new(&known).redact_event(kind);
        }
    }

    /// Redacts a reply that continues the already redacted text `before`, including a secret that spans the two.
    pub fn redact_reply(&self, reply: &mut ModelReply, before: &str) {
        let known = self.known_secrets();
        if !known.secrets.is_empty() {
            EventRedactor::new(&known).redact_reply(reply, before);
        }
    }

    /// Redacts a sandbox report.
    pub fn redact_report(&self, report: &mut SandboxReport) {
        let known = self.known_secrets();
        if !known.secrets.is_empty() {
            EventRedactor::new(&known).redact_report(report);
        }
    }
}

/// The redaction of one event.
struct EventRedactor<'a> {
    known: &'a KnownSecrets,
    /// Distinct call IDs that contain a secret; the index determines the number that replaces each.
    ids: Vec<String>,
}

impl<'a> EventRedactor<'a> {
    const fn new(known: &'a KnownSecrets) -> Self {
        Self { known, ids: Vec::new() }
    }

    fn redact_text(&self, text: &mut String) -> bool {
        let clean = self.known.redact_text(text, false);
        let held = clean.is_some();
        if let Some(clean) = clean {
            *text = clean;
        }
        held
    }

    fn redact_texts<'t>(&self, texts: impl IntoIterator<Item = &'t mut String>) {
        for text in texts {
            self.redact_text(text);
        }
    }

    /// Redacts arguments; those without a secret keep what was parsed.
    fn redact_arguments(&self, arguments: &mut ToolArguments) {
        if let Some(clean) = self.known.redact_text(arguments, false) {
            *arguments = clean.into();
        }
    }

    fn redact_payload(&self, payload: &mut Payload) {
        match payload {
            Payload::Inline(text) => drop(self.redact_text(text)),
            // Its text was redacted before it was stored.
            Payload::Stored { blob: _, bytes: _, chars: _ } => {}
        }
    }

    fn redact_event(&mut self, kind: &mut EventKind) {
        match kind {
            EventKind::Created(created) => self.redact_created(created),
            EventKind::Commanded { id: _, command } => self.redact_command(command),
            EventKind::Intended { effect: _, what, reserved: _, key: _, snapshot: _ } => {
                self.redact_effect(what)
            }
            EventKind::Settled { effect: _, outcome, snapshot: _ } => self.redact_outcome(outcome),
            // The ID comes from a call in the state, which got it from a redacted reply.
            EventKind::ToolCallRejected { call_id: _, tool, verdict: _, error } => {
                self.redact_text(tool);
                self.redact_error(error);
            }
            EventKind::SandboxChanged { state: _, report } => {
                report.iter_mut().for_each(|report| self.redact_report(report));
            }
            EventKind::Compacted { gone: _, cause: _, by: _, text, recall: _, note } => {
                self.redact_payload(text);
                self.redact_texts(note);
            }
            EventKind::EgressRecorded { records } => {
                records.iter_mut().for_each(|record| self.redact_egress_record(record))
            }
            EventKind::Applied { to: _, outcome } => self.redact_apply_outcome(outcome),
            EventKind::StatusChanged { from: _, to: _, waiting_for: _, until: _, reason } => {
                self.redact_texts(reason);
            }
            EventKind::Finished {
                status: _,
                limit: _,
                error,
                files_modified,
                files_omitted: _,
                snapshot: _,
                answer,
            } => {
                error.iter_mut().for_each(|error| self.redact_error(error));
                self.redact_texts(files_modified);
                answer.iter_mut().for_each(|answer| self.redact_payload(answer));
            }
            // Forge's own texts, hashes and numbers.
            EventKind::Claimed { worker: _, attempt: _ }
            | EventKind::Restored { to: _, direction: _, applied: _ } => {}
        }
    }

    fn redact_created(&mut self, created: &mut RunCreation) {
        let RunCreation {
            task,
            repo: _,
            pipeline: _,
            source: _,
            history,
            parent: _,
            root: _,
            plan: _,
            correlation_id: _,
        } = created;
        self.redact_payload(task);
        history.iter_mut().for_each(|message| self.redact_message(message));
    }

    fn redact_command(&self, command: &mut RunCommand) {
        match command {
            RunCommand::Cancel { by } => drop(self.redact_text(by)),
            RunCommand::Steer { text } => drop(self.redact_text(text)),
            RunCommand::ChildEnded { effect: _, end } => self.redact_child_end(end),
            RunCommand::Pause | RunCommand::Resume { limits: _ } => {}
        }
    }

    fn redact_effect(&self, effect: &mut Effect) {
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
                for RejectedCandidate { provider, model, reason } in passed {
                    self.redact_texts([provider, model, reason]);
                }
            }
            Effect::RunTool(run) => {
                let ToolRun { call, access: _, attempt: _, not_before: _ } = run;
                // The ID comes from the state, as in `ToolCallRejected`.
                let ToolCall { id: _, name, arguments } = call;
                self.redact_text(name);
                self.redact_arguments(arguments);
            }
            Effect::Compact(compaction) => {
                let Compaction { gone: _, cause: _, attempt: _, ask: _, room: _, most: _, note } = compaction;
                self.redact_texts(note);
            }
            // The node's name is part of the plan, which was redacted before it was stored.
            Effect::StartRun(ChildRun { run: _, node: _, attempt: _, not_before: _ }) => {}
        }
    }

    fn redact_child_end(&self, end: &mut ChildEnd) {
        let ChildEnd { status: _, answer, error, usage: _, cost: _, cost_known: _ } = end;
        answer.iter_mut().for_each(|payload| self.redact_payload(payload));
        error.iter_mut().for_each(|error| self.redact_error(error));
    }

    fn redact_outcome(&mut self, outcome: &mut Outcome) {
        match outcome {
            Outcome::Replied { reply, cost: _ } => self.redact_reply(reply, ""),
            Outcome::ModelFailed { error } => self.redact_error(error),
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
                self.redact_payload(content);
            }
            Outcome::Summarised { summary } => {
                let ConversationSummary { text, by: _, note, asked } = summary;
                self.redact_payload(text);
                self.redact_texts(note);
                if let Some(SummaryCost { model, usage: _, latency_ms: _, finish: _, cost: _ }) = asked {
                    self.redact_text(model);
                }
            }
            Outcome::RunEnded { end } => self.redact_child_end(end),
            Outcome::SandboxLost { why } | Outcome::Unknown { why } => drop(self.redact_text(why)),
            Outcome::Cancelled | Outcome::Interrupted => {}
        }
    }

    fn redact_error(&self, error: &mut ErrorInfo) {
        let ErrorInfo { kind: _, message, retryable: _, retry_after_ms: _, next_steps } = error;
        self.redact_text(message);
        self.redact_texts(next_steps.iter_mut().filter_map(NextStep::text_mut));
    }

    fn redact_report(&self, report: &mut SandboxReport) {
        let SandboxReport { backend, id, view, layers, masked, warnings } = report;
        self.redact_texts([backend, id, view]);
        self.redact_texts(masked);
        self.redact_texts(warnings);
        for SandboxLayer { name, state, remedy } in layers {
            self.redact_text(name);
            self.redact_texts(remedy);
            match state {
                SandboxLayerState::Enforced => {}
                SandboxLayerState::Degraded(why) | SandboxLayerState::Absent(why) => {
                    self.redact_text(why);
                }
            }
        }
    }

    fn redact_egress_record(&self, record: &mut EgressRecord) {
        let EgressRecord { at: _, host, port: _, verdict: _, why, count: _, sent: _, received: _ } = record;
        self.redact_texts([host, why]);
    }

    fn redact_apply_outcome(&self, outcome: &mut ApplyOutcome) {
        match outcome {
            ApplyOutcome::Done { changed, omitted: _, merged, notes } => {
                for WorkspaceChange { path, kind: _, added: _, removed: _ } in changed {
                    self.redact_text(path);
                }
                self.redact_texts(merged);
                self.redact_texts(notes);
            }
            ApplyOutcome::Published { branch, commit } => self.redact_texts([branch, commit]),
            ApplyOutcome::Conflicts { conflicts, omitted: _ } => {
                for ApplyConflict { path, why, merges: _ } in conflicts {
                    self.redact_texts([path, why]);
                }
            }
            ApplyOutcome::Failed { why } => drop(self.redact_text(why)),
        }
    }

    fn redact_reply(&mut self, reply: &mut ModelReply, before: &str) {
        let ModelReply { parts, usage: _, model, finish, latency_ms: _ } = reply;
        self.redact_text(model);
        // A reply cut off by the token limit continues in the next one.
        self.redact_parts(parts, PieceContext { before, goes_on: *finish == FinishReason::Length });
    }

    fn redact_message(&mut self, message: &mut Message) {
        let Message { role: _, parts } = message;
        self.redact_parts(parts, PieceContext::default());
    }

    /// Redacts the parts of one message. All parts of one kind are read as one text, regardless of parts between them.
    fn redact_parts(&mut self, parts: &mut [MessagePart], around: PieceContext<'_>) {
        let (mut said, mut thought) = (Vec::new(), Vec::new());
        for MessagePart { kind, opaque } in parts.iter_mut() {
            match kind {
                PartKind::Text { text: Payload::Inline(text) } => said.push(text),
                PartKind::Reasoning { text: Payload::Inline(text) } => thought.push(text),
                PartKind::Text { text } | PartKind::Reasoning { text } => self.redact_payload(text),
                PartKind::Call(ToolCall { id, name, arguments }) => {
                    self.redact_call_id(id);
                    self.redact_text(name);
                    self.redact_arguments(arguments);
                }
                PartKind::Result(ToolResultPart { call_id, name, content, ok: _ }) => {
                    self.redact_call_id(call_id);
                    self.redact_text(name);
                    self.redact_payload(content);
                }
            }
            // The provider accepts the state only unchanged, and does not need it.
            if opaque.as_ref().is_some_and(|opaque| self.holds_secret(opaque)) {
                *opaque = None;
            }
        }
        self.known.redact_pieces(&mut said, around);
        let thought = self.known.redact_pieces(&mut thought, PieceContext { before: "", ..around });
        if thought.contains(&true) {
            // The state of one part may encode the thoughts of others, split differently.
            let thoughts = parts.iter_mut().filter(|part| matches!(part.kind, PartKind::Reasoning { .. }));
            thoughts.for_each(|part| part.opaque = None);
        }
    }

    fn holds_secret(&self, opaque: &OpaqueState) -> bool {
        let OpaqueState { provider, model, data } = opaque;
        [provider, model, data].into_iter().any(|text| self.known.redact_text(text, false).is_some())
    }

    /// Replaces a call ID so that distinct IDs remain distinct and a result keeps the ID of its call.
    fn redact_call_id(&mut self, id: &mut String) {
        if self.known.redact_text(id, false).is_none() {
            return;
        }
        let known = self.ids.iter().position(|known| known == id);
        let number = known.unwrap_or(self.ids.len()) + 1;
        let old = std::mem::replace(id, format!("{REDACTED_ID_PREFIX}{number}"));
        if known.is_none() {
            self.ids.push(old);
        }
    }
}
