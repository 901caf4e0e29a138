//! Comparison of the target files of a snapshot with the files on disk.

use super::disk_entry::{DiskEntry, OverlayMark};
use super::overlay;
use super::scan::ContentPolicy;
use super::{FullDelta, Layout, OverlayXattrs, Tracker};
use crate::error::Error;
use crate::host::NodeKind;
use crate::node::{RelPath, TreeNode};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// A group of hard links.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum LinkGroup {
    /// The group's number in the snapshot.
    Snapshot(u64),
    /// The inode number in the baseline.
    Base(u64),
}

/// A path that may have to be changed.
#[derive(Debug, Default)]
pub(super) struct PathChange {
    /// The current state; hard links have the file's inode number.
    pub(super) current: Option<DiskEntry>,
    /// The target state.
    pub(super) target: Option<DiskEntry>,
    pub(super) group: Option<LinkGroup>,
}

/// All paths that may have to be changed.
#[derive(Debug, Default)]
pub(super) struct RestorePlan {
    pub(super) changes: BTreeMap<RelPath, PathChange>,
    /// Names of hard link groups that remain unchanged.
    pub(super) anchors: HashMap<LinkGroup, RelPath>,
    /// The namespace of the marks.
    pub(super) attributes: Option<OverlayXattrs>,
}

/// Plans the restore to the snapshot with this delta, without changing anything.
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
    let mut plan = RestorePlan::default();
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

/// Finds unmodified files that need further hard links.
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
    let found = overlay::read_upper_layer(tracker, attributes)?;
    let mut plan = RestorePlan { attributes: Some(attributes), ..RestorePlan::default() };
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
            // An opaque parent hides everything below, so no whiteout is needed.
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

    /// Returns whether the target is a directory that shows its lower directory.
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
