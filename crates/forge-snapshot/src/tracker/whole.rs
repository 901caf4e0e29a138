//! Looking at a workspace that holds everything: a copy of the repository, or the repository itself.

use super::known::is_racy;
use super::scan::Scan;
use crate::base::Item;
use crate::error::Error;
use crate::host::{self, Kind, Stamp};
use crate::walk::{Below, Denied, Folder, Threads, walk};
use rustix::fs::OFlags;
use std::io;
use std::os::fd::AsFd;

/// An error of the walk itself, or one that names its place.
pub(super) enum Fault {
    Walk(io::Error),
    Placed(Error),
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Walk(error)
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Placed(error)
    }
}

impl Fault {
    pub(super) fn placed(self, scan: &Scan<'_>) -> Error {
        match self {
            Self::Walk(error) => Error::io("read", scan.tracker.place(), error),
            Self::Placed(error) => error,
        }
    }
}

/// Finds what differs from what was seen at the beginning, by stamps, then by contents.
pub(super) fn look(scan: &Scan<'_>) -> Result<(), Error> {
    let threads = if scan.tracker.seen.len() > 2_000 { Threads::Two } else { Threads::One };
    walk(&scan.tracker.root, (), Denied::Force, threads, &scan.walked, &|folder| visit(scan, folder))
        .map_err(|fault: Fault| fault.placed(scan))?;
    // A name that moved with its folder leaves no trace at the file's other names.
    for number in scan.linked_to_touched() {
        let path = scan.tracker.seen.path(number);
        if scan.knows(&path) || scan.tracker.is_ignored(&path) {
            continue;
        }
        let Some((parent, name)) = host::split(&path) else { continue };
        let shown = scan.shown(&path);
        let found = host::open_below(scan.tracker.root.as_fd(), parent, OFlags::PATH | host::FOLDER)
            .and_then(|folder| Ok((Stamp::of(&folder, name)?, folder)));
        match found {
            Ok((stamp, folder)) => {
                let node = scan.node(folder.as_fd(), name, &path, &stamp)?;
                scan.put(path, node)?;
            }
            // It went since the walk, or lies where only a walk gets.
            Err(error) if host::is_absent(&error) || host::is_denied(&error) => {}
            Err(error) => return Err(Error::io("read", &shown, error)),
        }
    }
    Ok(())
}

fn visit(scan: &Scan<'_>, folder: Folder<'_, ()>) -> Result<Below<()>, Fault> {
    let seen = &scan.tracker.seen;
    let mut below = Vec::new();
    let listing = folder.listing.unwrap_or_default();
    // Both are sorted by name.
    let mut before = seen.children(folder.path).peekable();
    for (name, stamp) in listing.iter() {
        while let Some((gone, _)) = before.next_if(|(seen, _)| *seen < name) {
            scan.gone(&folder.path.join(gone))?;
        }
        let was = before.next_if(|(seen, _)| *seen == name).map(|(_, item)| item);
        if stamp.kind != Kind::Dir && was.is_some_and(|was| was.matches(stamp) && !is_racy_here(scan, &was)) {
            continue;
        }
        let path = folder.path.join(name);
        if scan.skips(&path, name) {
            continue;
        }
        // A content that was never learned could not be compared: the stamp is the best there is.
        if stamp.kind == Kind::File && was.is_some_and(|was| was.matches(stamp)) && !scan.knows_was(&path) {
            continue;
        }
        if was.is_some_and(|was| was.kind == Kind::Dir) != (stamp.kind == Kind::Dir) {
            scan.gone(&path)?;
        }
        if !was.is_some_and(|was| stamp.kind == Kind::Dir && was.matches(stamp)) {
            let node = scan.node(folder.fd.as_fd(), name, &path, stamp)?;
            scan.put(path.clone(), node)?;
        }
        // What was in a folder that could not be read is not known, so no difference can be told.
        if stamp.kind == Kind::Dir && was.is_none_or(|was| was.kind != Kind::Dir || was.readable) {
            below.push((name.into(), ()));
        }
    }
    for (gone, _) in before {
        scan.gone(&folder.path.join(gone))?;
    }
    Ok(below)
}

/// Whether the same stamp may hide a change, made in the same moment as the one before it.
fn is_racy_here(scan: &Scan<'_>, was: &Item) -> bool {
    is_racy(was.ctime_ns, scan.tracker.seen.taken_ns())
}
