//! The root directory of another system, checked before a sandbox is built on it.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};

use crate::elf::read_elf_machine;
use crate::protocol::error::Error;

/// Programs of which every usable system has at least one.
const COMMON_PROGRAMS: &[&str] = &["bin/sh", "usr/bin/env", "bin/busybox", "usr/bin/python3", "bin/bash"];

/// This machine's number in an ELF header.
#[cfg(target_arch = "x86_64")]
const ELF_MACHINE: u16 = 62;
#[cfg(target_arch = "aarch64")]
const ELF_MACHINE: u16 = 183;

/// Opens the root directory of an image.
pub(crate) fn open_image(root: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(CWD, root, flags, Mode::empty())?)
}

/// Opens a path as a program inside would: links in the image never lead out of it.
pub(crate) fn open_inside(
    root: impl AsFd,
    path: impl rustix::path::Arg,
    flags: OFlags,
) -> io::Result<OwnedFd> {
    let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    Ok(rustix::fs::openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), how)?)
}

/// Checks that the image exists and is built for this machine.
///
/// # Errors
/// [`Error::Image`] with the problem and a possible remedy.
pub(crate) fn check_image(root: &Path) -> Result<(), Error> {
    let wrong = |why: String| Error::Image { why };
    let folder = open_image(root).map_err(|error| {
        wrong(format!("{}: {error}; build it first, or name another one", root.display()))
    })?;
    for program in COMMON_PROGRAMS {
        let Ok(found) = open_inside(&folder, *program, OFlags::RDONLY | OFlags::NONBLOCK) else { continue };
        let Some(machine) = read_elf_machine(&File::from(found)) else { continue };
        if machine != ELF_MACHINE {
            let (theirs, ours) = (machine_name(machine), machine_name(ELF_MACHINE));
            return Err(wrong(format!(
                "{} is made for {theirs}, this machine is {ours}; use an image built for {ours}",
                root.display()
            )));
        }
        return Ok(());
    }
    // No program to tell by, as in an image of data or scripts: a program that cannot run reports that itself.
    Ok(())
}

fn machine_name(machine: u16) -> String {
    match machine {
        3 => "32-bit x86".to_owned(),
        40 => "32-bit ARM".to_owned(),
        62 => "x86-64".to_owned(),
        183 => "aarch64".to_owned(),
        243 => "RISC-V".to_owned(),
        21 => "64-bit PowerPC".to_owned(),
        22 => "s390x".to_owned(),
        other => format!("another machine (ELF number {other})"),
    }
}
