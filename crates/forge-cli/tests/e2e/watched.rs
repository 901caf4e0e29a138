//! A command that is watched while it works: how long, with how much memory, and how it ended.

use std::io::{Read, Write as _};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A command that takes longer without having worked for a tenth of it hangs.
const HANG: Duration = Duration::from_secs(60);
/// A command that works for longer does not end.
const MAX_WORK: Duration = Duration::from_secs(60);
/// Most memory of the program itself, without what it started.
const MOST_MEMORY_KB: u64 = 300 << 10;
/// Most that a command prints.
const MOST_OUTPUT_BYTES: usize = 16 << 20;
/// Between two looks at the memory: what grows by a gigabyte a second is met early enough.
const LOOK: Duration = Duration::from_millis(2);
/// Codes that the documentation names.
const CODES: [i32; 7] = [0, 1, 2, 3, 4, 5, 130];
/// A command in a sandbox whose time was up.
const TIMED_OUT: i32 = 124;

/// `/proc` counts in hundredths of a second on every machine.
const MS_PER_TICK: u64 = 10;

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) words: String,
    /// `None`: a signal ended it.
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
    signal: Option<i32>,
    peak_kb: u64,
    hung: bool,
}

impl Ended {
    /// Whether it had to be ended.
    pub(crate) const fn killed(&self) -> bool {
        self.hung || self.peak_kb > MOST_MEMORY_KB
    }

    /// Whether it ran a command in a sandbox with a limit of time, which that command used up: git waits for ever at a
    /// pipe in its directory.
    fn may_time_out(&self, code: i32) -> bool {
        let limited = self.words.starts_with("sandbox exec ") && self.words.contains("--timeout ");
        limited && code == TIMED_OUT && self.err.contains("timed out after")
    }

    /// What no command may do, whatever it was given.
    pub(crate) fn faults(&self) -> Vec<String> {
        let words = &self.words;
        if self.hung {
            return vec![format!("`{words}` hangs")];
        }
        let mut found = Vec::new();
        if self.peak_kb > MOST_MEMORY_KB {
            found.push(format!("`{words}` took {} MB and was ended", self.peak_kb >> 10));
        } else if !self.code.is_some_and(|code| CODES.contains(&code) || self.may_time_out(code)) {
            let (code, signal) = (self.code, self.signal);
            found.push(format!("`{words}` ended with {code:?}, signal {signal:?}: {}", self.err.trim()));
        }
        if self.err.contains("panicked at") || self.out.contains("panicked at") {
            found.push(format!("`{words}` panicked: {}", self.err.trim()));
        }
        if self.out.len().max(self.err.len()) >= MOST_OUTPUT_BYTES {
            found.push(format!("`{words}` printed more than {MOST_OUTPUT_BYTES} bytes"));
        }
        found
    }
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (code, last) = (self.code, format!("{}{}", self.out, self.err));
        write!(f, "`{}`: {code:?}, {} MB, {last}", self.words, self.peak_kb >> 10)
    }
}

/// Runs a command to its end, or ends it when it hangs or takes too much memory.
pub(crate) fn watch(mut command: Command, words: &[&str], input: &str) -> Ended {
    let pipes = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = pipes.process_group(0).spawn().expect("the program starts");
    // One that ends at once does not read.
    let _ = child.stdin.take().expect("a pipe").write_all(input.as_bytes());
    let out = collect(child.stdout.take().expect("a pipe"));
    let err = collect(child.stderr.take().expect("a pipe"));
    let (status, peak_kb, hung) = attend(&mut child);
    let text = |reader: JoinHandle<Vec<u8>>| {
        String::from_utf8_lossy(&reader.join().expect("a reader does not panic")).into_owned()
    };
    let (code, signal) = (status.code(), status.signal());
    Ended { words: words.join(" "), code, signal, out: text(out), err: text(err), peak_kb, hung }
}

/// Looks at a process until it has ended; ends it if need be.
fn attend(child: &mut Child) -> (ExitStatus, u64, bool) {
    let status = format!("/proc/{}/status", child.id());
    let stat = format!("/proc/{}/stat", child.id());
    let (mut end, mut peak_kb, mut worked_before) = (Instant::now() + HANG, 0, Duration::ZERO);
    loop {
        if let Some(ended) = child.try_wait().expect("it is a child") {
            return (ended, peak_kb, false);
        }
        peak_kb = peak_kb.max(high_water_kb(&status));
        let mut hung = Instant::now() > end;
        if hung {
            // One that reads gigabytes beside other programs takes long and is at work.
            let worked = processor_time(&stat);
            hung = worked > MAX_WORK || worked < worked_before + HANG / 10;
            (end, worked_before) = (Instant::now() + HANG, worked);
        }
        if hung || peak_kb > MOST_MEMORY_KB {
            // With what it started on the host: that may be what hangs, and would hang for ever.
            let group = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw);
            let _ = rustix::process::kill_process_group(group.expect("an id"), rustix::process::Signal::KILL);
            return (child.wait().expect("it is a child"), peak_kb, hung);
        }
        std::thread::park_timeout(LOOK);
    }
}

/// Runs a command to its end, whatever it prints, and returns the most memory that it had.
pub(crate) fn peak_memory_kb(mut command: Command) -> (ExitStatus, u64) {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("the program starts");
    let out = collect(child.stdout.take().expect("a pipe"));
    let status = format!("/proc/{}/status", child.id());
    let mut peak_kb = 0;
    let ended = loop {
        peak_kb = peak_kb.max(high_water_kb(&status));
        match child.try_wait().expect("it is a child") {
            Some(ended) => break ended,
            None => std::thread::park_timeout(LOOK),
        }
    };
    drop(out.join());
    (ended, peak_kb)
}

/// The processor time that a process and what it waited for had so far; zero when it has ended.
fn processor_time(stat: &str) -> Duration {
    let text = std::fs::read_to_string(stat).unwrap_or_default();
    let fields = text.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
    let ticks: u64 = fields.skip(11).take(4).filter_map(|field| field.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * MS_PER_TICK)
}

/// The most memory that a process had so far; 0 when it has ended.
fn high_water_kb(status: &str) -> u64 {
    let text = std::fs::read_to_string(status).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// Reads all that is printed, and keeps so much of it.
fn collect(mut from: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let (mut kept, mut piece) = (Vec::new(), vec![0; 64 << 10]);
        while let Ok(count @ 1..) = from.read(&mut piece) {
            let room = MOST_OUTPUT_BYTES - kept.len();
            kept.extend_from_slice(&piece[..count.min(room)]);
        }
        kept
    })
}
