//! Behaviour of trees, snapshots and applying through the public interface.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "helpers of tests fail by panicking; tests start themselves again and read what they are asked for"
)]

mod apply;
mod bounds;
mod compare;
mod exchanged;
mod store;
mod trees;
mod undo;
