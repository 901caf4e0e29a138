//! Alternatives to API keys in the environment: an encrypted file, and logins that provide tokens.
//!
//! [`SecretStore`] is one encrypted file. [`login`] obtains tokens through a browser, [`LoginSession`] stores and
//! renews them. This crate does not read the environment, prompt or print: callers pass in passphrases, directories and
//! the clock.
//!
//! Invariants: no error and no `Debug` form holds a secret; an unreadable file is never overwritten; every write is
//! atomic and readable by its owner only.

mod credentials;
mod error;
mod format;
pub mod login;
mod name;
mod private_file;
mod store;

pub use credentials::{Credentials, CredentialsFile, TokenState};
pub use error::Error;
pub use login::{LoginEndpoints, LoginError, LoginSession};
pub use name::{InvalidSecretEntry, check_name, check_value, redacted_preview};
pub use secrecy::{ExposeSecret, SecretString};
pub use store::{LinkPolicy, SecretStore, SecretValues};
