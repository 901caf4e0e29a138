//! The names of all wire events.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

macro_rules! kinds {
    ($($(#[$doc:meta])* $variant:ident = $name:literal),* $(,)?) => {
        /// The kind of a wire event: the complete public vocabulary (SPEC 1.2).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum WireKind {
            $($(#[$doc])* #[serde(rename = $name)] $variant),*
        }

        impl WireKind {
            /// All kinds, in the order of the specification.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// Returns the name on the wire.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }
        }
    };
}

kinds! {
    /// A run was created.
    RunCreated = "run.created",
    /// A worker claimed the run.
    RunStarted = "run.started",
    /// The status of the run changed.
    RunChanged = "run.changed",
    /// The run ended.
    RunFinished = "run.finished",
    /// A step of a pipeline started.
    StepStarted = "step.started",
    /// A step succeeded.
    StepCompleted = "step.completed",
    /// A step failed.
    StepFailed = "step.failed",
    /// A step's result was taken from the journal.
    StepReplayed = "step.replayed",
    /// A turn began.
    IterationStarted = "iteration.started",
    /// A turn ended.
    IterationCompleted = "iteration.completed",
    /// A model was chosen.
    ModelRouted = "model.routed",
    /// A model call started.
    ModelRequested = "model.requested",
    /// Live: partial text of a reply.
    ModelDelta = "model.delta",
    /// A model answered.
    ModelCompleted = "model.completed",
    /// A model call failed.
    ModelFailed = "model.failed",
    /// A model called a tool.
    ToolCalled = "tool.called",
    /// A tool call completed.
    ToolCompleted = "tool.completed",
    /// The state of the sandbox changed.
    SandboxChanged = "sandbox.changed",
    /// A command started.
    ExecStarted = "exec.started",
    /// Live: a line of a command's output.
    ExecOutput = "exec.output",
    /// A command ended.
    ExecCompleted = "exec.completed",
    /// A program was written.
    CodeGenerated = "code.generated",
    /// A repair started.
    RepairStarted = "repair.started",
    /// A repair was applied.
    RepairApplied = "repair.applied",
    /// Research ended.
    ResearchCompleted = "research.completed",
    /// The run waits for an external event.
    WaitRequested = "wait.requested",
    /// The wait ended.
    WaitResolved = "wait.resolved",
    /// A guard reported its verdict.
    GuardChecked = "guard.checked",
    /// A budget is nearly or fully used.
    BudgetChanged = "budget.changed",
    /// A deployment changed its status.
    DeploymentChanged = "deployment.changed",
    /// Feedback was recorded.
    FeedbackRecorded = "feedback.recorded",
    /// A schedule fired or changed.
    ScheduleChanged = "schedule.changed",
}

impl fmt::Display for WireKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for WireKind {
    type Err = forge_types::IdError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .iter()
            .copied()
            .find(|kind| kind.name() == text)
            .ok_or_else(|| forge_types::IdError { what: "event kind", text: text.to_owned() })
    }
}
