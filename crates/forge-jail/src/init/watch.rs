//! Memory of a box that no control group counts: resident sizes are summed while commands run, and the session
//! that holds most is killed when the sum passes the limit.

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
    session: i32,
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

    /// The session to kill, if the box is above its limit.
    pub(super) fn look(&mut self) -> Option<i32> {
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
        let mut sessions: HashMap<i32, u64> = HashMap::new();
        for process in &processes {
            *sessions.entry(process.session).or_default() += process.bytes;
        }
        sessions.into_iter().max_by_key(|(_, bytes)| *bytes).map(|(session, _)| session)
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
            Some(Process { session: session_of(pid)?, bytes })
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

/// The session a process belongs to: the sixth field of /proc/PID/stat, the fourth after the name in brackets.
pub(super) fn session_of(pid: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_sessions_are_read_from_proc() {
        assert_eq!(field("Name:\tx\nRssAnon:\t     132 kB\n", "RssAnon:"), 132 * 1024);
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(session_of(own).is_some());
        assert!(resident_pages() > 0);
    }

    #[test]
    fn a_box_above_its_limit_names_a_session() {
        assert!(Watch::new(1).look().is_some());
        assert_eq!(Watch::new(u64::MAX).look(), None);
    }
}
