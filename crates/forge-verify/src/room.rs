//! A box that probes are made in.

use super::Outcomes;
use super::inside::PROBER;
use super::scene::{Line, Scene, Task, untested};
use forge_jail::HELPER;
use forge_ports::sandbox::{Error, ExecResult, ExecSpec, Leftovers, OutputSink};
use forge_ports::{Sandbox, Workspace};
use forge_types::{RunId, SandboxReport, SandboxSpec};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// All attempts of one program together take at most so long.
const LONGEST: Duration = Duration::from_secs(60);
/// How often, and with how much time between, a box is opened that another one stands in the way of.
const TRIES: u32 = 40;
const BETWEEN: Duration = Duration::from_millis(50);
/// Kept of a program's output.
const KEPT: usize = 1 << 20;

/// An open box.
#[derive(Clone)]
pub(super) struct Room(pub(super) Arc<dyn Workspace>);

impl Room {
    /// Opens one. The folder may still be held by a box that is being closed, so it is tried for a while.
    pub(super) async fn open(sandbox: &dyn Sandbox, spec: &SandboxSpec, run: RunId) -> Result<Self, Error> {
        let mut tries = 0;
        loop {
            match sandbox.open(spec, run, None).await {
                Ok(room) => return Ok(Self(room)),
                Err(error @ Error::Missing { .. }) => return Err(error),
                Err(error) if tries == TRIES => return Err(error),
                Err(_) => tries += 1,
            }
            tokio::time::sleep(BETWEEN).await;
        }
    }

    pub(super) fn report(&self) -> SandboxReport {
        self.0.report()
    }

    /// Runs the prober on a task.
    pub(super) async fn ask(
        &self,
        task: &Task,
        timeout: Duration,
        output: &dyn OutputSink,
    ) -> Result<ExecResult, Error> {
        self.ask_and(task, timeout, output, Leftovers::Kill).await
    }

    /// The same; says what becomes of the processes that it leaves behind.
    pub(super) async fn ask_and(
        &self,
        task: &Task,
        timeout: Duration,
        output: &dyn OutputSink,
        leftovers: Leftovers,
    ) -> Result<ExecResult, Error> {
        let task = serde_json::to_string(task).map_err(|e| Error::Invalid { why: e.to_string() })?;
        let spec = ExecSpec {
            argv: vec![HELPER.to_owned(), PROBER.to_owned(), task],
            cwd: String::new(),
            env: BTreeMap::new(),
            timeout,
            keep_bytes: KEPT,
            leftovers,
            also: Vec::new(),
        };
        self.0.exec(spec, output).await
    }

    /// Makes these attempts.
    pub(super) async fn probes(&self, scene: &Scene, names: Vec<String>) -> Outcomes {
        let task = Task::Probes { scene: Box::new(scene.clone()), names: names.clone() };
        let ran = match self.ask(&task, LONGEST, &()).await {
            Ok(ran) => ran,
            Err(error) => return names.into_iter().map(|n| (n, (untested(error.to_string()), 0))).collect(),
        };
        let text = String::from_utf8_lossy(&ran.stdout.bytes);
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Line>(line).ok());
        let mut outcomes: Outcomes = lines.map(|line| (line.probe, (line.outcome, line.millis))).collect();
        if ran.exit_code != 0 {
            let said = String::from_utf8_lossy(&ran.stderr.bytes).trim().to_owned();
            let why = format!("the prober ended with code {}: {said}", ran.exit_code);
            for name in names {
                outcomes.entry(name).or_insert_with(|| (untested(&why), 0));
            }
        }
        outcomes
    }

    /// How many processes there are beside the init and the one that counts.
    pub(super) async fn count(&self) -> Result<usize, Error> {
        let ran = self.ask(&Task::Count, LONGEST, &()).await?;
        parsed(&ran)
    }

    /// Which of these paths exist in the box.
    pub(super) async fn existing(&self, paths: Vec<PathBuf>) -> Result<Vec<PathBuf>, Error> {
        let ran = self.ask(&Task::Exist { paths }, LONGEST, &()).await?;
        parsed(&ran)
    }
}

pub(super) fn parsed<T: serde::de::DeserializeOwned>(ran: &ExecResult) -> Result<T, Error> {
    serde_json::from_slice(&ran.stdout.bytes).map_err(|error| {
        let said = String::from_utf8_lossy(&ran.stderr.bytes).trim().to_owned();
        Error::Died {
            why: format!("the prober ended with code {} and no answer ({error}): {said}", ran.exit_code),
        }
    })
}
