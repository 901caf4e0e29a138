//! Stopping every process of the box for a moment, so that a snapshot sees no half-done work.

use std::fs;
use std::time::{Duration, Instant};

use rustix::event::{Timespec, poll};

use crate::watch::{self, pids};
use forge_sys as sys;

/// Longer than this no process takes to stop, unless it hangs in the kernel.
const LONGEST: Duration = Duration::from_secs(5);
/// Between two looks, in nanoseconds.
const PAUSE: i64 = 200_000;
/// A process that waits for its `vfork` child never stops while the child does. Seen so often in a row, it is one.
const PATIENCE: u32 = 50;

/// The box while it stands still.
#[derive(Debug, Default)]
pub struct Frozen {
    /// Processes that had been stopped before, by somebody inside: they stay so.
    before: Vec<i32>,
}

/// Stops every process but the init; `None` when one could not be stopped, all go on then.
pub fn freeze() -> Option<Frozen> {
    let before = pids().filter(|pid| is_still(*pid)).collect();
    let frozen = Frozen { before };
    let limit = Instant::now() + LONGEST;
    let mut waits = 0;
    loop {
        // Again each time: what was being forked at the first signal gets the next.
        sys::kill(-1, libc::SIGSTOP);
        let states: Vec<State> = pids().map(state).collect();
        if states.iter().all(|s| *s == State::Still) {
            return Some(frozen);
        }
        waits = if states.contains(&State::Runs) { 0 } else { waits + 1 };
        if waits >= PATIENCE {
            return Some(frozen);
        }
        if Instant::now() >= limit {
            frozen.thaw();
            return None;
        }
        let _ = poll(&mut [], Some(&Timespec { tv_sec: 0, tv_nsec: PAUSE }));
    }
}

impl Frozen {
    /// Lets everything go on that ran before.
    pub fn thaw(self) {
        for pid in pids().filter(|pid| !self.before.contains(pid)) {
            sys::kill(pid, libc::SIGCONT);
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Stopped, or dead.
    Still,
    /// Waits in the kernel for something that no signal interrupts.
    Waits,
    /// Can still do something.
    Runs,
}

/// Whether a process is stopped, or dead.
pub fn is_still(pid: i32) -> bool {
    state(pid) == State::Still
}

/// The state of a process is that of its liveliest thread.
fn state(pid: i32) -> State {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let states = threads.filter_map(|thread| {
        Some(match watch::state(thread.path().join("stat"))? {
            b'T' | b't' | b'Z' | b'X' => State::Still,
            b'D' => State::Waits,
            _ => State::Runs,
        })
    });
    states.fold(State::Still, |worst, next| match (worst, next) {
        (State::Runs, _) | (_, State::Runs) => State::Runs,
        (State::Waits, _) | (_, State::Waits) => State::Waits,
        _ => State::Still,
    })
}

#[cfg(test)]
mod tests {
    use super::{State, state};

    #[test]
    fn a_running_process_is_seen_to_run_and_an_absent_one_is_still() {
        assert_eq!(state(i32::try_from(std::process::id()).unwrap()), State::Runs);
        assert_eq!(state(i32::MAX), State::Still);
    }
}
