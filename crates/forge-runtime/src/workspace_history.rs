//! What people do with the workspace of a run after it: look at its steps, go back and forth, apply, throw away.

use crate::engine::{apply_outcome, commit_message, load_run_state};
use crate::run_row::run_row;
use crate::{Error, Forge};
use forge_ports::journal::Batch;
use forge_ports::queue::{ClaimError, ItemStatus, Lease};
use forge_ports::workspace_store::MergePolicy;
use forge_types::{
    ApplyOutcome, Event, EventKind, HistoryDirection, Plan, RunId, RunState, RunStatus, SnapshotId,
    Timestamp, WorkspaceChange, WorkspaceHistory, WorkspaceMode,
};

/// What differs between two states of a run's workspace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunChanges {
    /// The paths, sorted.
    pub files: Vec<WorkspaceChange>,
    /// The same as a unified diff.
    pub diff: String,
}

/// Where an undo or a redo led.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UndoOutcome {
    /// The step at which the workspace stands now; 0 is the beginning, `None` a state that no step left.
    pub step: Option<u32>,
    /// Paths that differ from where it stood before.
    pub files: Vec<WorkspaceChange>,
    /// Whether the repository went along: it held a result of the run.
    pub repository: bool,
}

/// What `gc` may remove.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GcLimits {
    /// Bytes that all snapshots together may keep.
    pub bytes: u64,
    /// Days after which the snapshots of a run go.
    pub days: u64,
}

/// Snapshots that were removed, or would be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReclaimedRun {
    /// The run.
    pub run: RunId,
    /// Bytes.
    pub bytes: u64,
    /// When something was last written there.
    pub at: Timestamp,
}

/// A run that this process holds while it changes its workspace.
struct ClaimedRun {
    lease: Box<dyn Lease>,
    plan: Plan,
    state: RunState,
}

impl Forge {
    /// What a run changed: from its beginning, or by one of its steps.
    ///
    /// # Errors
    /// If there is no such step, or its snapshot was removed.
    pub async fn changes(&self, run: RunId, step: Option<u32>) -> Result<RunChanges, Error> {
        let (plan, projector) = load_run_state(self.parts().journal.as_ref(), run).await?;
        let history = &projector.state().history;
        let (from, to) = match step {
            None => (history.beginning, history.current),
            Some(0) => return Err(no_such_step(run, 0, history)),
            Some(n) => (Some(snapshot_at(run, n - 1, history)?), Some(snapshot_at(run, n, history)?)),
        };
        if to.is_none() || from == to {
            return Ok(RunChanges { files: Vec::new(), diff: String::new() });
        }
        let views = &self.parts().workspaces;
        Ok(RunChanges {
            files: views.compare(&plan.sandbox, run, from, to).await?,
            diff: views.diff(&plan.sandbox, run, from, to).await?,
        })
    }

    /// Ends what this process does on the host for a run that it does not work on: a comparison, an undo, an apply. What
    /// came too far to be taken back is finished.
    pub fn stop_host_work(&self, run: RunId) {
        self.parts().workspaces.stop_run_work(run);
    }

    /// Puts a run's workspace back to where it stood after step `to`; the repository too, if it holds a result of
    /// the run and nobody changed the same files since.
    ///
    /// # Errors
    /// If somebody works on the run, there is no such step, or others changed what would have to change.
    pub async fn undo(&self, run: RunId, to: u32) -> Result<UndoOutcome, Error> {
        let held = self.claim_idle_run(run).await?;
        let target = snapshot_at(run, to, &held.state.history);
        self.restore_snapshot(held, target, HistoryDirection::Undo).await
    }

    /// Brings back what the last undo took away.
    ///
    /// # Errors
    /// As [`Forge::undo`], and if there is nothing to bring back.
    pub async fn redo(&self, run: RunId) -> Result<UndoOutcome, Error> {
        let held = self.claim_idle_run(run).await?;
        let last = held.state.history.undone.last().copied();
        let nothing =
            || Error::Invalid { what: format!("there is nothing to redo: nothing of run {run} was undone") };
        self.restore_snapshot(held, last.ok_or_else(nothing), HistoryDirection::Redo).await
    }

    async fn restore_snapshot(
        &self,
        held: ClaimedRun,
        to: Result<SnapshotId, Error>,
        travel: HistoryDirection,
    ) -> Result<UndoOutcome, Error> {
        let moved = match to {
            Ok(to) => self.try_restore_snapshot(&held, to, travel).await,
            Err(error) => Err(error),
        };
        self.release_claim(held, moved).await
    }

    async fn try_restore_snapshot(
        &self,
        held: &ClaimedRun,
        to: SnapshotId,
        travel: HistoryDirection,
    ) -> Result<UndoOutcome, Error> {
        let (spec, run, history) = (&held.plan.sandbox, held.state.run, &held.state.history);
        let views = &self.parts().workspaces;
        let files = views.compare(spec, run, history.current, Some(to)).await?;
        // A branch stays as it was published; `forge apply` publishes again.
        let along = match spec.mode {
            WorkspaceMode::Inplace => Some(history.current),
            WorkspaceMode::Transaction => history.applied.map(Some),
            WorkspaceMode::Branch => None,
        };
        if let Some(from) = along {
            views.apply(spec, run, from, Some(to), MergePolicy::No).await?;
        }
        if spec.mode != WorkspaceMode::Inplace {
            views.restore(spec, run, Some(to)).await?;
        }
        let event = EventKind::Restored { to, direction: travel, applied: along.is_some() };
        let state = self.append_event(held, event).await?;
        Ok(UndoOutcome { step: state.history.current_step(), files, repository: along.is_some() })
    }

    /// Brings a run's result into its repository, or the state after one of its steps.
    ///
    /// # Errors
    /// If somebody works on the run or there is no such step. What others changed is no error but an outcome.
    pub async fn apply(
        &self,
        run: RunId,
        step: Option<u32>,
        merge: MergePolicy,
    ) -> Result<ApplyOutcome, Error> {
        let held = self.claim_idle_run(run).await?;
        let outcome = self.try_apply(&held, step, merge).await;
        self.release_claim(held, outcome).await
    }

    async fn try_apply(
        &self,
        held: &ClaimedRun,
        step: Option<u32>,
        merge: MergePolicy,
    ) -> Result<ApplyOutcome, Error> {
        let (spec, run, history) = (&held.plan.sandbox, held.state.run, &held.state.history);
        let invalid = |what: String| Error::Invalid { what };
        if spec.mode == WorkspaceMode::Inplace {
            return Err(invalid(format!(
                "run {run} worked in its repository directly: there is nothing to apply"
            )));
        }
        let to = match step {
            Some(n) => Some(snapshot_at(run, n, history)?),
            None => history.current,
        };
        let to =
            to.ok_or_else(|| invalid(format!("run {run} changed nothing: there is nothing to apply")))?;
        let views = &self.parts().workspaces;
        let outcome = if spec.mode == WorkspaceMode::Branch {
            match views.publish(spec, run, to, &commit_message(&held.state)).await? {
                Some(made) => ApplyOutcome::Published { branch: made.branch, commit: made.commit },
                None => {
                    return Err(invalid(format!("run {run} changed nothing: there is nothing to publish")));
                }
            }
        } else {
            apply_outcome(views.apply(spec, run, history.applied, Some(to), merge).await)
        };
        self.append_event(held, EventKind::Applied { to, outcome: outcome.clone() }).await?;
        Ok(outcome)
    }

    /// Removes the snapshots of runs that ended: those that are too old, then the oldest until the rest fits. Runs
    /// whose result was not applied yet go last.
    ///
    /// # Errors
    /// If the data folder can't be read.
    pub async fn gc(&self, limits: GcLimits, dry_run: bool) -> Result<Vec<ReclaimedRun>, Error> {
        let mut kept = self.parts().workspaces.usage().await?;
        let now = forge_ports::Clock::now(self.parts().clock.as_ref());
        let mut total: u64 = kept.iter().map(|usage| usage.bytes).sum();
        kept.sort_by_key(|usage| usage.at);
        let mut freed = Vec::new();
        for usage in kept {
            let old = now.millis_since(usage.at) > limits.days.saturating_mul(86_400_000);
            if (!old && total <= limits.bytes) || !self.is_collectable(usage.run).await? {
                continue;
            }
            if !dry_run {
                // Held, so that nobody takes the run up meanwhile.
                let Ok(lease) = self.parts().queue.claim(usage.run).await else { continue };
                let removed = self.parts().workspaces.remove_snapshots(usage.run).await;
                self.parts().queue.finish(lease, ItemStatus::Completed).await?;
                removed?;
            }
            total = total.saturating_sub(usage.bytes);
            freed.push(ReclaimedRun { run: usage.run, bytes: usage.bytes, at: usage.at });
        }
        Ok(freed)
    }

    /// Whether the snapshots of a run can be done without: it has ended, or its journal is gone.
    async fn is_collectable(&self, run: RunId) -> Result<bool, Error> {
        match load_run_state(self.parts().journal.as_ref(), run).await {
            Ok((_, projector)) => Ok(projector.state().status.is_terminal()),
            Err(Error::NoSuchRun { .. }) => Ok(true),
            // What can't be read is not thrown away either.
            Err(Error::Damaged { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Takes a run whose workspace is to be changed.
    async fn claim_idle_run(&self, run: RunId) -> Result<ClaimedRun, Error> {
        let lease = match self.parts().queue.claim(run).await {
            Ok(lease) => lease,
            Err(ClaimError::Held { run, holder }) => {
                let status = RunStatus::Running;
                let why = format!(
                    "{holder} works on it, and its workspace is its own meanwhile. Wait for its end, or end it with \
                     `forge cancel {run}`"
                );
                return Err(Error::WrongState { run, status, why });
            }
            Err(error) => return Err(error.into()),
        };
        let loaded = load_run_state(self.parts().journal.as_ref(), run).await;
        let (plan, projector) = match loaded {
            Ok(loaded) => loaded,
            Err(error) => {
                self.parts().queue.finish(lease, ItemStatus::Queued).await?;
                return Err(error);
            }
        };
        let held = ClaimedRun { lease, plan, state: projector.state().clone() };
        if held.state.status.is_terminal() || held.state.status == RunStatus::Waiting {
            return Ok(held);
        }
        let why =
            "its process died in the middle of it. Go on with `forge resume`, or end it with `forge cancel`";
        let error = Error::WrongState { run, status: held.state.status, why: why.to_owned() };
        self.release_claim(held, Err(error)).await
    }

    async fn release_claim<T>(&self, held: ClaimedRun, result: Result<T, Error>) -> Result<T, Error> {
        let ended = held.state.status.is_terminal();
        let status = if ended { ItemStatus::Completed } else { ItemStatus::Queued };
        let released = self.parts().queue.finish(held.lease, status).await;
        let value = result?;
        released?;
        Ok(value)
    }

    /// Appends one event and gives the state that it leads to.
    async fn append_event(&self, held: &ClaimedRun, mut kind: EventKind) -> Result<RunState, Error> {
        self.parts().redactor.redact_event(&mut kind);
        let mut state = held.state.clone();
        let now = forge_ports::Clock::now(self.parts().clock.as_ref()).max(state.at);
        let event = Event { run: state.run, seq: state.seq.next(), at: now, kind };
        state.apply(&event).map_err(|error| Error::Internal { what: error.to_string() })?;
        let batch = Batch {
            run: state.run,
            expected: held.state.seq,
            events: vec![event],
            blobs: Vec::new(),
            taken: Vec::new(),
            postings: Vec::new(),
            row: run_row(&state, &held.plan, now),
            checkpoint: None,
            after: Vec::new(),
        };
        self.parts().journal.append(batch).await?;
        Ok(state)
    }
}

fn snapshot_at(run: RunId, step: u32, history: &WorkspaceHistory) -> Result<SnapshotId, Error> {
    history.at_step(step).ok_or_else(|| no_such_step(run, step, history))
}

fn no_such_step(run: RunId, step: u32, history: &WorkspaceHistory) -> Error {
    let what = match history.steps.len() {
        0 => format!("run {run} has no steps that may have written"),
        most => {
            format!("run {run} has no step {step}: its steps are 1 to {most} (`forge diff {run} --steps`)")
        }
    };
    Error::Invalid { what }
}
