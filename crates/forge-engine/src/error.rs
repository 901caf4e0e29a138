//! Errors of the engine.

use forge_ports::journal;
use forge_ports::queue::ClaimError;
use forge_types::RunId;

/// An error of the engine.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The journal could not be read or written.
    #[error(transparent)]
    Journal(#[from] journal::Error),
    /// The run could not be claimed.
    #[error(transparent)]
    Claim(#[from] ClaimError),
    /// There is no run with this id.
    #[error("there is no run {run}")]
    NoSuchRun {
        /// The id that was given.
        run: RunId,
    },
    /// The journal of the run is damaged.
    #[error("the journal of run {run} is damaged: {damage}")]
    Damaged {
        /// The run.
        run: RunId,
        /// A description of the damage.
        damage: String,
    },
    /// A bug in forge itself.
    #[error("internal error in forge: {what}")]
    Internal {
        /// A description of the bug.
        what: String,
    },
}
