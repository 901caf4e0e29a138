//! The clean-up after a killed apply.
//!
//! The name of a temporary identifies its path, see [`TempNames`]. Replaced or removed files, which are kept until the
//! end, have names of [`TempKind::Old`], or the new file's name after an exchange.

use super::check::open_directory;
use super::error::{ApplyContext, Error};
use crate::bounds::{BoundedTally, WorkBounds};
use crate::compare::{ContentSources, TreeChange};
use crate::host::{self, DIR_OPEN_FLAGS, FileStamp, NodeKind};
use crate::walk::DirListing;
use crate::{RelPath, TreeNode};
use forge_tree::temp_names::{TempKind, TempNames, path_tag};
use forge_types::Digest;
use rustix::fs::{AtFlags, RenameFlags};
use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// Returns the ancestors of a path, nearest first.
pub(super) fn ancestor_dirs(path: &RelPath) -> impl Iterator<Item = RelPath> {
    std::iter::successors(path.parent(), RelPath::parent)
}

/// Removes the run's stale temporaries next to the paths of `differences`. A kept file is restored if its path does not exist
/// but should; the replaced contents are stored and returned.
pub(super) fn clear_stale_temps(
    place: &ContentSources<'_>,
    root: &OwnedFd,
    temps: &TempNames,
    differences: &[TreeChange],
) -> Result<HashMap<RelPath, Digest>, Error> {
    let mut learned = HashMap::new();
    let mut by_tag = None;
    for path in parent_dirs(differences) {
        place.bounds.check_stopped()?;
        let path = &path;
        let open = match host::open_below(root.as_fd(), path.as_bytes(), DIR_OPEN_FLAGS) {
            Ok(open) => open,
            Err(error) if host::is_absent(&error) || host::is_denied(&error) => continue,
            Err(error) => return Err(error).apply_context("read", &place.repository.join(path.as_path())),
        };
        let at = || place.repository.join(path.as_path());
        let names = stale_temp_names(&open, temps).apply_context("read", &at())?;
        for (name, stamp) in names {
            let by_tag = by_tag.get_or_insert_with(|| {
                differences.iter().map(|d| (path_tag(&d.path), d)).collect::<HashMap<String, &TreeChange>>()
            });
            let Some((kind, tag)) = temps.parse(&name) else { continue };
            let difference = by_tag.get(tag).copied();
            let old = kind == TempKind::Old;
            let left = StaleTemp { sources: place, root, directory: &open, name: &name, stamp, old };
            let shown = || at().join(std::ffi::OsStr::from_bytes(&name));
            if let Some(digest) = left.clear_temp(difference).apply_context("clear", &shown())? {
                learned.extend(difference.map(|d| (d.path.clone(), digest)));
            }
        }
    }
    Ok(learned)
}

/// Returns the ancestors of the paths of `differences`, each before its contents. Lazy, because in deep trees they
/// are many times as long as the paths. May repeat.
fn parent_dirs(differences: &[TreeChange]) -> impl Iterator<Item = RelPath> {
    let mut last: Option<RelPath> = None;
    differences.iter().flat_map(move |difference| {
        let before = last.take();
        let known = |folder: &RelPath| before.as_ref().is_some_and(|before| before.is_below(folder));
        let mut lengths: Vec<usize> = ancestor_dirs(&difference.path)
            .take_while(|folder| !known(folder))
            .map(|f| f.as_bytes().len())
            .collect();
        last = difference.path.parent();
        lengths.reverse();
        let path = difference.path.clone();
        lengths.into_iter().filter_map(move |length| RelPath::new(&path.as_bytes()[..length]))
    })
}

fn stale_temp_names(folder: &OwnedFd, temps: &TempNames) -> io::Result<Vec<(Vec<u8>, FileStamp)>> {
    let mut found = Vec::new();
    let mut buffer = Vec::with_capacity(32 << 10);
    let mut entries = rustix::fs::RawDir::new(folder, buffer.spare_capacity_mut());
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = std::ffi::OsStr::from_bytes(entry.file_name().to_bytes());
        if temps.contains(name.as_bytes()) {
            found.push((name.as_bytes().to_vec(), FileStamp::stat_at(folder, name)?));
        }
    }
    Ok(found)
}

/// A stale temporary.
struct StaleTemp<'a> {
    sources: &'a ContentSources<'a>,
    root: &'a OwnedFd,
    directory: &'a OwnedFd,
    name: &'a [u8],
    stamp: FileStamp,
    /// Whether the temporary is certainly the original file.
    old: bool,
}

impl StaleTemp<'_> {
    /// Returns the digest of the temporary's content if it is the original file of `difference`.
    fn clear_temp(&self, difference: Option<&TreeChange>) -> io::Result<Option<Digest>> {
        let mut learned = None;
        if let Some(difference) = difference {
            let now = FileStamp::stat_below(self.root, &difference.path)?;
            if self.old && now.is_none() && (difference.after.is_some() || self.is_occupied()?) {
                self.restore_to(&difference.path)?;
                return Ok(None);
            }
            // After an exchange, the path has the new content and this temporary the old one.
            let done = self.old || now.is_some_and(|now| self.is_after(&now, difference));
            if done && self.stamp.kind == NodeKind::File {
                let file = host::open_file(self.directory, self.name)?;
                let digest = self
                    .sources
                    .objects
                    .store_file(&file, self.stamp.size, self.sources.bounds)
                    .map_err(io::Error::other)?;
                learned = Some(digest);
            }
        }
        if self.stamp.kind != NodeKind::Dir {
            rustix::fs::unlinkat(self.directory, self.name, AtFlags::empty())?;
        } else if !self.old {
            remove_tree(self.directory, self.name)?;
        } else if !self.is_occupied()? {
            rustix::fs::unlinkat(self.directory, self.name, AtFlags::REMOVEDIR)?;
        }
        Ok(learned)
    }

    fn is_after(&self, now: &FileStamp, difference: &TreeChange) -> bool {
        match &difference.after {
            Some(TreeNode::File { size, mode, .. }) => {
                (now.kind, now.size, now.mode) == (NodeKind::File, *size, *mode)
            }
            Some(TreeNode::Symlink { .. }) => now.kind == NodeKind::Symlink,
            Some(TreeNode::Dir { .. }) => now.kind == NodeKind::Dir,
            Some(TreeNode::Fifo { .. }) => now.kind == NodeKind::Fifo,
            None => false,
        }
    }

    fn is_occupied(&self) -> io::Result<bool> {
        if self.stamp.kind != NodeKind::Dir {
            return Ok(false);
        }
        let folder = host::open_below(self.directory.as_fd(), self.name, DIR_OPEN_FLAGS)?;
        let tally = BoundedTally::of_tree(self.sources.bounds, self.sources.repository);
        Ok(!DirListing::read(&folder, &tally)?.items.is_empty())
    }

    fn restore_to(&self, path: &RelPath) -> io::Result<()> {
        let Some((parent, name)) = host::split_path(path) else { return Ok(()) };
        let to = match open_directory(self.root, parent) {
            Ok(to) => to,
            Err(error) if host::is_absent(&error) => return Ok(()),
            Err(error) => return Err(error),
        };
        Ok(rustix::fs::renameat_with(self.directory, self.name, to, name, RenameFlags::NOREPLACE)?)
    }
}

/// Removes a directory of Forge recursively: as root, only what belongs to the owner of the directory around it, as all
/// temporaries do. Anyone who may rename entries there can give another directory this name.
pub(super) fn remove_tree(parent: &OwnedFd, name: &[u8]) -> io::Result<()> {
    // An empty one may still be root's: an apply that was killed had not given it its owner yet.
    let is_removed =
        |parent: &OwnedFd, name: &[u8]| rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR).is_ok();
    if is_removed(parent, name) {
        return Ok(());
    }
    let mut open = vec![EmptiedDir::new(parent, name)?];
    while let Some(last) = open.last_mut() {
        if let Some(below) = last.subdirs.pop() {
            if !is_removed(&last.directory, &below) {
                let next = EmptiedDir::new(&last.directory, &below)?;
                open.push(next);
            }
            continue;
        }
        let own = std::mem::take(&mut last.name);
        open.pop();
        let above = open.last().map_or(parent, |above| &above.directory);
        rustix::fs::unlinkat(above, own.as_slice(), AtFlags::REMOVEDIR)?;
    }
    Ok(())
}

/// A directory that contains only directories.
struct EmptiedDir {
    directory: OwnedFd,
    name: Vec<u8>,
    subdirs: Vec<Vec<u8>>,
}

impl EmptiedDir {
    fn new(parent: &OwnedFd, name: &[u8]) -> io::Result<Self> {
        let (place, stamp) = host::open_path_fd(parent, name)?;
        let foreign = stamp.uid != FileStamp::stat_open(parent)?.uid;
        if foreign && rustix::process::geteuid().is_root() {
            return Err(io::Error::other(
                "it belongs to another user than the directory around it, so it is no temporary of forge; move it away",
            ));
        }
        if stamp.mode & 0o700 != 0o700 {
            host::set_mode(&place, 0o700)?;
        }
        let folder = host::open_below(place.as_fd(), b"", DIR_OPEN_FLAGS)?;
        let mut folders = Vec::new();
        for (name, stamp) in
            DirListing::read(&folder, &BoundedTally::of_tree(WorkBounds::unbounded(), Path::new("")))?.iter()
        {
            if stamp.kind == NodeKind::Dir {
                folders.push(name.to_vec());
            } else {
                rustix::fs::unlinkat(&folder, name, AtFlags::empty())?;
            }
        }
        Ok(Self { directory: folder, name: name.to_vec(), subdirs: folders })
    }
}
