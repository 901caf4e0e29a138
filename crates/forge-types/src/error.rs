//! Error classes shared by all parts: what may be retried, and what people see.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

/// What can be done about an error. Retry, fallback and exit codes look at nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorClass {
    /// Trying again may help, not before `after` if that is given.
    Retry {
        /// The time the other side asked for.
        after: Option<Duration>,
    },
    /// Refused: credentials, policy, permission.
    Denied,
    /// The request itself is wrong; the same request fails again.
    Invalid,
    /// What is needed is not there (server down, backend missing).
    Unavailable,
    /// Nothing sensible can be done.
    Fatal,
}

impl ErrorClass {
    /// Whether trying the same again may help.
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
            /// The name on the wire.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }
        }
    };
}

error_kinds! {
    /// 401, 403 of a provider.
    Auth = "auth",
    /// 402 of a provider.
    Billing = "billing",
    /// 429 of a provider.
    RateLimit = "rate_limit",
    /// A time limit passed: 408, 504, the client's own limit, a command's limit.
    Timeout = "timeout",
    /// 500, 502, 503, 529 of a provider.
    Overloaded = "overloaded",
    /// 400 of a provider: the request is not what it expects.
    Format = "format",
    /// The prompt does not fit the model's window.
    ContextOverflow = "context_overflow",
    /// The reply is not what the wire format promises. (A stream that is cut is `unavailable`: it is tried as often.)
    MalformedResponse = "malformed_response",
    /// Nobody answers there.
    Unavailable = "unavailable",
    /// None of the others.
    Unknown = "unknown",
    /// The model called a tool that does not exist.
    UnknownTool = "unknown_tool",
    /// The model called a tool that is not enabled.
    NotEnabled = "not_enabled",
    /// The arguments do not fit the tool's parameters.
    BadArguments = "bad_arguments",
    /// A policy refused it.
    Denied = "denied",
    /// It ran and failed.
    Execution = "execution",
    /// A tool gave no text.
    EmptyOutput = "empty_output",
    /// The sandbox did not start.
    Startup = "startup",
    /// The sandbox went away.
    Died = "died",
    /// No sandbox backend can be had here.
    BackendMissing = "backend_missing",
    /// A change of status that 1.1 of the specification does not allow.
    InvalidTransition = "invalid_transition",
    /// The same step was asked for again.
    LoopGuard = "loop_guard",
    /// A ceiling was reached.
    BudgetExceeded = "budget_exceeded",
    /// The router's reply names no tool.
    RouterParse = "router_parse",
    /// Ended on request.
    Cancelled = "cancelled",
    /// The configuration is wrong.
    ConfigInvalid = "config_invalid",
    /// The store can't be used.
    StoreUnavailable = "store_unavailable",
    /// The store is of another version.
    Migration = "migration",
    /// There is no such thing.
    NotFound = "not_found",
    /// Somebody else was faster.
    Conflict = "conflict",
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// An error as it is journalled and shown: `{kind, message, retryable}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorInfo {
    /// Its kind.
    pub kind: ErrorKind,
    /// What happened, where, and what to do next.
    pub message: String,
    /// Whether trying again may help.
    pub retryable: bool,
    /// Milliseconds that the other side asked to wait before trying again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}

impl ErrorInfo {
    /// An error that trying again does not mend.
    pub fn fatal(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), retryable: false, retry_after_ms: None }
    }

    /// An error that trying again may mend.
    pub fn retryable(kind: ErrorKind, message: impl Into<String>, after: Option<Duration>) -> Self {
        let retry_after_ms = after.map(|d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX));
        Self { kind, message: message.into(), retryable: true, retry_after_ms }
    }
}

impl fmt::Display for ErrorInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.kind)
    }
}
