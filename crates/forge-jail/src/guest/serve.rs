//! The loop of the init: receives requests, starts and reaps commands, sends replies.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};

use super::InitReady;
use super::domains::CommandDomains;
use super::exec::{CommandIsolation, CommandLauncher};
use super::files::RootedFiles;
use super::harden::{self, MemoryAccounting};
use crate::protocol::startup::{InitRequest, StartupMessage};
use crate::protocol::wire::{self, WireFrame};
use crate::sys::{self, ReapedChild};
use forge_jail_protocol::{
    BackgroundProcesses, DisabledProtection, ExecEnd, ExecOutcome, FaultKind, FileFault, JailCommand,
    JailReply, JailRequest, JailSpec, RawBytes, StartFault, WORKSPACE_PATH,
};
use forge_processes::freeze::{self, StoppedProcesses};
use forge_processes::objects::ObjectScope;
use forge_processes::process_files::{is_alive, mark_for};
use forge_processes::sockets::SocketDiag;
use forge_processes::watch::{MemoryExcess, MemoryWatch, kill_marked, kill_others};

/// Time between TERM and KILL for a command that exceeded its time limit.
const TERM_GRACE_PERIOD: Duration = Duration::from_millis(200);
/// Longest time that a command's reply waits for killed processes. One with much memory takes its time; one that hangs
/// in the kernel must not block the sandbox.
const EXIT_WAIT_TIMEOUT: Duration = Duration::from_secs(2);

/// Moves this thread, the only one, into control groups. A thread that moves itself does not wait for all processors,
/// unlike a process moved by another one. Processes started later are in the groups from the beginning.
pub(super) fn join_control_groups(lists: &[OwnedFd]) -> rustix::io::Result<()> {
    lists.iter().try_for_each(|list| rustix::io::write(list, b"0").map(drop))
}

/// A running command.
#[derive(Debug)]
struct RunningCommand {
    id: u64,
    background: BackgroundProcesses,
    deadline: Option<Instant>,
    kill_at: Option<Instant>,
    /// The reason why it is being ended, if it is.
    ending: Option<ExecEnd>,
    oom: bool,
}

struct InitServer<'a> {
    control: &'a OwnedFd,
    /// A descriptor that becomes readable when a child has ended.
    children: &'a OwnedFd,
    workspace: OwnedFd,
    files: RootedFiles,
    launcher: CommandLauncher,
    running: BTreeMap<i32, RunningCommand>,
    watch: Option<MemoryWatch>,
    /// Socket diagnostics for the watch, until it exists.
    sockets: Option<SocketDiag>,
    objects: ObjectScope,
    /// An additional system call filter where only the watch counts memory.
    uncounted: Vec<libc::sock_filter>,
    /// The filter of commands in that case.
    uncounted_gate: Vec<libc::sock_filter>,
    /// Marks of the commands with processes that stay alive, as requested.
    background_marks: Vec<u64>,
    /// The stopped processes while the sandbox is frozen.
    frozen: Option<StoppedProcesses>,
    reach: ProcessReach,
    /// Whether processes outlive their command, for a test that must detect this.
    background_survives: bool,
    /// Offset added to the marks of commands.
    marks: u64,
}

/// The processes that the init can see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ProcessReach {
    /// Those of the sandbox.
    Sandbox,
    /// Those of the machine: a signal must never go to all of them.
    Machine,
}

/// Serves until the control socket closes or a shutdown is requested.
pub(super) fn serve_requests(control: &OwnedFd, spec: &JailSpec, ready: InitReady) -> io::Result<()> {
    let children = sys::signal_fd(libc::SIGCHLD)?;
    let folder = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let workspace = rustix::fs::open(WORKSPACE_PATH, folder, Mode::empty())?;
    let mut files = RootedFiles::new(rustix::fs::open(WORKSPACE_PATH, folder, Mode::empty())?);
    if spec.lacks_protection(DisabledProtection::FilesBeneath) {
        files = files.without_confinement();
    }
    let reach = if spec.lacks_protection(DisabledProtection::PidNamespace) {
        ProcessReach::Machine
    } else {
        ProcessReach::Sandbox
    };
    if reach == ProcessReach::Machine {
        // Orphaned processes become children of this process, as they do of a process 1.
        sys::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0)?;
    }
    let InitReady { layers, overlay, listener, helper, sockets, key, programs, warnings } = ready;
    let apart = CommandIsolation { domains: CommandDomains::new(spec)?, key };
    let passed: Vec<_> = listener.iter().map(AsFd::as_fd).collect();
    wire::send_message(control.as_fd(), &StartupMessage::Ready { layers, overlay, warnings }, &passed)?;
    drop(listener);
    let gate = |memory| harden::command_filter(spec, programs.as_ref(), memory);
    let (counted_gate, uncounted_gate) =
        (gate(MemoryAccounting::ControlGroup), gate(MemoryAccounting::Watch));
    let mut server = InitServer {
        control,
        children: &children,
        workspace,
        files,
        launcher: CommandLauncher::new(&jail_environment(spec), helper, counted_gate, apart, programs),
        running: BTreeMap::new(),
        watch: None,
        sockets,
        objects: if spec.lacks_protection(DisabledProtection::IpcNamespace) {
            ObjectScope::Shared
        } else {
            ObjectScope::Own
        },
        uncounted: harden::uncounted_filter(spec),
        uncounted_gate,
        background_marks: Vec::new(),
        frozen: None,
        reach,
        background_survives: spec.lacks_protection(DisabledProtection::KillBackground),
        marks: if reach == ProcessReach::Machine { u64::from(std::process::id()) << 20 } else { 0 },
    };
    let mut buffer = Vec::new();
    loop {
        let (asked, ended) = server.wait_for_event()?;
        if ended {
            drain_signals(&children);
            server.reap_children()?;
        }
        if asked {
            match wire::receive_message::<WireFrame<InitRequest>>(control.as_fd(), &mut buffer)? {
                None => break,
                Some((frame, fds)) => {
                    if !server.handle_request(frame, fds)? {
                        break;
                    }
                }
            }
        }
        server.check_deadlines();
    }
    Ok(())
}

/// Returns the sandbox's environment: only the specified variables.
fn jail_environment(spec: &JailSpec) -> Vec<(RawBytes, RawBytes)> {
    if !spec.lacks_protection(DisabledProtection::EnvironmentCleared) {
        return spec.env.clone();
    }
    #[allow(
        clippy::disallowed_methods,
        reason = "the one place that passes it on, for a test that must notice"
    )]
    let own = std::env::vars_os().map(|(name, value)| (RawBytes::from(name), RawBytes::from(value)));
    let named = |name: &RawBytes| spec.env.iter().any(|(known, _)| known == name);
    own.filter(|(name, _)| !named(name)).chain(spec.env.iter().cloned()).collect()
}

fn drain_signals(signals: &OwnedFd) {
    let mut bytes = [0u8; 1024];
    while rustix::io::read(signals, &mut bytes).is_ok_and(|n| n > 0) {}
}

impl InitServer<'_> {
    /// Waits for a request, the end of a child, or a deadline.
    fn wait_for_event(&self) -> io::Result<(bool, bool)> {
        let mut fds = [PollFd::new(self.control, PollFlags::IN), PollFd::new(self.children, PollFlags::IN)];
        let timeout = self.next_deadline().map(time_left);
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        Ok((!fds[0].revents().is_empty(), !fds[1].revents().is_empty()))
    }

    fn next_deadline(&self) -> Option<Instant> {
        let commands = self.running.values().filter_map(|r| r.kill_at.or(r.deadline));
        let watch = self.watch.as_ref().filter(|_| self.has_live_processes()).map(MemoryWatch::next_check);
        commands.chain(watch).min()
    }

    /// Handles one request; `false` ends the init.
    fn handle_request(&mut self, frame: WireFrame<InitRequest>, fds: Vec<OwnedFd>) -> io::Result<bool> {
        let id = frame.id;
        let request = match frame.body {
            InitRequest::Watch { watch_memory } => {
                harden::set_memory_limits(watch_memory)?;
                if self.reach == ProcessReach::Machine {
                    return self.send_reply(id, JailReply::Done, None).map(|()| true);
                }
                if !self.uncounted.is_empty() {
                    sys::seccomp_install(&self.uncounted)?;
                }
                let command_filters = u64::from(!self.uncounted_gate.is_empty());
                self.launcher.set_gate(std::mem::take(&mut self.uncounted_gate));
                let (sockets, objects) = (self.sockets.take(), self.objects);
                self.watch = Some(MemoryWatch::new(watch_memory, command_filters, sockets, objects));
                return self.send_reply(id, JailReply::Done, None).map(|()| true);
            }
            InitRequest::Asked(request) => request,
        };
        match request {
            JailRequest::Exec(exec) => self.start_command(id, &exec, &fds)?,
            JailRequest::Cancel { target } => {
                self.cancel_command(target);
                self.send_reply(id, JailReply::Done, None)?;
            }
            JailRequest::Freeze => {
                if self.frozen.is_none() && self.reach == ProcessReach::Sandbox {
                    self.frozen = freeze::freeze_processes();
                }
                let still = if self.frozen.is_some() {
                    JailReply::Done
                } else {
                    // A process hangs in the kernel.
                    failed_reply("a process of the box that does not stop", libc::EBUSY)
                };
                self.send_reply(id, still, None)?;
            }
            JailRequest::Thaw => {
                if let Some(frozen) = self.frozen.take() {
                    frozen.thaw();
                }
                self.send_reply(id, JailReply::Done, None)?;
            }
            JailRequest::Ping => self.send_reply(id, JailReply::Done, None)?,
            JailRequest::Shutdown => {
                self.send_reply(id, JailReply::Done, None)?;
                return Ok(false);
            }
            file => {
                let (reply, fd) = self.files.handle_request(file);
                self.send_reply(id, reply, fd.as_ref())?;
            }
        }
        Ok(true)
    }

    fn send_reply(&self, id: u64, body: JailReply, fd: Option<&OwnedFd>) -> io::Result<()> {
        let fds: Vec<_> = fd.iter().map(|f| f.as_fd()).collect();
        wire::send_message(self.control.as_fd(), &WireFrame { id, body }, &fds)
    }

    fn start_command(&mut self, id: u64, exec: &JailCommand, fds: &[OwnedFd]) -> io::Result<()> {
        let [out, err] = fds else {
            let fault = StartFault { what: exec.cwd.clone(), errno: libc::EBADF };
            return self.send_reply(id, JailReply::NotStarted(fault), None);
        };
        let marked = self.command_mark(id);
        match self.launcher.start_command(self.workspace.as_fd(), exec, marked, [out, err]) {
            Err(fault) => self.send_reply(id, JailReply::NotStarted(fault), None),
            Ok(pid) => {
                let deadline = exec.timeout_ms.map(|ms| Instant::now() + Duration::from_millis(ms));
                let running = RunningCommand {
                    id,
                    background: exec.background,
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

    fn cancel_command(&mut self, target: u64) {
        if let Some((pid, running)) = self.running.iter_mut().find(|(_, r)| r.id == target) {
            running.ending.get_or_insert(ExecEnd::Cancelled);
            sys::kill(-pid, libc::SIGTERM);
            running.kill_at.get_or_insert(Instant::now() + TERM_GRACE_PERIOD);
        }
    }

    /// Returns the mark of the command with this number.
    fn command_mark(&self, id: u64) -> u64 {
        mark_for(self.marks + id)
    }

    fn has_live_processes(&self) -> bool {
        !self.running.is_empty() || !self.background_marks.is_empty()
    }

    /// Enforces deadlines and the memory limit.
    fn check_deadlines(&mut self) {
        let now = Instant::now();
        for (pid, running) in &mut self.running {
            if running.kill_at.is_some_and(|at| at <= now) {
                sys::kill(-pid, libc::SIGKILL);
                // Processes that left the group are found when the command ends.
                sys::kill(*pid, libc::SIGKILL);
                running.kill_at = None;
                running.deadline = None;
            } else if running.kill_at.is_none() && running.deadline.is_some_and(|at| at <= now) {
                running.ending.get_or_insert(ExecEnd::TimedOut);
                running.deadline = None;
                running.kill_at = Some(now + TERM_GRACE_PERIOD);
                sys::kill(-pid, libc::SIGTERM);
            }
        }
        let lives = self.has_live_processes();
        for excess in self.watch.as_mut().filter(|_| lives).map(MemoryWatch::check_if_due).unwrap_or_default()
        {
            let (MemoryExcess::Command(marked) | MemoryExcess::Hidden(_, marked)) = excess;
            let marks = self.marks;
            let known = marked.and_then(|m| self.running.values_mut().find(|r| mark_for(marks + r.id) == m));
            match known {
                Some(running) => running.oom = true,
                // The mark belongs to a finished command, so all running commands are flagged.
                None => self.running.values_mut().for_each(|r| r.oom = true),
            }
            match excess {
                MemoryExcess::Command(marked) => drop(kill_marked(marked)),
                MemoryExcess::Hidden(pid, _) => sys::kill(pid, libc::SIGKILL),
            }
        }
    }

    /// Reaps every child that has ended and replies for the commands among them.
    fn reap_children(&mut self) -> io::Result<()> {
        let mut found = VecDeque::new();
        loop {
            let Some(reaped) =
                found.pop_front().map_or_else(|| sys::reap(-1, libc::WNOHANG), |r| Ok(Some(r)))?
            else {
                return Ok(());
            };
            if let Some(running) = self.running.remove(&reaped.pid) {
                let dying = self.kill_remaining(reaped.pid, &running);
                self.wait_for_exits(dying, &mut found)?;
                self.send_reply(running.id, JailReply::Ended(exec_outcome(&running, &reaped)), None)?;
            }
        }
    }

    /// Waits until the killed processes have ended, so that the receiver of the reply finds no process of the command.
    /// Children that end meanwhile are kept for [`InitServer::reap_children`].
    fn wait_for_exits(&self, dying: KilledProcesses, found: &mut VecDeque<ReapedChild>) -> io::Result<()> {
        let latest = Instant::now() + EXIT_WAIT_TIMEOUT;
        let over = || match &dying {
            KilledProcesses::Nothing => true,
            KilledProcesses::Everything => !sys::has_children(),
            KilledProcesses::These(pids) => !pids.iter().any(|pid| is_alive(*pid)),
        };
        loop {
            while let Some(reaped) = sys::reap(-1, libc::WNOHANG)? {
                found.push_back(reaped);
            }
            if over() || Instant::now() >= latest {
                return Ok(());
            }
            // Not every killed process is a child: those with another parent are polled.
            let again = Instant::now() + Duration::from_millis(1);
            match poll(&mut [PollFd::new(self.children, PollFlags::IN)], Some(&time_left(again.min(latest))))
            {
                Ok(_) | Err(rustix::io::Errno::INTR) => drain_signals(self.children),
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// Kills the processes that a command left: if it was alone in the sandbox, all; otherwise all that carry no mark
    /// of another running command or of one with processes that stay.
    fn kill_remaining(&mut self, pid: i32, running: &RunningCommand) -> KilledProcesses {
        if self.background_survives {
            return KilledProcesses::Nothing;
        }
        if self.reach == ProcessReach::Machine {
            sys::kill(-pid, libc::SIGKILL);
            return KilledProcesses::These(kill_marked(Some(self.command_mark(running.id))));
        }
        if running.background == BackgroundProcesses::LeaveRunning {
            self.background_marks.push(self.command_mark(running.id));
            KilledProcesses::Nothing
        } else if self.running.is_empty() && self.background_marks.is_empty() {
            sys::kill(-1, libc::SIGKILL);
            KilledProcesses::Everything
        } else {
            sys::kill(-pid, libc::SIGKILL);
            let stay: Vec<u64> = self
                .running
                .values()
                .map(|r| self.command_mark(r.id))
                .chain(self.background_marks.iter().copied())
                .collect();
            KilledProcesses::These(kill_others(&stay))
        }
    }
}

/// The processes killed with a command.
enum KilledProcesses {
    Nothing,
    Everything,
    These(Vec<i32>),
}

/// Returns the remaining time as a kernel timespec.
fn time_left(at: Instant) -> Timespec {
    let left = at.saturating_duration_since(Instant::now());
    Timespec {
        tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(left.subsec_nanos()),
    }
}

fn failed_reply(about: &str, errno: i32) -> JailReply {
    JailReply::Failed(FileFault { path: RawBytes::from(about), kind: FaultKind::Os(errno) })
}

fn exec_outcome(running: &RunningCommand, reaped: &ReapedChild) -> ExecOutcome {
    let end = running.ending.unwrap_or_else(|| {
        if libc::WIFSIGNALED(reaped.status) {
            ExecEnd::Signaled(libc::WTERMSIG(reaped.status))
        } else {
            ExecEnd::Exited(libc::WEXITSTATUS(reaped.status))
        }
    });
    ExecOutcome {
        end,
        oom: running.oom,
        user_us: reaped.user_us,
        system_us: reaped.system_us,
        max_rss_kib: reaped.max_rss_kib,
        peak_memory_bytes: reaped.max_rss_kib.saturating_mul(1024),
    }
}
