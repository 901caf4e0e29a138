//! Errors of the engine.

use forge_ports::journal;
use forge_ports::queue::ClaimError;
use forge_types::{ErrorClass, NextStep, RunId};

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
    #[error("there is no run {id}")]
    NoSuchRun {
        /// The id that was given, or its beginning.
        id: String,
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

impl Error {
    /// Returns the class of the error, which determines how to react to it.
    pub const fn class(&self) -> ErrorClass {
        match self {
            Self::Journal(error) | Self::Claim(ClaimError::Store(error)) => error.class(),
            Self::Claim(ClaimError::Held { .. }) => ErrorClass::Denied,
            Self::Claim(ClaimError::Lock { .. }) => ErrorClass::Unavailable,
            Self::NoSuchRun { .. } => ErrorClass::Invalid,
            Self::Damaged { .. } | Self::Internal { .. } => ErrorClass::Fatal,
        }
    }

    /// Returns the steps that the user can take.
    pub fn next_steps(&self) -> Vec<NextStep> {
        match self {
            Self::Journal(error) => error.next_steps(),
            Self::Claim(error) => error.next_steps(),
            Self::NoSuchRun { .. } => vec![NextStep::ListRuns],
            Self::Damaged { run, .. } => vec![NextStep::ShowRun { run: *run }],
            Self::Internal { .. } => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_error_has_its_message_class_and_steps() {
        let run = RunId::from_u128(7);
        let held = || ClaimError::Held { run, holder: "host:1".into() };
        for (error, message, class, steps) in [
            (Error::Claim(held()), held().to_string(), ErrorClass::Denied, held().next_steps()),
            (
                Error::NoSuchRun { id: "01".into() },
                "there is no run 01".into(),
                ErrorClass::Invalid,
                vec![NextStep::ListRuns],
            ),
            (
                Error::Damaged { run, damage: "event 2 is missing".into() },
                format!("the journal of run {run} is damaged: event 2 is missing"),
                ErrorClass::Fatal,
                vec![NextStep::ShowRun { run }],
            ),
            (
                Error::Internal { what: "a loop".into() },
                "internal error in forge: a loop".into(),
                ErrorClass::Fatal,
                Vec::new(),
            ),
        ] {
            assert_eq!(error.to_string(), message);
            assert_eq!(error.class(), class, "{error}");
            assert_eq!(error.next_steps(), steps, "{error}");
        }
    }
}
