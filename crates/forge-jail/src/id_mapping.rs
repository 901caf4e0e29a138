//! User namespaces that serve only as mappings of ids: for a mount, they show files of one owner as those of another.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

use crate::sys::{self, ForkSide};

/// Creates a user namespace with the mapping `disk -> shown` for one user and one group. Creating it needs a process,
/// which ends as soon as the descriptor is open.
pub(crate) fn create_mapping(user: (u32, u32), group: (u32, u32)) -> io::Result<OwnedFd> {
    let (namespace, child) = create_unreaped_mapping(user, group)?;
    sys::reap(child, 0)?;
    Ok(namespace)
}

/// Creates a mapping like [`create_mapping`] and returns the process it was created in: killed, but not yet reaped.
pub(crate) fn create_unreaped_mapping(user: (u32, u32), group: (u32, u32)) -> io::Result<(OwnedFd, i32)> {
    let child = match sys::fork(libc::CLONE_NEWUSER)? {
        ForkSide::Child => loop {
            // Waits to be killed; if the parent dies first, so does this process.
            let gone = sys::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong, 0).is_err();
            if gone || rustix::process::getppid().is_none() {
                sys::exit_now(0);
            }
            sys::pause();
        },
        ForkSide::Parent(pid) => pid,
    };
    let opened = write_child_maps(child, user, group);
    sys::kill(child, libc::SIGKILL);
    opened.map(|namespace| (namespace, child))
}

fn write_child_maps(child: i32, user: (u32, u32), group: (u32, u32)) -> io::Result<OwnedFd> {
    std::fs::write(format!("/proc/{child}/uid_map"), format!("{} {} 1", user.0, user.1))?;
    std::fs::write(format!("/proc/{child}/gid_map"), format!("{} {} 1", group.0, group.1))?;
    Ok(File::open(format!("/proc/{child}/ns/user"))?.into())
}
