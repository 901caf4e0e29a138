//! Bringing a repository from one state to another: conflict check, three-way merge, all or nothing.
//!
//! An apply has five parts, and only the third changes what a person sees:
//! 1. *check*: what stands in the repository at every path that is to change must be what the first state says;
//! 2. *stage*: new contents are written under temporary names beside the places they are for;
//! 3. *act*: renames, each of one path, each undone if a later one fails;
//! 4. *sync*: everything is made durable;
//! 5. *clean*: what was replaced, and held aside until now, is removed.
//!
//! A process that is killed in between leaves a repository in which each path is either as before or as wanted;
//! applying the same again finishes the work. Paths are reached by descriptors, through no symbolic link and never
//! outside the repository. Setuid and setgid bits that a run gave to a file are left out: what it wrote would run with
//! the rights of the repository's owner. Extended attributes are not carried over; names that are hard links of one
//! another and of which one is replaced are separate files afterwards.

mod act;
mod check;
mod error;
mod leftovers;
mod lock;
mod merge;
mod stage;

pub use error::{Conflict, Error, Mergeable, Since, Why};
pub use lock::{Guard, Wait, lock};
pub use merge::{Merged, merge};

use crate::bounds::Bounds;
use crate::compare::{Difference, Sources, compare};
use crate::{Delta, Entry, Node, RelPath, host};
use check::How;
use error::Doing;
use forge_types::Digest;
use std::borrow::Cow;
use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

/// Setuid and setgid.
const LENDS: u32 = 0o6000;

/// What to do with text files that the repository changed as well.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Merge {
    /// They are conflicts.
    #[default]
    No,
    /// Merged if every one of them merges cleanly, else conflicts.
    Clean,
}

/// A moment of an apply, told before it happens.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step<'a> {
    /// New content is written beside this path.
    Stage(&'a RelPath),
    /// This path changes.
    Act(&'a RelPath),
    /// Everything is made durable.
    Sync,
    /// What was replaced at this path is removed. An error is no use any more: the apply is done.
    Clean(&'a RelPath),
}

/// Is told of each step before it happens; an error ends the apply, and the repository is put back as it was.
pub type Watch<'a> = dyn FnMut(Step<'_>) -> io::Result<()> + 'a;

/// How to apply.
#[derive(Default)]
pub struct Options<'a> {
    /// Text files that changed on both sides.
    pub merge: Merge,
    /// Is told of each step: progress, cancelling, faults in tests.
    pub watch: Option<&'a mut Watch<'a>>,
}

/// Something that was left standing although the wanted state has nothing there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Kept {
    /// The folder.
    pub path: RelPath,
    /// An entry of it that the run knows nothing of.
    pub holds: RelPath,
}

/// What an apply did.
#[derive(Clone, Debug, Default)]
pub struct Applied {
    /// What changed, with complete nodes: the content of each file that was replaced or removed is in the store.
    pub changed: Vec<Difference>,
    /// Paths that already stood as wanted.
    pub already: Vec<Difference>,
    /// Paths of `changed` whose content is a merge of both sides.
    pub merged: Vec<RelPath>,
    /// Folders that stay because they hold something of a person.
    pub kept: Vec<Kept>,
}

impl Applied {
    /// What changed in the repository: the entries of a delta, ordered by path.
    pub fn record(&self) -> impl Iterator<Item = (RelPath, Entry)> + '_ {
        let entry = |d: &Difference| Entry { was: d.before.clone(), now: d.after.clone() };
        self.changed.iter().map(move |d| (d.path.clone(), entry(d)))
    }

    /// Fills in, in a delta of the same run, what this apply learned of the beginning: contents that were never read,
    /// and permissions that a person gave to folders since. With them a later apply can bring them back.
    pub fn complete(&self, delta: &mut Delta) {
        for difference in self.changed.iter().chain(&self.already) {
            let Some(Entry { was: Some(was), .. }) = delta.get_mut(&difference.path) else { continue };
            match (was, &difference.before) {
                (
                    Node::File { size, content: content @ None, .. },
                    Some(Node::File { size: size2, content: learned, .. }),
                ) if size == size2 => *content = *learned,
                (Node::Dir { mode }, Some(Node::Dir { mode: found })) => *mode = *found,
                _ => {}
            }
        }
    }
}

/// What an apply would do.
#[derive(Clone, Debug, Default)]
pub struct Preview {
    /// What would change.
    pub changes: Vec<Difference>,
    /// Paths that already stand as wanted.
    pub already: Vec<RelPath>,
    /// Paths of `changes` whose content would be a merge of both sides.
    pub merged: Vec<RelPath>,
    /// Folders that would stay because they hold something of a person.
    pub kept: Vec<Kept>,
}

/// Looks whether the repository can go from state `from` to state `to`, and changes nothing. Conflicts are an error.
pub fn check(place: &Sources<'_>, from: &Delta, to: &Delta, merge: Merge) -> Result<Preview, Error> {
    let root = host::open_root(place.repository).doing("open", place.repository)?;
    let differences = differences(place, from, to)?;
    let plan = check::plan(place, &root, from, &differences, &HashMap::new(), merge)?;
    let difference = |act: &check::Act| Difference {
        path: act.path.clone(),
        before: act.before.clone(),
        after: act.after.clone(),
    };
    Ok(Preview {
        changes: plan.acts.iter().map(difference).collect(),
        already: plan.already.into_iter().map(|d| d.path).collect(),
        merged: plan.merged.into_iter().map(|(path, _)| path).collect(),
        kept: plan.kept,
    })
}

/// Brings the repository from state `from` (what was applied last; empty: the beginning) to state `to`.
///
/// All or nothing: on an error the repository is as it was, except for [`Error::Unfinished`], which names what is
/// not. The caller holds the [`lock`] of the repository. Paths with a `.git` part are left alone.
pub fn apply(place: &Sources<'_>, from: &Delta, to: &Delta, options: Options<'_>) -> Result<Applied, Error> {
    let root = host::open_root(place.repository).doing("open", place.repository)?;
    let differences = differences(place, from, to)?;
    let mut quiet = |_: Step<'_>| Ok(());
    let watch: &mut Watch<'_> = match options.watch {
        Some(watch) => watch,
        None => &mut quiet,
    };
    let learned = leftovers::clear(place, &root, &differences)?;
    let mut plan = check::plan(place, &root, from, &differences, &learned, options.merge)?;
    drop((differences, learned));
    keep_contents(place, &root, &mut plan)?;
    let mut work = act::Work::new(place, &root, watch);
    let staged = match stage::stage(&mut work, &plan) {
        Ok(staged) => staged,
        Err(failed) => return Err(work.put_back(failed)),
    };
    if let Err(failed) = act::act(&mut work, &plan, &staged) {
        return Err(work.put_back(failed));
    }
    let mut kept = plan.kept;
    kept.extend(work.clean());
    let is_kept = |path: &RelPath| kept.iter().any(|kept| kept.path == *path);
    let changed = plan
        .acts
        .into_iter()
        .filter(|act| act.after.is_some() || !is_kept(&act.path))
        .map(|act| Difference { path: act.path, before: act.before, after: act.after })
        .collect();
    let merged = plan.merged.into_iter().map(|(path, _)| path).collect();
    Ok(Applied { changed, already: plan.already, merged, kept })
}

/// Takes back what an apply did, to the byte, merges included; what a person changed since is a conflict. Where it
/// found a path as wanted already, nothing is done.
pub fn revert(place: &Sources<'_>, applied: &Applied) -> Result<Applied, Error> {
    // Whoever ended the work wants it taken back.
    let place = Sources { bounds: Bounds::none(), ..*place };
    apply(&place, &applied.record().collect(), &Delta::new(), Options::default())
}

/// One repository of several.
#[derive(Clone, Copy)]
pub struct Part<'a> {
    /// Where it is, and its contents.
    pub place: Sources<'a>,
    /// What was applied to it last.
    pub from: &'a Delta,
    /// What it is to become.
    pub to: &'a Delta,
}

/// Applies to several repositories, all of it or nothing. The caller holds the [`lock`] of each, taken in the order of
/// their paths.
///
/// # Errors
/// Each repository that can't be applied to, by its place in `parts`.
pub fn apply_all(parts: &[Part<'_>], merge: Merge) -> Result<Vec<Applied>, Vec<(usize, Error)>> {
    let look =
        |(at, part): (usize, &Part<'_>)| Some((at, check(&part.place, part.from, part.to, merge).err()?));
    // One alone is looked at when it is applied to.
    let several = parts.iter().enumerate().filter(|_| parts.len() > 1);
    let failed: Vec<_> = several.filter_map(look).collect();
    if !failed.is_empty() {
        return Err(failed);
    }
    let mut done: Vec<Applied> = Vec::new();
    for (at, part) in parts.iter().enumerate() {
        match apply(&part.place, part.from, part.to, Options { merge, watch: None }) {
            Ok(applied) => done.push(applied),
            Err(error) => {
                let mut failed = vec![(at, error)];
                for (at, applied) in done.iter().enumerate().rev() {
                    failed.extend(revert(&parts[at].place, applied).err().map(|error| (at, error)));
                }
                return Err(failed);
            }
        }
    }
    Ok(done)
}

/// Paths at which a run made, or changed, a file that lends its owner's rights to whoever starts it (setuid, setgid):
/// an apply leaves these bits out.
pub fn lending(delta: &Delta) -> impl Iterator<Item = &RelPath> {
    delta.iter().filter(|(path, entry)| !path.is_git() && plain(entry).is_some()).map(|(path, _)| path)
}

/// What a path becomes without setuid and setgid; `None` if it has neither. On a folder they lend nothing.
fn plain(entry: &Entry) -> Option<Node> {
    match &entry.now {
        Some(node @ Node::File { mode, .. }) if mode & LENDS != 0 => {
            let mut node = node.clone();
            if let Node::File { mode, .. } = &mut node {
                *mode &= !LENDS;
            }
            Some(node)
        }
        _ => None,
    }
}

/// A state of a run as it reaches a repository.
fn without_lending(delta: &Delta) -> Cow<'_, Delta> {
    let mut plainer = Cow::Borrowed(delta);
    for path in lending(delta) {
        if let Some(entry) = plainer.to_mut().get_mut(path) {
            entry.now = plain(entry);
        }
    }
    plainer
}

/// What is to change. The root folder itself stays as it is.
fn differences(place: &Sources<'_>, from: &Delta, to: &Delta) -> Result<Vec<Difference>, Error> {
    let mut differences = compare(&without_lending(from), &without_lending(to));
    differences.retain(|difference| !difference.path.as_bytes().is_empty());
    place.learn(&mut differences).doing("read", place.repository)?;
    Ok(differences)
}

/// Puts the contents that will be replaced or removed, and merged ones, into the store.
fn keep_contents(place: &Sources<'_>, root: &OwnedFd, plan: &mut check::Plan) -> Result<(), Error> {
    for (_, bytes) in &plan.merged {
        place.objects.put(bytes)?;
    }
    for act in &mut plan.acts {
        place.bounds.check()?;
        if let (Some(Node::Dir { mode }), Some(found)) = (&mut act.before, &act.found)
            && found.kind == host::Kind::Dir
        {
            // A person may have changed them since, which keeps nobody from removing it.
            *mode = found.mode;
        }
        let (Some(Node::File { content, size, mtime_ns, mode, .. }), Some(found)) =
            (&mut act.before, &act.found)
        else {
            continue;
        };
        (*size, *mtime_ns, *mode) = (found.size, found.mtime_ns, found.mode);
        if act.how == How::Mode {
            continue;
        }
        let stored = |digest: &Digest| place.objects.contains(*digest);
        if !act.as_known || !content.as_ref().is_some_and(stored) {
            let file =
                check::open(root, &act.path).doing("read", &place.repository.join(act.path.as_path()))?;
            let still = crate::host::Stamp::of_open(file.as_fd()).is_ok_and(|stamp| stamp.still(found));
            let learned = place.objects.put_file(&file, found.size, place.bounds)?;
            if !still || (act.as_known && content.is_some_and(|known| known != learned)) {
                return Err(Error::conflict(&act.path, Why::Changed { since: Since::Now }));
            }
            *content = Some(learned);
        }
    }
    Ok(place.objects.flush()?)
}
