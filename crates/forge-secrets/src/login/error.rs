//! Errors of a login, with messages that suggest the next step.

use forge_types::ErrorClass;
use std::path::PathBuf;

/// Failure to obtain a login or a token. No message holds a token or a code.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoginError {
    /// The callback port is in use.
    #[error(
        "port {port} on this machine is taken ({why}), and {provider} sends the browser back to no other. Another login \
         may be under way: finish or end it (`ss -ltnp sport = :{port}` shows who listens), then try again"
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
    #[error(
        "{provider} did not log you in: {why}. Say `forge login {provider}` to try again, or use a key: `forge secret set`"
    )]
    Refused {
        /// Name of the provider.
        provider: String,
        /// Reason that the provider reported.
        why: String,
    },
    /// The callback belongs to another login.
    #[error(
        "the browser came back with an answer that does not belong to this login (its `state` differs), so it was not \
         used. Close old login tabs and say `forge login {provider}` again"
    )]
    WrongState {
        /// Name of the provider.
        provider: String,
    },
    /// The login was not finished in the browser.
    #[error(
        "nobody finished the login in the browser within {minutes} minutes. Say `forge login {provider}` to try again"
    )]
    NobodyCame {
        /// Name of the provider.
        provider: String,
        /// Time limit in minutes.
        minutes: u64,
    },
    /// The provider revoked the login, or it expired.
    #[error("the login at {provider} has ended ({why}). Log in again: forge login {provider}")]
    Ended {
        /// Name of the provider.
        provider: String,
        /// Reason that the provider reported.
        why: String,
    },
    /// The user is not logged in.
    #[error(
        "you are not logged in at {provider}. Log in with `forge login {provider}`, or use a key: `forge secret set`"
    )]
    None {
        /// Name of the provider.
        provider: String,
    },
    /// The host can't be reached.
    #[error("no connection to {host}: {why}. Is the network up? Try again later; nothing was changed")]
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
    #[error(
        "{host} answered with something that is no answer to a login: {why}. Try again later; nothing was changed"
    )]
    Malformed {
        /// Name of the host.
        host: String,
        /// Description of the violation.
        why: String,
    },
    /// Other users can read the file.
    #[error(
        "{path} can be read by others (mode {mode:03o}). Close it with `chmod 600 {path}`, or log out and in again"
    )]
    TooOpen {
        /// Path of the file.
        path: PathBuf,
        /// Mode of the file.
        mode: u32,
    },
    /// The file is not a valid credentials file.
    #[error("{path} is damaged. Log in again: forge login {provider}")]
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
            Self::TooOpen { .. } | Self::Damaged { .. } | Self::Setup { .. } => ErrorClass::Invalid,
        }
    }
}
