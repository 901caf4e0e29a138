//! Processes of a sandbox, as its init sees them in `/proc`: what memory they hold, which command each belongs to, and
//! how all of them are stopped or killed.
//!
//! The memory of a sandbox is summed here where no control group counts it: what is mapped, and what processes hold
//! without mapping it (memory files, sockets, pipes, System V objects). This crate knows nothing of how a sandbox is
//! made. It reads `/proc` as bytes, because names are chosen by the processes themselves.

pub mod freeze;
pub mod memory_usage;
pub mod objects;
pub mod shared;
pub mod sockets;
pub mod watch;
