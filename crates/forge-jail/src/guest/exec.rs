//! Starting a command: one `vfork`-like clone and an `execve`, nothing else, so that a command in the sandbox costs
//! hardly more than one outside.

use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::Ordering;

use rustix::fs::{Mode, OFlags, ResolveFlags};

use super::domains::CommandDomains;
use super::programs::ProgramList;
use super::programs::broker::STARTING_PID;
use crate::protocol::helper_binary::HelperBinary;
use crate::protocol::wire::create_memory_file;
use forge_jail_protocol::{HELPER_PATH, JailCommand, RawBytes, StartFault};

/// Size of the child's stack until `execve`; it makes a few system calls and does not recurse.
const CHILD_STACK_BYTES: usize = 64 * 1024;

/// Starts commands; owns the stack on which the child of a `vfork` runs. One per init: children are created one by one.
pub(super) struct CommandLauncher {
    stack: Vec<u8>,
    /// The sandbox's environment, in order; a command's entries override it.
    env: Vec<(RawBytes, RawBytes)>,
    /// The way the own binary is started, where it cannot start by itself.
    helper: Option<HelperBinary>,
    /// An additional system call filter for commands; empty if they need none.
    gate: Vec<libc::sock_filter>,
    isolation: CommandIsolation,
    /// The list of programs that commands may execute, if there is one.
    programs: Option<ProgramList>,
}

/// The means that separate commands from each other.
pub(super) struct CommandIsolation {
    /// The domains they start in, if the kernel supports them.
    pub(super) domains: Option<CommandDomains>,
    /// The secret with which only the init can mark a command.
    pub(super) key: u64,
}

/// The child's data, prepared before it exists because it may not allocate.
struct ExecPlan {
    /// Paths to try for the program.
    candidates: Vec<*const libc::c_char>,
    argv: Vec<*const libc::c_char>,
    envp: Vec<*const libc::c_char>,
    cwd: libc::c_int,
    stdin: libc::c_int,
    stdout: libc::c_int,
    stderr: libc::c_int,
    mark: libc::rlimit,
    key: u64,
    /// A Landlock ruleset, or -1.
    domain: libc::c_int,
    /// A Landlock ruleset of the files that may be executed; -1: none.
    rules: libc::c_int,
    gate: libc::sock_fprog,
    /// Set by the child when nothing could be executed.
    errno: libc::c_int,
}

impl CommandLauncher {
    pub(super) fn new(
        env: &[(RawBytes, RawBytes)],
        helper: Option<HelperBinary>,
        gate: Vec<libc::sock_filter>,
        isolation: CommandIsolation,
        programs: Option<ProgramList>,
    ) -> Self {
        Self { stack: vec![0; CHILD_STACK_BYTES], env: env.to_vec(), helper, gate, isolation, programs }
    }

    /// Sets the additional system call filter of commands that start from now on.
    pub(super) fn set_gate(&mut self, gate: Vec<libc::sock_filter>) {
        self.gate = gate;
    }

    /// Starts a command in its own session and returns its process id. `mark` identifies its processes, see
    /// [`forge_processes::process_files::mark_for`].
    pub(super) fn start_command(
        &mut self,
        workspace: BorrowedFd<'_>,
        exec: &JailCommand,
        mark: u64,
        out: [&OwnedFd; 2],
    ) -> Result<i32, StartFault> {
        let program = exec.program.as_ref().or(exec.argv.first()).cloned().unwrap_or_default();
        let fault = |what: &RawBytes, e: &io::Error| StartFault {
            what: what.clone(),
            errno: e.raw_os_error().unwrap_or(libc::EINVAL),
        };
        let about_program = |e: io::Error| fault(&program, &e);
        if program.0.is_empty() {
            return Err(about_program(io::Error::from_raw_os_error(libc::ENOENT)));
        }
        let cwd = open_directory(workspace, &exec.cwd).map_err(|e| fault(&exec.cwd, &e))?;
        let input = open_stdin(exec.stdin.as_ref()).map_err(about_program)?;
        let env = self.merge_env(exec);
        let (program_now, arguments) = self.resolve_helper(&program, &exec.argv);
        let mut candidates = program_candidates(&program_now, &env).map_err(about_program)?;
        let rules = match &mut self.programs {
            Some(programs) => {
                let name = arguments.first().map_or(&b""[..], |name| &name.0);
                candidates
                    .retain(|path| programs.may_start(Path::new(OsStr::from_bytes(path.to_bytes())), name));
                if candidates.is_empty() {
                    return Err(about_program(io::Error::from_raw_os_error(libc::EACCES)));
                }
                Some(programs.ruleset_for(exec).map_err(about_program)?)
            }
            None => None,
        };
        let argv =
            arguments.iter().map(to_c_string).collect::<io::Result<Vec<_>>>().map_err(about_program)?;
        let envp = env.iter().map(env_pair).collect::<io::Result<Vec<_>>>().map_err(about_program)?;
        let mut plan = ExecPlan {
            candidates: c_pointers(&candidates),
            argv: c_pointers(&argv),
            envp: c_pointers(&envp),
            cwd: cwd.as_raw_fd(),
            stdin: input.as_raw_fd(),
            stdout: out[0].as_raw_fd(),
            stderr: out[1].as_raw_fd(),
            rules: rules.as_ref().map_or(-1, |rules| rules.as_raw_fd()),
            mark: libc::rlimit { rlim_cur: mark, rlim_max: mark },
            key: self.isolation.key,
            domain: self
                .isolation
                .domains
                .as_ref()
                .map_or(-1, |domains| domains.ruleset_for(exec.background)),
            gate: libc::sock_fprog {
                len: u16::try_from(self.gate.len()).map_err(|e| about_program(io::Error::other(e)))?,
                filter: self.gate.as_mut_ptr(),
            },
            errno: 0,
        };
        let pid = self.clone_and_exec(&mut plan).map_err(about_program)?;
        if plan.errno != 0 {
            // The child has already exited; its status adds nothing.
            let _ = crate::sys::reap(pid, 0);
            return Err(StartFault { what: program, errno: plan.errno });
        }
        Ok(pid)
    }

    /// Returns program and arguments, with the own binary in an image of another system started through its loader.
    fn resolve_helper(&self, program: &RawBytes, argv: &[RawBytes]) -> (RawBytes, Vec<RawBytes>) {
        match (&self.helper, argv.split_first()) {
            (Some(helper), Some((name, rest))) if program.0 == HELPER_PATH.as_bytes() => {
                let (program, before) = helper.start_command(&name.to_string());
                let all = before.into_iter().map(RawBytes::from).chain(rest.iter().cloned());
                (RawBytes::from(program), all.collect())
            }
            _ => (program.clone(), argv.to_vec()),
        }
    }

    fn merge_env(&self, exec: &JailCommand) -> Vec<(RawBytes, RawBytes)> {
        let inherited =
            |name: &RawBytes| exec.inherited_env.as_ref().is_none_or(|names| names.contains(name));
        let mut env: Vec<_> = self.env.iter().filter(|(name, _)| inherited(name)).cloned().collect();
        for (key, value) in &exec.env {
            match env.iter_mut().find(|(k, _)| k == key) {
                Some(entry) => entry.1 = value.clone(),
                None => env.push((key.clone(), value.clone())),
            }
        }
        env
    }

    fn clone_and_exec(&mut self, plan: &mut ExecPlan) -> io::Result<i32> {
        let top = self.stack.as_mut_ptr_range().end as usize & !15;
        let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
        // SAFETY: `child_main` runs on `self.stack`, of which `top` is the aligned end and which nothing else uses; it
        // gets a pointer to `plan`, which is borrowed exclusively for this call. CLONE_VFORK suspends this thread until
        // the child has executed another program or exited, so the two never use this thread's data at the same time.
        // The only other thread that may exist, the one that checks `execve` calls, shares nothing with the child but
        // `STARTING_PID`, which is atomic. `child_main` only makes system calls: no allocation, no lock, no unwinding.
        let pid = unsafe {
            libc::clone(child_main, top as *mut libc::c_void, flags, (&raw mut *plan).cast::<libc::c_void>())
        };
        let failed = io::Error::last_os_error();
        // A child that ended before its `execve` was checked leaves its number behind.
        STARTING_PID.store(0, Ordering::SeqCst);
        if pid < 0 { Err(failed) } else { Ok(pid) }
    }
}

/// Opens a command's standard input: a file in memory with this content, or an empty one.
fn open_stdin(content: Option<&RawBytes>) -> io::Result<OwnedFd> {
    match content {
        Some(content) => create_memory_file(&content.0),
        None => Ok(rustix::fs::open(c"/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?),
    }
}

/// Runs in the new process.
extern "C" fn child_main(plan: *mut libc::c_void) -> libc::c_int {
    // SAFETY: `plan` points to the live `ExecPlan` that `clone_and_exec` has borrowed exclusively, and its thread is
    // suspended. All pointer arrays in it end with null and point to C strings that outlive this function; `gate`
    // describes the launcher's own slice, which the kernel copies. Only system calls that are safe after vfork are
    // made; `sigset_t` is plain data and initialised by sigemptyset.
    unsafe {
        let plan = &mut *plan.cast::<ExecPlan>();
        libc::setsid();
        let none: *mut libc::rlimit = std::ptr::null_mut();
        let limit = libc::RLIMIT_RTTIME;
        let marked = libc::syscall(libc::SYS_prlimit64, 0, limit, &raw const plan.mark, none, plan.key) == 0;
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
        let ready = marked
            && libc::dup2(plan.stdin, 0) >= 0
            && libc::dup2(plan.stdout, 1) >= 0
            && libc::dup2(plan.stderr, 2) >= 0
            && libc::fchdir(plan.cwd) == 0
            && (plan.domain < 0 || libc::syscall(libc::SYS_landlock_restrict_self, plan.domain, 0u32) == 0)
            && (plan.rules < 0 || libc::syscall(libc::SYS_landlock_restrict_self, plan.rules, 0u32) == 0)
            && (plan.gate.len == 0
                || libc::syscall(
                    libc::SYS_seccomp,
                    libc::SECCOMP_SET_MODE_FILTER,
                    0u32,
                    &raw const plan.gate,
                ) == 0);
        if !ready {
            plan.errno = *libc::__errno_location();
            libc::_exit(127);
        }
        // Everything else is close-on-exec already; this is a second safeguard.
        libc::syscall(libc::SYS_close_range, 3, u32::MAX, 0);
        let mut worst = libc::ENOENT;
        for candidate in plan.candidates.iter().take_while(|c| !c.is_null()) {
            if plan.rules >= 0 {
                STARTING_PID.store(libc::getpid(), Ordering::SeqCst);
            }
            libc::execve(*candidate, plan.argv.as_ptr(), plan.envp.as_ptr());
            // Like the C library: skip candidates that do not exist, remember those that exist but could not run.
            match *libc::__errno_location() {
                libc::ENOENT | libc::ENOTDIR => {}
                libc::EACCES => worst = libc::EACCES,
                other => {
                    worst = other;
                    break;
                }
            }
        }
        plan.errno = worst;
        libc::_exit(127)
    }
}

fn open_directory(workspace: BorrowedFd<'_>, path: &RawBytes) -> io::Result<OwnedFd> {
    let how = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let path = if path.0.is_empty() { to_c_string(&RawBytes::from("."))? } else { to_c_string(path)? };
    Ok(rustix::fs::openat2(workspace.as_fd(), path, flags, Mode::empty(), how)?)
}

/// Returns the paths to try for a program: its own if it contains a slash, else one in each directory of the command's
/// `PATH`.
fn program_candidates(program: &RawBytes, env: &[(RawBytes, RawBytes)]) -> io::Result<Vec<CString>> {
    if program.0.contains(&b'/') {
        return Ok(vec![to_c_string(program)?]);
    }
    let path = env.iter().find(|(k, _)| k.0 == b"PATH").map_or(&b"/usr/bin:/bin"[..], |(_, v)| &v.0);
    path.split(|b| *b == b':')
        .filter(|folder| folder.starts_with(b"/"))
        .map(|folder| to_c_string(&RawBytes([folder, b"/", &program.0].concat())))
        .collect()
}

fn to_c_string(raw: &RawBytes) -> io::Result<CString> {
    Ok(CString::new(raw.0.as_slice())?)
}

fn env_pair((key, value): &(RawBytes, RawBytes)) -> io::Result<CString> {
    Ok(CString::new([key.0.as_slice(), b"=", value.0.as_slice()].concat())?)
}

fn c_pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    strings.iter().map(|s| s.as_ptr()).chain([std::ptr::null()]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_looked_up_in_the_commands_own_path() {
        let env = vec![(RawBytes::from("PATH"), RawBytes::from("/a:relative::/b"))];
        let found = program_candidates(&RawBytes::from("tool"), &env).unwrap();
        assert_eq!(found, vec![c"/a/tool".to_owned(), c"/b/tool".to_owned()]);
        assert_eq!(program_candidates(&RawBytes::from("./tool"), &env).unwrap(), vec![c"./tool".to_owned()]);
    }
}
