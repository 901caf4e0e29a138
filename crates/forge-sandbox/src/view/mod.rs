//! The private view of a run: preparing it, snapshots of it, and what it looks like from outside.

use forge_ports::sandbox::Error;
use forge_types::SnapshotId;

/// The open view of a run.
#[derive(Debug)]
pub(crate) struct View;

impl View {
    /// Keeps the workspace as it stands now.
    pub(crate) fn snapshot(&self) -> Result<SnapshotId, Error> {
        Err(Error::View { why: "snapshots are not wired".to_owned() })
    }

    /// Whether the state before the first change is kept, so that changes may begin.
    pub(crate) fn is_safe(&self) -> bool {
        true
    }

    /// Waits until changes may begin.
    pub(crate) fn make_safe(&self) -> Result<(), Error> {
        Ok(())
    }
}
