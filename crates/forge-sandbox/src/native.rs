//! The `native` backend: a box of Linux's own means around each run, through `forge-jail`.

use crate::door::{self, Door, blocking};
use crate::masks;
use crate::paths;
use crate::stream::Streams;
use crate::walk::{self, LARGEST_ANSWER, WALKER};
use forge_jail::{
    Answer, Bind, End, Ended, Exec, HELPER, Jail, JailSpec, Leftovers, Missing, Network, Raw, Reply, Request,
    StartFault, State,
};
use forge_ports::sandbox::{
    Entry, Error, ExecResult, ExecSpec, FileChunk, Kept, Listing, Match, OutputSink, SearchSpec,
};
use forge_ports::{Files, Sandbox, Workspace};
use forge_ports::{async_trait, sandbox};
use forge_types::{Layer, LayerState, NetworkPolicy, RunId, SandboxReport, SandboxSpec, SnapshotId};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::unix::pipe;
use tokio::sync::oneshot;

/// Exit code of a command that its time limit ended, as `timeout(1)` has it.
const TIMED_OUT: i32 = 124;
/// Exit codes of a shell for a program that is not there, and for one that cannot be run.
const NOT_FOUND: i32 = 127;
const NOT_RUNNABLE: i32 = 126;
/// Added to a signal's number, as shells do.
const SIGNALED: i32 = 128;
/// A walk of the workspace takes at most this long.
const WALK_TIME: Duration = Duration::from_secs(120);
/// After a command's end its streams are read for so long at most: only a process that a side-by-side command keeps
/// alive can still hold them.
const LINGER: Duration = Duration::from_secs(2);

/// Names at the top of a toolchain's folder that hold credentials: such a folder is bound piece by piece without them.
const SECRETS: &[&str] =
    &["credentials", "credentials.toml", ".credentials", ".npmrc", ".netrc", ".pypirc", ".git-credentials"];

/// The backend.
#[derive(Clone, Debug)]
pub struct Native {
    exe: PathBuf,
}

impl Default for Native {
    fn default() -> Self {
        Self { exe: PathBuf::from("/proc/self/exe") }
    }
}

impl Native {
    /// Uses `exe` as the box's init and walker: a binary whose `main` begins with [`crate::helper_main`]. By default
    /// that is the running binary itself.
    #[must_use]
    pub fn with_exe(exe: impl Into<PathBuf>) -> Self {
        Self { exe: exe.into() }
    }
}

#[async_trait]
impl Sandbox for Native {
    async fn probe(&self) -> Vec<Layer> {
        let exe = self.exe.clone();
        let probed = tokio::task::spawn_blocking(move || {
            // The folder decides whether root can show it under another owner, so it should be the user's own.
            let here = std::env::current_dir().ok().filter(|p| p != Path::new("/"));
            forge_jail::probe(&exe, &here.unwrap_or_else(std::env::temp_dir))
        });
        probed.await.unwrap_or_default().iter().map(layer).collect()
    }

    async fn open(
        &self,
        spec: &SandboxSpec,
        run: RunId,
        at: Option<SnapshotId>,
    ) -> Result<Arc<dyn Workspace>, Error> {
        let (exe, spec) = (self.exe.clone(), spec.clone());
        let room = blocking(move || Room::open(&exe, &spec, run)).await?;
        let _ = at;
        Ok(Arc::new(room))
    }
}

/// An open box.
struct Room {
    /// Taken out when the room is dropped.
    jail: Option<Arc<Jail>>,
    root: PathBuf,
    longest: Duration,
    report: SandboxReport,
}

impl Room {
    fn open(exe: &Path, spec: &SandboxSpec, run: RunId) -> Result<Self, Error> {
        let startup = |why: String| Error::Startup { why };
        let root = std::fs::canonicalize(&spec.repo)
            .map_err(|error| startup(format!("the workspace {}: {error}", spec.repo.display())))?;
        let masks = masks::scan(&root, &spec.reveal);
        let mut jail = JailSpec::new(run.to_string(), &root);
        jail.masked = masks.paths.iter().map(|p| Raw::from(p.as_path())).collect();
        jail.binds = spec.read_only.iter().flat_map(|folder| binds(folder)).collect();
        jail.network = match &spec.network {
            NetworkPolicy::Off => Network::Off,
            NetworkPolicy::Host => Network::Host,
            NetworkPolicy::Allow(_) => Network::Off,
        };
        jail.limits.memory_bytes = spec.limits.memory_bytes;
        jail.limits.pids = spec.limits.pids;
        jail.limits.cpus = spec.limits.cpus;
        jail.limits.tmp_bytes = spec.limits.tmp_bytes;
        for (name, value) in &spec.env {
            let (name, value) = (Raw::from(name.as_str()), Raw::from(value.as_str()));
            jail.env.retain(|(known, _)| *known != name);
            jail.env.push((name, value));
        }
        let jail = Jail::spawn(&jail, exe).map_err(refusal)?;
        let report = SandboxReport {
            backend: "native".to_owned(),
            id: format!("{run}/{}", jail.init_pid()),
            layers: Vec::new(),
            view: "direct".to_owned(),
            masked: masks.paths.iter().map(|p| p.to_string_lossy().into_owned()).collect(),
            warnings: masks.warnings,
        };
        let longest = Duration::from_millis(spec.limits.command_ms);
        Ok(Self { jail: Some(Arc::new(jail)), root, longest, report })
    }

    fn jail(&self) -> &Arc<Jail> {
        self.jail.as_ref().expect("the jail is only taken out by the drop")
    }

    /// Starts a command and reads its streams until it has ended.
    async fn run(&self, exec: Exec, keep: usize, output: &dyn OutputSink) -> Result<Ran, Error> {
        let failed = |error: std::io::Error| Error::Died { why: format!("no pipe could be made: {error}") };
        let (out, out_end) = pipe_pair().map_err(failed)?;
        let (err, err_end) = pipe_pair().map_err(failed)?;
        let (id, mut answer) = self.submit(Request::Exec(exec), &[out_end.as_fd(), err_end.as_fd()]);
        drop((out_end, err_end));
        // If this future is dropped the command ends too.
        let mut guard = CancelOnDrop { jail: Some(Arc::clone(self.jail())), id };
        let mut streams = Streams::new(keep);
        let answered = {
            let mut drained = std::pin::pin!(streams.drain(out, err, output));
            tokio::select! {
                () = &mut drained => answer.await,
                answered = &mut answer => {
                    let _ = tokio::time::timeout(LINGER, drained).await;
                    answered
                }
            }
        };
        guard.jail = None;
        match answered.map_err(|_| self.gone())? {
            Ok(Answer { reply: Reply::Ended(ended), .. }) => Ok(Ran::Ended(ended, streams)),
            Ok(other) => Err(Error::Died { why: format!("it answered {:?} to a command", other.reply) }),
            Err(forge_jail::Error::Start(fault)) => Ok(Ran::NotStarted(fault)),
            Err(error) => Err(refusal(error)),
        }
    }

    fn submit(&self, request: Request, fds: &[BorrowedFd<'_>]) -> (u64, Answered) {
        let (give, take) = oneshot::channel();
        let id = self.jail().submit(request, fds, move |answer| {
            // Nobody waits any more when the call was dropped.
            let _ = give.send(answer);
        });
        (id, take)
    }

    fn gone(&self) -> Error {
        Error::Died { why: self.jail().dead().unwrap_or_else(|| "its connection ended".to_owned()) }
    }

    /// Asks the walker, the same binary inside the box.
    async fn walk(&self, request: &walk::Request) -> Result<walk::Answer, Error> {
        let json = serde_json::to_string(request).map_err(|e| Error::Invalid { why: e.to_string() })?;
        let exec = Exec {
            program: Some(Raw::from(HELPER)),
            argv: vec![Raw::from(WALKER), Raw::from(json)],
            cwd: Raw::default(),
            env: Vec::new(),
            timeout_ms: Some(millis(WALK_TIME)),
            leftovers: Leftovers::Kill,
        };
        match self.run(exec, LARGEST_ANSWER, &()).await? {
            Ran::Ended(Ended { end: End::Exited(0), .. }, streams) => {
                let (out, _) = streams.finish();
                if out.truncated() {
                    return Err(Error::Invalid { why: "the answer is too large; ask for less".to_owned() });
                }
                walk::parse(&out.bytes)
            }
            Ran::Ended(Ended { end: End::TimedOut, .. }, _) => {
                Err(Error::Invalid { why: "it took too long; ask for a smaller part of the tree".to_owned() })
            }
            Ran::Ended(ended, _) => {
                Err(Error::Invalid { why: format!("the walk did not end well: {:?}", ended.end) })
            }
            Ran::NotStarted(fault) => Err(Error::Died { why: fault.to_string() }),
        }
    }
}

/// What became of a command.
enum Ran {
    Ended(Ended, Streams),
    NotStarted(StartFault),
}

type Answered = oneshot::Receiver<Result<Answer, forge_jail::Error>>;

/// Ends a command whose caller went away.
struct CancelOnDrop {
    jail: Option<Arc<Jail>>,
    id: u64,
}

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        if let Some(jail) = self.jail.take() {
            jail.submit(Request::Cancel { target: self.id }, &[], |_| {});
        }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        // Ending a box waits for its processes: not on a thread of the runtime, if there is one.
        let jail = self.jail.take();
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(move || drop(jail))),
            Err(_) => drop(jail),
        }
    }
}

#[async_trait]
impl Door for Room {
    async fn ask(&self, request: Request) -> Result<Answer, Error> {
        let (_, answer) = self.submit(request, &[]);
        match answer.await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(forge_jail::Error::File(fault))) => Err(paths::fault(&fault)),
            Ok(Err(error)) => Err(refusal(error)),
            Err(_) => Err(self.gone()),
        }
    }
}

#[async_trait]
impl Workspace for Room {
    fn report(&self) -> SandboxReport {
        let mut report = self.report.clone();
        report.layers = self.jail().layers().iter().map(layer).collect();
        report
    }

    async fn exec(&self, spec: ExecSpec, output: &dyn OutputSink) -> Result<ExecResult, Error> {
        if spec.argv.is_empty() {
            return Err(Error::Invalid { why: "there is no command".to_owned() });
        }
        let begun = Instant::now();
        let exec = Exec {
            program: None,
            argv: spec.argv.iter().map(|a| Raw::from(a.as_str())).collect(),
            cwd: Raw::from(paths::relative(&spec.cwd, &self.root)?),
            env: spec.env.iter().map(|(k, v)| (Raw::from(k.as_str()), Raw::from(v.as_str()))).collect(),
            timeout_ms: Some(millis(spec.timeout.min(self.longest))),
            leftovers: match spec.leftovers {
                sandbox::Leftovers::Kill => Leftovers::Kill,
                sandbox::Leftovers::Keep => Leftovers::Keep,
            },
        };
        let cwd = exec.cwd.clone();
        match self.run(exec, spec.keep_bytes, output).await? {
            Ran::Ended(ended, streams) => {
                let (stdout, stderr) = streams.finish();
                Ok(ExecResult {
                    exit_code: exit_code(ended.end),
                    timed_out: ended.end == End::TimedOut,
                    out_of_memory: ended.oom,
                    stdout,
                    stderr,
                    duration_ms: millis(begun.elapsed()),
                    peak_memory: ended.max_rss_kib << 10,
                })
            }
            // It is about the folder when that is what the fault names.
            Ran::NotStarted(fault) if fault.what == cwd => {
                Err(Error::Invalid { why: format!("the working directory: {fault}") })
            }
            Ran::NotStarted(fault) => Ok(not_started(&fault, millis(begun.elapsed()))),
        }
    }

    async fn snapshot(&self) -> Result<SnapshotId, Error> {
        Err(Error::View { why: "snapshots are not wired".to_owned() })
    }

    fn reached(&self) -> Vec<forge_types::EgressRecord> {
        Vec::new()
    }
}

#[async_trait]
impl Files for Room {
    async fn read(&self, path: &str, offset: u64, limit: usize) -> Result<FileChunk, Error> {
        door::read(self, paths::relative(path, &self.root)?, offset, limit).await
    }

    async fn write(&self, path: &str, bytes: &[u8]) -> Result<(), Error> {
        door::write(self, paths::relative(path, &self.root)?, bytes.to_vec()).await
    }

    async fn list(&self, path: &str, depth: u32, limit: usize) -> Result<Listing<Entry>, Error> {
        let path = paths::relative(path, &self.root)?;
        self.walk(&walk::Request::List { path, depth, limit }).await?.entries()
    }

    async fn search(&self, spec: SearchSpec) -> Result<Listing<Match>, Error> {
        let path = paths::relative(&spec.path, &self.root)?;
        self.walk(&walk::Request::Search(SearchSpec { path, ..spec })).await?.matches()
    }

    async fn find(&self, glob: &str, limit: usize) -> Result<Listing<Entry>, Error> {
        self.walk(&walk::Request::Find { glob: glob.to_owned(), limit }).await?.entries()
    }

    async fn remove(&self, path: &str) -> Result<(), Error> {
        door::remove(self, paths::relative(path, &self.root)?).await
    }
}

/// A command that is not there or cannot be run, as a shell would answer.
fn not_started(fault: &StartFault, duration_ms: u64) -> ExecResult {
    let missing = std::io::Error::from_raw_os_error(fault.errno).kind() == std::io::ErrorKind::NotFound;
    let text = format!("{fault}\n").into_bytes();
    ExecResult {
        exit_code: if missing { NOT_FOUND } else { NOT_RUNNABLE },
        timed_out: false,
        out_of_memory: false,
        stdout: Kept::default(),
        stderr: Kept { total: text.len() as u64, bytes: text, missing: 0 },
        duration_ms,
        peak_memory: 0,
    }
}

fn exit_code(end: End) -> i32 {
    const KILL: i32 = 9;
    match end {
        End::Exited(code) => code,
        End::Signaled(signal) => SIGNALED + signal,
        End::TimedOut => TIMED_OUT,
        End::Cancelled => SIGNALED + KILL,
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// A pipe whose read end the runtime watches and whose write end the box gets.
fn pipe_pair() -> std::io::Result<(pipe::Receiver, OwnedFd)> {
    let (read, write) = std::io::pipe()?;
    Ok((pipe::Receiver::from_owned_fd(read.into())?, write.into()))
}

/// A toolchain's folder at its own place. One with credentials at its top is bound piece by piece without them.
fn binds(folder: &Path) -> Vec<Bind> {
    let bind =
        |path: &Path| Bind { source: path.to_owned(), target: path.to_owned(), missing: Missing::Skip };
    let secret = |name: &str| SECRETS.contains(&name);
    if !SECRETS.iter().any(|name| folder.join(name).exists()) {
        return vec![bind(folder)];
    }
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter(|e| !e.file_name().to_str().is_some_and(secret)).map(|e| bind(&e.path())).collect()
}

fn layer(report: &forge_jail::LayerReport) -> Layer {
    let state = match &report.state {
        State::Enforced { .. } => LayerState::Enforced,
        State::Degraded { why } => LayerState::Degraded(why.clone()),
        State::Missing { why } => LayerState::Absent(why.clone()),
    };
    Layer { name: report.layer.describe().to_owned(), state, remedy: report.remedy.clone() }
}

/// A failure of the box in the port's words.
fn refusal(error: forge_jail::Error) -> Error {
    use forge_jail::Error as Jailed;
    match error {
        Jailed::Refused(reports) => Error::Missing {
            missing: reports.iter().filter(|r| r.blocks()).map(ToString::to_string).collect(),
        },
        error @ Jailed::IdMap { .. } => Error::Missing { missing: vec![error.to_string()] },
        Jailed::Died(why) => Error::Died { why },
        error @ (Jailed::Talk { .. } | Jailed::Protocol(_)) => Error::Died { why: error.to_string() },
        error => Error::Startup { why: error.to_string() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_with_credentials_is_bound_without_them() {
        let home = tempfile::tempdir().unwrap();
        let cargo = home.path().join(".cargo");
        std::fs::create_dir_all(cargo.join("bin")).unwrap();
        let sources = || binds(&cargo).into_iter().map(|b| b.source).collect::<Vec<_>>();
        assert_eq!(sources(), std::slice::from_ref(&cargo));
        std::fs::write(cargo.join("credentials.toml"), "token").unwrap();
        assert_eq!(sources(), [cargo.join("bin")]);
    }
}
