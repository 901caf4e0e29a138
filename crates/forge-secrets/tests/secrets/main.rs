//! Stores and logins from outside.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

mod login;
mod renewal;
mod store;
