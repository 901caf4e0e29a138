//! What must stand on disk for a snapshot, beside what stands there.

use super::overlay;
use super::scan::{ContentPolicy, FullDelta};
use super::{Layout, OverlayXattrs, Tracker};
use crate::error::Error;
use crate::host::NodeKind;
use crate::node::{RelPath, TreeNode};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// A thing on disk, in the workspace's own layout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum DiskEntry {
    /// A file, symbolic link or named pipe.
    Node(TreeNode),
    /// A folder.
    Directory {
        /// Permission bits.
        mode: u32,
        /// Its mark, in an upper layer.
        mark: OverlayMark,
    },
    /// In an upper layer: nothing stands here.
    Whiteout,
}

/// What a folder of an upper layer does with the folder below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OverlayMark {
    /// It shows it. Also every folder that lies in no upper layer.
    Merge,
    /// It hides it.
    Opaque,
    /// It shows another one. Never wanted.
    Redirect,
}

/// Which files are to be hard links to one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum LinkGroup {
    /// By the number that the snapshot gives them.
    Snapshot(u64),
    /// As at the beginning.
    Base(u64),
}

/// One path that may have to be touched.
#[derive(Debug, Default)]
pub(super) struct PathChange {
    /// What stands there; hard links bear the file's own number.
    pub(super) current: Option<DiskEntry>,
    /// What must stand there.
    pub(super) target: Option<DiskEntry>,
    pub(super) group: Option<LinkGroup>,
}

/// Everything that may have to be touched.
#[derive(Debug, Default)]
pub(super) struct RestorePlan {
    pub(super) changes: BTreeMap<RelPath, PathChange>,
    /// Names of groups of links that stay as they are.
    pub(super) anchors: HashMap<LinkGroup, RelPath>,
    pub(super) stale_temps: Vec<RelPath>,
    /// How marks are written.
    pub(super) attributes: Option<OverlayXattrs>,
}

/// What to do to get to the snapshot with this delta. Touches nothing.
pub(super) fn plan_restore(tracker: &Tracker, full: FullDelta) -> Result<RestorePlan, Error> {
    for entry in full.values() {
        if let Some(TreeNode::File { content: Some(digest), .. }) = entry.after
            && !tracker.options.objects.contains(digest)
        {
            return Err(Error::Missing { digest });
        }
    }
    match tracker.options.layout {
        Layout::Overlay { attributes, .. } => plan_overlay(tracker, attributes, &full),
        Layout::Directory { .. } => plan_directory(tracker, &full),
    }
}

fn to_disk_entry(node: TreeNode) -> DiskEntry {
    match node {
        TreeNode::Dir { mode } => DiskEntry::Directory { mode, mark: OverlayMark::Merge },
        node => DiskEntry::Node(node),
    }
}

fn plan_directory(tracker: &Tracker, full: &FullDelta) -> Result<RestorePlan, Error> {
    let touched = tracker.scan_workspace(ContentPolicy::Leave)?.into_result();
    let paths: BTreeSet<&RelPath> = touched.now.keys().chain(full.keys()).collect();
    let mut plan = RestorePlan { stale_temps: touched.stale_temps, ..RestorePlan::default() };
    for path in paths {
        tracker.bounds.check_stopped()?;
        let beginning = || {
            let mut node = tracker.seen.get(path).and_then(|_| tracker.options.base.node_at(path))?;
            if let TreeNode::File { content, .. } = &mut node {
                *content = tracker.lock_digest_cache().base_digest(tracker.options.base.find_index(path));
            }
            Some(node)
        };
        let is = match touched.now.get(path) {
            Some(now) => now.clone(),
            None => beginning(),
        };
        let (want, group) = match full.get(path) {
            Some(entry) => (entry.after.clone(), link_number(entry.after.as_ref()).map(LinkGroup::Snapshot)),
            None => {
                let node = beginning();
                let group = link_number(node.as_ref()).map(LinkGroup::Base);
                (node, group)
            }
        };
        plan.changes.insert(
            path.clone(),
            PathChange { current: is.map(to_disk_entry), target: want.map(to_disk_entry), group },
        );
    }
    find_anchors(tracker, &mut plan);
    Ok(plan)
}

fn link_number(node: Option<&TreeNode>) -> Option<u64> {
    match node {
        Some(TreeNode::File { links, .. }) => *links,
        _ => None,
    }
}

/// Finds untouched files that further names are to be made for.
fn find_anchors(tracker: &Tracker, plan: &mut RestorePlan) {
    let wanted: BTreeSet<u64> = plan
        .changes
        .values()
        .filter_map(|spot| match spot.group {
            Some(LinkGroup::Base(number)) => Some(number),
            _ => None,
        })
        .collect();
    for number in wanted {
        let names = tracker.base_links().get(&number).into_iter().flatten();
        let mut paths = names.map(|number| tracker.options.base.path_of(*number));
        if let Some(path) = paths.find(|path| !plan.changes.contains_key(path)) {
            plan.anchors.insert(LinkGroup::Base(number), path);
        }
    }
}

fn plan_overlay(
    tracker: &Tracker,
    attributes: OverlayXattrs,
    full: &FullDelta,
) -> Result<RestorePlan, Error> {
    let (found, leftovers) = overlay::read_upper_layer(tracker, attributes)?;
    let mut plan =
        RestorePlan { stale_temps: leftovers, attributes: Some(attributes), ..RestorePlan::default() };
    for (path, is) in found {
        plan.changes.entry(path).or_default().current = Some(is);
    }
    let wants = OverlayPlanner { tracker, full };
    for (path, entry) in full {
        tracker.bounds.check_stopped()?;
        let want = match &entry.after {
            Some(TreeNode::Dir { mode }) => {
                DiskEntry::Directory { mode: *mode, mark: wants.wanted_mark(path) }
            }
            Some(node) => DiskEntry::Node(node.clone()),
            // Where the folder around it hides everything below, nothing has to be hidden.
            None if path.parent().is_some_and(|parent| wants.merges_lower(&parent)) => DiskEntry::Whiteout,
            None => continue,
        };
        let group = link_number(entry.after.as_ref()).map(LinkGroup::Snapshot);
        let spot = plan.changes.entry(path.clone()).or_default();
        (spot.target, spot.group) = (Some(want), group);
        let mut above = path.parent();
        while let Some(folder) = above.filter(|folder| !folder.as_bytes().is_empty()) {
            let spot = plan.changes.entry(folder.clone()).or_default();
            if spot.target.is_some() {
                break;
            }
            spot.target = Some(DiskEntry::Directory {
                mode: wants.wanted_mode(&folder),
                mark: wants.wanted_mark(&folder),
            });
            above = folder.parent();
        }
    }
    Ok(plan)
}

struct OverlayPlanner<'a> {
    tracker: &'a Tracker,
    full: &'a FullDelta,
}

impl OverlayPlanner<'_> {
    fn was_directory(&self, path: &RelPath) -> bool {
        self.tracker.seen.get(path).is_some_and(|item| item.kind == NodeKind::Dir)
    }

    fn wanted_mark(&self, path: &RelPath) -> OverlayMark {
        if self.was_directory(path) { OverlayMark::Merge } else { OverlayMark::Opaque }
    }

    /// Whether a folder stands there that shows the one below it.
    fn merges_lower(&self, path: &RelPath) -> bool {
        let stands = match self.full.get(path) {
            Some(entry) => matches!(entry.after, Some(TreeNode::Dir { .. })),
            None => true,
        };
        stands && self.was_directory(path)
    }

    fn wanted_mode(&self, path: &RelPath) -> u32 {
        match self.full.get(path).and_then(|entry| entry.after.as_ref()) {
            Some(TreeNode::Dir { mode }) => *mode,
            _ => self.tracker.seen.get(path).map_or(0o755, |item| item.mode),
        }
    }
}
