//! An open box with its workspace, whatever stands around it: what all backends share that hold the init of a
//! `forge-jail` box on the other side of a [`Jail`].
//!
//! A backend decides what the walls are, starts the init, and hands a [`Parts`] over. From then on commands, files,
//! walks, snapshots and the end of the box are the same for all of them.

use crate::door::{self, Door, blocking};
use crate::guard::Held;
use crate::paths::{self, Places};
use crate::stream::Streams;
use crate::view::{self, Slot, View};
use crate::wanted::{self, Wanted};
use forge_file_search::{self as walk, LARGEST_ANSWER, WALKER};
use forge_jail::{
    Answer, End, Ended, Exec, HELPER, Helper, Jail, Leftovers, Raw, Reply, Request, StartFault, State,
};
use forge_ports::sandbox::{
    Entry, Error, ExecResult, ExecSpec, FileChunk, Kept, Listing, Match, OutputSink, SearchSpec,
};
use forge_ports::{Durable, Files, Workspace};
use forge_ports::{async_trait, sandbox};
use forge_types::{EgressRecord, Layer, LayerState, RunId, SandboxReport, SnapshotId, WorkspaceLimits};
use std::any::Any;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
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

/// Gives what a box tried to reach since the last call.
pub(crate) type Reached = Box<dyn Fn() -> Vec<EgressRecord> + Send + Sync>;

/// What a backend built.
pub(crate) struct Parts {
    /// The init on the other side.
    pub(crate) jail: Jail,
    /// What the workspace is; `None`: something that is thrown away with the box.
    pub(crate) view: Option<Arc<View>>,
    /// By which absolute paths of the host the workspace may be named.
    pub(crate) places: Places,
    /// No command may run longer.
    pub(crate) longest: Duration,
    /// The run that it is for, and the ceilings of its workspace.
    pub(crate) run: RunId,
    pub(crate) limits: WorkspaceLimits,
    /// What the box is. Layers that stand here come before those of the jail.
    pub(crate) report: SandboxReport,
    /// Gives what the box tried to reach since the last call, if it has a way out.
    pub(crate) reached: Option<Reached>,
    /// Whatever must live as long as the box and end after it: a container, a private folder, a lock. Dropped in
    /// this order, on a thread that may wait.
    pub(crate) keep: Vec<Box<dyn Any + Send + Sync>>,
}

/// An open box.
pub(crate) struct Room {
    /// Taken out when the room is dropped, with what must end after it.
    jail: Option<Arc<Jail>>,
    keep: Vec<Box<dyn Any + Send + Sync>>,
    view: Option<Arc<Slot>>,
    places: Places,
    longest: Duration,
    run: RunId,
    limits: WorkspaceLimits,
    report: SandboxReport,
    reached: Option<Reached>,
    /// How the own binary runs in there, where that is not as it runs here.
    helper: Option<Helper>,
    /// Commands in flight.
    running: AtomicUsize,
    /// Whether a command may have left processes behind that go on.
    kept: AtomicBool,
}

impl Room {
    /// A box from what a backend built.
    pub(crate) fn new(parts: Parts) -> Self {
        let jail = Arc::new(parts.jail);
        let weak = Arc::downgrade(&jail);
        let over =
            move || weak.upgrade().is_none_or(|jail| jail.dead().is_some() && is_gone(jail.init_pid()));
        Self {
            jail: Some(jail),
            keep: parts.keep,
            view: parts.view.map(|view| Slot::new(view, Box::new(over))),
            places: parts.places,
            longest: parts.longest,
            run: parts.run,
            limits: parts.limits,
            report: parts.report,
            reached: parts.reached,
            helper: None,
            running: AtomicUsize::new(0),
            kept: AtomicBool::new(false),
        }
    }

    /// The same box, in which the own binary is started in another way than here.
    pub(crate) fn with_helper(mut self, helper: Helper) -> Self {
        self.helper = Some(helper);
        self
    }

    /// Ends the box; all of it is gone when this returns.
    pub(crate) async fn close(mut self) {
        // A panic in there ends the box as well.
        let _ = tokio::task::spawn_blocking(self.ending()).await;
    }

    /// What has to be done at the end, in its order: the workspace is let go of when nothing can change it any more.
    fn ending(&mut self) -> impl FnOnce() + Send + 'static {
        let (jail, view) = (self.jail.take(), self.view.take());
        let (reached, keep) = (self.reached.take(), std::mem::take(&mut self.keep));
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

    /// Waits until the state before the first change is safe, where changes go to the repository itself.
    async fn before_writing(&self) -> Result<(), Error> {
        match self.view.as_ref().and_then(|slot| slot.view()) {
            Some(view) if !view.is_safe() => {
                wanted::within(self.run, self.limits, move |bounds| view.make_safe(bounds)).await
            }
            _ => Ok(()),
        }
    }

    /// Asks the walker, the same binary inside the box.
    async fn walk(&self, request: &walk::Request) -> Result<walk::Answer, Error> {
        let json = serde_json::to_string(request).map_err(|e| Error::Invalid { why: e.to_string() })?;
        let (program, argv) = match &self.helper {
            Some(helper) => helper.command(WALKER),
            None => (HELPER.to_owned(), vec![WALKER.to_owned()]),
        };
        let exec = Exec {
            program: Some(Raw::from(program)),
            argv: argv.into_iter().chain([json]).map(Raw::from).collect(),
            cwd: Raw::default(),
            env: Vec::new(),
            timeout_ms: Some(millis(WALK_TIME)),
            leftovers: Leftovers::Kill,
            also: Vec::new(),
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

    async fn command(&self, spec: ExecSpec, output: &dyn OutputSink) -> Result<ExecResult, Error> {
        let begun = Instant::now();
        // The own binary, asked for by its place, is started as it must be there.
        let (program, before, rest) = match (&self.helper, spec.argv.split_first()) {
            (Some(helper), Some((first, rest))) if first == HELPER => {
                let (program, before) = helper.command(HELPER);
                (Some(program), before, rest)
            }
            _ => (None, Vec::new(), spec.argv.as_slice()),
        };
        let exec = Exec {
            program: program.map(Raw::from),
            argv: before.iter().chain(rest).map(|a| Raw::from(a.as_str())).collect(),
            cwd: Raw::from(self.places.relative(&spec.cwd)?),
            env: spec.env.iter().map(|(k, v)| (Raw::from(k.as_str()), Raw::from(v.as_str()))).collect(),
            timeout_ms: Some(millis(spec.timeout.min(self.longest))),
            leftovers: match spec.leftovers {
                sandbox::Leftovers::Kill => Leftovers::Kill,
                sandbox::Leftovers::Keep => Leftovers::Keep,
            },
            also: spec.also.iter().map(|program| Raw::from(program.as_str())).collect(),
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
                    peak_memory: ended.peak_memory_bytes,
                })
            }
            // It is about the folder when that is what the fault names.
            Ran::NotStarted(fault) if fault.what == cwd => {
                Err(Error::Invalid { why: format!("the working directory: {fault}") })
            }
            Ran::NotStarted(fault) => Ok(not_started(&fault, millis(begun.elapsed()))),
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

/// Counts something for as long as it lives.
struct Counted<'a>(&'a AtomicUsize);

impl<'a> Counted<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        // Ending a box waits for its processes: not on a thread of the runtime, if there is one.
        let end = self.ending();
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(end)),
            Err(_) => end(),
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
impl Held for Room {
    fn view(&self) -> Option<Arc<View>> {
        self.view.as_ref().and_then(|slot| slot.view())
    }

    async fn end(self: Arc<Self>) {
        if let Some(room) = Arc::into_inner(self) {
            room.close().await;
        }
    }
}

#[async_trait]
impl Workspace for Room {
    fn report(&self) -> SandboxReport {
        let mut report = self.report.clone();
        report.layers.extend(self.jail().layers().iter().map(layer));
        report.warnings.extend(self.jail().warnings().iter().cloned());
        report
    }

    async fn exec(&self, spec: ExecSpec, output: &dyn OutputSink) -> Result<ExecResult, Error> {
        if spec.argv.is_empty() {
            return Err(Error::Invalid { why: "there is no command".to_owned() });
        }
        self.before_writing().await?;
        let _running = Counted::new(&self.running);
        if spec.leftovers == sandbox::Leftovers::Keep {
            self.kept.store(true, Ordering::SeqCst);
        }
        self.command(spec, output).await
    }

    async fn snapshot(&self) -> Result<SnapshotId, Error> {
        let (id, durable) = self.take_snapshot().await?;
        blocking(move || durable.wait().map_err(|why| Error::View { why })).await?;
        Ok(id)
    }

    async fn take_snapshot(&self) -> Result<(SnapshotId, Durable), Error> {
        let Some(slot) = &self.view else {
            return Err(Error::View { why: "this box has no workspace that could be kept".to_owned() });
        };
        // Another box of the run has it if this one is dead.
        let Some(view) = slot.view() else { return Err(self.gone()) };
        // What goes on while the tree is read would be seen half-done.
        let busy = self.kept.load(Ordering::SeqCst) || self.running.load(Ordering::SeqCst) > 0;
        let _frozen = if busy { Some(Frozen::new(self).await?) } else { None };
        let (give, take) = oneshot::channel();
        let (durable, promise) = Durable::soon();
        // If this future is dropped the look at the workspace ends too.
        let wanted = Wanted::new(self.run);
        let bounds = wanted.bounds(self.limits);
        tokio::task::spawn_blocking(move || match view.take(&bounds) {
            Ok((id, objects)) => {
                // Whoever no longer waits does not need it.
                let _ = give.send(Ok(id));
                promise.keep(view::flush(&objects).map_err(|error| error.to_string()));
            }
            Err(error) => drop(give.send(Err(error))),
        });
        let id = take.await.map_err(|_| Error::Died { why: "taking the snapshot failed".to_owned() })??;
        drop(wanted);
        Ok((id, durable))
    }

    fn reached(&self) -> Vec<EgressRecord> {
        self.reached.as_ref().map(|reached| reached()).unwrap_or_default()
    }
}

/// Whether a process has ended, and with it all of the box whose first one it was. Its number is kept until it is
/// waited for.
fn is_gone(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    matches!(state, None | Some('Z' | 'X'))
}

/// Holds every process of the box still for as long as it lives.
struct Frozen {
    jail: Arc<Jail>,
}

impl Frozen {
    async fn new(room: &Room) -> Result<Self, Error> {
        // Made first: also if this future is dropped the box goes on.
        let frozen = Self { jail: Arc::clone(room.jail()) };
        room.ask(Request::Freeze).await?;
        Ok(frozen)
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        self.jail.submit(Request::Thaw, &[], |_| {});
    }
}

#[async_trait]
impl Files for Room {
    async fn read(&self, path: &str, offset: u64, limit: usize) -> Result<FileChunk, Error> {
        door::read(self, self.places.relative(path)?, offset, limit).await
    }

    async fn write(&self, path: &str, bytes: &[u8]) -> Result<(), Error> {
        let path = self.places.relative(path)?;
        self.before_writing().await?;
        door::write(self, path, bytes.to_vec()).await
    }

    async fn list(&self, path: &str, depth: u32, limit: usize) -> Result<Listing<Entry>, Error> {
        let path = self.places.relative(path)?;
        self.walk(&walk::Request::List { path, depth, limit }).await?.entries()
    }

    async fn search(&self, spec: SearchSpec) -> Result<Listing<Match>, Error> {
        let path = self.places.relative(&spec.path)?;
        self.walk(&walk::Request::Search(SearchSpec { path, ..spec })).await?.matches()
    }

    async fn find(&self, glob: &str, limit: usize) -> Result<Listing<Entry>, Error> {
        self.walk(&walk::Request::Find { glob: glob.to_owned(), limit }).await?.entries()
    }

    async fn remove(&self, path: &str) -> Result<(), Error> {
        let path = self.places.relative(path)?;
        self.before_writing().await?;
        door::remove(self, path).await
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

/// A layer in the words of the project.
pub(crate) fn layer(report: &forge_jail::LayerReport) -> Layer {
    let state = match &report.state {
        State::Enforced { .. } => LayerState::Enforced,
        State::Degraded { why } => LayerState::Degraded(why.clone()),
        State::Missing { why } => LayerState::Absent(why.clone()),
    };
    Layer { name: report.layer.describe().to_owned(), state, remedy: report.remedy.clone() }
}

/// A layer that is missing, with the setting that asks for it where that is not for everybody.
fn lacking(report: &forge_jail::LayerReport) -> String {
    match report.layer {
        forge_jail::Layer::ProgramList => format!("{report} (runtime.allowed_shell_commands)"),
        _ => report.to_string(),
    }
}

/// A failure of the box in the port's words.
pub(crate) fn refusal(error: forge_jail::Error) -> Error {
    use forge_jail::Error as Jailed;
    match error {
        Jailed::Refused(reports) => {
            Error::Missing { missing: reports.iter().filter(|r| r.blocks()).map(lacking).collect() }
        }
        error @ Jailed::IdMap { .. } => Error::Missing { missing: vec![error.to_string()] },
        Jailed::Died(why) => Error::Died { why },
        error @ (Jailed::Talk { .. } | Jailed::Protocol(_)) => Error::Died { why: error.to_string() },
        error => Error::Startup { why: error.to_string() },
    }
}
