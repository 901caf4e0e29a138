//! Properties of a machine on which a verdict depends.

use crate::attempts::landlock_abi;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Kernel settings that affect which sandboxes are possible.
const KERNEL_SETTINGS: &[&str] = &[
    "kernel/unprivileged_userns_clone",
    "kernel/apparmor_restrict_unprivileged_userns",
    "kernel/unprivileged_bpf_disabled",
    "kernel/io_uring_disabled",
    "kernel/yama/ptrace_scope",
    "user/max_user_namespaces",
];

/// Facts about a machine that do not change when it is restarted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostFingerprint {
    /// Kernel release.
    pub kernel: String,
    /// Processor architecture.
    pub machine: String,
    /// ID of the user that opens sandboxes.
    pub uid: u32,
    /// Version of control groups: `v2`, `v1`, `hybrid` or `none`.
    pub cgroups: String,
    /// Security modules of the kernel; empty if unknown.
    pub modules: String,
    /// Version of Landlock; 0 if not available.
    pub landlock: u32,
    /// Kernel settings that affect which sandboxes are possible, as far as they exist.
    pub settings: BTreeMap<String, String>,
}

impl HostFingerprint {
    pub(super) fn of_this_machine() -> Self {
        let line = |path: &str| fs::read_to_string(path).ok().map(|text| text.trim().to_owned());
        let setting = |name: &&str| Some(((*name).to_owned(), line(&format!("/proc/sys/{name}"))?));
        Self {
            kernel: line("/proc/sys/kernel/osrelease").unwrap_or_default(),
            machine: std::env::consts::ARCH.to_owned(),
            uid: rustix::process::geteuid().as_raw(),
            cgroups: cgroup_version().to_owned(),
            modules: line("/sys/kernel/security/lsm").unwrap_or_default(),
            landlock: landlock_abi(),
            settings: KERNEL_SETTINGS.iter().filter_map(setting).collect(),
        }
    }
}

fn cgroup_version() -> &'static str {
    let there = |path: &str| Path::new("/sys/fs/cgroup").join(path).exists();
    match (there("cgroup.controllers"), there("memory") || there("pids"), there("unified")) {
        (true, _, _) => "v2",
        (_, true, true) => "hybrid",
        (_, true, false) => "v1",
        _ => "none",
    }
}
