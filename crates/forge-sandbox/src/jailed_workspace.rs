//! An open sandbox and its workspace. Shared by every backend that drives a `forge-jail` init through a [`Jail`].
//!
//! A backend sets up the isolation layers, starts the init, and hands [`SandboxParts`] over. From then on commands,
//! files, searches, snapshots and the end of the sandbox are the same for all backends.

use crate::file_requests::{self, FileRequestHandler};
use crate::guard::ClosableSandbox;
use crate::stream::CommandStreams;
use forge_file_search::{self as walk, MAX_RESPONSE_BYTES, SEARCH_HELPER};
use forge_jail::{
    BackgroundProcesses, ExecEnd, ExecOutcome, HELPER_PATH, HelperBinary, Jail, JailCommand, JailLayerState,
    JailReply, JailRequest, RawBytes, ReplyWithFd, StartFault,
};
use forge_ports::sandbox::{
    BoundedList, CapturedOutput, Error, ExecResult, ExecSpec, FileChunk, OutputSink, SearchMatch, SearchSpec,
    WorkspaceEntry,
};
use forge_ports::{FlushHandle, Workspace, WorkspaceFiles};
use forge_ports::{async_trait, sandbox};
use forge_types::{
    EgressRecord, RunId, SandboxLayer, SandboxLayerState, SandboxReport, SnapshotId, WorkspaceLimits,
};
use forge_workspace::active_work::{self, ActiveWork};
use forge_workspace::paths::{self, WorkspacePaths};
use forge_workspace::{self as workspace, RunWorkspace, WorkspaceHandle};
use std::any::Any;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::net::unix::pipe;
use tokio::sync::oneshot;

/// Exit code of a command that exceeded its time limit, as in `timeout(1)`.
const TIMEOUT_EXIT_CODE: i32 = 124;
/// Exit codes of a shell for a program that is not found, and for one that cannot be run.
const NOT_FOUND_EXIT_CODE: i32 = 127;
const NOT_RUNNABLE_EXIT_CODE: i32 = 126;
/// Base of exit codes for signals, as in shells.
const SIGNAL_EXIT_CODE_BASE: i32 = 128;
/// Longest time that a search of the workspace may take.
const SEARCH_TIMEOUT: Duration = Duration::from_secs(120);
/// Longest time that a command's streams are read after its end: only a process that a concurrent command keeps alive
/// can still hold them open.
const STREAM_DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// A callback that returns the egress records since the last call.
pub(crate) type DrainEgressFn = Box<dyn Fn() -> Vec<EgressRecord> + Send + Sync>;

/// The parts of a sandbox that a backend has built.
pub(crate) struct SandboxParts {
    /// Jail with the sandbox's init.
    pub(crate) jail: Jail,
    /// Workspace of the run; `None` for a directory that is discarded with the sandbox.
    pub(crate) workspace: Option<Arc<RunWorkspace>>,
    /// Absolute host paths by which the workspace may be named.
    pub(crate) paths: WorkspacePaths,
    /// Longest time that a command may run.
    pub(crate) longest: Duration,
    /// Run that the sandbox belongs to, and the ceilings of its workspace.
    pub(crate) run: RunId,
    pub(crate) limits: WorkspaceLimits,
    /// Report on the sandbox. Its layers come before those of the jail.
    pub(crate) report: SandboxReport,
    /// Source of egress records, if the sandbox has egress.
    pub(crate) reached: Option<DrainEgressFn>,
    /// Resources that must outlive the sandbox: a container, a private directory, a lock. Dropped in this order, on a
    /// thread that may block.
    pub(crate) resources: Vec<Box<dyn Any + Send + Sync>>,
}

/// An open sandbox with its workspace.
pub(crate) struct JailedWorkspace {
    /// Jail; taken out on drop together with the resources that must outlive it.
    jail: Option<Arc<Jail>>,
    resources: Vec<Box<dyn Any + Send + Sync>>,
    workspace: Option<Arc<WorkspaceHandle>>,
    paths: WorkspacePaths,
    longest: Duration,
    run: RunId,
    limits: WorkspaceLimits,
    report: SandboxReport,
    reached: Option<DrainEgressFn>,
    /// Way to start this binary in the sandbox, if it differs from the way outside.
    helper: Option<HelperBinary>,
    /// Number of commands in flight.
    running: AtomicUsize,
    /// Whether a command may have left background processes running.
    left_processes: AtomicBool,
}

impl JailedWorkspace {
    /// Creates a sandbox from the parts that a backend has built.
    pub(crate) fn new(parts: SandboxParts) -> Self {
        let jail = Arc::new(parts.jail);
        let weak = Arc::downgrade(&jail);
        let over = move || {
            weak.upgrade().is_none_or(|jail| jail.death_reason().is_some() && has_exited(jail.init_pid()))
        };
        Self {
            jail: Some(jail),
            resources: parts.resources,
            workspace: parts.workspace.map(|view| WorkspaceHandle::new(view, Box::new(over))),
            paths: parts.paths,
            longest: parts.longest,
            run: parts.run,
            limits: parts.limits,
            report: parts.report,
            reached: parts.reached,
            helper: None,
            running: AtomicUsize::new(0),
            left_processes: AtomicBool::new(false),
        }
    }

    /// Sets how this binary is started in the sandbox.
    pub(crate) fn with_helper(mut self, helper: HelperBinary) -> Self {
        self.helper = Some(helper);
        self
    }

    /// Ends the sandbox; all of it is gone when this returns.
    pub(crate) async fn close(mut self) {
        // A panic in these steps ends the sandbox as well.
        let _ = tokio::task::spawn_blocking(self.shutdown_steps()).await;
    }

    /// Returns the shutdown steps in order: the workspace is released when nothing can change it any more.
    fn shutdown_steps(&mut self) -> impl FnOnce() + Send + 'static {
        let (jail, view) = (self.jail.take(), self.workspace.take());
        let (reached, keep) = (self.reached.take(), std::mem::take(&mut self.resources));
        move || {
            drop(jail);
            drop(reached);
            drop(view);
            keep.into_iter().for_each(drop);
        }
    }

    fn jail(&self) -> &Arc<Jail> {
        self.jail.as_ref().expect("the jail is only taken out by the drop")
    }

    /// Starts a command and reads its streams until it has ended.
    async fn run_command(
        &self,
        exec: JailCommand,
        keep: usize,
        output: &dyn OutputSink,
    ) -> Result<CommandOutcome, Error> {
        let failed = |error: std::io::Error| Error::Died { why: format!("cannot create a pipe: {error}") };
        let (out, out_end) = pipe_pair().map_err(failed)?;
        let (err, err_end) = pipe_pair().map_err(failed)?;
        let (id, mut answer) =
            self.submit_request(JailRequest::Exec(exec), &[out_end.as_fd(), err_end.as_fd()]);
        drop((out_end, err_end));
        // Dropping this future ends the command too.
        let mut guard = CancelOnDrop { jail: Some(Arc::clone(self.jail())), id };
        let mut streams = CommandStreams::new(keep);
        let answered = {
            let mut drained = std::pin::pin!(streams.drain(out, err, output));
            tokio::select! {
                () = &mut drained => answer.await,
                answered = &mut answer => {
                    let _ = tokio::time::timeout(STREAM_DRAIN_TIMEOUT, drained).await;
                    answered
                }
            }
        };
        guard.jail = None;
        match answered.map_err(|_| self.died_error())? {
            Ok(ReplyWithFd { reply: JailReply::Ended(ended), .. }) => {
                Ok(CommandOutcome::Ended(ended, streams))
            }
            Ok(other) => Err(Error::Died {
                why: format!("it sent an unexpected reply to a command: {:?}", other.reply),
            }),
            Err(forge_jail::Error::Start(fault)) => Ok(CommandOutcome::NotStarted(fault)),
            Err(error) => Err(to_port_error(error)),
        }
    }

    fn submit_request(&self, request: JailRequest, fds: &[BorrowedFd<'_>]) -> (u64, ReplyReceiver) {
        let (give, take) = oneshot::channel();
        let id = self.jail().submit(request, fds, move |answer| {
            // No receiver is left if the call was dropped.
            let _ = give.send(answer);
        });
        (id, take)
    }

    fn died_error(&self) -> Error {
        Error::Died { why: self.jail().death_reason().unwrap_or_else(|| "its connection closed".to_owned()) }
    }

    /// Waits until the baseline is saved, where changes go to the repository itself.
    async fn wait_baseline_saved(&self) -> Result<(), Error> {
        match self.workspace.as_ref().and_then(|slot| slot.run_workspace()) {
            Some(view) if !view.is_baseline_saved() => {
                active_work::run_bounded(self.run, self.limits, move |bounds| {
                    view.wait_baseline_saved(bounds)
                })
                .await
            }
            _ => Ok(()),
        }
    }

    /// Sends a request to the search helper, which is the same binary inside the sandbox.
    async fn search_files(&self, request: &walk::SearchRequest) -> Result<walk::SearchResponse, Error> {
        let json = serde_json::to_string(request).map_err(|e| Error::Invalid { why: e.to_string() })?;
        let (program, argv) = match &self.helper {
            Some(helper) => helper.start_command(SEARCH_HELPER),
            None => (HELPER_PATH.to_owned(), vec![SEARCH_HELPER.to_owned()]),
        };
        let exec = JailCommand {
            program: Some(RawBytes::from(program)),
            argv: argv.into_iter().chain([json]).map(RawBytes::from).collect(),
            cwd: RawBytes::default(),
            env: Vec::new(),
            timeout_ms: Some(saturating_millis(SEARCH_TIMEOUT)),
            inherited_env: None,
            stdin: None,
            background: BackgroundProcesses::Kill,
            also: Vec::new(),
        };
        match self.run_command(exec, MAX_RESPONSE_BYTES, &()).await? {
            CommandOutcome::Ended(ExecOutcome { end: ExecEnd::Exited(0), .. }, streams) => {
                let (out, _) = streams.finish();
                if out.is_truncated() {
                    return Err(Error::Invalid { why: "the result is too large; request less".to_owned() });
                }
                walk::parse_response(&out.bytes)
            }
            CommandOutcome::Ended(ExecOutcome { end: ExecEnd::TimedOut, .. }, _) => {
                Err(Error::Invalid { why: "it took too long; request a smaller part of the tree".to_owned() })
            }
            CommandOutcome::Ended(ended, _) => {
                Err(Error::Invalid { why: format!("the search failed: {:?}", ended.end) })
            }
            CommandOutcome::NotStarted(fault) => Err(Error::Died { why: fault.to_string() }),
        }
    }

    async fn execute_spec(&self, spec: ExecSpec, output: &dyn OutputSink) -> Result<ExecResult, Error> {
        let begun = Instant::now();
        // This binary, requested by its path, is started as the sandbox requires.
        let (program, before, rest) = match (&self.helper, spec.argv.split_first()) {
            (Some(helper), Some((first, rest))) if first == HELPER_PATH => {
                let (program, before) = helper.start_command(HELPER_PATH);
                (Some(program), before, rest)
            }
            _ => (None, Vec::new(), spec.argv.as_slice()),
        };
        let exec = JailCommand {
            program: program.map(RawBytes::from),
            argv: before.iter().chain(rest).map(|a| RawBytes::from(a.as_str())).collect(),
            cwd: RawBytes::from(self.paths.to_relative(&spec.cwd)?),
            env: spec
                .env
                .iter()
                .map(|(k, v)| (RawBytes::from(k.as_str()), RawBytes::from(v.as_str())))
                .collect(),
            timeout_ms: Some(saturating_millis(spec.timeout.min(self.longest))),
            inherited_env: match &spec.inherited_env {
                sandbox::InheritedEnv::All => None,
                sandbox::InheritedEnv::Only(names) => {
                    Some(names.iter().map(|name| RawBytes::from(name.as_str())).collect())
                }
            },
            stdin: spec.stdin.map(RawBytes),
            background: match spec.background {
                sandbox::BackgroundPolicy::Kill => BackgroundProcesses::Kill,
                sandbox::BackgroundPolicy::Keep => BackgroundProcesses::LeaveRunning,
            },
            also: spec.also.iter().map(|program| RawBytes::from(program.as_str())).collect(),
        };
        let cwd = exec.cwd.clone();
        match self.run_command(exec, spec.keep_bytes, output).await? {
            CommandOutcome::Ended(ended, streams) => {
                let (stdout, stderr) = streams.finish();
                Ok(ExecResult {
                    exit_code: exit_code(ended.end),
                    timed_out: ended.end == ExecEnd::TimedOut,
                    out_of_memory: ended.oom,
                    stdout,
                    stderr,
                    duration_ms: saturating_millis(begun.elapsed()),
                    peak_memory: ended.peak_memory_bytes,
                })
            }
            // The fault concerns the working directory if it names that.
            CommandOutcome::NotStarted(fault) if fault.what == cwd => {
                Err(Error::Invalid { why: format!("the working directory: {fault}") })
            }
            CommandOutcome::NotStarted(fault) => {
                Ok(start_failure_result(&fault, saturating_millis(begun.elapsed())))
            }
        }
    }
}

/// The outcome of a command.
enum CommandOutcome {
    Ended(ExecOutcome, CommandStreams),
    NotStarted(StartFault),
}

type ReplyReceiver = oneshot::Receiver<Result<ReplyWithFd, forge_jail::Error>>;

/// A guard that ends a command when its caller goes away.
struct CancelOnDrop {
    jail: Option<Arc<Jail>>,
    id: u64,
}

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        if let Some(jail) = self.jail.take() {
            jail.submit(JailRequest::Cancel { target: self.id }, &[], |_| {});
        }
    }
}

/// A guard that counts one while it lives.
struct InFlightCount<'a>(&'a AtomicUsize);

impl<'a> InFlightCount<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count)
    }
}

impl Drop for InFlightCount<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Drop for JailedWorkspace {
    fn drop(&mut self) {
        // Ending a sandbox waits for its processes, so it must not block a thread of the runtime.
        let end = self.shutdown_steps();
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(end)),
            Err(_) => end(),
        }
    }
}

#[async_trait]
impl FileRequestHandler for JailedWorkspace {
    async fn handle(&self, request: JailRequest) -> Result<ReplyWithFd, Error> {
        let (_, answer) = self.submit_request(request, &[]);
        match answer.await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(forge_jail::Error::File(fault))) => Err(paths::file_error(&fault)),
            Ok(Err(error)) => Err(to_port_error(error)),
            Err(_) => Err(self.died_error()),
        }
    }
}

#[async_trait]
impl ClosableSandbox for JailedWorkspace {
    fn run_workspace(&self) -> Option<Arc<RunWorkspace>> {
        self.workspace.as_ref().and_then(|slot| slot.run_workspace())
    }

    async fn shut_down(self: Arc<Self>) {
        if let Some(room) = Arc::into_inner(self) {
            room.close().await;
        }
    }
}

#[async_trait]
impl Workspace for JailedWorkspace {
    fn report(&self) -> SandboxReport {
        let mut report = self.report.clone();
        report.layers.extend(self.jail().layers().iter().map(to_port_layer));
        report.warnings.extend(self.jail().warnings().iter().cloned());
        report
    }

    async fn exec(&self, spec: ExecSpec, output: &dyn OutputSink) -> Result<ExecResult, Error> {
        if spec.argv.is_empty() {
            return Err(Error::Invalid { why: "the command is empty".to_owned() });
        }
        self.wait_baseline_saved().await?;
        let _running = InFlightCount::new(&self.running);
        if spec.background == sandbox::BackgroundPolicy::Keep {
            self.left_processes.store(true, Ordering::SeqCst);
        }
        self.execute_spec(spec, output).await
    }

    async fn snapshot(&self) -> Result<SnapshotId, Error> {
        let (id, durable) = self.start_snapshot().await?;
        durable.wait().await.map_err(|why| Error::View { why })?;
        Ok(id)
    }

    async fn start_snapshot(&self) -> Result<(SnapshotId, FlushHandle), Error> {
        let Some(slot) = &self.workspace else {
            return Err(Error::View {
                why: "this sandbox has no workspace to take a snapshot of".to_owned(),
            });
        };
        // Another sandbox of the run may have the workspace if this one is dead.
        let Some(view) = slot.run_workspace() else { return Err(self.died_error()) };
        // Changes made while the tree is read would be captured half-done.
        let busy = self.left_processes.load(Ordering::SeqCst) || self.running.load(Ordering::SeqCst) > 0;
        let _frozen = if busy { Some(FrozenProcesses::new(self).await?) } else { None };
        let (give, take) = oneshot::channel();
        let (durable, promise) = FlushHandle::pending();
        // Dropping this future stops the snapshot too.
        let wanted = ActiveWork::new(self.run);
        let bounds = wanted.work_bounds(self.limits);
        tokio::task::spawn_blocking(move || match view.snapshot_unflushed(&bounds) {
            Ok((id, objects)) => {
                // A caller that no longer waits does not need the result.
                let _ = give.send(Ok(id));
                promise.complete(workspace::flush_objects(&objects).map_err(|error| error.to_string()));
            }
            Err(error) => drop(give.send(Err(error))),
        });
        let id = take.await.map_err(|_| Error::Died { why: "taking the snapshot failed".to_owned() })??;
        drop(wanted);
        Ok((id, durable))
    }

    fn drain_egress_records(&self) -> Vec<EgressRecord> {
        self.reached.as_ref().map(|reached| reached()).unwrap_or_default()
    }
}

/// Returns whether a process has ended, and with it the sandbox of which it was the init. Its pid is not reused until
/// it is reaped.
fn has_exited(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    matches!(state, None | Some('Z' | 'X'))
}

/// A guard that keeps every process of the sandbox frozen while it lives.
struct FrozenProcesses {
    jail: Arc<Jail>,
}

impl FrozenProcesses {
    async fn new(room: &JailedWorkspace) -> Result<Self, Error> {
        // Created first, so that dropping this future also thaws the sandbox.
        let frozen = Self { jail: Arc::clone(room.jail()) };
        room.handle(JailRequest::Freeze).await?;
        Ok(frozen)
    }
}

impl Drop for FrozenProcesses {
    fn drop(&mut self) {
        self.jail.submit(JailRequest::Thaw, &[], |_| {});
    }
}

#[async_trait]
impl WorkspaceFiles for JailedWorkspace {
    async fn read_file(&self, path: &str, offset: u64, limit: usize) -> Result<FileChunk, Error> {
        file_requests::read_file(self, self.paths.to_relative(path)?, offset, limit).await
    }

    async fn write_file(&self, path: &str, bytes: &[u8]) -> Result<(), Error> {
        let path = self.paths.to_relative(path)?;
        self.wait_baseline_saved().await?;
        file_requests::write_file(self, path, bytes.to_vec()).await
    }

    async fn list_directory(
        &self,
        path: &str,
        depth: u32,
        limit: usize,
    ) -> Result<BoundedList<WorkspaceEntry>, Error> {
        let path = self.paths.to_relative(path)?;
        self.search_files(&walk::SearchRequest::List { path, depth, limit }).await?.into_entries()
    }

    async fn search_contents(&self, spec: SearchSpec) -> Result<BoundedList<SearchMatch>, Error> {
        let path = self.paths.to_relative(&spec.path)?;
        self.search_files(&walk::SearchRequest::Search(SearchSpec { path, ..spec })).await?.into_matches()
    }

    async fn find_files(&self, glob: &str, limit: usize) -> Result<BoundedList<WorkspaceEntry>, Error> {
        self.search_files(&walk::SearchRequest::Find { glob: glob.to_owned(), limit }).await?.into_entries()
    }

    async fn remove_file(&self, path: &str) -> Result<(), Error> {
        let path = self.paths.to_relative(path)?;
        self.wait_baseline_saved().await?;
        file_requests::remove_file(self, path).await
    }
}

/// Returns the result of a command that is not found or cannot be run, as a shell would report it.
fn start_failure_result(fault: &StartFault, duration_ms: u64) -> ExecResult {
    let missing = std::io::Error::from_raw_os_error(fault.errno).kind() == std::io::ErrorKind::NotFound;
    let text = format!("{fault}\n").into_bytes();
    ExecResult {
        exit_code: if missing { NOT_FOUND_EXIT_CODE } else { NOT_RUNNABLE_EXIT_CODE },
        timed_out: false,
        out_of_memory: false,
        stdout: CapturedOutput::default(),
        stderr: CapturedOutput { total: text.len() as u64, bytes: text, missing: 0 },
        duration_ms,
        peak_memory: 0,
    }
}

fn exit_code(end: ExecEnd) -> i32 {
    const SIGKILL_NUMBER: i32 = 9;
    match end {
        ExecEnd::Exited(code) => code,
        ExecEnd::Signaled(signal) => SIGNAL_EXIT_CODE_BASE + signal,
        ExecEnd::TimedOut => TIMEOUT_EXIT_CODE,
        ExecEnd::Cancelled => SIGNAL_EXIT_CODE_BASE + SIGKILL_NUMBER,
    }
}

fn saturating_millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Creates a pipe with the read end for the runtime and the write end for the sandbox.
fn pipe_pair() -> std::io::Result<(pipe::Receiver, OwnedFd)> {
    let (read, write) = std::io::pipe()?;
    Ok((pipe::Receiver::from_owned_fd(read.into())?, write.into()))
}

/// Converts a layer report to the port's type.
pub(crate) fn to_port_layer(report: &forge_jail::LayerReport) -> SandboxLayer {
    let state = match &report.state {
        JailLayerState::Enforced { .. } => SandboxLayerState::Enforced,
        JailLayerState::Degraded { why } => SandboxLayerState::Degraded(why.clone()),
        JailLayerState::Missing { why } => SandboxLayerState::Absent(why.clone()),
    };
    SandboxLayer { name: report.layer.describe().to_owned(), state, remedy: report.remedy.clone() }
}

/// Describes a missing layer, with the setting that requires it if the layer is optional.
fn describe_missing_layer(report: &forge_jail::LayerReport) -> String {
    match report.layer {
        forge_jail::IsolationLayer::ProgramList => format!("{report} (runtime.allowed_shell_commands)"),
        _ => report.to_string(),
    }
}

/// Converts a failure of the sandbox to the port's error.
pub(crate) fn to_port_error(error: forge_jail::Error) -> Error {
    use forge_jail::Error as Jailed;
    match error {
        Jailed::Refused(reports) => Error::Missing {
            missing: reports
                .iter()
                .filter(|r| r.blocks_start())
                .map(|report| describe_missing_layer(report).into())
                .collect(),
        },
        error @ Jailed::IdMap { .. } => Error::missing(error.to_string()),
        Jailed::Died(why) => Error::Died { why },
        error @ (Jailed::Communication { .. } | Jailed::Protocol(_)) => {
            Error::Died { why: error.to_string() }
        }
        error => Error::Startup { why: error.to_string() },
    }
}
