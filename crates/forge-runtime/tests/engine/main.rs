//! The loop on a store in memory, with real tools in a real folder and a model that is a function.

mod children;
mod compaction;
mod crash;
mod cycle;
mod fallback;
mod harness;
mod live;
mod load;
mod model;
mod money;
mod pieces;
mod projects;
mod workers;
