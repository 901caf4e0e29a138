//! What a conversation remembers: what was said, and facts (MEM-1).

use crate::Role;
use serde::{Deserialize, Serialize};

/// One message of a conversation, as it stands in a memory file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChatMessage {
    /// Who said it: `user` or `assistant`.
    pub role: Role,
    /// What.
    pub content: String,
}

/// Something to be known in every conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryFact {
    /// What it is about; there is one fact per key.
    pub key: String,
    /// What is known.
    pub value: String,
}
