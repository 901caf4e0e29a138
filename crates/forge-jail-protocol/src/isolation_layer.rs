//! The isolation layers, the protections that a test can leave out, and the state of each layer after a start.

use std::fmt;

use serde::{Deserialize, Serialize};

/// An isolation layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IsolationLayer {
    /// Own user namespace: no id of the sandbox is an id of the host.
    UserNamespace,
    /// Own mount namespace with a root directory built from scratch.
    MountNamespace,
    /// Own process ids; everything dies with the sandbox's init.
    PidNamespace,
    /// Own network with loopback only.
    NetNamespace,
    /// Own System V and POSIX message queues.
    IpcNamespace,
    /// Own host name.
    UtsNamespace,
    /// Own view of control groups.
    CgroupNamespace,
    /// All capabilities dropped and no way to gain any.
    Capabilities,
    /// System call allow-list.
    Seccomp,
    /// Landlock file and scope rules on top of the mounts.
    Landlock,
    /// Files created in the sandbox belong to the workspace's owner on disk.
    IdMappedMount,
    /// Memory ceiling.
    Memory,
    /// Process ceiling.
    Pids,
    /// CPU ceiling.
    Cpu,
    /// Commands execute listed programs only; reported only where there is a list.
    ProgramList,
    /// A protection in force in every sandbox; reported only where a test left it out or the machine does not allow it.
    Measure(DisabledProtection),
}

impl IsolationLayer {
    /// Returns whether a sandbox refuses to start without this layer.
    #[must_use]
    pub const fn is_required(self) -> bool {
        !matches!(self, Self::Landlock | Self::CgroupNamespace | Self::Memory | Self::Pids | Self::Cpu)
    }

    /// Returns a description of the layer.
    #[must_use]
    pub const fn describe(self) -> &'static str {
        match self {
            Self::UserNamespace => "user namespace",
            Self::MountNamespace => "mount namespace",
            Self::PidNamespace => "pid namespace",
            Self::NetNamespace => "network namespace",
            Self::IpcNamespace => "ipc namespace",
            Self::UtsNamespace => "uts namespace",
            Self::CgroupNamespace => "cgroup namespace",
            Self::Capabilities => "capabilities",
            Self::Seccomp => "seccomp",
            Self::Landlock => "landlock",
            Self::IdMappedMount => "id-mapped mount",
            Self::Memory => "memory limit",
            Self::Pids => "process limit",
            Self::Cpu => "cpu limit",
            Self::ProgramList => "program list",
            Self::Measure(weakness) => weakness.describe(),
        }
    }
}

impl fmt::Display for IsolationLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.describe())
    }
}

/// A protection that a sandbox can be started without, so that a suite of escape attempts can show that it detects the
/// gap. Never for real work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DisabledProtection {
    /// No system call filter: ptrace, keyrings, io_uring, raw sockets, new namespaces, TIOCSTI and so on are subject
    /// only to the kernel's ordinary checks.
    Seccomp,
    /// No Landlock: abstract sockets and signals are no longer scoped, and a hole in the mounts is no longer covered.
    Landlock,
    /// Every command has all capabilities of the user namespace: operations that need one are stopped only by the
    /// system call filter and because the mounts belong to a parent namespace.
    Capabilities,
    /// `no_new_privs` is not set: setuid programs could gain privileges where a mount allows them.
    NoNewPrivs,
    /// Files of /proc that reveal the machine (kallsyms, keys, kmsg and so on) are not covered.
    ProcHidden,
    /// /proc is mounted read-write: commands can try sysctls of their own namespaces and oom_score_adj.
    ReadOnlyProc,
    /// The caller's process ids: other processes of the machine are visible, and those of the same user can be reached.
    /// Processes that outlive a command are found only by their mark and may outlive the sandbox.
    PidNamespace,
    /// The caller's network: loopback services of the host, the metadata address and the outside are reachable.
    NetNamespace,
    /// The caller's System V and POSIX objects.
    IpcNamespace,
    /// The caller's host name.
    UtsNamespace,
    /// The root directory and /etc are writable, and Landlock allows it: a command can place files that mislead
    /// programs of later commands.
    ReadOnlySystem,
    /// Masked paths of the workspace are readable.
    Masks,
    /// Commands get the variables that the init was started with, plus those of the sandbox.
    EnvironmentCleared,
    /// No memory ceiling: one command can take all memory of the machine.
    Memory,
    /// No process ceiling: a fork bomb takes all process ids of the machine.
    Pids,
    /// Processes that outlive a command run until the sandbox ends.
    KillBackground,
    /// File requests resolve without `RESOLVE_BENEATH`: `..`, absolute paths and links lead anywhere in the sandbox.
    FilesBeneath,
    /// Commands start without a Landlock domain of their own: a process can inspect processes of other commands, and
    /// write into their output where it may open it.
    Siblings,
    /// The sandbox can exhaust what the kernel counts per user, such as inotify instances.
    Counts,
    /// A program list is not enforced: commands can execute any program.
    ProgramList,
}

impl DisabledProtection {
    /// All protections.
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

    /// Returns the layer that a report lists as missing without this protection.
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

    /// Returns a description of the protection.
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

/// The state of a layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum JailLayerState {
    /// In force as specified; `how` names the mechanism where there are several.
    Enforced {
        /// The mechanism, e.g. "cgroup v1".
        how: String,
    },
    /// In force, but weaker than specified.
    Degraded {
        /// The weaker part, and the reason.
        why: String,
    },
    /// Not in force.
    Missing {
        /// The reason.
        why: String,
    },
}

/// One line of the report about a sandbox or a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerReport {
    /// The layer.
    pub layer: IsolationLayer,
    /// The state of the layer.
    pub state: JailLayerState,
    /// The action with which the user can get the layer, if there is one.
    pub remedy: Option<String>,
}

impl LayerReport {
    /// Reports a layer that is in force.
    pub fn enforced(layer: IsolationLayer, how: impl Into<String>) -> Self {
        Self { layer, state: JailLayerState::Enforced { how: how.into() }, remedy: None }
    }

    /// Reports a layer that is in force in a weaker form.
    pub fn degraded(layer: IsolationLayer, why: impl Into<String>, remedy: Option<&str>) -> Self {
        Self { layer, state: JailLayerState::Degraded { why: why.into() }, remedy: remedy.map(str::to_owned) }
    }

    /// Reports a layer that is absent.
    pub fn missing(layer: IsolationLayer, why: impl Into<String>, remedy: Option<String>) -> Self {
        Self { layer, state: JailLayerState::Missing { why: why.into() }, remedy }
    }

    /// Reports a layer that a test left out.
    pub fn left_out(weakness: DisabledProtection) -> Self {
        Self::missing(weakness.layer(), "left out on purpose, for a test", None)
    }

    /// Returns whether the layer is absent and required.
    #[must_use]
    pub fn blocks_start(&self) -> bool {
        self.layer.is_required() && matches!(self.state, JailLayerState::Missing { .. })
    }
}

impl fmt::Display for LayerReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.state {
            JailLayerState::Enforced { how } if how.is_empty() => write!(f, "{}: enforced", self.layer)?,
            JailLayerState::Enforced { how } => write!(f, "{}: enforced ({how})", self.layer)?,
            JailLayerState::Degraded { why } => write!(f, "{}: weaker ({why})", self.layer)?,
            JailLayerState::Missing { why } => write!(f, "{}: missing ({why})", self.layer)?,
        }
        match &self.remedy {
            Some(remedy) => write!(f, "; {remedy}"),
            None => Ok(()),
        }
    }
}
