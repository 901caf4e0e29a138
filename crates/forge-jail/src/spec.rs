//! What a box is made of: the description a caller hands to [`crate::Jail::spawn`].

use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::isolation_layer::IsolationLayer;
use crate::programs::{WrittenCode, written_code};
use crate::wire::RawBytes;

/// Where the workspace stands inside every box.
pub const WORKSPACE_PATH: &str = "/workspace";
/// Where the caller's own binary stands inside every box.
pub const HELPER_PATH: &str = "/run/forge/forge";
/// The writable home directory inside every box (on its private `/tmp`).
pub const HOME_PATH: &str = "/tmp/home";

/// The full description of one box. It travels to the box's init through a sealed memory file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JailSpec {
    /// Label of the run; names its control groups. Letters, digits, `-` and `_` are kept, the rest is dropped.
    pub label: String,
    /// The folders to work in: one at [`WORKSPACE`] itself, or several at `/workspace/NAME`.
    pub roots: Vec<WorkspaceRoot>,
    /// Paths relative to [`WORKSPACE`] over which an empty, unreadable thing is bound. A path that does not exist is
    /// skipped; one that leaves the workspace is an error.
    pub masked: Vec<RawBytes>,
    /// Further host folders and files, read-only.
    pub binds: Vec<HostBind>,
    /// Further host folders and files that the box may write, without setuid and devices. For root they are shown
    /// under another owner, as a [`Show::Direct`] root is.
    pub writable: Vec<HostBind>,
    /// The root folder of another system. Its programs and libraries stand in the place of the host's.
    pub image: Option<PathBuf>,
    /// What the box may reach over the network.
    pub network: NetworkAccess,
    /// Makes a TCP listener on 127.0.0.1 at this port of the box's own network, which [`crate::Jail::take_listener`]
    /// hands to the caller: what accepts there runs outside. Only with [`Network::Off`].
    pub listen: Option<u16>,
    /// Size in bytes of a writable `/cache` in memory, if there is to be one.
    pub caches: Option<u64>,
    /// Resource ceilings.
    pub limits: JailLimits,
    /// The whole environment of every command: nothing else is passed on.
    pub env: Vec<(RawBytes, RawBytes)>,
    /// The host name seen inside.
    pub hostname: String,
    /// Programs that commands may execute, by name or absolute path, beside the shell; `None`: any. See
    /// [`crate::written_code`].
    #[serde(default)]
    pub programs: Option<Vec<String>>,
    /// Protective measures left out, for the tests of the tests: only [`crate::init_main_weakened`] obeys this.
    #[serde(default)]
    pub without: Vec<DisabledProtection>,
}

/// A folder to work in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkspaceRoot {
    /// Absolute path on the host.
    pub source: PathBuf,
    /// `/workspace`, or `/workspace/NAME` when there are several.
    pub target: PathBuf,
    /// How it is shown.
    pub mode: RootMode,
}

/// How a folder to work in is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RootMode {
    /// Itself, read-write. For root its owner is shown as the box's user (id-mapped mount).
    Bind,
    /// Copy on write: the source is only read, changes land in `upper`.
    ///
    /// As root the attributes of the upper layer are `trusted.overlay.*` and folders of the source that are renamed
    /// carry a redirect; the upper tree belongs to the box's user, is given to it if need be, and should be kept
    /// from one box to the next, since its owner becomes the next box's user when that id is free. As an ordinary
    /// user the attributes are `user.overlay.*` and renaming a folder of the source fails with `EXDEV`.
    Overlay {
        /// Receives the changes.
        upper: PathBuf,
        /// An empty folder for the kernel, on the file system of `upper`.
        work: PathBuf,
    },
    /// Itself, read-write, without mapping: a folder that belongs to the box's user alone. As root the tree is given
    /// to that user first if its top folder belongs to somebody else.
    Owned,
}

/// A protective measure that a box can be started without, so that a suite of escape attempts can show that it notices.
/// Never for real work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DisabledProtection {
    /// No system call filter: ptrace, keyrings, io_uring, raw sockets, new namespaces, TIOCSTI and so on are decided by
    /// the kernel's ordinary checks alone.
    Seccomp,
    /// No Landlock: abstract sockets and signals are no longer scoped, and a hole in the mounts is no longer covered.
    Landlock,
    /// Every command has all capabilities of the user namespace: what needs one is stopped by the call filter and by
    /// the mounts' belonging to a namespace above alone.
    Capabilities,
    /// `no_new_privs` is not set: setuid programs would gain rights where a mount allows them.
    NoNewPrivs,
    /// Files of /proc that tell about the machine (kallsyms, keys, kmsg and so on) are not covered.
    ProcHidden,
    /// /proc is mounted read-write: sysctls of the own namespaces and oom_score_adj can be tried.
    ReadOnlyProc,
    /// The caller's process ids: other processes of the machine are seen, and those of the same user can be reached.
    /// What a command leaves behind is found by its mark only, and may outlive the box.
    PidNamespace,
    /// The caller's network: loopback services of the host, the metadata address and the outside are reachable.
    NetNamespace,
    /// The caller's System V and POSIX objects.
    IpcNamespace,
    /// The caller's host name.
    UtsNamespace,
    /// The root folder and /etc are writable, and Landlock allows it: programs of the box can be led astray by files
    /// that a command before them put there.
    ReadOnlySystem,
    /// Masked paths of the workspace are readable.
    Masks,
    /// Commands get the variables that the init was started with, and the box's on top.
    EnvironmentCleared,
    /// No memory ceiling: one command can take all of the machine's.
    Memory,
    /// No process ceiling: a fork bomb takes the machine's process ids.
    Pids,
    /// What a command leaves behind lives on until the box ends.
    KillBackground,
    /// File requests resolve without the kernel's beneath rule: `..`, absolute paths and links lead anywhere in the box.
    FilesBeneath,
    /// Commands start in no domain of their own: a process looks into those of other commands, and writes into their output
    /// where it may open it.
    Siblings,
    /// The box can use up what the kernel counts by user, inotify instances for one.
    Counts,
    /// A list of programs is not held: commands execute what they like.
    ProgramList,
}

impl DisabledProtection {
    /// All of them.
    pub const ALL: &[Self] = &[
        Self::Seccomp,
        Self::Landlock,
        Self::Capabilities,
        Self::NoNewPrivs,
        Self::ProcHidden,
        Self::ReadOnlyProc,
        Self::PidNamespace,
        Self::NetNamespace,
        Self::IpcNamespace,
        Self::UtsNamespace,
        Self::ReadOnlySystem,
        Self::Masks,
        Self::EnvironmentCleared,
        Self::Memory,
        Self::Pids,
        Self::KillBackground,
        Self::FilesBeneath,
        Self::Siblings,
        Self::Counts,
        Self::ProgramList,
    ];

    /// What the report calls missing without it.
    #[must_use]
    pub const fn layer(self) -> IsolationLayer {
        match self {
            Self::Seccomp => IsolationLayer::Seccomp,
            Self::Landlock => IsolationLayer::Landlock,
            Self::Capabilities => IsolationLayer::Capabilities,
            Self::PidNamespace => IsolationLayer::PidNamespace,
            Self::NetNamespace => IsolationLayer::NetNamespace,
            Self::IpcNamespace => IsolationLayer::IpcNamespace,
            Self::UtsNamespace => IsolationLayer::UtsNamespace,
            Self::Memory => IsolationLayer::Memory,
            Self::Pids => IsolationLayer::Pids,
            Self::ProgramList => IsolationLayer::ProgramList,
            other => IsolationLayer::Measure(other),
        }
    }

    /// The measure in words.
    #[must_use]
    pub const fn describe(self) -> &'static str {
        match self {
            Self::Seccomp => "system call filter",
            Self::Landlock => "landlock",
            Self::Capabilities => "no capabilities",
            Self::NoNewPrivs => "no new privileges",
            Self::ProcHidden => "covered files of /proc",
            Self::ReadOnlyProc => "read-only /proc",
            Self::PidNamespace => "own process ids",
            Self::NetNamespace => "own network",
            Self::IpcNamespace => "own ipc objects",
            Self::UtsNamespace => "own host name",
            Self::ReadOnlySystem => "read-only system",
            Self::Masks => "masked files",
            Self::EnvironmentCleared => "environment from nothing",
            Self::Memory => "memory limit",
            Self::Pids => "process limit",
            Self::KillBackground => "end of what commands leave behind",
            Self::FilesBeneath => "file requests beneath the workspace",
            Self::Siblings => "commands kept apart",
            Self::Counts => "share of what is counted by user",
            Self::ProgramList => "program list",
        }
    }
}

/// One bind of a host path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostBind {
    /// Absolute path on the host.
    pub source: PathBuf,
    /// Absolute path inside the box; not below `/workspace`, `/proc`, `/dev` or `/etc`.
    pub target: PathBuf,
    /// What happens when the source does not exist.
    pub missing: MissingSource,
}

/// What to do about a bind whose source does not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MissingSource {
    /// Leave it out.
    Skip,
    /// The box does not start.
    Fail,
}

/// Network access of the box.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NetworkAccess {
    /// A network namespace of its own with nothing but loopback.
    #[default]
    Off,
    /// The host's network, asked for by name. Host loopback services are then reachable too.
    Host,
}

/// Resource ceilings of the box as a whole, unless said otherwise.
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
    /// A box around `workspace` with the default limits, no network and the smallest useful environment.
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

    /// Whether nothing that commands can write may become code: its mounts are then without.
    pub(crate) fn forbids_written_code(&self) -> bool {
        !self.lacks_protection(DisabledProtection::ProgramList)
            && written_code(self.programs.as_deref()) == WrittenCode::None
    }

    /// Whether a protective measure is left out.
    pub(crate) fn lacks_protection(&self, weakness: DisabledProtection) -> bool {
        self.without.contains(&weakness)
    }

    /// What is wrong with the description, if anything: said before any process is started.
    pub(crate) fn validation_error(&self) -> Option<String> {
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

/// Whether a path is none that the box could be told: relative, or with `..` in it.
fn is_unusable_path(path: &Path) -> bool {
    !path.is_absolute() || path.components().any(|c| matches!(c, Component::ParentDir))
}
