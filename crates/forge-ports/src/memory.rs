//! What outlasts a conversation: what was said, and facts.

use async_trait::async_trait;
use forge_types::{ChatMessage, MemoryFact};

/// Why something is not remembered. It never ends a turn: whoever sees it warns and goes on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the memory {file} {what}: {why}")]
pub struct Error {
    /// The file or place.
    pub file: String,
    /// What could not be done.
    pub what: &'static str,
    /// Why, and what to do about it.
    pub why: String,
}

/// Everything that is remembered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoredMemory {
    /// What was said, oldest first.
    pub history: Vec<ChatMessage>,
    /// The facts, oldest first.
    pub facts: Vec<MemoryFact>,
    /// What is wrong with it, for the user: it was set aside, it can't be read.
    pub warning: Option<String>,
}

/// The memory of a project. Several processes may use it at once: nothing is lost.
#[async_trait]
pub trait Memory: Send + Sync {
    /// Everything that is remembered. What can't be read counts as empty, with a warning.
    async fn load_all(&self) -> StoredMemory;

    /// The facts.
    async fn list_facts(&self) -> Vec<MemoryFact>;

    /// Adds what was said in one turn, whole.
    ///
    /// # Errors
    /// If it can't be kept.
    async fn add_turn(&self, said: Vec<ChatMessage>) -> Result<(), Error>;

    /// Adds a fact, or replaces the one of the same key.
    ///
    /// # Errors
    /// If it can't be kept.
    async fn add_fact(&self, fact: MemoryFact) -> Result<(), Error>;

    /// Changes the fact of a key; says whether there was one.
    ///
    /// # Errors
    /// If it can't be kept.
    async fn update_fact(&self, fact: MemoryFact) -> Result<bool, Error>;

    /// Forgets what was said; facts stay.
    ///
    /// # Errors
    /// If it can't be kept.
    async fn clear_history(&self) -> Result<(), Error>;
}
