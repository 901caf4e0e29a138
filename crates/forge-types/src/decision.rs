//! The decision on the next step of a run, which every decider returns.

use crate::{Effect, EffectId, ErrorInfo, EventKind, LimitKind, Money, Payload, RunStatus, Timestamp};

/// An effect to start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EffectStart {
    /// The id of the effect.
    pub effect: EffectId,
    /// The effect.
    pub what: Effect,
    /// Money to reserve for the effect.
    pub reserved: Option<Money>,
}

/// The end of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunFinish {
    /// The final status.
    pub status: RunStatus,
    /// The limit that ended the run.
    pub limit: Option<LimitKind>,
    /// The error that ended the run.
    pub error: Option<ErrorInfo>,
    /// The answer, if it differs from the text of the last reply.
    pub answer: Option<Payload>,
}

/// The next step of a run. All of it is journalled before any of it is carried out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// Refused calls and changes of status.
    pub record: Vec<EventKind>,
    /// Effects to start.
    pub start: Vec<EffectStart>,
    /// Effects to cancel; each still gets its outcome.
    pub cancel: Vec<EffectId>,
    /// The end of the run.
    pub finish: Option<RunFinish>,
    /// Time of the next decision if nothing else happens.
    pub wake: Option<Timestamp>,
}

impl Decision {
    /// Returns whether nothing of the decision has to be journalled.
    pub fn is_quiet(&self) -> bool {
        self.record.is_empty() && self.start.is_empty() && self.finish.is_none()
    }

    /// Creates a decision that records one event.
    pub fn with_event(event: EventKind) -> Self {
        Self { record: vec![event], ..Self::default() }
    }

    /// Creates a decision that ends the run.
    pub fn with_finish(status: RunStatus, limit: Option<LimitKind>, error: Option<ErrorInfo>) -> Self {
        Self { finish: Some(RunFinish { status, limit, error, answer: None }), ..Self::default() }
    }

    /// Creates a decision that ends the run as failed.
    pub fn with_failure(error: ErrorInfo) -> Self {
        Self::with_finish(RunStatus::Failed, None, Some(error))
    }
}
