//! The fold of a run: its journal, read from the beginning, gives its state.

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

use crate::{
    Effect, EffectId, ErrorInfo, FinishReason, LimitKind, Message, Money, Payload, RunCreation, RunId,
    RunLimits, RunStatus, SandboxReport, Seq, SnapshotId, Timestamp, Usage, WaitingFor,
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// An effect whose outcome is not known yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenEffect {
    /// What it is.
    pub what: Effect,
    /// When its intent was journalled.
    pub since: Timestamp,
    /// Money reserved for it.
    pub reserved: Option<Money>,
    /// The workspace before it, if it may write there.
    #[serde(default)]
    pub snapshot: Option<SnapshotId>,
}

/// Totals over the tools that were run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolRecord {
    /// Calls that were run.
    pub calls: u64,
    /// Milliseconds they took together.
    pub total_ms: u64,
    /// Commands of `run_shell` among them.
    pub shell_commands: u32,
}

/// What the model said last, as far as decisions need it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastReply {
    /// Why it ended.
    pub finish: FinishReason,
    /// Whether it asked for tools.
    pub has_calls: bool,
    /// Whether it held neither text nor calls.
    pub empty: bool,
}

/// What came of asking one of the plan's targets in the current turn.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedTarget {
    /// The target.
    pub target: u32,
    /// How often it failed.
    pub failures: u32,
    /// The last failure.
    pub error: ErrorInfo,
    /// When that was.
    pub at: Timestamp,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunEnding {
    /// The limit that ended it.
    pub limit: Option<LimitKind>,
    /// The error that ended it.
    pub error: Option<ErrorInfo>,
    /// Paths that differ from the beginning.
    pub files_modified: Vec<String>,
    /// When it ended.
    pub at: Timestamp,
}

/// The state of a run. Equal journals give equal states.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunState {
    /// The run.
    pub run: RunId,
    /// The last event folded in.
    pub seq: Seq,
    /// Its time.
    pub at: Timestamp,
    /// What the run was created with.
    pub created: Option<Box<RunCreation>>,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it was first claimed.
    pub started_at: Option<Timestamp>,
    /// Where it stands.
    pub status: RunStatus,
    /// What it waits for while `waiting`.
    pub waiting_for: Option<WaitingFor>,
    /// Until when it waits, if that is known.
    pub wait_until: Option<Timestamp>,
    /// Since when it waits.
    pub wait_since: Option<Timestamp>,
    /// Milliseconds spent waiting, which no wall-clock limit counts.
    pub waited_ms: u64,
    /// How often it was claimed.
    pub attempt: u32,
    /// Effects in flight.
    pub open: BTreeMap<EffectId, OpenEffect>,
    /// The name of the next effect.
    pub next_effect: EffectId,
    /// The conversation without the system prompt; only ever extended, but for compactions. Shared, because states and requests are
    /// copied far more often than messages change.
    pub messages: Vec<Arc<Message>>,
    /// Bytes of the conversation.
    pub message_bytes: u64,
    /// Ids of all tool calls so far.
    pub call_ids: BTreeSet<Arc<str>>,
    /// The tool calls of the last reply that are not part of the conversation yet.
    pub calls: Vec<PendingCall>,
    /// Messages of the user that wait for the next request.
    pub steering: Vec<String>,
    /// Who asked for the end of the run.
    pub cancel: Option<String>,
    /// Whether a pause was asked for.
    pub pause: bool,
    /// Whether somebody asked to go on while the run waited.
    pub resume: bool,
    /// Limits that replace the plan's.
    pub limits: Option<RunLimits>,
    /// Turns so far.
    pub iterations: u32,
    /// Tries of the current turn so far.
    pub tries: u32,
    /// Failures of the current turn that count against its tries.
    pub failures: u32,
    /// The last failure of the current turn.
    pub last_error: Option<ErrorInfo>,
    /// The target that was asked last.
    #[serde(default)]
    pub target: u32,
    /// The targets that failed in the current turn, in the order in which they were asked.
    #[serde(default)]
    pub tried: Vec<FailedTarget>,
    /// Milliseconds that the calls of the current turn waited before they were sent.
    #[serde(default)]
    pub delayed_ms: u64,
    /// How often the current turn was parked for a provider.
    #[serde(default, alias = "parks")]
    pub parked_count: u32,
    /// Whether a person ended a wait for a provider: the current turn asks whoever is said to be unavailable.
    #[serde(default, alias = "insists")]
    pub ignore_cooldowns: bool,
    /// The last reply, until the next turn begins.
    pub last_reply: Option<LastReply>,
    /// Replies of this run that were cut by the token limit, in a row.
    #[serde(alias = "cuts")]
    pub truncated_replies: u32,
    /// Empty replies, in a row.
    #[serde(alias = "empties")]
    pub empty_replies: u32,
    /// The answer: texts of the last reply without tool calls, with those it continues.
    pub answer: Vec<Payload>,
    /// Tokens used.
    pub usage: Usage,
    /// Prompt tokens as last reported, with the bytes of the conversation they stood for.
    #[serde(alias = "measured")]
    pub last_measured_prompt: Option<(u64, u64)>,
    /// Money spent on calls of known price.
    pub cost: Money,
    /// Whether the price of every call was known.
    pub cost_known: bool,
    /// Totals over tools.
    pub tools: ToolRecord,
    /// The box as it was last opened.
    pub sandbox: Option<SandboxReport>,
    /// How often the box went away by itself.
    pub sandbox_losses: u32,
    /// What was known of the last loss.
    #[serde(default)]
    pub sandbox_loss: Option<String>,
    /// What happened to the workspace.
    #[serde(default)]
    pub history: WorkspaceHistory,
    /// Whether a step that may have written was cut off, so that the workspace may differ from its last snapshot.
    #[serde(default, alias = "unkept")]
    pub has_unsaved_changes: bool,
    /// What was summarised of the conversation, and what is being done about it.
    #[serde(default)]
    pub compact: CompactionState,
    /// The manifest of the workspace at the beginning.
    pub manifest: Option<crate::Digest>,
    /// How it ended.
    pub ending: Option<RunEnding>,
}

impl RunState {
    /// The state before the first event.
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
            manifest: None,
            ending: None,
        }
    }

    /// Money reserved for effects in flight.
    pub fn reserved_total(&self) -> Money {
        self.open.values().filter_map(|open| open.reserved).fold(Money::ZERO, Money::plus)
    }

    /// Milliseconds worked on the run until `now`, without the time spent waiting.
    pub fn worked_ms(&self, now: Timestamp) -> u64 {
        let Some(started) = self.started_at else { return 0 };
        let end = self.ending.as_ref().map_or(now, |ending| ending.at);
        let waiting = self.wait_since.map_or(0, |since| end.millis_since(since));
        end.millis_since(started).saturating_sub(self.waited_ms).saturating_sub(waiting)
    }

    /// What the run is at, for display and filtering (SPEC 1.1).
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

    /// Whether every tool call in the conversation has exactly one result, in call order, before anything else.
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
