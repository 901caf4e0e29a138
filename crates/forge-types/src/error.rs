//! Error classes shared by all crates: retryability and user-visible kinds.

use crate::NextStep;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

/// The possible reaction to an error. Retries, fallbacks and exit codes depend only on this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorClass {
    /// A retry may succeed, but not before `after` if given.
    Retry {
        /// The delay that the other side requested.
        after: Option<Duration>,
    },
    /// Refused: credentials, policy, permission.
    Denied,
    /// The request itself is invalid and would fail again.
    Invalid,
    /// A required component is unavailable (server down, backend missing).
    Unavailable,
    /// No recovery is possible.
    Fatal,
}

impl ErrorClass {
    /// Returns whether a retry may succeed.
    pub const fn retryable(self) -> bool {
        matches!(self, Self::Retry { .. })
    }
}

macro_rules! error_kinds {
    ($($(#[$doc:meta])* $variant:ident = $name:literal),* $(,)?) => {
        /// The kind of an error as shown on the wire.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum ErrorKind {
            $($(#[$doc])* $variant),*
        }

        impl ErrorKind {
            /// Returns the name on the wire.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }
        }
    };
}

error_kinds! {
    /// HTTP 401 or 403 from a provider.
    Auth = "auth",
    /// HTTP 402 from a provider.
    Billing = "billing",
    /// HTTP 429 from a provider.
    RateLimit = "rate_limit",
    /// A timeout: HTTP 408 or 504, the client's own limit, or a command's limit.
    Timeout = "timeout",
    /// HTTP 500, 502, 503 or 529 from a provider.
    Overloaded = "overloaded",
    /// HTTP 400 from a provider: invalid request.
    Format = "format",
    /// The prompt does not fit the model's window.
    ContextOverflow = "context_overflow",
    /// The reply violates the wire format. (A truncated stream is `unavailable`, which is retried as often.)
    MalformedResponse = "malformed_response",
    /// The server does not respond.
    Unavailable = "unavailable",
    /// Any other error.
    Unknown = "unknown",
    /// The model called a tool that does not exist.
    UnknownTool = "unknown_tool",
    /// The model called a tool that is not enabled.
    NotEnabled = "not_enabled",
    /// The arguments do not fit the tool's parameters.
    BadArguments = "bad_arguments",
    /// A policy refused the action.
    Denied = "denied",
    /// The tool ran and failed.
    Execution = "execution",
    /// The tool returned no text.
    EmptyOutput = "empty_output",
    /// The sandbox did not start.
    Startup = "startup",
    /// The sandbox was lost.
    Died = "died",
    /// No sandbox backend is available on this machine.
    BackendMissing = "backend_missing",
    /// A change of status that section 1.1 of the specification does not allow.
    InvalidTransition = "invalid_transition",
    /// The same step was requested again.
    LoopGuard = "loop_guard",
    /// A ceiling was reached.
    BudgetExceeded = "budget_exceeded",
    /// The router's reply names no tool.
    RouterParse = "router_parse",
    /// The run was cancelled.
    Cancelled = "cancelled",
    /// The configuration is invalid.
    ConfigInvalid = "config_invalid",
    /// The store is unavailable.
    StoreUnavailable = "store_unavailable",
    /// The store has a different version.
    Migration = "migration",
    /// The requested object does not exist.
    NotFound = "not_found",
    /// A concurrent change took precedence.
    Conflict = "conflict",
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// An error in its journalled and displayed form: `{kind, message, retryable}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorInfo {
    /// The kind of the error.
    pub kind: ErrorKind,
    /// The error and its location.
    pub message: String,
    /// Whether a retry may succeed.
    pub retryable: bool,
    /// Milliseconds that the other side asked the client to wait before a retry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
    /// Steps that the user can take.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub next_steps: Vec<NextStep>,
}

impl ErrorInfo {
    /// Creates an error that a retry cannot fix.
    pub fn fatal(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), retryable: false, retry_after_ms: None, next_steps: Vec::new() }
    }

    /// Creates an error that a retry may fix.
    pub fn retryable(kind: ErrorKind, message: impl Into<String>, after: Option<Duration>) -> Self {
        let retry_after_ms = after.map(|d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX));
        Self { kind, message: message.into(), retryable: true, retry_after_ms, next_steps: Vec::new() }
    }

    /// Adds steps that the user can take.
    #[must_use]
    pub fn with_next_steps(mut self, steps: impl IntoIterator<Item = NextStep>) -> Self {
        self.next_steps.extend(steps);
        self
    }
}

impl fmt::Display for ErrorInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.kind)
    }
}
