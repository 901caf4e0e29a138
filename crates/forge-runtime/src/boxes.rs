//! Boxes without a run: a command in the box that a run would get, a generated program, the probes, images.

use crate::{Error, Forge, sandbox};
use forge_config::Loaded;
use forge_ports::sandbox::{ExecResult, ExecSpec, Leftovers, OutputSink};
use forge_ports::{Sandbox as _, ViewStorage as _, Views as _};
use forge_sandbox::Backends;
use forge_sandbox::verify::{Scope, Verdict};
use forge_types::{EgressRecord, FileChange, RunId, SandboxReport, SandboxSpec, WorkspaceMode};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

/// Bytes of each stream that are kept, as for a model's own commands.
const KEEP: usize = 50 << 10;

/// A command for a box.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BoxCommand {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Its time; never more than the box allows.
    pub timeout: Option<Duration>,
}

/// What became of it.
#[derive(Clone, Debug)]
pub struct BoxRun {
    /// Exit code, streams, time.
    pub result: ExecResult,
    /// What the box was.
    pub report: SandboxReport,
    /// What it reached.
    pub reached: Vec<EgressRecord>,
    /// What it changed.
    pub changed: Vec<FileChange>,
    /// Whether these changes stay: the repository was worked on directly.
    pub kept: bool,
}

impl Forge {
    /// Runs a command in exactly the box that a run with this specification would get, and ends the box.
    ///
    /// # Errors
    /// If the box can't be opened or goes away.
    pub async fn exec(
        &self,
        loaded: &Loaded,
        spec: &SandboxSpec,
        command: BoxCommand,
        output: &dyn OutputSink,
    ) -> Result<BoxRun, Error> {
        // What the box keeps of its workspace is no run's: if this process is killed, its name says whose it was.
        let scratch = sandbox::scratch(self.data(), sandbox::EXEC)?;
        let boxes = sandbox::backends_in(loaded, scratch.path(), self.data())?;
        let run = RunId::generate();
        let ran = Self::exec_as(&boxes, run, spec, command, output).await;
        let removed = boxes.remove(run).await;
        let ran = ran?;
        removed?;
        Ok(ran)
    }

    async fn exec_as(
        boxes: &Backends,
        run: RunId,
        spec: &SandboxSpec,
        command: BoxCommand,
        output: &dyn OutputSink,
    ) -> Result<BoxRun, Error> {
        let workspace = boxes.open(spec, run, None).await?;
        let beginning = workspace.snapshot().await?;
        let longest = Duration::from_millis(spec.limits.command_ms);
        let exec = ExecSpec {
            argv: command.argv,
            cwd: String::new(),
            env: BTreeMap::new(),
            timeout: command.timeout.unwrap_or(longest).min(longest),
            keep_bytes: KEEP,
            leftovers: Leftovers::Kill,
            also: Vec::new(),
        };
        let result = workspace.exec(exec, output).await?;
        let end = workspace.snapshot().await?;
        let (report, reached) = (workspace.report(), workspace.reached());
        // Ending a box reaps processes and removes mounts: not on a thread that runs other work.
        let _ = tokio::task::spawn_blocking(move || drop(workspace)).await;
        let changed = if end == beginning {
            Vec::new()
        } else {
            boxes.compare(spec, run, Some(beginning), Some(end)).await?
        };
        Ok(BoxRun { result, report, reached, changed, kept: spec.mode == WorkspaceMode::Inplace })
    }

    /// Tries to break out of a box of the configured backend; the verdict is remembered.
    ///
    /// # Errors
    /// If no such box can be opened.
    pub async fn verify(&self, loaded: &Loaded, scope: Scope) -> Result<Verdict, Error> {
        // The folder does not matter: the probes make their own.
        let template = crate::sandbox::spec(loaded, Path::new("/"), &[])?;
        let backend = match template.backend.as_str() {
            "auto" => "native",
            named => named,
        };
        self.find_verdict(loaded, &template, backend, scope).await
    }
}
