//! What can go wrong with a login, in words that say what to do next.

use forge_types::ErrorClass;
use std::path::PathBuf;

/// Why there is no login or no token. No text holds a token or a code.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoginError {
    /// The port that the provider sends the browser back to is taken.
    #[error(
        "port {port} on this machine is taken ({why}), and {provider} sends the browser back to no other. Another login \
         may be under way: finish or end it (`ss -ltnp sport = :{port}` shows who listens), then try again"
    )]
    PortTaken {
        /// Who would send the browser.
        provider: String,
        /// The port.
        port: u16,
        /// What the system says.
        why: String,
    },
    /// The person, or the provider, said no in the browser.
    #[error(
        "{provider} did not log you in: {why}. Say `forge login {provider}` to try again, or use a key: `forge secret set`"
    )]
    Refused {
        /// Who said it.
        provider: String,
        /// What it said.
        why: String,
    },
    /// The browser came back with the answer to another login.
    #[error(
        "the browser came back with an answer that does not belong to this login (its `state` differs), so it was not \
         used. Close old login tabs and say `forge login {provider}` again"
    )]
    WrongState {
        /// The provider.
        provider: String,
    },
    /// Nobody finished the login in the browser.
    #[error(
        "nobody finished the login in the browser within {minutes} minutes. Say `forge login {provider}` to try again"
    )]
    NobodyCame {
        /// The provider.
        provider: String,
        /// How long it was waited for.
        minutes: u64,
    },
    /// The provider took back what it gave, or it expired.
    #[error("the login at {provider} has ended ({why}). Log in again: forge login {provider}")]
    Ended {
        /// The provider.
        provider: String,
        /// What it said.
        why: String,
    },
    /// There is no login.
    #[error(
        "you are not logged in at {provider}. Log in with `forge login {provider}`, or use a key: `forge secret set`"
    )]
    None {
        /// The provider.
        provider: String,
    },
    /// Nobody answers.
    #[error("no connection to {host}: {why}. Is the network up? Try again later; nothing was changed")]
    Unreachable {
        /// Who was asked.
        host: String,
        /// Why.
        why: String,
    },
    /// The answer takes too long.
    #[error("{host} did not answer within {seconds} s. Try again later; nothing was changed")]
    Slow {
        /// Who was asked.
        host: String,
        /// How long it was waited for.
        seconds: u64,
    },
    /// The answer is not what the protocol promises.
    #[error(
        "{host} answered with something that is no answer to a login: {why}. Try again later; nothing was changed"
    )]
    Malformed {
        /// Who was asked.
        host: String,
        /// What is wrong.
        why: String,
    },
    /// Others can read the file.
    #[error(
        "{path} can be read by others (mode {mode:03o}). Close it with `chmod 600 {path}`, or log out and in again"
    )]
    TooOpen {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// The file is not one of ours.
    #[error("{path} is damaged. Log in again: forge login {provider}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The provider.
        provider: String,
    },
    /// The system refuses.
    #[error("{path} can't be {what}: {why}")]
    File {
        /// The file.
        path: PathBuf,
        /// What was tried, as a participle.
        what: &'static str,
        /// What the system says.
        why: String,
    },
    /// The settings make no sense.
    #[error("{what}")]
    Setup {
        /// What, and what to do instead.
        what: String,
    },
}

impl LoginError {
    /// What can be done about it.
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
