//! The isolation layers, and the state of each after a sandbox has started.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::spec::DisabledProtection;

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
    pub(crate) fn enforced(layer: IsolationLayer, how: impl Into<String>) -> Self {
        Self { layer, state: JailLayerState::Enforced { how: how.into() }, remedy: None }
    }

    /// Reports a layer that is in force in a weaker form.
    pub(crate) fn degraded(layer: IsolationLayer, why: impl Into<String>, remedy: Option<&str>) -> Self {
        Self { layer, state: JailLayerState::Degraded { why: why.into() }, remedy: remedy.map(str::to_owned) }
    }

    /// Reports a layer that is absent.
    pub(crate) fn missing(layer: IsolationLayer, why: impl Into<String>, remedy: Option<String>) -> Self {
        Self { layer, state: JailLayerState::Missing { why: why.into() }, remedy }
    }

    /// Reports a layer that a test left out.
    pub(crate) fn left_out(weakness: DisabledProtection) -> Self {
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
