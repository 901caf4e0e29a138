//! Execution of the host's git.
//!
//! Git always works in a git directory created by Forge, so it finds no configuration, hooks, attributes or addresses
//! but Forge's own. The environment repeats this and overrides every configuration.

use crate::{Error, check_stopped};
use forge_tree::WorkBounds;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Resource, Rlimit, Signal};
use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Search path for git on the host.
const GIT_SEARCH_PATH: &str = "/usr/local/bin:/usr/bin:/bin:/run/current-system/sw/bin";
/// Address space limit of one git process in bytes, because repository contents can request any amount of memory.
const MAX_MEMORY_BYTES: u64 = 4 << 30;
/// Maximum number of bytes kept of git's error output.
const MAX_STDERR_BYTES: usize = 4 << 10;
/// Time within which a killed git should end.
const KILL_WAIT_TIMEOUT: Duration = Duration::from_secs(5);

/// Interval between checks whether git is still needed.
const STOP_POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Number of reads from a stream before the time limit is checked again.
const MAX_READS_PER_POLL: usize = 16;

/// Environment of the host's git, in addition to the settings in [`run_git`]. Every variable overrides the
/// configuration.
const GIT_ENVIRONMENT: &[(&str, &str)] = &[
    ("PATH", GIT_SEARCH_PATH),
    ("HOME", "/nonexistent"),
    ("XDG_CONFIG_HOME", "/nonexistent"),
    ("LC_ALL", "C"),
    ("GIT_DIR", "."),
    // Only the configuration in the git directory is read.
    ("GIT_CONFIG_NOSYSTEM", "1"),
    ("GIT_CONFIG_SYSTEM", "/dev/null"),
    ("GIT_CONFIG_GLOBAL", "/dev/null"),
    ("GIT_CONFIG_COUNT", "0"),
    ("GIT_ATTR_NOSYSTEM", "1"),
    // No transport has this name, and this list overrides all of `protocol.*`.
    ("GIT_ALLOW_PROTOCOL", "none"),
    ("GIT_PROTOCOL_FROM_USER", "0"),
    ("GIT_NO_LAZY_FETCH", "1"),
    ("GIT_NO_REPLACE_OBJECTS", "1"),
    ("GIT_LITERAL_PATHSPECS", "1"),
    ("GIT_OPTIONAL_LOCKS", "0"),
    // No prompts, editors or pagers.
    ("GIT_TERMINAL_PROMPT", "0"),
    ("GIT_ASKPASS", "false"),
    ("SSH_ASKPASS", "false"),
    ("GIT_SSH_COMMAND", "false"),
    ("GIT_PROXY_COMMAND", "false"),
    ("GIT_EDITOR", "false"),
    ("GIT_SEQUENCE_EDITOR", "false"),
    ("GIT_PAGER", "cat"),
    ("GIT_TRACE", "0"),
    ("GIT_TRACE2", "0"),
    ("GIT_TRACE2_EVENT", "0"),
    ("GIT_TRACE2_PERF", "0"),
    // Limit for one allocation; the total is limited as well.
    ("GIT_ALLOC_LIMIT", "1g"),
];

/// Resource limits of a git process.
#[derive(Clone, Copy, Debug)]
pub(super) struct GitLimits {
    pub(super) time: Duration,
    /// Maximum number of bytes of output.
    pub(super) output_bytes: usize,
}

/// Result of a git process that ended by itself.
#[derive(Debug)]
pub(super) struct GitOutput {
    pub(super) status: ExitStatus,
    pub(super) stdout: Vec<u8>,
    pub(super) stderr: Vec<u8>,
}

impl GitOutput {
    /// Returns git's error output, or its exit status if there is none.
    pub(super) fn error_message(&self) -> String {
        let said = String::from_utf8_lossy(&self.stderr).trim().to_owned();
        if said.is_empty() { self.status.to_string() } else { said }
    }
}

/// Runs git in the git directory `dir`, as `user` if given, and waits for it to end. When a limit is exceeded or the work
/// is stopped, git and its child processes are killed. Git also ends with this thread, and so with this process.
#[allow(
    clippy::disallowed_methods,
    reason = "the one place that starts git on the host; without a shell, in a git directory created by Forge"
)]
pub(super) fn run_git(
    dir: &Path,
    user: Option<(u32, u32)>,
    arguments: &[&OsStr],
    input: Option<File>,
    limits: GitLimits,
    bounds: &WorkBounds,
) -> Result<GitOutput, Error> {
    check_stopped(bounds)?;
    let mut git = Command::new("git");
    git.env_clear().envs(GIT_ENVIRONMENT.iter().copied()).current_dir(dir).arg("--no-pager").args(arguments);
    git.stdin(input.map_or_else(Stdio::null, Stdio::from)).stdout(Stdio::piped()).stderr(Stdio::piped());
    // This also makes it the leader of a process group.
    forge_sys::detach_on_exec(&mut git);
    // This thread waits for git until it has ended or was killed.
    forge_sys::kill_on_thread_exit(&mut git);
    if let Some((uid, gid)) = user {
        git.uid(uid).gid(gid);
    }
    let mut child = git.spawn().map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Error::NoGit,
        _ => Error::Start { source: error },
    })?;
    let pid = Pid::from_child(&child);
    let memory = Rlimit { current: Some(MAX_MEMORY_BYTES), maximum: Some(MAX_MEMORY_BYTES) };
    let _ = rustix::process::prlimit(Some(pid), Resource::As, memory);
    let watched = watch_output(&mut child, pid, limits, bounds);
    // This also kills processes that git may have left running.
    let _ = rustix::process::kill_process_group(pid, Signal::KILL);
    let what = || arguments.first().map_or_else(String::new, |what| what.to_string_lossy().into_owned());
    match watched {
        Ok(GitWatchOutcome::Ended { stdout, stderr }) => {
            let status = child.wait().map_err(|source| Error::Start { source })?;
            Ok(GitOutput { status, stdout, stderr })
        }
        Ok(GitWatchOutcome::Stopped) => {
            reap_killed(child);
            Err(Error::Stopped)
        }
        Ok(GitWatchOutcome::TooLong) => {
            reap_killed(child);
            Err(Error::TooLong { what: what(), limit: limits.time })
        }
        Ok(GitWatchOutcome::TooMuch) => {
            reap_killed(child);
            Err(Error::TooMuch { what: what(), limit: limits.output_bytes })
        }
        Err(source) => {
            reap_killed(child);
            Err(Error::Start { source })
        }
    }
}

enum GitWatchOutcome {
    Ended { stdout: Vec<u8>, stderr: Vec<u8> },
    TooLong,
    TooMuch,
    Stopped,
}

/// Reads the output of a process until it ends.
fn watch_output(
    child: &mut Child,
    pid: Pid,
    limits: GitLimits,
    bounds: &WorkBounds,
) -> std::io::Result<GitWatchOutcome> {
    let until = Instant::now() + limits.time;
    let ended = rustix::process::pidfd_open(pid, PidfdFlags::empty())?;
    let mut streams = [
        child.stdout.take().map(|pipe| BoundedStream::new(pipe, limits.output_bytes)).transpose()?,
        child.stderr.take().map(|pipe| BoundedStream::new(pipe, MAX_STDERR_BYTES)).transpose()?,
    ];
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(GitWatchOutcome::TooLong);
        }
        if check_stopped(bounds).is_err() {
            return Ok(GitWatchOutcome::Stopped);
        }
        let mut fds = vec![PollFd::new(&ended, PollFlags::IN)];
        let open = streams.iter().flatten().filter(|stream| !stream.closed);
        fds.extend(open.map(|stream| PollFd::new(&stream.file, PollFlags::IN)));
        let left = Timespec::try_from(left.min(STOP_POLL_INTERVAL)).map_err(std::io::Error::other)?;
        match poll(&mut fds, Some(&left)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        // Output written just before the end is available once the process has ended.
        let over = fds.first().is_some_and(|fd| !fd.revents().is_empty());
        for stream in streams.iter_mut().flatten() {
            stream.read_available()?;
        }
        let [stdout, stderr] = &mut streams;
        if stdout.as_ref().is_some_and(|stream| stream.cut) {
            return Ok(GitWatchOutcome::TooMuch);
        }
        if over {
            let taken =
                |stream: &mut Option<BoundedStream>| stream.take().map(|s| s.bytes).unwrap_or_default();
            return Ok(GitWatchOutcome::Ended { stdout: taken(stdout), stderr: taken(stderr) });
        }
    }
}

/// An output stream of a process, read until its end.
struct BoundedStream {
    file: File,
    bytes: Vec<u8>,
    limit: usize,
    /// Whether output beyond the limit was dropped.
    cut: bool,
    closed: bool,
}

impl BoundedStream {
    fn new(pipe: impl Into<std::os::fd::OwnedFd>, limit: usize) -> std::io::Result<Self> {
        let fd = pipe.into();
        let flags = rustix::fs::fcntl_getfl(fd.as_fd())?;
        rustix::fs::fcntl_setfl(&fd, flags | rustix::fs::OFlags::NONBLOCK)?;
        Ok(Self { file: fd.into(), bytes: Vec::new(), limit, cut: false, closed: false })
    }

    fn read_available(&mut self) -> std::io::Result<()> {
        let mut piece = [0; 64 << 10];
        // The loop is bounded so that the time limit is checked in between.
        for _ in 0..MAX_READS_PER_POLL {
            match self.file.read(&mut piece) {
                Ok(0) => {
                    self.closed = true;
                    return Ok(());
                }
                Ok(read) => self.append_bounded(&piece[..read]),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn append_bounded(&mut self, bytes: &[u8]) {
        let room = self.limit - self.bytes.len();
        self.cut |= bytes.len() > room;
        self.bytes.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }
}

/// Waits for a killed process to end; if the kernel delays that, a thread takes over the wait.
fn reap_killed(mut child: Child) {
    let _ = child.kill();
    let ended = rustix::process::pidfd_open(Pid::from_child(&child), PidfdFlags::empty());
    let left = Timespec::try_from(KILL_WAIT_TIMEOUT).ok();
    let gone = ended.is_ok_and(|fd| {
        poll(&mut [PollFd::new(&fd, PollFlags::IN)], left.as_ref()).is_ok_and(|ready| ready > 0)
    });
    if gone {
        let _ = child.wait();
        return;
    }
    let _ = std::thread::Builder::new().name("forge-git-wait".to_owned()).spawn(move || child.wait());
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    const LIMITS: GitLimits = GitLimits { time: Duration::from_secs(60), output_bytes: 1 << 20 };

    fn run(dir: &Path, arguments: &[&str], limits: GitLimits) -> Result<GitOutput, Error> {
        let arguments: Vec<&OsStr> = arguments.iter().map(OsStr::new).collect();
        run_git(dir, None, &arguments, None, limits, WorkBounds::unbounded())
    }

    fn bare() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for path in ["refs", "objects"] {
            std::fs::create_dir(dir.path().join(path)).unwrap();
        }
        std::fs::write(dir.path().join("HEAD"), "ref: refs/heads/none\n").unwrap();
        dir
    }

    /// Creates a named pipe that nothing writes to.
    fn pipe(dir: &Path) -> std::path::PathBuf {
        let pipe = dir.join("pipe");
        let (kind, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::from_raw_mode(0o600));
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, kind, mode, 0).unwrap();
        pipe
    }

    #[test]
    fn one_whose_work_is_stopped_is_killed_at_once() {
        let dir = bare();
        let pipe = pipe(dir.path());
        let stop = forge_tree::StopFlag::default();
        let bounds = WorkBounds::unbounded().with_stop(stop.clone());
        let arguments = ["hash-object", "--", pipe.to_str().unwrap()].map(OsStr::new);
        let begun = Instant::now();
        let ended = std::thread::scope(|scope| {
            let git = scope.spawn(|| run_git(dir.path(), None, &arguments, None, LIMITS, &bounds));
            // Git has the pipe open, so it is running.
            let writer = File::options().write(true).open(&pipe).unwrap();
            stop.stop();
            let ended = git.join().unwrap();
            drop(writer);
            ended
        });
        assert!(matches!(ended, Err(Error::Stopped)), "{ended:?}");
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
        let unstarted = run_git(dir.path(), None, &arguments, None, LIMITS, &bounds);
        assert!(matches!(unstarted, Err(Error::Stopped)), "{unstarted:?}");
    }

    #[test]
    fn one_that_waits_for_ever_is_killed() {
        let dir = bare();
        let pipe = pipe(dir.path());
        let limits = GitLimits { time: Duration::from_millis(300), ..LIMITS };
        let error = run(dir.path(), &["hash-object", "--", pipe.to_str().unwrap()], limits).unwrap_err();
        assert!(matches!(error, Error::TooLong { .. }), "{error}");
    }

    #[test]
    fn one_that_prints_without_end_is_killed() {
        let dir = bare();
        let limits = GitLimits { output_bytes: 100, ..LIMITS };
        let error = run(dir.path(), &["help", "--config"], limits).unwrap_err();
        assert!(matches!(error, Error::TooMuch { .. }), "{error}");
        let ended = run(dir.path(), &["rev-parse", "--show-object-format"], limits).unwrap();
        assert_eq!(ended.stdout, b"sha1\n");
    }

    /// The environment overrides anything that gets into the git directory's configuration.
    #[test]
    fn no_configuration_gives_it_a_transport() {
        let (dir, canary) = (bare(), tempfile::tempdir().unwrap());
        let (program, trace) = (canary.path().join("x.sh"), canary.path().join("trace"));
        std::fs::write(&program, format!("#!/bin/sh\necho ran >> '{}'\n", trace.display())).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let program = program.display();
        std::fs::write(
            dir.path().join("config"),
            format!(
                "[core]\n\tbare = true\n\tsshCommand = {program}\n\tgitProxy = {program}\n[protocol]\n\tallow = always\n\
                 [protocol \"ext\"]\n\tallow = always\n[protocol \"ssh\"]\n\tallow = always\n[protocol \"git\"]\n\tallow = always\n"
            ),
        )
        .unwrap();
        for address in [
            format!("ext::{program}"),
            "ssh://nowhere.invalid/x".to_owned(),
            "git://nowhere.invalid/x".to_owned(),
        ] {
            let ended = run(dir.path(), &["fetch", "--", &address], LIMITS).unwrap();
            assert!(
                !ended.status.success() && ended.error_message().contains("not allowed"),
                "{}",
                ended.error_message()
            );
        }
        assert!(!trace.exists());
    }
}
