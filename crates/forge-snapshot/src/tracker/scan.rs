//! What a look at the workspace finds, and what is known from looks before: digests of files that did not change.

use super::{Options, Tracker};
use crate::base::{self, Base, Item};
use crate::error::{During, Error};
use crate::host::{self, Kind, Stamp};
use crate::node::{Entry, Node, RelPath};
use crate::objects::{Objects, Stillness};
use crate::{bytes::Reader, bytes::Writer, copy};
use forge_types::Digest;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A delta with everything that putting back needs: also differences in time or hard links alone.
pub(super) type Full = BTreeMap<RelPath, Entry>;

/// A file changed so shortly before it was looked at that the next change could leave it the same times.
const RACY_NS: i64 = 20_000_000;
/// Contents of the beginning up to this many bytes are kept when a path first differs: a merge needs them.
const KEPT: u64 = 8 * 1024 * 1024;
/// Where the digests of the beginning's contents are remembered, in the folder of the objects.
const BASE_CONTENTS: &str = "base-contents";

/// Whether contents that are not known are read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Contents {
    /// They are read, hashed and stored.
    Store,
    /// They stay unknown.
    Leave,
}

/// What earlier looks learned.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// Digest of a file in the workspace as long as its stamp is this one.
    files: HashMap<RelPath, Looked>,
    /// Content of a file of the beginning; `None`: it could not be learned.
    was: HashMap<RelPath, Option<Digest>>,
    /// All contents of the beginning were stored.
    saved: bool,
}

#[derive(Debug)]
struct Looked {
    stamp: Stamp,
    digest: Digest,
    at_ns: i64,
}

impl Known {
    /// The digest of a file with this stamp, if it is known for sure.
    pub(super) fn digest(&self, path: &RelPath, stamp: &Stamp) -> Option<Digest> {
        let looked = self.files.get(path)?;
        (looked.stamp.still(stamp) && !is_racy(looked.stamp.ctime_ns, looked.at_ns)).then_some(looked.digest)
    }

    pub(super) fn remember(&mut self, path: &RelPath, stamp: Stamp, digest: Digest, at_ns: i64) {
        self.files.insert(path.clone(), Looked { stamp, digest, at_ns });
    }

    /// The content that stood at a path at the beginning, if it was learned.
    pub(super) fn was(&self, path: &RelPath) -> Option<Digest> {
        self.was.get(path).copied().flatten()
    }

    pub(super) fn remember_was(&mut self, path: &RelPath, digest: Digest) {
        self.was.insert(path.clone(), Some(digest));
    }

    /// Takes over what a snapshot knows of the beginning.
    pub(super) fn learn(&mut self, full: &Full) {
        for (path, entry) in full {
            if let Some(Node::File { content: Some(content), .. }) = &entry.was {
                self.was.entry(path.clone()).or_insert(Some(*content));
            }
        }
    }

    /// Takes over what [`save_base`] stored in an earlier process.
    pub(super) fn load_base(&mut self, folder: &Path, base: &Base) {
        let Some(digests) = std::fs::read(folder.join(BASE_CONTENTS)).ok().and_then(|bytes| decode(&bytes))
        else {
            return;
        };
        self.saved = true;
        let files = base.below(&RelPath::default()).filter(|(_, item)| item.kind == Kind::File);
        for ((path, _), digest) in files.zip(digests) {
            if digest.is_some() {
                self.was.insert(path, digest);
            }
        }
    }
}

pub(super) fn is_racy(ctime_ns: i64, looked_ns: i64) -> bool {
    ctime_ns.saturating_add(RACY_NS) >= looked_ns
}

/// One look at a workspace.
pub(super) struct Scan<'a> {
    pub(super) tracker: &'a Tracker,
    contents: Contents,
    touched: Mutex<Touched>,
}

#[derive(Default)]
pub(super) struct Touched {
    /// What stands at each path that may differ; `None`: nothing. Hard links bear the file's own number.
    pub(super) now: BTreeMap<RelPath, Option<Node>>,
    /// Half-made files of ours that a crash left.
    pub(super) leftovers: Vec<RelPath>,
}

impl<'a> Scan<'a> {
    pub(super) fn new(tracker: &'a Tracker, contents: Contents) -> Self {
        Self { tracker, contents, touched: Mutex::default() }
    }

    fn touched(&self) -> MutexGuard<'_, Touched> {
        self.touched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the content that stood at a path at the beginning was learned.
    pub(super) fn knows_was(&self, path: &RelPath) -> bool {
        self.tracker.known().was(path).is_some()
    }

    /// Says what stands at a path.
    pub(super) fn put(&self, path: RelPath, node: Option<Node>) {
        self.touched().now.insert(path, node);
    }

    /// Says that nothing of what stood below a path, nor the path itself, is there.
    pub(super) fn gone(&self, path: &RelPath) {
        let mut touched = self.touched();
        for (path, _) in self.tracker.seen.below(path) {
            if !self.tracker.is_ignored(&path) {
                touched.now.insert(path, None);
            }
        }
    }

    /// Whether an entry is no part of the tree; remembers half-made files of ours.
    pub(super) fn skips(&self, path: &RelPath, name: &[u8]) -> bool {
        if name.starts_with(host::TEMP_PREFIX) {
            self.touched().leftovers.push(path.clone());
            return true;
        }
        self.tracker.is_ignored(path)
    }

    /// What stands at `name`, which is `path` in the workspace. `None` if nothing that is part of a tree.
    pub(super) fn node(
        &self,
        folder: BorrowedFd<'_>,
        name: &[u8],
        path: &RelPath,
        stamp: &Stamp,
    ) -> Result<Option<Node>, Error> {
        match stamp.kind {
            Kind::File => self.file(folder, name, path, stamp),
            Kind::Dir => Ok(Some(Node::Dir { mode: stamp.mode })),
            Kind::Fifo => Ok(Some(Node::Fifo { mode: stamp.mode })),
            Kind::Symlink => match host::read_link(folder, name) {
                Ok(target) => Ok(Some(Node::Symlink { target })),
                Err(error) if vanished(&error) => Ok(None),
                Err(error) => Err(Error::io("read", &self.shown(path), error)),
            },
            Kind::Whiteout | Kind::Other => Ok(None),
        }
    }

    fn file(
        &self,
        folder: BorrowedFd<'_>,
        name: &[u8],
        path: &RelPath,
        stamp: &Stamp,
    ) -> Result<Option<Node>, Error> {
        let known = self.tracker.known().digest(path, stamp);
        if known.is_some() || self.contents == Contents::Leave {
            return Ok(Some(file_node(stamp, stamp.size, known)));
        }
        let objects = &self.tracker.options.objects;
        let file = match host::open_file_by_force(folder, name) {
            Ok(file) => file,
            Err(error) if vanished(&error) => return Ok(None),
            Err(error) => return Err(Error::io("read", &self.shown(path), error)),
        };
        // Something that is written to all the time must not keep a snapshot from being taken.
        for still in [Stillness::Required, Stillness::Required, Stillness::Whatever] {
            let at_ns = base::now_ns();
            let before = Stamp::of_open(&file).during("read", &self.shown(path))?;
            match objects.store(&file, &before, still) {
                Ok((digest, size)) => {
                    if still == Stillness::Required {
                        self.tracker.known().remember(path, before, digest, at_ns);
                    }
                    return Ok(Some(file_node(&before, size, Some(digest))));
                }
                Err(Error::Changed { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Err(Error::Changed { path: self.shown(path) })
    }

    /// A path of the workspace, for messages.
    pub(super) fn shown(&self, path: &RelPath) -> PathBuf {
        self.tracker.place().join(path.as_path())
    }

    /// Paths that were not touched, of files that have other names which were.
    pub(super) fn untouched_links(&self) -> Vec<RelPath> {
        let touched = self.touched();
        let numbers: HashSet<u64> = touched
            .now
            .values()
            .filter_map(|node| match node {
                Some(Node::File { links, .. }) => *links,
                _ => None,
            })
            .collect();
        if numbers.is_empty() {
            return Vec::new();
        }
        let links = self.tracker.links_seen();
        let paths = numbers.iter().filter_map(|number| links.get(number)).flatten();
        paths
            .filter(|path| !touched.now.contains_key(*path) && !self.tracker.is_ignored(path))
            .cloned()
            .collect()
    }

    /// What was found, without judging whether it differs.
    pub(super) fn into_touched(self) -> Touched {
        self.touched.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// What differs from the beginning.
    pub(super) fn finish(self) -> Result<Full, Error> {
        let tracker = self.tracker;
        let touched = self.into_touched().now;
        let mut groups: HashMap<u64, Vec<RelPath>> = HashMap::new();
        for (path, now) in &touched {
            if let Some(Node::File { links: Some(number), .. }) = now {
                groups.entry(*number).or_default().push(path.clone());
            }
        }
        let mut full = Full::new();
        for (path, now) in touched {
            let was = tracker.was(&path, now.as_ref())?;
            if !identical(was.as_ref(), now.as_ref(), |was, now| {
                tracker.links_at_first().get(&was) == groups.get(&now)
            }) {
                full.insert(path, Entry { was, now });
            }
        }
        name_links(&mut full);
        Ok(full)
    }
}

/// Whether an error says that something was replaced or removed since it was listed.
fn vanished(error: &std::io::Error) -> bool {
    use rustix::io::Errno;
    host::is_absent(error) || Errno::from_io_error(error) == Some(Errno::INVAL)
}

fn file_node(stamp: &Stamp, size: u64, content: Option<Digest>) -> Node {
    let links = stamp.linked.then_some(stamp.ino);
    Node::File { mode: stamp.mode, size, mtime_ns: stamp.mtime_ns, content, links }
}

/// Whether nothing at all differs, as far as a snapshot keeps it. `alike` compares two groups of hard links.
fn identical(was: Option<&Node>, now: Option<&Node>, alike: impl FnOnce(u64, u64) -> bool) -> bool {
    match (was, now) {
        (None, None) => true,
        (
            Some(was @ Node::File { mtime_ns, links, .. }),
            Some(now @ Node::File { mtime_ns: mtime_now, links: links_now, .. }),
        ) => {
            let linked = || match (links, links_now) {
                (Some(was), Some(now)) => alike(*was, *now),
                (was, now) => was == now,
            };
            was.same(now) && mtime_ns == mtime_now && linked()
        }
        (Some(was), Some(now)) => was == now,
        _ => false,
    }
}

/// Numbers the groups of hard links so that the same tree has the same numbers, whatever its files' own are: by the
/// first path of each group.
fn name_links(full: &mut Full) {
    let mut groups: HashMap<u64, (u64, u32)> = HashMap::new();
    for (path, entry) in &*full {
        if let Some(Node::File { links: Some(number), .. }) = &entry.now {
            let [a, b, c, d, e, f, g, h, ..] = *Digest::of(path.as_bytes()).as_bytes();
            let name = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
            groups.entry(*number).or_insert((name, 0)).1 += 1;
        }
    }
    for entry in full.values_mut() {
        if let Some(Node::File { links, .. }) = &mut entry.now {
            // Further names outside the delta, or outside the tree, are none that could be made again.
            *links =
                links.and_then(|number| groups.get(&number)).filter(|group| group.1 > 1).map(|group| group.0);
        }
    }
}

impl Tracker {
    /// The hard links of the beginning: all paths of each file that had several, sorted, by its number in the
    /// repository.
    pub(super) fn links_at_first(&self) -> &HashMap<u64, Vec<RelPath>> {
        self.links.get_or_init(|| links(&self.options.base, |path| self.seen.get(path).is_some()))
    }

    /// The same by the file's number in the workspace.
    pub(super) fn links_seen(&self) -> &HashMap<u64, Vec<RelPath>> {
        self.seen_links.get_or_init(|| links(&self.seen, |_| true))
    }

    /// What stood at a path at the beginning. The content of a file is learned when a file stands there now.
    fn was(&self, path: &RelPath, now: Option<&Node>) -> Result<Option<Node>, Error> {
        if self.seen.get(path).is_none() {
            return Ok(None);
        }
        let Some(mut node) = self.options.base.node(path) else {
            return Ok(None);
        };
        if let (Node::File { content, size, .. }, Some(item)) = (&mut node, self.options.base.get(path)) {
            *content = match now {
                Some(Node::File { size: now, .. }) => {
                    let known = self.known().was.get(path).copied();
                    match known {
                        Some(known) => known,
                        None if *size <= KEPT || size == now => {
                            let learned = self.learn_was(path, &item)?;
                            self.known().was.insert(path.clone(), learned);
                            learned
                        }
                        None => None,
                    }
                }
                // Whether it was learned for another snapshot must not show in this one.
                _ => {
                    let known = self.known();
                    if known.saved { known.was(path) } else { None }
                }
            };
        }
        Ok(Some(node))
    }

    fn learn_was(&self, path: &RelPath, item: &Item) -> Result<Option<Digest>, Error> {
        let shown = self.options.lower.join(path.as_path());
        learn(&self.options.objects, self.lower.as_fd(), &shown, path, item, KEPT)
    }
}

fn links(base: &Base, counts: impl Fn(&RelPath) -> bool) -> HashMap<u64, Vec<RelPath>> {
    let mut links: HashMap<u64, Vec<RelPath>> = HashMap::new();
    for (path, item) in base.below(&RelPath::default()).filter(|(_, item)| item.linked) {
        if counts(&path) {
            links.entry(item.ino).or_default().push(path);
        }
    }
    links.values_mut().for_each(|paths| paths.sort_unstable());
    links
}

/// Hashes a file of the beginning if it is still what stood there; stores it too if it is not longer than `keep`.
fn learn(
    objects: &Objects,
    lower: BorrowedFd<'_>,
    shown: &Path,
    path: &RelPath,
    item: &Item,
    keep: u64,
) -> Result<Option<Digest>, Error> {
    let Some(file) = base::open_unchanged(lower, path, item).during("open", shown)? else {
        return Ok(None);
    };
    let stamp = Stamp::of_open(&file).during("look at", shown)?;
    let digest = if item.size <= keep {
        match objects.store(&file, &stamp, Stillness::Required) {
            Ok((digest, _)) => digest,
            Err(Error::Changed { .. }) => return Ok(None),
            Err(error) => return Err(error),
        }
    } else {
        copy::digest(&file).during("read", shown)?.0
    };
    let after = Stamp::of_open(&file).during("look at", shown)?;
    Ok(item.matches(&after).then_some(digest))
}

/// Stores every file of the beginning and remembers the digests, here and beside the objects.
pub(super) fn save_base(options: &Options, known: &Mutex<Known>) -> Result<(), Error> {
    let lower = host::open_root(&options.lower).during("open", &options.lower)?;
    let ignored: HashSet<RelPath> = options.ignored.iter().cloned().collect();
    let mut digests = Vec::new();
    for (path, item) in options.base.below(&RelPath::default()).filter(|(_, item)| item.kind == Kind::File) {
        let shown = options.lower.join(path.as_path());
        let digest = if super::is_ignored(&ignored, &path) {
            None
        } else {
            learn(&options.objects, lower.as_fd(), &shown, &path, &item, u64::MAX)?
        };
        if digest.is_some() {
            known.lock().unwrap_or_else(PoisonError::into_inner).was.insert(path, digest);
        }
        digests.push(digest);
    }
    options.objects.flush()?;
    let path = options.objects.folder().join(BASE_CONTENTS);
    host::write_durably(&path, &encode(&digests)).during("write", &path)?;
    known.lock().unwrap_or_else(PoisonError::into_inner).saved = true;
    Ok(())
}

fn encode(digests: &[Option<Digest>]) -> Vec<u8> {
    let mut out = Writer(Vec::with_capacity(33 * digests.len() + 40));
    out.number(digests.len() as u64);
    for digest in digests {
        out.byte(u8::from(digest.is_some()));
        out.0.extend_from_slice(digest.as_ref().map_or(&[][..], |digest| digest.as_bytes()));
    }
    let check = Digest::of(&out.0);
    out.0.extend_from_slice(check.as_bytes());
    out.0
}

fn decode(bytes: &[u8]) -> Option<Vec<Option<Digest>>> {
    let (body, check) = bytes.split_at_checked(bytes.len().checked_sub(32)?)?;
    if Digest::of(body).as_bytes() != check {
        return None;
    }
    let mut input = Reader(body);
    let count = input.count(1)?;
    let digest = |input: &mut Reader<'_>| match input.byte()? {
        0 => Some(None),
        _ => Some(Some(Digest::from_bytes(input.take(32)?.try_into().ok()?))),
    };
    (0..count).map(|_| digest(&mut input)).collect()
}
