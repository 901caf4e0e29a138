//! Keys that need not lie in the environment: an encrypted file for them, and logins that give tokens instead.
//!
//! [`Store`] is one encrypted file. [`login`] gets tokens through a browser, [`Login`] keeps them and renews them.
//! Nothing here reads the environment, asks a person or prints: callers hand in passphrases, folders and the clock.
//!
//! Invariants: no error and no `Debug` form holds a secret; a file that can't be read is never written over; every
//! write is atomic and readable by its owner only.

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
