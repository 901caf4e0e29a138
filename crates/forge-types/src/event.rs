//! Events of the journal: everything that replay needs, nothing that is only for display.

use crate::usage::is_zero;
use crate::{
    ApplyOutcome, CommandId, CompactCause, Digest, Effect, EffectId, EgressRecord, ErrorInfo, LimitKind,
    Message, MessageSpan, Money, Outcome, ParentRun, Payload, RunCommand, RunId, RunStatus, SandboxReport,
    SandboxState, Seq, SnapshotId, SummaryBy, Timestamp, WaitingFor,
};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// The source of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunSource {
    /// A command line.
    #[default]
    Cli,
    /// `forge demo`.
    Demo,
    /// A turn of `forge chat`.
    Chat,
}

/// Parameters of a run at its creation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunCreation {
    /// The task in the user's words.
    pub task: Payload,
    /// The repository, absolute.
    pub repo: PathBuf,
    /// The pipeline's name.
    pub pipeline: String,
    /// The source of the run.
    #[serde(default)]
    pub source: RunSource,
    /// Earlier messages, if the run continues a conversation.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<Message>,
    /// The run that started this one, if it is a child.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<ParentRun>,
    /// The root of the run's tree; the run itself unless it is a child.
    pub root: RunId,
    /// The plan's blob.
    pub plan: Digest,
    /// Sixteen hex digits that correlate log lines, events and outgoing requests.
    pub correlation_id: String,
}

/// The reason why a tool call was rejected without being run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToolCallVerdict {
    /// The command policy refused it.
    Command,
    /// A limit of the run refused it.
    Limit,
    /// The call itself is invalid: unknown or disabled tool, bad arguments, duplicate id, truncated reply.
    Malformed,
    /// The run is ending.
    Ending,
}

/// The direction of a move through the workspace's history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HistoryDirection {
    /// Back to an earlier step.
    Undo,
    /// Forward to the state before the last undo.
    Redo,
}

/// The content of an event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum EventKind {
    /// The run was created.
    Created(Box<RunCreation>),
    /// A process claimed the run and works on it.
    Claimed {
        /// The process (`host:pid`).
        worker: String,
        /// Number of claims so far, from 1.
        attempt: u32,
    },
    /// The run received a command.
    Commanded {
        /// Identifier of the command, so that it is applied only once.
        id: CommandId,
        /// The command.
        command: RunCommand,
    },
    /// An effect is about to start.
    Intended {
        /// Identifier of the effect.
        effect: EffectId,
        /// The effect.
        what: Effect,
        /// Money reserved for the effect.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reserved: Option<Money>,
        /// The idempotency key, if the effect acts on something outside of the workspace.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        key: Option<String>,
        /// The workspace before the effect, if the effect may write to it: if the attempt dies, the workspace is
        /// restored to this snapshot and the effect is retried.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        snapshot: Option<SnapshotId>,
    },
    /// An effect ended: exactly once per intent.
    Settled {
        /// Identifier of the effect.
        effect: EffectId,
        /// The outcome.
        outcome: Outcome,
        /// The workspace after the effect, if the effect may have written to it. If the effect was interrupted: the
        /// state in which it left the repository of an `inplace` run.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        snapshot: Option<SnapshotId>,
    },
    /// A tool call was rejected without being run.
    #[serde(alias = "judged")]
    ToolCallRejected {
        /// The call's id.
        call_id: String,
        /// The tool's name as the model wrote it.
        tool: String,
        /// The reason for the rejection.
        verdict: ToolCallVerdict,
        /// The error that the model receives; `error.kind` is the kind on the wire.
        error: ErrorInfo,
    },
    /// The state of the sandbox changed.
    SandboxChanged {
        /// The new state.
        state: SandboxState,
        /// The report of the sandbox, if it was opened.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        report: Option<SandboxReport>,
    },
    /// A summary replaced the oldest part of the conversation. The replaced messages remain in the earlier events.
    Compacted {
        /// Positions of the replaced messages in the conversation before this event.
        gone: Vec<MessageSpan>,
        /// The reason for the compaction.
        cause: CompactCause,
        /// The author of the summary.
        by: SummaryBy,
        /// The summary.
        text: Payload,
        /// Whether the tool `recall` can look up the replaced messages.
        #[serde(default)]
        recall: bool,
        /// The reason why the summary is an extract.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        note: Option<String>,
    },
    /// The sandbox reached hosts or tried to.
    #[serde(alias = "reached")]
    EgressRecorded {
        /// The attempts.
        records: Vec<EgressRecord>,
    },
    /// The workspace was restored to one of its snapshots.
    Restored {
        /// The snapshot.
        to: SnapshotId,
        /// The direction.
        #[serde(alias = "travel")]
        direction: HistoryDirection,
        /// Whether the repository, which held a result of the run, was changed as well.
        applied: bool,
    },
    /// The user, or the run at its end, tried to apply a state of the workspace to the repository.
    Applied {
        /// The snapshot.
        to: SnapshotId,
        /// The outcome.
        outcome: ApplyOutcome,
    },
    /// The status changed.
    StatusChanged {
        /// The previous status.
        from: RunStatus,
        /// The new status.
        to: RunStatus,
        /// The condition that a parked run waits for.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        waiting_for: Option<WaitingFor>,
        /// The end of the wait, if known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        until: Option<Timestamp>,
        /// The reason, for display.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// The run ended and its status changed.
    Finished {
        /// The final status.
        status: RunStatus,
        /// The limit that ended it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        limit: Option<LimitKind>,
        /// The error that ended it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<ErrorInfo>,
        /// The first paths of the workspace with contents that differ from the baseline.
        #[serde(default)]
        files_modified: Vec<String>,
        /// The number of such paths that are not listed.
        #[serde(default, skip_serializing_if = "is_zero")]
        files_omitted: u64,
        /// The final workspace, if a step was interrupted after the last snapshot.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        snapshot: Option<SnapshotId>,
        /// The answer, if it is not the text of the model's last reply: a tool's output or a fixed sentence.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        answer: Option<Payload>,
    },
}

/// An entry of a run's journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// The run.
    pub run: RunId,
    /// The position in the journal.
    pub seq: Seq,
    /// Time of the append.
    pub at: Timestamp,
    /// The content.
    #[serde(flatten)]
    pub kind: EventKind,
}

impl EventKind {
    /// Returns the name of the kind, as in its serialized form.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Created(_) => "created",
            Self::Claimed { .. } => "claimed",
            Self::Commanded { .. } => "commanded",
            Self::Intended { .. } => "intended",
            Self::Settled { .. } => "settled",
            Self::ToolCallRejected { .. } => "tool_call_rejected",
            Self::SandboxChanged { .. } => "sandbox_changed",
            Self::Compacted { .. } => "compacted",
            Self::EgressRecorded { .. } => "egress_recorded",
            Self::Restored { .. } => "restored",
            Self::Applied { .. } => "applied",
            Self::StatusChanged { .. } => "status_changed",
            Self::Finished { .. } => "finished",
        }
    }

    /// Returns all payloads of the event, for code that stores or loads them.
    pub fn payloads_mut(&mut self) -> Vec<&mut Payload> {
        match self {
            Self::Settled { outcome: Outcome::Replied { reply, .. }, .. } => reply
                .parts
                .iter_mut()
                .filter_map(|part| match &mut part.kind {
                    crate::PartKind::Text { text } | crate::PartKind::Reasoning { text } => Some(text),
                    _ => None,
                })
                .collect(),
            Self::Settled { outcome: Outcome::ToolDone { output }, .. } => vec![&mut output.content],
            Self::Settled { outcome: Outcome::Summarised { summary }, .. } => vec![&mut summary.text],
            Self::Settled { outcome: Outcome::RunEnded { end }, .. } => end.answer.iter_mut().collect(),
            Self::Commanded { command: RunCommand::ChildEnded { end, .. }, .. } => {
                end.answer.iter_mut().collect()
            }
            Self::Compacted { text, .. } => vec![text],
            Self::Created(created) => created.history.iter_mut().flat_map(Message::payloads_mut).collect(),
            Self::Finished { answer: Some(answer), .. } => vec![answer],
            _ => Vec::new(),
        }
    }
}
