//! Writing what is new under temporary names, beside the places it is for.
//!
//! A new folder is staged with everything in it, so that one rename shows all of it at once.

use super::act::Work;
use super::check::{Act, How, Plan, folder};
use super::error::{Doing, Error};
use super::leftovers::{NEW, temporary};
use super::{Step, Why};
use crate::host::{self, Kind, Stamp};
use crate::{Node, RelPath};
use forge_types::Digest;
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

/// With more new files than this, one sync of the file system is cheaper than one per file.
pub(super) const SYNCS: usize = 64;

/// The temporaries, by the path each is for: only those that are renamed themselves, not what lies in them.
pub(super) type Staged = HashMap<RelPath, RelPath>;

#[derive(Clone, Copy)]
struct Owner {
    uid: u32,
    gid: u32,
}

/// Stages everything that `plan` puts.
pub(super) fn stage(work: &mut Work<'_>, plan: &Plan) -> Result<Staged, Error> {
    let mut staged = Staged::new();
    let mut owners: HashMap<RelPath, Owner> = HashMap::new();
    let mut links: HashMap<(u64, Digest), RelPath> = HashMap::new();
    let mut folders: Vec<(RelPath, u32, Owner)> = Vec::new();
    let puts: Vec<&Act> = plan.acts.iter().filter(|act| act.how == How::Put).collect();
    let sync = puts.len() <= SYNCS;
    for act in puts {
        let Some(node) = &act.after else { continue };
        let Some(parent) = act.path.parent() else { continue };
        work.tell(Step::Stage(&act.path))?;
        let at = work.place.repository.join(act.path.as_path());
        let top = above(&act.path).find(|path| staged.contains_key(path) && owners.contains_key(path));
        let (temp, owner) = match (&top, &act.found) {
            (Some(top), _) => (inside(&staged[top], top, &act.path), owners[top]),
            (None, found) => {
                let temp = temporary(NEW, &parent, &act.path);
                staged.insert(act.path.clone(), temp.clone());
                let landing = Stamp::below(work.root, &parent).doing("look at", &at)?;
                let landing = landing.ok_or_else(|| Error::conflict(&act.path, above_gone(&parent)))?;
                let of = |stamp: &Stamp| Owner { uid: stamp.uid, gid: stamp.gid };
                if matches!(node, Node::Dir { .. }) {
                    owners.insert(act.path.clone(), of(&landing));
                }
                work.made(temp.clone());
                (temp, found.as_ref().map_or_else(|| of(&landing), of))
            }
        };
        let one = One { work, temp: &temp, owner, sync };
        match node {
            Node::File { mode, content: Some(digest), links: Some(link), .. } => {
                let first = links.entry((*link, *digest)).or_insert_with(|| temp.clone()).clone();
                if first == temp || !one.link(&first).doing("write", &at)? {
                    one.file(*digest, *mode, &at)?;
                }
            }
            Node::File { mode, content: Some(digest), .. } => one.file(*digest, *mode, &at)?,
            Node::File { content: None, .. } => {
                return Err(Error::Store(crate::Error::Lost { path: act.path.as_path().to_owned() }));
            }
            Node::Symlink { target } => one.symlink(target).doing("make", &at)?,
            Node::Dir { mode } => {
                one.folder().doing("make", &at)?;
                folders.push((temp, *mode, owner));
            }
            Node::Fifo { mode } => one.fifo(*mode).doing("make", &at)?,
        }
    }
    let is_root = rustix::process::geteuid().is_root();
    // A folder that may not be written to gets its mode when everything is in it.
    for (path, mode, owner) in folders.into_iter().rev() {
        let at = work.place.repository.join(path.as_path());
        let Some((parent, name)) = host::split(&path) else { continue };
        folder(work.root, parent)
            .and_then(|parent| {
                let made = |now: &Stamp| now.kind == Kind::Dir && (now.uid == owner.uid || !is_root);
                host::set_mode_if(parent, name, mode, made)
            })
            .doing("make", &at)?;
    }
    if !sync {
        rustix::fs::syncfs(work.root).doing("sync", work.place.repository)?;
    }
    Ok(staged)
}

/// The folders above a path, nearest first.
pub(super) fn above(path: &RelPath) -> impl Iterator<Item = RelPath> {
    std::iter::successors(path.parent(), RelPath::parent)
}

fn above_gone(folder: &RelPath) -> Why {
    Why::Above { folder: folder.clone(), is: None }
}

/// Where `path`, which lies below `top`, lies in the temporary of `top`.
fn inside(temp: &RelPath, top: &RelPath, path: &RelPath) -> RelPath {
    let rest = path.parts().skip(top.parts().count());
    rest.fold(temp.clone(), |at, part| at.join(part))
}

/// One temporary.
struct One<'a, 'b> {
    work: &'a Work<'b>,
    temp: &'a RelPath,
    owner: Owner,
    sync: bool,
}

impl One<'_, '_> {
    fn place(&self) -> io::Result<(OwnedFd, &[u8])> {
        let (parent, name) = host::split(self.temp).ok_or(io::ErrorKind::InvalidInput)?;
        Ok((folder(self.work.root, parent)?, name))
    }

    /// Root gives what it makes to whom it belongs; others can at most choose among their groups.
    fn give(&self, file: &OwnedFd) -> io::Result<()> {
        let gid = Some(Gid::from_raw(self.owner.gid));
        if rustix::process::geteuid().is_root() {
            return host::set_owner(file, Some(Uid::from_raw(self.owner.uid)), gid);
        }
        if Stamp::of_open(file)?.gid != self.owner.gid {
            let _ = host::set_owner(file, None, gid);
        }
        Ok(())
    }

    fn file(&self, digest: Digest, mode: u32, at: &std::path::Path) -> Result<(), Error> {
        let make = || -> io::Result<File> {
            let (parent, name) = self.place()?;
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            Ok(File::from(rustix::fs::openat(parent, name, flags, Mode::RUSR | Mode::WUSR)?))
        };
        let file = make().doing("write", at)?;
        match self.work.place.objects.copy_to(digest, &file, at, self.work.place.bounds) {
            Err(crate::Error::Io { source, doing: "write", .. }) => return Err(source).doing("write", at),
            Err(crate::Error::Full { .. }) => return Err(Error::Full { path: at.to_owned() }),
            done => done?,
        }
        let file = OwnedFd::from(file);
        self.give(&file).doing("give its owner to", at)?;
        rustix::fs::fchmod(&file, Mode::from_raw_mode(mode)).doing("write", at)?;
        if self.sync {
            rustix::fs::fsync(&file).doing("sync", at)?;
        }
        Ok(())
    }

    /// Makes it another name of `first`; `false` if the file system can't.
    fn link(&self, first: &RelPath) -> io::Result<bool> {
        let (from, from_name) = host::split(first).ok_or(io::ErrorKind::InvalidInput)?;
        let from = folder(self.work.root, from)?;
        let (to, name) = self.place()?;
        match rustix::fs::linkat(from, from_name, to, name, AtFlags::empty()) {
            Ok(()) => Ok(true),
            Err(Errno::XDEV | Errno::MLINK | Errno::PERM | Errno::OPNOTSUPP | Errno::NOSYS) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn symlink(&self, target: &[u8]) -> io::Result<()> {
        let (parent, name) = self.place()?;
        rustix::fs::symlinkat(target, &parent, name)?;
        if rustix::process::geteuid().is_root() {
            self.give(&host::open_made(&parent, name, Kind::Symlink)?)?;
        }
        Ok(())
    }

    fn folder(&self) -> io::Result<()> {
        let (parent, name) = self.place()?;
        rustix::fs::mkdirat(&parent, name, Mode::RWXU)?;
        self.give(&host::open_made(&parent, name, Kind::Dir)?)
    }

    fn fifo(&self, mode: u32) -> io::Result<()> {
        let (parent, name) = self.place()?;
        rustix::fs::mknodat(&parent, name, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?;
        let pipe = host::open_made(&parent, name, Kind::Fifo)?;
        self.give(&pipe)?;
        host::set_mode(&pipe, mode)
    }
}
