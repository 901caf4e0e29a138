//! Agreements of the two sides of a jail: how messages travel, what the init is told before it serves, and the names and
//! errors of both. Requests, replies and the description of a sandbox are in `forge-jail-protocol`.

pub(crate) mod error;
pub(crate) mod helper_binary;
pub(crate) mod names;
pub(crate) mod startup;
pub(crate) mod wire;
