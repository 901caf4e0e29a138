//! Behaviour of trees, snapshots and applying through the public interface.

mod apply;
mod compare;
mod store;
mod trees;
mod undo;
