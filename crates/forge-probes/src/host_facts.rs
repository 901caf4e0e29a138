//! Host facts for the attempts inside a sandbox: the locations of the canaries, but never their contents.

use crate::attempts::AttemptOutcome;
use forge_types::NetworkPolicy;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::os::fd::RawFd;
use std::path::PathBuf;

/// Data about the host, passed to the prober.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct HostFacts {
    /// Part of every name that the attempts use, so that their traces can be found.
    pub(super) token: String,
    /// A host file with content that must not become known in the sandbox.
    pub(super) secret: PathBuf,
    /// Inode of the secret file.
    pub(super) inode: u64,
    /// Ports of a TCP listener and a UDP socket on the host's loopback.
    pub(super) tcp: u16,
    pub(super) udp: u16,
    /// Name of an abstract socket.
    pub(super) socket: String,
    /// Keys of System V objects, name of a POSIX queue; `None` if the host could not create them.
    pub(super) memory: Option<i32>,
    pub(super) queue: Option<i32>,
    pub(super) posix: Option<String>,
    /// A process of the host, and a word in its command line.
    pub(super) process: i32,
    pub(super) mark: String,
    /// The host's namespaces by kind.
    pub(super) namespaces: BTreeMap<String, String>,
    pub(super) hostname: String,
    /// Digest of the host's lists of users and host names.
    pub(super) etc: String,
    /// Variables in Forge's own environment, each with the digest of its value.
    pub(super) variables: BTreeMap<String, String>,
    /// Variables that the sandbox is meant to have.
    pub(super) allowed: Vec<String>,
    /// Masked files, relative to the workspace.
    pub(super) masked: Vec<String>,
    /// Paths below which mounts may come from anywhere on the host.
    pub(super) binds: Vec<PathBuf>,
    /// The requested network.
    pub(super) network: NetworkPolicy,
    /// Name of the backend.
    pub(super) backend: String,
    /// Layers that the sandbox itself reports as absent.
    pub(super) lacking: Vec<String>,
    /// Descriptors that the prober inherited in addition to its streams.
    #[serde(skip)]
    pub(super) inherited: Vec<(RawFd, String)>,
}

impl HostFacts {
    /// Returns a file name for an attempt.
    pub(super) fn attempt_name(&self, what: &str) -> String {
        format!("forge-probe-{}-{what}", self.token)
    }

    /// Returns `outcome`, unless the sandbox is meant to reach the host's network.
    pub(super) fn unless_host_network(&self, outcome: impl FnOnce() -> AttemptOutcome) -> AttemptOutcome {
        match self.network {
            NetworkPolicy::Host => probe_not_applicable("the host's network was requested"),
            _ => outcome(),
        }
    }

    /// Returns a not-applicable outcome if the sandbox reports this layer as absent.
    pub(super) fn missing_layer(&self, layer: &str) -> Option<AttemptOutcome> {
        let lacking = self.lacking.iter().any(|l| l == layer);
        lacking.then(|| probe_not_applicable(&format!("the sandbox reports that it has no {layer} here")))
    }
}

/// Creates a passed outcome with a one-line description.
pub(super) fn probe_passed(text: impl ToString) -> AttemptOutcome {
    AttemptOutcome::Passed(text.to_string())
}

pub(super) fn probe_failed(text: impl ToString) -> AttemptOutcome {
    AttemptOutcome::Failed(text.to_string())
}

pub(super) fn probe_not_applicable(text: &str) -> AttemptOutcome {
    AttemptOutcome::NotApplicable(text.to_owned())
}

pub(super) fn probe_untested(text: impl ToString) -> AttemptOutcome {
    AttemptOutcome::Untested(text.to_string())
}

/// The outcome of one probe, as a line of the prober's output.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct ProbeLine {
    pub(super) probe: String,
    pub(super) outcome: AttemptOutcome,
    pub(super) millis: u64,
}

/// A task for the prober.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum ProberTask {
    /// Makes these attempts, with one line of output each.
    Probes { scene: Box<HostFacts>, names: Vec<String> },
    /// Presses on one limit.
    Exhaust { ceiling: ResourceCeiling, limit: u64, token: String },
    /// Plants traps for programs that use the workspace on the host; the traps would write below this directory.
    Plant { canaries: PathBuf },
    /// Creates files that are hard to handle.
    Litter { outside: PathBuf },
    /// Swaps a directory and a link to `target` until killed.
    Swap { target: PathBuf },
    /// Reports which of these paths exist.
    Exist { paths: Vec<PathBuf> },
    /// Reports the number of processes other than the init and the prober.
    Count,
}

/// The resource to exhaust.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum ResourceCeiling {
    Processes,
    Bomb,
    Descriptors,
    Memory,
    TmpBytes,
    TmpFiles,
    Output,
    Spin,
    IgnoreTerm,
    Daemon,
    Stdin,
    HoldOutput,
    FakeProtocol,
    /// Memory files that no process maps.
    MemoryFiles,
    /// Data that waits in sockets.
    Sockets,
    /// Processes that hide.
    Hidden,
    /// A daemon that tries to reach other processes until told to stop.
    Reach,
    /// A command that runs until that daemon has tried.
    Reached,
}
