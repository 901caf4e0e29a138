//! The prober: the program inside the sandbox that makes the attempts.
//!
//! The prober is the Forge binary itself, so it runs in any image: it is started as `/run/forge/forge forge-prober
//! TASK` with the task in JSON, handled by [`run_prober_task`], and writes one line of JSON for each attempt. Every
//! attempt is made in a separate process with little time, because some attempts kill the process that makes them.

pub(super) mod controls;
pub(super) mod files;
pub(super) mod network;
pub(super) mod processes;
pub(super) mod programs;
mod resource_exhaustion;
mod siblings;
mod unattributed_memory;
mod workspace_artifacts;

pub(super) use processes::USER_SHARE_LAYER;
pub(super) use resource_exhaustion::{FAKE_EXIT_CODE, FAKE_PROTOCOL_OUTPUT};
pub(super) use siblings::FORGED_LINE;
pub(super) use workspace_artifacts::{DEEP_TREE_DEPTH, ODD_NAMES};

use super::host_facts::{HostFacts, ProbeLine, ProberTask, probe_untested};
use super::table::{PROBES, ProbeMethod};
use crate::attempts::{AttemptOutcome, ChildEnd, in_child};
use std::io::Write as _;
use std::os::fd::RawFd;
use std::time::{Duration, Instant};

/// First argument that makes the binary act as the prober.
pub const PROBER_ARG: &str = "forge-prober";
/// Maximum time of an attempt.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);

/// Performs a task and returns the exit code.
pub fn run_prober_task(task: Option<&str>) -> i32 {
    let inherited = inherited_descriptors();
    let Some(Ok(task)) = task.map(serde_json::from_str::<ProberTask>) else {
        return 2;
    };
    let done = match task {
        ProberTask::Probes { scene, names } => run_attempts(HostFacts { inherited, ..*scene }, &names),
        ProberTask::Exhaust { ceiling, limit, token } => {
            resource_exhaustion::exhaust_ceiling(ceiling, limit, &token)
        }
        ProberTask::Plant { canaries } => workspace_artifacts::plant_traps(&canaries),
        ProberTask::Litter { outside } => workspace_artifacts::make_hostile_files(&outside),
        ProberTask::Swap { target } => workspace_artifacts::swap_dir_and_link(&target),
        ProberTask::Exist { paths } => {
            print_json_line(&paths.iter().filter(|path| path.symlink_metadata().is_ok()).collect::<Vec<_>>())
        }
        ProberTask::Count => print_json_line(&processes::count_other_processes()),
    };
    i32::from(done.is_err())
}

/// Returns descriptors other than the three streams with their targets, except the one used for listing them.
fn inherited_descriptors() -> Vec<(RawFd, String)> {
    let Ok(entries) = std::fs::read_dir("/proc/self/fd") else { return Vec::new() };
    let numbers: Vec<RawFd> =
        entries.flatten().filter_map(|e| e.file_name().to_str()?.parse().ok()).collect();
    let link =
        |fd: RawFd| Some((fd, std::fs::read_link(format!("/proc/self/fd/{fd}")).ok()?.display().to_string()));
    numbers.into_iter().filter(|fd| *fd > 2).filter_map(link).collect()
}

fn run_attempts(scene: HostFacts, names: &[String]) -> std::io::Result<()> {
    for name in names {
        let begun = Instant::now();
        let probe = PROBES.iter().find(|probe| probe.name == name);
        let outcome = match probe.map(|probe| probe.tried) {
            Some(ProbeMethod::Inside(tried) | ProbeMethod::Listed(tried)) => run_in_child(tried, &scene),
            _ => probe_untested("no such attempt exists"),
        };
        let millis = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        print_json_line(&ProbeLine { probe: name.clone(), outcome, millis })?;
    }
    Ok(())
}

/// Makes an attempt in a separate process.
fn run_in_child(tried: fn(&HostFacts) -> AttemptOutcome, scene: &HostFacts) -> AttemptOutcome {
    // SIGSYS: the filter kills the process for calls of other architectures.
    const SIGSYS: i32 = 31;
    match in_child(ATTEMPT_TIMEOUT, || serde_json::to_vec(&tried(scene)).unwrap_or_default()) {
        Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_else(|error| probe_untested(error.to_string())),
        Err(ChildEnd::Signal(SIGSYS)) => {
            AttemptOutcome::Passed("the call filter killed the process".to_owned())
        }
        Err(ChildEnd::Signal(signal)) => probe_untested(format!("signal {signal} ended the attempt")),
        Err(ChildEnd::NotStarted(errno)) => {
            probe_untested(format!("no process could be started, error {errno}"))
        }
        Err(ChildEnd::Silent) => probe_untested("the attempt ended without an answer"),
        Err(ChildEnd::TimedOut) => probe_untested(format!("no answer in {ATTEMPT_TIMEOUT:?}")),
    }
}

fn print_json_line(value: &impl serde::Serialize) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    std::io::stdout().lock().write_all(&line)
}
