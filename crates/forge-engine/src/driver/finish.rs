//! The end of a run: its last snapshot, and the transfer of its result to the repository.

use super::RunDriver;
use super::children::report_end;
use super::stoppable::WorkDeadline;
use crate::Error;
use crate::transaction::JournalTransaction;
use forge_policy::lifecycle::{self, ResultDisposition};
use forge_ports::sandbox::Error as SandboxError;
use forge_ports::workspace_store::{ApplyReport, MergePolicy};
use forge_types::{
    ApplyOutcome, EventKind, RunFinish, RunState, SandboxState, SnapshotId, WorkspaceMode, truncate_listing,
};

impl RunDriver {
    /// Ends the run: saves unsaved changes, closes the sandbox, and applies the result if the plan requires it.
    pub(super) async fn finish_run(
        &mut self,
        draft: &mut JournalTransaction<'_>,
        finish: RunFinish,
    ) -> Result<(), Error> {
        self.abort_baseline();
        let snapshot = self.snapshot_last_step(draft.state()).await;
        self.record_sandbox_open(draft)?;
        self.record_egress(draft)?;
        let entered = std::mem::take(&mut self.entered);
        self.baseline = None;
        self.session.close().await;
        if entered {
            draft.push(EventKind::SandboxChanged { state: SandboxState::Stopped, report: None })?;
        }
        let mut after = draft.state().clone();
        after.history.current = snapshot.or(after.history.current);
        let (files_modified, files_omitted) = self.modified_files(&after).await;
        if let Some(to) = after.history.current {
            let outcome = match lifecycle::result_disposition(&after, &self.plan.shared, finish.status) {
                ResultDisposition::Apply => Some(self.apply(&after, to).await),
                ResultDisposition::Publish => self.publish(&after, to).await,
                ResultDisposition::Leave => self.revert_partial_apply(&after).await,
            };
            if let Some(outcome) = outcome {
                draft.push(EventKind::Applied { to, outcome })?;
            }
        }
        draft.push(EventKind::Finished {
            status: finish.status,
            limit: finish.limit,
            error: finish.error,
            files_modified,
            files_omitted,
            snapshot,
            answer: finish.answer,
        })?;
        report_end(draft);
        Ok(())
    }

    /// Takes a snapshot of what an interrupted step left, so that it stays reachable.
    async fn snapshot_last_step(&self, state: &RunState) -> Option<SnapshotId> {
        let workspace = self.session.workspace().filter(|_| state.has_unsaved_changes && !self.too_large)?;
        match self.run_until_stopped(state, WorkDeadline::End, workspace.snapshot()).await {
            Ok(snapshot) => Some(snapshot),
            Err(error) => {
                tracing::warn!(run = %state.run, %error, "can't save what the last step left");
                None
            }
        }
    }

    /// Returns the first of the sorted paths of which content, mode or kind differs from the baseline, and the number of
    /// the others.
    async fn modified_files(&self, state: &RunState) -> (Vec<String>, u64) {
        let history = &state.history;
        if history.current == history.beginning {
            return (Vec::new(), 0);
        }
        let views = &self.parts.workspaces;
        let changes = views.compare(&self.plan.shared.sandbox, state.run, history.beginning, history.current);
        match self.run_until_stopped(state, WorkDeadline::End, changes).await {
            Ok(mut changes) => {
                let omitted = truncate_listing(&mut changes, |change| change.path.len());
                (changes.into_iter().map(|change| change.path).collect(), omitted)
            }
            Err(error) => {
                tracing::warn!(run = %state.run, %error, "can't determine what the run changed");
                (Vec::new(), 0)
            }
        }
    }

    /// Applies the result. If a process died halfway, applying again completes it.
    async fn apply(&self, state: &RunState, to: SnapshotId) -> ApplyOutcome {
        let (spec, from) = (&self.plan.shared.sandbox, state.history.applied);
        let applied = self.parts.workspaces.apply(spec, state.run, from, Some(to), MergePolicy::No);
        apply_outcome(self.run_until_stopped(state, WorkDeadline::End, applied).await)
    }

    /// Reverts a partial apply of a run that is not to be applied: its process may have died while applying,
    /// and the repository must be as before. Returns the reason if a part of the result remains.
    async fn revert_partial_apply(&self, state: &RunState) -> Option<ApplyOutcome> {
        if self.plan.shared.sandbox.mode != WorkspaceMode::Transaction {
            return None;
        }
        let reverted = self.parts.workspaces.revert_partial_apply(state.run);
        let error = self.run_until_stopped(state, WorkDeadline::Revert, reverted).await.err()?;
        tracing::warn!(run = %state.run, %error, "the repository contains a part of the result");
        let why = format!(
            "an interrupted apply left a part of the result in the repository, and reverting it failed: {error}; \
             applying the result completes it"
        );
        Some(ApplyOutcome::Failed { why })
    }

    async fn publish(&self, state: &RunState, to: SnapshotId) -> Option<ApplyOutcome> {
        let message = commit_message(state);
        let published = self.parts.workspaces.publish(&self.plan.shared.sandbox, state.run, to, &message);
        match self.run_until_stopped(state, WorkDeadline::End, published).await {
            Ok(None) => None,
            Ok(Some(made)) => Some(ApplyOutcome::Published { branch: made.branch, commit: made.commit }),
            Err(error) => Some(ApplyOutcome::Failed { why: error.to_string() }),
        }
    }
}

/// Converts the result of an apply to its form in the journal.
pub fn apply_outcome(applied: Result<ApplyReport, SandboxError>) -> ApplyOutcome {
    match applied {
        Ok(applied) => {
            let ApplyReport { changed, omitted, merged, notes } = applied;
            ApplyOutcome::Done { changed, omitted, merged, notes }
        }
        Err(SandboxError::Conflicts { conflicts, omitted }) => ApplyOutcome::Conflicts { conflicts, omitted },
        Err(error) => ApplyOutcome::Failed { why: error.to_string() },
    }
}

/// Builds the message of a result's commit: the task's first line as subject, then the run.
pub fn commit_message(state: &RunState) -> String {
    const MAX_SUBJECT_CHARS: usize = 72;
    let task = state.created.as_ref().and_then(|created| created.task.inline_text()).unwrap_or_default();
    let line = task.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or("Result of a run");
    let subject: String = line.chars().take(MAX_SUBJECT_CHARS).collect();
    format!("{subject}\n\nMade by forge, run {}.\n", state.run)
}
