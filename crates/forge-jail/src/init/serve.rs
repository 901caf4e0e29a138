//! The loop of the init: requests in, commands started and reaped, answers out.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};

use super::domains::Domains;
use super::exec::{Apart, Launcher};
use super::files::Files;
use super::{Ready, harden};
use crate::spec::{JailSpec, WORKSPACE, Weakness};
use crate::sys::{self, Reaped};
use crate::wire::{
    self, End, Ended, Exec, FaultKind, FileFault, Frame, Leftovers, Raw, Reply, Request, StartFault, Startup,
};
use forge_processes::freeze::{self, Frozen};
use forge_processes::objects::Objects;
use forge_processes::sockets::Sockets;
use forge_processes::watch::{self, Excess, Watch, kill_marked, kill_others, mark};

/// Between TERM and KILL of a command whose time is up.
const GRACE: Duration = Duration::from_millis(200);
/// How long the answer of a command waits for processes that were killed. One with much memory takes its time; one
/// that hangs in the kernel must not hold up the box.
const DYING: Duration = Duration::from_secs(2);

/// A request as the client sends it: its own, or one the client makes for itself.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
#[serde(untagged)]
pub(crate) enum Order {
    /// From the user of the crate.
    Asked(Request),
    /// No control group counts memory: the init must.
    Watch {
        /// The limit in bytes.
        watch_memory: u64,
    },
}

/// Moves this thread, the only one, into control groups. A thread that moves itself needs no waiting for all processors,
/// which a process moved by another does. What is started later is in the groups from its first moment.
pub(super) fn join(lists: &[OwnedFd]) -> rustix::io::Result<()> {
    lists.iter().try_for_each(|list| rustix::io::write(list, b"0").map(drop))
}

/// A command that runs.
#[derive(Debug)]
struct Running {
    id: u64,
    leftovers: Leftovers,
    deadline: Option<Instant>,
    kill_at: Option<Instant>,
    /// Why it is being ended, if it is.
    ending: Option<End>,
    oom: bool,
}

struct Server<'a> {
    control: &'a OwnedFd,
    /// Says that a child ended.
    children: &'a OwnedFd,
    workspace: OwnedFd,
    files: Files,
    launcher: Launcher,
    running: BTreeMap<i32, Running>,
    watch: Option<Watch>,
    /// For the watch, until there is one.
    sockets: Option<Sockets>,
    objects: Objects,
    /// What holds besides where nobody but the watch counts memory.
    uncounted: Vec<libc::sock_filter>,
    /// Marks of the commands whose processes are left alive, as they asked for.
    kept: Vec<u64>,
    /// What to do when the box may go on, while it stands still.
    frozen: Option<Frozen>,
    reach: Reach,
    /// Whether what commands leave behind stays, for a test that must notice.
    stays: bool,
    /// Added to the marks of commands.
    marks: u64,
}

/// Which processes the init can see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    /// Those of the box.
    Box,
    /// Those of the machine: everything at once must never be meant.
    Machine,
}

/// Serves until the control socket closes or a shutdown is asked for.
pub(super) fn run(control: &OwnedFd, spec: &JailSpec, ready: Ready) -> io::Result<()> {
    let children = sys::signal_fd(libc::SIGCHLD)?;
    let folder = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let workspace = rustix::fs::open(WORKSPACE, folder, Mode::empty())?;
    let mut files = Files::new(rustix::fs::open(WORKSPACE, folder, Mode::empty())?);
    if spec.lacks(Weakness::FilesBeneath) {
        files = files.without_walls();
    }
    let reach = if spec.lacks(Weakness::PidNamespace) { Reach::Machine } else { Reach::Box };
    if reach == Reach::Machine {
        // What loses its parent becomes a child of this process, as it does of a process 1.
        sys::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0)?;
    }
    let Ready { layers, overlay, listener, helper, sockets, key, programs, warnings } = ready;
    let apart = Apart { domains: Domains::new(spec)?, key };
    let passed: Vec<_> = listener.iter().map(AsFd::as_fd).collect();
    wire::send(control.as_fd(), &Startup::Ready { layers, overlay, warnings }, &passed)?;
    drop(listener);
    let mut server = Server {
        control,
        children: &children,
        workspace,
        files,
        launcher: Launcher::new(
            &environment(spec),
            helper,
            harden::gate(spec, programs.as_ref()),
            apart,
            programs,
        ),
        running: BTreeMap::new(),
        watch: None,
        sockets,
        objects: if spec.lacks(Weakness::IpcNamespace) { Objects::Shared } else { Objects::Own },
        uncounted: harden::uncounted(spec),
        kept: Vec::new(),
        frozen: None,
        reach,
        stays: spec.lacks(Weakness::KillLeftovers),
        marks: if reach == Reach::Machine { u64::from(std::process::id()) << 20 } else { 0 },
    };
    let mut buffer = Vec::new();
    loop {
        let (asked, ended) = server.wait()?;
        if ended {
            drain(&children);
            server.reap()?;
        }
        if asked {
            match wire::receive::<Frame<Order>>(control.as_fd(), &mut buffer)? {
                None => break,
                Some((frame, fds)) => {
                    if !server.order(frame, fds)? {
                        break;
                    }
                }
            }
        }
        server.clock();
    }
    Ok(())
}

/// The box's environment: nothing but what was named.
fn environment(spec: &JailSpec) -> Vec<(Raw, Raw)> {
    if !spec.lacks(Weakness::EnvironmentCleared) {
        return spec.env.clone();
    }
    #[allow(
        clippy::disallowed_methods,
        reason = "the one place that passes it on, for a test that must notice"
    )]
    let own = std::env::vars_os().map(|(name, value)| (Raw::from(name), Raw::from(value)));
    let named = |name: &Raw| spec.env.iter().any(|(known, _)| known == name);
    own.filter(|(name, _)| !named(name)).chain(spec.env.iter().cloned()).collect()
}

fn drain(signals: &OwnedFd) {
    let mut bytes = [0u8; 1024];
    while rustix::io::read(signals, &mut bytes).is_ok_and(|n| n > 0) {}
}

impl Server<'_> {
    /// Waits for a request, the end of a child, or a deadline.
    fn wait(&self) -> io::Result<(bool, bool)> {
        let mut fds = [PollFd::new(self.control, PollFlags::IN), PollFd::new(self.children, PollFlags::IN)];
        let timeout = self.next_deadline().map(until);
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        Ok((!fds[0].revents().is_empty(), !fds[1].revents().is_empty()))
    }

    fn next_deadline(&self) -> Option<Instant> {
        let commands = self.running.values().filter_map(|r| r.kill_at.or(r.deadline));
        let watch = self.watch.as_ref().filter(|_| self.anything_lives()).map(Watch::due);
        commands.chain(watch).min()
    }

    /// Does one request; `false` ends the init.
    fn order(&mut self, frame: Frame<Order>, fds: Vec<OwnedFd>) -> io::Result<bool> {
        let id = frame.id;
        let request = match frame.body {
            Order::Watch { watch_memory } => {
                harden::memory_limits(watch_memory)?;
                if self.reach == Reach::Machine {
                    return self.answer(id, Reply::Done, None).map(|()| true);
                }
                if !self.uncounted.is_empty() {
                    sys::seccomp_install(&self.uncounted)?;
                }
                self.watch = Some(Watch::new(watch_memory, self.sockets.take(), self.objects));
                return self.answer(id, Reply::Done, None).map(|()| true);
            }
            Order::Asked(request) => request,
        };
        match request {
            Request::Exec(exec) => self.exec(id, &exec, &fds)?,
            Request::Cancel { target } => {
                self.cancel(target);
                self.answer(id, Reply::Done, None)?;
            }
            Request::Freeze => {
                if self.frozen.is_none() && self.reach == Reach::Box {
                    self.frozen = freeze::freeze();
                }
                let still = if self.frozen.is_some() {
                    Reply::Done
                } else {
                    // A process hangs in the kernel.
                    failed("a process of the box that does not stop", libc::EBUSY)
                };
                self.answer(id, still, None)?;
            }
            Request::Thaw => {
                if let Some(frozen) = self.frozen.take() {
                    frozen.thaw();
                }
                self.answer(id, Reply::Done, None)?;
            }
            Request::Ping => self.answer(id, Reply::Done, None)?,
            Request::Shutdown => {
                self.answer(id, Reply::Done, None)?;
                return Ok(false);
            }
            file => {
                let (reply, fd) = self.files.perform(file);
                self.answer(id, reply, fd.as_ref())?;
            }
        }
        Ok(true)
    }

    fn answer(&self, id: u64, body: Reply, fd: Option<&OwnedFd>) -> io::Result<()> {
        let fds: Vec<_> = fd.iter().map(|f| f.as_fd()).collect();
        wire::send(self.control.as_fd(), &Frame { id, body }, &fds)
    }

    fn exec(&mut self, id: u64, exec: &Exec, fds: &[OwnedFd]) -> io::Result<()> {
        let [out, err] = fds else {
            let fault = StartFault { what: exec.cwd.clone(), errno: libc::EBADF };
            return self.answer(id, Reply::NotStarted(fault), None);
        };
        let marked = self.mark(id);
        match self.launcher.start(self.workspace.as_fd(), exec, marked, [out, err]) {
            Err(fault) => self.answer(id, Reply::NotStarted(fault), None),
            Ok(pid) => {
                let deadline = exec.timeout_ms.map(|ms| Instant::now() + Duration::from_millis(ms));
                let running = Running {
                    id,
                    leftovers: exec.leftovers,
                    deadline,
                    kill_at: None,
                    ending: None,
                    oom: false,
                };
                self.running.insert(pid, running);
                Ok(())
            }
        }
    }

    fn cancel(&mut self, target: u64) {
        if let Some((pid, running)) = self.running.iter_mut().find(|(_, r)| r.id == target) {
            running.ending.get_or_insert(End::Cancelled);
            sys::kill(-pid, libc::SIGTERM);
            running.kill_at.get_or_insert(Instant::now() + GRACE);
        }
    }

    /// The mark of the command with this number.
    fn mark(&self, id: u64) -> u64 {
        mark(self.marks + id)
    }

    fn anything_lives(&self) -> bool {
        !self.running.is_empty() || !self.kept.is_empty()
    }

    /// Deadlines and the memory limit.
    fn clock(&mut self) {
        let now = Instant::now();
        for (pid, running) in &mut self.running {
            if running.kill_at.is_some_and(|at| at <= now) {
                sys::kill(-pid, libc::SIGKILL);
                // Processes that left the group are looked for when the command ends.
                sys::kill(*pid, libc::SIGKILL);
                running.kill_at = None;
                running.deadline = None;
            } else if running.kill_at.is_none() && running.deadline.is_some_and(|at| at <= now) {
                running.ending.get_or_insert(End::TimedOut);
                running.deadline = None;
                running.kill_at = Some(now + GRACE);
                sys::kill(-pid, libc::SIGTERM);
            }
        }
        let lives = self.anything_lives();
        for excess in self.watch.as_mut().filter(|_| lives).map(Watch::look).unwrap_or_default() {
            let (Excess::Command(marked) | Excess::Hidden(_, marked)) = excess;
            let marks = self.marks;
            let known = marked.and_then(|m| self.running.values_mut().find(|r| mark(marks + r.id) == m));
            match known {
                Some(running) => running.oom = true,
                // Of a command that is over: whoever runs is told.
                None => self.running.values_mut().for_each(|r| r.oom = true),
            }
            match excess {
                Excess::Command(marked) => drop(kill_marked(marked)),
                Excess::Hidden(pid, _) => sys::kill(pid, libc::SIGKILL),
            }
        }
    }

    /// Collects every child that ended and answers for the commands among them.
    fn reap(&mut self) -> io::Result<()> {
        let mut found = VecDeque::new();
        loop {
            let Some(reaped) =
                found.pop_front().map_or_else(|| sys::reap(-1, libc::WNOHANG), |r| Ok(Some(r)))?
            else {
                return Ok(());
            };
            if let Some(running) = self.running.remove(&reaped.pid) {
                let dying = self.clean_up(reaped.pid, &running);
                self.settle(dying, &mut found)?;
                self.answer(running.id, Reply::Ended(ended(&running, &reaped)), None)?;
            }
        }
    }

    /// Waits until what was killed has ended, so that whoever gets the answer finds nothing of the command any more.
    /// Children that end meanwhile are kept for [`Server::reap`].
    fn settle(&self, dying: Dying, found: &mut VecDeque<Reaped>) -> io::Result<()> {
        let latest = Instant::now() + DYING;
        let over = || match &dying {
            Dying::Nothing => true,
            Dying::Everything => !sys::has_children(),
            Dying::These(pids) => !pids.iter().any(|pid| watch::alive(*pid)),
        };
        loop {
            while let Some(reaped) = sys::reap(-1, libc::WNOHANG)? {
                found.push_back(reaped);
            }
            if over() || Instant::now() >= latest {
                return Ok(());
            }
            // Not every end is one of a child: what waits for another parent is looked at again.
            let again = Instant::now() + Duration::from_millis(1);
            match poll(&mut [PollFd::new(self.children, PollFlags::IN)], Some(&until(again.min(latest)))) {
                Ok(_) | Err(rustix::io::Errno::INTR) => drain(self.children),
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// Kills what a command left behind: alone in the box that is everything, otherwise everything that carries no
    /// mark of another command that runs or whose processes stay.
    fn clean_up(&mut self, pid: i32, running: &Running) -> Dying {
        if self.stays {
            return Dying::Nothing;
        }
        if self.reach == Reach::Machine {
            sys::kill(-pid, libc::SIGKILL);
            return Dying::These(kill_marked(Some(self.mark(running.id))));
        }
        if running.leftovers == Leftovers::Keep {
            self.kept.push(self.mark(running.id));
            Dying::Nothing
        } else if self.running.is_empty() && self.kept.is_empty() {
            sys::kill(-1, libc::SIGKILL);
            Dying::Everything
        } else {
            sys::kill(-pid, libc::SIGKILL);
            let stay: Vec<u64> =
                self.running.values().map(|r| self.mark(r.id)).chain(self.kept.iter().copied()).collect();
            Dying::These(kill_others(&stay))
        }
    }
}

/// What was killed with a command.
enum Dying {
    Nothing,
    Everything,
    These(Vec<i32>),
}

/// The time that is left, as the kernel takes it.
fn until(at: Instant) -> Timespec {
    let left = at.saturating_duration_since(Instant::now());
    Timespec {
        tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(left.subsec_nanos()),
    }
}

fn failed(about: &str, errno: i32) -> Reply {
    Reply::Failed(FileFault { path: Raw::from(about), kind: FaultKind::Os(errno) })
}

fn ended(running: &Running, reaped: &Reaped) -> Ended {
    let end = running.ending.unwrap_or_else(|| {
        if libc::WIFSIGNALED(reaped.status) {
            End::Signaled(libc::WTERMSIG(reaped.status))
        } else {
            End::Exited(libc::WEXITSTATUS(reaped.status))
        }
    });
    Ended {
        end,
        oom: running.oom,
        user_us: reaped.user_us,
        system_us: reaped.system_us,
        max_rss_kib: reaped.max_rss_kib,
        peak_memory_bytes: reaped.max_rss_kib.saturating_mul(1024),
    }
}
