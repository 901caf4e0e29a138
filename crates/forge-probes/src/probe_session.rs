//! A sandbox in which probes are made.

use super::ProbeOutcomes;
use super::host_facts::{HostFacts, ProbeLine, ProberTask, probe_untested};
use super::inside::PROBER_ARG;
use forge_jail_protocol::HELPER_PATH;
use forge_ports::sandbox::{BackgroundPolicy, Error, ExecResult, ExecSpec, InheritedEnv, OutputSink};
use forge_ports::{Sandbox, Workspace};
use forge_types::{RunId, SandboxReport, SandboxSpec};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Maximum time of all attempts of one program together.
const PROBER_TIMEOUT: Duration = Duration::from_secs(60);
/// Number of tries, and the delay between them, for opening a sandbox while another one holds the directory.
const MAX_OPEN_TRIES: u32 = 40;
const OPEN_RETRY_DELAY: Duration = Duration::from_millis(50);
/// Maximum number of bytes kept of a program's output.
const MAX_OUTPUT_BYTES: usize = 1 << 20;

/// An open sandbox.
#[derive(Clone)]
pub(super) struct ProbeSession(pub(super) Arc<dyn Workspace>);

impl ProbeSession {
    /// Opens a sandbox. A sandbox that is being closed may still hold the directory, so opening is retried for a while.
    pub(super) async fn open(sandbox: &dyn Sandbox, spec: &SandboxSpec, run: RunId) -> Result<Self, Error> {
        let mut tries = 0;
        loop {
            match sandbox.open(spec, run, None).await {
                Ok(room) => return Ok(Self(room)),
                Err(error @ Error::Missing { .. }) => return Err(error),
                Err(error) if tries == MAX_OPEN_TRIES => return Err(error),
                Err(_) => tries += 1,
            }
            tokio::time::sleep(OPEN_RETRY_DELAY).await;
        }
    }

    pub(super) fn sandbox_report(&self) -> SandboxReport {
        self.0.report()
    }

    /// Runs the prober on a task.
    pub(super) async fn run_prober(
        &self,
        task: &ProberTask,
        timeout: Duration,
        output: &dyn OutputSink,
    ) -> Result<ExecResult, Error> {
        self.run_prober_with(task, timeout, output, BackgroundPolicy::Kill).await
    }

    /// Runs the prober on a task, with a choice of what happens to processes it leaves behind.
    pub(super) async fn run_prober_with(
        &self,
        task: &ProberTask,
        timeout: Duration,
        output: &dyn OutputSink,
        leftovers: BackgroundPolicy,
    ) -> Result<ExecResult, Error> {
        let task = serde_json::to_string(task).map_err(|e| Error::Invalid { why: e.to_string() })?;
        let spec = ExecSpec {
            argv: vec![HELPER_PATH.to_owned(), PROBER_ARG.to_owned(), task],
            cwd: String::new(),
            env: BTreeMap::new(),
            timeout,
            keep_bytes: MAX_OUTPUT_BYTES,
            inherited_env: InheritedEnv::All,
            stdin: None,
            background: leftovers,
            also: Vec::new(),
        };
        self.0.exec(spec, output).await
    }

    /// Makes these attempts.
    pub(super) async fn run_attempts(&self, scene: &HostFacts, names: Vec<String>) -> ProbeOutcomes {
        let task = ProberTask::Probes { scene: Box::new(scene.clone()), names: names.clone() };
        let ran = match self.run_prober(&task, PROBER_TIMEOUT, &()).await {
            Ok(ran) => ran,
            Err(error) => {
                return names.into_iter().map(|n| (n, (probe_untested(error.to_string()), 0))).collect();
            }
        };
        let text = String::from_utf8_lossy(&ran.stdout.bytes);
        let lines = text.lines().filter_map(|line| serde_json::from_str::<ProbeLine>(line).ok());
        let mut outcomes: ProbeOutcomes =
            lines.map(|line| (line.probe, (line.outcome, line.millis))).collect();
        if ran.exit_code != 0 {
            let said = String::from_utf8_lossy(&ran.stderr.bytes).trim().to_owned();
            let why = format!("the prober ended with code {}: {said}", ran.exit_code);
            for name in names {
                outcomes.entry(name).or_insert_with(|| (probe_untested(&why), 0));
            }
        }
        outcomes
    }

    /// Returns the number of processes other than the init and the one that counts.
    pub(super) async fn count_processes(&self) -> Result<usize, Error> {
        let ran = self.run_prober(&ProberTask::Count, PROBER_TIMEOUT, &()).await?;
        parse_reply(&ran)
    }

    /// Returns which of these paths exist in the sandbox.
    pub(super) async fn existing_paths(&self, paths: Vec<PathBuf>) -> Result<Vec<PathBuf>, Error> {
        let ran = self.run_prober(&ProberTask::Exist { paths }, PROBER_TIMEOUT, &()).await?;
        parse_reply(&ran)
    }
}

pub(super) fn parse_reply<T: serde::de::DeserializeOwned>(ran: &ExecResult) -> Result<T, Error> {
    serde_json::from_slice(&ran.stdout.bytes).map_err(|error| {
        let said = String::from_utf8_lossy(&ran.stderr.bytes).trim().to_owned();
        Error::Died {
            why: format!("the prober ended with code {} and no answer ({error}): {said}", ran.exit_code),
        }
    })
}
