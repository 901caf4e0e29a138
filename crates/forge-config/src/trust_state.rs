//! The trust state of a repository.

use serde::Serialize;

/// Trust state of a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TrustState {
    /// The repository has nothing that requires trust.
    Nothing,
    /// The user accepted exactly these files.
    Trusted,
    /// The user was never asked, or revoked the trust.
    Untrusted,
    /// The user accepted the repository once, and files have changed since.
    Changed,
}

impl TrustState {
    /// Returns whether the repository's own settings take effect.
    pub const fn is_trusted(self) -> bool {
        matches!(self, Self::Trusted)
    }
}
