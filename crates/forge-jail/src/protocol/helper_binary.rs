//! The own binary inside an image of another system, which lacks its libraries.
//!
//! A binary linked against the host's C library is started there through the host's own dynamic loader, which is bound
//! with the libraries at [`LIBRARY_DIR`]. A static binary needs none of this.

use serde::{Deserialize, Serialize};

use super::names::CONTAINED_ARGV0;
use forge_jail_protocol::{HELPER_PATH, HostBind};

/// The directory of the host's loader and libraries in the sandbox.
pub(crate) const LIBRARY_DIR: &str = "/run/forge/lib";
/// The path of the loader there.
pub(crate) const LOADER_PATH: &str = "/run/forge/lib/ld.so";

/// The files and the start method with which the own binary runs inside any image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HelperBinary {
    /// The files that must be bound read-only.
    pub(crate) files: Vec<HostBind>,
    /// The start method.
    pub(crate) start: HelperStart,
}

/// The way the own binary is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum HelperStart {
    /// Directly: the binary is static.
    Itself,
    /// Through the loader next to it.
    Loader,
}

impl HelperBinary {
    /// Returns the files that must be bound read-only into the sandbox.
    #[must_use]
    pub fn required_binds(&self) -> &[HostBind] {
        &self.files
    }

    /// Returns the program to execute to start the binary under a name, and its `argv`; arguments follow.
    #[must_use]
    pub fn start_command(&self, name: &str) -> (String, Vec<String>) {
        match self.start {
            HelperStart::Itself => (HELPER_PATH.to_owned(), vec![name.to_owned()]),
            HelperStart::Loader => (LOADER_PATH.to_owned(), loader_argv(name)),
        }
    }

    /// Returns the command of a container that starts as [`CONTAINED_ARGV0`], for engines that cannot set `argv[0]`.
    #[must_use]
    pub fn container_command(&self) -> Vec<String> {
        match self.start {
            HelperStart::Itself => vec![format!("/run/forge/{CONTAINED_ARGV0}")],
            HelperStart::Loader => loader_argv(CONTAINED_ARGV0),
        }
    }
}

fn loader_argv(name: &str) -> Vec<String> {
    [LOADER_PATH, "--argv0", name, "--library-path", LIBRARY_DIR, HELPER_PATH].map(str::to_owned).into()
}
