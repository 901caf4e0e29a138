//! The handle of a sandbox: starts it, passes requests and replies, and ends it.

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

use super::cgroup::{CgroupSetup, JailCgroups};
use super::diagnose;
use super::run_user::ReservedUid;
use crate::protocol::error::Error;
use crate::protocol::helper_binary::HelperBinary;
use crate::protocol::names::INIT_ARGV0;
use crate::protocol::startup::{FailureCause, InitBoot, InitRequest, StartupMessage};
use crate::protocol::wire::{self, WireFrame};
use forge_jail_protocol::{
    DisabledProtection, IsolationLayer, JailLimits, JailReply, JailRequest, JailSpec, LayerReport,
    OverlayAttributes,
};

mod attach;
mod prewarm;

pub use attach::ConnectedContainer;
pub use prewarm::PrewarmedJail;

/// Time the init may take to build the sandbox, in seconds.
const START_TIMEOUT_SECS: i64 = 20;
/// Time to wait for the end of a container's init, in seconds: it may hang on a dead file system.
const CONTAINER_EXIT_TIMEOUT_SECS: i64 = 10;
/// Stack size of the reader thread, which only moves messages.
const READER_STACK_BYTES: usize = 256 * 1024;

/// The answer to a request.
#[derive(Debug)]
pub struct ReplyWithFd {
    /// The reply.
    pub reply: JailReply,
    /// The descriptor passed with [`JailReply::Opened`] or [`JailReply::Temp`].
    pub fd: Option<OwnedFd>,
}

type ReplyCallback = Box<dyn FnOnce(Result<ReplyWithFd, Error>) + Send>;

/// A running sandbox. Dropping it kills everything in it and removes its control groups; both are done when the drop
/// returns (some milliseconds).
#[derive(Debug)]
pub struct Jail {
    shared: Arc<JailConnection>,
    init: InitProcess,
    reader: Option<JoinHandle<()>>,
    overlay: Option<OverlayAttributes>,
    warnings: Vec<String>,
    listener: Mutex<Option<OwnedFd>>,
    /// Reserves the user id of a sandbox started by root until the sandbox is completely gone.
    _user: Option<ReservedUid>,
}

/// The state that the init reported when the sandbox was ready.
#[derive(Debug, Default)]
struct StartupReport {
    layers: Vec<LayerReport>,
    overlay: Option<OverlayAttributes>,
    warnings: Vec<String>,
    listener: Option<OwnedFd>,
    /// Whether the init has joined its control groups, if it was told to.
    joined: bool,
}

#[derive(Debug)]
struct JailConnection {
    control: OwnedFd,
    next: AtomicU64,
    state: Mutex<ConnectionState>,
}

#[derive(Default)]
struct ConnectionState {
    waiting: HashMap<u64, ReplyCallback>,
    /// The control groups that enforce the sandbox's ceilings.
    group: JailCgroups,
    layers: Vec<LayerReport>,
    oom_seen: u64,
    /// For each running command, the sandbox's memory usage when it began, in bytes.
    used_before: HashMap<u64, u64>,
    dead: Option<String>,
}

impl std::fmt::Debug for ConnectionState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("waiting", &self.waiting.len()).field("dead", &self.dead).finish()
    }
}

/// The init process.
#[derive(Debug)]
struct InitProcess {
    pid: Pid,
    handle: OwnedFd,
    parent: InitParent,
}

/// The parent of an init.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum InitParent {
    /// This process, which must reap it.
    ThisProcess,
    /// A container engine.
    ContainerEngine,
}

impl Jail {
    /// Builds a sandbox and starts its init: `exe` (normally `/proc/self/exe`) is started again under [`INIT_ARGV0`]
    /// and must then call [`crate::init_main`]. Blocks for some milliseconds.
    ///
    /// # Errors
    /// [`Error::Spec`] for an invalid description, [`Error::Refused`] when a required layer is missing,
    /// [`Error::IdMap`] when root's workspace cannot be shown under another owner, [`Error::Overlay`] when a
    /// copy-on-write workspace is not possible, [`Error::Image`] for an unusable image, [`Error::Build`] and
    /// [`Error::Init`] for other failures. Everything started so far is cleaned up.
    pub fn spawn(spec: &JailSpec, exe: &Path) -> Result<Self, Error> {
        PrewarmedJail::start(spec, exe)?.finish(spec)
    }

    /// Returns the layers that isolate the sandbox.
    #[must_use]
    pub fn layers(&self) -> Vec<LayerReport> {
        self.shared.lock().layers.clone()
    }

    /// Sends a request; `on_reply` is called once, on the reader thread, and must not block. Returns the number that
    /// [`JailRequest::Cancel`] takes. Descriptors are duplicated into the sandbox: for [`JailRequest::Exec`] exactly
    /// the write ends for stdout and stderr.
    pub fn submit(
        &self,
        request: JailRequest,
        fds: &[BorrowedFd<'_>],
        on_reply: impl FnOnce(Result<ReplyWithFd, Error>) + Send + 'static,
    ) -> u64 {
        self.shared.send_request(request, fds, Box::new(on_reply))
    }

    /// Sends a request and waits for its reply.
    ///
    /// # Errors
    /// [`Error::Died`] when the sandbox is gone, [`Error::Start`] and [`Error::File`] for requests that failed or were
    /// refused.
    pub fn call(&self, request: JailRequest, fds: &[BorrowedFd<'_>]) -> Result<ReplyWithFd, Error> {
        let (give, take) = mpsc::channel();
        self.submit(request, fds, move |answer| {
            // The receiver waits right below.
            let _ = give.send(answer);
        });
        take.recv().unwrap_or_else(|_| Err(Error::Died("its reader ended".to_owned())))
    }

    /// Returns the warnings about the sandbox for the user, in addition to its layers.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Returns the reason why the sandbox is dead, if it is.
    #[must_use]
    pub fn death_reason(&self) -> Option<String> {
        self.shared.lock().dead.clone()
    }

    /// Returns the sandbox's peak memory usage in bytes; `None` where no control group counts it.
    #[must_use]
    pub fn memory_peak(&self) -> Option<u64> {
        self.shared.lock().group.memory_peak()
    }

    /// Returns the attributes that the sandbox's overlays use; `None` when it has no overlay.
    #[must_use]
    pub fn overlay_attributes(&self) -> Option<OverlayAttributes> {
        self.overlay
    }

    /// Takes the listener in the sandbox's network that [`JailSpec::listen`] requested, non-blocking; `None` if none
    /// was requested or it was already taken.
    #[must_use]
    pub fn claim_listener(&self) -> Option<OwnedFd> {
        self.listener.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Returns the process id of the init as this process sees it.
    #[must_use]
    pub fn init_pid(&self) -> i32 {
        self.init.pid.as_raw_nonzero().get()
    }
}

impl Drop for Jail {
    fn drop(&mut self) {
        self.shared.lock().dead.get_or_insert_with(|| "closed".to_owned());
        let _ = rustix::net::shutdown(&self.shared.control, rustix::net::Shutdown::Both);
        self.init.kill_and_wait();
        // A callback that drops the last handle runs on the reader thread, which cannot join itself.
        if let Some(reader) = self.reader.take().filter(|r| r.thread().id() != std::thread::current().id()) {
            let _ = reader.join();
        }
        // Only now are the groups empty; dropping `JailCgroups` removes them.
        self.shared.lock().group = JailCgroups::default();
    }
}

impl ConnectionState {
    /// Records the memory usage at the start of a command; the peak is reset if no other command runs.
    fn record_command_start(&mut self, id: u64) {
        let first = self.used_before.is_empty();
        let used = if first { self.group.reset_peak() } else { self.group.memory_usage() };
        if let Some(used) = used {
            self.used_before.insert(id, used);
        }
    }
}

impl InitProcess {
    /// Kills the init, and with it the whole sandbox, and waits until it is gone.
    ///
    /// Another user's container cannot be killed from here: its init exits by itself when the socket closes.
    fn kill_and_wait(&self) {
        let _ = rustix::process::pidfd_send_signal(&self.handle, Signal::KILL);
        match self.parent {
            InitParent::ThisProcess => {
                let _ = rustix::process::waitid(WaitId::PidFd(self.handle.as_fd()), WaitIdOptions::EXITED);
            }
            InitParent::ContainerEngine => {
                let limit = Timespec { tv_sec: CONTAINER_EXIT_TIMEOUT_SECS, tv_nsec: 0 };
                let _ = poll(&mut [PollFd::new(&self.handle, PollFlags::IN)], Some(&limit));
            }
        }
    }
}

impl JailConnection {
    fn lock(&self) -> MutexGuard<'_, ConnectionState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn send_request(&self, request: JailRequest, fds: &[BorrowedFd<'_>], on_reply: ReplyCallback) -> u64 {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let mut state = self.lock();
        if let Some(why) = &state.dead {
            let error = Error::Died(why.clone());
            drop(state);
            on_reply(Err(error));
            return id;
        }
        state.waiting.insert(id, on_reply);
        if matches!(request, JailRequest::Exec(_)) {
            state.record_command_start(id);
        }
        drop(state);
        let sent = wire::send_message(
            self.control.as_fd(),
            &WireFrame { id, body: InitRequest::Asked(request) },
            fds,
        );
        if let Err(error) = sent {
            let mut state = self.lock();
            state.used_before.remove(&id);
            let taken = state.waiting.remove(&id);
            let error = match error.raw_os_error() {
                // Reported at once: the reader may need a moment longer to see the end.
                Some(libc::EPIPE | libc::ECONNRESET) => {
                    Error::Died(state.dead.get_or_insert_with(|| "its init ended".to_owned()).clone())
                }
                _ => Error::Communication { doing: "sending a request", source: error },
            };
            drop(state);
            if let Some(on_reply) = taken {
                on_reply(Err(error));
            }
        }
        id
    }

    /// Marks the sandbox as dead and fails all pending requests.
    fn fail_pending(&self, why: String) {
        let mut state = self.lock();
        let why = state.dead.get_or_insert(why).clone();
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        for (_, on_reply) in waiting {
            on_reply(Err(Error::Died(why.clone())));
        }
    }

    /// Reports the ceilings that the groups enforce, once the init has joined them, and has the init watch the memory
    /// if they do not.
    fn activate_groups(&self, mut made: CgroupSetup, limits: &JailLimits, without: &[DisabledProtection]) {
        let mut reports = std::mem::take(&mut made.layers);
        let has = |layer: IsolationLayer| reports.iter().any(|r| r.layer == layer);
        let remedy = "delegate cgroup v2 (systemd-run --user --scope forge ...) or run as root";
        let no_memory = !has(IsolationLayer::Memory) && !without.contains(&DisabledProtection::Memory);
        let no_cpu = !has(IsolationLayer::Cpu) && limits.cpus.is_some();
        if no_memory {
            let why = "no control group: no hard ceiling, but limits per process and a supervisor that sums what \
                       processes hold; what it can't count is in docs/sandbox.md, \"Without control groups\"";
            reports.push(LayerReport::degraded(IsolationLayer::Memory, why, Some(remedy)));
            let frame = WireFrame { id: 0, body: InitRequest::Watch { watch_memory: limits.memory_bytes } };
            let _ = wire::send_message(self.control.as_fd(), &frame, &[]);
        }
        if no_cpu {
            let why = "no control group to hold it".to_owned();
            reports.push(LayerReport::missing(IsolationLayer::Cpu, why, Some(remedy.to_owned())));
        }
        let mut state = self.lock();
        state.layers.retain(|l| !reports.iter().any(|r| r.layer == l.layer));
        state.layers.extend(reports);
        state.oom_seen = made.group.oom_kills();
        state.group = made.group;
    }

    /// Dispatches replies until the init is gone.
    fn read_replies(&self) {
        let mut buffer = Vec::new();
        let why = loop {
            match wire::receive_message::<WireFrame<JailReply>>(self.control.as_fd(), &mut buffer) {
                Ok(Some((frame, fds))) => self.dispatch_reply(frame, fds),
                Ok(None) => break "its init ended".to_owned(),
                Err(error) => break format!("its init could not be understood: {error}"),
            }
        };
        let state = self.lock();
        let ran_out = state.group.oom_kills() > state.oom_seen;
        let why = if ran_out { "its memory limit was reached".to_owned() } else { why };
        drop(state);
        self.fail_pending(why);
    }

    fn dispatch_reply(&self, mut frame: WireFrame<JailReply>, mut fds: Vec<OwnedFd>) {
        let mut state = self.lock();
        let used_before = state.used_before.remove(&frame.id);
        if let JailReply::Ended(ended) = &mut frame.body {
            let group = &state.group;
            let most = group
                .memory_peak_since_reset()
                .zip(used_before)
                .map(|(most, before)| most.saturating_sub(before));
            ended.peak_memory_bytes = ended.peak_memory_bytes.max(most.unwrap_or(0));
            let kills = group.oom_kills();
            ended.oom |= kills > state.oom_seen;
            state.oom_seen = kills;
        }
        let Some(on_reply) = state.waiting.remove(&frame.id) else { return };
        drop(state);
        on_reply(match frame.body {
            JailReply::NotStarted(fault) => Err(Error::Start(fault)),
            JailReply::Failed(fault) => Err(Error::File(fault)),
            reply => Ok(ReplyWithFd { reply, fd: fds.pop() }),
        });
    }
}

fn talk_error(doing: &'static str, error: impl Into<io::Error>) -> Error {
    Error::Communication { doing, source: error.into() }
}

fn spawn_reader(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, Error> {
    let builder = std::thread::Builder::new().name(name.to_owned()).stack_size(READER_STACK_BYTES);
    builder.spawn(work).map_err(|e| talk_error("starting a thread", e))
}

#[allow(clippy::disallowed_methods, reason = "the init of a box is started here and nowhere else")]
fn start_init(
    spec: &JailSpec,
    helper: Option<HelperBinary>,
    exe: &Path,
    control: OwnedFd,
    user: Option<&ReservedUid>,
) -> Result<Child, Error> {
    let name = user
        .map(ReservedUid::clone_name_socket)
        .transpose()
        .map_err(|e| talk_error("handing the user id over", e))?
        .flatten();
    let (user, named) = (user.map(ReservedUid::id), name.is_some());
    let boot = serde_json::to_vec(&InitBoot { spec: spec.clone(), user, has_name_fd: named, helper })
        .map_err(|e| talk_error("describing the box", io::Error::other(e)))?;
    let memory = wire::create_memory_file(&boot).map_err(|e| talk_error("describing the box", e))?;
    let mut command = Command::new(exe);
    if !spec.lacks_protection(DisabledProtection::EnvironmentCleared) {
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

/// Follows the start until the base is ready; cleans up after a failure.
fn wait_for_init(control: &OwnedFd, first: &mut Child, exe: &Path) -> Result<InitProcess, Error> {
    let mut init: Option<InitProcess> = None;
    let outcome = wait_for_startup(control, exe, &mut |pid| {
        let handle = rustix::process::pidfd_open(pid, PidfdFlags::empty())?;
        init = Some(InitProcess { pid, handle, parent: InitParent::ThisProcess });
        Ok(())
    });
    if init.is_none() {
        // The process may still be blocked on something that hangs, such as a dead network file system.
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
                init.kill_and_wait();
            }
            Err(error)
        }
    }
}

fn wait_for_startup(
    control: &OwnedFd,
    exe: &Path,
    named: &mut dyn FnMut(Pid) -> io::Result<()>,
) -> Result<StartupReport, Error> {
    let failed = |why: &str| Error::Init { exe: exe.to_owned(), why: why.to_owned() };
    let mut buffer = Vec::new();
    loop {
        let mut wait = [PollFd::new(control, PollFlags::IN)];
        let limit = Timespec { tv_sec: START_TIMEOUT_SECS, tv_nsec: 0 };
        match poll(&mut wait, Some(&limit)) {
            Ok(0) => return Err(failed("it took too long")),
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(errno) => return Err(talk_error("waiting for the init", errno)),
        }
        let message = wire::receive_message::<StartupMessage>(control.as_fd(), &mut buffer);
        match message.map_err(|e| talk_error("starting the init", e))? {
            None => {
                return Err(failed(
                    "it ended at once; a binary must call forge_jail::init_main under that name",
                ));
            }
            Some((StartupMessage::Pid { pid }, _)) => {
                let pid = Pid::from_raw(pid).ok_or_else(|| failed("it named no process"))?;
                named(pid).map_err(|e| talk_error("taking hold of the init", e))?;
            }
            Some((StartupMessage::Ready { layers, overlay, warnings }, mut fds)) => {
                return Ok(StartupReport { layers, overlay, warnings, listener: fds.pop(), joined: false });
            }
            Some((StartupMessage::BaseReady, _)) => return Ok(StartupReport::default()),
            Some((StartupMessage::Joined { joined }, _)) => {
                return Ok(StartupReport { joined, ..StartupReport::default() });
            }
            Some((StartupMessage::Failed { about, step, errno }, _)) => {
                return Err(startup_error(about, step, errno));
            }
        }
    }
}

fn startup_error(about: FailureCause, step: String, errno: i32) -> Error {
    let source = io::Error::from_raw_os_error(errno);
    match about {
        FailureCause::IdMap(path) if matches!(errno, libc::EINVAL | libc::EPERM | libc::EOPNOTSUPP) => {
            Error::IdMap { path: path.as_path().to_owned(), fs: diagnose::file_system_name(path.as_path()) }
        }
        FailureCause::IdMap(_) => {
            Error::Refused(vec![diagnose::explain_failure(IsolationLayer::IdMappedMount, &step, errno)])
        }
        FailureCause::Layer(layer @ IsolationLayer::ProgramList) => {
            let remedy = "use a kernel that can (Linux 5.13 with lsm=landlock), or give no list".to_owned();
            Error::Refused(vec![LayerReport::missing(layer, format!("{step}: {source}"), Some(remedy))])
        }
        FailureCause::Layer(layer) => Error::Refused(vec![diagnose::explain_failure(layer, &step, errno)]),
        FailureCause::Overlay => Error::Overlay { why: format!("{step}: {source}") },
        FailureCause::Image => Error::Image { why: step },
        FailureCause::Step => Error::Build { step, source },
    }
}
