//! Commands that users and programs send to a run.

use crate::{ChildEnd, EffectId, RunLimits};
use serde::{Deserialize, Serialize};

/// A command to a run. Journalled before it takes effect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case")]
pub enum RunCommand {
    /// Ends the run as `cancelled` and cancels its running effects.
    Cancel {
        /// The source of the request, such as `cli` or `signal`.
        by: String,
    },
    /// Adds a user message before the next request.
    Steer {
        /// The message.
        text: String,
    },
    /// Parks the run as soon as nothing is in flight.
    Pause,
    /// Resumes the run after a pause, a long wait or a reached limit.
    Resume {
        /// New limits, if they change.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        limits: Option<RunLimits>,
    },
    /// Reports the end of a child run to its parent. Sent by the process that worked on the child.
    ChildEnded {
        /// The effect of the parent that waits for the child.
        effect: EffectId,
        /// The end of the child.
        end: Box<ChildEnd>,
    },
}
