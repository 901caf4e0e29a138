//! Temporary names: how they are made, and what is done with those of an apply that was killed.
//!
//! The name of a temporary says for which path it is. What is new begins with [`NEW`]; what was replaced or removed,
//! and is held until the end, with [`OLD`], or stands under the new one's name if both were exchanged.

use super::check::folder;
use super::error::{Doing, Error};
use super::stage::above;
use crate::bounds::{Bounds, Tally};
use crate::compare::{Difference, Sources};
use crate::host::{self, FOLDER, Kind, Stamp};
use crate::walk::Listing;
use crate::{Node, RelPath};
use forge_types::Digest;
use rustix::fs::{AtFlags, RenameFlags};
use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

pub(super) const NEW: &str = ".forge-tmp-apply-new-";
pub(super) const OLD: &str = ".forge-tmp-apply-old-";

/// The temporary of `path`, in `folder`.
pub(super) fn temporary(prefix: &str, folder: &RelPath, path: &RelPath) -> RelPath {
    folder.join(format!("{prefix}{}", tag(path)).as_bytes())
}

fn tag(path: &RelPath) -> String {
    Digest::of(path.as_bytes()).to_string()[..24].to_owned()
}

/// Clears what an apply that was killed left beside the paths of `differences`. What it held aside is put back if
/// nothing stands at its path and something should; the contents it had replaced are stored and returned.
pub(super) fn clear(
    place: &Sources<'_>,
    root: &OwnedFd,
    differences: &[Difference],
) -> Result<HashMap<RelPath, Digest>, Error> {
    let mut learned = HashMap::new();
    let mut by_tag = None;
    for path in folders(differences) {
        place.bounds.check()?;
        let path = &path;
        let open = match host::open_below(root.as_fd(), path.as_bytes(), FOLDER) {
            Ok(open) => open,
            Err(error) if host::is_absent(&error) || host::is_denied(&error) => continue,
            Err(error) => return Err(error).doing("read", &place.repository.join(path.as_path())),
        };
        let at = || place.repository.join(path.as_path());
        let names = names(&open).doing("read", &at())?;
        for (name, stamp) in names {
            let by_tag = by_tag.get_or_insert_with(|| {
                differences.iter().map(|d| (tag(&d.path), d)).collect::<HashMap<String, &Difference>>()
            });
            let text = String::from_utf8_lossy(&name).into_owned();
            let (old, tag) = match (text.strip_prefix(OLD), text.strip_prefix(NEW)) {
                (Some(tag), _) => (true, tag),
                (_, Some(tag)) => (false, tag),
                _ => continue,
            };
            let difference = by_tag.get(tag).copied();
            let left = Left { place, root, folder: &open, name: &name, stamp, old };
            if let Some(digest) = left.clear(difference).doing("clear", &at().join(&text))? {
                learned.extend(difference.map(|d| (d.path.clone(), digest)));
            }
        }
    }
    Ok(learned)
}

/// The folders above the paths of `differences`, each before what is in it. Not all at once: in deep trees they are many
/// times as long as the paths. One may come more than once.
fn folders(differences: &[Difference]) -> impl Iterator<Item = RelPath> {
    let mut last: Option<RelPath> = None;
    differences.iter().flat_map(move |difference| {
        let before = last.take();
        let known = |folder: &RelPath| before.as_ref().is_some_and(|before| before.is_below(folder));
        let mut lengths: Vec<usize> =
            above(&difference.path).take_while(|folder| !known(folder)).map(|f| f.as_bytes().len()).collect();
        last = difference.path.parent();
        lengths.reverse();
        let path = difference.path.clone();
        lengths.into_iter().filter_map(move |length| RelPath::new(&path.as_bytes()[..length]))
    })
}

fn names(folder: &OwnedFd) -> io::Result<Vec<(Vec<u8>, Stamp)>> {
    use std::os::unix::ffi::OsStrExt as _;
    let mut found = Vec::new();
    let mut buffer = Vec::with_capacity(32 << 10);
    let mut entries = rustix::fs::RawDir::new(folder, buffer.spare_capacity_mut());
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = std::ffi::OsStr::from_bytes(entry.file_name().to_bytes());
        if name.as_bytes().starts_with(OLD.as_bytes()) || name.as_bytes().starts_with(NEW.as_bytes()) {
            found.push((name.as_bytes().to_vec(), Stamp::of(folder, name)?));
        }
    }
    Ok(found)
}

/// One leftover.
struct Left<'a> {
    place: &'a Sources<'a>,
    root: &'a OwnedFd,
    folder: &'a OwnedFd,
    name: &'a [u8],
    stamp: Stamp,
    /// Whether it certainly is what stood there.
    old: bool,
}

impl Left<'_> {
    /// Returns the digest of its content if it is what stood at the path of `difference`.
    fn clear(&self, difference: Option<&Difference>) -> io::Result<Option<Digest>> {
        let mut learned = None;
        if let Some(difference) = difference {
            let now = Stamp::below(self.root, &difference.path)?;
            if self.old && now.is_none() && (difference.after.is_some() || self.holds_something()?) {
                self.put_back(&difference.path)?;
                return Ok(None);
            }
            // After an exchange the new content stands at the path, and this is the old one.
            let done = self.old || now.is_some_and(|now| self.is_after(&now, difference));
            if done && self.stamp.kind == Kind::File {
                let file = host::open_file(self.folder, self.name)?;
                let digest = self
                    .place
                    .objects
                    .put_file(&file, self.stamp.size, self.place.bounds)
                    .map_err(io::Error::other)?;
                learned = Some(digest);
            }
        }
        if self.stamp.kind != Kind::Dir {
            rustix::fs::unlinkat(self.folder, self.name, AtFlags::empty())?;
        } else if !self.old {
            remove_all(self.folder, self.name)?;
        } else if !self.holds_something()? {
            rustix::fs::unlinkat(self.folder, self.name, AtFlags::REMOVEDIR)?;
        }
        Ok(learned)
    }

    fn is_after(&self, now: &Stamp, difference: &Difference) -> bool {
        match &difference.after {
            Some(Node::File { size, mode, .. }) => {
                (now.kind, now.size, now.mode) == (Kind::File, *size, *mode)
            }
            Some(Node::Symlink { .. }) => now.kind == Kind::Symlink,
            Some(Node::Dir { .. }) => now.kind == Kind::Dir,
            Some(Node::Fifo { .. }) => now.kind == Kind::Fifo,
            None => false,
        }
    }

    fn holds_something(&self) -> io::Result<bool> {
        if self.stamp.kind != Kind::Dir {
            return Ok(false);
        }
        let folder = host::open_below(self.folder.as_fd(), self.name, FOLDER)?;
        let tally = Tally::of_tree(self.place.bounds, self.place.repository);
        Ok(!Listing::read(&folder, &tally)?.items.is_empty())
    }

    fn put_back(&self, path: &RelPath) -> io::Result<()> {
        let Some((parent, name)) = host::split(path) else { return Ok(()) };
        let to = match folder(self.root, parent) {
            Ok(to) => to,
            Err(error) if host::is_absent(&error) => return Ok(()),
            Err(error) => return Err(error),
        };
        Ok(rustix::fs::renameat_with(self.folder, self.name, to, name, RenameFlags::NOREPLACE)?)
    }
}

/// Removes a folder of our own with everything in it.
pub(super) fn remove_all(parent: &OwnedFd, name: &[u8]) -> io::Result<()> {
    let mut open = vec![Emptied::new(parent, name)?];
    while let Some(last) = open.last_mut() {
        if let Some(below) = last.folders.pop() {
            let next = Emptied::new(&last.folder, &below)?;
            open.push(next);
            continue;
        }
        let own = std::mem::take(&mut last.name);
        open.pop();
        let above = open.last().map_or(parent, |above| &above.folder);
        rustix::fs::unlinkat(above, own.as_slice(), AtFlags::REMOVEDIR)?;
    }
    Ok(())
}

/// A folder in which only folders are left.
struct Emptied {
    folder: OwnedFd,
    name: Vec<u8>,
    folders: Vec<Vec<u8>>,
}

impl Emptied {
    fn new(parent: &OwnedFd, name: &[u8]) -> io::Result<Self> {
        host::set_mode_at(parent, name, 0o700)?;
        let folder = host::open_below(parent.as_fd(), name, FOLDER)?;
        let mut folders = Vec::new();
        for (name, stamp) in Listing::read(&folder, &Tally::of_tree(Bounds::none(), Path::new("")))?.iter() {
            if stamp.kind == Kind::Dir {
                folders.push(name.to_vec());
            } else {
                rustix::fs::unlinkat(&folder, name, AtFlags::empty())?;
            }
        }
        Ok(Self { folder, name: name.to_vec(), folders })
    }
}
