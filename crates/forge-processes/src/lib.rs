//! Processes of a sandbox, as its init sees them in `/proc`: the memory they hold, the command each belongs to, and how
//! to stop or kill them all.
//!
//! Where no control group counts the sandbox's memory, it is summed here: mapped memory, and memory that processes hold
//! without mapping it (memory files, sockets, pipes, System V objects). This crate knows nothing of how a sandbox is
//! built. It reads `/proc` as bytes, because processes choose their own names. Only [`init_name`] looks at a sandbox from
//! outside.

pub mod freeze;
pub mod init_name;
pub mod memory_usage;
pub mod objects;
pub mod process_files;
pub mod shared;
pub mod sockets;
pub mod watch;
