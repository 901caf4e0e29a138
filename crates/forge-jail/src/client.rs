//! The handle of a box: starts it, passes requests and answers, and ends it.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::JoinHandle;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions};

use crate::cgroup::{Group, Made};
use crate::error::Error;
use crate::init::{About, Boot, INIT_ARGV0, Order, Reserved};
use crate::layers::{Layer, LayerReport};
use crate::loader::Helper;
use crate::probe;
use crate::spec::{JailSpec, Limits, Weakness};
use crate::wire::{self, Frame, OverlayAttributes, Reply, Request, Startup};

mod adopt;
mod spare;

pub use adopt::Container;
pub use spare::Spare;

/// How long the init may take to build the box before it is given up, in seconds.
const START_SECONDS: i64 = 20;
/// How long the end of a container's init is waited for: it may hang on a dead file system.
const END_SECONDS: i64 = 10;
/// The reader thread only moves messages.
const READER_STACK: usize = 256 * 1024;

/// What came back for a request.
#[derive(Debug)]
pub struct Answer {
    /// The reply.
    pub reply: Reply,
    /// The descriptor beside [`Reply::Opened`] or [`Reply::Temp`].
    pub fd: Option<OwnedFd>,
}

type OnReply = Box<dyn FnOnce(Result<Answer, Error>) + Send>;

/// A living box. Dropping it kills everything in it and removes its control groups; both are done when the drop
/// returns (some milliseconds).
#[derive(Debug)]
pub struct Jail {
    shared: Arc<Shared>,
    init: Init,
    reader: Option<JoinHandle<()>>,
    overlay: Option<OverlayAttributes>,
    warnings: Vec<String>,
    listener: Mutex<Option<OwnedFd>>,
    /// Keeps the user id of a box of root's taken, until nothing of the box is left.
    _user: Option<Reserved>,
}

/// What the init said when the box stood.
#[derive(Debug, Default)]
struct Stands {
    layers: Vec<LayerReport>,
    overlay: Option<OverlayAttributes>,
    warnings: Vec<String>,
    listener: Option<OwnedFd>,
    /// Whether the init is in its control groups, where it was told to go there.
    joined: bool,
}

#[derive(Debug)]
struct Shared {
    control: OwnedFd,
    next: AtomicU64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    waiting: HashMap<u64, OnReply>,
    /// What holds the box's ceilings.
    group: Group,
    layers: Vec<LayerReport>,
    oom_seen: u64,
    /// For each command that runs, what the box used when it began, in bytes.
    used_before: HashMap<u64, u64>,
    dead: Option<String>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("waiting", &self.waiting.len()).field("dead", &self.dead).finish()
    }
}

/// The init process.
#[derive(Debug)]
struct Init {
    pid: Pid,
    handle: OwnedFd,
    kin: Kin,
}

/// Whose child an init is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kin {
    /// Of this process, which must reap it.
    Child,
    /// Of a container engine.
    Adopted,
}

impl Jail {
    /// Builds a box and starts its init: `exe` (normally `/proc/self/exe`) is started again under
    /// [`INIT_ARGV0`] and must then call [`crate::init_main`]. Blocks for some milliseconds.
    ///
    /// # Errors
    /// [`Error::Spec`] for a description that makes no sense, [`Error::Refused`] when a layer is missing that no
    /// box goes without, [`Error::IdMap`] when root's workspace cannot be shown under another owner,
    /// [`Error::Overlay`] when a copy-on-write view cannot be had, [`Error::Image`] for an image that cannot be used,
    /// [`Error::Build`] and [`Error::Init`] for what else goes wrong. Nothing is left behind then.
    pub fn spawn(spec: &JailSpec, exe: &Path) -> Result<Self, Error> {
        Spare::begin(spec, exe)?.finish(spec)
    }

    /// What isolates the box.
    #[must_use]
    pub fn layers(&self) -> Vec<LayerReport> {
        self.shared.lock().layers.clone()
    }

    /// Sends a request; `on_reply` is called once, on the reader thread, and must not block. Returns the number
    /// that [`Request::Cancel`] takes. Descriptors are duplicated into the box: for [`Request::Exec`] exactly the
    /// write ends for stdout and stderr.
    pub fn submit(
        &self,
        request: Request,
        fds: &[BorrowedFd<'_>],
        on_reply: impl FnOnce(Result<Answer, Error>) + Send + 'static,
    ) -> u64 {
        self.shared.submit(request, fds, Box::new(on_reply))
    }

    /// Sends a request and waits for its answer.
    ///
    /// # Errors
    /// [`Error::Died`] when the box is gone, [`Error::Start`] and [`Error::File`] for what the box refused.
    pub fn call(&self, request: Request, fds: &[BorrowedFd<'_>]) -> Result<Answer, Error> {
        let (give, take) = mpsc::channel();
        self.submit(request, fds, move |answer| {
            // The receiver waits right below.
            let _ = give.send(answer);
        });
        take.recv().unwrap_or_else(|_| Err(Error::Died("its reader ended".to_owned())))
    }

    /// What a person should know about the box, beside its layers.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Why the box is dead, if it is.
    #[must_use]
    pub fn dead(&self) -> Option<String> {
        self.shared.lock().dead.clone()
    }

    /// The most memory the box has used at once, in bytes; `None` where no control group counts it.
    #[must_use]
    pub fn memory_peak(&self) -> Option<u64> {
        self.shared.lock().group.memory_peak()
    }

    /// Which attributes the copy-on-write views of the box have; `None` when it has no such view.
    #[must_use]
    pub fn overlay_attributes(&self) -> Option<OverlayAttributes> {
        self.overlay
    }

    /// The listener in the box's network that [`JailSpec::listen`] asked for, non-blocking; `None` when none was
    /// asked for or it was taken already.
    #[must_use]
    pub fn take_listener(&self) -> Option<OwnedFd> {
        self.listener.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// The process id of the init as this process sees it.
    #[must_use]
    pub fn init_pid(&self) -> i32 {
        self.init.pid.as_raw_nonzero().get()
    }
}

impl Drop for Jail {
    fn drop(&mut self) {
        self.shared.lock().dead.get_or_insert_with(|| "closed".to_owned());
        let _ = rustix::net::shutdown(&self.shared.control, rustix::net::Shutdown::Both);
        self.init.end();
        // A callback that drops the last handle runs on the reader itself, which cannot wait for itself.
        if let Some(reader) = self.reader.take().filter(|r| r.thread().id() != std::thread::current().id()) {
            let _ = reader.join();
        }
        // Only now are the groups empty; their removal is the drop of `Group`.
        self.shared.lock().group = Group::default();
    }
}

impl State {
    /// A command begins: alone in the box it is counted from nothing.
    fn begin(&mut self, id: u64) {
        let first = self.used_before.is_empty();
        let used = if first { self.group.count_anew() } else { self.group.memory_now() };
        if let Some(used) = used {
            self.used_before.insert(id, used);
        }
    }
}

impl Init {
    /// Kills the init, with it the whole box, and waits until nothing of it is left.
    ///
    /// Another user's container cannot be killed from here: its init ends by itself when the socket closes.
    fn end(&self) {
        let _ = rustix::process::pidfd_send_signal(&self.handle, Signal::KILL);
        match self.kin {
            Kin::Child => {
                let _ = rustix::process::waitid(WaitId::PidFd(self.handle.as_fd()), WaitIdOptions::EXITED);
            }
            Kin::Adopted => {
                let limit = Timespec { tv_sec: END_SECONDS, tv_nsec: 0 };
                let _ = poll(&mut [PollFd::new(&self.handle, PollFlags::IN)], Some(&limit));
            }
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn submit(&self, request: Request, fds: &[BorrowedFd<'_>], on_reply: OnReply) -> u64 {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let mut state = self.lock();
        if let Some(why) = &state.dead {
            let error = Error::Died(why.clone());
            drop(state);
            on_reply(Err(error));
            return id;
        }
        state.waiting.insert(id, on_reply);
        if matches!(request, Request::Exec(_)) {
            state.begin(id);
        }
        drop(state);
        let sent = wire::send(self.control.as_fd(), &Frame { id, body: Order::Asked(request) }, fds);
        if let Err(error) = sent {
            let mut state = self.lock();
            state.used_before.remove(&id);
            let taken = state.waiting.remove(&id);
            let error = match error.raw_os_error() {
                // Said at once: the reader may need a moment longer to see the end.
                Some(libc::EPIPE | libc::ECONNRESET) => {
                    Error::Died(state.dead.get_or_insert_with(|| "its init ended".to_owned()).clone())
                }
                _ => Error::Talk { doing: "sending a request", source: error },
            };
            drop(state);
            if let Some(on_reply) = taken {
                on_reply(Err(error));
            }
        }
        id
    }

    /// The box is no more: whoever waits for an answer is told.
    fn bury(&self, why: String) {
        let mut state = self.lock();
        let why = state.dead.get_or_insert(why).clone();
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        for (_, on_reply) in waiting {
            on_reply(Err(Error::Died(why.clone())));
        }
    }

    /// The init is in its groups: reports what they hold, and has it watch what they do not.
    fn enforce(&self, mut made: Made, limits: &Limits, without: &[Weakness]) {
        let mut reports = std::mem::take(&mut made.layers);
        let has = |layer: Layer| reports.iter().any(|r| r.layer == layer);
        let remedy = "delegate cgroup v2 (systemd-run --user --scope forge ...) or run as root";
        let no_memory = !has(Layer::Memory) && !without.contains(&Weakness::Memory);
        let no_cpu = !has(Layer::Cpu) && limits.cpus.is_some();
        if no_memory {
            let why = "no control group: no hard ceiling, but limits per process and a supervisor that sums what \
                       processes hold; what it can't count is in docs/sandbox.md, \"Without control groups\"";
            reports.push(LayerReport::degraded(Layer::Memory, why, Some(remedy)));
            let frame = Frame { id: 0, body: Order::Watch { watch_memory: limits.memory_bytes } };
            let _ = wire::send(self.control.as_fd(), &frame, &[]);
        }
        if no_cpu {
            let why = "no control group to hold it".to_owned();
            reports.push(LayerReport::missing(Layer::Cpu, why, Some(remedy.to_owned())));
        }
        let mut state = self.lock();
        state.layers.retain(|l| !reports.iter().any(|r| r.layer == l.layer));
        state.layers.extend(reports);
        state.oom_seen = made.group.oom_kills();
        state.group = made.group;
    }

    /// Passes answers on until the init is gone.
    fn read_all(&self) {
        let mut buffer = Vec::new();
        let why = loop {
            match wire::receive::<Frame<Reply>>(self.control.as_fd(), &mut buffer) {
                Ok(Some((frame, fds))) => self.pass_on(frame, fds),
                Ok(None) => break "its init ended".to_owned(),
                Err(error) => break format!("its init could not be understood: {error}"),
            }
        };
        let state = self.lock();
        let ran_out = state.group.oom_kills() > state.oom_seen;
        let why = if ran_out { "its memory limit was reached".to_owned() } else { why };
        drop(state);
        self.bury(why);
    }

    fn pass_on(&self, mut frame: Frame<Reply>, mut fds: Vec<OwnedFd>) {
        let mut state = self.lock();
        let used_before = state.used_before.remove(&frame.id);
        if let Reply::Ended(ended) = &mut frame.body {
            let group = &state.group;
            let most = group.memory_most().zip(used_before).map(|(most, before)| most.saturating_sub(before));
            ended.peak_memory_bytes = ended.peak_memory_bytes.max(most.unwrap_or(0));
            let kills = group.oom_kills();
            ended.oom |= kills > state.oom_seen;
            state.oom_seen = kills;
        }
        let Some(on_reply) = state.waiting.remove(&frame.id) else { return };
        drop(state);
        on_reply(match frame.body {
            Reply::NotStarted(fault) => Err(Error::Start(fault)),
            Reply::Failed(fault) => Err(Error::File(fault)),
            reply => Ok(Answer { reply, fd: fds.pop() }),
        });
    }
}

fn talk(doing: &'static str, error: impl Into<io::Error>) -> Error {
    Error::Talk { doing, source: error.into() }
}

fn thread(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, Error> {
    let builder = std::thread::Builder::new().name(name.to_owned()).stack_size(READER_STACK);
    builder.spawn(work).map_err(|e| talk("starting a thread", e))
}

#[allow(clippy::disallowed_methods, reason = "the init of a box is started here and nowhere else")]
fn start_init(
    spec: &JailSpec,
    helper: Option<Helper>,
    exe: &Path,
    control: OwnedFd,
    user: Option<&Reserved>,
) -> Result<Child, Error> {
    let name =
        user.map(Reserved::name).transpose().map_err(|e| talk("handing the user id over", e))?.flatten();
    let (user, named) = (user.map(Reserved::id), name.is_some());
    let boot = serde_json::to_vec(&Boot { spec: spec.clone(), user, named, helper })
        .map_err(|e| talk("describing the box", io::Error::other(e)))?;
    let memory = wire::memory_file(&boot).map_err(|e| talk("describing the box", e))?;
    let mut command = Command::new(exe);
    if !spec.lacks(Weakness::EnvironmentCleared) {
        command.env_clear();
    }
    command
        .arg0(INIT_ARGV0)
        .current_dir("/")
        .stdin(Stdio::from(control))
        .stdout(Stdio::from(memory))
        .stderr(name.map_or_else(Stdio::null, Stdio::from))
        .spawn()
        .map_err(|e| Error::Init { exe: exe.to_owned(), why: e.to_string() })
}

/// Follows the start until the ground stands, or cleans up after it.
fn started(control: &OwnedFd, first: &mut Child, exe: &Path) -> Result<Init, Error> {
    let mut init: Option<Init> = None;
    let outcome = follow(control, exe, &mut |pid| {
        let handle = rustix::process::pidfd_open(pid, PidfdFlags::empty())?;
        init = Some(Init { pid, handle, kin: Kin::Child });
        Ok(())
    });
    if init.is_none() {
        // It may still be at work on something that hangs, such as a dead network file system.
        let _ = first.kill();
    }
    let _ = first.wait();
    match (outcome, init) {
        (Ok(_), Some(init)) => Ok(init),
        (Ok(_), None) => {
            Err(Error::Init { exe: exe.to_owned(), why: "it did not name its process".to_owned() })
        }
        (Err(error), init) => {
            if let Some(init) = init {
                init.end();
            }
            Err(error)
        }
    }
}

fn follow(
    control: &OwnedFd,
    exe: &Path,
    named: &mut dyn FnMut(Pid) -> io::Result<()>,
) -> Result<Stands, Error> {
    let failed = |why: &str| Error::Init { exe: exe.to_owned(), why: why.to_owned() };
    let mut buffer = Vec::new();
    loop {
        let mut wait = [PollFd::new(control, PollFlags::IN)];
        let limit = Timespec { tv_sec: START_SECONDS, tv_nsec: 0 };
        match poll(&mut wait, Some(&limit)) {
            Ok(0) => return Err(failed("it took too long")),
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(errno) => return Err(talk("waiting for the init", errno)),
        }
        let message = wire::receive::<Startup>(control.as_fd(), &mut buffer);
        match message.map_err(|e| talk("starting the init", e))? {
            None => {
                return Err(failed(
                    "it ended at once; a binary must call forge_jail::init_main under that name",
                ));
            }
            Some((Startup::Pid { pid }, _)) => {
                let pid = Pid::from_raw(pid).ok_or_else(|| failed("it named no process"))?;
                named(pid).map_err(|e| talk("taking hold of the init", e))?;
            }
            Some((Startup::Ready { layers, overlay, warnings }, mut fds)) => {
                return Ok(Stands { layers, overlay, warnings, listener: fds.pop(), joined: false });
            }
            Some((Startup::Ground, _)) => return Ok(Stands::default()),
            Some((Startup::Joined { joined }, _)) => return Ok(Stands { joined, ..Stands::default() }),
            Some((Startup::Failed { about, step, errno }, _)) => return Err(refusal(about, step, errno)),
        }
    }
}

fn refusal(about: About, step: String, errno: i32) -> Error {
    let source = io::Error::from_raw_os_error(errno);
    match about {
        About::IdMap(path) if matches!(errno, libc::EINVAL | libc::EPERM | libc::EOPNOTSUPP) => {
            Error::IdMap { path: path.as_path().to_owned(), fs: probe::file_system(path.as_path()) }
        }
        About::IdMap(_) => Error::Refused(vec![probe::explain(Layer::IdMappedMount, &step, errno)]),
        About::Layer(layer @ Layer::ProgramList) => {
            let remedy = "use a kernel that can (Linux 5.13 with lsm=landlock), or give no list".to_owned();
            Error::Refused(vec![LayerReport::missing(layer, format!("{step}: {source}"), Some(remedy))])
        }
        About::Layer(layer) => Error::Refused(vec![probe::explain(layer, &step, errno)]),
        About::Overlay => Error::Overlay { why: format!("{step}: {source}") },
        About::Image => Error::Image { why: step },
        About::Step => Error::Build { step, source },
    }
}
