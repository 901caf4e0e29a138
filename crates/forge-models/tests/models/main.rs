//! The adapter seen through its port, over real HTTP.

#![allow(clippy::unwrap_used, reason = "the helpers of a test may panic like the test")]

mod contract;
mod native;
mod parsers;
mod providers;
mod tokens;
