//! Files, locks and trees as hostile neighbours leave them.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "helpers of tests fail by panicking, and read how much to do"
)]

mod reading;
mod removal;
