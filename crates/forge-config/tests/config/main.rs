//! What loading, trust, editing and the rendered documents do, through the public interface.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as tests do")]

mod documents;
mod edit;
mod environment;
mod faults;
mod masking;
mod parsers;
mod precedence;
mod provider;
mod routing;
mod schema_table;
mod stores;
mod support;
mod trust;
