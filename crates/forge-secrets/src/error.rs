//! What can go wrong with an encrypted store.

use forge_types::ErrorClass;
use std::path::PathBuf;

/// Why a store can't be opened or changed. In no case has the file been touched.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The contents don't decrypt. The format can't tell a wrong passphrase from a damaged file.
    #[error(
        "the passphrase does not open {path}, or the file was damaged. Try again with the passphrase that it was \
         made with (FORGE_PASSPHRASE, or typed); if that is lost, move the file away and set the secrets anew"
    )]
    Unopened {
        /// The file.
        path: PathBuf,
    },
    /// The file is shorter than any store.
    #[error(
        "{path} is cut off: it has {bytes} bytes, and a store has at least {least}. Put a copy of it in its place, or \
         remove it and set the secrets anew"
    )]
    Truncated {
        /// The file.
        path: PathBuf,
        /// Its length.
        bytes: u64,
        /// The shortest length.
        least: u64,
    },
    /// The file is something else.
    #[error("{path} is no store of secrets: {why}. Move it away; Forge writes nothing over it")]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What it is.
        why: &'static str,
    },
    /// Others can read the file.
    #[error(
        "{path} can be read by others (mode {mode:03o}). Close it with `chmod 600 {path}`, and think about new keys if \
         others use this machine"
    )]
    TooOpen {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// A link stands where the file or its folder should be.
    #[error(
        "{path} is a link, which a repository could point anywhere. Replace it by a plain file or folder"
    )]
    Link {
        /// The link.
        path: PathBuf,
    },
    /// The system refuses.
    #[error("{path} can't be {what}: {source}")]
    Io {
        /// What was tried, as a participle.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The machine can't derive a key or give random numbers.
    #[error("secrets can't be encrypted here: {why}")]
    Machine {
        /// Why.
        why: String,
    },
}

impl Error {
    /// What can be done about it.
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
