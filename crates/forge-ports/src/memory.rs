//! Memory that outlasts a conversation: messages and facts.

use async_trait::async_trait;
use forge_types::{ChatMessage, MemoryFact};

/// An error while reading or writing the memory. It never ends a turn: the caller warns and continues.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the memory {file} {what}: {why}")]
pub struct Error {
    /// The file or place.
    pub file: String,
    /// The operation that failed.
    pub what: &'static str,
    /// The reason, and a remedy.
    pub why: String,
}

/// The whole content of the memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoredMemory {
    /// The messages, oldest first.
    pub history: Vec<ChatMessage>,
    /// The facts, oldest first.
    pub facts: Vec<MemoryFact>,
    /// A problem to report to the user, such as a file that is unreadable or was set aside.
    pub warning: Option<String>,
}

/// The memory of a project. Several processes may use it at once without losing entries.
#[async_trait]
pub trait Memory: Send + Sync {
    /// Returns the whole content. Unreadable files count as empty and give a warning.
    async fn load_all(&self) -> StoredMemory;

    /// Returns the facts.
    async fn list_facts(&self) -> Vec<MemoryFact>;

    /// Adds all messages of one turn.
    ///
    /// # Errors
    /// If the messages can't be saved.
    async fn add_turn(&self, said: Vec<ChatMessage>) -> Result<(), Error>;

    /// Adds a fact, or replaces the one with the same key.
    ///
    /// # Errors
    /// If the fact can't be saved.
    async fn add_fact(&self, fact: MemoryFact) -> Result<(), Error>;

    /// Changes the fact with the same key; returns whether there was one.
    ///
    /// # Errors
    /// If the fact can't be saved.
    async fn update_fact(&self, fact: MemoryFact) -> Result<bool, Error>;

    /// Deletes the messages; facts are kept.
    ///
    /// # Errors
    /// If the change can't be saved.
    async fn clear_history(&self) -> Result<(), Error>;
}
