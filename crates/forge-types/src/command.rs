//! What people and programs tell a run.

use crate::RunLimits;
use serde::{Deserialize, Serialize};

/// A command to a run. It is journalled before it acts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case")]
pub enum RunCommand {
    /// End the run as `cancelled`; running effects are cancelled.
    Cancel {
        /// Who asked, such as `cli` or `signal`.
        by: String,
    },
    /// Add a message of the user before the next request.
    Steer {
        /// The message.
        text: String,
    },
    /// Park the run as soon as nothing is in flight.
    Pause,
    /// Go on after a pause, a long wait or a reached limit.
    Resume {
        /// New limits, if they are to change.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        limits: Option<RunLimits>,
    },
}
