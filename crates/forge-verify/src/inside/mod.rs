//! The prober: the program inside the box that makes the attempts.
//!
//! It is the same binary as everything else of Forge, so any image will do: [`answer`] is started as
//! `/run/forge/forge forge-prober TASK`, the task in JSON, and writes one line of JSON for each attempt. Every attempt
//! is made in a process of its own with little time, because some attempts kill whoever makes them.

pub(super) mod controls;
pub(super) mod files;
mod hoard;
pub(super) mod network;
mod pile;
mod press;
pub(super) mod processes;
pub(super) mod programs;
mod siblings;

pub(super) use pile::{DEPTH, NAMES};
pub(super) use press::{POSE, POSER_CODE};
pub(super) use processes::SHARE;
pub(super) use siblings::FORGED;

use super::scene::{Line, Scene, Task, untested};
use super::table::{PROBES, Try};
use crate::attempts::{ChildEnd, Outcome, in_child};
use std::io::Write as _;
use std::os::fd::RawFd;
use std::time::{Duration, Instant};

/// The first argument by which the binary in the box is the prober.
pub const PROBER: &str = "forge-prober";
/// An attempt takes at most so long.
const LONGEST: Duration = Duration::from_secs(10);

/// Does a task and gives the exit code.
pub fn answer(task: Option<&str>) -> i32 {
    let inherited = descriptors();
    let Some(Ok(task)) = task.map(serde_json::from_str::<Task>) else {
        return 2;
    };
    let done = match task {
        Task::Probes { scene, names } => probes(Scene { inherited, ..*scene }, &names),
        Task::Press { ceiling, limit, token } => press::press(ceiling, limit, &token),
        Task::Plant { canaries } => pile::plant(&canaries),
        Task::Litter { outside } => pile::litter(&outside),
        Task::Swap { target } => pile::swap(&target),
        Task::Exist { paths } => {
            print(&paths.iter().filter(|path| path.symlink_metadata().is_ok()).collect::<Vec<_>>())
        }
        Task::Count => print(&processes::others()),
    };
    i32::from(done.is_err())
}

/// Descriptors beyond the three streams, with what they are. The one that lists them is not among them.
fn descriptors() -> Vec<(RawFd, String)> {
    let Ok(entries) = std::fs::read_dir("/proc/self/fd") else { return Vec::new() };
    let numbers: Vec<RawFd> =
        entries.flatten().filter_map(|e| e.file_name().to_str()?.parse().ok()).collect();
    let link =
        |fd: RawFd| Some((fd, std::fs::read_link(format!("/proc/self/fd/{fd}")).ok()?.display().to_string()));
    numbers.into_iter().filter(|fd| *fd > 2).filter_map(link).collect()
}

fn probes(scene: Scene, names: &[String]) -> std::io::Result<()> {
    for name in names {
        let begun = Instant::now();
        let probe = PROBES.iter().find(|probe| probe.name == name);
        let outcome = match probe.map(|probe| probe.tried) {
            Some(Try::Inside(tried) | Try::Listed(tried)) => alone(tried, &scene),
            _ => untested("there is no such attempt"),
        };
        let millis = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        print(&Line { probe: name.clone(), outcome, millis })?;
    }
    Ok(())
}

/// Makes an attempt in a process of its own.
fn alone(tried: fn(&Scene) -> Outcome, scene: &Scene) -> Outcome {
    // SIGSYS: the filter kills for calls of other architectures.
    const SIGSYS: i32 = 31;
    match in_child(LONGEST, || serde_json::to_vec(&tried(scene)).unwrap_or_default()) {
        Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_else(|error| untested(error.to_string())),
        Err(ChildEnd::Signal(SIGSYS)) => Outcome::Held("the call filter killed the process".to_owned()),
        Err(ChildEnd::Signal(signal)) => untested(format!("signal {signal} ended the attempt")),
        Err(ChildEnd::NotStarted(errno)) => untested(format!("no process could be started, error {errno}")),
        Err(ChildEnd::Silent) => untested("the attempt ended without an answer"),
        Err(ChildEnd::TimedOut) => untested(format!("no answer in {LONGEST:?}")),
    }
}

fn print(value: &impl serde::Serialize) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    std::io::stdout().lock().write_all(&line)
}
