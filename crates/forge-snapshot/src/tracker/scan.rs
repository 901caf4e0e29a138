//! Results of a scan of the workspace.

use super::Tracker;
use super::digest_cache::learn_base_file;
use crate::base::{self, BaseItem, BaseManifest};
use crate::bounds::{BoundedTally, WorkBounds};
use crate::error::{Error, IoContext};
use crate::host::{self, FileStamp, NodeKind};
use crate::node::{DeltaEntry, RelPath, TreeNode};
use crate::objects::RaceCheck;
use forge_types::Digest;
use parking_lot::{Mutex, MutexGuard};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;

/// Maximum size of baseline contents that are stored when a path first differs, for merges.
const MAX_STORED_BASE_BYTES: u64 = 8 * 1024 * 1024;

/// The handling of unknown contents.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum ContentPolicy {
    /// They are read, hashed and stored.
    Store,
    /// They remain unknown.
    Leave,
}

/// A scan of a workspace.
pub(super) struct WorkspaceScan<'a> {
    pub(super) tracker: &'a Tracker,
    contents: ContentPolicy,
    touched: Mutex<ScanResult>,
    /// The count of visited paths.
    pub(super) walked: BoundedTally<'a>,
    /// The count of paths that may differ.
    changed: BoundedTally<'a>,
}

#[derive(Default)]
pub(super) struct ScanResult {
    /// The current node of each path that may differ; `None` if absent. Hard links have the file's inode number.
    pub(super) now: BTreeMap<RelPath, Option<TreeNode>>,
}

impl<'a> WorkspaceScan<'a> {
    pub(super) fn new(tracker: &'a Tracker, contents: ContentPolicy) -> Self {
        let (bounds, place) = (&tracker.bounds, tracker.workspace_path());
        Self {
            tracker,
            contents,
            touched: Mutex::default(),
            walked: BoundedTally::of_tree(bounds, place),
            changed: BoundedTally::of_changes(bounds, place),
        }
    }

    fn bounds(&self) -> &'a WorkBounds {
        self.walked.bounds()
    }

    fn lock_result(&self) -> MutexGuard<'_, ScanResult> {
        self.touched.lock()
    }

    /// Returns whether the baseline content of a path is known.
    pub(super) fn knows_base_content(&self, path: &RelPath) -> bool {
        self.tracker.lock_digest_cache().base_digest(self.tracker.options.base.find_index(path)).is_some()
    }

    /// Records the current node of a path.
    pub(super) fn record_node(&self, path: RelPath, node: Option<TreeNode>) -> Result<(), Error> {
        self.record_node_in(&mut self.lock_result(), path, node)
    }

    fn record_node_in(
        &self,
        touched: &mut ScanResult,
        path: RelPath,
        node: Option<TreeNode>,
    ) -> Result<(), Error> {
        let target = match &node {
            Some(TreeNode::Symlink { target }) => target.len(),
            _ => 0,
        };
        let bytes = path.as_bytes().len();
        match touched.now.insert(path, node) {
            None => self.changed.count_path(bytes + target),
            Some(_) => self.changed.count_bytes(target),
        }
    }

    /// Counts a path that is stored elsewhere.
    pub(super) fn count_path(&self, path: &RelPath) -> Result<(), Error> {
        self.changed.count_path(path.as_bytes().len())
    }

    /// Records the removal of a path with everything that was below it.
    pub(super) fn record_removal(&self, path: &RelPath) -> Result<(), Error> {
        let mut touched = self.lock_result();
        for (path, _) in self.tracker.seen.entries_below(path) {
            if !self.tracker.is_ignored(&path) {
                self.record_node_in(&mut touched, path, None)?;
            }
        }
        Ok(())
    }

    /// Reads the node of `name`, which is `path` in the workspace. `None` if it is not part of a tree.
    pub(super) fn read_node(
        &self,
        folder: BorrowedFd<'_>,
        name: &[u8],
        path: &RelPath,
        stamp: &FileStamp,
    ) -> Result<Option<TreeNode>, Error> {
        match stamp.kind {
            NodeKind::File => self.read_file_node(folder, name, path, stamp),
            NodeKind::Dir => Ok(Some(TreeNode::Dir { mode: stamp.mode })),
            NodeKind::Fifo => Ok(Some(TreeNode::Fifo { mode: stamp.mode })),
            NodeKind::Symlink => match host::read_link(folder, name) {
                Ok(target) => Ok(Some(TreeNode::Symlink { target })),
                Err(error) if is_vanished(&error) => Ok(None),
                Err(error) => Err(Error::from_io("read", &self.display_path(path), error)),
            },
            NodeKind::Whiteout | NodeKind::Other => Ok(None),
        }
    }

    fn read_file_node(
        &self,
        folder: BorrowedFd<'_>,
        name: &[u8],
        path: &RelPath,
        stamp: &FileStamp,
    ) -> Result<Option<TreeNode>, Error> {
        let known = self.tracker.lock_digest_cache().cached_digest(stamp);
        if known.is_some() || self.contents == ContentPolicy::Leave {
            return Ok(Some(file_node(stamp, stamp.size, known)));
        }
        let objects = &self.tracker.options.objects;
        let file = match host::open_file_by_force(folder, name) {
            Ok(file) => file,
            Err(error) if is_vanished(&error) => return Ok(None),
            Err(error) => return Err(Error::from_io("read", &self.display_path(path), error)),
        };
        self.bounds().check_file_size(stamp.size, || self.display_path(path))?;
        // A file that is written to continuously must not prevent a snapshot.
        for still in [RaceCheck::Required, RaceCheck::Required, RaceCheck::Whatever] {
            let at_ns = base::now_ns();
            let before = FileStamp::stat_open(&file).io_context("read", &self.display_path(path))?;
            match objects.store_checked(&file, &before, still, self.bounds()) {
                Ok((digest, size)) => {
                    if still == RaceCheck::Required {
                        self.tracker.lock_digest_cache().remember_digest(&before, digest, at_ns);
                    }
                    return Ok(Some(file_node(&before, size, Some(digest))));
                }
                Err(Error::Changed { .. }) => {}
                Err(Error::Ceiling { ceiling, limit, .. }) => {
                    return Err(Error::ceiling_exceeded(ceiling, limit, &self.display_path(path)));
                }
                Err(error) => return Err(error),
            }
        }
        Err(Error::Changed { path: self.display_path(path) })
    }

    /// Returns a path of the workspace, for messages.
    pub(super) fn display_path(&self, path: &RelPath) -> PathBuf {
        self.tracker.workspace_path().join(path.as_path())
    }

    /// Returns whether a path was recorded.
    pub(super) fn has_recorded(&self, path: &RelPath) -> bool {
        self.lock_result().now.contains_key(path)
    }

    /// Returns the indices, in the unmodified workspace, of all names of files with a changed name.
    pub(super) fn linked_to_changed(&self) -> Vec<usize> {
        let touched = self.lock_result();
        let number = |node: &Option<TreeNode>| match node {
            Some(TreeNode::File { links, .. }) => *links,
            _ => None,
        };
        let numbers: HashSet<u64> = touched.now.values().filter_map(number).collect();
        if numbers.is_empty() {
            return Vec::new();
        }
        let links = self.tracker.seen_links();
        numbers.iter().filter_map(|number| links.get(number)).flatten().copied().collect()
    }

    /// Returns the results without comparing them.
    pub(super) fn into_result(self) -> ScanResult {
        self.touched.into_inner()
    }

    /// Returns the differences from the baseline, by path.
    pub(super) fn into_entries(self) -> Result<DeltaEntries<'a>, Error> {
        let (tracker, bounds) = (self.tracker, self.bounds());
        let mut touched = self.into_result().now;
        let mut groups = LinkGroups { tracker, names: HashMap::new(), same: HashMap::new() };
        for (path, now) in &touched {
            if let Some(TreeNode::File { links: Some(number), .. }) = now {
                groups.names.entry(*number).or_default().push(path.clone());
            }
        }
        let mut links: HashMap<u64, (u64, u32)> = HashMap::new();
        let mut failed = None;
        touched.retain(|path, now| {
            if failed.is_some() {
                return false;
            }
            let was = bounds.check_stopped().and_then(|()| tracker.base_node(path, now.as_ref()));
            let differs = was.map(|was| {
                !is_identical(was.as_ref(), now.as_ref(), |was, now| groups.is_same_group(was, now))
            });
            if let (Ok(true), Some(TreeNode::File { links: Some(number), .. })) = (&differs, &now) {
                links.entry(*number).or_insert_with(|| (link_group_id(path), 0)).1 += 1;
            }
            differs.unwrap_or_else(|error| {
                failed = Some(error);
                false
            })
        });
        match failed {
            Some(error) => Err(error),
            None => Ok(DeltaEntries { tracker, touched: touched.into_iter(), links }),
        }
    }
}

/// An iterator of differences by path, which consumes the results.
pub(super) struct DeltaEntries<'a> {
    tracker: &'a Tracker,
    touched: std::collections::btree_map::IntoIter<RelPath, Option<TreeNode>>,
    /// The group number for each inode number, and the number of names found.
    links: HashMap<u64, (u64, u32)>,
}

impl Iterator for DeltaEntries<'_> {
    type Item = Result<(RelPath, DeltaEntry), Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let (path, mut now) = self.touched.next()?;
        let was = match self
            .tracker
            .bounds
            .check_stopped()
            .and_then(|()| self.tracker.base_node(&path, now.as_ref()))
        {
            Ok(was) => was,
            Err(error) => return Some(Err(error)),
        };
        if let Some(TreeNode::File { links, .. }) = &mut now {
            // Names outside of the delta or the tree could not be linked again.
            let group = links.and_then(|number| self.links.get(&number)).filter(|group| group.1 > 1);
            *links = group.map(|group| group.0);
        }
        Some(Ok((path, DeltaEntry { before: was, after: now })))
    }
}

/// Returns the number of a group of hard links, derived from its first path so that equal trees have equal numbers.
fn link_group_id(first: &RelPath) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = *Digest::of_bytes(first.as_bytes()).as_bytes();
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

/// Comparison of changed groups of hard links.
struct LinkGroups<'a> {
    tracker: &'a Tracker,
    names: HashMap<u64, Vec<RelPath>>,
    /// Cached results.
    same: HashMap<(u64, u64), bool>,
}

impl LinkGroups<'_> {
    /// Returns whether the names of a baseline file are those of a current file.
    fn is_same_group(&mut self, was: u64, now: u64) -> bool {
        let (tracker, names) = (self.tracker, &self.names);
        *self.same.entry((was, now)).or_insert_with(|| {
            let (Some(first), Some(names)) = (tracker.base_links().get(&was), names.get(&now)) else {
                return false;
            };
            let base = &tracker.options.base;
            let holds =
                |path| base.find_index(path).is_some_and(|number| first.binary_search(&number).is_ok());
            first.len() == names.len() && names.iter().all(holds)
        })
    }
}

/// Returns whether an error indicates that a file was replaced or removed since it was listed.
fn is_vanished(error: &std::io::Error) -> bool {
    use rustix::io::Errno;
    host::is_absent(error) || Errno::from_io_error(error) == Some(Errno::INVAL)
}

fn file_node(stamp: &FileStamp, size: u64, content: Option<Digest>) -> TreeNode {
    let links = stamp.linked.then_some(stamp.ino);
    TreeNode::File { mode: stamp.mode, size, mtime_ns: stamp.mtime_ns, content, links }
}

/// Returns whether two nodes are identical as far as snapshots record them. `alike` compares two groups of hard
/// links.
fn is_identical(
    was: Option<&TreeNode>,
    now: Option<&TreeNode>,
    alike: impl FnOnce(u64, u64) -> bool,
) -> bool {
    match (was, now) {
        (None, None) => true,
        (
            Some(was @ TreeNode::File { mtime_ns, links, .. }),
            Some(now @ TreeNode::File { mtime_ns: mtime_now, links: links_now, .. }),
        ) => {
            let linked = || match (links, links_now) {
                (Some(was), Some(now)) => alike(*was, *now),
                (was, now) => was == now,
            };
            was.is_equivalent(now) && mtime_ns == mtime_now && linked()
        }
        (Some(was), Some(now)) => was == now,
        _ => false,
    }
}

impl Tracker {
    /// Returns the hard links of the baseline: for each inode number with several names in the repository, their
    /// sorted indices in the manifest.
    pub(super) fn base_links(&self) -> &HashMap<u64, Vec<usize>> {
        self.links.get_or_init(|| collect_links(&self.options.base, |path| self.seen.get(path).is_some()))
    }

    /// Returns the hard links of the unmodified workspace, by inode number in the workspace.
    pub(super) fn seen_links(&self) -> &HashMap<u64, Vec<usize>> {
        self.seen_links.get_or_init(|| collect_links(&self.seen, |_| true))
    }

    /// Returns the baseline node of a path. Determines the content of a file if the path is still a file.
    fn base_node(&self, path: &RelPath, now: Option<&TreeNode>) -> Result<Option<TreeNode>, Error> {
        if self.seen.get(path).is_none() {
            return Ok(None);
        }
        let base = &self.options.base;
        let (Some(mut node), Some(number)) = (base.node_at(path), base.find_index(path)) else {
            return Ok(None);
        };
        if let (TreeNode::File { content, size, .. }, Some(item)) = (&mut node, base.get(path)) {
            *content = match now {
                Some(TreeNode::File { size: now, .. }) => {
                    let tried = self.lock_digest_cache().base_attempt(number);
                    match tried {
                        Some(known) => known,
                        None if *size <= MAX_STORED_BASE_BYTES || size == now => {
                            let learned = self.learn_base_content(path, &item)?;
                            self.lock_digest_cache().remember_base_digest(number, learned);
                            learned
                        }
                        None => None,
                    }
                }
                // Results determined for another snapshot must not affect this one.
                _ => {
                    let known = self.lock_digest_cache();
                    if known.saved { known.base_digest(Some(number)) } else { None }
                }
            };
        }
        Ok(Some(node))
    }

    fn learn_base_content(&self, path: &RelPath, item: &BaseItem) -> Result<Option<Digest>, Error> {
        let shown = self.options.lower.join(path.as_path());
        learn_base_file(
            &self.options.objects,
            self.options.lower.as_fd(),
            &shown,
            path,
            item,
            MAX_STORED_BASE_BYTES,
            &self.bounds,
        )
    }
}

fn collect_links(base: &BaseManifest, counts: impl Fn(&RelPath) -> bool) -> HashMap<u64, Vec<usize>> {
    let mut links: HashMap<u64, Vec<usize>> = HashMap::new();
    for (number, path, item) in
        base.indexed_entries_below(&RelPath::default()).filter(|(_, _, item)| item.linked)
    {
        if counts(&path) {
            links.entry(item.ino).or_default().push(number);
        }
    }
    links.values_mut().for_each(|numbers| numbers.sort_unstable());
    links
}
