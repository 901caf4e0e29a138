//! Operations on the workspace of a run after its end: showing, undoing and redoing steps, applying and
//! removing them.

use crate::{Error, Project};
use forge_engine::{apply_outcome, commit_message, load_run_state, run_renewed};
use forge_ports::queue::{ClaimError, ItemStatus, Lease};
use forge_ports::workspace_store::MergePolicy;
use forge_types::{
    ApplyOutcome, ChangeList, EventKind, HistoryDirection, Plan, RunId, RunState, RunStatus, SandboxSpec,
    SnapshotId, Timestamp, WorkspaceChange, WorkspaceHistory, WorkspaceMode,
};

/// The outcome of an undo or a redo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UndoOutcome {
    /// The step that the workspace is at now; 0 is the baseline, `None` a state that no step left.
    pub step: Option<u32>,
    /// Paths that differ from the previous state.
    pub files: ChangeList,
    /// Whether the repository was changed as well, because it held a result of the run.
    pub repository: bool,
}

/// The limits of `gc`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GcLimits {
    /// The bytes that all snapshots together may occupy.
    pub bytes: u64,
    /// The days after which the snapshots of a run are removed.
    pub days: u64,
}

/// Snapshots that were removed, or would be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReclaimedRun {
    /// The run.
    pub run: RunId,
    /// The size in bytes.
    pub bytes: u64,
    /// The time of the last write.
    pub at: Timestamp,
}

/// A run that this process has claimed to change its workspace.
struct ClaimedRun {
    lease: Box<dyn Lease>,
    plan: Plan,
    state: RunState,
}

impl Project {
    /// Returns all paths that a run changed since its baseline, or in one step, sorted.
    ///
    /// # Errors
    /// If there is no such step, or its snapshot was removed.
    pub async fn changed_paths(&self, run: RunId, step: Option<u32>) -> Result<Vec<WorkspaceChange>, Error> {
        let Some((spec, from, to)) = self.compared_states(run, step).await? else { return Ok(Vec::new()) };
        Ok(self.parts().workspaces.compare(&spec, run, from, to).await?)
    }

    /// Returns the changes of a run since its baseline, or those of one step, as a unified diff.
    ///
    /// # Errors
    /// As [`Project::changed_paths`].
    pub async fn diff(&self, run: RunId, step: Option<u32>) -> Result<String, Error> {
        let Some((spec, from, to)) = self.compared_states(run, step).await? else { return Ok(String::new()) };
        Ok(self.parts().workspaces.diff(&spec, run, from, to).await?)
    }

    /// Returns the states between which the changes of a run, or of one step, lie; `None` if they are one.
    async fn compared_states(
        &self,
        run: RunId,
        step: Option<u32>,
    ) -> Result<Option<(SandboxSpec, Option<SnapshotId>, Option<SnapshotId>)>, Error> {
        let (plan, projector) = load_run_state(self.parts().journal.as_ref(), run).await?;
        let history = &projector.state().history;
        let (from, to) = match step {
            None => (history.beginning, history.current),
            Some(0) => return Err(no_such_step(run, 0, history)),
            Some(n) => (Some(snapshot_at(run, n - 1, history)?), Some(snapshot_at(run, n, history)?)),
        };
        Ok((to.is_some() && from != to).then_some((plan.shared.sandbox, from, to)))
    }

    /// Stops the host work of this process for a run that it does not drive: a comparison, an undo, an apply.
    /// Work that can no longer be reverted is completed.
    pub fn stop_host_work(&self, run: RunId) {
        self.parts().workspaces.stop_run_work(run);
    }

    /// Restores a run's workspace to its state after step `to`; the repository too, if it holds a result of the
    /// run and the same files have not been changed since.
    ///
    /// # Errors
    /// If a process works on the run, there is no such step, or others changed files that the undo would
    /// change.
    pub async fn undo(&self, run: RunId, to: u32) -> Result<UndoOutcome, Error> {
        let held = self.claim_idle_run(run).await?;
        let target = snapshot_at(run, to, &held.state.history);
        self.restore_snapshot(held, target, HistoryDirection::Undo).await
    }

    /// Brings back the changes that the last undo removed.
    ///
    /// # Errors
    /// As [`Project::undo`], and if there is nothing to redo.
    pub async fn redo(&self, run: RunId) -> Result<UndoOutcome, Error> {
        let held = self.claim_idle_run(run).await?;
        let last = held.state.history.undone.last().copied();
        let nothing =
            || Error::Invalid { what: format!("there is nothing to redo: no step of run {run} was undone") };
        self.restore_snapshot(held, last.ok_or_else(nothing), HistoryDirection::Redo).await
    }

    async fn restore_snapshot(
        &self,
        held: ClaimedRun,
        to: Result<SnapshotId, Error>,
        travel: HistoryDirection,
    ) -> Result<UndoOutcome, Error> {
        let moved = match to {
            Ok(to) => {
                self.run_claimed(held.lease.as_ref(), self.try_restore_snapshot(&held, to, travel)).await
            }
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
        let (spec, run, history) = (&held.plan.shared.sandbox, held.state.run, &held.state.history);
        let views = &self.parts().workspaces;
        let files = ChangeList::from(views.compare(spec, run, history.current, Some(to)).await?);
        // A branch stays as published; `forge apply` publishes again.
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

    /// Applies a run's result, or the state after one of its steps, to its repository.
    ///
    /// # Errors
    /// If a process works on the run or there is no such step. Conflicts with changes by others are an outcome,
    /// not an error.
    pub async fn apply(
        &self,
        run: RunId,
        step: Option<u32>,
        merge: MergePolicy,
    ) -> Result<ApplyOutcome, Error> {
        let held = self.claim_idle_run(run).await?;
        let outcome = self.run_claimed(held.lease.as_ref(), self.try_apply(&held, step, merge)).await;
        self.release_claim(held, outcome).await
    }

    async fn try_apply(
        &self,
        held: &ClaimedRun,
        step: Option<u32>,
        merge: MergePolicy,
    ) -> Result<ApplyOutcome, Error> {
        let (spec, run, history) = (&held.plan.shared.sandbox, held.state.run, &held.state.history);
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

    /// Removes the snapshots of ended runs: those that are too old, then the oldest until the rest fits.
    ///
    /// # Errors
    /// If the data directory can't be read.
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
                // Claimed, so that no other process resumes the run meanwhile.
                let Ok(lease) = self.parts().queue.claim(usage.run).await else { continue };
                let removal = self.parts().workspaces.remove_snapshots(usage.run);
                let removed = self.run_claimed(lease.as_ref(), removal).await;
                self.parts().queue.finish(lease, ItemStatus::Completed).await?;
                removed?;
            }
            total = total.saturating_sub(usage.bytes);
            freed.push(ReclaimedRun { run: usage.run, bytes: usage.bytes, at: usage.at });
        }
        Ok(freed)
    }

    /// Returns whether the snapshots of a run are dispensable: it has ended, or its journal is gone.
    async fn is_collectable(&self, run: RunId) -> Result<bool, Error> {
        match load_run_state(self.parts().journal.as_ref(), run).await {
            Ok((_, projector)) => Ok(projector.state().status.is_terminal()),
            Err(forge_engine::Error::NoSuchRun { .. }) => Ok(true),
            // The snapshots of a damaged run are kept.
            Err(forge_engine::Error::Damaged { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Completes work on a claimed run and renews its lease meanwhile.
    async fn run_claimed<T>(&self, lease: &dyn Lease, work: impl Future<Output = T>) -> T {
        run_renewed(lease, self.parts().clock.as_ref(), work).await
    }

    /// Claims a run to change its workspace.
    async fn claim_idle_run(&self, run: RunId) -> Result<ClaimedRun, Error> {
        let lease = match self.parts().queue.claim(run).await {
            Ok(lease) => lease,
            Err(ClaimError::Held { run, holder }) => return Err(Error::Active { run, holder }),
            Err(error) => return Err(error.into()),
        };
        let loaded = load_run_state(self.parts().journal.as_ref(), run).await;
        let (plan, projector) = match loaded {
            Ok(loaded) => loaded,
            Err(error) => {
                self.parts().queue.finish(lease, ItemStatus::Queued).await?;
                return Err(error.into());
            }
        };
        let held = ClaimedRun { lease, plan, state: projector.state().clone() };
        if held.state.status.is_terminal() || held.state.status == RunStatus::Waiting {
            return Ok(held);
        }
        let error = Error::Interrupted { run, status: held.state.status };
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

    /// Appends one event and returns the resulting state.
    async fn append_event(&self, held: &ClaimedRun, kind: EventKind) -> Result<RunState, Error> {
        Ok(self.engine().append_event(held.lease.as_ref(), &held.state, &held.plan, kind).await?)
    }
}

fn snapshot_at(run: RunId, step: u32, history: &WorkspaceHistory) -> Result<SnapshotId, Error> {
    history.at_step(step).ok_or_else(|| no_such_step(run, step, history))
}

fn no_such_step(run: RunId, step: u32, history: &WorkspaceHistory) -> Error {
    match history.steps.len() {
        0 => Error::Invalid { what: format!("run {run} has no steps that could have changed files") },
        last => Error::NoSuchStep { run, step, last },
    }
}
