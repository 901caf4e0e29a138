//! The adapter seen through its port, over real HTTP.

#![allow(clippy::unwrap_used, reason = "the helpers of a test may panic like the test")]

use forge_models::{ModelProviders, Options};

mod contract;
mod native;
mod parsers;
mod providers;
mod tokens;

/// Sets up providers of which none may be misconfigured.
fn set_up(options: &Options) -> ModelProviders {
    let (models, faults) = ModelProviders::new(options);
    assert_eq!(faults, []);
    models
}
