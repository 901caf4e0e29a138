//! Search in the part of a conversation that a summary has replaced.

use async_trait::async_trait;
use forge_types::Passage;

/// An error while reading the earlier messages.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the earlier messages can't be read: {why}")]
pub struct Error {
    /// The reason, and a remedy.
    pub why: String,
}

/// The result of a search.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TranscriptMatches {
    /// The passages, in chronological order.
    pub passages: Vec<Passage>,
    /// Number of messages searched; zero if nothing was summarised yet.
    pub searched: usize,
}

/// The part of a conversation that is no longer shown to the model.
#[async_trait]
pub trait TranscriptSearch: Send + Sync {
    /// Returns the passages that match a query best, bounded in number and length.
    ///
    /// # Errors
    /// If the messages can't be read.
    async fn search(&self, query: &str) -> Result<TranscriptMatches, Error>;
}
