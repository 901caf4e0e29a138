//! What was said in a run before a summary took its place.

use async_trait::async_trait;
use forge_types::Passage;

/// Why what was said can't be looked up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("what was said before can't be read: {why}")]
pub struct Error {
    /// Why, and what to do about it.
    pub why: String,
}

/// Passages that were found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TranscriptMatches {
    /// The passages, in the order in which they were said.
    pub passages: Vec<Passage>,
    /// Messages that were looked through; with none, nothing was summarised yet.
    pub searched: usize,
}

/// The part of a conversation that is no longer shown to the model.
#[async_trait]
pub trait TranscriptSearch: Send + Sync {
    /// The passages that fit a question best, bounded in number and length.
    ///
    /// # Errors
    /// If it can't be read.
    async fn search(&self, query: &str) -> Result<TranscriptMatches, Error>;
}
