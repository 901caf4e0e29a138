//! Scan of a complete workspace: a copy of the repository, or the repository itself.

use super::digest_cache::is_racy;
use super::scan::WorkspaceScan;
use crate::base::BaseItem;
use crate::error::Error;
use crate::host::{self, FileStamp, NodeKind};
use crate::walk::{OnDenied, SubdirVisits, VisitedDir, WalkThreads, walk_tree};
use rustix::fs::OFlags;
use std::io;
use std::os::fd::AsFd;

/// An error of the walk itself, or an error with a path.
pub(super) enum ScanError {
    Walk(io::Error),
    Placed(Error),
}

impl From<io::Error> for ScanError {
    fn from(error: io::Error) -> Self {
        Self::Walk(error)
    }
}

impl From<Error> for ScanError {
    fn from(error: Error) -> Self {
        Self::Placed(error)
    }
}

impl ScanError {
    pub(super) fn into_error(self, scan: &WorkspaceScan<'_>) -> Error {
        match self {
            Self::Walk(error) => Error::from_io("read", scan.tracker.workspace_path(), error),
            Self::Placed(error) => error,
        }
    }
}

/// Finds the differences from the unmodified workspace, by stamps, then by contents.
pub(super) fn scan_directory(scan: &WorkspaceScan<'_>) -> Result<(), Error> {
    let threads = if scan.tracker.seen.len() > 2_000 { WalkThreads::Two } else { WalkThreads::One };
    walk_tree(scan.tracker.root.fd(), (), OnDenied::Force, threads, &scan.walked, &|folder| {
        visit_directory(scan, folder)
    })
    .map_err(|fault: ScanError| fault.into_error(scan))?;
    // A name that moved with its directory leaves no trace at the file's other names.
    for number in scan.linked_to_changed() {
        let path = scan.tracker.seen.path_of(number);
        if scan.has_recorded(&path) || scan.tracker.is_ignored(&path) {
            continue;
        }
        let Some((parent, name)) = host::split_path(&path) else { continue };
        let shown = scan.display_path(&path);
        let found = host::open_below(scan.tracker.root.as_fd(), parent, OFlags::PATH | host::DIR_OPEN_FLAGS)
            .and_then(|folder| Ok((FileStamp::stat_at(&folder, name)?, folder)));
        match found {
            Ok((stamp, folder)) => {
                let node = scan.read_node(folder.as_fd(), name, &path, &stamp)?;
                scan.record_node(path, node)?;
            }
            // The file disappeared since the walk, or only the walk can reach it.
            Err(error) if host::is_absent(&error) || host::is_denied(&error) => {}
            Err(error) => return Err(Error::from_io("read", &shown, error)),
        }
    }
    Ok(())
}

fn visit_directory(
    scan: &WorkspaceScan<'_>,
    folder: VisitedDir<'_, ()>,
) -> Result<SubdirVisits<()>, ScanError> {
    let seen = &scan.tracker.seen;
    let mut below = Vec::new();
    let listing = folder.listing.unwrap_or_default();
    // Both are sorted by name.
    let mut before = seen.children(folder.path).peekable();
    for (name, stamp) in listing.iter() {
        while let Some((gone, _)) = before.next_if(|(seen, _)| *seen < name) {
            scan.record_removal(&folder.path.join(gone))?;
        }
        let was = before.next_if(|(seen, _)| *seen == name).map(|(_, item)| item);
        if stamp.kind != NodeKind::Dir
            && was.is_some_and(|was| was.matches_stamp(stamp) && !is_racy_here(scan, &was))
        {
            continue;
        }
        let path = folder.path.join(name);
        if scan.tracker.is_ignored(&path) {
            continue;
        }
        // An unknown content cannot be compared: the stamp is the best evidence.
        if stamp.kind == NodeKind::File
            && was.is_some_and(|was| was.matches_stamp(stamp))
            && !scan.knows_base_content(&path)
        {
            continue;
        }
        if was.is_some_and(|was| was.kind == NodeKind::Dir) != (stamp.kind == NodeKind::Dir) {
            scan.record_removal(&path)?;
        }
        if !was.is_some_and(|was| stamp.kind == NodeKind::Dir && was.matches_stamp(stamp)) {
            let node = scan.read_node(folder.fd.as_fd(), name, &path, stamp)?;
            scan.record_node(path.clone(), node)?;
        }
        // The contents of an unreadable directory are unknown, so no difference can be reported.
        if stamp.kind == NodeKind::Dir && was.is_none_or(|was| was.kind != NodeKind::Dir || was.readable) {
            below.push((name.into(), ()));
        }
    }
    for (gone, _) in before {
        scan.record_removal(&folder.path.join(gone))?;
    }
    Ok(below)
}

/// Returns whether an equal stamp may hide a change within the same clock tick.
fn is_racy_here(scan: &WorkspaceScan<'_>, was: &BaseItem) -> bool {
    is_racy(was.ctime_ns, scan.tracker.seen.scanned_at_ns())
}
