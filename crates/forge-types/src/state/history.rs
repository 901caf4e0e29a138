//! History of a run's workspace: its steps, its current state and the applied state.

use crate::usage::is_zero;
use crate::{ApplyConflict, EffectId, EgressRecord, SnapshotId, Timestamp, WorkspaceChange};
use serde::{Deserialize, Serialize};

/// Maximum number of hosts in a run's egress totals.
const MAX_HOSTS: usize = 200;

/// A tool call that may have written, with the resulting workspace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolStep {
    /// The effect.
    pub effect: EffectId,
    /// The tool.
    pub tool: String,
    /// The call's arguments, truncated to 120 characters, for display.
    pub about: String,
    /// The workspace after it.
    pub snapshot: SnapshotId,
    /// Time of the call's end.
    pub at: Timestamp,
}

/// The outcome of an attempt to apply a result to the repository.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "apply", rename_all = "snake_case")]
pub enum ApplyOutcome {
    /// The result was applied to the repository.
    Done {
        /// The first changed paths.
        changed: Vec<WorkspaceChange>,
        /// The number of changed paths that are not listed.
        #[serde(default, skip_serializing_if = "is_zero")]
        omitted: u64,
        /// Changed paths with texts that were merged with another process's changes.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        merged: Vec<String>,
        /// Notes for the user.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        notes: Vec<String>,
    },
    /// The result was committed to a branch of the repository.
    Published {
        /// The branch.
        branch: String,
        /// The commit's hash.
        commit: String,
    },
    /// The same paths changed in the repository, which was not modified.
    Conflicts {
        /// The first paths with the reasons; if not all are listed, those that can't be merged come first.
        conflicts: Vec<ApplyConflict>,
        /// The number of conflicts that are not listed.
        #[serde(default, skip_serializing_if = "is_zero")]
        omitted: u64,
    },
    /// The result could not be applied; the repository was not modified.
    Failed {
        /// The reason, and the next step for the user.
        why: String,
    },
}

/// The current state of a run's workspace and the steps that led to it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkspaceHistory {
    /// The workspace before the first step that may have written.
    pub beginning: Option<SnapshotId>,
    /// The workspace now; `None` before the first such step.
    pub current: Option<SnapshotId>,
    /// The steps, in order, counted from 1.
    pub steps: Vec<ToolStep>,
    /// The states left by undos, most recent last; a redo takes the last one.
    pub undone: Vec<SnapshotId>,
    /// The states in which dead attempts left the repository of an `inplace` run before it was restored.
    pub aside: Vec<SnapshotId>,
    /// The applied state; `None`: the repository is at the baseline.
    pub applied: Option<SnapshotId>,
    /// The outcome of the last attempt to apply.
    pub outcome: Option<ApplyOutcome>,
    /// Hosts that the sandbox reached or tried to reach, by host, port and verdict.
    pub egress: Vec<EgressRecord>,
}

impl WorkspaceHistory {
    /// Returns the workspace after step `n`; 0 is the baseline. `None` if there is no such step.
    pub fn at_step(&self, n: u32) -> Option<SnapshotId> {
        match n.checked_sub(1) {
            None => self.beginning,
            Some(index) => self.steps.get(index as usize).map(|step| step.snapshot),
        }
    }

    /// Returns the last step that produced the current workspace; 0 is the baseline.
    pub fn current_step(&self) -> Option<u32> {
        let Some(current) = self.current else { return Some(0) };
        let last = self.steps.iter().rposition(|step| step.snapshot == current);
        let last = last.map(|index| u32::try_from(index + 1).unwrap_or(u32::MAX));
        last.or((self.beginning == Some(current)).then_some(0))
    }

    /// Returns whether the workspace differs from the applied state.
    pub fn is_pending(&self) -> bool {
        self.current.is_some() && self.current != self.applied.or(self.beginning)
    }

    pub(super) fn push_step(&mut self, step: ToolStep) {
        self.current = Some(step.snapshot);
        self.undone.clear();
        self.steps.push(step);
    }

    pub(super) fn record_egress(&mut self, record: &EgressRecord) {
        let same = |known: &&mut EgressRecord| {
            known.host == record.host && known.port == record.port && known.verdict == record.verdict
        };
        if let Some(known) = self.egress.iter_mut().find(same) {
            known.count = known.count.saturating_add(record.count);
            known.sent = known.sent.saturating_add(record.sent);
            known.received = known.received.saturating_add(record.received);
        } else if self.egress.len() < MAX_HOSTS {
            self.egress.push(record.clone());
        }
    }
}
