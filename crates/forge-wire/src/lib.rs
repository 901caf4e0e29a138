//! What the outside sees of a run: wire events, a pure projection of the journal (SPEC 1.2).
//!
//! The journal's own kinds hold what replay needs; these hold what people and programs want to see. Their
//! names and fields are public and stable; readers ignore fields that they do not know.

mod budget;
mod choice;
mod compaction;
mod data;
mod kind;
mod live;
mod project;
pub mod record;

pub use data::{
    BudgetChanged, BudgetKind, BudgetLevel, ExecCompleted, ExecStarted, GuardChecked, IterationCompleted,
    IterationStarted, ModelCompleted, ModelFailed, ModelRequested, ModelRouted, RunChanged, RunCreated,
    RunFinished, RunStarted, SandboxChanged, TokenTotals, ToolCalled, ToolCompleted, WaitRequested,
    WaitResolved, WireData,
};
pub use kind::WireKind;
pub use live::{LiveFrame, OutputStream};
pub(crate) use project::payload_text;
pub use project::{PlanFacts, Projector};

use forge_types::{RunId, Timestamp};
use serde::{Deserialize, Serialize};

/// One event as the outside sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WireEvent {
    /// Its position among the run's wire events: gap-free, from 1. Not the journal's.
    pub seq: u64,
    /// `<run>-<seq>`: the same event has the same id whoever projects it.
    pub id: String,
    /// When it happened.
    pub ts: Timestamp,
    /// The run.
    pub run_id: RunId,
    /// The run at the top; the run itself unless it is a child.
    pub root_id: RunId,
    /// The step of a pipeline that it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step_id: Option<String>,
    /// Sixteen hex digits that tie log lines, events and outgoing requests together.
    pub correlation_id: String,
    /// 32 hex digits as W3C Trace Context wants them, made from the root run's id.
    pub trace_id: String,
    /// Its kind and what belongs to it: `kind` and `data` on the wire.
    #[serde(flatten)]
    pub data: WireData,
}

impl WireEvent {
    /// Its kind.
    pub const fn kind(&self) -> WireKind {
        self.data.kind()
    }
}
