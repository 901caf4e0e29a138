//! The description of a sandbox that a caller hands to `forge_jail::Jail::spawn`.

use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::isolation_layer::DisabledProtection;
use crate::programs::{WrittenCode, written_code};
use crate::raw_bytes::RawBytes;

/// The path of the workspace inside every sandbox.
pub const WORKSPACE_PATH: &str = "/workspace";
/// The path of the caller's own binary inside every sandbox.
pub const HELPER_PATH: &str = "/run/forge/forge";
/// The writable home directory inside every sandbox (on its private `/tmp`).
pub const HOME_PATH: &str = "/tmp/home";

/// The full description of one sandbox. It is passed to the init in a memory file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JailSpec {
    /// Label of the run, part of the names of its control groups. Letters, digits, `-` and `_` are kept, the rest is
    /// dropped.
    pub label: String,
    /// The root directories to work in: one at [`WORKSPACE_PATH`] itself, or several at `/workspace/NAME`.
    pub roots: Vec<WorkspaceRoot>,
    /// Paths relative to [`WORKSPACE_PATH`] that are covered by an empty, unreadable bind mount. A path that does not
    /// exist is skipped; one that leaves the workspace is an error.
    pub masked: Vec<RawBytes>,
    /// Further host directories and files, read-only.
    pub binds: Vec<HostBind>,
    /// Further host directories and files that the sandbox may write, without setuid and devices. For root they are
    /// shown under another owner, like a [`RootMode::Bind`] root.
    pub writable: Vec<HostBind>,
    /// The root directory of another system. Its programs and libraries replace the host's.
    pub image: Option<PathBuf>,
    /// The network access of the sandbox.
    pub network: NetworkAccess,
    /// A port of the sandbox's own network. The init listens there on 127.0.0.1 and `forge_jail::Jail::claim_listener`
    /// hands the TCP listener to the caller, so the accepting code runs outside. Only with [`NetworkAccess::Off`].
    pub listen: Option<u16>,
    /// Size in bytes of a writable `/cache` in memory, if wanted.
    pub caches: Option<u64>,
    /// Resource ceilings.
    pub limits: JailLimits,
    /// The complete environment of every command; no other variable is passed on.
    pub env: Vec<(RawBytes, RawBytes)>,
    /// The host name seen in the sandbox.
    pub hostname: String,
    /// Programs that commands may execute, by name or absolute path, in addition to the shell; `None`: any. See
    /// [`crate::written_code`].
    #[serde(default)]
    pub programs: Option<Vec<String>>,
    /// Protections to leave out, for the tests of the tests: only `forge_jail::init_main_weakened` obeys this.
    #[serde(default)]
    pub without: Vec<DisabledProtection>,
}

/// A root directory to work in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkspaceRoot {
    /// Absolute path on the host.
    pub source: PathBuf,
    /// The directory that the path must lead to, if the caller has it open.
    #[serde(default)]
    pub identity: Option<FileIdentity>,
    /// `/workspace`, or `/workspace/NAME` when there are several.
    pub target: PathBuf,
    /// The way it is shown.
    pub mode: RootMode,
}

/// A file or directory that exists: its path may lead to another one later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileIdentity {
    /// Number of the file system.
    pub dev: u64,
    /// Inode number.
    pub ino: u64,
}

/// The identity of what a caller found at the source of a bind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExaminedSource {
    /// The directory around the source.
    pub directory: FileIdentity,
    /// The source. Another file that is in its place by then is shown as well, because programs replace their files;
    /// only what a container engine mounted must be this one.
    pub entry: FileIdentity,
}

/// The way a root directory is shown in the sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RootMode {
    /// The directory itself, read-write. For root its owner is shown as the sandbox's user (id-mapped mount).
    Bind,
    /// Copy on write: the source is only read, changes go to `upper`.
    ///
    /// As root the attributes of the upper layer are `trusted.overlay.*`, and renamed directories of the source carry a
    /// redirect. The upper tree belongs to the sandbox's user and is chowned to it if necessary. Keep the tree from one
    /// sandbox to the next: its owner becomes the next sandbox's user if that id is free. As an ordinary user the
    /// attributes are `user.overlay.*`, and renaming a directory of the source fails with `EXDEV`.
    Overlay {
        /// The directory that receives the changes.
        upper: PathBuf,
        /// An empty directory for the kernel, on the file system of `upper`.
        work: PathBuf,
    },
    /// The directory itself, read-write, without mapping: it belongs to the sandbox's user alone. As root the tree is
    /// first chowned to that user if its top directory belongs to another user.
    Owned,
}

/// The extended attributes of the upper layer in which the kernel keeps an overlay's metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OverlayAttributes {
    /// `trusted.overlay.*`: mounted by root; renamed directories carry a redirect.
    Trusted,
    /// `user.overlay.*`: mounted in a user namespace; directories of the source are copied instead of renamed.
    User,
}

impl OverlayAttributes {
    /// Returns the prefix of the attributes' names.
    #[must_use]
    pub const fn xattr_prefix(self) -> &'static str {
        match self {
            Self::Trusted => "trusted.overlay.",
            Self::User => "user.overlay.",
        }
    }
}

/// A bind mount of a host path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostBind {
    /// Absolute path on the host.
    pub source: PathBuf,
    /// Identity of what the caller found at this path, if it must be neither a symbolic link nor below one.
    #[serde(default)]
    pub examined: Option<ExaminedSource>,
    /// Absolute path inside the sandbox; not below `/workspace`, `/proc`, `/dev` or `/etc`.
    pub target: PathBuf,
    /// The treatment of a source that does not exist.
    pub missing: MissingSource,
}

/// The treatment of a bind source that does not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MissingSource {
    /// The bind is left out.
    Skip,
    /// The sandbox does not start.
    Fail,
}

/// Network access of the sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NetworkAccess {
    /// A separate network namespace with only loopback.
    #[default]
    Off,
    /// The host's network, requested explicitly. Host loopback services are then reachable too.
    Host,
}

/// Resource ceilings of the sandbox as a whole, unless stated otherwise.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JailLimits {
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

impl Default for JailLimits {
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
    /// Describes a sandbox around `workspace` with the default limits, no network and the smallest useful environment.
    #[must_use]
    pub fn new(label: impl Into<String>, workspace: impl Into<PathBuf>) -> Self {
        let env = [
            ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
            ("HOME", HOME_PATH),
            ("TMPDIR", "/tmp"),
            ("LANG", "C.UTF-8"),
            ("USER", "forge"),
            ("LOGNAME", "forge"),
            ("SHELL", "/bin/sh"),
        ];
        Self {
            label: label.into(),
            roots: vec![WorkspaceRoot {
                source: workspace.into(),
                identity: None,
                target: WORKSPACE_PATH.into(),
                mode: RootMode::Bind,
            }],
            masked: Vec::new(),
            binds: Vec::new(),
            writable: Vec::new(),
            image: None,
            network: NetworkAccess::Off,
            listen: None,
            caches: None,
            limits: JailLimits::default(),
            env: env.iter().map(|(k, v)| (RawBytes::from(*k), RawBytes::from(*v))).collect(),
            hostname: "forge".to_owned(),
            programs: None,
            without: Vec::new(),
        }
    }

    /// Returns whether no file that commands can write may become code; its mounts are then noexec.
    pub fn forbids_written_code(&self) -> bool {
        !self.lacks_protection(DisabledProtection::ProgramList)
            && written_code(self.programs.as_deref()) == WrittenCode::None
    }

    /// Returns whether a protection is left out.
    pub fn lacks_protection(&self, weakness: DisabledProtection) -> bool {
        self.without.contains(&weakness)
    }

    /// Returns the error in the description, if any, before a process is started.
    pub fn validation_error(&self) -> Option<String> {
        if let Some(fault) = self.roots_error() {
            return Some(fault);
        }
        if self.image.as_ref().is_some_and(|image| is_unusable_path(image) || image == Path::new("/")) {
            return Some("the image must be an absolute path to a folder other than /".to_owned());
        }
        if self.listen == Some(0) {
            return Some("the port to listen on is 0".to_owned());
        }
        if self.listen.is_some() && self.network == NetworkAccess::Host {
            return Some("a listener is only made in a network of the box's own".to_owned());
        }
        if self.caches.is_some_and(|bytes| bytes < 1 << 20) {
            return Some("the size of /cache is below 1 MiB".to_owned());
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
        let kept = |b: &HostBind| {
            ["/workspace", "/proc", "/dev", "/etc", "/sys"].iter().any(|p| b.target.starts_with(p))
                || b.target == Path::new("/")
                || b.target == Path::new("/tmp")
        };
        let mut binds = self.binds.iter().chain(&self.writable);
        binds.find(|b| is_unusable_path(&b.source) || is_unusable_path(&b.target) || kept(b)).map(|b| {
            format!("cannot bind {} at {}: not a place for it", b.source.display(), b.target.display())
        })
    }

    fn roots_error(&self) -> Option<String> {
        if self.roots.is_empty() {
            return Some("there is no workspace".to_owned());
        }
        for (at, root) in self.roots.iter().enumerate() {
            let source = root.source.display();
            if is_unusable_path(&root.source) {
                return Some(format!("the workspace path {source} is not absolute"));
            }
            if root.source == Path::new("/") {
                return Some("the workspace is /, which would hand the whole machine to the box".to_owned());
            }
            let one = self.roots.len() == 1 && root.target == Path::new(WORKSPACE_PATH);
            let below = root.target.strip_prefix(WORKSPACE_PATH).ok().map(Path::components);
            let named = below.is_some_and(|mut parts| {
                matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None))
            });
            if !one && !named {
                let target = root.target.display();
                return Some(format!(
                    "{source} cannot stand at {target}: /workspace/NAME is the place for it"
                ));
            }
            if self.roots.iter().take(at).any(|other| other.target == root.target) {
                return Some(format!("two workspaces at {}", root.target.display()));
            }
            if let RootMode::Overlay { upper, work } = &root.mode
                && (is_unusable_path(upper)
                    || is_unusable_path(work)
                    || upper.starts_with(work)
                    || work.starts_with(upper))
            {
                return Some(format!("the layers above {source} must be two folders with absolute paths"));
            }
        }
        None
    }
}

/// Returns whether a path cannot be used in a sandbox: relative, or with `..` in it.
fn is_unusable_path(path: &Path) -> bool {
    !path.is_absolute() || path.components().any(|c| matches!(c, Component::ParentDir))
}
