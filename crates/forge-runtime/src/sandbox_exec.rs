//! Boxes without a run: a command in the box that a run would get, a generated program, the probes, images.

use crate::{Error, Forge, sandbox};
use forge_config::ResolvedConfig;
use forge_ports::sandbox::{BackgroundPolicy, ExecResult, ExecSpec, OutputSink};
use forge_ports::{Sandbox as _, SnapshotStorage as _, WorkspaceStore as _};
use forge_sandbox::Backends;
use forge_sandbox::verify::{ProbeScope, ProbeVerdict};
use forge_types::{EgressRecord, RunId, SandboxReport, SandboxSpec, WorkspaceChange, WorkspaceMode};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

/// Bytes of each stream that are kept, as for a model's own commands.
const MAX_STREAM_BYTES: usize = 50 << 10;

/// A command for a box.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SandboxCommand {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Its time; never more than the box allows.
    pub timeout: Option<Duration>,
}

/// What became of it.
#[derive(Clone, Debug)]
pub struct SandboxCommandResult {
    /// Exit code, streams, time.
    pub result: ExecResult,
    /// What the box was.
    pub report: SandboxReport,
    /// What it reached.
    pub reached: Vec<EgressRecord>,
    /// What it changed.
    pub changed: Vec<WorkspaceChange>,
    /// Whether these changes stay: the repository was worked on directly.
    pub kept: bool,
}

impl Forge {
    /// Runs a command in exactly the box that a run with this specification would get, and ends the box.
    ///
    /// # Errors
    /// If the box can't be opened or goes away.
    pub async fn exec_in_sandbox(
        &self,
        loaded: &ResolvedConfig,
        spec: &SandboxSpec,
        command: SandboxCommand,
        output: &dyn OutputSink,
    ) -> Result<SandboxCommandResult, Error> {
        // What the box keeps of its workspace is no run's: if this process is killed, its name says whose it was.
        let scratch = sandbox::create_temp_dir(self.data_dir(), sandbox::EXEC_DIR_KIND)?;
        let boxes = sandbox::open_backends_in(loaded, scratch.path(), self.data_dir())?;
        let run = RunId::generate();
        let ran = Self::exec_as_run(&boxes, run, spec, command, output).await;
        let removed = boxes.workspaces().remove_snapshots(run).await;
        let ran = ran?;
        removed?;
        Ok(ran)
    }

    async fn exec_as_run(
        boxes: &Backends,
        run: RunId,
        spec: &SandboxSpec,
        command: SandboxCommand,
        output: &dyn OutputSink,
    ) -> Result<SandboxCommandResult, Error> {
        let workspace = boxes.open(spec, run, None).await?;
        let beginning = workspace.snapshot().await?;
        let longest = Duration::from_millis(spec.limits.command_ms);
        let exec = ExecSpec {
            argv: command.argv,
            cwd: String::new(),
            env: BTreeMap::new(),
            timeout: command.timeout.unwrap_or(longest).min(longest),
            keep_bytes: MAX_STREAM_BYTES,
            background: BackgroundPolicy::Kill,
            also: Vec::new(),
        };
        let result = workspace.exec(exec, output).await?;
        let end = workspace.snapshot().await?;
        let (report, reached) = (workspace.report(), workspace.drain_egress_records());
        // Ending a box reaps processes and removes mounts: not on a thread that runs other work.
        let _ = tokio::task::spawn_blocking(move || drop(workspace)).await;
        let changed = if end == beginning {
            Vec::new()
        } else {
            boxes.workspaces().compare(spec, run, Some(beginning), Some(end)).await?
        };
        Ok(SandboxCommandResult {
            result,
            report,
            reached,
            changed,
            kept: spec.mode == WorkspaceMode::Inplace,
        })
    }

    /// Tries to break out of a box of the configured backend; the verdict is remembered.
    ///
    /// # Errors
    /// If no such box can be opened.
    pub async fn verify_sandbox(
        &self,
        loaded: &ResolvedConfig,
        scope: ProbeScope,
    ) -> Result<ProbeVerdict, Error> {
        // The folder does not matter: the probes make their own.
        let template = crate::sandbox::base_spec(loaded, Path::new("/"), &[])?;
        let backend = match template.backend.as_str() {
            "auto" => "native",
            named => named,
        };
        self.find_verdict(loaded, &template, backend, scope).await
    }
}
