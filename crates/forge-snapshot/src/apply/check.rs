//! What stands in the repository, and whether it is what it should be.

use super::error::{Conflict, Doing, Error, Mergeable, Since, Why};
use super::merge::{LARGEST, Merged, merge};
use super::{Kept, LENDS, Merge};
use crate::bounds::Tally;
use crate::compare::{Difference, Sources};
use crate::copy;
use crate::host::{self, FOLDER, Kind, Stamp, TEMP_PREFIX};
use crate::walk::Listing;
use crate::{Delta, Node, RelPath};
use forge_types::Digest;
use rustix::fs::OFlags;
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

/// Two changes in one tick of the file system's clock have the same times. A tick is at most this long.
const TICK_NS: i64 = 20_000_000;

/// One path that is to change.
pub(super) struct Act {
    pub(super) path: RelPath,
    pub(super) before: Option<Node>,
    pub(super) after: Option<Node>,
    /// What stands there now.
    pub(super) found: Option<Stamp>,
    pub(super) how: How,
    /// Whether the content of `before` is what stands there: not so for what a merge replaces.
    pub(super) as_known: bool,
}

/// How a path changes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum How {
    /// Nothing will stand there.
    Remove,
    /// Something takes the place of what stands there, if anything does.
    Put,
    /// Permission bits only.
    Mode,
}

/// Everything that is to be done.
#[derive(Default)]
pub(super) struct Plan {
    /// Ordered by path.
    pub(super) acts: Vec<Act>,
    pub(super) already: Vec<Difference>,
    pub(super) merged: Vec<(RelPath, Vec<u8>)>,
    pub(super) kept: Vec<Kept>,
}

enum Verdict {
    Go(How),
    Already,
    Conflict(Why),
}

/// What a path leads to.
enum Look {
    /// Nothing; and if a folder above it is missing, the highest of those.
    Nothing(Option<RelPath>),
    Stands(Stamp),
    /// A part of the way is no folder.
    Blocked(RelPath, Kind),
}

struct Checker<'a> {
    place: &'a Sources<'a>,
    root: &'a OwnedFd,
    from: &'a Delta,
    wanted: HashMap<&'a RelPath, &'a Difference>,
}

/// Checks every difference. `learned` are contents that an apply that was killed had replaced already.
pub(super) fn plan(
    place: &Sources<'_>,
    root: &OwnedFd,
    from: &Delta,
    differences: &[Difference],
    learned: &HashMap<RelPath, Digest>,
    merge: Merge,
) -> Result<Plan, Error> {
    let wanted = differences.iter().map(|difference| (&difference.path, difference)).collect();
    let checker = Checker { place, root, from, wanted };
    let mut plan = Plan::default();
    let mut conflicts: Vec<Conflict> = Vec::new();
    for difference in differences {
        place.bounds.check()?;
        let (verdict, found) = checker.judge(difference)?;
        match verdict {
            Verdict::Go(how) => plan.acts.push(act(difference, difference.after.clone(), found, how, true)),
            Verdict::Already => {
                let mut difference = difference.clone();
                if let (Some(Node::File { content: content @ None, .. }), Some(digest)) =
                    (&mut difference.before, learned.get(&difference.path))
                {
                    *content = Some(*digest);
                }
                plan.already.push(difference);
            }
            // What lies below a conflict is one with it.
            Verdict::Conflict(_) if conflicts.iter().any(|c| difference.path.is_below(&c.path)) => {}
            Verdict::Conflict(why) => {
                let offer = checker.offer(difference, found.as_ref())?;
                let mergeable = match &offer {
                    Offer::Clean(..) => Mergeable::Clean,
                    Offer::Conflicting(hunks) => Mergeable::Conflicting { hunks: *hunks },
                    Offer::No => Mergeable::No,
                };
                conflicts.push(Conflict { path: difference.path.clone(), why, merge: mergeable });
                if let Offer::Clean(bytes, after) = offer {
                    plan.acts.push(act(difference, Some(after), found, How::Put, false));
                    plan.merged.push((difference.path.clone(), bytes));
                }
            }
        }
    }
    checker.keep_what_holds_others(&mut plan, &mut conflicts)?;
    let merged = merge == Merge::Clean && conflicts.iter().all(|c| c.merge == Mergeable::Clean);
    if conflicts.is_empty() || merged {
        owners(place, &plan)?;
        return Ok(plan);
    }
    Err(Error::Conflicts(conflicts))
}

fn act(difference: &Difference, after: Option<Node>, found: Option<Stamp>, how: How, as_known: bool) -> Act {
    Act { path: difference.path.clone(), before: difference.before.clone(), after, found, how, as_known }
}

/// A file that is replaced becomes ours unless we are root.
fn owners(place: &Sources<'_>, plan: &Plan) -> Result<(), Error> {
    let uid = rustix::process::geteuid();
    if uid.is_root() {
        return Ok(());
    }
    for act in &plan.acts {
        if let Some(found) = &act.found
            && act.how == How::Put
            && found.uid != uid.as_raw()
        {
            return Err(Error::Owner { path: place.repository.join(act.path.as_path()), uid: found.uid });
        }
    }
    Ok(())
}

enum Offer {
    Clean(Vec<u8>, Node),
    Conflicting(usize),
    No,
}

impl Checker<'_> {
    fn judge(&self, difference: &Difference) -> Result<(Verdict, Option<Stamp>), Error> {
        let Difference { path, before, after } = difference;
        let at = self.place.repository.join(path.as_path());
        let look = look(self.root, path).doing("look at", &at)?;
        let nothing = |missing: Option<RelPath>| match (before, after, missing) {
            (_, None, _) => Verdict::Already,
            (Some(_), Some(_), _) => Verdict::Conflict(Why::Deleted { since: self.since(path) }),
            (None, Some(_), Some(folder)) if !self.makes_folder(&folder) => {
                Verdict::Conflict(Why::Above { folder, is: None })
            }
            (None, Some(_), _) => Verdict::Go(How::Put),
        };
        Ok(match look {
            Look::Nothing(missing) => (nothing(missing), None),
            // What stands in the way is to change itself: its own check says whether it may.
            Look::Blocked(folder, _) if self.wanted.contains_key(&folder) => (nothing(None), None),
            Look::Blocked(_, _) if after.is_none() => (Verdict::Already, None),
            Look::Blocked(folder, is) => (Verdict::Conflict(Why::Above { folder, is: Some(is) }), None),
            Look::Stands(stamp) => (self.stands(difference, &stamp).doing("read", &at)?, Some(stamp)),
        })
    }

    fn since(&self, path: &RelPath) -> Since {
        if self.from.contains_key(path) { Since::Applied } else { Since::Beginning }
    }

    /// Whether this apply makes a folder at `path`.
    fn makes_folder(&self, path: &RelPath) -> bool {
        self.wanted.get(path).is_some_and(|d| matches!(d.after, Some(Node::Dir { .. })))
    }

    fn stands(&self, difference: &Difference, stamp: &Stamp) -> io::Result<Verdict> {
        let Difference { path, before, after } = difference;
        let mut content = None;
        let known_content = matches!(before, Some(Node::File { content: Some(_), .. }));
        let untouched = !self.from.contains_key(path)
            && before.is_some()
            && match known_content {
                true => {
                    self.place.base.stamp_matches(path, Some(stamp))
                        && stamp.ctime_ns <= self.place.base.taken_ns() - TICK_NS
                }
                false => self.place.base.get(path).is_some_and(|item| {
                    // Nothing better is known of it, so an apply that was taken back, which moves the time of its
                    // last change of anything, must not make it look changed.
                    item.matches(&Stamp { ctime_ns: item.ctime_ns, ..*stamp })
                }),
            };
        if !untouched {
            if let Some(after) = after
                && self.is(path, stamp, after, &mut content)?
            {
                return Ok(Verdict::Already);
            }
            match (before, after) {
                // A folder of this name is what was wanted; its permissions are its maker's matter, unless this
                // is a new folder of an apply that was killed before it could take away its own right to write.
                (None, Some(Node::Dir { mode })) if stamp.kind == Kind::Dir => {
                    let half_made = stamp.mode == mode | 0o700;
                    return Ok(if half_made { Verdict::Go(How::Mode) } else { Verdict::Already });
                }
                (Some(Node::Dir { .. }), None) if stamp.kind == Kind::Dir => {}
                (Some(before), _) => {
                    if !self.is(path, stamp, before, &mut content)? {
                        return Ok(Verdict::Conflict(self.why(path, before, stamp, content)));
                    }
                }
                (None, _) => return Ok(Verdict::Conflict(Why::New { is: stamp.kind })),
            }
        }
        Ok(Verdict::Go(match (before, after) {
            (_, None) => How::Remove,
            (Some(Node::Dir { .. }), Some(Node::Dir { .. })) => How::Mode,
            (Some(Node::Fifo { .. }), Some(Node::Fifo { .. })) => How::Mode,
            (
                Some(Node::File { content: Some(a), size: n, .. }),
                Some(Node::File { content: Some(b), size: m, .. }),
            ) if a == b && n == m => How::Mode,
            _ => How::Put,
        }))
    }

    /// Whether what stands at a path is `node`. `content` is its digest, once it was read.
    fn is(
        &self,
        path: &RelPath,
        stamp: &Stamp,
        node: &Node,
        content: &mut Option<Digest>,
    ) -> io::Result<bool> {
        Ok(match node {
            Node::File { mode, size, content: wanted, .. } => {
                if stamp.kind != Kind::File || stamp.size != *size {
                    return Ok(false);
                }
                let Some(wanted) = wanted.or_else(|| self.place.learn_elsewhere(path, *size)) else {
                    return Ok(false);
                };
                if content.is_none() {
                    let bounds = self.place.bounds;
                    bounds.file(stamp.size, || self.place.repository.join(path.as_path()))?;
                    *content = Some(copy::digest(&open(self.root, path)?, bounds)?.0);
                }
                stamp.mode == *mode && *content == Some(wanted)
            }
            Node::Symlink { target } => {
                let Some((parent, name)) = host::split(path) else { return Ok(false) };
                stamp.kind == Kind::Symlink && host::read_link(folder(self.root, parent)?, name)? == *target
            }
            Node::Dir { mode } => stamp.kind == Kind::Dir && stamp.mode == *mode,
            Node::Fifo { mode } => stamp.kind == Kind::Fifo && stamp.mode == *mode,
        })
    }

    fn why(&self, path: &RelPath, before: &Node, stamp: &Stamp, content: Option<Digest>) -> Why {
        let since = self.since(path);
        let was = match before {
            Node::File { .. } => Kind::File,
            Node::Symlink { .. } => Kind::Symlink,
            Node::Dir { .. } => Kind::Dir,
            Node::Fifo { .. } => Kind::Fifo,
        };
        match before {
            _ if was != stamp.kind => Why::Retyped { was, is: stamp.kind },
            Node::File { content: known, .. } if content.is_some() && content == *known => {
                Why::Permissions { since }
            }
            Node::File { .. } | Node::Symlink { .. } => Why::Changed { since },
            Node::Dir { .. } | Node::Fifo { .. } => Why::Permissions { since },
        }
    }

    /// Whether both changes of a file can be had.
    fn offer(&self, difference: &Difference, found: Option<&Stamp>) -> Result<Offer, Error> {
        let (
            Some(before @ Node::File { mode: base_mode, .. }),
            Some(after @ Node::File { mode, mtime_ns, .. }),
        ) = (&difference.before, &difference.after)
        else {
            return Ok(Offer::No);
        };
        let Some(found) = found.filter(|found| found.kind == Kind::File && found.size <= LARGEST) else {
            return Ok(Offer::No);
        };
        let at = self.place.repository.join(difference.path.as_path());
        let Some(base) = self.place.read(&difference.path, before, LARGEST).doing("read", &at)? else {
            return Ok(Offer::No);
        };
        let Some(theirs) = self.place.read(&difference.path, after, LARGEST).doing("read", &at)? else {
            return Ok(Offer::No);
        };
        let mut ours = Vec::new();
        let read = open(self.root, &difference.path).and_then(|file| {
            use std::io::Read as _;
            file.take(LARGEST + 1).read_to_end(&mut ours)
        });
        read.doing("read", &at)?;
        let mode = match (found.mode == *base_mode, mode == base_mode) {
            (true, _) => *mode,
            (_, true) => found.mode,
            _ if found.mode == *mode => *mode,
            _ => return Ok(Offer::No),
        };
        Ok(match merge(&base, &ours, &theirs) {
            Merged::Clean(bytes) => {
                let (mode, size, content) = (mode & !LENDS, bytes.len() as u64, Some(Digest::of(&bytes)));
                Offer::Clean(bytes, Node::File { mode, size, mtime_ns: *mtime_ns, content, links: None })
            }
            Merged::Conflicting { hunks } => Offer::Conflicting(hunks),
            Merged::No => Offer::No,
        })
    }

    /// Folders that should go away and hold what the run knows nothing of: they stay if nothing is to take their
    /// place, else they are conflicts.
    fn keep_what_holds_others(&self, plan: &mut Plan, conflicts: &mut Vec<Conflict>) -> Result<(), Error> {
        let mut gone: HashSet<RelPath> =
            plan.acts.iter().filter(|act| act.how == How::Remove).map(|act| act.path.clone()).collect();
        let mut stay = HashSet::new();
        for act in plan.acts.iter().rev() {
            self.place.bounds.check()?;
            let leaves = act.found.is_some_and(|found| found.kind == Kind::Dir)
                && (act.how == How::Remove || (act.how == How::Put));
            if !leaves {
                continue;
            }
            let at = self.place.repository.join(act.path.as_path());
            let Some(entry) = others(self.place, self.root, &act.path, &gone).doing("read", &at)? else {
                continue;
            };
            if act.how == How::Put {
                let why = Why::Holds { entry };
                conflicts.push(Conflict { path: act.path.clone(), why, merge: Mergeable::No });
                continue;
            }
            gone.remove(&act.path);
            // The folders above it stay for its sake: it alone is named.
            if !stay.contains(&entry) {
                plan.kept.push(Kept { path: act.path.clone(), holds: entry });
            }
            stay.insert(act.path.clone());
        }
        plan.kept.reverse();
        plan.acts.retain(|act| !stay.contains(&act.path));
        Ok(())
    }
}

/// An entry of a folder that is neither in `gone` nor one of forge's own.
pub(super) fn others(
    place: &Sources<'_>,
    root: &OwnedFd,
    path: &RelPath,
    gone: &HashSet<RelPath>,
) -> io::Result<Option<RelPath>> {
    let folder = host::open_below(root.as_fd(), path.as_bytes(), FOLDER)?;
    let listing = Listing::read(&folder, &Tally::of_tree(place.bounds, place.repository))?;
    let names = listing.iter().map(|(name, _)| name).filter(|name| !name.starts_with(TEMP_PREFIX));
    Ok(names.map(|name| path.join(name)).find(|entry| !gone.contains(entry)))
}

/// Opens a folder below `root` to reach what is in it.
pub(super) fn folder(root: &OwnedFd, path: &[u8]) -> io::Result<OwnedFd> {
    host::open_below(root.as_fd(), path, OFlags::PATH | FOLDER)
}

/// Opens a regular file below `root` for reading.
pub(super) fn open(root: &OwnedFd, path: &RelPath) -> io::Result<File> {
    let (parent, name) = host::split(path).ok_or(io::ErrorKind::IsADirectory)?;
    host::open_file(folder(root, parent)?, name)
}

fn look(root: &OwnedFd, path: &RelPath) -> io::Result<Look> {
    let Some((parent, name)) = host::split(path) else {
        return Stamp::of_open(root).map(Look::Stands);
    };
    match folder(root, parent) {
        Ok(parent) => match Stamp::of(&parent, name) {
            Ok(stamp) => Ok(Look::Stands(stamp)),
            Err(error) if host::is_absent(&error) => Ok(Look::Nothing(None)),
            Err(error) => Err(error),
        },
        Err(error) if host::is_absent(&error) => {
            let mut at = RelPath::default();
            for part in RelPath::new(parent).unwrap_or_default().parts() {
                at = at.join(part);
                match Stamp::below(root, &at)? {
                    None => return Ok(Look::Nothing(Some(at))),
                    Some(stamp) if stamp.kind != Kind::Dir => return Ok(Look::Blocked(at, stamp.kind)),
                    Some(_) => {}
                }
            }
            Ok(Look::Nothing(None))
        }
        Err(error) => Err(error),
    }
}
