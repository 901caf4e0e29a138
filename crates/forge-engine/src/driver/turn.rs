//! One turn of the loop: fold in the input, decide, append everything at once, then act.

use super::RunDriver;
use super::children::record_command;
use super::stoppable::WorkDeadline;
use crate::Error;
use crate::effects::{EffectExecutor, EffectInput, EffectResult};
use crate::sandbox_session;
use crate::transaction::JournalTransaction;
use forge_policy::{budget, compact, context, lifecycle};
use forge_ports::journal;
use forge_ports::sandbox;
use forge_types::{
    CommandId, Decision, Effect, EffectId, EffectStart, ErrorInfo, ErrorKind, EventKind, LimitKind, Outcome,
    RunCommand, RunFinish, RunState, RunStatus, SandboxReport, SandboxState, SnapshotId, Timestamp,
    WorkspaceMode,
};

/// The input since the last turn.
#[derive(Clone, Default)]
pub(super) struct TurnInput {
    events: Vec<EventKind>,
    outcomes: Vec<(EffectId, EffectResult)>,
    commands: Vec<(CommandId, RunCommand)>,
}

/// The most decisions in one turn: a run that decides for ever would never append.
const MAX_DECISIONS: usize = 1_000;

impl RunDriver {
    /// Works on the run until it ends or is parked. Returns the time at which a parked run goes on by itself.
    pub(super) async fn run(&mut self, worker: &str, attempt: u32) -> Result<Option<Timestamp>, Error> {
        let mut arrived = TurnInput {
            events: vec![EventKind::Claimed { worker: worker.to_owned(), attempt }],
            outcomes: self.interrupted_effects().await?,
            commands: self.parts.journal.inbox(self.state().run).await?,
        };
        loop {
            let wake = self.run_turn(std::mem::take(&mut arrived)).await?;
            if self.is_ended() {
                return Ok(wake);
            }
            arrived = self.next_input(wake).await?;
        }
    }

    /// Settles the effects that are still open, which belong to a process that died. Its changes to a
    /// repository edited in place are saved before the repository is restored to the beginning of the
    /// interrupted step.
    async fn interrupted_effects(&mut self) -> Result<Vec<(EffectId, EffectResult)>, Error> {
        let mut outcomes = Vec::new();
        // A child run outlives the process that works on its parent.
        let died = self.state().open.iter().filter(|(_, open)| !matches!(open.what, Effect::StartRun(_)));
        let died: Vec<_> = died
            .map(|(effect, open)| (*effect, open.snapshot, outcome_of_dead_process(&open.what)))
            .collect();
        for (effect, before, outcome) in died {
            let snapshot = self.save_partial_work(before).await?;
            outcomes.push((effect, EffectResult { snapshot, ..EffectResult::from_outcome(outcome) }));
        }
        Ok(outcomes)
    }

    async fn save_partial_work(&mut self, back_to: Option<SnapshotId>) -> Result<Option<SnapshotId>, Error> {
        if back_to.is_none() || self.plan.shared.sandbox.mode != WorkspaceMode::Inplace {
            return Ok(None);
        }
        self.session.set_restore_point(None);
        let opened = self.session.open(self.parts.clock.as_ref());
        let left = match self.run_until_stopped(self.state(), WorkDeadline::Deadline, opened).await {
            Ok(workspace) => {
                self.run_until_stopped(self.state(), WorkDeadline::Deadline, workspace.snapshot()).await
            }
            // The same failure ends the run in order when the first effect needs the sandbox.
            Err(_) => return Ok(None),
        };
        self.session.close().await;
        if matches!(left, Err(sandbox::Error::Stopped)) {
            // The run ends, and its repository stays as it is.
            return Ok(None);
        }
        let left = left.map_err(|error| Error::Internal { what: error.to_string() })?;
        self.session.set_restore_point(back_to);
        Ok(Some(left))
    }

    /// Waits until something happens that may change the decision.
    async fn next_input(&mut self, wake: Option<Timestamp>) -> Result<TurnInput, Error> {
        let mut arrived = TurnInput::default();
        loop {
            let clock = self.parts.clock.clone();
            let alarm = async move {
                match wake {
                    Some(time) => clock.sleep_until(time).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                Some(joined) = self.tasks.join_next_with_id() => {
                    arrived.outcomes.push(self.task_result(joined));
                    while let Some(joined) = self.tasks.try_join_next_with_id() {
                        arrived.outcomes.push(self.task_result(joined));
                    }
                    return Ok(arrived);
                }
                changed = self.commands.changed() => {
                    arrived.commands = self.parts.journal.inbox(self.state().run).await?;
                    if changed.is_err() {
                        return Err(Error::Internal { what: "the journal stopped reporting changes".into() });
                    }
                    if !arrived.commands.is_empty() {
                        return Ok(arrived);
                    }
                }
                () = alarm => return Ok(arrived),
            }
        }
    }

    fn task_result(
        &mut self,
        joined: Result<(tokio::task::Id, (EffectId, EffectResult)), tokio::task::JoinError>,
    ) -> (EffectId, EffectResult) {
        match joined {
            Ok((id, outcome)) => {
                self.names.remove(&id);
                self.handles.remove(&outcome.0);
                outcome
            }
            Err(error) => {
                let effect = self.names.remove(&error.id()).unwrap_or_default();
                self.handles.remove(&effect);
                if error.is_cancelled() {
                    return (effect, EffectResult::from_outcome(Outcome::Cancelled));
                }
                let text = format!("forge itself failed while running this: {error}");
                let failure = ErrorInfo::fatal(ErrorKind::Unknown, text.clone());
                let is_model = matches!(
                    self.state().open.get(&effect).map(|open| &open.what),
                    Some(Effect::CallModel(_) | Effect::Compact(_))
                );
                let outcome = if is_model {
                    Outcome::ModelFailed { error: failure }
                } else {
                    Outcome::ToolDone { output: forge_types::ToolOutput::failed(ErrorKind::Execution, text) }
                };
                (effect, EffectResult::from_outcome(outcome))
            }
        }
    }

    /// Folds in, decides, appends and acts. Returns the time to decide again.
    async fn run_turn(&mut self, arrived: TurnInput) -> Result<Option<Timestamp>, Error> {
        let limits = budget::limits(self.state(), &self.plan.shared);
        let shared = self.plan.shared.day_ceiling.is_some()
            || limits.day_cost.is_some()
            || !self.plan.shared.ceilings.is_empty();
        let again = shared.then(|| arrived.clone());
        let (error, arrived) = match (self.try_turn(arrived, None).await, again) {
            (Err(Error::Journal(error @ journal::Error::Ceiling { .. })), Some(arrived)) => (error, arrived),
            (result, _) => return result,
        };
        let journal::Error::Ceiling { account, .. } = &error else { return Err(error.into()) };
        if self.release_stale_reservations(account).await {
            match self.try_turn(arrived.clone(), None).await {
                Err(Error::Journal(journal::Error::Ceiling { .. })) => {}
                result => return result,
            }
        }
        self.try_turn(arrived, Some(error.to_string())).await
    }

    /// Tries a turn. `refused` is the ledger's reason to refuse a start that this turn decided before; the run
    /// then reaches its limit.
    async fn try_turn(
        &mut self,
        arrived: TurnInput,
        refused: Option<String>,
    ) -> Result<Option<Timestamp>, Error> {
        let redactor = self.parts.redactor.clone();
        let plan = self.plan.clone();
        let mut draft =
            JournalTransaction::new(self.state().clone(), self.parts.clock.now(), &plan, &redactor)
                .with_fence(self.fence);
        for event in arrived.events {
            draft.push(event)?;
        }
        self.record_sandbox_open(&mut draft)?;
        for (id, command) in arrived.commands {
            record_command(&mut draft, id, command)?;
        }
        self.record_egress(&mut draft)?;
        self.refresh_cooldowns().await;
        let heard = self.provider_outcomes(draft.state(), &arrived.outcomes);
        let mut too_large = None;
        for (effect, mut done) in arrived.outcomes {
            if let Outcome::SandboxLost { .. } = &done.outcome {
                self.handle_sandbox_loss(&mut draft).await?;
                done.snapshot =
                    self.save_partial_work(draft.state().open.get(&effect).and_then(|o| o.snapshot)).await?;
            }
            draft.wait_for(done.durable);
            too_large = too_large.or(done.too_large);
            draft.settle_effect(effect, done.outcome, done.snapshot)?;
        }
        self.too_large |= too_large.is_some();
        let (decision, starts) = match too_large {
            Some(error) => (failed_decision(error), Vec::new()),
            None => self.decide_until_quiet(&mut draft, refused.as_deref()).await?,
        };
        let ended = decision.finish.as_ref().map(|finish| finish.status);
        if let Some(finish) = decision.finish {
            self.finish_run(&mut draft, finish).await?;
        }
        self.append(draft).await?;
        self.record_outcomes(heard, &starts, ended).await;
        for effect in decision.cancel {
            self.abort_effect(effect).await?;
        }
        for start in starts {
            self.start_effect(start);
        }
        Ok(decision.wake)
    }

    /// Decides until nothing new follows; the decisions are added to the draft.
    async fn decide_until_quiet(
        &mut self,
        draft: &mut JournalTransaction<'_>,
        refused: Option<&str>,
    ) -> Result<(Decision, Vec<EffectStart>), Error> {
        let mut starts = Vec::new();
        for _ in 0..MAX_DECISIONS {
            let mut decision = self.decide(draft.state());
            if let Some(closer) = self.recount_exactly(draft.state(), &decision).await {
                decision = closer;
            }
            if refused.is_some() {
                decision.start = decision.start.into_iter().map(compact::without_money).collect();
            }
            if let Some(message) = refused.filter(|_| decision.start.iter().any(|s| s.reserved.is_some())) {
                decision = lifecycle::reach_limit(
                    draft.state(),
                    &self.plan.shared,
                    LimitKind::Cost,
                    message.to_owned(),
                );
            }
            if decision.is_quiet() || decision.finish.is_some() {
                return Ok((decision, starts));
            }
            for event in std::mem::take(&mut decision.record) {
                draft.push(event)?;
            }
            for start in std::mem::take(&mut decision.start) {
                if let Some(refused) = self.prepare_start(draft, &start).await? {
                    return Ok((refused, starts));
                }
                if let Some(amount) = start.reserved {
                    draft.reserve(start.effect, amount);
                }
                if let Effect::StartRun(child) = &start.what {
                    self.create_child(draft, start.effect, child)?;
                }
                let snapshot =
                    writes_workspace(&start.what).then(|| draft.state().history.current.or(self.baseline));
                draft.push(EventKind::Intended {
                    effect: start.effect,
                    what: start.what.clone(),
                    reserved: start.reserved,
                    key: start.what.idempotency_key(draft.state().run),
                    snapshot: snapshot.flatten(),
                })?;
                starts.push(start);
            }
        }
        Err(Error::Internal { what: "the run's decisions do not terminate".into() })
    }

    /// Prepares the start of an effect: opens the sandbox and, before the first change, takes the baseline
    /// snapshot.
    async fn prepare_start(
        &mut self,
        draft: &mut JournalTransaction<'_>,
        start: &EffectStart,
    ) -> Result<Option<Decision>, Error> {
        if !self.entered && self.plan.needs_sandbox() {
            let opened = self.session.open(self.parts.clock.as_ref());
            match self.run_until_stopped(draft.state(), WorkDeadline::Deadline, opened).await {
                Ok(workspace) => {
                    self.entered = true;
                    self.opened = Some(workspace);
                    self.start_baseline(draft.state());
                }
                Err(error) => return Ok(Some(self.decision_without_sandbox(error))),
            }
        }
        if !writes_workspace(&start.what) {
            return Ok(None);
        }
        if self.entered && self.baseline_task.is_none() {
            self.start_baseline(draft.state());
        }
        if let Some(mut survey) = self.baseline_task.take() {
            match self.run_until_stopped(draft.state(), WorkDeadline::Deadline, &mut survey).await {
                Ok(Ok(beginning)) => self.baseline = Some(beginning),
                Ok(Err(error)) => {
                    return Ok(Some(self.decision_without_sandbox(sandbox_session::to_error_info(&error))));
                }
                Err(error) => {
                    let what = format!("the baseline snapshot failed: {error}");
                    return Err(Error::Internal { what });
                }
            }
        }
        Ok(None)
    }

    /// Takes the baseline snapshot in the background.
    fn start_baseline(&mut self, state: &RunState) {
        let needed = state.history.current.is_none() && self.baseline.is_none();
        if let Some(workspace) = self.session.workspace().filter(|_| needed) {
            self.baseline_task = Some(tokio::spawn(async move { workspace.snapshot().await }));
        }
    }

    /// Aborts the baseline snapshot if it is still running.
    pub(super) fn abort_baseline(&mut self) {
        if let Some(survey) = self.baseline_task.take() {
            survey.abort();
        }
    }

    /// Returns the decision after the sandbox or the baseline snapshot failed: the run ends, unless the work
    /// was only stopped because of a command or a limit, which the next turn handles.
    fn decision_without_sandbox(&mut self, error: ErrorInfo) -> Decision {
        self.too_large |= error.kind == ErrorKind::BudgetExceeded;
        match error.kind {
            ErrorKind::Cancelled => Decision { wake: Some(self.parts.clock.now()), ..Decision::default() },
            _ => failed_decision(error),
        }
    }

    /// Records the egress of the sandbox since the last turn.
    pub(super) fn record_egress(&mut self, draft: &mut JournalTransaction<'_>) -> Result<(), Error> {
        let records =
            self.session.workspace().map(|workspace| workspace.drain_egress_records()).unwrap_or_default();
        if records.is_empty() {
            return Ok(());
        }
        draft.push(EventKind::EgressRecorded { records })
    }

    /// Records the report of a sandbox, in the turn after it was opened and again when its masked files or
    /// warnings change.
    pub(super) fn record_sandbox_open(&mut self, draft: &mut JournalTransaction<'_>) -> Result<(), Error> {
        let report = match self.opened.take() {
            Some(workspace) => Some(workspace.report()),
            None => self.changed_report(draft),
        };
        match report {
            Some(report) => {
                draft.push(EventKind::SandboxChanged { state: SandboxState::Running, report: Some(report) })
            }
            None => Ok(()),
        }
    }

    /// Returns the present report of the sandbox if it differs from the recorded one.
    fn changed_report(&self, draft: &JournalTransaction<'_>) -> Option<SandboxReport> {
        let told = draft.state().sandbox.as_ref().filter(|_| self.entered)?;
        let mut now = self.session.workspace()?.report();
        // Redacted like the recorded one.
        self.parts.redactor.redact_report(&mut now);
        (now.masked != told.masked || now.warnings != told.warnings).then_some(now)
    }

    async fn handle_sandbox_loss(&mut self, draft: &mut JournalTransaction<'_>) -> Result<(), Error> {
        if self.session.is_open() {
            self.entered = false;
            self.abort_baseline();
            self.session.close().await;
            let began = draft.state().history.current.or(self.baseline);
            self.session.set_restore_point(began);
            draft.push(EventKind::SandboxChanged { state: SandboxState::Died, report: None })?;
        }
        Ok(())
    }

    async fn append(&mut self, draft: JournalTransaction<'_>) -> Result<(), journal::Error> {
        if draft.events().is_empty() {
            return Ok(());
        }
        let checkpoint = self.due_checkpoint(draft.events());
        let batch = draft.into_batch(self.parts.clock.now(), checkpoint);
        for blob in &batch.blobs {
            self.blobs.insert_blob(blob);
        }
        let events = batch.events.clone();
        self.parts.journal.append(batch).await?;
        for event in &events {
            for wire in self.projector.project(event).unwrap_or_default() {
                self.live.on_event(&wire);
            }
        }
        Ok(())
    }

    fn start_effect(&mut self, start: EffectStart) {
        let EffectStart { effect, what, .. } = start;
        if matches!(what, Effect::StartRun(_)) {
            // Another lease works on the child; a command reports its end.
            return;
        }
        let performer = EffectExecutor {
            parts: self.parts.clone(),
            plan: self.plan.clone(),
            blobs: self.blobs.clone(),
            session: self.session.clone(),
            live: self.live.clone(),
            run: self.state().run,
            cuts: self.state().truncated_replies,
            cut_text: self.cut_text.clone(),
        };
        let said = match (&what, self.plan.agent()) {
            (Effect::CallModel(call), Some(plan)) => {
                EffectInput::Request(Box::new(context::model_request(self.state(), plan, call)))
            }
            (Effect::Compact(compaction), _) => {
                EffectInput::Messages(self.state().messages_at(&compaction.gone).cloned().collect())
            }
            (Effect::CallModel(_) | Effect::RunTool(_) | Effect::StartRun(_), _) => EffectInput::Nothing,
        };
        let handle = self.tasks.spawn(async move { (effect, performer.execute(what, said).await) });
        self.names.insert(handle.id(), effect);
        self.handles.insert(effect, handle);
    }

    async fn abort_effect(&mut self, effect: EffectId) -> Result<(), Error> {
        if let Some(handle) = self.handles.remove(&effect) {
            handle.abort();
        }
        match self.state().open.get(&effect).map(|open| &open.what) {
            Some(Effect::StartRun(child)) => Ok(self.cancel_child(child.run).await?),
            _ => Ok(()),
        }
    }

    /// Handles a failed append: settles the open effects and ends the run, if the journal can still take that.
    pub(super) async fn record_failure(&mut self, error: journal::Error) -> Result<(), Error> {
        self.tasks.shutdown().await;
        if !matches!(error, journal::Error::DiskFull { .. } | journal::Error::Ceiling { .. }) {
            return Err(error.into());
        }
        let redactor = self.parts.redactor.clone();
        let plan = self.plan.clone();
        let mut draft =
            JournalTransaction::new(self.state().clone(), self.parts.clock.now(), &plan, &redactor)
                .with_fence(self.fence);
        let open = draft.state().open.iter();
        let open: Vec<_> =
            open.map(|(effect, open)| (*effect, outcome_of_dead_process(&open.what))).collect();
        for (effect, outcome) in open {
            draft.settle_effect(effect, outcome, None)?;
        }
        let limit = matches!(error, journal::Error::Ceiling { .. }).then_some(LimitKind::Cost);
        let kind = if limit.is_some() { ErrorKind::BudgetExceeded } else { ErrorKind::StoreUnavailable };
        let status = if limit.is_some() { RunStatus::TimedOut } else { RunStatus::Failed };
        let error = Some(ErrorInfo::fatal(kind, error.to_string()).with_next_steps(error.next_steps()));
        let finish = RunFinish { status, limit, error, answer: None };
        self.finish_run(&mut draft, finish).await?;
        self.append(draft).await.map_err(Error::from)
    }
}

/// Returns the outcome of an effect that nothing works on any more.
fn outcome_of_dead_process(what: &Effect) -> Outcome {
    if what.is_outside() {
        let why = "the process that made this call died after it may have been sent".to_owned();
        return Outcome::Unknown { why };
    }
    Outcome::Interrupted
}

fn writes_workspace(what: &Effect) -> bool {
    matches!(what, Effect::RunTool(run) if run.access.writes())
}

fn failed_decision(error: ErrorInfo) -> Decision {
    let finish = RunFinish { status: RunStatus::Failed, limit: None, error: Some(error), answer: None };
    Decision { finish: Some(finish), ..Decision::default() }
}
