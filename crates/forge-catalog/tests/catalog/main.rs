//! The tables and the parser of a table of models, through the crate's public interface.

#![allow(clippy::unwrap_used, reason = "the helpers of a test may panic like the test")]

mod tables;
mod vendors;
