//! The sandbox seen from inside and outside: as root and, in a second run under another id, as an ordinary user.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::print_stderr,
    missing_docs,
    reason = "tests start themselves again as another user and say loudly what they cannot test"
)]

mod branch;
mod ceilings;
mod covers;
mod covers_hold;
mod docker;
mod egress;
mod engine;
mod exchanged;
mod git_repositories;
mod host_git;
mod interrupted;
mod isolation;
mod limits;
mod once;
mod programs;
mod rig;
mod run;
mod special_files;
mod tree;
mod undo;
mod verify;
mod views;
mod workspace;
