//! Separation of the commands of one sandbox: each starts in a Landlock domain of its own.
//!
//! Commands share one user id. A process may access another one of the same user: open its streams, its memory and its
//! files through `/proc/PID`. Landlock refuses that unless the process is in the other one's domain or an enclosing
//! one, so the init sees all commands, a command sees the processes it started, and no command sees another one. The
//! processes that a command leaves running may not signal those of later commands either; the reverse is allowed, so
//! they can be ended.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::{Mode, OFlags};

use crate::sys;
use forge_jail_protocol::{BackgroundProcesses, DisabledProtection, JailSpec};

/// Rights that a domain must handle to be valid: creating block devices, which no process may, and moving files between
/// directories, which a domain that does not handle this right forbids.
const ACCESS_FS_MAKE_BLOCK: u64 = 1 << 11;
const ACCESS_FS_REFER: u64 = 1 << 13;
/// Scope that confines signals to the domain.
const SCOPE_SIGNAL: u64 = 2;

/// The two domains that commands start in, created once.
#[derive(Debug)]
pub(super) struct CommandDomains {
    foreground: OwnedFd,
    /// For commands that leave processes running.
    background: OwnedFd,
}

impl CommandDomains {
    /// Creates the domains; `None` where the kernel has no Landlock (the layer's report shows that) or a protection is
    /// left out.
    pub(super) fn new(spec: &JailSpec) -> io::Result<Option<Self>> {
        let open =
            [DisabledProtection::Siblings, DisabledProtection::Landlock, DisabledProtection::NoNewPrivs];
        let abi = sys::landlock_abi();
        if abi == 0 || open.iter().any(|weakness| spec.lacks_protection(*weakness)) {
            return Ok(None);
        }
        let scope = if abi >= 6 { SCOPE_SIGNAL } else { 0 };
        Ok(Some(Self { foreground: create_domain(abi, 0)?, background: create_domain(abi, scope)? }))
    }

    /// Returns the ruleset for a command.
    pub(super) fn ruleset_for(&self, leftovers: BackgroundProcesses) -> i32 {
        match leftovers {
            BackgroundProcesses::Kill => self.foreground.as_raw_fd(),
            BackgroundProcesses::LeaveRunning => self.background.as_raw_fd(),
        }
    }
}

fn create_domain(abi: u32, scope: u64) -> io::Result<OwnedFd> {
    let handled = if abi >= 2 { ACCESS_FS_MAKE_BLOCK | ACCESS_FS_REFER } else { ACCESS_FS_MAKE_BLOCK };
    let words = if abi >= 6 { 3 } else { 1 };
    let ruleset = sys::landlock_ruleset(handled, 0, scope, words)?;
    if abi >= 2 {
        let root = rustix::fs::open(c"/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        sys::landlock_allow(ruleset.as_fd(), ACCESS_FS_REFER, root.as_fd())?;
    }
    Ok(ruleset)
}
