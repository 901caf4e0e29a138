//! A process that a command left running, and the next command.

use crate::attempts::{self, AttemptOutcome};
use crate::host_facts::{probe_failed, probe_passed};
use std::fs;
use std::io::Write as _;
use std::time::{Duration, Instant};

/// Maximum time that either waits for the other.
const SIBLING_TIMEOUT: Duration = Duration::from_secs(15);
/// Minimum number of rounds that the daemon completes while the later command runs.
const MIN_DAEMON_ROUNDS: u64 = 3;
/// Text that the daemon writes into streams.
pub(crate) const FORGED_LINE: &str = "forged by another command\n";

fn completed_rounds(token: &str) -> u64 {
    fs::read_to_string(format!("/workspace/forge-rounds-{token}"))
        .ok()
        .and_then(|n| n.trim().parse().ok())
        .unwrap_or(0)
}

/// Runs the daemon, which tries to reach every process but its own until told to stop.
pub(super) fn run_reaching_daemon(token: &str) -> std::io::Result<()> {
    let first = std::process::id();
    if attempts::daemonize()?.is_some() {
        return super::print_json_line(&probe_passed("a daemon was left behind"));
    }
    let null = fs::File::options().read(true).write(true).open("/dev/null")?;
    attempts::replace_streams(&null.into());
    // The processes of its own command, as long as they exist.
    let parent = rustix::process::getppid().map_or(1, |pid| pid.as_raw_nonzero().get().unsigned_abs());
    let own = [1, first, parent, std::process::id()];
    let (begun, mut done) = (Instant::now(), 0u64);
    let mut seen = Vec::new();
    while begun.elapsed() < SIBLING_TIMEOUT && !fs::exists(format!("/workspace/forge-end-{token}"))? {
        let names =
            fs::read_dir("/proc")?.flatten().filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok());
        for pid in names.filter(|pid| !own.contains(pid)) {
            seen.extend(reach_process(pid));
        }
        if !seen.is_empty() {
            write_note("reached", token, &seen.join(", "))?;
        }
        done += 1;
        write_note("rounds", token, &done.to_string())?;
    }
    Ok(())
}

/// Replaces a file that the later command may be reading at the same time.
fn write_note(name: &str, token: &str, text: &str) -> std::io::Result<()> {
    let new = format!("/workspace/forge-{name}-{token}.new");
    fs::write(&new, text)?;
    fs::rename(new, format!("/workspace/forge-{name}-{token}"))
}

/// Returns the operations that succeeded on a process.
fn reach_process(pid: u32) -> Vec<String> {
    let mut done = Vec::new();
    for stream in [1, 2] {
        let opened = fs::File::options().write(true).open(format!("/proc/{pid}/fd/{stream}"));
        if opened.is_ok_and(|mut file| file.write_all(FORGED_LINE.as_bytes()).is_ok()) {
            done.push(format!("its stream {stream} was written"));
        }
    }
    // A process that is just ending has empty ones.
    for file in ["environ", "maps"] {
        if fs::read(format!("/proc/{pid}/{file}")).is_ok_and(|bytes| !bytes.is_empty()) {
            done.push(format!("its {file} was read"));
        }
    }
    done
}

/// Runs the later command.
pub(super) fn wait_for_daemon(token: &str) -> AttemptOutcome {
    let (begun, before) = (Instant::now(), completed_rounds(token));
    while completed_rounds(token) < before + MIN_DAEMON_ROUNDS || before == 0 && completed_rounds(token) == 0
    {
        if begun.elapsed() > SIBLING_TIMEOUT {
            return AttemptOutcome::Untested("the daemon did nothing".to_owned());
        }
        let _ = rustix::thread::nanosleep(&rustix::thread::Timespec { tv_sec: 0, tv_nsec: 5_000_000 });
    }
    let seen = fs::read_to_string(format!("/workspace/forge-reached-{token}"));
    let _ = fs::write(format!("/workspace/forge-end-{token}"), "");
    match seen {
        Ok(what) => probe_failed(what),
        Err(_) => probe_passed("the daemon could reach nothing"),
    }
}
