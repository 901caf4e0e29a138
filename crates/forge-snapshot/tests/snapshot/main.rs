//! Behaviour of trees, snapshots and applying through the public interface.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as tests do")]

mod apply;
mod bounds;
mod compare;
mod store;
mod trees;
mod undo;
