//! Staging of new files under temporary names, next to their paths.
//!
//! A new directory is staged with its contents, so that a single rename publishes all of them.

use super::check::{ActionKind, ApplyPlan, PathAction, open_directory};
use super::error::{ApplyContext, Error};
use super::stale_temps::ancestor_dirs;
use super::transaction::{ApplyTransaction, MAX_FILE_SYNCS};
use super::{ApplyStep, ConflictReason};
use crate::host::{self, FileStamp, NodeKind};
use crate::{RelPath, TreeNode};
use forge_tree::temp_names::TempKind;
use forge_types::Digest;
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

/// The temporaries by their paths: only those that are renamed themselves, not those inside of them.
pub(super) type StagedTemps = HashMap<RelPath, RelPath>;

#[derive(Clone, Copy)]
struct StagedOwner {
    uid: u32,
    gid: u32,
}

/// Stages all new files of `plan`.
pub(super) fn stage_plan(work: &mut ApplyTransaction<'_>, plan: &ApplyPlan) -> Result<StagedTemps, Error> {
    let mut staged = StagedTemps::new();
    let mut owners: HashMap<RelPath, StagedOwner> = HashMap::new();
    let mut links: HashMap<(u64, Digest), RelPath> = HashMap::new();
    let mut folders: Vec<(RelPath, u32, StagedOwner)> = Vec::new();
    let puts: Vec<&PathAction> = plan.acts.iter().filter(|act| act.how == ActionKind::Replace).collect();
    let sync = puts.len() <= MAX_FILE_SYNCS;
    for act in puts {
        let Some(node) = &act.after else { continue };
        let Some(parent) = act.path.parent() else { continue };
        work.notify_step(ApplyStep::Stage(&act.path))?;
        let at = work.sources.repository.join(act.path.as_path());
        let top =
            ancestor_dirs(&act.path).find(|path| staged.contains_key(path) && owners.contains_key(path));
        let (temp, owner) = match (&top, &act.found) {
            (Some(top), _) => (path_in_temp(&staged[top], top, &act.path), owners[top]),
            (None, found) => {
                let temp = work.temps.temp_path(TempKind::New, &parent, &act.path);
                staged.insert(act.path.clone(), temp.clone());
                let landing = FileStamp::stat_below(work.root, &parent).apply_context("inspect", &at)?;
                let landing =
                    landing.ok_or_else(|| Error::single_conflict(&act.path, ancestor_gone(&parent)))?;
                let of = |stamp: &FileStamp| StagedOwner { uid: stamp.uid, gid: stamp.gid };
                if matches!(node, TreeNode::Dir { .. }) {
                    owners.insert(act.path.clone(), of(&landing));
                }
                work.record_temp(temp.clone());
                (temp, found.as_ref().map_or_else(|| of(&landing), of))
            }
        };
        let one = StagedEntry { work, temp: &temp, owner, sync };
        match node {
            TreeNode::File { mode, content: Some(digest), links: Some(link), .. } => {
                let first = links.entry((*link, *digest)).or_insert_with(|| temp.clone()).clone();
                if first == temp || !one.link_to(&first).apply_context("write", &at)? {
                    one.create_file(*digest, *mode, &at)?;
                }
            }
            TreeNode::File { mode, content: Some(digest), .. } => one.create_file(*digest, *mode, &at)?,
            TreeNode::File { content: None, .. } => {
                return Err(Error::Store(crate::Error::Lost { path: act.path.as_path().to_owned() }));
            }
            TreeNode::Symlink { target } => one.create_symlink(target).apply_context("create", &at)?,
            TreeNode::Dir { mode } => {
                one.create_directory().apply_context("create", &at)?;
                folders.push((temp, *mode, owner));
            }
            TreeNode::Fifo { mode } => one.create_fifo(*mode).apply_context("create", &at)?,
        }
    }
    let is_root = rustix::process::geteuid().is_root();
    // A directory without write permission gets its mode after its contents.
    for (path, mode, owner) in folders.into_iter().rev() {
        let at = work.sources.repository.join(path.as_path());
        let Some((parent, name)) = host::split_path(&path) else { continue };
        open_directory(work.root, parent)
            .and_then(|parent| {
                let made = |now: &FileStamp| now.kind == NodeKind::Dir && (now.uid == owner.uid || !is_root);
                host::set_mode_if(parent, name, mode, made)
            })
            .apply_context("create", &at)?;
    }
    if !sync {
        rustix::fs::syncfs(work.root).apply_context("sync", work.sources.repository)?;
    }
    Ok(staged)
}

fn ancestor_gone(folder: &RelPath) -> ConflictReason {
    ConflictReason::Above { directory: folder.clone(), is: None }
}

/// Returns the location of `path`, which is below `top`, in the temporary of `top`.
fn path_in_temp(temp: &RelPath, top: &RelPath, path: &RelPath) -> RelPath {
    let rest = path.components().skip(top.components().count());
    rest.fold(temp.clone(), |at, part| at.join(part))
}

/// A temporary to create.
struct StagedEntry<'a, 'b> {
    work: &'a ApplyTransaction<'b>,
    temp: &'a RelPath,
    owner: StagedOwner,
    sync: bool,
}

impl StagedEntry<'_, '_> {
    fn open_parent(&self) -> io::Result<(OwnedFd, &[u8])> {
        let (parent, name) = host::split_path(self.temp).ok_or(io::ErrorKind::InvalidInput)?;
        Ok((open_directory(self.work.root, parent)?, name))
    }

    /// Sets the owner. Root can set any; other users can at most choose one of their groups.
    fn set_owner(&self, file: &OwnedFd) -> io::Result<()> {
        let gid = Some(Gid::from_raw(self.owner.gid));
        if rustix::process::geteuid().is_root() {
            return host::set_owner(file, Some(Uid::from_raw(self.owner.uid)), gid);
        }
        if FileStamp::stat_open(file)?.gid != self.owner.gid {
            let _ = host::set_owner(file, None, gid);
        }
        Ok(())
    }

    fn create_file(&self, digest: Digest, mode: u32, at: &std::path::Path) -> Result<(), Error> {
        let make = || -> io::Result<File> {
            let (parent, name) = self.open_parent()?;
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            Ok(File::from(rustix::fs::openat(parent, name, flags, Mode::RUSR | Mode::WUSR)?))
        };
        let file = make().apply_context("write", at)?;
        match self.work.sources.objects.copy_to(digest, &file, at, self.work.sources.bounds) {
            Err(crate::Error::Io { source, doing: "write", .. }) => {
                return Err(source).apply_context("write", at);
            }
            Err(crate::Error::Full { .. }) => return Err(Error::Full { path: at.to_owned() }),
            done => done?,
        }
        let file = OwnedFd::from(file);
        self.set_owner(&file).apply_context("set the owner of", at)?;
        rustix::fs::fchmod(&file, Mode::from_raw_mode(mode)).apply_context("write", at)?;
        if self.sync {
            rustix::fs::fsync(&file).apply_context("sync", at)?;
        }
        Ok(())
    }

    /// Creates the temporary as a hard link to `first`; returns `false` if the file system does not support this.
    fn link_to(&self, first: &RelPath) -> io::Result<bool> {
        let (from, from_name) = host::split_path(first).ok_or(io::ErrorKind::InvalidInput)?;
        let from = open_directory(self.work.root, from)?;
        let (to, name) = self.open_parent()?;
        match rustix::fs::linkat(from, from_name, to, name, AtFlags::empty()) {
            Ok(()) => Ok(true),
            Err(Errno::XDEV | Errno::MLINK | Errno::PERM | Errno::OPNOTSUPP | Errno::NOSYS) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn create_symlink(&self, target: &[u8]) -> io::Result<()> {
        let (parent, name) = self.open_parent()?;
        rustix::fs::symlinkat(target, &parent, name)?;
        if rustix::process::geteuid().is_root() {
            self.set_owner(&host::open_made(&parent, name, NodeKind::Symlink)?)?;
        }
        Ok(())
    }

    fn create_directory(&self) -> io::Result<()> {
        let (parent, name) = self.open_parent()?;
        rustix::fs::mkdirat(&parent, name, Mode::RWXU)?;
        self.set_owner(&host::open_made(&parent, name, NodeKind::Dir)?)
    }

    fn create_fifo(&self, mode: u32) -> io::Result<()> {
        let (parent, name) = self.open_parent()?;
        rustix::fs::mknodat(&parent, name, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?;
        let pipe = host::open_made(&parent, name, NodeKind::Fifo)?;
        self.set_owner(&pipe)?;
        host::set_mode(&pipe, mode)
    }
}
