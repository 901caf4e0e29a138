//! Probes of ceilings: a box with low ones, and programs in it that press on them.

use super::canary::Stage;
use super::inside::FORGED;
use super::room::{Room, parsed};
use super::scene::{Ceiling, Task, absent, broke, held, untested};
use super::{Outcome, Outcomes};
use forge_ports::Sandbox;
use forge_ports::sandbox::{Error, ExecResult, Leftovers, OutputSink, Stream};
use forge_types::{LayerState, RunId, SandboxLimits, SandboxSpec};
use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The low ceilings.
const LIMITS: SandboxLimits =
    SandboxLimits { memory_bytes: 128 << 20, pids: 64, cpus: None, tmp_bytes: 8 << 20, command_ms: 30_000 };
/// For a program that comes to an end by itself.
const PATIENCE: Duration = Duration::from_secs(20);
/// For one that does not.
const SHORT: Duration = Duration::from_millis(400);
/// A command that should be ended after [`SHORT`] must have been after this, on the slowest machine.
const LATE: Duration = Duration::from_secs(20);
/// More open files, or files in /tmp, than any box allows.
const MANY: u64 = 1 << 17;
/// An endless output may make this process grow by so much, in bytes.
const GROWTH: u64 = 64 << 20;

/// Makes all of them.
pub(super) async fn press(sandbox: &dyn Sandbox, spec: &SandboxSpec, stage: &Stage) -> Outcomes {
    let mut outcomes = Outcomes::new();
    let opened = match stage.folder("low") {
        Ok(repo) => {
            let low = SandboxSpec { limits: LIMITS, repo, ..spec.clone() };
            Room::open(sandbox, &low, RunId::generate()).await.map_err(|error| error.to_string())
        }
        Err(error) => Err(error.to_string()),
    };
    let room = match opened {
        Ok(room) => room,
        Err(error) => {
            outcomes.insert(
                "process-ceiling".to_owned(),
                (untested(format!("no box with low ceilings: {error}")), 0),
            );
            return outcomes;
        }
    };
    let press = Press { room, token: stage.token().to_owned(), stage };
    let quota = "a workspace is a folder of your disk, which has no quota per folder; /tmp is bounded";
    outcomes.insert("workspace-ceiling".to_owned(), (absent(quota), 0));
    for (name, ceiling, limit) in [
        ("process-ceiling", Ceiling::Processes, u64::from(LIMITS.pids)),
        ("open-files", Ceiling::Descriptors, MANY),
        ("memory-ceiling", Ceiling::Memory, LIMITS.memory_bytes),
        ("memory-files", Ceiling::MemoryFiles, LIMITS.memory_bytes),
        ("socket-buffers", Ceiling::Sockets, LIMITS.memory_bytes),
        ("hidden-processes", Ceiling::Hidden, LIMITS.memory_bytes),
        ("tmp-ceiling", Ceiling::TmpBytes, LIMITS.tmp_bytes),
        ("tmp-files", Ceiling::TmpFiles, MANY),
        ("sibling-commands", Ceiling::Reach, 0),
        ("waiting-for-input", Ceiling::Stdin, 0),
        ("cpu-spin", Ceiling::Spin, 0),
        ("ignored-term", Ceiling::IgnoreTerm, 0),
        ("output-flood", Ceiling::Output, 0),
        ("daemons", Ceiling::Daemon, 0),
        ("held-output", Ceiling::HoldOutput, 0),
        ("fork-bomb", Ceiling::Bomb, 0),
    ] {
        let begun = Instant::now();
        let outcome = press.one(ceiling, limit).await;
        let millis = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        outcomes.insert(name.to_owned(), (outcome, millis));
    }
    outcomes
}

struct Press<'a> {
    room: Room,
    token: String,
    stage: &'a Stage,
}

/// Counts what passes by.
#[derive(Default)]
struct Passing(AtomicU64);

impl OutputSink for Passing {
    fn output(&self, _: Stream, bytes: &[u8]) {
        self.0.fetch_add(bytes.len() as u64, Ordering::Relaxed);
    }
}

impl Press<'_> {
    async fn run(&self, ceiling: Ceiling, limit: u64, time: Duration) -> Result<ExecResult, Error> {
        let task = Task::Press { ceiling, limit, token: self.token.clone() };
        self.room.ask(&task, time, &()).await
    }

    /// Presses on one ceiling; whatever happens the box must serve afterwards, with nothing left in it.
    async fn one(&self, ceiling: Ceiling, limit: u64) -> Outcome {
        let outcome = match ceiling {
            Ceiling::Spin | Ceiling::IgnoreTerm | Ceiling::Bomb => self.endless(ceiling).await,
            Ceiling::Output => self.flood().await,
            Ceiling::Daemon | Ceiling::HoldOutput => self.daemon(ceiling).await,
            Ceiling::Memory | Ceiling::MemoryFiles | Ceiling::Sockets | Ceiling::Hidden => {
                self.memory(ceiling, limit).await
            }
            Ceiling::Reach => self.siblings().await,
            _ => self.told(ceiling, limit).await,
        };
        match (&outcome, self.empty().await) {
            (Outcome::Held(_), Err(why)) => broke(why),
            _ => outcome,
        }
    }

    async fn told(&self, ceiling: Ceiling, limit: u64) -> Outcome {
        match self.run(ceiling, limit, PATIENCE).await {
            Ok(ran) if ran.timed_out && ceiling == Ceiling::Stdin => broke("it waited for input"),
            Ok(ran) => parsed(&ran).unwrap_or_else(untested),
            Err(error) => untested(error),
        }
    }

    async fn memory(&self, ceiling: Ceiling, limit: u64) -> Outcome {
        match self.run(ceiling, limit, PATIENCE).await {
            Ok(ran) if ran.out_of_memory => held("the command was ended for its memory"),
            Ok(ran) if ran.timed_out => broke("it took memory until its time was up"),
            Ok(ran) => parsed(&ran).unwrap_or_else(|_| match ran.exit_code {
                137 | 134 => held(format!("the command was ended, code {}", ran.exit_code)),
                code => untested(format!("it ended with code {code}")),
            }),
            // The kernel chose the init: the box is gone, the machine is not.
            Err(error) => untested(error),
        }
    }

    /// Leaves a process running that reaches for others, and runs a command.
    async fn siblings(&self) -> Outcome {
        let lacking = self.room.report().layers.into_iter().find(|layer| layer.name == "landlock");
        if let Some(LayerState::Absent(why)) = lacking.map(|layer| layer.state) {
            return absent(&format!("without Landlock commands are not kept apart: {why}"));
        }
        let task = Task::Press { ceiling: Ceiling::Reach, limit: 0, token: self.token.clone() };
        match self.room.ask_and(&task, PATIENCE, &(), Leftovers::Keep).await {
            Ok(ran) if ran.exit_code == 0 => {}
            Ok(ran) => return untested(format!("no daemon could be started, code {}", ran.exit_code)),
            Err(error) => return untested(error),
        }
        match self.run(Ceiling::Reached, 0, PATIENCE).await {
            Ok(ran) if String::from_utf8_lossy(&ran.stdout.bytes).contains(FORGED.trim()) => {
                broke("a process of another command wrote into the output")
            }
            Ok(ran) => parsed(&ran).unwrap_or_else(untested),
            Err(error) => untested(error),
        }
    }

    async fn endless(&self, ceiling: Ceiling) -> Outcome {
        let begun = Instant::now();
        // Only a bomb looks at it.
        match self.run(ceiling, 512, SHORT).await {
            Ok(ran) if ran.timed_out && begun.elapsed() < LATE => {
                held(format!("ended after {} ms", ran.duration_ms))
            }
            Ok(ran) => {
                broke(format!("it ran for {:?} and ended with code {}", begun.elapsed(), ran.exit_code))
            }
            Err(error) => untested(error),
        }
    }

    async fn flood(&self) -> Outcome {
        let (before, passing) = (resident(), Passing::default());
        let task = Task::Press { ceiling: Ceiling::Output, limit: 0, token: self.token.clone() };
        let ran = match self.room.ask(&task, SHORT * 2, &passing).await {
            Ok(ran) => ran,
            Err(error) => return untested(error),
        };
        let (grown, came) = (resident().saturating_sub(before), passing.0.load(Ordering::Relaxed));
        let kept = ran.stdout.bytes.len() as u64;
        if came < 1 << 20 {
            return untested(format!("only {came} bytes came"));
        }
        if kept >= came || grown > GROWTH {
            return broke(format!("of {came} bytes {kept} were kept, and Forge grew by {grown} bytes"));
        }
        held(format!("of {} MiB {} KiB were kept", came >> 20, kept >> 10))
    }

    async fn daemon(&self, ceiling: Ceiling) -> Outcome {
        let begun = Instant::now();
        match self.run(ceiling, 0, PATIENCE).await {
            Ok(ran) if ran.timed_out || begun.elapsed() > LATE => {
                broke("the command did not end with its first process")
            }
            Ok(ran) if ran.exit_code != 0 => {
                untested(format!("no daemon could be started, code {}", ran.exit_code))
            }
            Ok(_) => self.gone().await,
            Err(error) => untested(error),
        }
    }

    /// Whether the host sees nothing of a daemon any more, a moment after its command.
    async fn gone(&self) -> Outcome {
        let mut left = Vec::new();
        for _ in 0..20 {
            left = self.stage.processes();
            if left.is_empty() {
                return held("it ended with its command");
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        broke(format!("left on the host: {}", left.join("; ")))
    }

    /// Whether the box serves and nothing runs in it.
    async fn empty(&self) -> Result<(), String> {
        let mut last = String::new();
        for _ in 0..20 {
            match self.room.count().await {
                Ok(0) => return Ok(()),
                Ok(left) => last = format!("{left} processes are left in the box"),
                Err(error) => last = format!("the box does not serve any more: {error}"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Err(last)
    }
}

/// Memory of this process, in bytes.
fn resident() -> u64 {
    let text = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) << 10
}
