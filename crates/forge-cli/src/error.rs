//! Errors as people see them: what happened, and what to do next.

use crate::exit::CliExit;
use std::fmt;

/// What kind of error it is; decides the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CliErrorKind {
    /// What was typed or configured is wrong.
    Usage,
    /// It was right, and did not work.
    Failed,
}

/// An error on its way to the terminal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CliError {
    /// Its kind.
    pub(crate) kind: CliErrorKind,
    /// What happened, where.
    pub(crate) message: String,
    /// What to do next, one line each.
    pub(crate) hints: Vec<String>,
}

impl CliError {
    /// What was typed or configured is wrong.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self { kind: CliErrorKind::Usage, message: message.into(), hints: Vec::new() }
    }

    /// It did not work.
    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self { kind: CliErrorKind::Failed, message: message.into(), hints: Vec::new() }
    }

    /// Adds what to do next.
    #[must_use]
    pub(crate) fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// The exit code it leads to.
    pub(crate) const fn cli_exit(&self) -> CliExit {
        match self.kind {
            CliErrorKind::Usage => CliExit::Usage,
            CliErrorKind::Failed => CliExit::Failed,
        }
    }

    /// A file that could not be used.
    pub(crate) fn file_error(what: &str, path: &std::path::Path, error: &std::io::Error) -> Self {
        Self::failed(format!("{what} {}: {error}", path.display()))
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
        Self::failed(error.to_string())
    }
}
