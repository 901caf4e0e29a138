//! Programs that commands may execute: found once, when the sandbox is ready, and enforced by the kernel from then on.
//!
//! Landlock refuses to execute any file that is not listed in its rules, under any name, for a command and all
//! processes it starts. Two gaps that it does not see are closed separately: memory files (by a rule of the system call
//! filter), and dynamic loaders. A loader must be executable, because the kernel executes it on behalf of each program,
//! but executed directly it runs any file that can be read. So each `execve` is checked first: see [`broker`].

pub(super) mod broker;
mod find;

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rustix::fs::{Mode, OFlags};

use self::broker::ExecPolicy;
use self::find::{AllowedPrograms, ProgramFinder};
use forge_sys as sys;

use super::{InitSetupError, SetupContext};
use forge_jail_protocol::{
    DisabledProtection, IsolationLayer, JailCommand, JailSpec, LayerReport, RawBytes, WORKSPACE_PATH,
    WrittenCode, collect_requirements, written_code,
};

/// `LANDLOCK_ACCESS_FS_EXECUTE` and `LANDLOCK_ACCESS_FS_REFER`, as in the kernel's `linux/landlock.h`.
const ACCESS_FS_EXECUTE: u64 = 1;
const ACCESS_FS_REFER: u64 = 1 << 13;

/// Paths that commands can write, in every sandbox.
const WRITABLE_PATHS: &[&str] = &[WORKSPACE_PATH, "/tmp", "/var/tmp", "/dev/shm", "/cache"];

/// The provider of the isolation layers around the init.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum IsolationProvider {
    /// The init itself: mounts that commands can write are noexec if the list requires that.
    Own,
    /// A container engine; its mounts cannot be changed.
    Engine,
}

/// The list, as the kernel enforces it.
pub(super) struct ProgramList {
    list: Vec<String>,
    env: Vec<(RawBytes, RawBytes)>,
    written: WrittenCode,
    writable: Vec<PathBuf>,
    base: Rc<OwnedFd>,
    /// Rulesets for commands with which Forge starts more than the list, by their additional programs.
    more: HashMap<Vec<RawBytes>, Rc<OwnedFd>>,
    judge: ExecPolicy,
    provider: IsolationProvider,
}

impl ProgramList {
    /// Finds the programs; `None` without a list. Adds the layer to the report, and entries that match nothing to
    /// `warnings`.
    pub(super) fn resolve(
        spec: &JailSpec,
        walls: IsolationProvider,
        layers: &mut Vec<LayerReport>,
        warnings: &mut Vec<String>,
    ) -> Result<Option<Self>, InitSetupError> {
        let Some(list) =
            spec.programs.clone().filter(|_| !spec.lacks_protection(DisabledProtection::ProgramList))
        else {
            return Ok(None);
        };
        check_support()?;
        let found = ProgramFinder::new(&spec.env)
            .find_programs(&list, &[])
            .step_context("finding the listed programs")?;
        let written = written_code(Some(&list));
        let writable: Vec<PathBuf> = spec.writable.iter().map(|bind| bind.target.clone()).collect();
        warnings.extend(found.warnings.iter().cloned());
        warnings.extend(describe_written_code(&list, written));
        let how = format!("{} files by Landlock, loaders by a call filter", found.files.len());
        layers.push(LayerReport::enforced(IsolationLayer::ProgramList, how));
        let base =
            build_ruleset(&found, written, &writable).step_context("making the rules for listed programs")?;
        Ok(Some(Self {
            list,
            env: spec.env.clone(),
            written,
            writable,
            base: Rc::new(base),
            more: HashMap::new(),
            judge: ExecPolicy::new(&found),
            provider: walls,
        }))
    }

    /// Starts to check every `execve` of this process's children. Call it before the first command starts and after the
    /// signals to wait for are blocked: the checking thread inherits the mask.
    pub(super) fn watch_exec(&self) -> io::Result<()> {
        // Where commands may execute files they have written, loading them reveals nothing new.
        if self.written == WrittenCode::Executed {
            return Ok(());
        }
        let mapped = self.provider == IsolationProvider::Engine && self.written == WrittenCode::None;
        broker::start_broker(self.judge.clone(), mapped)
    }

    /// Returns the additional system call rules for commands.
    pub(super) fn call_rules(&self) -> &'static [forge_seccomp::SyscallRule] {
        if self.written == WrittenCode::Executed { &[] } else { forge_seccomp::LISTED_PROGRAMS }
    }

    /// Returns the rules for a command. Only Forge itself may add programs to the list, never the model.
    pub(super) fn ruleset_for(&mut self, exec: &JailCommand) -> io::Result<Rc<OwnedFd>> {
        if exec.also.is_empty() {
            return Ok(Rc::clone(&self.base));
        }
        if let Some(known) = self.more.get(&exec.also) {
            return Ok(Rc::clone(known));
        }
        let also: Vec<String> = exec.also.iter().map(ToString::to_string).collect();
        let found = ProgramFinder::new(&self.env).find_programs(&self.list, &also)?;
        let rules = Rc::new(build_ruleset(&found, self.written, &self.writable)?);
        self.more.insert(exec.also.clone(), Rc::clone(&rules));
        Ok(rules)
    }

    /// Returns whether the init may start this path under this name: multi-call binaries only under listed names.
    pub(super) fn may_start(&self, path: &Path, name: &[u8]) -> bool {
        self.judge.may_start_as(path, name)
    }
}

/// Describes the written code that a list allows, as a warning.
fn describe_written_code(list: &[String], written: WrittenCode) -> Option<String> {
    let what = match written {
        WrittenCode::None => return None,
        WrittenCode::Loaded => "so libraries that commands wrote can be loaded",
        WrittenCode::Executed => "so whatever commands wrote can be executed",
    };
    let needs = collect_requirements(list).into_iter().find(|needs| needs.written == written)?;
    Some(format!("`{}` in the program list: {}, {what}", needs.names.first()?, needs.why))
}

/// Checks that this kernel can enforce a list.
fn check_support() -> Result<(), InitSetupError> {
    let lacking = |step: &str, errno| {
        Err(io::Error::from_raw_os_error(errno)).layer_context(IsolationLayer::ProgramList, step)
    };
    if sys::landlock_abi() == 0 {
        return lacking("holding the list of programs: the kernel has no Landlock", libc::EOPNOTSUPP);
    }
    // The memory of a command is read when it is about to execute a program.
    let yama = std::fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").unwrap_or_default();
    if matches!(yama.trim(), "2" | "3") {
        return lacking("holding the list of programs: kernel.yama.ptrace_scope is above 1", libc::EPERM);
    }
    Ok(())
}

/// Builds the rules that allow only the found programs to be executed.
fn build_ruleset(found: &AllowedPrograms, written: WrittenCode, writable: &[PathBuf]) -> io::Result<OwnedFd> {
    // Every Landlock layer that does not explicitly allow it forbids moving files between directories.
    let refer = if sys::landlock_abi() >= 2 { ACCESS_FS_REFER } else { 0 };
    let rules = sys::landlock_ruleset(ACCESS_FS_EXECUTE | refer, 0, 0, 1)?;
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    if refer != 0 {
        let root = rustix::fs::open(c"/", flags, Mode::empty())?;
        sys::landlock_allow(rules.as_fd(), refer, root.as_fd())?;
    }
    for file in &found.files {
        sys::landlock_allow(rules.as_fd(), ACCESS_FS_EXECUTE, file.fd.as_fd())?;
    }
    for directory in &found.directories {
        sys::landlock_allow(rules.as_fd(), ACCESS_FS_EXECUTE, directory.as_fd())?;
    }
    if written == WrittenCode::Executed {
        let places = WRITABLE_PATHS.iter().map(PathBuf::from).chain(writable.iter().cloned());
        for place in places {
            match rustix::fs::open(&place, flags, Mode::empty()) {
                Ok(place) => sys::landlock_allow(rules.as_fd(), ACCESS_FS_EXECUTE, place.as_fd())?,
                Err(rustix::io::Errno::NOENT) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
    Ok(rules)
}
