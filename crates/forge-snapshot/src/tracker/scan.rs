//! What a look at the workspace finds.

use super::Tracker;
use super::known::learn;
use crate::base::{self, Base, Item};
use crate::bounds::{Bounds, Tally};
use crate::error::{During, Error};
use crate::host::{self, Kind, Stamp};
use crate::node::{Entry, Node, RelPath};
use crate::objects::Stillness;
use forge_types::Digest;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A delta with everything that putting back needs: also differences in time or hard links alone.
pub(super) type Full = BTreeMap<RelPath, Entry>;

/// Contents of the beginning up to this many bytes are kept when a path first differs: a merge needs them.
const KEPT: u64 = 8 * 1024 * 1024;

/// Whether contents that are not known are read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Contents {
    /// They are read, hashed and stored.
    Store,
    /// They stay unknown.
    Leave,
}

/// One look at a workspace.
pub(super) struct Scan<'a> {
    pub(super) tracker: &'a Tracker,
    contents: Contents,
    touched: Mutex<Touched>,
    /// Counts what is walked through.
    pub(super) walked: Tally<'a>,
    /// Counts what may differ.
    changed: Tally<'a>,
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
        let (bounds, place) = (&tracker.bounds, tracker.place());
        Self {
            tracker,
            contents,
            touched: Mutex::default(),
            walked: Tally::of_tree(bounds, place),
            changed: Tally::of_changes(bounds, place),
        }
    }

    fn bounds(&self) -> &'a Bounds {
        self.walked.bounds()
    }

    fn touched(&self) -> MutexGuard<'_, Touched> {
        self.touched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the content that stood at a path at the beginning was learned.
    pub(super) fn knows_was(&self, path: &RelPath) -> bool {
        self.tracker.known().was(self.tracker.options.base.find(path)).is_some()
    }

    /// Says what stands at a path.
    pub(super) fn put(&self, path: RelPath, node: Option<Node>) -> Result<(), Error> {
        self.put_into(&mut self.touched(), path, node)
    }

    fn put_into(&self, touched: &mut Touched, path: RelPath, node: Option<Node>) -> Result<(), Error> {
        let target = match &node {
            Some(Node::Symlink { target }) => target.len(),
            _ => 0,
        };
        let bytes = path.as_bytes().len();
        match touched.now.insert(path, node) {
            None => self.changed.path(bytes + target),
            Some(_) => self.changed.bytes(target),
        }
    }

    /// Counts a path that is kept elsewhere.
    pub(super) fn count(&self, path: &RelPath) -> Result<(), Error> {
        self.changed.path(path.as_bytes().len())
    }

    /// Says that nothing of what stood below a path, nor the path itself, is there.
    pub(super) fn gone(&self, path: &RelPath) -> Result<(), Error> {
        let mut touched = self.touched();
        for (path, _) in self.tracker.seen.below(path) {
            if !self.tracker.is_ignored(&path) {
                self.put_into(&mut touched, path, None)?;
            }
        }
        Ok(())
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
        let known = self.tracker.known().digest(stamp);
        if known.is_some() || self.contents == Contents::Leave {
            return Ok(Some(file_node(stamp, stamp.size, known)));
        }
        let objects = &self.tracker.options.objects;
        let file = match host::open_file_by_force(folder, name) {
            Ok(file) => file,
            Err(error) if vanished(&error) => return Ok(None),
            Err(error) => return Err(Error::io("read", &self.shown(path), error)),
        };
        self.bounds().file(stamp.size, || self.shown(path))?;
        // Something that is written to all the time must not keep a snapshot from being taken.
        for still in [Stillness::Required, Stillness::Required, Stillness::Whatever] {
            let at_ns = base::now_ns();
            let before = Stamp::of_open(&file).during("read", &self.shown(path))?;
            match objects.store(&file, &before, still, self.bounds()) {
                Ok((digest, size)) => {
                    if still == Stillness::Required {
                        self.tracker.known().remember(&before, digest, at_ns);
                    }
                    return Ok(Some(file_node(&before, size, Some(digest))));
                }
                Err(Error::Changed { .. }) => {}
                Err(Error::Ceiling { ceiling, limit, .. }) => {
                    return Err(Error::ceiling(ceiling, limit, &self.shown(path)));
                }
                Err(error) => return Err(error),
            }
        }
        Err(Error::Changed { path: self.shown(path) })
    }

    /// A path of the workspace, for messages.
    pub(super) fn shown(&self, path: &RelPath) -> PathBuf {
        self.tracker.place().join(path.as_path())
    }

    /// Whether something was said of a path.
    pub(super) fn knows(&self, path: &RelPath) -> bool {
        self.touched().now.contains_key(path)
    }

    /// Numbers, in what was seen, of all names of files of which one name was touched.
    pub(super) fn linked_to_touched(&self) -> Vec<usize> {
        let touched = self.touched();
        let number = |node: &Option<Node>| match node {
            Some(Node::File { links, .. }) => *links,
            _ => None,
        };
        let numbers: HashSet<u64> = touched.now.values().filter_map(number).collect();
        if numbers.is_empty() {
            return Vec::new();
        }
        let links = self.tracker.links_seen();
        numbers.iter().filter_map(|number| links.get(number)).flatten().copied().collect()
    }

    /// What was found, without judging whether it differs.
    pub(super) fn into_touched(self) -> Touched {
        self.touched.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// What differs from the beginning, path by path.
    pub(super) fn finish(self) -> Result<Found<'a>, Error> {
        let (tracker, bounds) = (self.tracker, self.bounds());
        let mut touched = self.into_touched().now;
        let mut groups = Groups { tracker, names: HashMap::new(), same: HashMap::new() };
        for (path, now) in &touched {
            if let Some(Node::File { links: Some(number), .. }) = now {
                groups.names.entry(*number).or_default().push(path.clone());
            }
        }
        let mut links: HashMap<u64, (u64, u32)> = HashMap::new();
        let mut failed = None;
        touched.retain(|path, now| {
            if failed.is_some() {
                return false;
            }
            let was = bounds.check().and_then(|()| tracker.was(path, now.as_ref()));
            let differs =
                was.map(|was| !identical(was.as_ref(), now.as_ref(), |was, now| groups.alike(was, now)));
            if let (Ok(true), Some(Node::File { links: Some(number), .. })) = (&differs, &now) {
                links.entry(*number).or_insert_with(|| (name_of_links(path), 0)).1 += 1;
            }
            differs.unwrap_or_else(|error| {
                failed = Some(error);
                false
            })
        });
        match failed {
            Some(error) => Err(error),
            None => Ok(Found { tracker, touched: touched.into_iter(), links }),
        }
    }
}

/// What differs, path by path; what was found is given up on the way.
pub(super) struct Found<'a> {
    tracker: &'a Tracker,
    touched: std::collections::btree_map::IntoIter<RelPath, Option<Node>>,
    /// By a file's own number the one that its names get, and how many names it has here.
    links: HashMap<u64, (u64, u32)>,
}

impl Iterator for Found<'_> {
    type Item = Result<(RelPath, Entry), Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let (path, mut now) = self.touched.next()?;
        let was = match self.tracker.bounds.check().and_then(|()| self.tracker.was(&path, now.as_ref())) {
            Ok(was) => was,
            Err(error) => return Some(Err(error)),
        };
        if let Some(Node::File { links, .. }) = &mut now {
            // Further names outside the delta, or outside the tree, are none that could be made again.
            let group = links.and_then(|number| self.links.get(&number)).filter(|group| group.1 > 1);
            *links = group.map(|group| group.0);
        }
        Some(Ok((path, Entry { was, now })))
    }
}

/// Numbers a group of hard links so that the same tree has the same numbers, whatever its files' own are: by the first
/// path of the group.
fn name_of_links(first: &RelPath) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = *Digest::of(first.as_bytes()).as_bytes();
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

/// Groups of hard links that were touched.
struct Groups<'a> {
    tracker: &'a Tracker,
    names: HashMap<u64, Vec<RelPath>>,
    /// What was found out of two groups.
    same: HashMap<(u64, u64), bool>,
}

impl Groups<'_> {
    /// Whether the names of a file of the beginning are those of one that stands there now.
    fn alike(&mut self, was: u64, now: u64) -> bool {
        let (tracker, names) = (self.tracker, &self.names);
        *self.same.entry((was, now)).or_insert_with(|| {
            let (Some(first), Some(names)) = (tracker.links_at_first().get(&was), names.get(&now)) else {
                return false;
            };
            let base = &tracker.options.base;
            let holds = |path| base.find(path).is_some_and(|number| first.binary_search(&number).is_ok());
            first.len() == names.len() && names.iter().all(holds)
        })
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

impl Tracker {
    /// The hard links of the beginning: the numbers, in the manifest, of all names of each file that had several,
    /// sorted, by the file's number in the repository.
    pub(super) fn links_at_first(&self) -> &HashMap<u64, Vec<usize>> {
        self.links.get_or_init(|| links(&self.options.base, |path| self.seen.get(path).is_some()))
    }

    /// The same of what was seen, by the file's number in the workspace.
    pub(super) fn links_seen(&self) -> &HashMap<u64, Vec<usize>> {
        self.seen_links.get_or_init(|| links(&self.seen, |_| true))
    }

    /// What stood at a path at the beginning. The content of a file is learned when a file stands there now.
    fn was(&self, path: &RelPath, now: Option<&Node>) -> Result<Option<Node>, Error> {
        if self.seen.get(path).is_none() {
            return Ok(None);
        }
        let base = &self.options.base;
        let (Some(mut node), Some(number)) = (base.node(path), base.find(path)) else {
            return Ok(None);
        };
        if let (Node::File { content, size, .. }, Some(item)) = (&mut node, base.get(path)) {
            *content = match now {
                Some(Node::File { size: now, .. }) => {
                    let tried = self.known().tried(number);
                    match tried {
                        Some(known) => known,
                        None if *size <= KEPT || size == now => {
                            let learned = self.learn_was(path, &item)?;
                            self.known().remember_was(number, learned);
                            learned
                        }
                        None => None,
                    }
                }
                // Whether it was learned for another snapshot must not show in this one.
                _ => {
                    let known = self.known();
                    if known.saved { known.was(Some(number)) } else { None }
                }
            };
        }
        Ok(Some(node))
    }

    fn learn_was(&self, path: &RelPath, item: &Item) -> Result<Option<Digest>, Error> {
        let shown = self.options.lower.join(path.as_path());
        learn(&self.options.objects, self.lower.as_fd(), &shown, path, item, KEPT, &self.bounds)
    }
}

fn links(base: &Base, counts: impl Fn(&RelPath) -> bool) -> HashMap<u64, Vec<usize>> {
    let mut links: HashMap<u64, Vec<usize>> = HashMap::new();
    for (number, path, item) in base.indexed_below(&RelPath::default()).filter(|(_, _, item)| item.linked) {
        if counts(&path) {
            links.entry(item.ino).or_default().push(number);
        }
    }
    links.values_mut().for_each(|numbers| numbers.sort_unstable());
    links
}
