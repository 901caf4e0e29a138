//! Removal of a tree through descriptors.

use crate::bounds::BoundedTally;
use crate::host::{DIR_OPEN_FLAGS, FileStamp, NodeKind, open_below, set_mode};
use crate::walk::DirListing;
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use std::io;
use std::os::fd::BorrowedFd;

/// Removes `name` recursively, regardless of the modes of directories that the current user owns. Calls `keep` with
/// paths below `name`, which begin with a slash, and preserves these paths and their ancestors.
pub fn remove_tree(
    folder: BorrowedFd<'_>,
    name: &[u8],
    keep: &dyn Fn(&[u8]) -> bool,
    tally: &BoundedTally<'_>,
) -> io::Result<()> {
    match rustix::fs::unlinkat(folder, name, AtFlags::empty()) {
        Err(Errno::ISDIR) => {}
        // Some file systems return this for directories.
        Err(Errno::PERM) if FileStamp::stat_at(folder, name)?.kind == NodeKind::Dir => {}
        done => return Ok(done?),
    }
    // Paths below `name`, each beginning with a slash. A directory is visited again, empty, after its contents.
    let mut waiting = vec![(Vec::new(), false)];
    while let Some((path, emptied)) = waiting.pop() {
        tally.bounds().check_stopped()?;
        let (parent, last): (&[u8], &[u8]) = match path.iter().rposition(|b| *b == b'/') {
            Some(at) => (&path[..at], &path[at + 1..]),
            None => (b"", name),
        };
        let whole = [name, parent].concat();
        let around = match path.is_empty() {
            true => folder.try_clone_to_owned()?,
            false => open_below(folder, &whole, OFlags::PATH | DIR_OPEN_FLAGS)?,
        };
        match rustix::fs::unlinkat(&around, last, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => continue,
            Err(Errno::NOTEMPTY | Errno::EXIST) if emptied => continue,
            Err(Errno::NOTEMPTY | Errno::EXIST | Errno::ACCESS) if !emptied => {}
            Err(error) => return Err(error.into()),
        }
        let place = rustix::fs::openat(&around, last, OFlags::PATH | DIR_OPEN_FLAGS, Mode::empty())?;
        if FileStamp::stat_open(&place)?.mode & 0o700 != 0o700 {
            set_mode(&place, 0o700)?;
        }
        let inside = rustix::fs::openat(&around, last, DIR_OPEN_FLAGS, Mode::empty())?;
        let listing = DirListing::read(&inside, tally)?;
        waiting.push((path.clone(), true));
        for (entry, stamp) in listing.iter() {
            let below = [path.as_slice(), b"/", entry].concat();
            if keep(&below) {
                continue;
            }
            if stamp.kind == NodeKind::Dir {
                waiting.push((below, false));
            } else {
                rustix::fs::unlinkat(&inside, entry, AtFlags::empty())?;
            }
        }
    }
    Ok(())
}
