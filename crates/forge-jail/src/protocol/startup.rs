//! Messages from the start of an init until it serves requests, and the requests that the host side adds to them.

use std::fs;
use std::os::unix::fs::MetadataExt;

use serde::{Deserialize, Serialize};

use super::helper_binary::HelperBinary;
use forge_jail_protocol::{IsolationLayer, JailRequest, JailSpec, LayerReport, OverlayAttributes, RawBytes};

/// The input of the init: the sandbox, and nothing else of the caller's memory.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct InitBoot {
    /// The description of the sandbox.
    pub(crate) spec: JailSpec,
    /// The user id to run as, if started by root; its name is descriptor 2 if `has_name_fd`.
    pub(crate) user: Option<u32>,
    /// Whether descriptor 2 holds the name.
    pub(crate) has_name_fd: bool,
    /// The files with which the own binary runs inside an image that lacks its libraries.
    pub(crate) helper: Option<HelperBinary>,
}

/// A command to an init that has built the base of its sandbox.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum SetupCommand {
    /// Join the control groups; their thread lists are passed with the message.
    Join,
    /// Become this sandbox. The parts that the base was built from are unchanged.
    ApplySpec(Box<JailSpec>),
}

/// The meaning of a failed step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FailureCause {
    /// A step failed that works on every machine.
    Step,
    /// The layer is missing on this machine.
    Layer(IsolationLayer),
    /// The file system of this path cannot show files under another owner.
    IdMap(RawBytes),
    /// A copy-on-write overlay is not possible.
    Overlay,
    /// The image cannot be used.
    Image,
}

/// A message of the init while the sandbox is being built.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "start")]
pub(crate) enum StartupMessage {
    /// The init exists; `pid` is its process id as the caller sees it.
    Pid {
        /// The process id.
        pid: i32,
    },
    /// The sandbox is ready; the listener is passed with the message if one was requested.
    Ready {
        /// The layers in force.
        layers: Vec<LayerReport>,
        /// The attributes that the overlays use, if there are any.
        overlay: Option<OverlayAttributes>,
        /// Warnings about the sandbox, as text for the user.
        warnings: Vec<String>,
    },
    /// The parts common to all sandboxes are ready; the init waits for the specification.
    BaseReady,
    /// The init was told to join its control groups.
    Joined {
        /// Whether it has joined all of them.
        joined: bool,
    },
    /// A step failed.
    Failed {
        /// The meaning of the failure.
        about: FailureCause,
        /// The step that failed.
        step: String,
        /// The kernel's error number.
        errno: i32,
    },
}

/// A request as the client sends it: the user's, or one of the client itself.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum InitRequest {
    /// A request from the user of the crate.
    Asked(JailRequest),
    /// An order to watch the memory, because no control group counts it.
    Watch {
        /// The limit in bytes.
        watch_memory: u64,
    },
}

/// The specification that the init of a container receives.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ContainerBoot {
    /// The description of the sandbox; only the environment and the limits per process are used.
    pub(crate) spec: JailSpec,
    /// The namespaces of the caller: a container that shares one of them does not have that layer.
    pub(crate) outside: Vec<(IsolationLayer, u64)>,
    /// Device and inode of the directory expected as the workspace, if the caller knows it.
    pub(crate) workspace: Option<(u64, u64)>,
}

/// The namespaces that are compared, by their names in `/proc/PID/ns`.
const COMPARED_NAMESPACES: &[(&str, IsolationLayer)] = &[
    ("user", IsolationLayer::UserNamespace),
    ("mnt", IsolationLayer::MountNamespace),
    ("pid", IsolationLayer::PidNamespace),
    ("net", IsolationLayer::NetNamespace),
    ("ipc", IsolationLayer::IpcNamespace),
    ("uts", IsolationLayer::UtsNamespace),
    ("cgroup", IsolationLayer::CgroupNamespace),
];

/// Returns the namespaces of this process.
pub(crate) fn own_namespaces() -> Vec<(IsolationLayer, u64)> {
    let inode = |name: &str| fs::metadata(format!("/proc/self/ns/{name}")).map(|m| m.ino());
    COMPARED_NAMESPACES.iter().filter_map(|(name, layer)| Some((*layer, inode(name).ok()?))).collect()
}
