//! The fold of a run: the state that results from its journal.

mod calls;
mod compact;
mod fold;
mod history;
mod transcript;

pub use fold::OutOfOrder;

pub use calls::{CallState, PendingCall};
pub use compact::{CompactionState, RecallNotice, summary_message};
pub use history::{ApplyOutcome, ToolStep, WorkspaceHistory};
pub use transcript::{Passage, Transcript, TranscriptEntry};

use crate::usage::is_zero;
use crate::{
    ChildEnd, Effect, EffectId, ErrorInfo, FinishReason, LimitKind, Message, Money, Payload, RunCreation,
    RunId, RunLimits, RunStatus, SandboxReport, Seq, SnapshotId, Timestamp, Usage, WaitingFor,
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// An effect without an outcome.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenEffect {
    /// The effect.
    pub what: Effect,
    /// Time of the journalled intent.
    pub since: Timestamp,
    /// Money reserved for the effect.
    pub reserved: Option<Money>,
    /// The workspace before the effect, if the effect may write to it.
    #[serde(default)]
    pub snapshot: Option<SnapshotId>,
}

/// A child run as far as its parent knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChildState {
    /// The child.
    pub run: RunId,
    /// The attempt at its node, from 1.
    pub attempt: u32,
    /// The end of the child; `None` while it is in progress.
    pub end: Option<ChildEnd>,
}

/// Totals of the run's tool calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolRecord {
    /// Executed calls.
    pub calls: u64,
    /// Total duration in milliseconds.
    pub total_ms: u64,
    /// `run_shell` commands among them.
    pub shell_commands: u32,
}

/// Properties of the last reply that decisions depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastReply {
    /// The reason why the reply ended.
    pub finish: FinishReason,
    /// Whether the reply requested tool calls.
    pub has_calls: bool,
    /// Whether the reply held neither text nor calls.
    pub empty: bool,
}

/// The failures of one of the plan's targets in the current turn.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedTarget {
    /// The target.
    pub target: u32,
    /// Number of failures.
    pub failures: u32,
    /// The last failure.
    pub error: ErrorInfo,
    /// Time of the last failure.
    pub at: Timestamp,
}

/// The end of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunEnding {
    /// The limit that ended it.
    pub limit: Option<LimitKind>,
    /// The error that ended it.
    pub error: Option<ErrorInfo>,
    /// The first paths that differ from the baseline.
    pub files_modified: Vec<String>,
    /// The number of such paths that are not listed.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub files_omitted: u64,
    /// Time of the end.
    pub at: Timestamp,
}

/// The state of a run. Equal journals give equal states.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunState {
    /// The run.
    pub run: RunId,
    /// Position of the last applied event.
    pub seq: Seq,
    /// Time of the last applied event.
    pub at: Timestamp,
    /// Parameters of the run at its creation.
    pub created: Option<Box<RunCreation>>,
    /// Time of creation.
    pub created_at: Timestamp,
    /// Time of the first claim.
    pub started_at: Option<Timestamp>,
    /// The status.
    pub status: RunStatus,
    /// The condition that the run waits for while `waiting`.
    pub waiting_for: Option<WaitingFor>,
    /// The end of the wait, if known.
    pub wait_until: Option<Timestamp>,
    /// Start of the current wait.
    pub wait_since: Option<Timestamp>,
    /// Milliseconds spent waiting, which duration limits do not count.
    pub waited_ms: u64,
    /// Number of claims.
    pub attempt: u32,
    /// Child runs, by the name of their node: the last attempt at each.
    #[serde(default)]
    pub children: BTreeMap<String, ChildState>,
    /// Effects in flight.
    pub open: BTreeMap<EffectId, OpenEffect>,
    /// Identifier of the next effect.
    pub next_effect: EffectId,
    /// The conversation without the system prompt; append-only except for compactions. Shared, because states and
    /// requests are copied far more often than messages change.
    pub messages: Vec<Arc<Message>>,
    /// Size of the conversation in bytes.
    pub message_bytes: u64,
    /// Ids of all tool calls so far.
    pub call_ids: BTreeSet<Arc<str>>,
    /// Tool calls of the last reply that are not yet part of the conversation.
    pub calls: Vec<PendingCall>,
    /// Messages of the user for the next request.
    pub steering: Vec<String>,
    /// The source of the request to cancel the run.
    pub cancel: Option<String>,
    /// Whether a pause was requested.
    pub pause: bool,
    /// Whether a resume was requested while the run waited.
    pub resume: bool,
    /// Limits that replace the plan's.
    pub limits: Option<RunLimits>,
    /// Turns so far.
    pub iterations: u32,
    /// Attempts of the current turn.
    pub tries: u32,
    /// Failures of the current turn that count against its attempts.
    pub failures: u32,
    /// The last failure of the current turn.
    pub last_error: Option<ErrorInfo>,
    /// The target that was called last.
    #[serde(default)]
    pub target: u32,
    /// Targets that failed in the current turn, in the order of the calls.
    #[serde(default)]
    pub tried: Vec<FailedTarget>,
    /// Milliseconds by which the calls of the current turn were delayed.
    #[serde(default)]
    pub delayed_ms: u64,
    /// Number of times that the current turn was parked for a provider.
    #[serde(default, alias = "parks")]
    pub parked_count: u32,
    /// Whether a person ended a wait for a provider: the current turn then calls providers despite their cooldowns.
    #[serde(default, alias = "insists")]
    pub ignore_cooldowns: bool,
    /// The last reply, until the next turn begins.
    pub last_reply: Option<LastReply>,
    /// Number of consecutive replies that were truncated at the token limit.
    #[serde(alias = "cuts")]
    pub truncated_replies: u32,
    /// Number of consecutive empty replies.
    #[serde(alias = "empties")]
    pub empty_replies: u32,
    /// The answer: texts of the last reply without tool calls, preceded by the replies that it continues.
    pub answer: Vec<Payload>,
    /// Tokens used.
    pub usage: Usage,
    /// Prompt tokens of the last report, with the size of that conversation in bytes.
    #[serde(alias = "measured")]
    pub last_measured_prompt: Option<(u64, u64)>,
    /// Money spent on calls with known prices.
    pub cost: Money,
    /// Whether the price of every call was known.
    pub cost_known: bool,
    /// Totals of the tool calls.
    pub tools: ToolRecord,
    /// The report of the sandbox when it was last opened.
    pub sandbox: Option<SandboxReport>,
    /// Number of times that the sandbox died unexpectedly.
    pub sandbox_losses: u32,
    /// The known cause of the last loss.
    #[serde(default)]
    pub sandbox_loss: Option<String>,
    /// History of the workspace.
    #[serde(default)]
    pub history: WorkspaceHistory,
    /// Whether a step that may have written was interrupted, so that the workspace may differ from its last
    /// snapshot.
    #[serde(default, alias = "unkept")]
    pub has_unsaved_changes: bool,
    /// The state of the conversation's compactions.
    #[serde(default)]
    pub compact: CompactionState,
    /// The end of the run.
    pub ending: Option<RunEnding>,
}

impl RunState {
    /// Creates the state before the first event.
    pub fn new(run: RunId) -> Self {
        Self {
            run,
            seq: Seq(0),
            at: Timestamp::default(),
            created: None,
            created_at: Timestamp::default(),
            started_at: None,
            status: RunStatus::Pending,
            waiting_for: None,
            wait_until: None,
            wait_since: None,
            waited_ms: 0,
            attempt: 0,
            children: BTreeMap::new(),
            open: BTreeMap::new(),
            next_effect: EffectId(1),
            messages: Vec::new(),
            message_bytes: 0,
            call_ids: BTreeSet::new(),
            calls: Vec::new(),
            steering: Vec::new(),
            cancel: None,
            pause: false,
            resume: false,
            limits: None,
            iterations: 0,
            tries: 0,
            failures: 0,
            last_error: None,
            target: 0,
            tried: Vec::new(),
            delayed_ms: 0,
            parked_count: 0,
            ignore_cooldowns: false,
            last_reply: None,
            truncated_replies: 0,
            empty_replies: 0,
            answer: Vec::new(),
            usage: Usage { known: true, ..Usage::default() },
            last_measured_prompt: None,
            cost: Money::ZERO,
            cost_known: true,
            tools: ToolRecord::default(),
            sandbox: None,
            sandbox_losses: 0,
            sandbox_loss: None,
            history: WorkspaceHistory::default(),
            has_unsaved_changes: false,
            compact: CompactionState::default(),
            ending: None,
        }
    }

    /// Returns whether the run is in progress and nothing but its child runs is in flight, so that no process has to
    /// work on it until one of them ends.
    pub fn waits_for_children(&self) -> bool {
        self.status == RunStatus::Running
            && !self.open.is_empty()
            && self.open.values().all(|open| matches!(open.what, Effect::StartRun(_)))
    }

    /// Returns the money reserved for effects in flight.
    pub fn reserved_total(&self) -> Money {
        self.open.values().filter_map(|open| open.reserved).fold(Money::ZERO, Money::plus)
    }

    /// Returns the milliseconds worked on the run until `now`, excluding the time spent waiting.
    pub fn worked_ms(&self, now: Timestamp) -> u64 {
        let Some(started) = self.started_at else { return 0 };
        let end = self.ending.as_ref().map_or(now, |ending| ending.at);
        let waiting = self.wait_since.map_or(0, |since| end.millis_since(since));
        end.millis_since(started).saturating_sub(self.waited_ms).saturating_sub(waiting)
    }

    /// Returns the current phase, for display and filtering (SPEC 1.1).
    pub fn phase(&self) -> &'static str {
        match self.status {
            RunStatus::Pending => "queued",
            RunStatus::Running => {
                let executing = self.open.values().any(|open| {
                    matches!(&open.what, Effect::RunTool(run) if run.access == crate::ToolAccess::Exec)
                });
                let compacting = self.open.values().any(|open| matches!(open.what, Effect::Compact(_)));
                match (executing, compacting) {
                    (true, _) => "executing",
                    (false, true) => "compacting",
                    (false, false) => "coding",
                }
            }
            RunStatus::Waiting => "waiting",
            _ => "done",
        }
    }

    /// Returns whether every tool call in the conversation has exactly one result, in call order, before any other
    /// message.
    pub fn is_consistent(&self) -> bool {
        let mut seen = Vec::new();
        let mut expected: std::collections::VecDeque<&str> = std::collections::VecDeque::new();
        for message in &self.messages {
            let mut results = 0;
            for part in &message.parts {
                if let crate::PartKind::Result(result) = &part.kind {
                    results += 1;
                    if expected.pop_front() != Some(result.call_id.as_str()) {
                        return false;
                    }
                    seen.push(result.call_id.as_str());
                }
            }
            if results == 0 && !expected.is_empty() {
                return false;
            }
            expected.extend(message.tool_calls().map(|call| call.id.as_str()));
        }
        seen.sort_unstable();
        let once = seen.windows(2).all(|two| two[0] != two[1]);
        once && expected.is_empty() && self.calls.is_empty()
    }
}
