//! Origins of values, configuration errors and notices.

use forge_types::{ErrorClass, NextStep};
use serde::Serialize;
use std::fmt;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Origin of a value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "from", rename_all = "snake_case")]
pub enum ValueOrigin {
    /// Built in.
    Default,
    /// The user's own file in the configuration directory.
    UserFile {
        /// Path of the file.
        path: PathBuf,
        /// Line number, from 1; 0 if unknown.
        line: usize,
    },
    /// The project's file, or the one given with `--config`.
    ProjectFile {
        /// Path of the file.
        path: PathBuf,
        /// Line number, from 1; 0 if unknown.
        line: usize,
    },
    /// A variable in the file given with `--env`.
    EnvFile {
        /// Path of the file.
        path: PathBuf,
        /// Line number, from 1.
        line: usize,
        /// Name of the variable; empty if the line is not an assignment.
        variable: String,
    },
    /// A variable of the process environment.
    Env {
        /// Name of the variable.
        variable: String,
    },
    /// A command-line flag.
    Flag {
        /// The flag as typed, such as `--model`.
        name: String,
    },
}

impl ValueOrigin {
    /// Creates the origin of values in the user's file.
    pub(crate) const fn user_file(path: PathBuf) -> Self {
        Self::UserFile { path, line: 0 }
    }

    /// Creates the origin of values in the project's file.
    pub(crate) const fn project_file(path: PathBuf) -> Self {
        Self::ProjectFile { path, line: 0 }
    }

    /// Creates the origin of variables in a `--env` file.
    pub(crate) const fn env_file(path: PathBuf) -> Self {
        Self::EnvFile { path, line: 0, variable: String::new() }
    }

    /// Adds a line to the origin of a configuration file's value.
    pub(crate) fn at_line(self, line: usize) -> Self {
        match self {
            Self::UserFile { path, .. } => Self::UserFile { path, line },
            Self::ProjectFile { path, .. } => Self::ProjectFile { path, line },
            other => other,
        }
    }
}

impl fmt::Display for ValueOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = |f: &mut fmt::Formatter<'_>, path: &Path, line: usize| match line {
            0 => write!(f, "{}", path.display()),
            line => write!(f, "{}:{line}", path.display()),
        };
        match self {
            Self::Default => f.write_str("default"),
            Self::UserFile { path, line } | Self::ProjectFile { path, line } => place(f, path, *line),
            Self::EnvFile { path, line, variable } => {
                place(f, path, *line)?;
                if variable.is_empty() { Ok(()) } else { write!(f, " ({variable})") }
            }
            Self::Env { variable } => write!(f, "{variable}"),
            Self::Flag { name } => f.write_str(name),
        }
    }
}

/// One error in the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ConfigError {
    /// Position of the error.
    pub place: ValueOrigin,
    /// Path of the key, if the error concerns one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Description of a valid value.
    pub expected: String,
    /// Description of the invalid value, safe to print.
    pub found: String,
    /// Suggested fix.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl ConfigError {
    pub(crate) fn new(place: ValueOrigin, expected: impl Into<String>, found: impl Into<String>) -> Self {
        Self { place, key: None, expected: expected.into(), found: found.into(), hint: None }
    }

    pub(crate) fn with_key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    pub(crate) fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Wraps the error as the only one.
    pub(crate) fn into_errors(self) -> ConfigErrors {
        ConfigErrors(vec![self])
    }

    pub(crate) fn with_optional_hint(mut self, hint: Option<String>) -> Self {
        self.hint = hint;
        self
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.place)?;
        if let Some(key) = &self.key {
            write!(f, "{key}: ")?;
        }
        write!(f, "expected {}, found {}", self.expected, self.found)?;
        match &self.hint {
            Some(hint) => write!(f, "; {hint}"),
            None => Ok(()),
        }
    }
}

/// All errors in the configuration, never empty.
#[derive(Clone, Debug, PartialEq, Eq, Error, Serialize)]
#[serde(transparent)]
pub struct ConfigErrors(pub Vec<ConfigError>);

/// Largest number of errors that are listed; the rest are only counted, because a hostile file could contain millions.
const MAX_LISTED_ERRORS: usize = 100;

impl ConfigErrors {
    /// Returns `Err` if there are any errors.
    pub(crate) fn check(faults: Vec<ConfigError>) -> Result<(), Self> {
        if faults.is_empty() { Ok(()) } else { Err(Self(faults)) }
    }

    /// Returns the class of the errors. An invalid configuration stays invalid until it is edited.
    pub const fn class(&self) -> ErrorClass {
        ErrorClass::Invalid
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_slice() {
            [fault] => write!(f, "invalid configuration: {fault}"),
            faults => {
                write!(f, "invalid configuration, {} errors:", faults.len())?;
                faults.iter().take(MAX_LISTED_ERRORS).try_for_each(|fault| write!(f, "\n  {fault}"))?;
                match faults.len().saturating_sub(MAX_LISTED_ERRORS) {
                    0 => Ok(()),
                    more => write!(f, "\n  … and {more} more"),
                }
            }
        }
    }
}

/// Kind of a notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum NoticeKind {
    /// A value of an untrusted repository was not applied.
    Refused,
    /// A variable that looks like one of Forge's sets nothing.
    UnknownVariable,
    /// A value was ignored for the reason given.
    PassedOver,
    /// A remark on the environment, such as the location of a directory.
    Surroundings,
}

/// A message for the user that does not stop Forge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ConfigNotice {
    /// Kind of the notice.
    pub kind: NoticeKind,
    /// Path of the key, if the notice concerns one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Description of the event, its place and the suggested action.
    pub message: String,
    /// Step that is the suggested action.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_step: Option<NextStep>,
}

impl fmt::Display for ConfigNotice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}
