//! What must stand on disk for a snapshot, beside what stands there.

use super::overlay;
use super::scan::{Contents, Full};
use super::{Attributes, Layout, Tracker};
use crate::error::Error;
use crate::host::Kind;
use crate::node::{Node, RelPath};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// A thing on disk, in the workspace's own layout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Thing {
    /// A file, symbolic link or named pipe.
    Node(Node),
    /// A folder.
    Folder {
        /// Permission bits.
        mode: u32,
        /// Its mark, in an upper layer.
        mark: Mark,
    },
    /// In an upper layer: nothing stands here.
    Whiteout,
}

/// What a folder of an upper layer does with the folder below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    /// It shows it. Also every folder that lies in no upper layer.
    Merge,
    /// It hides it.
    Opaque,
    /// It shows another one. Never wanted.
    Redirect,
}

/// Which files are to be hard links to one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Group {
    /// By the number that the snapshot gives them.
    Snapshot(u64),
    /// As at the beginning.
    Base(u64),
}

/// One path that may have to be touched.
#[derive(Debug, Default)]
pub(super) struct Spot {
    /// What stands there; hard links bear the file's own number.
    pub(super) is: Option<Thing>,
    /// What must stand there.
    pub(super) want: Option<Thing>,
    pub(super) group: Option<Group>,
}

/// Everything that may have to be touched.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) spots: BTreeMap<RelPath, Spot>,
    /// Names of groups of links that stay as they are.
    pub(super) anchors: HashMap<Group, RelPath>,
    pub(super) leftovers: Vec<RelPath>,
    /// How marks are written.
    pub(super) attributes: Option<Attributes>,
}

/// What to do to get to the snapshot with this delta. Touches nothing.
pub(super) fn plan(tracker: &Tracker, full: Full) -> Result<Plan, Error> {
    for entry in full.values() {
        if let Some(Node::File { content: Some(digest), .. }) = entry.now
            && !tracker.options.objects.contains(digest)
        {
            return Err(Error::Missing { digest });
        }
    }
    match tracker.options.layout {
        Layout::Overlay { attributes, .. } => upper(tracker, attributes, &full),
        Layout::Whole { .. } => whole(tracker, &full),
    }
}

fn thing(node: Node) -> Thing {
    match node {
        Node::Dir { mode } => Thing::Folder { mode, mark: Mark::Merge },
        node => Thing::Node(node),
    }
}

fn whole(tracker: &Tracker, full: &Full) -> Result<Plan, Error> {
    let touched = tracker.scan(Contents::Leave)?.into_touched();
    let paths: BTreeSet<&RelPath> = touched.now.keys().chain(full.keys()).collect();
    let mut plan = Plan { leftovers: touched.leftovers, ..Plan::default() };
    for path in paths {
        tracker.bounds.check()?;
        let beginning = || {
            let mut node = tracker.seen.get(path).and_then(|_| tracker.options.base.node(path))?;
            if let Node::File { content, .. } = &mut node {
                *content = tracker.known().was(tracker.options.base.find(path));
            }
            Some(node)
        };
        let is = match touched.now.get(path) {
            Some(now) => now.clone(),
            None => beginning(),
        };
        let (want, group) = match full.get(path) {
            Some(entry) => (entry.now.clone(), links(entry.now.as_ref()).map(Group::Snapshot)),
            None => {
                let node = beginning();
                let group = links(node.as_ref()).map(Group::Base);
                (node, group)
            }
        };
        plan.spots.insert(path.clone(), Spot { is: is.map(thing), want: want.map(thing), group });
    }
    anchors(tracker, &mut plan);
    Ok(plan)
}

fn links(node: Option<&Node>) -> Option<u64> {
    match node {
        Some(Node::File { links, .. }) => *links,
        _ => None,
    }
}

/// Finds untouched files that further names are to be made for.
fn anchors(tracker: &Tracker, plan: &mut Plan) {
    let wanted: BTreeSet<u64> = plan
        .spots
        .values()
        .filter_map(|spot| match spot.group {
            Some(Group::Base(number)) => Some(number),
            _ => None,
        })
        .collect();
    for number in wanted {
        let names = tracker.links_at_first().get(&number).into_iter().flatten();
        let mut paths = names.map(|number| tracker.options.base.path(*number));
        if let Some(path) = paths.find(|path| !plan.spots.contains_key(path)) {
            plan.anchors.insert(Group::Base(number), path);
        }
    }
}

fn upper(tracker: &Tracker, attributes: Attributes, full: &Full) -> Result<Plan, Error> {
    let (found, leftovers) = overlay::layer(tracker, attributes)?;
    let mut plan = Plan { leftovers, attributes: Some(attributes), ..Plan::default() };
    for (path, is) in found {
        plan.spots.entry(path).or_default().is = Some(is);
    }
    let wants = Wants { tracker, full };
    for (path, entry) in full {
        tracker.bounds.check()?;
        let want = match &entry.now {
            Some(Node::Dir { mode }) => Thing::Folder { mode: *mode, mark: wants.mark(path) },
            Some(node) => Thing::Node(node.clone()),
            // Where the folder around it hides everything below, nothing has to be hidden.
            None if path.parent().is_some_and(|parent| wants.merges(&parent)) => Thing::Whiteout,
            None => continue,
        };
        let group = links(entry.now.as_ref()).map(Group::Snapshot);
        let spot = plan.spots.entry(path.clone()).or_default();
        (spot.want, spot.group) = (Some(want), group);
        let mut above = path.parent();
        while let Some(folder) = above.filter(|folder| !folder.as_bytes().is_empty()) {
            let spot = plan.spots.entry(folder.clone()).or_default();
            if spot.want.is_some() {
                break;
            }
            spot.want = Some(Thing::Folder { mode: wants.mode(&folder), mark: wants.mark(&folder) });
            above = folder.parent();
        }
    }
    Ok(plan)
}

struct Wants<'a> {
    tracker: &'a Tracker,
    full: &'a Full,
}

impl Wants<'_> {
    fn was_folder(&self, path: &RelPath) -> bool {
        self.tracker.seen.get(path).is_some_and(|item| item.kind == Kind::Dir)
    }

    fn mark(&self, path: &RelPath) -> Mark {
        if self.was_folder(path) { Mark::Merge } else { Mark::Opaque }
    }

    /// Whether a folder stands there that shows the one below it.
    fn merges(&self, path: &RelPath) -> bool {
        let stands = match self.full.get(path) {
            Some(entry) => matches!(entry.now, Some(Node::Dir { .. })),
            None => true,
        };
        stands && self.was_folder(path)
    }

    fn mode(&self, path: &RelPath) -> u32 {
        match self.full.get(path).and_then(|entry| entry.now.as_ref()) {
            Some(Node::Dir { mode }) => *mode,
            _ => self.tracker.seen.get(path).map_or(0o755, |item| item.mode),
        }
    }
}
