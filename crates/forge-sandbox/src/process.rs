//! The `process` backend: commands as processes of the host. It isolates nothing and is never chosen automatically.

use crate::BackendOptions;
use crate::file_requests::{self, FileRequestHandler};
use crate::guard::{ClosableSandbox, GuardedWorkspace};
use crate::stale_temps;
use crate::stream::CommandStreams;
use forge_file_search::{self as walk, SearchRequest};
use forge_files::PrivateDir;
use forge_jail::{FaultKind, FileFault, JailReply, RawBytes, RootedFiles};
use forge_ports::async_trait;
use forge_ports::sandbox::{
    BoundedList, CapturedOutput, Error, ExecResult, ExecSpec, FileChunk, InheritedEnv, OutputSink,
    SearchMatch, SearchSpec, WorkspaceEntry,
};
use forge_ports::{Sandbox, Workspace};
use forge_types::{
    NetworkPolicy, RunId, SandboxLayer, SandboxLayerState, SandboxReport, SandboxSpec, SnapshotId,
    WorkspaceLimits,
};
use forge_workspace::active_work;
use forge_workspace::paths::{self, WorkspacePaths};
use forge_workspace::run_blocking;
use forge_workspace::{self as workspace, ForcedCopy, RunWorkspace, WorkspaceStorage};
use parking_lot::Mutex;
use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, Signal};
use std::any::Any;
use std::collections::{BTreeMap, HashSet};
use std::ffi::OsString;
use std::io::{Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::process::Child;

/// Exit code of a command that exceeded its time limit, as in `timeout(1)`.
const TIMEOUT_EXIT_CODE: i32 = 124;
/// Time between TERM and KILL for a command that exceeded its time limit.
const TERM_GRACE_PERIOD: Duration = Duration::from_millis(200);
/// Variable that every process of a command inherits; identifies those that left the process group.
const COMMAND_MARKER_VAR: &str = "FORGE_COMMAND";

/// The backend without isolation.
#[derive(Clone, Debug)]
pub(crate) struct ProcessBackend {
    options: Arc<BackendOptions>,
}

impl ProcessBackend {
    pub(crate) const fn new(options: Arc<BackendOptions>) -> Self {
        Self { options }
    }
}

#[async_trait]
impl Sandbox for ProcessBackend {
    async fn probe_layers(&self) -> Vec<SandboxLayer> {
        vec![SandboxLayer {
            name: "isolation".to_owned(),
            state: SandboxLayerState::Absent(
                "commands run as processes of this machine, with all your rights".to_owned(),
            ),
            remedy: Some("use the native backend".to_owned()),
        }]
    }

    async fn open(
        &self,
        spec: &SandboxSpec,
        run: RunId,
        at: Option<SnapshotId>,
    ) -> Result<Arc<dyn Workspace>, Error> {
        if !spec.allow_unisolated {
            let missing = "the backend `process` isolates nothing and is used only with sandbox.allow_unisolated = true";
            return Err(Error::missing(missing));
        }
        if spec.programs.is_some() {
            let missing = "the backend `process` cannot enforce runtime.allowed_shell_commands: use another backend, or leave the list empty";
            return Err(Error::missing(missing));
        }
        let (own, spec) = (self.clone(), spec.clone());
        let held = move |at| {
            let (own, spec) = (own.clone(), spec.clone());
            async move { own.open_process_workspace(&spec, run, at).await }
        };
        GuardedWorkspace::open(at, held).await
    }
}

impl ProcessBackend {
    async fn open_process_workspace(
        &self,
        spec: &SandboxSpec,
        run: RunId,
        at: Option<SnapshotId>,
    ) -> Result<Arc<ProcessWorkspace>, Error> {
        let layers = self.probe_layers().await;
        // Without namespaces only a copy can be private.
        let why = "the backend `process` has no other private workspace".to_owned();
        let store = WorkspaceStorage { limit: Some(ForcedCopy { why }), ..self.options.workspace_storage() };
        let (view, keep) = workspace::prepare_workspace(&store, spec, run, at).await?;
        let spec = spec.clone();
        let temporary = stale_temps::temp_directory(&self.options)?;
        Ok(Arc::new(
            run_blocking(move || ProcessWorkspace::open(&spec, run, layers, &temporary, view, keep)).await?,
        ))
    }
}

struct ProcessWorkspace {
    root: PathBuf,
    paths: WorkspacePaths,
    home: PathBuf,
    longest: Duration,
    run: RunId,
    limits: WorkspaceLimits,
    files: Arc<Mutex<RootedFiles>>,
    /// Masked files by device and inode, whatever path leads to them.
    masked: HashSet<(u64, u64)>,
    env: Vec<(String, String)>,
    report: SandboxReport,
    workspace: Arc<RunWorkspace>,
    /// Resources that are released with the workspace.
    _resources: Vec<Box<dyn Any + Send + Sync>>,
}

impl ProcessWorkspace {
    fn open(
        spec: &SandboxSpec,
        run: RunId,
        layers: Vec<SandboxLayer>,
        temporary: &PrivateDir,
        view: RunWorkspace,
        keep: Vec<Box<dyn Any + Send + Sync>>,
    ) -> Result<Self, Error> {
        let startup = |path: &Path, error: std::io::Error| Error::Startup {
            why: format!("{}: {error}", path.display()),
        };
        let Some(root) = view.host_directory() else {
            let why = "the backend `process` cannot work directly in several repositories at once".to_owned();
            return Err(Error::Invalid { why });
        };
        let flags = OFlags::DIRECTORY | OFlags::PATH | OFlags::CLOEXEC;
        let folder =
            rustix::fs::open(&root, flags, Mode::empty()).map_err(|error| startup(&root, error.into()))?;
        let home = temporary.path().join(forge_files::owned_temp_name(stale_temps::HOME_DIR_KIND));
        std::fs::DirBuilder::new().mode(0o700).create(&home).map_err(|error| startup(&home, error))?;
        let mut report = SandboxReport {
            backend: "process".to_owned(),
            id: run.to_string(),
            layers,
            warnings: vec!["nothing is isolated: commands run with all your rights".to_owned()],
            ..SandboxReport::default()
        };
        view.describe(&mut report);
        let masked: Vec<PathBuf> = report.masked.iter().map(|path| root.join(path)).collect();
        let ids = masked.iter().filter_map(|path| path.metadata().ok()).map(|m| (m.dev(), m.ino())).collect();
        if !masked.is_empty() {
            report
                .warnings
                .push("masked files are hidden from file tools only: commands can read them".to_owned());
        }
        if matches!(spec.network, NetworkPolicy::Off | NetworkPolicy::Allow(_)) {
            report.warnings.push("commands can reach everything that this machine can reach".to_owned());
        }
        Ok(Self {
            home,
            longest: Duration::from_millis(spec.limits.command_ms),
            run,
            limits: spec.workspace,
            files: Arc::new(Mutex::new(RootedFiles::new(folder))),
            masked: ids,
            env: spec.env.clone(),
            report,
            paths: view.workspace_paths(),
            workspace: Arc::new(view),
            _resources: keep,
            root,
        })
    }

    /// Waits until the baseline is saved, where changes go to the repository itself.
    async fn wait_baseline_saved(&self) -> Result<(), Error> {
        if self.workspace.is_baseline_saved() {
            return Ok(());
        }
        let view = Arc::clone(&self.workspace);
        active_work::run_bounded(self.run, self.limits, move |bounds| view.wait_baseline_saved(bounds)).await
    }

    async fn search_files(&self, request: SearchRequest) -> Result<walk::SearchResponse, Error> {
        let root = self.root.clone();
        run_blocking(move || Ok(walk::handle_request(&root, &request))).await
    }

    fn is_masked(&self, path: &Path) -> bool {
        !self.masked.is_empty() && path.metadata().is_ok_and(|m| self.masked.contains(&(m.dev(), m.ino())))
    }

    /// Returns the variables of this sandbox that a command gets.
    fn inherited_env(&self, inherited: &InheritedEnv) -> BTreeMap<String, OsString> {
        let mut env = BTreeMap::from([
            ("PATH".to_owned(), OsString::from("/usr/local/bin:/usr/bin:/bin")),
            ("HOME".to_owned(), self.home.clone().into_os_string()),
            ("LANG".to_owned(), OsString::from("C.UTF-8")),
        ]);
        env.extend(self.env.iter().map(|(name, value)| (name.clone(), OsString::from(value))));
        if let InheritedEnv::Only(names) = inherited {
            env.retain(|name, _| names.contains(name));
        }
        env
    }

    fn spawn(&self, spec: &ExecSpec, mark: &str) -> Result<Result<Child, std::io::Error>, Error> {
        let (program, arguments) = spec
            .argv
            .split_first()
            .ok_or_else(|| Error::Invalid { why: "the command is empty".to_owned() })?;
        let below = self.paths.to_relative(&spec.cwd)?;
        let (root, cwd) = (std::fs::canonicalize(&self.root), self.root.join(&below));
        let real = std::fs::canonicalize(&cwd).ok().filter(|real| real.is_dir());
        let inside = real.zip(root.ok()).is_some_and(|(real, root)| real.starts_with(root));
        let Some(cwd) = Some(cwd).filter(|_| inside) else {
            let why = format!("the working directory `{}` is not a directory of the workspace", spec.cwd);
            return Err(Error::Invalid { why });
        };
        let mut command = tokio::process::Command::new(program);
        command
            .args(arguments)
            .current_dir(cwd)
            .env_clear()
            .envs(self.inherited_env(&spec.inherited_env))
            .envs(&spec.env)
            .env(COMMAND_MARKER_VAR, mark)
            .stdin(open_stdin(spec.stdin.as_deref())?)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        // Started on a thread of the runtime, which outlives the command unless the process ends.
        forge_sys::kill_on_thread_exit(command.as_std_mut());
        Ok(command.spawn())
    }
}

/// Opens a command's standard input: a file in memory with this content, or an empty one.
fn open_stdin(content: Option<&[u8]>) -> Result<Stdio, Error> {
    let Some(content) = content else { return Ok(Stdio::null()) };
    let open = || -> std::io::Result<std::fs::File> {
        let memory = rustix::fs::memfd_create("forge-stdin", rustix::fs::MemfdFlags::CLOEXEC)?;
        let mut file = std::fs::File::from(memory);
        file.write_all(content)?;
        file.rewind()?;
        Ok(file)
    };
    let file = open().map_err(|error| Error::Startup { why: format!("the command's input: {error}") })?;
    Ok(Stdio::from(file))
}

impl Drop for ProcessWorkspace {
    fn drop(&mut self) {
        // Contains only what commands left in their home, nothing of the user's.
        forge_files::remove_tree(&self.home);
    }
}

/// A guard that kills what a command left, even if the call is dropped: its process group and all processes with its
/// marker.
struct ProcessTreeGuard {
    group: Option<Pid>,
    mark: String,
}

impl ProcessTreeGuard {
    fn signal_group(&self, signal: Signal) {
        if let Some(group) = self.group {
            let _ = rustix::process::kill_process_group(group, signal);
        }
    }

    fn kill(&self) {
        self.signal_group(Signal::KILL);
        // A killed process may have started another just before: repeat a few times until none is left.
        for _ in 0..8 {
            let marked = processes_with_marker(&format!("{COMMAND_MARKER_VAR}={}", self.mark));
            if marked.is_empty() {
                return;
            }
            for pid in marked {
                let _ = rustix::process::kill_process(pid, Signal::KILL);
            }
        }
    }
}

impl Drop for ProcessTreeGuard {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Returns the living processes that were started with `entry` in their environment. Those of other users cannot be
/// read and do not belong to the command.
fn processes_with_marker(entry: &str) -> Vec<Pid> {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let mine = processes.filter_map(|process| {
        let pid: i32 = process.file_name().to_str()?.parse().ok()?;
        let environ = std::fs::read(process.path().join("environ")).ok()?;
        let carries = environ.split(|byte| *byte == 0).any(|have| have == entry.as_bytes());
        if carries { Pid::from_raw(pid) } else { None }
    });
    mine.collect()
}

#[async_trait]
impl FileRequestHandler for ProcessWorkspace {
    async fn handle(&self, request: forge_jail::JailRequest) -> Result<forge_jail::ReplyWithFd, Error> {
        let hidden = match &request {
            forge_jail::JailRequest::OpenRead { path } | forge_jail::JailRequest::CreateTemp { path, .. } => {
                self.is_masked(&self.root.join(path.as_path())).then(|| path.clone())
            }
            _ => None,
        };
        if let Some(path) = hidden {
            return Err(paths::file_error(&FileFault { path, kind: FaultKind::Denied }));
        }
        let files = Arc::clone(&self.files);
        run_blocking(move || {
            let (reply, fd) = files.lock().handle_request(request);
            match reply {
                JailReply::Failed(fault) => Err(paths::file_error(&fault)),
                reply => Ok(forge_jail::ReplyWithFd { reply, fd }),
            }
        })
        .await
    }
}

#[async_trait]
impl ClosableSandbox for ProcessWorkspace {
    fn run_workspace(&self) -> Option<Arc<RunWorkspace>> {
        Some(Arc::clone(&self.workspace))
    }

    async fn shut_down(self: Arc<Self>) {
        drop(self);
    }
}

#[async_trait]
impl Workspace for ProcessWorkspace {
    fn report(&self) -> SandboxReport {
        self.report.clone()
    }

    async fn exec(&self, spec: ExecSpec, output: &dyn OutputSink) -> Result<ExecResult, Error> {
        self.wait_baseline_saved().await?;
        let begun = Instant::now();
        let mark = RunId::generate().to_string();
        let mut child = match self.spawn(&spec, &mark)? {
            Ok(child) => child,
            Err(error) => return Ok(start_failure_result(&spec, &error)),
        };
        let group = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        let remains = ProcessTreeGuard { group, mark };
        let mut streams = CommandStreams::new(spec.keep_bytes);
        let piped = child.stdout.take().zip(child.stderr.take());
        let ended = {
            let drained = async {
                if let Some((out, err)) = piped {
                    streams.drain(out, err, output).await;
                }
            };
            let mut drained = std::pin::pin!(drained);
            let limit = tokio::time::sleep(spec.timeout.min(self.longest));
            let mut limit = std::pin::pin!(limit);
            let (mut open, mut killed, mut timed_out) = (true, false, false);
            let status = loop {
                tokio::select! {
                    () = &mut drained, if open => open = false,
                    status = child.wait() => break status,
                    () = &mut limit, if !killed => {
                        killed = timed_out;
                        timed_out = true;
                        remains.signal_group(if killed { Signal::KILL } else { Signal::TERM });
                        limit.as_mut().reset(tokio::time::Instant::now() + TERM_GRACE_PERIOD);
                    }
                }
            };
            // A background process may hold the pipes open: end it with the command.
            remains.kill();
            if open {
                drained.await;
            }
            status.map(|status| (status, timed_out))
        };
        let (status, timed_out) = ended.map_err(|error| Error::Died { why: error.to_string() })?;
        let (stdout, stderr) = streams.finish();
        Ok(ExecResult {
            exit_code: if timed_out { TIMEOUT_EXIT_CODE } else { exit_code(status) },
            timed_out,
            out_of_memory: false,
            stdout,
            stderr,
            duration_ms: u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
            peak_memory: 0,
        })
    }

    async fn snapshot(&self) -> Result<SnapshotId, Error> {
        let view = Arc::clone(&self.workspace);
        active_work::run_bounded(self.run, self.limits, move |bounds| view.snapshot(bounds)).await
    }

    fn drain_egress_records(&self) -> Vec<forge_types::EgressRecord> {
        Vec::new()
    }
}

#[async_trait]
impl forge_ports::WorkspaceFiles for ProcessWorkspace {
    async fn read_file(&self, path: &str, offset: u64, limit: usize) -> Result<FileChunk, Error> {
        file_requests::read_file(self, self.paths.to_relative(path)?, offset, limit).await
    }

    async fn write_file(&self, path: &str, bytes: &[u8]) -> Result<(), Error> {
        self.wait_baseline_saved().await?;
        file_requests::write_file(self, self.paths.to_relative(path)?, bytes.to_vec()).await
    }

    async fn list_directory(
        &self,
        path: &str,
        depth: u32,
        limit: usize,
    ) -> Result<BoundedList<WorkspaceEntry>, Error> {
        let path = self.paths.to_relative(path)?;
        self.search_files(SearchRequest::List { path, depth, limit }).await?.into_entries()
    }

    async fn search_contents(&self, spec: SearchSpec) -> Result<BoundedList<SearchMatch>, Error> {
        let path = self.paths.to_relative(&spec.path)?;
        let mut found =
            self.search_files(SearchRequest::Search(SearchSpec { path, ..spec })).await?.into_matches()?;
        found.items.retain(|item| !self.is_masked(&self.root.join(&item.path)));
        Ok(found)
    }

    async fn find_files(&self, glob: &str, limit: usize) -> Result<BoundedList<WorkspaceEntry>, Error> {
        self.search_files(SearchRequest::Find { glob: glob.to_owned(), limit }).await?.into_entries()
    }

    async fn remove_file(&self, path: &str) -> Result<(), Error> {
        self.wait_baseline_saved().await?;
        file_requests::remove_file(self, self.paths.to_relative(path)?).await
    }
}

/// Returns the result of a command that is not found or cannot be run, as a shell would report it.
fn start_failure_result(spec: &ExecSpec, error: &std::io::Error) -> ExecResult {
    let what = RawBytes::from(spec.argv.first().map_or("", String::as_str));
    let text = format!("cannot start {what}: {error}\n").into_bytes();
    ExecResult {
        exit_code: if error.kind() == std::io::ErrorKind::NotFound { 127 } else { 126 },
        timed_out: false,
        out_of_memory: false,
        stdout: CapturedOutput::default(),
        stderr: CapturedOutput { total: text.len() as u64, bytes: text, missing: 0 },
        duration_ms: 0,
        peak_memory: 0,
    }
}

fn exit_code(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt as _;
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}
