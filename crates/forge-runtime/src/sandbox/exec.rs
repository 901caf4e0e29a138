//! Sandboxes without a run: a command in the sandbox that a run would get, and the probes.

use crate::{Error, Project, sandbox};
use forge_ports::sandbox::{BackgroundPolicy, ExecResult, ExecSpec, InheritedEnv, OutputSink};
use forge_ports::{Sandbox as _, SnapshotStorage as _, WorkspaceStore as _};
use forge_sandbox::Backends;
use forge_sandbox::probes::{ProbeScope, ProbeVerdict};
use forge_types::{ChangeList, EgressRecord, RunId, SandboxReport, SandboxSpec, WorkspaceMode};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

/// The most bytes of each stream that are kept, as for a model's own commands.
const MAX_STREAM_BYTES: usize = 50 << 10;

/// A command for a sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SandboxCommand {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// The time limit, at most that of the sandbox.
    pub timeout: Option<Duration>,
}

/// The outcome of a command in a sandbox.
#[derive(Clone, Debug)]
pub struct SandboxCommandResult {
    /// Exit code, streams and duration.
    pub result: ExecResult,
    /// The report on the sandbox.
    pub report: SandboxReport,
    /// The egress of the command.
    pub reached: Vec<EgressRecord>,
    /// The paths that the command changed.
    pub changed: ChangeList,
    /// Whether these changes stay, because the command worked on the repository directly.
    pub kept: bool,
}

impl Project {
    /// Runs a command in exactly the sandbox that a run with this specification would get, then closes the
    /// sandbox.
    ///
    /// # Errors
    /// If the sandbox can't be opened or dies.
    pub async fn exec_in_sandbox(
        &self,
        spec: &SandboxSpec,
        command: SandboxCommand,
        output: &dyn OutputSink,
    ) -> Result<SandboxCommandResult, Error> {
        let loaded = self.config();
        // The workspace belongs to no run: if this process is killed, the directory's name identifies its
        // owner.
        let scratch = sandbox::create_temp_dir(self.forge().data_dir(), sandbox::EXEC_DIR_KIND)?;
        let boxes = sandbox::open_backends_in(loaded, scratch.path(), self.forge().data_dir())?;
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
            inherited_env: InheritedEnv::All,
            stdin: None,
            background: BackgroundPolicy::Kill,
            also: Vec::new(),
        };
        let result = workspace.exec(exec, output).await?;
        let end = workspace.snapshot().await?;
        let (report, reached) = (workspace.report(), workspace.drain_egress_records());
        // Ending a sandbox reaps processes and removes mounts, which must not block an async thread.
        let _ = tokio::task::spawn_blocking(move || drop(workspace)).await;
        let changed = if end == beginning {
            ChangeList::default()
        } else {
            boxes.workspaces().compare(spec, run, Some(beginning), Some(end)).await?.into()
        };
        Ok(SandboxCommandResult {
            result,
            report,
            reached,
            changed,
            kept: spec.mode == WorkspaceMode::Inplace,
        })
    }

    /// Tries to break out of a sandbox of the configured backend; the verdict is stored.
    ///
    /// # Errors
    /// If no such sandbox can be opened.
    pub async fn verify_sandbox(&self, scope: ProbeScope) -> Result<ProbeVerdict, Error> {
        let loaded = self.config();
        // The directory does not matter: the probes create their own.
        let template = crate::sandbox::base_spec(loaded, Path::new("/"), &[])?;
        let backend = match template.backend.as_str() {
            "auto" => "native",
            named => named,
        };
        self.find_verdict(&template, backend, scope).await
    }
}
