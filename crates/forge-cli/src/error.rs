//! Errors as shown to the user: what happened, and what to do next.

use crate::exit::CliExit;
use crate::hints::hint_text;
use forge_terminal::Ui;
use forge_types::NextStep;
use std::fmt;

/// Kinds of errors, which decide the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CliErrorKind {
    /// Wrong usage or configuration.
    Usage,
    /// Valid input, but the operation failed.
    Failed,
}

/// An error to be shown to the user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CliError {
    /// Kind of the error.
    pub(crate) kind: CliErrorKind,
    /// Description of the failure and its place.
    pub(crate) message: String,
    /// Suggested next steps, one line each.
    pub(crate) hints: Vec<String>,
}

impl CliError {
    /// Creates an error for wrong usage or configuration.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self { kind: CliErrorKind::Usage, message: message.into(), hints: Vec::new() }
    }

    /// Creates an error for a failed operation.
    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self { kind: CliErrorKind::Failed, message: message.into(), hints: Vec::new() }
    }

    /// Adds a suggested next step.
    #[must_use]
    pub(crate) fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// Adds the steps that the user can take, as hints.
    #[must_use]
    pub(crate) fn with_next_steps(mut self, steps: &[NextStep]) -> Self {
        self.hints.extend(steps.iter().map(hint_text));
        self
    }

    /// Prints the error with its hints.
    pub(crate) fn print_on(&self, ui: &Ui) {
        ui.print_error(&self.message, &self.hints);
    }

    /// Returns the exit code for this error.
    pub(crate) const fn cli_exit(&self) -> CliExit {
        match self.kind {
            CliErrorKind::Usage => CliExit::Usage,
            CliErrorKind::Failed => CliExit::Failed,
        }
    }

    /// Creates an error for a file that could not be used.
    pub(crate) fn file_error(what: &str, path: &std::path::Path, error: &std::io::Error) -> Self {
        Self::failed(format!("{what} {}: {}", path.display(), io_error_text(error)))
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        self.hints.iter().try_for_each(|hint| write!(f, "\n  {hint}"))
    }
}

impl From<forge_files::NotOwnData> for CliError {
    fn from(error: forge_files::NotOwnData) -> Self {
        Self::failed(error.to_string())
    }
}

impl From<std::io::Error> for CliError {
    fn from(error: std::io::Error) -> Self {
        Self::failed(io_error_text(&error))
    }
}

/// Describes an I/O error without its error number.
pub(crate) fn io_error_text(error: &std::io::Error) -> String {
    error.to_string().split(" (os error ").next().unwrap_or_default().to_owned()
}
