//! Guards: checks of a run's actions before they are carried out.
//!
//! A guard examines a request and answers with a refusal that the model can act on. Guards are a policy on top of the
//! sandbox, never the isolation itself: an allowed program may do whatever the sandbox permits.

pub mod code;
pub mod command;

mod forbidden;
mod shell;
mod wrapper;

pub use code::{CodeDenied, CodeLanguage, StaticCheckPolicy, StaticWarning};

#[cfg(test)]
mod tests;
