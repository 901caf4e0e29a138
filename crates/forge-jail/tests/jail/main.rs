//! Sandboxes from the outside: as root and, run again under another id, as an ordinary user.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "tests start themselves again as another user"
)]

mod ahead;
mod commands;
mod counts;
mod files;
mod images;
mod places;
mod programs;
mod rig;
mod roots;
mod siblings;
mod squatting;
mod uncounted;
mod walls;
mod weak;
