//! The projection: a pure fold from the journal's events to wire events.

use super::budget::BudgetWatch;
use super::choice::follow_up;
use super::compaction;
use super::trace::trace_id;
use super::{
    ExecCompleted, ExecStarted, GuardChecked, IterationCompleted, IterationStarted, ModelCompleted,
    ModelFailed, ModelRequested, RunChanged, RunCreated, RunFinished, RunStarted, SandboxChanged, ToolCalled,
    ToolCompleted, WaitRequested, WaitResolved, WireData, WireEvent, arguments_value, payload_text,
};
use forge_types::{
    Effect, EgressRecord, EgressVerdict, ErrorInfo, Event, EventKind, ModelCall, ModelReply, ModelRoute,
    Money, OutOfOrder, Outcome, PartKind, Plan, RoutingChoice, RunId, RunLimits, RunState, RunStatus,
    SandboxState, Timestamp, ToolAccess, ToolCall, ToolCallVerdict, ToolOutput, ToolRun, WaitingFor,
};
use serde::{Deserialize, Serialize};

/// Maximum number of characters of an error's text in an event.
const MAX_DETAIL_CHARS: usize = 200;

/// Facts from a run's plan that the projection needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanFacts {
    /// The provider and model to call; `None` if the run calls none itself.
    pub route: Option<ModelRoute>,
    /// Tools offered to the model.
    pub tools: u64,
    /// Limits.
    pub limits: RunLimits,
    /// Percentage of a budget at which an alert is reported.
    pub alert_percent: u8,
    /// Fallbacks for a model that is unavailable.
    #[serde(default)]
    pub fallbacks: Vec<ModelRoute>,
    /// The reasons for the chosen route.
    #[serde(default)]
    pub routing: Option<Box<RoutingChoice>>,
}

impl From<&Plan> for PlanFacts {
    fn from(plan: &Plan) -> Self {
        let agent = plan.agent().map(|plan| plan.agent);
        Self {
            route: agent.map(|agent| agent.first.route.clone()),
            tools: agent.map_or(0, |agent| agent.tools.len() as u64),
            limits: plan.shared.limits,
            alert_percent: plan.shared.alert_percent,
            fallbacks: agent
                .map(|agent| agent.fallbacks.iter().map(|target| target.route.clone()).collect())
                .unwrap_or_default(),
            routing: agent.and_then(|agent| agent.routing.clone()),
        }
    }
}

/// A turn with an unreported end.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct OpenTurn {
    n: u32,
    calls: u32,
    tokens: u64,
}

/// A projector of one run's journal, event by event.
///
/// Equal events always give equal wire events, and a longer journal only adds further ones. In serialized form, a
/// projector is a checkpoint: the state of the run and the position of its last wire event.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Projector {
    state: RunState,
    facts: Option<PlanFacts>,
    seq: u64,
    root: RunId,
    correlation: String,
    trace: String,
    turn: Option<OpenTurn>,
    box_died: bool,
    watch: BudgetWatch,
    /// A model failure that is reported together with its consequence.
    #[serde(default)]
    failed: Option<(Timestamp, u32, ModelFailed)>,
    /// The target of the last `model.routed`, by its index in the plan.
    #[serde(default)]
    routed: Option<u32>,
}

/// Placeholder for names from a missing plan (its blob is damaged); all events are still projected.
const UNKNOWN_NAME: &str = "unknown";

impl Projector {
    /// Creates a projector before the first event. Without `facts`, events lack the data that only the plan
    /// contains.
    pub fn new(run: RunId, facts: Option<PlanFacts>) -> Self {
        Self {
            state: RunState::new(run),
            facts,
            seq: 0,
            root: run,
            correlation: String::new(),
            trace: trace_id(run),
            turn: None,
            box_died: false,
            watch: BudgetWatch::default(),
            failed: None,
            routed: None,
        }
    }

    /// Sets the plan's facts once the plan has been read; earlier events lack them.
    pub fn set_facts(&mut self, facts: PlanFacts) {
        self.facts = Some(facts);
    }

    /// Returns the fold of all events so far.
    pub const fn state(&self) -> &RunState {
        &self.state
    }

    /// Returns the position of the last wire event; 0 before the first.
    pub const fn seq(&self) -> u64 {
        self.seq
    }

    /// Applies an event and returns its wire events.
    ///
    /// # Errors
    /// Returns [`OutOfOrder`] if the event does not follow the last one; the projector is then unchanged.
    pub fn project(&mut self, event: &Event) -> Result<Vec<WireEvent>, OutOfOrder> {
        let before = StateBefore::capture(&self.state, event);
        self.state.apply(event)?;
        let mut told = ProjectedData::default();
        let failed = self.failed.take().map(|failed| follow_up(failed, event, self.facts.as_ref()));
        match &event.kind {
            EventKind::Created(created) => {
                self.root = created.root;
                self.trace = trace_id(created.root);
                self.correlation.clone_from(&created.correlation_id);
                told.add(WireData::RunCreated(RunCreated {
                    task: payload_text(&created.task),
                    pipeline: created.pipeline.clone(),
                    repo: created.repo.to_string_lossy().into_owned(),
                    source: created.source,
                }));
            }
            EventKind::Claimed { worker, attempt } => {
                told.add(WireData::RunStarted(RunStarted { worker_id: worker.clone(), attempt: *attempt }));
            }
            EventKind::Commanded { .. } | EventKind::Restored { .. } | EventKind::Applied { .. } => {}
            kind @ EventKind::Compacted { .. } => {
                let (now, phase) = (self.state.message_bytes, self.state.phase());
                told.0.extend(compaction::compaction_done(kind, before.bytes, now, phase));
            }
            EventKind::EgressRecorded { records } => {
                records.iter().for_each(|record| told.add(egress_recorded(record)))
            }
            EventKind::Intended { what, .. } => self.effect_started(what, &before, event.at, &mut told),
            EventKind::Settled { outcome, .. } => match before.effect.as_ref() {
                Some(Effect::CallModel(call)) => self.model_settled(call, outcome, event.at, &mut told),
                Some(Effect::RunTool(run)) => tool_settled(run, outcome, &mut told),
                Some(Effect::Compact(what)) => {
                    told.0.extend(compaction::summary_settled(self, what, outcome))
                }
                // The child has events of its own.
                Some(Effect::StartRun(_)) | None => {}
            },
            EventKind::ToolCallRejected { call_id, tool, verdict, error } => {
                self.call_rejected(call_id, tool, *verdict, error, &before, &mut told);
            }
            EventKind::SandboxChanged { state, .. } => self.sandbox_changed(*state, &mut told),
            EventKind::StatusChanged { waiting_for, until, reason, .. } => {
                if before.status != self.state.status {
                    self.status_changed(&before, reason.clone(), &mut told);
                    if let Some(waiting_for) = *waiting_for {
                        let (until, reason) = (*until, reason.clone());
                        told.add(WireData::WaitRequested(WaitRequested { waiting_for, until, reason }));
                    }
                }
            }
            EventKind::Finished { .. } => {}
        }
        if before.calls > 0 && self.state.calls.is_empty() {
            self.close_turn(&mut told);
        }
        self.check_budgets(event, &mut told);
        if matches!(event.kind, EventKind::Finished { .. }) && before.status != self.state.status {
            self.run_finished(&before, &mut told);
        }
        let failed = failed.map(|(at, failed)| self.wrap_event(at, WireData::ModelFailed(failed)));
        let told = told.0.into_iter().map(|data| self.wrap_event(event.at, data));
        Ok(failed.into_iter().chain(told).collect())
    }

    /// Projects a whole journal, up to the first event that is out of order.
    pub fn project_all<'a>(&mut self, events: impl IntoIterator<Item = &'a Event>) -> Vec<WireEvent> {
        let mut all = Vec::new();
        for event in events {
            match self.project(event) {
                Ok(wire) => all.extend(wire),
                Err(_) => break,
            }
        }
        all
    }

    fn wrap_event(&mut self, at: Timestamp, data: WireData) -> WireEvent {
        self.seq += 1;
        WireEvent {
            seq: self.seq,
            id: format!("{}-{}", self.state.run, self.seq),
            ts: at,
            run_id: self.state.run,
            root_id: self.root,
            step_id: None,
            correlation_id: self.correlation.clone(),
            trace_id: self.trace.clone(),
            data,
        }
    }

    fn limits(&self) -> Option<RunLimits> {
        self.state.limits.or_else(|| self.facts.as_ref().map(|facts| facts.limits))
    }

    pub(super) fn provider_of(&self, target: u32) -> String {
        let route = self.facts.as_ref().and_then(|facts| facts.route_of(target));
        route.map_or_else(|| UNKNOWN_NAME.to_owned(), |route| route.provider.clone())
    }

    pub(super) fn model_of(&self, target: u32) -> String {
        let route = self.facts.as_ref().and_then(|facts| facts.route_of(target));
        route.map_or_else(|| UNKNOWN_NAME.to_owned(), |route| route.model.clone())
    }

    fn effect_started(
        &mut self,
        what: &Effect,
        before: &StateBefore,
        at: Timestamp,
        told: &mut ProjectedData,
    ) {
        match what {
            Effect::CallModel(call) => self.model_started(call, before, at, told),
            Effect::Compact(what) => {
                told.0.extend(compaction::compaction_started(self, what, before.phase, at))
            }
            Effect::StartRun(_) => {}
            Effect::RunTool(run) => {
                told.add(tool_called(&run.call, self.state.iterations));
                if run.access == ToolAccess::Exec {
                    told.add(WireData::ExecStarted(ExecStarted {
                        command: command_of(&run.call),
                        retry_number: run.attempt.saturating_sub(1),
                        sandbox_id: self.state.sandbox.as_ref().map_or_else(String::new, |b| b.id.clone()),
                    }));
                }
            }
        }
    }

    fn model_started(
        &mut self,
        call: &ModelCall,
        before: &StateBefore,
        at: Timestamp,
        told: &mut ProjectedData,
    ) {
        if call.iteration != before.iterations {
            let max = self.limits().map(|limits| limits.max_iterations);
            told.add(WireData::IterationStarted(IterationStarted { n: call.iteration, max }));
        }
        if self.routed != Some(call.target) {
            let routed = self.facts.as_ref().and_then(|facts| facts.routed_event(call, self.routed));
            routed.into_iter().for_each(|routed| told.add(WireData::ModelRouted(routed)));
            self.routed = Some(call.target);
        }
        told.add(WireData::ModelRequested(ModelRequested {
            provider: self.provider_of(call.target),
            model: self.model_of(call.target),
            attempt: call.attempt,
            messages: self.state.messages.len() as u64,
            tools: self.facts.as_ref().map_or(0, |facts| facts.tools),
            delay_ms: call.not_before.map(|time| time.millis_since(at)).filter(|ms| *ms > 0),
        }));
    }

    fn model_settled(
        &mut self,
        call: &ModelCall,
        outcome: &Outcome,
        at: Timestamp,
        told: &mut ProjectedData,
    ) {
        let failed = |reason: &str, message: &str, retryable, retry_in_ms| ModelFailed {
            provider: self.provider_of(call.target),
            model: self.model_of(call.target),
            reason: reason.to_owned(),
            message: message.to_owned(),
            retryable,
            retry_in_ms,
            next: None,
        };
        match outcome {
            Outcome::Replied { reply, cost } => self.reply_received(call, reply, *cost, told),
            Outcome::ModelFailed { error } => {
                let failed = failed(error.kind.name(), &error.message, error.retryable, error.retry_after_ms);
                self.failed = Some((at, call.target, failed));
            }
            Outcome::Interrupted => {
                let why = "the process that asked the model died; the call is repeated";
                told.add(WireData::ModelFailed(failed("interrupted", why, true, None)));
            }
            _ => {
                let why = "the call was cancelled before it ended";
                told.add(WireData::ModelFailed(failed("cancelled", why, false, None)));
            }
        }
    }

    fn reply_received(
        &mut self,
        call: &ModelCall,
        reply: &ModelReply,
        cost: Option<Money>,
        told: &mut ProjectedData,
    ) {
        told.add(WireData::ModelCompleted(ModelCompleted {
            provider: self.provider_of(call.target),
            model: reply.model.clone(),
            usage: reply.usage,
            cost_usd: cost.map(Money::as_usd),
            latency_ms: reply.latency_ms,
            finish: reply.finish,
            text: reply_text(reply),
        }));
        self.turn = Some(OpenTurn {
            n: self.state.iterations,
            calls: u32::try_from(reply.tool_calls().count()).unwrap_or(u32::MAX),
            tokens: reply.usage.input.saturating_add(reply.usage.output),
        });
        if self.state.calls.is_empty() {
            self.close_turn(told);
        }
    }

    fn close_turn(&mut self, told: &mut ProjectedData) {
        if let Some(turn) = self.turn.take() {
            told.add(WireData::IterationCompleted(IterationCompleted {
                n: turn.n,
                tool_calls: turn.calls,
                tokens: turn.tokens,
            }));
        }
    }

    fn call_rejected(
        &self,
        call_id: &str,
        tool: &str,
        verdict: ToolCallVerdict,
        error: &ErrorInfo,
        before: &StateBefore,
        told: &mut ProjectedData,
    ) {
        let Some(call) = before.judged.as_ref() else { return };
        told.add(tool_called(call, self.state.iterations));
        let guard = match verdict {
            ToolCallVerdict::Command => Some("command"),
            ToolCallVerdict::Limit => Some("policy"),
            ToolCallVerdict::Malformed | ToolCallVerdict::Ending => None,
        };
        if let Some(guard) = guard {
            told.add(WireData::GuardChecked(GuardChecked {
                guard: guard.to_owned(),
                name: tool.to_owned(),
                verdict: "deny".to_owned(),
                detail: error.message.clone(),
            }));
        }
        told.add(WireData::ToolCompleted(ToolCompleted {
            call_id: call_id.to_owned(),
            tool: tool.to_owned(),
            ok: false,
            exit_code: None,
            output_chars: error.message.chars().count() as u64,
            truncated: false,
            duration_ms: 0,
            error: Some(error.kind.name().to_owned()),
            detail: Some(truncate_detail(&error.message)),
        }));
    }

    fn sandbox_changed(&mut self, state: SandboxState, told: &mut ProjectedData) {
        let report = self.state.sandbox.as_ref();
        let restarted = (state == SandboxState::Running && self.box_died).then_some(true);
        self.box_died = state == SandboxState::Died;
        told.add(WireData::SandboxChanged(SandboxChanged {
            state: state.name().to_owned(),
            backend: report.map_or_else(String::new, |report| report.backend.clone()),
            id: report.map_or_else(String::new, |report| report.id.clone()),
            restarted,
        }));
    }

    fn status_changed(&self, before: &StateBefore, reason: Option<String>, told: &mut ProjectedData) {
        if let Some(waiting_for) = before.waiting_for {
            let ended = self.state.status.is_terminal();
            let by = match (&self.state.cancel, waiting_for) {
                (Some(by), _) => by.clone(),
                (None, WaitingFor::Retry) => "clock".to_owned(),
                (None, _) => "user".to_owned(),
            };
            let decision = if ended { "end" } else { "resume" }.to_owned();
            told.add(WireData::WaitResolved(WaitResolved { waiting_for, by, decision }));
        }
        told.add(WireData::RunChanged(RunChanged {
            from: before.status,
            to: self.state.status,
            phase: self.state.phase().to_owned(),
            previous_phase: before.phase.to_owned(),
            waiting_for: self.state.waiting_for,
            reason,
        }));
    }

    fn run_finished(&self, before: &StateBefore, told: &mut ProjectedData) {
        self.status_changed(before, None, told);
        let Some(ending) = self.state.ending.as_ref() else { return };
        told.add(WireData::RunFinished(RunFinished {
            status: self.state.status,
            limit: ending.limit,
            error: ending.error.clone(),
            iterations: self.state.iterations,
            tokens: self.state.usage.into(),
            cost_usd: self.state.cost.as_usd(),
            duration_ms: self.state.worked_ms(ending.at),
            files_modified: ending.files_modified.clone(),
            files_omitted: ending.files_omitted,
        }));
    }

    fn check_budgets(&mut self, event: &Event, told: &mut ProjectedData) {
        let (Some(limits), Some(facts)) = (self.limits(), self.facts.as_ref()) else { return };
        if let EventKind::Finished { limit: Some(kind), .. } = event.kind {
            let ended = self.watch.ended_by(kind, &self.state, &limits, event.at);
            told.0.extend(ended.into_iter().map(WireData::BudgetChanged));
        }
        if self.state.status == RunStatus::Running {
            let new = self.watch.check_budgets(&self.state, &limits, facts.alert_percent, event.at);
            told.0.extend(new.into_iter().map(WireData::BudgetChanged));
        }
    }
}

/// The wire data of one event, in order.
#[derive(Default)]
struct ProjectedData(Vec<WireData>);

impl ProjectedData {
    fn add(&mut self, data: WireData) {
        self.0.push(data);
    }
}

/// The state before an event, as far as the projection needs it. Small, so that projecting a run takes linear time.
struct StateBefore {
    status: RunStatus,
    phase: &'static str,
    waiting_for: Option<WaitingFor>,
    iterations: u32,
    calls: usize,
    bytes: u64,
    /// The effect that the event settles.
    effect: Option<Effect>,
    /// The call that the event rejects.
    judged: Option<ToolCall>,
}

impl StateBefore {
    fn capture(state: &RunState, event: &Event) -> Self {
        let effect = match &event.kind {
            EventKind::Settled { effect, .. } => state.open.get(effect).map(|open| open.what.clone()),
            _ => None,
        };
        let judged = match &event.kind {
            EventKind::ToolCallRejected { call_id, .. } => {
                let found =
                    state.calls.iter().find(|pending| pending.call.id == *call_id && !pending.is_done());
                found.map(|pending| pending.call.clone())
            }
            _ => None,
        };
        Self {
            status: state.status,
            phase: state.phase(),
            waiting_for: state.waiting_for,
            iterations: state.iterations,
            calls: state.calls.len(),
            bytes: state.message_bytes,
            effect,
            judged,
        }
    }
}

fn egress_recorded(record: &EgressRecord) -> WireData {
    let verdict = match record.verdict {
        EgressVerdict::Allowed => "allow",
        EgressVerdict::Refused => "deny",
        EgressVerdict::Failed => "warn",
    };
    WireData::GuardChecked(GuardChecked {
        guard: "egress".to_owned(),
        name: format!("{}:{}", record.host, record.port),
        verdict: verdict.to_owned(),
        detail: record.why.clone(),
    })
}

fn tool_called(call: &ToolCall, iteration: u32) -> WireData {
    WireData::ToolCalled(ToolCalled {
        call_id: call.id.clone(),
        tool: call.name.clone(),
        arguments: arguments_value(&call.arguments),
        iteration,
    })
}

fn tool_settled(run: &ToolRun, outcome: &Outcome, told: &mut ProjectedData) {
    let output = match outcome {
        Outcome::ToolDone { output } => Some(output),
        _ => None,
    };
    if run.access == ToolAccess::Exec {
        told.add(WireData::ExecCompleted(ExecCompleted {
            exit_code: output.and_then(|output| output.exit_code),
            timed_out: output.is_some_and(|output| output.timed_out),
            memory_mb: None,
            duration_ms: output.map_or(0, |output| output.duration_ms),
        }));
    }
    let (error, detail) = error_detail(output, outcome);
    told.add(WireData::ToolCompleted(ToolCompleted {
        call_id: run.call.id.clone(),
        tool: run.call.name.clone(),
        ok: output.is_some_and(ToolOutput::is_ok),
        exit_code: output.and_then(|output| output.exit_code),
        output_chars: output.map_or(0, |output| output.output_chars),
        truncated: output.is_some_and(|output| output.truncated),
        duration_ms: output.map_or(0, |output| output.duration_ms),
        error,
        detail,
    }));
}

fn error_detail(output: Option<&ToolOutput>, outcome: &Outcome) -> (Option<String>, Option<String>) {
    match (output, outcome) {
        (Some(output), _) => {
            let detail = output.error.and_then(|_| output.content.inline_text()).map(truncate_detail);
            (output.error.map(|kind| kind.name().to_owned()), detail)
        }
        (None, Outcome::SandboxLost { why }) => (Some("died".to_owned()), Some(truncate_detail(why))),
        (None, Outcome::Interrupted) => (
            Some("interrupted".to_owned()),
            Some("the process that ran it died; its progress is unknown".to_owned()),
        ),
        (None, Outcome::Unknown { why }) => (Some("outcome_unknown".to_owned()), Some(truncate_detail(why))),
        (None, _) => (Some("cancelled".to_owned()), None),
    }
}

fn command_of(call: &ToolCall) -> String {
    let line = call.arguments.parsed().ok().and_then(|arguments| arguments.get("command")?.as_str());
    line.unwrap_or(&call.name).to_owned()
}

fn reply_text(reply: &ModelReply) -> String {
    let texts = reply.parts.iter().filter_map(|part| match &part.kind {
        PartKind::Text { text: payload } => Some(payload_text(payload)),
        _ => None,
    });
    texts.collect()
}

fn truncate_detail(text: &str) -> String {
    text.chars().take(MAX_DETAIL_CHARS).collect()
}
