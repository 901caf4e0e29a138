//! The journal's own events: all that replay needs, nothing for show.

use crate::{
    ApplyOutcome, CommandId, CompactCause, Digest, Effect, EffectId, EgressRecord, ErrorInfo, LimitKind,
    Message, MessageSpan, Money, Outcome, Payload, RunCommand, RunId, RunStatus, SandboxReport, SandboxState,
    Seq, SnapshotId, SummaryBy, Timestamp, WaitingFor,
};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Where a run came from.
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

/// What a run was created with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunCreation {
    /// The task in the user's words.
    pub task: Payload,
    /// The repository, absolute.
    pub repo: PathBuf,
    /// The pipeline's name.
    pub pipeline: String,
    /// Where it came from.
    #[serde(default)]
    pub source: RunSource,
    /// What was said before, in a conversation that this run goes on with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<Message>,
    /// The run at the top; itself unless it is a child.
    pub root: RunId,
    /// The plan's blob.
    pub plan: Digest,
    /// Sixteen hex digits that tie log lines, events and outgoing requests together.
    pub correlation_id: String,
}

/// What a guard said of a tool call that was not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToolCallVerdict {
    /// The command policy refused it.
    Command,
    /// A limit of the run refused it.
    Limit,
    /// The call itself is wrong: unknown tool, disabled tool, bad arguments, an id used twice, a cut reply.
    Malformed,
    /// The run is ending.
    Ending,
}

/// Where an undo or a redo goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HistoryDirection {
    /// Back to an earlier step.
    Undo,
    /// To what the last undo left.
    Redo,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum EventKind {
    /// The run exists.
    Created(Box<RunCreation>),
    /// A process took the run and works on it.
    Claimed {
        /// Which process (`host:pid`).
        worker: String,
        /// How often it was claimed, from 1.
        attempt: u32,
    },
    /// Somebody told the run something.
    Commanded {
        /// Names the command, so that it is taken once.
        id: CommandId,
        /// What was told.
        command: RunCommand,
    },
    /// An effect is about to start.
    Intended {
        /// Its name.
        effect: EffectId,
        /// What it is.
        what: Effect,
        /// Money reserved for it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reserved: Option<Money>,
        /// The workspace before it, for effects that may write there: if the attempt dies, the workspace is put back
        /// to this and the effect is done again.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        snapshot: Option<SnapshotId>,
    },
    /// An effect ended: exactly once per intent.
    Settled {
        /// Its name.
        effect: EffectId,
        /// What came of it.
        outcome: Outcome,
        /// The workspace after it, for effects that may have written there. Beside an outcome that says that it was
        /// cut off: what it had left in the repository of an `inplace` run.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        snapshot: Option<SnapshotId>,
    },
    /// A tool call was answered without being run.
    #[serde(alias = "judged")]
    ToolCallRejected {
        /// The call's id.
        call_id: String,
        /// The tool's name as the model wrote it.
        tool: String,
        /// Why.
        verdict: ToolCallVerdict,
        /// What the model is told; `error.kind` is the wire's.
        error: ErrorInfo,
    },
    /// The box changed its state.
    SandboxChanged {
        /// The new state.
        state: SandboxState,
        /// What it is, when it was opened.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        report: Option<SandboxReport>,
    },
    /// What stood in the workspace when the run began, for telling what it changed.
    Surveyed {
        /// The manifest's blob.
        manifest: Digest,
    },
    /// A summary took the place of the oldest part of the conversation. What it stands for stays in the events before.
    Compacted {
        /// The messages that it stands for, by their places in the conversation until now.
        gone: Vec<MessageSpan>,
        /// Why.
        cause: CompactCause,
        /// Who made the summary.
        by: SummaryBy,
        /// The summary.
        text: Payload,
        /// Whether the tool `recall` is there to look up what it stands for.
        #[serde(default)]
        recall: bool,
        /// Why it is an extract.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        note: Option<String>,
    },
    /// The box reached hosts, or tried to.
    #[serde(alias = "reached")]
    EgressRecorded {
        /// Each attempt.
        records: Vec<EgressRecord>,
    },
    /// The workspace was put to one of its snapshots.
    Restored {
        /// Which.
        to: SnapshotId,
        /// In which direction.
        #[serde(alias = "travel")]
        direction: HistoryDirection,
        /// Whether the repository, which held a result of the run, went along.
        applied: bool,
    },
    /// Somebody, or the run at its end, wanted the repository to hold a state of the workspace.
    Applied {
        /// Which.
        to: SnapshotId,
        /// What came of it.
        outcome: ApplyOutcome,
    },
    /// The status changed.
    StatusChanged {
        /// From.
        from: RunStatus,
        /// To.
        to: RunStatus,
        /// What a parked run waits for.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        waiting_for: Option<WaitingFor>,
        /// Until when it waits, if that is known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        until: Option<Timestamp>,
        /// Why, in words for a person.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// The run ended; the status changes with it.
    Finished {
        /// The last status.
        status: RunStatus,
        /// The limit that ended it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        limit: Option<LimitKind>,
        /// The error that ended it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<ErrorInfo>,
        /// Paths of the workspace that differ from the beginning, by comparison of contents.
        #[serde(default)]
        files_modified: Vec<String>,
        /// The workspace at the end, if a step was cut off after the last snapshot.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        snapshot: Option<SnapshotId>,
        /// The answer, where it is not the text of the model's last reply: a tool's output, or a fixed sentence.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        answer: Option<Payload>,
    },
}

/// One entry of a run's journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// The run.
    pub run: RunId,
    /// Its position.
    pub seq: Seq,
    /// When it was appended.
    pub at: Timestamp,
    /// What happened.
    #[serde(flatten)]
    pub kind: EventKind,
}

impl EventKind {
    /// All payloads in it, for those who store or load them.
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
            Self::Compacted { text, .. } => vec![text],
            Self::Created(created) => created.history.iter_mut().flat_map(Message::payloads_mut).collect(),
            Self::Finished { answer: Some(answer), .. } => vec![answer],
            _ => Vec::new(),
        }
    }
}
