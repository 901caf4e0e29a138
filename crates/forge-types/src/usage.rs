//! Token counts reported by providers.

use serde::{Deserialize, Serialize};

/// Tokens of one model call, or the sum of several.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// All prompt tokens, including cached ones.
    pub input: u64,
    /// Reply tokens, including hidden reasoning.
    pub output: u64,
    /// Prompt tokens that the provider read from its cache (part of `input`).
    #[serde(default, skip_serializing_if = "is_zero")]
    pub cached: u64,
    /// Prompt tokens that the provider wrote to its cache (part of `input`).
    #[serde(default, skip_serializing_if = "is_zero")]
    pub cache_write: u64,
    /// Whether the provider reported the counts; otherwise they are estimates.
    pub known: bool,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
pub(crate) fn is_zero(value: &u64) -> bool {
    *value == 0
}

impl Usage {
    /// Returns the prompt tokens that were neither read from nor written to a cache.
    pub const fn uncached_input(&self) -> u64 {
        self.input.saturating_sub(self.cached).saturating_sub(self.cache_write)
    }

    /// Returns the tokens that count against a run's token limit: the reply and the prompt tokens not read from a
    /// cache.
    pub const fn counted(&self) -> u64 {
        self.output.saturating_add(self.input.saturating_sub(self.cached))
    }

    /// Returns the sum; known only if both are.
    #[must_use]
    pub const fn plus(&self, other: &Self) -> Self {
        Self {
            input: self.input.saturating_add(other.input),
            output: self.output.saturating_add(other.output),
            cached: self.cached.saturating_add(other.cached),
            cache_write: self.cache_write.saturating_add(other.cache_write),
            known: self.known && other.known,
        }
    }
}
