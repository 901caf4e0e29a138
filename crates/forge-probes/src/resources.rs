//! Probes of limits: a sandbox with low limits, and programs in it that press on them.

use super::canary::CanaryHost;
use super::host_facts::{
    ProberTask, ResourceCeiling, probe_failed, probe_not_applicable, probe_passed, probe_untested,
};
use super::inside::FORGED_LINE;
use super::probe_session::{ProbeSession, parse_reply};
use super::{AttemptOutcome, ProbeOutcomes};
use forge_ports::Sandbox;
use forge_ports::sandbox::{BackgroundPolicy, Error, ExecResult, OutputSink, StdStream};
use forge_types::{RunId, SandboxLayerState, SandboxLimits, SandboxSpec};
use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The low limits.
const LOW_LIMITS: SandboxLimits =
    SandboxLimits { memory_bytes: 128 << 20, pids: 64, cpus: None, tmp_bytes: 8 << 20, command_ms: 30_000 };
/// Maximum time of a program that ends by itself.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(20);
/// Maximum time of a program that does not.
const ENDLESS_TIMEOUT: Duration = Duration::from_millis(400);
/// Time after which a command with [`ENDLESS_TIMEOUT`] must have been ended, even on the slowest machine.
const MAX_KILL_DELAY: Duration = Duration::from_secs(20);
/// A number of open files, or of files in /tmp, that exceeds any sandbox's limit.
const MAX_FILE_COUNT: u64 = 1 << 17;
/// Maximum growth of this process caused by endless output, in bytes.
const MAX_GROWTH_BYTES: u64 = 64 << 20;

/// Runs all limit probes.
pub(super) async fn run_limit_probes(
    sandbox: &dyn Sandbox,
    spec: &SandboxSpec,
    stage: &CanaryHost,
) -> ProbeOutcomes {
    let mut outcomes = ProbeOutcomes::new();
    let opened = match stage.create_probe_dir("low") {
        Ok(repo) => {
            let low = SandboxSpec { limits: LOW_LIMITS, repo, ..spec.clone() };
            ProbeSession::open(sandbox, &low, RunId::generate()).await.map_err(|error| error.to_string())
        }
        Err(error) => Err(error.to_string()),
    };
    let room = match opened {
        Ok(room) => room,
        Err(error) => {
            outcomes.insert(
                "process-ceiling".to_owned(),
                (probe_untested(format!("no sandbox with low limits: {error}")), 0),
            );
            return outcomes;
        }
    };
    let press = LimitProbe { session: room, token: stage.probe_token().to_owned(), stage };
    let quota = "a workspace is a directory on your disk, which has no quota per directory; /tmp is limited";
    outcomes.insert("workspace-ceiling".to_owned(), (probe_not_applicable(quota), 0));
    for (name, ceiling, limit) in [
        ("process-ceiling", ResourceCeiling::Processes, u64::from(LOW_LIMITS.pids)),
        ("open-files", ResourceCeiling::Descriptors, MAX_FILE_COUNT),
        ("memory-ceiling", ResourceCeiling::Memory, LOW_LIMITS.memory_bytes),
        ("memory-files", ResourceCeiling::MemoryFiles, LOW_LIMITS.memory_bytes),
        ("socket-buffers", ResourceCeiling::Sockets, LOW_LIMITS.memory_bytes),
        ("hidden-processes", ResourceCeiling::Hidden, LOW_LIMITS.memory_bytes),
        ("tmp-ceiling", ResourceCeiling::TmpBytes, LOW_LIMITS.tmp_bytes),
        ("tmp-files", ResourceCeiling::TmpFiles, MAX_FILE_COUNT),
        ("sibling-commands", ResourceCeiling::Reach, 0),
        ("waiting-for-input", ResourceCeiling::Stdin, 0),
        ("cpu-spin", ResourceCeiling::Spin, 0),
        ("ignored-term", ResourceCeiling::IgnoreTerm, 0),
        ("output-flood", ResourceCeiling::Output, 0),
        ("daemons", ResourceCeiling::Daemon, 0),
        ("held-output", ResourceCeiling::HoldOutput, 0),
        ("fork-bomb", ResourceCeiling::Bomb, 0),
    ] {
        let begun = Instant::now();
        let outcome = press.probe_ceiling(ceiling, limit).await;
        let millis = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        outcomes.insert(name.to_owned(), (outcome, millis));
    }
    outcomes
}

struct LimitProbe<'a> {
    session: ProbeSession,
    token: String,
    stage: &'a CanaryHost,
}

/// A counter for output bytes.
#[derive(Default)]
struct ByteCounter(AtomicU64);

impl OutputSink for ByteCounter {
    fn write_output(&self, _: StdStream, bytes: &[u8]) {
        self.0.fetch_add(bytes.len() as u64, Ordering::Relaxed);
    }
}

impl LimitProbe<'_> {
    async fn run_task(
        &self,
        ceiling: ResourceCeiling,
        limit: u64,
        time: Duration,
    ) -> Result<ExecResult, Error> {
        let task = ProberTask::Exhaust { ceiling, limit, token: self.token.clone() };
        self.session.run_prober(&task, time, &()).await
    }

    /// Presses on one limit; afterwards the sandbox must still respond and have no processes left.
    async fn probe_ceiling(&self, ceiling: ResourceCeiling, limit: u64) -> AttemptOutcome {
        let outcome = match ceiling {
            ResourceCeiling::Spin | ResourceCeiling::IgnoreTerm | ResourceCeiling::Bomb => {
                self.probe_endless(ceiling).await
            }
            ResourceCeiling::Output => self.probe_output_flood().await,
            ResourceCeiling::Daemon | ResourceCeiling::HoldOutput => self.probe_daemon(ceiling).await,
            ResourceCeiling::Memory
            | ResourceCeiling::MemoryFiles
            | ResourceCeiling::Sockets
            | ResourceCeiling::Hidden => self.probe_memory(ceiling, limit).await,
            ResourceCeiling::Reach => self.probe_siblings().await,
            _ => self.probe_reported(ceiling, limit).await,
        };
        match (&outcome, self.wait_until_empty().await) {
            (AttemptOutcome::Passed(_), Err(why)) => probe_failed(why),
            _ => outcome,
        }
    }

    async fn probe_reported(&self, ceiling: ResourceCeiling, limit: u64) -> AttemptOutcome {
        match self.run_task(ceiling, limit, COMMAND_TIMEOUT).await {
            Ok(ran) if ran.timed_out && ceiling == ResourceCeiling::Stdin => {
                probe_failed("it waited for input")
            }
            Ok(ran) => parse_reply(&ran).unwrap_or_else(probe_untested),
            Err(error) => probe_untested(error),
        }
    }

    async fn probe_memory(&self, ceiling: ResourceCeiling, limit: u64) -> AttemptOutcome {
        match self.run_task(ceiling, limit, COMMAND_TIMEOUT).await {
            Ok(ran) if ran.out_of_memory => probe_passed("the command was killed for its memory use"),
            Ok(ran) if ran.timed_out => probe_failed("it allocated memory until its time was up"),
            Ok(ran) => parse_reply(&ran).unwrap_or_else(|_| match ran.exit_code {
                137 | 134 => probe_passed(format!("the command was killed, code {}", ran.exit_code)),
                code => probe_untested(format!("it ended with code {code}")),
            }),
            // The kernel chose the init: the sandbox is gone, the machine is unharmed.
            Err(error) => probe_untested(error),
        }
    }

    /// Leaves a process running that tries to reach others, and runs a command.
    async fn probe_siblings(&self) -> AttemptOutcome {
        let lacking = self.session.sandbox_report().layers.into_iter().find(|layer| layer.name == "landlock");
        if let Some(SandboxLayerState::Absent(why)) = lacking.map(|layer| layer.state) {
            return probe_not_applicable(&format!(
                "without Landlock, commands are not isolated from one another: {why}"
            ));
        }
        let task =
            ProberTask::Exhaust { ceiling: ResourceCeiling::Reach, limit: 0, token: self.token.clone() };
        match self.session.run_prober_with(&task, COMMAND_TIMEOUT, &(), BackgroundPolicy::Keep).await {
            Ok(ran) if ran.exit_code == 0 => {}
            Ok(ran) => return probe_untested(format!("no daemon could be started, code {}", ran.exit_code)),
            Err(error) => return probe_untested(error),
        }
        match self.run_task(ResourceCeiling::Reached, 0, COMMAND_TIMEOUT).await {
            Ok(ran) if String::from_utf8_lossy(&ran.stdout.bytes).contains(FORGED_LINE.trim()) => {
                probe_failed("a process of another command wrote into the output")
            }
            Ok(ran) => parse_reply(&ran).unwrap_or_else(probe_untested),
            Err(error) => probe_untested(error),
        }
    }

    async fn probe_endless(&self, ceiling: ResourceCeiling) -> AttemptOutcome {
        let begun = Instant::now();
        // Only the fork bomb uses the limit.
        match self.run_task(ceiling, 512, ENDLESS_TIMEOUT).await {
            Ok(ran) if ran.timed_out && begun.elapsed() < MAX_KILL_DELAY => {
                probe_passed(format!("ended after {} ms", ran.duration_ms))
            }
            Ok(ran) => probe_failed(format!(
                "it ran for {:?} and ended with code {}",
                begun.elapsed(),
                ran.exit_code
            )),
            Err(error) => probe_untested(error),
        }
    }

    async fn probe_output_flood(&self) -> AttemptOutcome {
        let (before, passing) = (resident_bytes(), ByteCounter::default());
        let task =
            ProberTask::Exhaust { ceiling: ResourceCeiling::Output, limit: 0, token: self.token.clone() };
        let ran = match self.session.run_prober(&task, ENDLESS_TIMEOUT * 2, &passing).await {
            Ok(ran) => ran,
            Err(error) => return probe_untested(error),
        };
        let (grown, came) = (resident_bytes().saturating_sub(before), passing.0.load(Ordering::Relaxed));
        let kept = ran.stdout.bytes.len() as u64;
        if came < 1 << 20 {
            return probe_untested(format!("only {came} bytes came"));
        }
        if kept >= came || grown > MAX_GROWTH_BYTES {
            return probe_failed(format!(
                "of {came} bytes {kept} were kept, and Forge grew by {grown} bytes"
            ));
        }
        probe_passed(format!("of {} MiB {} KiB were kept", came >> 20, kept >> 10))
    }

    async fn probe_daemon(&self, ceiling: ResourceCeiling) -> AttemptOutcome {
        let begun = Instant::now();
        match self.run_task(ceiling, 0, COMMAND_TIMEOUT).await {
            Ok(ran) if ran.timed_out || begun.elapsed() > MAX_KILL_DELAY => {
                probe_failed("the command did not end with its first process")
            }
            Ok(ran) if ran.exit_code != 0 => {
                probe_untested(format!("no daemon could be started, code {}", ran.exit_code))
            }
            Ok(_) => self.wait_until_gone().await,
            Err(error) => probe_untested(error),
        }
    }

    /// Checks that the host sees no trace of a daemon a moment after its command.
    async fn wait_until_gone(&self) -> AttemptOutcome {
        let mut left = Vec::new();
        for _ in 0..20 {
            left = self.stage.token_processes();
            if left.is_empty() {
                return probe_passed("it ended with its command");
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        probe_failed(format!("left on the host: {}", left.join("; ")))
    }

    /// Checks that the sandbox responds and nothing runs in it.
    async fn wait_until_empty(&self) -> Result<(), String> {
        let mut last = String::new();
        for _ in 0..20 {
            match self.session.count_processes().await {
                Ok(0) => return Ok(()),
                Ok(left) => last = format!("{left} processes are left in the sandbox"),
                Err(error) => last = format!("the sandbox no longer responds: {error}"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Err(last)
    }
}

/// Returns the resident memory of this process in bytes.
fn resident_bytes() -> u64 {
    let text = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) << 10
}
