//! Native Linux isolation: a sandbox around one workspace, and the resident init that runs commands in it.
//!
//! [`Jail::spawn`] starts the caller's own binary again as the init (see [`init_main`]). The init builds the sandbox
//! from namespaces, a private root directory, Landlock and a system call filter, drops all privileges, and then serves
//! [`JailRequest`]s over a socket: commands, and file operations under the same isolation layers. The sandbox dies with
//! its handle and with the process that holds it.
//!
//! `host` runs in the process that owns the sandbox, `guest` is the init, and `protocol` is what both agree on; the files
//! next to them serve both sides. The description of a sandbox and the messages are those of `forge-jail-protocol`, re-exported here. This crate knows
//! nothing of async runtimes, configuration, the purpose of a command, or runs. It runs nothing without isolation. Linux
//! 5.14 or newer, x86-64 and aarch64.
//!
//! ```no_run
//! use forge_jail::{INIT_ARGV0, Jail, JailRequest, JailSpec, init_main};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! if std::env::args_os().next().is_some_and(|a| a == INIT_ARGV0) {
//!     init_main();
//! }
//! let jail = Jail::spawn(&JailSpec::new("demo", "/srv/project"), "/proc/self/exe".as_ref())?;
//! jail.call(JailRequest::Ping, &[])?;
//! # Ok(()) }
//! ```
#![allow(
    unsafe_code,
    reason = "the one place for system calls without a safe wrapper; each block says why it is sound"
)]

mod elf;
mod guest;
mod host;
mod id_mapping;
mod image;
mod mount_source;
mod protocol;
mod user_ids;

use forge_sys as sys;

pub use forge_jail_protocol::{
    BackgroundProcesses, DisabledProtection, ExaminedSource, ExecEnd, ExecOutcome, FaultKind, FileFault,
    FileIdentity, FileStat, FinalSymlink, HELPER_PATH, HOME_PATH, HostBind, IsolationLayer, JailCommand,
    JailFileKind, JailLayerState, JailLimits, JailReply, JailRequest, JailSpec, LayerReport, MissingSource,
    NetworkAccess, OverlayAttributes, RawBytes, RemovalScope, ReplaceExisting, RootMode, StartFault,
    SyncToDisk, WORKSPACE_PATH, WorkspaceRoot, WrittenCode, written_code,
};
pub use forge_processes::init_name::is_jail_alive;
pub use forge_seccomp::docker_seccomp_profile;
pub use guest::{RootedFiles, contained_main, init_main, init_main_weakened};
pub use host::cgroup::prune_stale_groups;
pub use host::client::{ConnectedContainer, Jail, PrewarmedJail, ReplyWithFd};
pub use host::idmapped_mount::{IdMappedMount, RunUser};
pub use host::probe::{probe_layers, probe_overlay};
pub use protocol::error::Error;
pub use protocol::helper_binary::HelperBinary;
pub use protocol::names::{CONTAINED_ARGV0, CONTAINER_SOCKET_PATH, INIT_ARGV0, NO_CALLER_EXIT_CODE};
