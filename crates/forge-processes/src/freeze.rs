//! Stopping every process of the sandbox for a moment, so that a snapshot contains no half-done work.

use std::fs;
use std::time::{Duration, Instant};

use rustix::event::{Timespec, poll};

use crate::process_files::{self, process_ids};
use forge_sys as sys;

/// Time within which every process stops, unless it hangs in the kernel.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// Time between two checks, in nanoseconds.
const STOP_POLL_NS: i64 = 200_000;
/// Number of consecutive checks after which a blocked process is taken for one that waits for its `vfork` child: it
/// never stops while the child does.
const MAX_BLOCKED_POLLS: u32 = 50;

/// The processes of a frozen sandbox.
#[derive(Debug, Default)]
pub struct StoppedProcesses {
    /// Processes that were already stopped from inside: they stay stopped.
    before: Vec<i32>,
}

/// Stops every process but the init; `None` when one could not be stopped, in which case all are resumed.
pub fn freeze_processes() -> Option<StoppedProcesses> {
    let before = process_ids().filter(|pid| is_stopped(*pid)).collect();
    let frozen = StoppedProcesses { before };
    let limit = Instant::now() + STOP_TIMEOUT;
    let mut waits = 0;
    loop {
        // Repeated each time: a process being forked at the first signal gets the next one.
        sys::kill(-1, libc::SIGSTOP);
        let states: Vec<ProcessState> = process_ids().map(process_state).collect();
        if states.iter().all(|s| *s == ProcessState::Still) {
            return Some(frozen);
        }
        waits = if states.contains(&ProcessState::Runs) { 0 } else { waits + 1 };
        if waits >= MAX_BLOCKED_POLLS {
            return Some(frozen);
        }
        if Instant::now() >= limit {
            frozen.thaw();
            return None;
        }
        let _ = poll(&mut [], Some(&Timespec { tv_sec: 0, tv_nsec: STOP_POLL_NS }));
    }
}

impl StoppedProcesses {
    /// Resumes every process that was running before.
    pub fn thaw(self) {
        for pid in process_ids().filter(|pid| !self.before.contains(pid)) {
            sys::kill(pid, libc::SIGCONT);
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ProcessState {
    /// The process is stopped or dead.
    Still,
    /// The process waits in the kernel for something that no signal interrupts.
    Waits,
    /// The process can still act.
    Runs,
}

/// Returns whether a process is stopped or dead.
pub fn is_stopped(pid: i32) -> bool {
    process_state(pid) == ProcessState::Still
}

/// Returns the state of a process, which is that of its most active thread.
fn process_state(pid: i32) -> ProcessState {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let states = threads.filter_map(|thread| {
        Some(match process_files::read_state(thread.path().join("stat"))? {
            b'T' | b't' | b'Z' | b'X' => ProcessState::Still,
            b'D' => ProcessState::Waits,
            _ => ProcessState::Runs,
        })
    });
    states.fold(ProcessState::Still, |worst, next| match (worst, next) {
        (ProcessState::Runs, _) | (_, ProcessState::Runs) => ProcessState::Runs,
        (ProcessState::Waits, _) | (_, ProcessState::Waits) => ProcessState::Waits,
        _ => ProcessState::Still,
    })
}

#[cfg(test)]
mod tests {
    use super::{ProcessState, process_state};

    #[test]
    fn a_running_process_is_seen_to_run_and_an_absent_one_is_still() {
        assert_eq!(process_state(i32::try_from(std::process::id()).unwrap()), ProcessState::Runs);
        assert_eq!(process_state(i32::MAX), ProcessState::Still);
    }
}
