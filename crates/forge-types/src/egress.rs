//! What a box may reach: rules as data, and what became of each attempt.

use crate::Timestamp;
use serde::{Deserialize, Serialize};

/// The only ways out of a box whose network is an allow-list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EgressRules {
    /// Hosts that may be reached: exact names, `*.suffix`, or addresses. Compared without regard to case.
    pub allow: Vec<String>,
    /// Keys that the proxy puts in on the way, so that they never enter the box.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<KeySwap>,
}

/// A key that requests to one host get on their way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeySwap {
    /// The host, exact.
    pub host: String,
    /// The variable that the box sees; its value there is [`KeySwap::placeholder`].
    pub variable: String,
}

impl KeySwap {
    /// What stands in the box in place of the key. The proxy replaces it in the headers of requests to the host.
    pub fn placeholder(&self) -> String {
        format!("forge-key-{}", self.variable.to_ascii_lowercase().replace('_', "-"))
    }
}

/// What became of an attempt to reach a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EgressVerdict {
    /// It was reached.
    Allowed,
    /// It is not on the list, or its address is one that nobody may reach.
    Refused,
    /// It may be reached but could not.
    Failed,
}

/// One attempt to reach a host from a box.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EgressRecord {
    /// When.
    pub at: Timestamp,
    /// The host as it was asked for.
    pub host: String,
    /// The port.
    pub port: u16,
    /// What became of it.
    pub verdict: EgressVerdict,
    /// Why it was refused or failed; empty if it was reached.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
    /// How often in a row; equal attempts in a row are counted, not repeated.
    pub count: u32,
    /// Bytes sent out.
    pub sent: u64,
    /// Bytes that came back.
    pub received: u64,
}
