//! The fold of a run and its projections, through the crate's public interface.

mod compaction;
mod fold;
mod golden;
mod journal;
mod projection;
mod records;
