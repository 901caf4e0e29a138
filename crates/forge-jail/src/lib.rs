//! Native Linux isolation: a *box* around one workspace, and the resident init that runs commands in it.
//!
//! [`Jail::spawn`] starts the caller's own binary again as the init (see [`init_main`]), which builds the box out
//! of namespaces, a private root folder, Landlock and a system call filter, gives up every right, and then serves
//! [`Request`]s over a socket: commands, and file operations under the same walls. The box dies with its handle
//! and with the process that holds it.
//!
//! What this crate does not know: async runtimes, configuration, what a command is for, and any other crate of
//! the project. It does not run anything without isolation. Linux 5.14 or newer, x86-64 and aarch64.
//!
//! ```no_run
//! use forge_jail::{Exec, INIT_ARGV0, Jail, JailSpec, Request, init_main};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! if std::env::args_os().next().is_some_and(|a| a == INIT_ARGV0) {
//!     init_main();
//! }
//! let jail = Jail::spawn(&JailSpec::new("demo", "/srv/project"), "/proc/self/exe".as_ref())?;
//! jail.call(Request::Ping, &[])?;
//! # Ok(()) }
//! ```
#![allow(
    unsafe_code,
    reason = "the one place for system calls without a safe wrapper; each block says why it is sound"
)]

mod cgroup;
mod client;
mod error;
mod image;
mod init;
mod layers;
mod loader;
mod mapped;
mod owner;
mod probe;
mod programs;
mod spec;
mod wire;

use forge_sys as sys;

pub use cgroup::prune;
pub use client::{Answer, Container, Jail, Spare};
pub use error::Error;
pub use forge_seccomp::docker_seccomp_profile;
pub use init::{
    CONTAINED_ARGV0, Files, INIT_ARGV0, NOBODY, SOCKET, TEMP_PREFIX, contained_main, init_main,
    init_main_weakened,
};
pub use layers::{Layer, LayerReport, State};
pub use loader::Helper;
pub use mapped::{Mapped, RunUser};
pub use owner::box_lives;
pub use probe::{overlay_works, probe};
pub use programs::{WrittenCode, written_code};
pub use spec::{Bind, HELPER, HOME, JailSpec, Limits, Missing, Network, Root, Show, WORKSPACE, Weakness};
pub use wire::{
    End, Ended, Exec, FaultKind, FileFault, FileKind, FileStat, Leftovers, Links, OverlayAttributes, Raw,
    Removal, Replace, Reply, Request, StartFault, Sync,
};
