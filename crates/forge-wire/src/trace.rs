//! Trace ids.

use forge_types::{Digest, RunId};

/// Returns 32 hex digits: the first half of a hash, because a UUIDv7's own digits would encode the creation time
/// again.
pub(crate) fn trace_id(root: RunId) -> String {
    Digest::of_bytes(root.to_string().as_bytes()).to_string().chars().take(32).collect()
}
