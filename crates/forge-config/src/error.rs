//! Where a value came from, what is wrong with it, and what people are told besides.

use forge_types::ErrorClass;
use serde::Serialize;
use std::fmt;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "from", rename_all = "snake_case")]
pub enum ValueOrigin {
    /// Built in.
    Default,
    /// The user's own file in the configuration folder.
    UserFile {
        /// The file.
        path: PathBuf,
        /// The line, from 1; 0 if it is not known.
        line: usize,
    },
    /// The project's file, or the one given with `--config`.
    ProjectFile {
        /// The file.
        path: PathBuf,
        /// The line, from 1; 0 if it is not known.
        line: usize,
    },
    /// A variable in the file given with `--env`.
    EnvFile {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The variable; empty where the line is no assignment.
        variable: String,
    },
    /// A variable of the process.
    Env {
        /// The variable.
        variable: String,
    },
    /// A flag of the command line.
    Flag {
        /// The flag as typed, such as `--model`.
        name: String,
    },
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

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ConfigError {
    /// Where it stands.
    pub place: ValueOrigin,
    /// The key's path, if it concerns one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// What was expected.
    pub expected: String,
    /// What was found, safe to print.
    pub found: String,
    /// What to do about it.
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

    /// As the only fault.
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

/// Everything that is wrong, at once; never empty.
#[derive(Clone, Debug, PartialEq, Eq, Error, Serialize)]
#[serde(transparent)]
pub struct ConfigErrors(pub Vec<ConfigError>);

/// More faults than this are counted, not listed: nobody reads them, and a hostile file could name millions.
const MAX_LISTED_ERRORS: usize = 100;

impl ConfigErrors {
    /// `Err` if there are any.
    pub(crate) fn check(faults: Vec<ConfigError>) -> Result<(), Self> {
        if faults.is_empty() { Ok(()) } else { Err(Self(faults)) }
    }

    /// A wrong configuration stays wrong until somebody edits it.
    pub const fn class(&self) -> ErrorClass {
        ErrorClass::Invalid
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_slice() {
            [fault] => write!(f, "the configuration has a fault: {fault}"),
            faults => {
                write!(f, "the configuration has {} faults:", faults.len())?;
                faults.iter().take(MAX_LISTED_ERRORS).try_for_each(|fault| write!(f, "\n  {fault}"))?;
                match faults.len().saturating_sub(MAX_LISTED_ERRORS) {
                    0 => Ok(()),
                    more => write!(f, "\n  … and {more} more"),
                }
            }
        }
    }
}

/// What kind of notice it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum NoticeKind {
    /// A value of an untrusted repository was not applied.
    Refused,
    /// A variable that looks like one of Forge's sets nothing.
    UnknownVariable,
    /// A value was passed over for the reason given.
    PassedOver,
    /// Something about the surroundings.
    Surroundings,
}

/// Something the user should know; nothing is wrong enough to stop.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ConfigNotice {
    /// Its kind.
    pub kind: NoticeKind,
    /// The key's path, if it concerns one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// What happened, where, and what to do about it.
    pub message: String,
}

impl fmt::Display for ConfigNotice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}
