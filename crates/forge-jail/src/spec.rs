//! What a box is made of: the description a caller hands to [`crate::Jail::spawn`].

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::wire::Raw;

/// Where the workspace stands inside every box.
pub const WORKSPACE: &str = "/workspace";
/// Where the caller's own binary stands inside every box.
pub const HELPER: &str = "/run/forge/forge";
/// The writable home directory inside every box (on its private `/tmp`).
pub const HOME: &str = "/tmp/home";

/// The full description of one box. It travels to the box's init through a sealed memory file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JailSpec {
    /// Label of the run; names its control groups. Letters, digits, `-` and `_` are kept, the rest is dropped.
    pub label: String,
    /// Absolute host path of the workspace, bound read-write at [`WORKSPACE`].
    pub workspace: PathBuf,
    /// Paths below the workspace (relative) over which an empty, unreadable thing is bound. A path that does
    /// not exist is skipped; one that leaves the workspace is an error.
    pub masked: Vec<Raw>,
    /// Further host folders and files, read-only.
    pub binds: Vec<Bind>,
    /// What the box may reach over the network.
    pub network: Network,
    /// Resource ceilings.
    pub limits: Limits,
    /// The whole environment of every command: nothing else is passed on.
    pub env: Vec<(Raw, Raw)>,
    /// The host name seen inside.
    pub hostname: String,
}

/// One read-only bind of a host path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bind {
    /// Absolute path on the host.
    pub source: PathBuf,
    /// Absolute path inside the box; not below `/workspace`, `/proc`, `/dev` or `/etc`.
    pub target: PathBuf,
    /// What happens when the source does not exist.
    pub missing: Missing,
}

/// What to do about a bind whose source does not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Missing {
    /// Leave it out.
    Skip,
    /// The box does not start.
    Fail,
}

/// Network access of the box.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Network {
    /// A network namespace of its own with nothing but loopback.
    #[default]
    Off,
    /// The host's network, asked for by name. Host loopback services are then reachable too.
    Host,
}

/// Resource ceilings of the box as a whole, unless said otherwise.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Limits {
    /// Resident memory in bytes, `/tmp` and `/dev/shm` included where control groups count it.
    pub memory_bytes: u64,
    /// Processes and threads.
    pub pids: u32,
    /// CPU time in whole CPUs (1.5 = one and a half); `None` is unlimited.
    pub cpus: Option<f64>,
    /// Size of the private `/tmp` in bytes; `/dev/shm` gets a quarter of it.
    pub tmp_bytes: u64,
    /// Open files per process.
    pub open_files: u64,
    /// Largest file a process may write, in bytes; `None` is unlimited.
    pub file_bytes: Option<u64>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory_bytes: 2 << 30,
            pids: 1024,
            cpus: None,
            tmp_bytes: 1 << 30,
            open_files: 4096,
            file_bytes: None,
        }
    }
}

impl JailSpec {
    /// A box around `workspace` with the default limits, no network and the smallest useful environment.
    #[must_use]
    pub fn new(label: impl Into<String>, workspace: impl Into<PathBuf>) -> Self {
        let env = [
            ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
            ("HOME", HOME),
            ("TMPDIR", "/tmp"),
            ("LANG", "C.UTF-8"),
            ("USER", "forge"),
            ("LOGNAME", "forge"),
            ("SHELL", "/bin/sh"),
        ];
        Self {
            label: label.into(),
            workspace: workspace.into(),
            masked: Vec::new(),
            binds: Vec::new(),
            network: Network::Off,
            limits: Limits::default(),
            env: env.iter().map(|(k, v)| (Raw::from(*k), Raw::from(*v))).collect(),
            hostname: "forge".to_owned(),
        }
    }

    /// What is wrong with the description, if anything: said before any process is started.
    pub(crate) fn fault(&self) -> Option<String> {
        if !self.workspace.is_absolute() {
            return Some(format!("the workspace path {} is not absolute", self.workspace.display()));
        }
        if self.workspace == Path::new("/") {
            return Some("the workspace is /, which would hand the whole machine to the box".to_owned());
        }
        if self.limits.memory_bytes < 16 << 20 {
            return Some(format!("memory limit {} is below 16 MiB", self.limits.memory_bytes));
        }
        if self.limits.pids < 4 {
            return Some(format!("process limit {} is below 4", self.limits.pids));
        }
        if self.limits.cpus.is_some_and(|c| !c.is_finite() || c < 0.01) {
            return Some("cpu limit must be a number of at least 0.01".to_owned());
        }
        let kept = |b: &Bind| {
            ["/workspace", "/proc", "/dev", "/etc", "/sys"].iter().any(|p| b.target.starts_with(p))
                || b.target == Path::new("/")
                || b.target == Path::new("/tmp")
        };
        let broken = |p: &Path| {
            !p.is_absolute() || p.components().any(|c| matches!(c, std::path::Component::ParentDir))
        };
        self.binds.iter().find(|b| broken(&b.source) || broken(&b.target) || kept(b)).map(|b| {
            format!("cannot bind {} at {}: not a place for it", b.source.display(), b.target.display())
        })
    }
}
