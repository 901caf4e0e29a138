//! The entry by which a run is added to the queue.

use forge_types::RunId;

/// A run to be added to the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueEntry {
    /// The run.
    pub run: RunId,
    /// The root of the run's tree: the run itself unless it is a child.
    pub root: RunId,
    /// Items with a higher priority are claimed first.
    pub priority: i32,
}

impl QueueEntry {
    /// Creates the entry of a run that is no child, with the usual priority.
    pub const fn new(run: RunId) -> Self {
        Self { run, root: run, priority: 0 }
    }
}
