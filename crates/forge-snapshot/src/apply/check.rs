//! Comparison of the repository with the expected state.

use super::error::{ApplyContext, ChangedSince, ConflictReason, Error, Mergeable, PathConflict};
use super::merge::{MAX_MERGE_BYTES, MergeResult, merge_texts};
use super::{MergeMode, RetainedEntry, SETID_BITS};
use crate::bounds::BoundedTally;
use crate::compare::{ContentSources, TreeChange};
use crate::copy;
use crate::host::{self, DIR_OPEN_FLAGS, FileStamp, NodeKind};
use crate::walk::DirListing;
use crate::{RelPath, TreeDelta, TreeNode};
use forge_tree::temp_names::TempNames;
use forge_types::Digest;
use rustix::fs::OFlags;
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

/// Maximum length of a tick of the file system's clock. Two changes within a tick have the same timestamps.
const TICK_NS: i64 = 20_000_000;

/// A change to one path.
pub(super) struct PathAction {
    pub(super) path: RelPath,
    pub(super) before: Option<TreeNode>,
    pub(super) after: Option<TreeNode>,
    /// The current file.
    pub(super) found: Option<FileStamp>,
    pub(super) how: ActionKind,
    /// Whether the current content is that of `before`; false if a merge replaces it.
    pub(super) as_known: bool,
}

/// The kind of a change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ActionKind {
    /// The path is removed.
    Remove,
    /// The path is created or replaced.
    Replace,
    /// Only the permission bits change.
    Mode,
}

/// All changes of an apply.
#[derive(Default)]
pub(super) struct ApplyPlan {
    /// Sorted by path.
    pub(super) acts: Vec<PathAction>,
    pub(super) already: Vec<TreeChange>,
    pub(super) merged: Vec<(RelPath, Vec<u8>)>,
    pub(super) retained: Vec<RetainedEntry>,
}

enum PathVerdict {
    Go(ActionKind),
    Already,
    Conflict(ConflictReason),
}

/// The state of a path.
enum PathState {
    /// The path does not exist; with the topmost missing ancestor, if any.
    Nothing(Option<RelPath>),
    Exists(FileStamp),
    /// An ancestor of the path is not a directory.
    Blocked(RelPath, NodeKind),
}

struct ApplyChecker<'a> {
    sources: &'a ContentSources<'a>,
    root: &'a OwnedFd,
    temps: Option<&'a TempNames>,
    from: &'a TreeDelta,
    changes: HashMap<&'a RelPath, &'a TreeChange>,
}

/// Checks all differences. `learned` are contents that a killed apply had already replaced.
pub(super) fn plan_apply(
    place: &ContentSources<'_>,
    root: &OwnedFd,
    temps: Option<&TempNames>,
    from: &TreeDelta,
    (differences, learned): (&[TreeChange], &HashMap<RelPath, Digest>),
    merge: MergeMode,
) -> Result<ApplyPlan, Error> {
    let wanted = differences.iter().map(|difference| (&difference.path, difference)).collect();
    let checker = ApplyChecker { sources: place, root, temps, from, changes: wanted };
    let mut plan = ApplyPlan::default();
    let mut conflicts: Vec<PathConflict> = Vec::new();
    for difference in differences {
        place.bounds.check_stopped()?;
        let (verdict, found) = checker.judge_change(difference)?;
        match verdict {
            PathVerdict::Go(how) => {
                plan.acts.push(new_action(difference, difference.after.clone(), found, how, true))
            }
            PathVerdict::Already => {
                let mut difference = difference.clone();
                if let (Some(TreeNode::File { content: content @ None, .. }), Some(digest)) =
                    (&mut difference.before, learned.get(&difference.path))
                {
                    *content = Some(*digest);
                }
                plan.already.push(difference);
            }
            // Paths below a conflict are part of it.
            PathVerdict::Conflict(_) if conflicts.iter().any(|c| difference.path.is_below(&c.path)) => {}
            PathVerdict::Conflict(why) => {
                let offer = checker.offer_merge(difference, found.as_ref())?;
                let mergeable = match &offer {
                    MergeOffer::Clean(..) => Mergeable::Clean,
                    MergeOffer::Conflicting(hunks) => Mergeable::Conflicting { hunks: *hunks },
                    MergeOffer::No => Mergeable::No,
                };
                conflicts.push(PathConflict { path: difference.path.clone(), why, merge: mergeable });
                if let MergeOffer::Clean(bytes, after) = offer {
                    plan.acts.push(new_action(difference, Some(after), found, ActionKind::Replace, false));
                    plan.merged.push((difference.path.clone(), bytes));
                }
            }
        }
    }
    checker.retain_occupied_dirs(&mut plan, &mut conflicts)?;
    let merged = merge == MergeMode::Clean && conflicts.iter().all(|c| c.merge == Mergeable::Clean);
    if conflicts.is_empty() || merged {
        check_owners(place, root, &plan)?;
        return Ok(plan);
    }
    Err(Error::Conflicts(conflicts))
}

fn new_action(
    difference: &TreeChange,
    after: Option<TreeNode>,
    found: Option<FileStamp>,
    how: ActionKind,
    as_known: bool,
) -> PathAction {
    PathAction {
        path: difference.path.clone(),
        before: difference.before.clone(),
        after,
        found,
        how,
        as_known,
    }
}

/// Checks that replaced files keep their owner: unless root, the current user becomes the owner. In a repository of
/// another user, root changes only what that user owns: the user may control the run, and must not get root's permissions
/// for the files of other users.
fn check_owners(place: &ContentSources<'_>, root: &OwnedFd, plan: &ApplyPlan) -> Result<(), Error> {
    let uid = rustix::process::geteuid();
    let repository = place.repository;
    if !uid.is_root() {
        for act in &plan.acts {
            if let Some(found) = &act.found
                && act.how == ActionKind::Replace
                && found.uid != uid.as_raw()
            {
                return Err(Error::Owner { path: repository.join(act.path.as_path()), uid: found.uid });
            }
        }
        return Ok(());
    }
    let owner = FileStamp::stat_open(root).apply_context("inspect", repository)?.uid;
    if owner == uid.as_raw() {
        return Ok(());
    }
    let mut parents: HashMap<RelPath, Option<u32>> = HashMap::new();
    for act in &plan.acts {
        let at = repository.join(act.path.as_path());
        // The owner of a directory can remove all files in it.
        if let Some(found) = &act.found
            && act.how != ActionKind::Remove
            && found.uid != owner
        {
            return Err(Error::ThirdOwner { path: at, uid: found.uid, owner });
        }
        let Some(parent) = act.path.parent() else { continue };
        let around = match parents.get(&parent) {
            Some(around) => *around,
            None => {
                let stamp = FileStamp::stat_below(root, &parent).apply_context("inspect", &at)?;
                *parents.entry(parent.clone()).or_insert(stamp.map(|stamp| stamp.uid))
            }
        };
        if let Some(uid) = around
            && uid != owner
        {
            return Err(Error::ThirdOwner { path: repository.join(parent.as_path()), uid, owner });
        }
    }
    Ok(())
}

enum MergeOffer {
    Clean(Vec<u8>, TreeNode),
    Conflicting(usize),
    No,
}

impl ApplyChecker<'_> {
    fn judge_change(&self, difference: &TreeChange) -> Result<(PathVerdict, Option<FileStamp>), Error> {
        let TreeChange { path, before, after } = difference;
        let at = self.sources.repository.join(path.as_path());
        let look = inspect_path(self.root, path).apply_context("inspect", &at)?;
        let nothing = |missing: Option<RelPath>| match (before, after, missing) {
            (_, None, _) => PathVerdict::Already,
            (Some(_), Some(_), _) => {
                PathVerdict::Conflict(ConflictReason::Deleted { since: self.changed_since(path) })
            }
            (None, Some(_), Some(folder)) if !self.makes_directory(&folder) => {
                PathVerdict::Conflict(ConflictReason::Above { directory: folder, is: None })
            }
            (None, Some(_), _) => PathVerdict::Go(ActionKind::Replace),
        };
        Ok(match look {
            PathState::Nothing(missing) => (nothing(missing), None),
            // The blocking file is itself to be changed: its own check decides.
            PathState::Blocked(folder, _) if self.changes.contains_key(&folder) => (nothing(None), None),
            PathState::Blocked(_, _) if after.is_none() => (PathVerdict::Already, None),
            PathState::Blocked(folder, is) => {
                (PathVerdict::Conflict(ConflictReason::Above { directory: folder, is: Some(is) }), None)
            }
            PathState::Exists(stamp) => {
                (self.judge_existing(difference, &stamp).apply_context("read", &at)?, Some(stamp))
            }
        })
    }

    fn changed_since(&self, path: &RelPath) -> ChangedSince {
        if self.from.contains_key(path) { ChangedSince::Applied } else { ChangedSince::Baseline }
    }

    /// Returns whether this apply creates a directory at `path`.
    fn makes_directory(&self, path: &RelPath) -> bool {
        self.changes.get(path).is_some_and(|d| matches!(d.after, Some(TreeNode::Dir { .. })))
    }

    fn judge_existing(&self, difference: &TreeChange, stamp: &FileStamp) -> io::Result<PathVerdict> {
        let TreeChange { path, before, after } = difference;
        let mut content = None;
        let known_content = matches!(before, Some(TreeNode::File { content: Some(_), .. }));
        let untouched = !self.from.contains_key(path)
            && before.is_some()
            && match known_content {
                true => {
                    self.sources.base.stamp_matches(path, Some(stamp))
                        && stamp.ctime_ns <= self.sources.base.scanned_at_ns() - TICK_NS
                }
                false => self.sources.base.get(path).is_some_and(|item| {
                    // Without a known content, ignore the inode change time, which changes when an apply is
                    // reverted.
                    item.matches_stamp(&FileStamp { ctime_ns: item.ctime_ns, ..*stamp })
                }),
            };
        if !untouched {
            if let Some(after) = after
                && self.matches_node(path, stamp, after, &mut content)?
            {
                return Ok(PathVerdict::Already);
            }
            match (before, after) {
                // The directory already exists; its permissions are up to its creator, unless a killed apply created
                // it and could not yet remove the write permission.
                (None, Some(TreeNode::Dir { mode })) if stamp.kind == NodeKind::Dir => {
                    let half_made = stamp.mode == mode | 0o700;
                    return Ok(if half_made {
                        PathVerdict::Go(ActionKind::Mode)
                    } else {
                        PathVerdict::Already
                    });
                }
                (Some(TreeNode::Dir { .. }), None) if stamp.kind == NodeKind::Dir => {}
                (Some(before), _) => {
                    if !self.matches_node(path, stamp, before, &mut content)? {
                        return Ok(PathVerdict::Conflict(self.conflict_reason(path, before, stamp, content)));
                    }
                }
                (None, _) => return Ok(PathVerdict::Conflict(ConflictReason::New { is: stamp.kind })),
            }
        }
        Ok(PathVerdict::Go(match (before, after) {
            (_, None) => ActionKind::Remove,
            (Some(TreeNode::Dir { .. }), Some(TreeNode::Dir { .. })) => ActionKind::Mode,
            (Some(TreeNode::Fifo { .. }), Some(TreeNode::Fifo { .. })) => ActionKind::Mode,
            (
                Some(TreeNode::File { content: Some(a), size: n, .. }),
                Some(TreeNode::File { content: Some(b), size: m, .. }),
            ) if a == b && n == m => ActionKind::Mode,
            _ => ActionKind::Replace,
        }))
    }

    /// Returns whether the path's current state is `node`. `content` is its digest, once read.
    fn matches_node(
        &self,
        path: &RelPath,
        stamp: &FileStamp,
        node: &TreeNode,
        content: &mut Option<Digest>,
    ) -> io::Result<bool> {
        Ok(match node {
            TreeNode::File { mode, size, content: wanted, .. } => {
                if stamp.kind != NodeKind::File || stamp.size != *size {
                    return Ok(false);
                }
                let Some(wanted) = wanted.or_else(|| self.sources.learn_elsewhere(path, *size)) else {
                    return Ok(false);
                };
                if content.is_none() {
                    let bounds = self.sources.bounds;
                    bounds.check_file_size(stamp.size, || self.sources.repository.join(path.as_path()))?;
                    *content = Some(copy::hash_file(&open_file_below(self.root, path)?, bounds)?.0);
                }
                stamp.mode == *mode && *content == Some(wanted)
            }
            TreeNode::Symlink { target } => {
                let Some((parent, name)) = host::split_path(path) else { return Ok(false) };
                stamp.kind == NodeKind::Symlink
                    && host::read_link(open_directory(self.root, parent)?, name)? == *target
            }
            TreeNode::Dir { mode } => stamp.kind == NodeKind::Dir && stamp.mode == *mode,
            TreeNode::Fifo { mode } => stamp.kind == NodeKind::Fifo && stamp.mode == *mode,
        })
    }

    fn conflict_reason(
        &self,
        path: &RelPath,
        before: &TreeNode,
        stamp: &FileStamp,
        content: Option<Digest>,
    ) -> ConflictReason {
        let since = self.changed_since(path);
        let was = match before {
            TreeNode::File { .. } => NodeKind::File,
            TreeNode::Symlink { .. } => NodeKind::Symlink,
            TreeNode::Dir { .. } => NodeKind::Dir,
            TreeNode::Fifo { .. } => NodeKind::Fifo,
        };
        match before {
            _ if was != stamp.kind => ConflictReason::Retyped { was, is: stamp.kind },
            TreeNode::File { content: known, .. } if content.is_some() && content == *known => {
                ConflictReason::Permissions { since }
            }
            TreeNode::File { .. } | TreeNode::Symlink { .. } => ConflictReason::Changed { since },
            TreeNode::Dir { .. } | TreeNode::Fifo { .. } => ConflictReason::Permissions { since },
        }
    }

    /// Determines whether both changes of a file can be combined.
    fn offer_merge(&self, difference: &TreeChange, found: Option<&FileStamp>) -> Result<MergeOffer, Error> {
        let (
            Some(before @ TreeNode::File { mode: base_mode, .. }),
            Some(after @ TreeNode::File { mode, mtime_ns, .. }),
        ) = (&difference.before, &difference.after)
        else {
            return Ok(MergeOffer::No);
        };
        let Some(found) = found.filter(|found| found.kind == NodeKind::File && found.size <= MAX_MERGE_BYTES)
        else {
            return Ok(MergeOffer::No);
        };
        let at = self.sources.repository.join(difference.path.as_path());
        let Some(base) = self
            .sources
            .read_content(&difference.path, before, MAX_MERGE_BYTES)
            .apply_context("read", &at)?
        else {
            return Ok(MergeOffer::No);
        };
        let Some(theirs) =
            self.sources.read_content(&difference.path, after, MAX_MERGE_BYTES).apply_context("read", &at)?
        else {
            return Ok(MergeOffer::No);
        };
        let mut ours = Vec::new();
        let read = open_file_below(self.root, &difference.path).and_then(|file| {
            use std::io::Read as _;
            file.take(MAX_MERGE_BYTES + 1).read_to_end(&mut ours)
        });
        read.apply_context("read", &at)?;
        let mode = match (found.mode == *base_mode, mode == base_mode) {
            (true, _) => *mode,
            (_, true) => found.mode,
            _ if found.mode == *mode => *mode,
            _ => return Ok(MergeOffer::No),
        };
        Ok(match merge_texts(&base, &ours, &theirs) {
            MergeResult::Clean(bytes) => {
                let (mode, size, content) =
                    (mode & !SETID_BITS, bytes.len() as u64, Some(Digest::of_bytes(&bytes)));
                MergeOffer::Clean(
                    bytes,
                    TreeNode::File { mode, size, mtime_ns: *mtime_ns, content, links: None },
                )
            }
            MergeResult::Conflicting { hunks } => MergeOffer::Conflicting(hunks),
            MergeResult::No => MergeOffer::No,
        })
    }

    /// Handles directories that are to be removed but contain entries unknown to the run: they are retained, or are
    /// conflicts if they are to be replaced.
    fn retain_occupied_dirs(
        &self,
        plan: &mut ApplyPlan,
        conflicts: &mut Vec<PathConflict>,
    ) -> Result<(), Error> {
        let mut gone: HashSet<RelPath> = plan
            .acts
            .iter()
            .filter(|act| act.how == ActionKind::Remove)
            .map(|act| act.path.clone())
            .collect();
        let mut stay = HashSet::new();
        for act in plan.acts.iter().rev() {
            self.sources.bounds.check_stopped()?;
            let leaves = act.found.is_some_and(|found| found.kind == NodeKind::Dir)
                && (act.how == ActionKind::Remove || (act.how == ActionKind::Replace));
            if !leaves {
                continue;
            }
            let at = self.sources.repository.join(act.path.as_path());
            let Some(entry) = find_foreign_entry(self.sources, self.root, self.temps, &act.path, &gone)
                .apply_context("read", &at)?
            else {
                continue;
            };
            if act.how == ActionKind::Replace {
                let why = ConflictReason::Holds { entry };
                conflicts.push(PathConflict { path: act.path.clone(), why, merge: Mergeable::No });
                continue;
            }
            gone.remove(&act.path);
            // Ancestors are retained only because of this directory, so only this one is reported.
            if !stay.contains(&entry) {
                plan.retained.push(RetainedEntry { path: act.path.clone(), holds: entry });
            }
            stay.insert(act.path.clone());
        }
        plan.retained.reverse();
        plan.acts.retain(|act| !stay.contains(&act.path));
        Ok(())
    }
}

/// Finds an entry of a directory that is neither in `gone` nor one of `temps`.
pub(super) fn find_foreign_entry(
    place: &ContentSources<'_>,
    root: &OwnedFd,
    temps: Option<&TempNames>,
    path: &RelPath,
    gone: &HashSet<RelPath>,
) -> io::Result<Option<RelPath>> {
    let folder = host::open_below(root.as_fd(), path.as_bytes(), DIR_OPEN_FLAGS)?;
    let listing = DirListing::read(&folder, &BoundedTally::of_tree(place.bounds, place.repository))?;
    let is_temp = |name: &[u8]| temps.is_some_and(|temps| temps.contains(name));
    let names = listing.iter().map(|(name, _)| name).filter(|name| !is_temp(name));
    Ok(names.map(|name| path.join(name)).find(|entry| !gone.contains(entry)))
}

/// Opens a directory below `root` to access its entries.
pub(super) fn open_directory(root: &OwnedFd, path: &[u8]) -> io::Result<OwnedFd> {
    host::open_below(root.as_fd(), path, OFlags::PATH | DIR_OPEN_FLAGS)
}

/// Opens a regular file below `root` for reading.
pub(super) fn open_file_below(root: &OwnedFd, path: &RelPath) -> io::Result<File> {
    let (parent, name) = host::split_path(path).ok_or(io::ErrorKind::IsADirectory)?;
    host::open_file(open_directory(root, parent)?, name)
}

fn inspect_path(root: &OwnedFd, path: &RelPath) -> io::Result<PathState> {
    let Some((parent, name)) = host::split_path(path) else {
        return FileStamp::stat_open(root).map(PathState::Exists);
    };
    match open_directory(root, parent) {
        Ok(parent) => match FileStamp::stat_at(&parent, name) {
            Ok(stamp) => Ok(PathState::Exists(stamp)),
            Err(error) if host::is_absent(&error) => Ok(PathState::Nothing(None)),
            Err(error) => Err(error),
        },
        Err(error) if host::is_absent(&error) => {
            let mut at = RelPath::default();
            for part in RelPath::new(parent).unwrap_or_default().components() {
                at = at.join(part);
                match FileStamp::stat_below(root, &at)? {
                    None => return Ok(PathState::Nothing(Some(at))),
                    Some(stamp) if stamp.kind != NodeKind::Dir => {
                        return Ok(PathState::Blocked(at, stamp.kind));
                    }
                    Some(_) => {}
                }
            }
            Ok(PathState::Nothing(None))
        }
        Err(error) => Err(error),
    }
}
