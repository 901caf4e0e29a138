//! Child runs: runs that another run starts and waits for.

use crate::{Digest, EffectId, ErrorInfo, Money, Payload, RunId, RunStatus, Timestamp, Usage};
use serde::{Deserialize, Serialize};

/// The run that started a child, and the effect that waits for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParentRun {
    /// The run.
    pub run: RunId,
    /// The effect of the parent that the end of the child settles.
    pub effect: EffectId,
}

/// A child run to be started. Its task and its plan follow from the parent's plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChildRun {
    /// The child; [`RunId::child`] of the parent, the node and the attempt, so that repeating the effect starts no
    /// second run.
    pub run: RunId,
    /// The name of the node in the parent's plan.
    pub node: String,
    /// The attempt at this node, from 1.
    pub attempt: u32,
    /// Earliest time at which the child may start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Timestamp>,
}

/// The end of a child run, as its parent sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChildEnd {
    /// The final status.
    pub status: RunStatus,
    /// The answer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub answer: Vec<Payload>,
    /// The error that ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorInfo>,
    /// Tokens used by the child and its own children.
    pub usage: Usage,
    /// Money spent by the child and its own children on calls with known prices.
    pub cost: Money,
    /// Whether the price of every call was known.
    pub cost_known: bool,
}

impl ChildEnd {
    /// Creates the end of a child that could not be started.
    pub fn not_started(error: ErrorInfo) -> Self {
        Self {
            status: RunStatus::Failed,
            answer: Vec::new(),
            error: Some(error),
            usage: Usage { known: true, ..Usage::default() },
            cost: Money::ZERO,
            cost_known: true,
        }
    }
}

impl RunId {
    /// Returns the id of the child that `parent` starts for this attempt at a node. It sorts with its parent, and no
    /// other parent, node or attempt has the same.
    pub fn child(parent: Self, node: &str, attempt: u32) -> Self {
        const TIME_BITS: u128 = 0xffff_ffff_ffff << 80;
        const RANDOM_BITS: u128 = (0xfff << 64) | (u128::MAX >> 66);
        // The version and the variant of a UUIDv7 (RFC 9562).
        const FIXED_BITS: u128 = (0x7 << 76) | (0b10 << 62);
        let hash = Digest::of_bytes(format!("{parent}/{attempt}/{node}").as_bytes());
        let hash = hash.as_bytes().iter().take(16).fold(0_u128, |all, byte| (all << 8) | u128::from(*byte));
        Self::from_u128((parent.as_u128() & TIME_BITS) | FIXED_BITS | (hash & RANDOM_BITS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_of_a_child_follows_from_its_parent_node_and_attempt() {
        let (one, other) = (RunId::generate(), RunId::generate());
        let child = RunId::child(one, "code", 1);
        assert_eq!(child, RunId::child(one, "code", 1));
        for else_ in
            [RunId::child(other, "code", 1), RunId::child(one, "code", 2), RunId::child(one, "cod", 1), one]
        {
            assert_ne!(child, else_);
        }
        let text = child.to_string();
        assert_eq!(text[..13], one.to_string()[..13], "the time");
        assert_eq!(&text[14..15], "7", "the version");
        assert!("89ab".contains(&text[19..20]), "the variant");
    }
}
