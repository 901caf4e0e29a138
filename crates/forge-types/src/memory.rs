//! Memory of a conversation: its messages and known facts (MEM-1).

use crate::Role;
use serde::{Deserialize, Serialize};

/// A message of a conversation in a memory file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChatMessage {
    /// The speaker: `user` or `assistant`.
    pub role: Role,
    /// The text of the message.
    pub content: String,
}

/// A fact that is known in every conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryFact {
    /// The subject of the fact; unique.
    pub key: String,
    /// The fact.
    pub value: String,
}
