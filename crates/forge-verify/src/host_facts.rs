//! What the attempts inside are told about the host: where the canaries are, never what is in them.

use crate::attempts::AttemptOutcome;
use forge_types::NetworkPolicy;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::os::fd::RawFd;
use std::path::PathBuf;

/// The other side of the box's walls, as data for the prober.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct HostFacts {
    /// Part of every name that the attempts use, so that what they leave can be found.
    pub(super) token: String,
    /// A file of the host whose content nobody in the box may learn.
    pub(super) secret: PathBuf,
    /// Its inode.
    pub(super) inode: u64,
    /// A TCP listener and a UDP socket on the host's loopback.
    pub(super) tcp: u16,
    pub(super) udp: u16,
    /// An abstract socket's name.
    pub(super) socket: String,
    /// Keys of System V objects, name of a POSIX queue. Those that the host could not make are absent.
    pub(super) memory: Option<i32>,
    pub(super) queue: Option<i32>,
    pub(super) posix: Option<String>,
    /// A process of the host, and a word in its command line.
    pub(super) process: i32,
    pub(super) mark: String,
    /// The host's namespaces by kind.
    pub(super) namespaces: BTreeMap<String, String>,
    pub(super) hostname: String,
    /// Digest of the host's list of users and list of names.
    pub(super) etc: String,
    /// Variables in forge's own environment, each with the digest of its value.
    pub(super) variables: BTreeMap<String, String>,
    /// Variables that the box is meant to have.
    pub(super) allowed: Vec<String>,
    /// Masked files, relative to the workspace.
    pub(super) masked: Vec<String>,
    /// Mounts at or below these may come from anywhere on the host.
    pub(super) binds: Vec<PathBuf>,
    /// The network that was asked for.
    pub(super) network: NetworkPolicy,
    /// The backend by name.
    pub(super) backend: String,
    /// Layers that the box itself says are not in force.
    pub(super) lacking: Vec<String>,
    /// Descriptors that the prober was started with, beside its streams.
    #[serde(skip)]
    pub(super) inherited: Vec<(RawFd, String)>,
}

impl HostFacts {
    /// A name of a file for attempts.
    pub(super) fn attempt_name(&self, what: &str) -> String {
        format!("forge-probe-{}-{what}", self.token)
    }

    /// `outcome`, unless the box is meant to reach the host's network.
    pub(super) fn unless_host_network(&self, outcome: impl FnOnce() -> AttemptOutcome) -> AttemptOutcome {
        match self.network {
            NetworkPolicy::Host => probe_not_applicable("the host's network was asked for"),
            _ => outcome(),
        }
    }

    /// Why a layer that the box says it lacks cannot hold.
    pub(super) fn missing_layer(&self, layer: &str) -> Option<AttemptOutcome> {
        let lacking = self.lacking.iter().any(|l| l == layer);
        lacking.then(|| probe_not_applicable(&format!("the box reports that it has no {layer} here")))
    }
}

/// A control in one line.
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

/// What one probe came to, as a line of the prober.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct ProbeLine {
    pub(super) probe: String,
    pub(super) outcome: AttemptOutcome,
    pub(super) millis: u64,
}

/// What the prober is asked to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum ProberTask {
    /// Make these attempts, one line each.
    Probes { scene: Box<HostFacts>, names: Vec<String> },
    /// Press on one ceiling.
    Exhaust { ceiling: ResourceCeiling, limit: u64, token: String },
    /// Leave traps for whoever works with the workspace on the host; they would write below this folder.
    Plant { canaries: PathBuf },
    /// Make files that are hard to work with.
    Litter { outside: PathBuf },
    /// Swap a folder and a link to `target` until it is killed.
    Swap { target: PathBuf },
    /// Say which of these paths exist.
    Exist { paths: Vec<PathBuf> },
    /// Say how many processes there are beside the init and the prober.
    Count,
}

/// What is pressed on.
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
    /// Memory files that nobody maps.
    MemoryFiles,
    /// What waits in sockets.
    Sockets,
    /// Processes that hide.
    Hidden,
    /// A daemon that reaches for others until it is told to end.
    Reach,
    /// Runs until that one has tried.
    Reached,
}
