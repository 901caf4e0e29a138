//! The public view of a run: wire events, a pure projection of the journal (SPEC 1.2).
//!
//! The journal's own events hold what replay needs; wire events hold what users and programs display. Their names
//! and fields are public and stable; readers ignore unknown fields.

mod budget;
mod choice;
mod compaction;
mod data;
mod kind;
mod live;
mod project;
pub mod record;
mod trace;

pub use data::{
    BudgetChanged, BudgetKind, BudgetLevel, ExecCompleted, ExecStarted, GuardChecked, IterationCompleted,
    IterationStarted, ModelCompleted, ModelFailed, ModelRequested, ModelRouted, RunChanged, RunCreated,
    RunFinished, RunStarted, SandboxChanged, TokenTotals, ToolCalled, ToolCompleted, WaitRequested,
    WaitResolved, WireData,
};
pub(crate) use data::{arguments_value, payload_text};
pub use kind::WireKind;
pub use live::{LiveFrame, OutputStream};
pub use project::{PlanFacts, Projector};

use forge_types::{RunId, Timestamp};
use serde::{Deserialize, Serialize};

/// A public event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WireEvent {
    /// The position among the run's wire events: gap-free, from 1. Independent of the journal's positions.
    pub seq: u64,
    /// `<run>-<seq>`: the same event always has the same id.
    pub id: String,
    /// Time of the event.
    pub ts: Timestamp,
    /// The run.
    pub run_id: RunId,
    /// The root of the run's tree; the run itself unless it is a child.
    pub root_id: RunId,
    /// The pipeline step of the event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step_id: Option<String>,
    /// Sixteen hex digits that correlate log lines, events and outgoing requests.
    pub correlation_id: String,
    /// 32 hex digits as required by W3C Trace Context, derived from the root run's id.
    pub trace_id: String,
    /// The kind with its data: `kind` and `data` on the wire.
    #[serde(flatten)]
    pub data: WireData,
}

impl WireEvent {
    /// Returns the kind.
    pub const fn kind(&self) -> WireKind {
        self.data.kind()
    }
}
