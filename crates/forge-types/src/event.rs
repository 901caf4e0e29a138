//! The journal's own events: all that replay needs, nothing for show.

use crate::{
    Command, CommandId, Digest, Effect, EffectId, ErrorInfo, LimitKind, Money, Outcome, Payload, RunId,
    RunStatus, SandboxReport, SandboxState, Seq, Timestamp, WaitingFor,
};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Where a run came from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// A command line.
    #[default]
    Cli,
    /// `forge demo`.
    Demo,
}

/// What a run was created with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Created {
    /// The task in the user's words.
    pub task: Payload,
    /// The repository, absolute.
    pub repo: PathBuf,
    /// The pipeline's name.
    pub pipeline: String,
    /// Where it came from.
    #[serde(default)]
    pub source: Source,
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
pub enum Verdict {
    /// The command policy refused it.
    Command,
    /// A limit of the run refused it.
    Limit,
    /// The call itself is wrong: unknown tool, disabled tool, bad arguments, an id used twice, a cut reply.
    Malformed,
    /// The run is ending.
    Ending,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum EventKind {
    /// The run exists.
    Created(Box<Created>),
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
        command: Command,
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
    },
    /// An effect ended: exactly once per intent.
    Settled {
        /// Its name.
        effect: EffectId,
        /// What came of it.
        outcome: Outcome,
    },
    /// A tool call was answered without being run.
    Judged {
        /// The call's id.
        call_id: String,
        /// The tool's name as the model wrote it.
        tool: String,
        /// Why.
        verdict: Verdict,
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
            _ => Vec::new(),
        }
    }
}
