//! Names that the caller, its binary and container engines agree on.

/// The `argv[0]` under which a binary must call [`crate::init_main`] before it does anything else.
pub const INIT_ARGV0: &str = "forge-jail-init";
/// The `argv[0]` under which a binary must call [`crate::contained_main`] before it does anything else.
pub const CONTAINED_ARGV0: &str = "forge-jail-contained";
/// The path of the caller's socket inside a container.
pub const CONTAINER_SOCKET_PATH: &str = "/run/forge/box.sock";
/// Exit code of an init that found no caller behind its socket.
pub const NO_CALLER_EXIT_CODE: i32 = 121;
