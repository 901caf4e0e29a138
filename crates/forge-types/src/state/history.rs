//! What happened to a run's workspace: its steps, where it stands, and what of it was applied.

use crate::{ApplyConflict, EffectId, EgressRecord, SnapshotId, Timestamp, WorkspaceChange};
use serde::{Deserialize, Serialize};

/// Hosts of which a run's state keeps the totals.
const MAX_HOSTS: usize = 200;

/// A tool call that may have written, with the workspace as it was after it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolStep {
    /// The effect.
    pub effect: EffectId,
    /// The tool.
    pub tool: String,
    /// What it was called with, cut to 120 characters, for people.
    pub about: String,
    /// The workspace after it.
    pub snapshot: SnapshotId,
    /// When it ended.
    pub at: Timestamp,
}

/// What became of a result on its way into the repository.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "apply", rename_all = "snake_case")]
pub enum ApplyOutcome {
    /// The repository holds it.
    Done {
        /// Paths that were changed.
        changed: Vec<WorkspaceChange>,
        /// Paths among them whose texts were merged with somebody else's changes.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        merged: Vec<String>,
        /// What the user should know.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        notes: Vec<String>,
    },
    /// The repository has it as a commit on a branch.
    Published {
        /// The branch.
        branch: String,
        /// The commit's hash.
        commit: String,
    },
    /// Others changed the same things; the repository is as it was.
    Conflicts {
        /// Each path with the reason.
        conflicts: Vec<ApplyConflict>,
    },
    /// It could not be done; the repository is as it was.
    Failed {
        /// Why, and what to do.
        why: String,
    },
}

/// Where a run's workspace stands and how it came there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkspaceHistory {
    /// The workspace before the first step that may have written.
    pub beginning: Option<SnapshotId>,
    /// The workspace now; `None` before the first such step.
    pub current: Option<SnapshotId>,
    /// The steps, in order; step 1 is the first.
    pub steps: Vec<ToolStep>,
    /// What an undo left, the last one last: a redo takes it from here.
    pub undone: Vec<SnapshotId>,
    /// What attempts that died had left in the repository of an `inplace` run before it was put back.
    pub aside: Vec<SnapshotId>,
    /// The state that the repository holds; `None`: it is as it was at the beginning.
    pub applied: Option<SnapshotId>,
    /// What became of the last attempt to apply.
    pub outcome: Option<ApplyOutcome>,
    /// What the box reached or tried to reach, by host, port and verdict.
    pub egress: Vec<EgressRecord>,
}

impl WorkspaceHistory {
    /// The workspace after step `n`; 0 is the beginning. `None` if there is no such step.
    pub fn at_step(&self, n: u32) -> Option<SnapshotId> {
        match n.checked_sub(1) {
            None => self.beginning,
            Some(index) => self.steps.get(index as usize).map(|step| step.snapshot),
        }
    }

    /// The last step that left the workspace as it stands now; 0 is the beginning.
    pub fn current_step(&self) -> Option<u32> {
        let Some(current) = self.current else { return Some(0) };
        let last = self.steps.iter().rposition(|step| step.snapshot == current);
        let last = last.map(|index| u32::try_from(index + 1).unwrap_or(u32::MAX));
        last.or((self.beginning == Some(current)).then_some(0))
    }

    /// Whether something differs from what the repository holds.
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
