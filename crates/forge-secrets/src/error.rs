//! Errors of an encrypted store.

use forge_types::ErrorClass;
use std::path::PathBuf;

/// Failure to open or change a store. The file is unchanged in every case.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The content does not decrypt. The format does not distinguish a wrong passphrase from a damaged file.
    #[error(
        "can't decrypt {path}: the passphrase is wrong, or the file is damaged. Try again with the passphrase of the \
         file (FORGE_PASSPHRASE, or typed); if it is lost, move the file away and set the secrets again"
    )]
    Unopened {
        /// Path of the file.
        path: PathBuf,
    },
    /// The file is shorter than any store.
    #[error(
        "{path} is truncated: it has {bytes} bytes, but a store has at least {least}. Restore it from a backup, or \
         remove it and set the secrets again"
    )]
    Truncated {
        /// Path of the file.
        path: PathBuf,
        /// Length of the file in bytes.
        bytes: u64,
        /// Length of the shortest store in bytes.
        least: u64,
    },
    /// The file is not a store.
    #[error("{path} is not a secret store: {why}. Move it away; Forge does not overwrite it")]
    Foreign {
        /// Path of the file.
        path: PathBuf,
        /// Description of its content.
        why: &'static str,
    },
    /// Other users can read the file.
    #[error(
        "{path} is readable by other users (mode {mode:03o}). Run `chmod 600 {path}`, and consider new keys if others \
         use this machine"
    )]
    TooOpen {
        /// Path of the file.
        path: PathBuf,
        /// Mode of the file.
        mode: u32,
    },
    /// The file or its directory is a link.
    #[error(
        "{path} is a symbolic link, which a repository could point anywhere. Replace it with a regular file or directory"
    )]
    Link {
        /// Path of the link.
        path: PathBuf,
    },
    /// The system refuses an operation.
    #[error("{path} can't be {what}: {source}")]
    Io {
        /// Attempted operation, as a participle.
        what: &'static str,
        /// Path of the file.
        path: PathBuf,
        /// Error of the system.
        source: std::io::Error,
    },
    /// The machine can't derive a key or provide random numbers.
    #[error("secrets can't be encrypted on this machine: {why}")]
    Machine {
        /// Reason, in words.
        why: String,
    },
}

impl Error {
    /// Returns the class of the error.
    pub const fn class(&self) -> ErrorClass {
        match self {
            Self::Unopened { .. } => ErrorClass::Denied,
            Self::Truncated { .. } | Self::Foreign { .. } | Self::TooOpen { .. } | Self::Link { .. } => {
                ErrorClass::Invalid
            }
            Self::Io { .. } => ErrorClass::Unavailable,
            Self::Machine { .. } => ErrorClass::Fatal,
        }
    }

    pub(crate) fn io_error(
        what: &'static str,
        path: &std::path::Path,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { what, path, source }
    }
}
