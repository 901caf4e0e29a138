//! Guards: what a run may not do, judged before it is done.
//!
//! A guard reads what is asked for and answers with a refusal that the model can act on. It is a policy on top of
//! the sandbox, never the isolation itself: a program that is allowed may do whatever the sandbox lets it do.

pub mod code;
pub mod command;

mod forbidden;
mod shell;
mod wrapper;

pub use code::{CodeDenied, CodeLanguage, StaticCheckPolicy, StaticWarning};

#[cfg(test)]
mod tests;
