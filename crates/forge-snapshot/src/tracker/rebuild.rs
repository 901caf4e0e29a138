//! Making a plan's things stand on disk: what is in the way goes, deepest first; what is missing is made under a
//! temporary name and renamed, folders before what is in them; modes of folders come last.

mod hands;

use super::want::{Group, Mark, Plan, Spot, Thing};
use super::{Attributes, Layout, Tracker};
use crate::base;
use crate::bounds::Tally;
use crate::copy;
use crate::error::{During, Error};
use crate::host::{self, Kind, Stamp};
use crate::node::{Node, RelPath};
use forge_types::Digest;
use hands::Hands;
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;
use std::collections::HashMap;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Makes the workspace what the plan wants.
pub(super) fn rebuild(tracker: &Tracker, plan: Plan) -> Result<(), Error> {
    let Plan { mut spots, anchors, mut leftovers, attributes } = plan;
    let mut work = Work { tracker, hands: Hands::new(tracker), anchors, attributes };
    leftovers.sort_unstable();
    for path in leftovers.iter().rev() {
        work.remove(path)?;
    }
    work.judge_links(&mut spots)?;
    for (path, spot) in spots.iter_mut().rev() {
        tracker.bounds.check()?;
        let Some(is) = &spot.is else { continue };
        let in_the_way = match &spot.want {
            None => true,
            Some(want) => matches!(is, Thing::Folder { .. }) != matches!(want, Thing::Folder { .. }),
        };
        if in_the_way {
            work.remove(path)?;
            spot.is = None;
        }
    }
    for (path, spot) in &spots {
        tracker.bounds.check()?;
        work.make(path, spot)?;
    }
    work.hands.finish()
}

struct Work<'a> {
    tracker: &'a Tracker,
    hands: Hands<'a>,
    /// A name of each group of hard links that stands as it must.
    anchors: HashMap<Group, RelPath>,
    attributes: Option<Attributes>,
}

impl Work<'_> {
    fn shown(&self, path: &RelPath) -> PathBuf {
        self.tracker.place().join(path.as_path())
    }

    /// The open folder around a path, and its last name.
    fn around<'p>(&mut self, path: &'p RelPath) -> Result<(std::sync::Arc<OwnedFd>, &'p [u8]), Error> {
        let (parent, name) = host::split(path).unwrap_or((b"", b"."));
        Ok((self.hands.folder(&RelPath::new(parent).unwrap_or_default())?, name))
    }

    /// Removes what stands at a path, with everything in it that is not masked.
    fn remove(&mut self, path: &RelPath) -> Result<(), Error> {
        let shown = self.shown(path);
        let (folder, name) = self.around(path)?;
        let keep = |below: &[u8]| {
            self.tracker.is_ignored(&RelPath::new([path.as_bytes(), below].concat()).unwrap_or_default())
        };
        let tally = Tally::of_tree(&self.tracker.bounds, self.tracker.place());
        match host::remove_all(folder.as_fd(), name, &keep, &tally) {
            Ok(()) => Ok(()),
            Err(error) if host::is_absent(&error) => Ok(()),
            Err(error) => Err(Error::io("remove", &shown, error)),
        }
    }

    /// Forgets files that are as they must be but not linked as they must be, so that they are made anew.
    fn judge_links(&mut self, spots: &mut std::collections::BTreeMap<RelPath, Spot>) -> Result<(), Error> {
        let mut numbers: HashMap<Group, u64> = HashMap::new();
        for (path, spot) in spots.iter_mut() {
            let (Some(Thing::Node(Node::File { links, .. })), Some(Thing::Node(Node::File { .. }))) =
                (&spot.is, &spot.want)
            else {
                continue;
            };
            let right = match (spot.group, *links) {
                (None, None) => continue,
                (Some(group), Some(number))
                    if !self.anchors.contains_key(&group) || numbers.contains_key(&group) =>
                {
                    *numbers.entry(group).or_insert(number) == number && self.fits(path, spot)?
                }
                _ => false,
            };
            match spot.group {
                Some(group) if right => {
                    self.anchors.entry(group).or_insert_with(|| path.clone());
                    spot.is = spot.want.clone();
                }
                _ => spot.is = Some(Thing::Whiteout),
            }
        }
        Ok(())
    }

    /// Whether what stands at a path is what must stand there, hard links aside. Reads a file if nothing else tells.
    fn fits(&mut self, path: &RelPath, spot: &Spot) -> Result<bool, Error> {
        let (Some(Thing::Node(is)), Some(Thing::Node(want))) = (&spot.is, &spot.want) else {
            return Ok(spot.is == spot.want);
        };
        let (
            Node::File { mode, size, mtime_ns, content, .. },
            Node::File { mode: mode2, size: size2, mtime_ns: mtime2, content: content2, .. },
        ) = (is, want)
        else {
            return Ok(is == want);
        };
        if (mode, size, mtime_ns) != (mode2, size2, mtime2) || content2.is_none() {
            return Ok(false);
        }
        if content.is_some() {
            return Ok(content == content2);
        }
        let shown = self.shown(path);
        let (folder, name) = self.around(path)?;
        let file = host::open_file_by_force(&*folder, name).during("read", &shown)?;
        let stamp = Stamp::of_open(&file).during("read", &shown)?;
        let at_ns = base::now_ns();
        let (digest, _) = copy::digest(&file, &self.tracker.bounds).during("read", &shown)?;
        self.tracker.known().remember(&stamp, digest, at_ns);
        Ok(Some(digest) == *content2)
    }

    fn make(&mut self, path: &RelPath, spot: &Spot) -> Result<(), Error> {
        let Some(want) = &spot.want else { return Ok(()) };
        if let Thing::Folder { mode, mark } = want {
            return self.make_folder(path, spot.is.as_ref(), *mode, *mark);
        }
        let links_right = spot.group.is_none() || spot.is == spot.want;
        if links_right && self.fits(path, spot)? {
            return Ok(());
        }
        if spot.group.is_none() && self.adjust(path, spot)? {
            return Ok(());
        }
        let shown = self.shown(path);
        let anchor = spot.group.and_then(|group| self.anchors.get(&group).cloned());
        let (folder, name) = self.around(path)?;
        let temporary = self.hands.temporary();
        let _ = rustix::fs::unlinkat(&*folder, temporary.as_slice(), AtFlags::empty());
        let digest = match (want, anchor) {
            (_, Some(anchor)) => {
                let (other, other_name) = self.around(&anchor)?;
                rustix::fs::linkat(&*other, other_name, &*folder, temporary.as_slice(), AtFlags::empty())
                    .during("link", &shown)?;
                None
            }
            (Thing::Node(node @ Node::File { .. }), None) => {
                Some(self.make_file(&folder, &temporary, path, node)?)
            }
            (thing, None) => {
                self.make_special(&folder, &temporary, thing).during("make", &shown)?;
                None
            }
        };
        rustix::fs::renameat(&*folder, temporary.as_slice(), &*folder, name).during("write", &shown)?;
        // Renaming one name of a file to another name of the same file does nothing.
        let _ = rustix::fs::unlinkat(&*folder, temporary.as_slice(), AtFlags::empty());
        if let Some(group) = spot.group {
            self.anchors.entry(group).or_insert_with(|| path.clone());
        }
        if let Some(digest) = digest {
            let stamp = Stamp::of(&*folder, name).during("look at", &shown)?;
            self.tracker.known().remember(&stamp, digest, base::now_ns());
        }
        Ok(())
    }

    /// Sets mode and time of a file of one name that has the right content; returns whether that was all.
    fn adjust(&mut self, path: &RelPath, spot: &Spot) -> Result<bool, Error> {
        let (
            Some(Thing::Node(Node::File { content: Some(is), links: None, .. })),
            Some(Thing::Node(Node::File { content: Some(want), mode, mtime_ns, .. })),
        ) = (&spot.is, &spot.want)
        else {
            return Ok(false);
        };
        if is != want {
            return Ok(false);
        }
        let shown = self.shown(path);
        let (folder, name) = self.around(path)?;
        host::set_mode_at(&*folder, name, *mode).during("set the mode of", &shown)?;
        host::set_time_at(&*folder, name, *mtime_ns).during("set the time of", &shown)?;
        let stamp = Stamp::of(&*folder, name).during("look at", &shown)?;
        self.tracker.known().remember(&stamp, *want, base::now_ns());
        Ok(true)
    }

    fn make_special(&self, folder: &OwnedFd, name: &[u8], thing: &Thing) -> std::io::Result<()> {
        match thing {
            Thing::Whiteout => {
                rustix::fs::mknodat(folder, name, FileType::CharacterDevice, Mode::empty(), 0)?
            }
            Thing::Node(Node::Symlink { target }) => rustix::fs::symlinkat(target.as_slice(), folder, name)?,
            Thing::Node(Node::Fifo { mode }) => {
                rustix::fs::mkfifoat(folder, name, Mode::from_raw_mode(0o600))?;
                self.hands.give(folder, name)?;
                return host::set_mode_at(folder, name, *mode);
            }
            Thing::Node(_) | Thing::Folder { .. } => return Err(Errno::INVAL.into()),
        }
        self.hands.give(folder, name)
    }

    /// Makes a file with content, mode, time and owner; returns the digest of what it holds.
    fn make_file(&self, folder: &OwnedFd, name: &[u8], path: &RelPath, node: &Node) -> Result<Digest, Error> {
        let shown = self.shown(path);
        let Node::File { mode, mtime_ns, content, .. } = node else {
            return Err(Error::io("make", &shown, Errno::INVAL));
        };
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file =
            rustix::fs::openat(folder, name, flags, Mode::from_raw_mode(0o600)).during("make", &shown)?;
        let file = File::from(file);
        let made = self.fill(&file, path, *content, &shown).and_then(|digest| {
            self.hands.give(folder, name).during("give to its owner", &shown)?;
            rustix::fs::fchmod(&file, Mode::from_raw_mode(*mode)).during("set the mode of", &shown)?;
            host::set_time(&file, *mtime_ns).during("set the time of", &shown)?;
            Ok(digest)
        });
        if made.is_err() {
            let _ = rustix::fs::unlinkat(folder, name, AtFlags::empty());
        }
        made
    }

    /// Writes a content: from the store, else from the repository if it still is what stood there.
    fn fill(
        &self,
        file: &File,
        path: &RelPath,
        content: Option<Digest>,
        shown: &Path,
    ) -> Result<Digest, Error> {
        let options = &self.tracker.options;
        if let Some(digest) = content.filter(|digest| options.objects.contains(*digest)) {
            options.objects.copy_to(digest, file, shown, &self.tracker.bounds)?;
            return Ok(digest);
        }
        let lost = || Error::Lost { path: shown.to_owned() };
        let item = options.base.get(path).filter(|item| item.kind == Kind::File).ok_or_else(lost)?;
        let below = options.lower.join(path.as_path());
        let source = base::open_unchanged(self.tracker.lower.as_fd(), path, &item).during("read", &below)?;
        let unchanged = source.is_some();
        let source = match source {
            Some(source) => source,
            // As in an overlay, what somebody did to the repository meanwhile shows.
            None if self.is_copy() => self.present(path).ok_or_else(lost)?,
            None => return Err(lost()),
        };
        let size = Stamp::of_open(&source).during("read", &below)?.size;
        copy::content(&source, file, size, &self.tracker.bounds).during("write", shown)?;
        let (digest, _) = copy::digest(file, &self.tracker.bounds).during("read", shown)?;
        if unchanged {
            let number = options.base.find(path);
            let mut known = self.tracker.known();
            number.into_iter().for_each(|number| known.remember_was(number, Some(digest)));
        }
        Ok(digest)
    }

    fn is_copy(&self) -> bool {
        matches!(&self.tracker.options.layout, Layout::Whole { root } if *root != self.tracker.options.lower)
    }

    /// The repository's file at a path as it is now.
    fn present(&self, path: &RelPath) -> Option<File> {
        let (parent, name) = host::split(path)?;
        let parent =
            host::open_below(self.tracker.lower.as_fd(), parent, OFlags::PATH | host::FOLDER).ok()?;
        host::open_file(&parent, name).ok()
    }

    fn make_folder(
        &mut self,
        path: &RelPath,
        is: Option<&Thing>,
        mode: u32,
        mark: Mark,
    ) -> Result<(), Error> {
        let shown = self.shown(path);
        let (folder, name) = self.around(path)?;
        let stands = match is {
            Some(Thing::Folder { mode: mode2, mark: mark2 }) if mode == *mode2 && mark == *mark2 => {
                return Ok(());
            }
            Some(Thing::Folder { mark: mark2, .. }) => Some(*mark2),
            _ => None,
        };
        if stands.is_none() {
            match rustix::fs::mkdirat(&*folder, name, Mode::from_raw_mode(0o700)) {
                // Something that is no part of a tree, such as a socket.
                Err(Errno::EXIST) => {
                    self.remove(path)?;
                    rustix::fs::mkdirat(&*folder, name, Mode::from_raw_mode(0o700)).during("make", &shown)?;
                }
                done => done.during("make", &shown)?,
            }
            self.hands.give(&folder, name).during("give to its owner", &shown)?;
        }
        self.hands.set_later(path, mode);
        match self.attributes {
            Some(attributes) if stands.unwrap_or(Mark::Merge) != mark => {
                let made = self.hands.folder(path)?;
                set_mark(&made, attributes, mark).during("mark", &shown)
            }
            _ => Ok(()),
        }
    }
}

fn set_mark(folder: &OwnedFd, attributes: Attributes, mark: Mark) -> std::io::Result<()> {
    let path = format!("/proc/self/fd/{}", folder.as_raw_fd());
    for attribute in ["redirect", "opaque"] {
        match rustix::fs::removexattr(path.as_str(), attributes.name(attribute)) {
            Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
            Err(error) => return Err(error.into()),
        }
    }
    if mark == Mark::Opaque {
        // Nothing lies below such a folder; hiding it is for what somebody may put there later.
        let flags = rustix::fs::XattrFlags::empty();
        let _ = rustix::fs::setxattr(path.as_str(), attributes.name("opaque"), b"y", flags);
    }
    Ok(())
}
