//! The renames, each undone if a later one fails; and what comes after them.

use super::check::{Act, How, Plan, folder, others};
use super::error::{Doing, Error, Since, Why};
use super::leftovers::{OLD, remove_all, temporary};
use super::stage::{SYNCS, Staged, above};
use super::{Kept, Step, Watch};
use crate::bounds::Bounds;
use crate::compare::Sources;
use crate::host::{self, Kind, Stamp};
use crate::{Node, RelPath};
use rustix::fs::{AtFlags, RenameFlags};
use rustix::io::Errno;
use std::collections::{BTreeSet, HashSet};
use std::io;
use std::os::fd::{AsFd, OwnedFd};

/// How one change is taken back.
enum Undo {
    /// What stood at `path` was moved to `held`, or what was staged at `held` was moved to `path`.
    Move { from: RelPath, to: RelPath },
    /// What stood at `path` stands at `temp`, and the other way round.
    Exchange { path: RelPath, temp: RelPath },
    /// Other permission bits of what was found there.
    Mode { path: RelPath, found: Stamp },
}

/// An apply at work.
pub(super) struct Work<'a> {
    pub(super) place: &'a Sources<'a>,
    pub(super) root: &'a OwnedFd,
    watch: &'a mut Watch<'a>,
    undo: Vec<Undo>,
    /// Temporaries that were staged.
    made: Vec<RelPath>,
    /// What is held until the end: the path it stood at, and where it is.
    held: Vec<(RelPath, RelPath)>,
    /// Folders whose entries changed.
    touched: BTreeSet<RelPath>,
}

impl<'a> Work<'a> {
    pub(super) fn new(place: &'a Sources<'a>, root: &'a OwnedFd, watch: &'a mut Watch<'a>) -> Self {
        let (undo, made, held) = (Vec::new(), Vec::new(), Vec::new());
        Self { place, root, watch, undo, made, held, touched: BTreeSet::new() }
    }

    /// Tells of a step before it happens; the last moment to end the work is the sync.
    pub(super) fn tell(&mut self, step: Step<'_>) -> Result<(), Error> {
        self.place.bounds.check()?;
        (self.watch)(step).map_err(|source| Error::Stopped { source })
    }

    /// Notes that a temporary is about to be made.
    pub(super) fn made(&mut self, temp: RelPath) {
        self.made.push(temp);
    }

    /// Puts everything back after `failed`.
    pub(super) fn put_back(&mut self, failed: Error) -> Error {
        let mut left = Vec::new();
        let mut lost: HashSet<RelPath> = HashSet::new();
        while let Some(undo) = self.undo.pop() {
            let (done, path, now) = match undo {
                Undo::Move { from, to } => (rename(self.root, &to, &from, RenameFlags::NOREPLACE), from, to),
                Undo::Exchange { path, temp } => {
                    (rename(self.root, &temp, &path, RenameFlags::EXCHANGE), path, temp)
                }
                Undo::Mode { path, found } => {
                    (set_mode(self.root, &path, found.mode, &found), path.clone(), path)
                }
            };
            if done.is_err() {
                let on_host = |path: &RelPath| self.place.repository.join(path.as_path());
                left.push((on_host(&path), on_host(&now)));
                lost.insert(now);
            }
        }
        for temp in self.made.iter().filter(|temp| !lost.contains(*temp)) {
            // What stays is cleared by the next apply.
            let _ = remove(self.root, temp);
        }
        if left.is_empty() { failed } else { Error::Unfinished { cause: Box::new(failed), left } }
    }

    /// Removes what was held until the end. A folder into which something was put meanwhile comes back.
    pub(super) fn clean(&mut self) -> Vec<Kept> {
        let mut kept = Vec::new();
        for (path, held) in std::mem::take(&mut self.held) {
            let _ = (self.watch)(Step::Clean(&path));
            let Some((parent, name)) = host::split(&held) else { continue };
            let Ok(parent) = folder(self.root, parent) else { continue };
            let is_folder = Stamp::of(&parent, name).is_ok_and(|stamp| stamp.kind == Kind::Dir);
            let flags = if is_folder { AtFlags::REMOVEDIR } else { AtFlags::empty() };
            if let Err(Errno::NOTEMPTY | Errno::EXIST) = rustix::fs::unlinkat(&parent, name, flags) {
                let entry = others(&unbounded(self.place), self.root, &held, &HashSet::new()).ok().flatten();
                let back = rename(self.root, &held, &path, RenameFlags::NOREPLACE);
                let entry = entry.and_then(|entry| host::split(&entry).map(|(_, name)| name.to_vec()));
                let now = if back.is_ok() { path } else { held };
                kept.push(Kept { holds: now.join(&entry.unwrap_or_default()), path: now });
            }
        }
        kept
    }

    fn moved(&mut self, path: &RelPath, to: &RelPath) {
        self.touched.extend([path, to].into_iter().filter_map(RelPath::parent));
    }

    fn sync(&mut self) -> Result<(), Error> {
        self.tell(Step::Sync)?;
        if self.touched.len() > SYNCS {
            return rustix::fs::syncfs(self.root).doing("sync", self.place.repository);
        }
        for path in &self.touched {
            // One that can't be opened for reading can't be synced by itself.
            match host::open_below(self.root.as_fd(), path.as_bytes(), host::FOLDER) {
                Ok(open) => {
                    rustix::fs::fsync(open).doing("sync", &self.place.repository.join(path.as_path()))?;
                }
                Err(_) => rustix::fs::syncfs(self.root).doing("sync", self.place.repository)?,
            }
        }
        Ok(())
    }
}

/// The same places for what must be done whether it is wanted any more or not.
fn unbounded<'a>(place: &Sources<'a>) -> Sources<'a> {
    Sources { bounds: Bounds::none(), ..*place }
}

/// Does what `plan` says with what is `staged`.
pub(super) fn act(work: &mut Work<'_>, plan: &Plan, staged: &Staged) -> Result<(), Error> {
    let is_folder = |act: &Act| act.found.is_some_and(|found| found.kind == Kind::Dir);
    let leaves = |act: &&Act| act.how == How::Remove || (act.how == How::Put && is_folder(act));
    let leaving: HashSet<&RelPath> = plan.acts.iter().filter(leaves).map(|act| &act.path).collect();
    if !rustix::process::geteuid().is_root() {
        // What lies in them could not be moved out otherwise.
        for act in plan.acts.iter().filter(leaves) {
            if let Some(found) =
                act.found.filter(|found| found.kind == Kind::Dir && found.mode & 0o700 != 0o700)
            {
                mode(work, &act.path, found, found.mode | 0o700)?;
            }
        }
    }
    for act in plan.acts.iter().rev().filter(|act| act.how == How::Remove) {
        work.tell(Step::Act(&act.path))?;
        let holder = above(&act.path).find(|folder| !leaving.contains(folder)).unwrap_or_default();
        let held = temporary(OLD, &holder, &act.path);
        put_aside(work, act, held)?;
    }
    for act in plan.acts.iter().filter(|act| act.how == How::Put) {
        let Some(temp) = staged.get(&act.path) else { continue };
        work.tell(Step::Act(&act.path))?;
        if act.found.is_some() { replace(work, act, temp)? } else { show(work, &act.path, temp)? }
    }
    for act in plan.acts.iter().filter(|act| act.how == How::Mode) {
        if let (
            Some(found),
            Some(Node::File { mode: wanted, .. } | Node::Dir { mode: wanted } | Node::Fifo { mode: wanted }),
        ) = (&act.found, &act.after)
        {
            work.tell(Step::Act(&act.path))?;
            mode(work, &act.path, *found, *wanted)?;
        }
    }
    work.sync()
}

/// Moves what stands at a path to where it is held until the end.
fn put_aside(work: &mut Work<'_>, act: &Act, held: RelPath) -> Result<(), Error> {
    let at = work.place.repository.join(act.path.as_path());
    match rename(work.root, &act.path, &held, RenameFlags::NOREPLACE) {
        Err(error) if host::is_absent(&error) => {
            return Err(Error::conflict(&act.path, Why::Deleted { since: Since::Now }));
        }
        done => done.doing("remove", &at)?,
    }
    work.moved(&act.path, &held);
    work.undo.push(Undo::Move { from: act.path.clone(), to: held.clone() });
    work.held.push((act.path.clone(), held.clone()));
    unchanged(work, act, &held)
}

/// Puts what is staged in the place of what stands there.
fn replace(work: &mut Work<'_>, act: &Act, temp: &RelPath) -> Result<(), Error> {
    let at = work.place.repository.join(act.path.as_path());
    match rename(work.root, temp, &act.path, RenameFlags::EXCHANGE) {
        // Not every file system exchanges: in two steps then.
        Err(error) if Errno::from_io_error(&error) == Some(Errno::INVAL) => {
            let holder = act.path.parent().unwrap_or_default();
            put_aside(work, act, temporary(OLD, &holder, &act.path))?;
            return show(work, &act.path, temp);
        }
        Err(error) if host::is_absent(&error) => {
            return Err(Error::conflict(&act.path, Why::Deleted { since: Since::Now }));
        }
        done => done.doing("replace", &at)?,
    }
    work.moved(&act.path, temp);
    work.undo.push(Undo::Exchange { path: act.path.clone(), temp: temp.clone() });
    work.held.push((act.path.clone(), temp.clone()));
    unchanged(work, act, temp)
}

/// Puts what is staged where nothing stands.
fn show(work: &mut Work<'_>, path: &RelPath, temp: &RelPath) -> Result<(), Error> {
    let at = work.place.repository.join(path.as_path());
    match rename(work.root, temp, path, RenameFlags::NOREPLACE) {
        Err(error) if Errno::from_io_error(&error) == Some(Errno::EXIST) => {
            let is = Stamp::below(work.root, path).ok().flatten().map_or(Kind::Other, |stamp| stamp.kind);
            return Err(Error::conflict(path, Why::New { is }));
        }
        done => done.doing("write", &at)?,
    }
    work.moved(path, temp);
    work.undo.push(Undo::Move { from: temp.clone(), to: path.clone() });
    Ok(())
}

/// Whether what was moved is what was checked: somebody may have written to it between the check and the rename.
fn unchanged(work: &Work<'_>, act: &Act, now: &RelPath) -> Result<(), Error> {
    let at = work.place.repository.join(act.path.as_path());
    let (Some(found), Some(stamp)) = (&act.found, Stamp::below(work.root, now).doing("look at", &at)?) else {
        return Ok(());
    };
    let same = (found.kind, found.ino, found.dev) == (stamp.kind, stamp.ino, stamp.dev);
    let told = found.kind == Kind::Dir || (found.size, found.mtime_ns) == (stamp.size, stamp.mtime_ns);
    if !same || !told {
        return Err(Error::conflict(&act.path, Why::Changed { since: Since::Now }));
    }
    if found.kind == Kind::Dir
        && act.after.is_some()
        && let Some(entry) = others(work.place, work.root, now, &HashSet::new()).doing("read", &at)?
    {
        return Err(Error::conflict(&act.path, Why::Holds { entry }));
    }
    Ok(())
}

fn mode(work: &mut Work<'_>, path: &RelPath, found: Stamp, wanted: u32) -> Result<(), Error> {
    let at = work.place.repository.join(path.as_path());
    set_mode(work.root, path, wanted, &found).doing("change the permissions of", &at)?;
    work.undo.push(Undo::Mode { path: path.clone(), found });
    Ok(())
}

fn set_mode(root: &OwnedFd, path: &RelPath, mode: u32, found: &Stamp) -> io::Result<()> {
    let (parent, name) = host::split(path).ok_or(io::ErrorKind::InvalidInput)?;
    let is_found = |now: &Stamp| (now.kind, now.ino, now.dev) == (found.kind, found.ino, found.dev);
    host::set_mode_if(folder(root, parent)?, name, mode, is_found)
}

fn rename(root: &OwnedFd, from: &RelPath, to: &RelPath, flags: RenameFlags) -> io::Result<()> {
    let (from, from_name) = host::split(from).ok_or(io::ErrorKind::InvalidInput)?;
    let (to, to_name) = host::split(to).ok_or(io::ErrorKind::InvalidInput)?;
    let (from, to) = (folder(root, from)?, folder(root, to)?);
    match rustix::fs::renameat_with(&from, from_name, &to, to_name, flags) {
        // File systems that know no flags.
        Err(Errno::INVAL) if flags == RenameFlags::NOREPLACE => match Stamp::of(&to, to_name) {
            Ok(_) => Err(Errno::EXIST.into()),
            Err(error) if host::is_absent(&error) => {
                Ok(rustix::fs::renameat(&from, from_name, &to, to_name)?)
            }
            Err(error) => Err(error),
        },
        done => Ok(done?),
    }
}

/// Removes a temporary of our own with everything in it.
fn remove(root: &OwnedFd, path: &RelPath) -> io::Result<()> {
    let (parent, name) = host::split(path).ok_or(io::ErrorKind::InvalidInput)?;
    let parent = folder(root, parent)?;
    if Stamp::of(&parent, name)?.kind == Kind::Dir {
        return remove_all(&parent, name);
    }
    Ok(rustix::fs::unlinkat(parent, name, AtFlags::empty())?)
}
