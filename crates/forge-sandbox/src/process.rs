//! The `process` backend: commands as processes of the host. It isolates nothing and is never chosen by itself.

use crate::capture::Capture;
use crate::folder::Folder;
use crate::walk::{self, Answer, Request};
use forge_ports::async_trait;
use forge_ports::sandbox::{
    Entry, Error, ExecResult, ExecSpec, FileChunk, Listing, Manifest, Match, OutputSink, SearchSpec, Stream,
};
use forge_ports::{Sandbox, Workspace};
use forge_types::{Layer, LayerState, RunId, SandboxReport, SandboxSpec};
use rustix::process::{Pid, Signal};
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Instant;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::Child;

/// Exit code of a command that its time limit ended, as `timeout(1)` has it.
const TIMED_OUT: i32 = 124;

/// The backend without isolation.
#[derive(Clone, Copy, Debug, Default)]
pub struct Process;

#[async_trait]
impl Sandbox for Process {
    async fn probe(&self) -> Vec<Layer> {
        vec![Layer {
            name: "isolation".to_owned(),
            state: LayerState::Absent(
                "commands run as processes of this machine, with all your rights".to_owned(),
            ),
            remedy: Some("use the native backend".to_owned()),
        }]
    }

    async fn open(&self, spec: &SandboxSpec, run: RunId) -> Result<Arc<dyn Workspace>, Error> {
        if !spec.allow_unisolated {
            let missing = "the backend `process` isolates nothing and is used only with sandbox.allow_unisolated = true";
            return Err(Error::Missing { missing: vec![missing.to_owned()] });
        }
        let folder = Folder::open(&spec.repo)
            .map_err(|error| Error::Startup { why: format!("{}: {error}", spec.repo.display()) })?;
        let report = SandboxReport {
            backend: "process".to_owned(),
            id: run.to_string(),
            layers: self.probe().await,
            masked: Vec::new(),
            warnings: vec!["nothing is isolated: commands run with all your rights".to_owned()],
        };
        let env = spec.env.clone();
        Ok(Arc::new(HostFolder { root: spec.repo.clone(), folder: Arc::new(folder), env, report }))
    }
}

struct HostFolder {
    root: PathBuf,
    folder: Arc<Folder>,
    env: Vec<(String, String)>,
    report: SandboxReport,
}

impl HostFolder {
    async fn walk(&self, request: Request) -> Result<Answer, Error> {
        let root = self.root.clone();
        blocking(move || Ok(walk::walk(&root, &request))).await
    }

    fn spawn(&self, spec: &ExecSpec) -> Result<Child, Error> {
        let (program, arguments) = spec
            .argv
            .split_first()
            .ok_or_else(|| Error::Invalid { why: "there is no command".to_owned() })?;
        let cwd = self.root.join(&spec.cwd);
        if !cwd.canonicalize().is_ok_and(|cwd| cwd.starts_with(&self.root)) {
            let why = format!("the working directory `{}` is not in the workspace", spec.cwd);
            return Err(Error::Invalid { why });
        }
        let mut command = tokio::process::Command::new(program);
        command
            .args(arguments)
            .current_dir(cwd)
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("HOME", &self.root)
            .env("LANG", "C.UTF-8")
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .envs(&spec.env)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        command.spawn().map_err(|error| Error::Invalid { why: format!("`{program}` can't be run: {error}") })
    }
}

/// Kills what a command left in its process group, also when the call is dropped.
struct Group(Option<Pid>);

impl Group {
    fn kill(&self) {
        if let Some(pid) = self.0 {
            let _ = rustix::process::kill_process_group(pid, Signal::KILL);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}

#[async_trait]
impl Workspace for HostFolder {
    fn report(&self) -> SandboxReport {
        self.report.clone()
    }

    async fn exec(&self, spec: ExecSpec, output: &dyn OutputSink) -> Result<ExecResult, Error> {
        let begun = Instant::now();
        let mut child = self.spawn(&spec)?;
        let group = Group(child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw));
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let (mut kept_out, mut kept_err) = (Capture::new(spec.keep_bytes), Capture::new(spec.keep_bytes));
        let streams = async {
            tokio::join!(
                drain(stdout, Stream::Stdout, &mut kept_out, output),
                drain(stderr, Stream::Stderr, &mut kept_err, output)
            )
        };
        let ended = async {
            let mut streams = std::pin::pin!(streams);
            let status = tokio::select! {
                status = child.wait() => status,
                _ = &mut streams => return child.wait().await,
            };
            // A background process may hold the pipes open: it ends with the command.
            group.kill();
            streams.await;
            status
        };
        let (exit_code, timed_out) = match tokio::time::timeout(spec.timeout, ended).await {
            Ok(Ok(status)) => (code(status), false),
            Ok(Err(error)) => return Err(Error::Died { why: error.to_string() }),
            Err(_) => (TIMED_OUT, true),
        };
        group.kill();
        let _ = child.wait().await;
        Ok(ExecResult {
            exit_code,
            timed_out,
            out_of_memory: false,
            stdout: kept_out.finish(),
            stderr: kept_err.finish(),
            duration_ms: u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
        })
    }

    async fn read(&self, path: &str, offset: u64, limit: usize) -> Result<FileChunk, Error> {
        let (folder, path) = (self.folder.clone(), path.to_owned());
        blocking(move || folder.read(&path, offset, limit)).await
    }

    async fn write(&self, path: &str, bytes: &[u8]) -> Result<(), Error> {
        let (folder, path, bytes) = (self.folder.clone(), path.to_owned(), bytes.to_vec());
        blocking(move || folder.write(&path, &bytes)).await
    }

    async fn list(&self, path: &str, depth: u32, limit: usize) -> Result<Listing<Entry>, Error> {
        self.walk(Request::List { path: path.to_owned(), depth, limit }).await?.entries()
    }

    async fn search(&self, spec: SearchSpec) -> Result<Listing<Match>, Error> {
        self.walk(Request::Search(spec)).await?.matches()
    }

    async fn find(&self, glob: &str, limit: usize) -> Result<Listing<Entry>, Error> {
        self.walk(Request::Find { glob: glob.to_owned(), limit }).await?.entries()
    }

    async fn manifest(&self) -> Result<Manifest, Error> {
        self.walk(Request::Manifest).await?.manifest()
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.map_err(|error| Error::Died { why: error.to_string() })?
}

async fn drain(
    pipe: Option<impl AsyncRead + Unpin>,
    stream: Stream,
    kept: &mut Capture,
    output: &dyn OutputSink,
) {
    let Some(mut pipe) = pipe else { return };
    let mut buffer = vec![0; 64 << 10];
    while let Ok(read @ 1..) = pipe.read(&mut buffer).await {
        kept.push(&buffer[..read]);
        output.output(stream, &buffer[..read]);
    }
}

fn code(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt as _;
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}
