//! Journals for tests: random ones that a runtime could have written, with some that it should not.

use forge_types::{
    CommandId, Digest, Effect, EffectId, ErrorInfo, ErrorKind, Event, EventKind, FinishReason, LimitKind,
    MessagePart, ModelCall, ModelReply, ModelRoute, Money, Outcome, Payload, RunCommand, RunCreation, RunId,
    RunLimits, RunSource, RunState, RunStatus, SandboxReport, SandboxState, Seq, Timestamp, ToolAccess,
    ToolCall, ToolCallVerdict, ToolOutput, ToolRun, Usage, WaitingFor,
};
use forge_wire::PlanFacts;
use proptest::prelude::*;

pub(crate) fn run() -> RunId {
    RunId::from_u128(0x0192_7e00_0000_7000_8000_0000_0000_0001)
}

pub(crate) fn facts() -> PlanFacts {
    PlanFacts {
        route: Some(ModelRoute { provider: "scripted".into(), model: "tiny".into() }),
        tools: 7,
        limits: RunLimits { max_tokens: 1_000, max_shell_commands: 3, ..RunLimits::default() },
        alert_percent: 80,
        fallbacks: Vec::new(),
        routing: None,
    }
}

/// Writes a journal and folds it on the way.
pub(crate) struct Writer {
    pub(crate) state: RunState,
    pub(crate) events: Vec<Event>,
}

impl Writer {
    pub(crate) fn new() -> Self {
        let mut writer = Self { state: RunState::new(run()), events: Vec::new() };
        writer.add(EventKind::Created(Box::new(RunCreation {
            task: Payload::from("Fix the failing test"),
            repo: "/srv/project".into(),
            pipeline: "solo".into(),
            source: RunSource::Cli,
            history: Vec::new(),
            parent: None,
            root: run(),
            plan: Digest::of_bytes(b"plan"),
            correlation_id: "00112233aabbccdd".into(),
        })));
        writer
    }

    /// Appends an event one millisecond and a half after the last.
    pub(crate) fn add(&mut self, kind: EventKind) {
        let seq = Seq(self.events.len() as u64 + 1);
        let at =
            Timestamp::from_micros(1_763_712_000_000_000 + i64::try_from(seq.0).expect("few events") * 1_500);
        let event = Event { run: run(), seq, at, kind };
        self.state.apply(&event).expect("numbered in order");
        self.events.push(event);
    }

    pub(crate) fn status(&mut self, to: RunStatus, waiting_for: Option<WaitingFor>) {
        let from = self.state.status;
        self.add(EventKind::StatusChanged { from, to, waiting_for, until: None, reason: None });
    }

    pub(crate) fn start(&mut self) {
        self.add(EventKind::Claimed { worker: "host:1".into(), attempt: self.state.attempt + 1 });
        self.status(RunStatus::Running, None);
    }

    pub(crate) fn intend(&mut self, what: Effect) -> EffectId {
        let effect = self.state.next_effect;
        self.add(EventKind::Intended {
            effect,
            what,
            reserved: Some(Money(1_000)),
            key: None,
            snapshot: None,
        });
        effect
    }

    pub(crate) fn ask(&mut self) -> EffectId {
        let again = self.state.last_error.is_some();
        let iteration = self.state.iterations + u32::from(!again || self.state.iterations == 0);
        let attempt = if again { self.state.tries + 1 } else { 1 };
        self.intend(Effect::CallModel(ModelCall {
            iteration,
            attempt,
            max_tokens: 100,
            not_before: None,
            input_estimate: 50,
            target: 0,
            passed: Vec::new(),
        }))
    }

    pub(crate) fn reply(&mut self, effect: EffectId, parts: Vec<MessagePart>, finish: FinishReason) {
        let usage = Usage { input: 90, output: 10, cached: 40, cache_write: 0, known: true };
        let reply = ModelReply { parts, usage, model: "tiny-1".into(), finish, latency_ms: 12 };
        let outcome = Outcome::Replied { reply, cost: Some(Money::from_usd(0.002)) };
        self.add(EventKind::Settled { effect, outcome, snapshot: None });
    }

    pub(crate) fn call(&mut self, id: &str, tool: &str, access: ToolAccess, attempt: u32) -> EffectId {
        let found = self.state.calls.iter().find(|pending| pending.call.id == id);
        let arguments = found.map_or_else(|| "{}".into(), |pending| pending.call.arguments.clone());
        let call = ToolCall { id: id.into(), name: tool.into(), arguments };
        self.intend(Effect::RunTool(ToolRun { call, access, attempt, not_before: None }))
    }

    pub(crate) fn done(&mut self, effect: EffectId, output: ToolOutput) {
        self.add(EventKind::Settled { effect, outcome: Outcome::ToolDone { output }, snapshot: None });
    }

    pub(crate) fn finish(&mut self, status: RunStatus, limit: Option<LimitKind>) {
        let error = (status == RunStatus::Failed).then(|| ErrorInfo::fatal(ErrorKind::Auth, "no key"));
        let files_modified = vec!["src/lib.rs".to_owned()];
        self.add(EventKind::Finished {
            status,
            limit,
            error,
            files_modified,
            files_omitted: 0,
            snapshot: None,
            answer: None,
        });
    }
}

pub(crate) fn part_call(id: &str, tool: &str, arguments: &str) -> MessagePart {
    MessagePart::call(ToolCall { id: id.into(), name: tool.into(), arguments: arguments.into() })
}

/// One thing that happens to a run; numbers choose among what is possible at that moment.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Claim,
    Ask,
    Reply {
        calls: Vec<u8>,
        text: bool,
        finish: u8,
    },
    ModelFails(u8),
    RunTool(u8),
    ToolEnds {
        which: u8,
        how: u8,
    },
    Judge(u8),
    Status(u8),
    Tell(u8),
    Box(u8),
    Finish(u8),
    /// An outcome that no intent waits for.
    StrayOutcome(u8),
}

pub(crate) fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        1 => Just(Step::Claim),
        6 => Just(Step::Ask),
        6 => (proptest::collection::vec(0_u8..6, 0..4), any::<bool>(), 0_u8..8)
            .prop_map(|(calls, text, finish)| Step::Reply { calls, text, finish }),
        2 => (0_u8..4).prop_map(Step::ModelFails),
        8 => (0_u8..4).prop_map(Step::RunTool),
        8 => (0_u8..4, 0_u8..6).prop_map(|(which, how)| Step::ToolEnds { which, how }),
        2 => (0_u8..4).prop_map(Step::Judge),
        2 => (0_u8..7).prop_map(Step::Status),
        2 => (0_u8..5).prop_map(Step::Tell),
        1 => (0_u8..3).prop_map(Step::Box),
        1 => (0_u8..4).prop_map(Step::Finish),
        1 => (0_u8..9).prop_map(Step::StrayOutcome),
    ];
    proptest::collection::vec(step, 0..60)
}

/// A journal of these steps. `allow_stray` lets through what no runtime may write.
pub(crate) fn write(steps: &[Step], allow_stray: bool) -> Writer {
    let mut writer = Writer::new();
    writer.start();
    for step in steps {
        take(&mut writer, step, allow_stray);
    }
    writer
}

fn take(writer: &mut Writer, step: &Step, allow_stray: bool) {
    if writer.state.status.is_terminal() && !allow_stray {
        return;
    }
    match step {
        Step::Claim => writer.start(),
        Step::Ask if writer.state.open.is_empty() && writer.state.calls.is_empty() => {
            writer.ask();
        }
        Step::Reply { calls, text, finish } => {
            let Some(effect) = open(writer, |what| matches!(what, Effect::CallModel(_)), 0) else { return };
            let mut parts: Vec<_> = if *text { vec![MessagePart::text("Looking.")] } else { Vec::new() };
            parts.extend(calls.iter().map(|n| part_call(&id(*n), "read_file", r#"{"path":"a"}"#)));
            let finish =
                [FinishReason::Stop, FinishReason::ToolCalls, FinishReason::Length, FinishReason::Error]
                    [*finish as usize % 4];
            writer.reply(effect, parts, finish);
        }
        Step::ModelFails(how) => {
            let Some(effect) = open(writer, |what| matches!(what, Effect::CallModel(_)), 0) else { return };
            let error = ErrorInfo::retryable(ErrorKind::Overloaded, "529", None);
            let outcome = match how {
                0 => Outcome::Cancelled,
                1 => Outcome::Interrupted,
                _ => Outcome::ModelFailed { error },
            };
            writer.add(EventKind::Settled { effect, outcome, snapshot: None });
        }
        Step::RunTool(n) => run_tool(writer, *n),
        Step::ToolEnds { which, how } => {
            let Some(effect) = open(writer, |what| matches!(what, Effect::RunTool(_)), *which) else {
                return;
            };
            let outcome = match how {
                0 => Outcome::Cancelled,
                1 => Outcome::Interrupted,
                2 => Outcome::SandboxLost { why: "gone".into() },
                3 => Outcome::ToolDone { output: ToolOutput::failed(ErrorKind::Execution, "exit code 1") },
                _ => Outcome::ToolDone { output: ToolOutput::ok("fine") },
            };
            writer.add(EventKind::Settled { effect, outcome, snapshot: None });
        }
        Step::Judge(n) => judge(writer, *n),
        Step::Status(n) => {
            let to = RunStatus::ALL[*n as usize];
            let waiting_for = (to == RunStatus::Waiting).then_some(WaitingFor::Budget);
            if (writer.state.status.to(to).is_ok() && !to.is_terminal()) || allow_stray {
                writer.status(to, waiting_for);
            }
        }
        Step::Tell(n) => tell(writer, *n),
        Step::Box(n) => {
            let state = [SandboxState::Running, SandboxState::Stopped, SandboxState::Died][*n as usize];
            let report = SandboxReport { backend: "native".into(), id: "box".into(), ..Default::default() };
            let report = (state == SandboxState::Running).then_some(report);
            writer.add(EventKind::SandboxChanged { state, report });
        }
        Step::Finish(n) => {
            let to = RunStatus::ALL[3 + *n as usize];
            let limit = (to == RunStatus::TimedOut).then_some(LimitKind::Tokens);
            if writer.state.status.to(to).is_ok() || allow_stray {
                writer.finish(to, limit);
            }
        }
        Step::StrayOutcome(n) if allow_stray => {
            let outcome = Outcome::ToolDone { output: ToolOutput::ok("again") };
            writer.add(EventKind::Settled { effect: EffectId((*n).into()), outcome, snapshot: None });
        }
        _ => {}
    }
}

fn run_tool(writer: &mut Writer, n: u8) {
    let waiting =
        |pending: &&forge_types::PendingCall| matches!(pending.state, forge_types::CallState::Waiting { .. });
    let waiting: Vec<_> = writer.state.calls.iter().filter(waiting).cloned().collect();
    let Some(pending) = waiting.get(n as usize % waiting.len().max(1)) else { return };
    let forge_types::CallState::Waiting { tries, .. } = pending.state else { return };
    let access = [ToolAccess::Read, ToolAccess::Write, ToolAccess::Exec][n as usize % 3];
    let (id, name) = (pending.call.id.clone(), pending.call.name.clone());
    writer.call(&id, &name, access, tries + 1);
}

fn judge(writer: &mut Writer, n: u8) {
    let found = writer.state.calls.iter().find(|p| matches!(p.state, forge_types::CallState::Waiting { .. }));
    let Some(pending) = found.cloned() else { return };
    let verdict = [
        ToolCallVerdict::Command,
        ToolCallVerdict::Limit,
        ToolCallVerdict::Malformed,
        ToolCallVerdict::Ending,
    ][n as usize % 4];
    writer.add(EventKind::ToolCallRejected {
        call_id: pending.call.id.clone(),
        tool: pending.call.name.clone(),
        verdict,
        error: ErrorInfo::fatal(ErrorKind::Denied, "refused"),
    });
}

fn tell(writer: &mut Writer, n: u8) {
    let command = match n {
        0 => RunCommand::Steer { text: "and the docs".into() },
        1 => RunCommand::Pause,
        2 => RunCommand::Resume { limits: None },
        3 => RunCommand::Resume { limits: Some(RunLimits { max_tokens: 5_000, ..RunLimits::default() }) },
        _ => RunCommand::Cancel { by: "cli".into() },
    };
    let id = CommandId::from_u128(u128::from(writer.state.seq.0));
    writer.add(EventKind::Commanded { id, command });
}

fn open(writer: &Writer, wanted: impl Fn(&Effect) -> bool, which: u8) -> Option<EffectId> {
    let all: Vec<_> = writer.state.open.iter().filter(|(_, o)| wanted(&o.what)).map(|(id, _)| *id).collect();
    all.get(which as usize % all.len().max(1)).copied()
}

/// Small numbers give ids that collide, zero gives none, as some servers do.
fn id(n: u8) -> String {
    if n == 0 { String::new() } else { format!("call_{n}") }
}
