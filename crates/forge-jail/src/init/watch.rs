//! What the init can tell of the box's processes: which command each belongs to, and, where no control group counts
//! it, their memory. Resident sizes are summed while commands run, and the command that holds most is killed when the
//! sum passes the limit.

use std::collections::HashMap;
use std::fs;
use std::time::{Duration, Instant};

use crate::sys;

/// How often the sum is taken while commands run. A program can pass the limit by what it touches in this time;
/// the limit per process, set beside this, bounds that.
const EVERY: Duration = Duration::from_millis(50);

/// The supervisor.
#[derive(Debug)]
pub(super) struct Watch {
    limit: u64,
    next: Instant,
}

/// One process in the box.
#[derive(Debug)]
struct Process {
    mark: Option<u64>,
    bytes: u64,
}

impl Watch {
    pub(super) fn new(limit: u64) -> Self {
        Self { limit, next: Instant::now() }
    }

    /// When to look again.
    pub(super) fn due(&self) -> Instant {
        self.next
    }

    /// The mark of the command to kill, if the box is above its limit; processes without one count together.
    pub(super) fn look(&mut self) -> Option<Option<u64>> {
        let now = Instant::now();
        if now < self.next {
            return None;
        }
        self.next = now + EVERY;
        // Cheap first: resident pages, shared ones counted in each process.
        if resident_pages().saturating_mul(sys::page_size()) <= self.limit {
            return None;
        }
        let processes = processes();
        // The exact count walks page tables: never more than a tenth of the time.
        self.next = now + EVERY.max(now.elapsed() * 10);
        if processes.iter().map(|p| p.bytes).sum::<u64>() <= self.limit {
            return None;
        }
        let mut commands: HashMap<Option<u64>, u64> = HashMap::new();
        for process in &processes {
            *commands.entry(process.mark).or_default() += process.bytes;
        }
        commands.into_iter().max_by_key(|(_, bytes)| *bytes).map(|(mark, _)| mark)
    }
}

/// Process ids in the box, the init's own left out.
pub(super) fn pids() -> impl Iterator<Item = i32> {
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid| *pid != 1)
}

fn resident_pages() -> u64 {
    pids()
        .filter_map(|pid| {
            let text = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
            text.split_whitespace().nth(1)?.parse::<u64>().ok()
        })
        .sum()
}

/// Anonymous and shared memory of each process, a page that several map counted in parts: file pages are the
/// kernel's to take back, and a fork that changed nothing costs nothing. A process that hides its maps counts whole.
fn processes() -> Vec<Process> {
    pids()
        .filter_map(|pid| {
            let read = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}")).ok();
            let bytes = match read("smaps_rollup").filter(|text| text.contains("Pss_Anon:")) {
                Some(rollup) => field(&rollup, "Pss_Anon:") + field(&rollup, "Pss_Shmem:"),
                None => {
                    let status = read("status")?;
                    field(&status, "RssAnon:") + field(&status, "RssShmem:")
                }
            };
            Some(Process { mark: mark_of(pid), bytes })
        })
        .collect()
}

/// A field of a file in /proc/PID that is given in kB, in bytes.
fn field(status: &str, name: &str) -> u64 {
    let kib = status
        .lines()
        .find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

/// Marks of commands begin here: far above any limit that means something, in microseconds.
const FIRST_MARK: u64 = 1 << 40;

/// The mark of the command with this request number.
pub(super) fn mark(id: u64) -> u64 {
    FIRST_MARK.saturating_add(id)
}

/// Which command a process belongs to. Every process of a command inherits the mark as its limit of real-time
/// processor time, which no process in the box can use: unlike its session and its parent, it stays when a daemon
/// detaches. One that lowers the limit hides from this, not from the end of the box's last command.
pub(super) fn mark_of(pid: i32) -> Option<u64> {
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max realtime timeout"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// Kills every process of a command; gives those that were not dead at once.
pub(super) fn kill_marked(mark: Option<u64>) -> Vec<i32> {
    kill_where(|found| found == mark)
}

/// Kills every process that carries none of these marks, one without any included; gives those that were not dead at
/// once.
pub(super) fn kill_others(marks: &[u64]) -> Vec<i32> {
    kill_where(|found| !found.is_some_and(|mark| marks.contains(&mark)))
}

/// One that was being killed can have started another: until none is left.
fn kill_where(wanted: impl Fn(Option<u64>) -> bool) -> Vec<i32> {
    let mut killed = Vec::new();
    for _ in 0..8 {
        killed = pids().filter(|pid| alive(*pid) && wanted(mark_of(*pid))).collect();
        if killed.is_empty() {
            break;
        }
        for pid in &killed {
            sys::kill(*pid, libc::SIGKILL);
        }
    }
    killed
}

/// Whether a process can still do something; a dead one waits for its parent only.
pub(super) fn alive(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_marks_are_read_from_proc() {
        assert_eq!(field("Name:\tx\nRssAnon:\t     132 kB\n", "RssAnon:"), 132 * 1024);
        let own = i32::try_from(std::process::id()).unwrap();
        assert_ne!(mark_of(own), Some(mark(1)));
        assert!(resident_pages() > 0);
    }

    #[test]
    fn a_box_above_its_limit_names_a_command() {
        assert!(Watch::new(1).look().is_some());
        assert_eq!(Watch::new(u64::MAX).look(), None);
    }
}
