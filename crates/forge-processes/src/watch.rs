//! Supervision of a sandbox's processes by its init: the command each belongs to, and, where no control group counts
//! it, their memory. The memory is summed while commands run, and the command that holds most is killed when the sum
//! exceeds the limit.
//!
//! /proc is read as bytes: programs choose their names, and no name may hide a process.

use std::time::{Duration, Instant};

use crate::freeze;
use crate::memory_usage::{BytesByCommand, ExactUsage, MemoryUsage, filter_count};
use crate::objects::{self, ObjectScope};
use crate::process_files::{is_alive, process_ids, process_mark};
use crate::shared::{HiddenMemory, SharedMemoryCounter};
use crate::sockets::SocketDiag;
use forge_sys as sys;

/// Time between two checks while commands run. A program can exceed the limit by what it allocates in this time; the
/// limits per process, set in addition, bound that.
const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// Least ratio of the time between two checks to the duration of a check.
const REST_FACTOR: u32 = 10;
/// Number of rounds in which processes to kill are searched for before everything is stopped first.
const MAX_KILL_ROUNDS: usize = 8;

/// The memory supervisor of a sandbox.
#[derive(Debug)]
pub struct MemoryWatch {
    limit: u64,
    /// Number of system call filters that every process of the sandbox has from its start.
    own_filters: u64,
    sockets: Option<SocketDiag>,
    objects: ObjectScope,
    shared: SharedMemoryCounter,
    next: Instant,
}

/// A command or process that must end because of the limit.
#[derive(Debug, PartialEq, Eq)]
pub enum MemoryExcess {
    /// The command that holds most; processes without a mark count together.
    Command(Option<u64>),
    /// A process of this command with unreadable descriptors: its memory is unknown.
    Hidden(i32, Option<u64>),
}

impl MemoryWatch {
    /// Starts to watch; `limit` in bytes. `command_filters` is the number of system call filters that commands start
    /// with in addition to those of this process.
    pub fn new(limit: u64, command_filters: u64, sockets: Option<SocketDiag>, objects: ObjectScope) -> Self {
        let next = Instant::now() + POLL_INTERVAL;
        let status = std::fs::read("/proc/self/status").unwrap_or_default();
        let own_filters = filter_count(&status) + command_filters;
        Self { limit, own_filters, sockets, objects, shared: SharedMemoryCounter::start(), next }
    }

    /// Returns the time of the next check.
    pub fn next_check(&self) -> Instant {
        self.next
    }

    /// Returns the commands and processes that must end, if a check is due.
    pub fn check_if_due(&mut self) -> Vec<MemoryExcess> {
        let now = Instant::now();
        if now < self.next { Vec::new() } else { self.check_now(now) }
    }

    fn check_now(&mut self, now: Instant) -> Vec<MemoryExcess> {
        let objects = if self.objects == ObjectScope::Own { objects::trim_to_share(self.limit) } else { 0 };
        let held = MemoryUsage::measure(self.sockets.as_ref(), self.own_filters);
        let mut found: Vec<_> =
            held.hidden.iter().map(|pid| MemoryExcess::Hidden(*pid, process_mark(*pid))).collect();
        let hidden = self.shared.measure(&held, self.limit, self.objects);
        if held.upper_bound_bytes() + objects + hidden.bytes_beyond(objects) > self.limit
            && self.exceeds_limit(objects, &held.measure_exactly(), hidden)
        {
            // Measured again: a process that is just starting another one counts twice for a moment.
            let held = MemoryUsage::measure(self.sockets.as_ref(), self.own_filters);
            let mut exact = held.measure_exactly();
            let hidden = self.shared.measure(&held, self.limit, self.objects);
            if self.exceeds_limit(objects, &exact, hidden) {
                *exact.shares.entry(hidden.mark).or_default() += hidden.bytes_beyond(objects + exact.shared);
                found.extend(largest_share(&exact.shares).map(MemoryExcess::Command));
            }
        }
        self.next = now + POLL_INTERVAL.max(now.elapsed() * REST_FACTOR);
        found
    }

    fn exceeds_limit(&self, objects: u64, exact: &ExactUsage, hidden: HiddenMemory) -> bool {
        let reported = objects + exact.shares.values().sum::<u64>();
        reported + hidden.bytes_beyond(objects + exact.shared) > self.limit
    }
}

/// Returns the command with the largest share. Unmarked memory is not chosen while a command has any: it is freed with
/// the command that held it.
fn largest_share(shares: &BytesByCommand) -> Option<Option<u64>> {
    let known = shares.iter().filter(|(mark, _)| mark.is_some()).max_by_key(|(_, bytes)| **bytes);
    known.or_else(|| shares.iter().next()).map(|(mark, _)| *mark)
}

/// Kills every process of a command; returns those that were not dead at once.
pub fn kill_marked(mark: Option<u64>) -> Vec<i32> {
    kill_where(|found| found == mark)
}

/// Kills every process that carries none of these marks, including those without a mark; returns those that were not
/// dead at once. Only for a process that sees nothing but the sandbox.
pub fn kill_others(marks: &[u64]) -> Vec<i32> {
    let other = |found: Option<u64>| !found.is_some_and(|mark| marks.contains(&mark));
    let killed = kill_where(other);
    if killed.is_empty() {
        return killed;
    }
    // Some program starts processes faster than they can be found. A stop signal reaches all of them at once, and
    // stopped processes start no others.
    let before: Vec<i32> = process_ids().filter(|pid| freeze::is_stopped(*pid)).collect();
    sys::kill(-1, libc::SIGSTOP);
    let killed = kill_where(other);
    for pid in process_ids().filter(|pid| !before.contains(pid)) {
        sys::kill(pid, libc::SIGCONT);
    }
    killed
}

/// Kills the matching processes, repeatedly, because one that was being killed can have started another.
fn kill_where(wanted: impl Fn(Option<u64>) -> bool) -> Vec<i32> {
    let mut killed = Vec::new();
    for _ in 0..MAX_KILL_ROUNDS {
        killed = process_ids().filter(|pid| is_alive(*pid) && wanted(process_mark(*pid))).collect();
        if killed.is_empty() {
            break;
        }
        for pid in &killed {
            sys::kill(*pid, libc::SIGKILL);
        }
    }
    killed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_box_above_its_limit_names_a_command() {
        let now = Instant::now();
        assert!(matches!(
            MemoryWatch::new(1, 0, None, ObjectScope::Shared).check_now(now).last(),
            Some(MemoryExcess::Command(_))
        ));
        assert!(
            !MemoryWatch::new(u64::MAX, 0, None, ObjectScope::Shared)
                .check_now(now)
                .iter()
                .any(|e| matches!(e, MemoryExcess::Command(_)))
        );
        assert_eq!(
            largest_share(&BytesByCommand::from([(None, 5), (Some(1), 1), (Some(2), 3)])),
            Some(Some(2))
        );
        assert_eq!(largest_share(&BytesByCommand::from([(None, 5)])), Some(None));
    }
}
