//! Errors of a login.

use forge_types::{ErrorClass, NextStep};
use std::path::PathBuf;

/// Failure to obtain a login or a token. No message holds a token or a code.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoginError {
    /// The callback port is in use.
    #[error(
        "port {port} is in use on this machine ({why}), and {provider} requires it for the callback. Another login may \
         be in progress: finish or stop it (`ss -ltnp sport = :{port}` shows the process), then try again"
    )]
    PortTaken {
        /// Name of the provider.
        provider: String,
        /// Number of the port.
        port: u16,
        /// Error of the system.
        why: String,
    },
    /// The user or the provider refused the login in the browser.
    #[error("{provider} refused the login: {why}. Try again, or use a key")]
    Refused {
        /// Name of the provider.
        provider: String,
        /// Reason that the provider reported.
        why: String,
    },
    /// The callback belongs to another login.
    #[error(
        "the callback from the browser belongs to another login (its `state` differs) and was ignored. Close old login \
         tabs and try again"
    )]
    WrongState {
        /// Name of the provider.
        provider: String,
    },
    /// The login was not finished in the browser.
    #[error("the login was not finished in the browser within {minutes} minutes")]
    NobodyCame {
        /// Name of the provider.
        provider: String,
        /// Time limit in minutes.
        minutes: u64,
    },
    /// The provider revoked the login, or it expired.
    #[error("the login to {provider} is no longer valid ({why})")]
    Ended {
        /// Name of the provider.
        provider: String,
        /// Reason that the provider reported.
        why: String,
    },
    /// The user is not logged in.
    #[error("you are not logged in to {provider}. Log in, or use a key")]
    None {
        /// Name of the provider.
        provider: String,
    },
    /// The host can't be reached.
    #[error("{host} is unavailable: {why}. Check the network and try again; nothing was changed")]
    Unreachable {
        /// Name of the host.
        host: String,
        /// Reason, in words.
        why: String,
    },
    /// The host does not answer in time.
    #[error("{host} did not answer within {seconds} s. Try again later; nothing was changed")]
    Slow {
        /// Name of the host.
        host: String,
        /// Time limit in seconds.
        seconds: u64,
    },
    /// The response violates the protocol.
    #[error("{host} returned an invalid response to the login: {why}. Try again later; nothing was changed")]
    Malformed {
        /// Name of the host.
        host: String,
        /// Description of the violation.
        why: String,
    },
    /// Other users can read the file.
    #[error(
        "{path} is readable by other users (mode {mode:03o}). Run `chmod 600 {path}`, or log out and in again"
    )]
    TooOpen {
        /// Path of the file.
        path: PathBuf,
        /// Mode of the file.
        mode: u32,
    },
    /// The file is not a valid credentials file.
    #[error("{path} is damaged")]
    Damaged {
        /// Path of the file.
        path: PathBuf,
        /// Name of the provider.
        provider: String,
    },
    /// The system refuses an operation.
    #[error("{path} can't be {what}: {why}")]
    File {
        /// Path of the file.
        path: PathBuf,
        /// Attempted operation, as a participle.
        what: &'static str,
        /// Error of the system.
        why: String,
    },
    /// The provider has no logins.
    #[error("forge does not support logins at {provider} (supported: {}). Use a key", known.join(", "))]
    Unsupported {
        /// Name of the provider.
        provider: String,
        /// Providers that have logins.
        known: Vec<&'static str>,
    },
    /// The login settings are invalid.
    #[error("{what}")]
    Setup {
        /// Description of the error and of a valid setting.
        what: String,
    },
}

impl LoginError {
    /// Returns the class of the error.
    pub const fn class(&self) -> ErrorClass {
        match self {
            Self::Refused { .. } | Self::WrongState { .. } | Self::Ended { .. } | Self::None { .. } => {
                ErrorClass::Denied
            }
            Self::Unreachable { .. } | Self::Slow { .. } | Self::Malformed { .. } => {
                ErrorClass::Retry { after: None }
            }
            Self::PortTaken { .. } | Self::NobodyCame { .. } | Self::File { .. } => ErrorClass::Unavailable,
            Self::TooOpen { .. } | Self::Damaged { .. } | Self::Unsupported { .. } | Self::Setup { .. } => {
                ErrorClass::Invalid
            }
        }
    }

    /// Returns the steps that the user can take.
    pub fn next_steps(&self) -> Vec<NextStep> {
        let log_in = |provider: &String| NextStep::Login { provider: provider.clone() };
        let set_key = || NextStep::SetSecret { name: None };
        match self {
            Self::Refused { provider, .. } | Self::None { provider } => vec![log_in(provider), set_key()],
            Self::WrongState { provider }
            | Self::NobodyCame { provider, .. }
            | Self::Ended { provider, .. }
            | Self::Damaged { provider, .. } => vec![log_in(provider)],
            Self::Unsupported { .. } => vec![set_key()],
            Self::PortTaken { .. }
            | Self::Unreachable { .. }
            | Self::Slow { .. }
            | Self::Malformed { .. }
            | Self::TooOpen { .. }
            | Self::File { .. }
            | Self::Setup { .. } => Vec::new(),
        }
    }
}
