//! Execution of a restore plan: obstacles are removed, deepest first; missing files are created under a temporary
//! name and renamed, directories before their contents; modes of directories are set last.

mod dir_access;

use super::disk_entry::{DiskEntry, OverlayMark};
use super::restore_plan::{LinkGroup, PathChange, RestorePlan};
use super::{OverlayXattrs, Tracker};
use crate::base;
use crate::bounds::BoundedTally;
use crate::copy;
use crate::error::{Error, IoContext};
use crate::host::{self, FileStamp, NodeKind};
use crate::node::{RelPath, TreeNode};
use dir_access::DirAccess;
use forge_types::Digest;
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;
use std::collections::HashMap;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Rebuilds the workspace according to the plan.
pub(super) fn rebuild_workspace(tracker: &Tracker, plan: RestorePlan) -> Result<(), Error> {
    let RestorePlan { changes: mut spots, anchors, attributes } = plan;
    let mut work = RebuildWork { tracker, dir_access: DirAccess::new(tracker), anchors, attributes };
    work.invalidate_links(&mut spots)?;
    for (path, spot) in spots.iter_mut().rev() {
        tracker.bounds.check_stopped()?;
        let Some(is) = &spot.current else { continue };
        let in_the_way = match &spot.target {
            None => true,
            Some(want) => {
                matches!(is, DiskEntry::Directory { .. }) != matches!(want, DiskEntry::Directory { .. })
            }
        };
        if in_the_way {
            work.remove_path(path)?;
            spot.current = None;
        }
    }
    for (path, spot) in &spots {
        tracker.bounds.check_stopped()?;
        work.make_entry(path, spot)?;
    }
    work.dir_access.finish()
}

struct RebuildWork<'a> {
    tracker: &'a Tracker,
    dir_access: DirAccess<'a>,
    /// A name in its target state for each group of hard links.
    anchors: HashMap<LinkGroup, RelPath>,
    attributes: Option<OverlayXattrs>,
}

impl RebuildWork<'_> {
    fn display_path(&self, path: &RelPath) -> PathBuf {
        self.tracker.workspace_path().join(path.as_path())
    }

    /// Opens the parent directory of a path; returns it with the last name.
    fn open_parent<'p>(&mut self, path: &'p RelPath) -> Result<(std::sync::Arc<OwnedFd>, &'p [u8]), Error> {
        let (parent, name) = host::split_path(path).unwrap_or((b"", b"."));
        Ok((self.dir_access.writable_directory(&RelPath::new(parent).unwrap_or_default())?, name))
    }

    /// Removes a path recursively, except for masked entries.
    fn remove_path(&mut self, path: &RelPath) -> Result<(), Error> {
        let shown = self.display_path(path);
        let (folder, name) = self.open_parent(path)?;
        let keep = |below: &[u8]| {
            self.tracker.is_ignored(&RelPath::new([path.as_bytes(), below].concat()).unwrap_or_default())
        };
        let tally = BoundedTally::of_tree(&self.tracker.bounds, self.tracker.workspace_path());
        match forge_tree::remove::remove_tree(folder.as_fd(), name, &keep, &tally) {
            Ok(()) => Ok(()),
            Err(error) if host::is_absent(&error) => Ok(()),
            Err(error) => Err(Error::from_io("remove", &shown, error)),
        }
    }

    /// Marks files that are correct except for their hard links, so that they are created again.
    fn invalidate_links(
        &mut self,
        spots: &mut std::collections::BTreeMap<RelPath, PathChange>,
    ) -> Result<(), Error> {
        let mut numbers: HashMap<LinkGroup, u64> = HashMap::new();
        for (path, spot) in spots.iter_mut() {
            let (
                Some(DiskEntry::Node(TreeNode::File { links, .. })),
                Some(DiskEntry::Node(TreeNode::File { .. })),
            ) = (&spot.current, &spot.target)
            else {
                continue;
            };
            let right = match (spot.group, *links) {
                (None, None) => continue,
                (Some(group), Some(number))
                    if !self.anchors.contains_key(&group) || numbers.contains_key(&group) =>
                {
                    *numbers.entry(group).or_insert(number) == number && self.matches_target(path, spot)?
                }
                _ => false,
            };
            match spot.group {
                Some(group) if right => {
                    self.anchors.entry(group).or_insert_with(|| path.clone());
                    spot.current = spot.target.clone();
                }
                _ => spot.current = Some(DiskEntry::Whiteout),
            }
        }
        Ok(())
    }

    /// Returns whether a path is in its target state, ignoring hard links. Reads the file only if necessary.
    fn matches_target(&mut self, path: &RelPath, spot: &PathChange) -> Result<bool, Error> {
        let (Some(DiskEntry::Node(is)), Some(DiskEntry::Node(want))) = (&spot.current, &spot.target) else {
            return Ok(spot.current == spot.target);
        };
        let (
            TreeNode::File { mode, size, mtime_ns, content, .. },
            TreeNode::File { mode: mode2, size: size2, mtime_ns: mtime2, content: content2, .. },
        ) = (is, want)
        else {
            return Ok(is == want);
        };
        if (mode, size, mtime_ns) != (mode2, size2, mtime2) || content2.is_none() {
            return Ok(false);
        }
        if content.is_some() {
            return Ok(content == content2);
        }
        let shown = self.display_path(path);
        let (folder, name) = self.open_parent(path)?;
        let file = host::open_file_by_force(&*folder, name).io_context("read", &shown)?;
        let stamp = FileStamp::stat_open(&file).io_context("read", &shown)?;
        let at_ns = base::now_ns();
        let (digest, _) = copy::hash_file(&file, &self.tracker.bounds).io_context("read", &shown)?;
        self.tracker.lock_digest_cache().remember_digest(&stamp, digest, at_ns);
        Ok(Some(digest) == *content2)
    }

    fn make_entry(&mut self, path: &RelPath, spot: &PathChange) -> Result<(), Error> {
        let Some(want) = &spot.target else { return Ok(()) };
        if let DiskEntry::Directory { mode, mark } = want {
            return self.make_directory(path, spot.current.as_ref(), *mode, *mark);
        }
        let links_right = spot.group.is_none() || spot.current == spot.target;
        if links_right && self.matches_target(path, spot)? {
            return Ok(());
        }
        if spot.group.is_none() && self.adjust_metadata(path, spot)? {
            return Ok(());
        }
        let shown = self.display_path(path);
        let anchor = spot.group.and_then(|group| self.anchors.get(&group).cloned());
        let (folder, name) = self.open_parent(path)?;
        let temporary = dir_access::temp_name();
        let digest = match (want, anchor) {
            (_, Some(anchor)) => {
                let (other, other_name) = self.open_parent(&anchor)?;
                rustix::fs::linkat(&*other, other_name, &*folder, temporary.as_slice(), AtFlags::empty())
                    .io_context("link", &shown)?;
                None
            }
            (DiskEntry::Node(node @ TreeNode::File { .. }), None) => {
                Some(self.make_file(&folder, &temporary, path, node)?)
            }
            (thing, None) => {
                self.make_special(&folder, &temporary, thing).io_context("create", &shown)?;
                None
            }
        };
        rustix::fs::renameat(&*folder, temporary.as_slice(), &*folder, name).io_context("write", &shown)?;
        // Renaming one name of a file to another of its names does nothing.
        let _ = rustix::fs::unlinkat(&*folder, temporary.as_slice(), AtFlags::empty());
        if let Some(group) = spot.group {
            self.anchors.entry(group).or_insert_with(|| path.clone());
        }
        if let Some(digest) = digest {
            let stamp = FileStamp::stat_at(&*folder, name).io_context("inspect", &shown)?;
            self.tracker.lock_digest_cache().remember_digest(&stamp, digest, base::now_ns());
        }
        Ok(())
    }

    /// Sets mode and time of a file with one name and the correct content; returns whether that was sufficient.
    fn adjust_metadata(&mut self, path: &RelPath, spot: &PathChange) -> Result<bool, Error> {
        let (
            Some(DiskEntry::Node(TreeNode::File { content: Some(is), links: None, .. })),
            Some(DiskEntry::Node(TreeNode::File { content: Some(want), mode, mtime_ns, .. })),
        ) = (&spot.current, &spot.target)
        else {
            return Ok(false);
        };
        if is != want {
            return Ok(false);
        }
        let shown = self.display_path(path);
        let (folder, name) = self.open_parent(path)?;
        host::set_mode_at(&*folder, name, *mode).io_context("set the mode of", &shown)?;
        host::set_time_at(&*folder, name, *mtime_ns).io_context("set the time of", &shown)?;
        let stamp = FileStamp::stat_at(&*folder, name).io_context("inspect", &shown)?;
        self.tracker.lock_digest_cache().remember_digest(&stamp, *want, base::now_ns());
        Ok(true)
    }

    fn make_special(&self, folder: &OwnedFd, name: &[u8], thing: &DiskEntry) -> std::io::Result<()> {
        match thing {
            DiskEntry::Whiteout => {
                rustix::fs::mknodat(folder, name, FileType::CharacterDevice, Mode::empty(), 0)?
            }
            DiskEntry::Node(TreeNode::Symlink { target }) => {
                rustix::fs::symlinkat(target.as_slice(), folder, name)?
            }
            DiskEntry::Node(TreeNode::Fifo { mode }) => {
                rustix::fs::mkfifoat(folder, name, Mode::from_raw_mode(0o600))?;
                self.dir_access.set_owner(folder, name)?;
                return host::set_mode_at(folder, name, *mode);
            }
            DiskEntry::Node(_) | DiskEntry::Directory { .. } => return Err(Errno::INVAL.into()),
        }
        self.dir_access.set_owner(folder, name)
    }

    /// Creates a file with content, mode, time and owner; returns the digest of its content.
    fn make_file(
        &self,
        folder: &OwnedFd,
        name: &[u8],
        path: &RelPath,
        node: &TreeNode,
    ) -> Result<Digest, Error> {
        let shown = self.display_path(path);
        let TreeNode::File { mode, mtime_ns, content, .. } = node else {
            return Err(Error::from_io("create", &shown, Errno::INVAL));
        };
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(folder, name, flags, Mode::from_raw_mode(0o600))
            .io_context("create", &shown)?;
        let file = File::from(file);
        let made = self.write_content(&file, path, *content, &shown).and_then(|digest| {
            self.dir_access.set_owner(folder, name).io_context("set the owner of", &shown)?;
            rustix::fs::fchmod(&file, Mode::from_raw_mode(*mode)).io_context("set the mode of", &shown)?;
            host::set_time(&file, *mtime_ns).io_context("set the time of", &shown)?;
            Ok(digest)
        });
        if made.is_err() {
            let _ = rustix::fs::unlinkat(folder, name, AtFlags::empty());
        }
        made
    }

    /// Writes a content from the store or, if unchanged, from the repository.
    fn write_content(
        &self,
        file: &File,
        path: &RelPath,
        content: Option<Digest>,
        shown: &Path,
    ) -> Result<Digest, Error> {
        let options = &self.tracker.options;
        if let Some(digest) = content.filter(|digest| options.objects.contains(*digest)) {
            options.objects.copy_to(digest, file, shown, &self.tracker.bounds)?;
            return Ok(digest);
        }
        let lost = || Error::Lost { path: shown.to_owned() };
        let item = options.base.get(path).filter(|item| item.kind == NodeKind::File).ok_or_else(lost)?;
        let below = options.lower.join(path.as_path());
        let source = base::open_unchanged(self.tracker.options.lower.as_fd(), path, &item)
            .io_context("read", &below)?;
        let unchanged = source.is_some();
        let source = match source {
            Some(source) => source,
            // As in an overlay, later changes to the repository are visible.
            None if self.is_copy() => self.open_repository_file(path).ok_or_else(lost)?,
            None => return Err(lost()),
        };
        let size = FileStamp::stat_open(&source).io_context("read", &below)?.size;
        copy::copy_content(&source, file, size, &self.tracker.bounds).io_context("write", shown)?;
        let (digest, _) = copy::hash_file(file, &self.tracker.bounds).io_context("read", shown)?;
        if unchanged {
            let number = options.base.find_index(path);
            let mut known = self.tracker.lock_digest_cache();
            number.into_iter().for_each(|number| known.remember_base_digest(number, Some(digest)));
        }
        Ok(digest)
    }

    fn is_copy(&self) -> bool {
        super::is_copy(&self.tracker.options)
    }

    /// Opens the repository's current file at a path.
    fn open_repository_file(&self, path: &RelPath) -> Option<File> {
        let (parent, name) = host::split_path(path)?;
        let parent =
            host::open_below(self.tracker.options.lower.as_fd(), parent, OFlags::PATH | host::DIR_OPEN_FLAGS)
                .ok()?;
        host::open_file(&parent, name).ok()
    }

    fn make_directory(
        &mut self,
        path: &RelPath,
        is: Option<&DiskEntry>,
        mode: u32,
        mark: OverlayMark,
    ) -> Result<(), Error> {
        let shown = self.display_path(path);
        let (folder, name) = self.open_parent(path)?;
        let stands = match is {
            Some(DiskEntry::Directory { mode: mode2, mark: mark2 }) if mode == *mode2 && mark == *mark2 => {
                return Ok(());
            }
            Some(DiskEntry::Directory { mark: mark2, .. }) => Some(*mark2),
            _ => None,
        };
        if stands.is_none() {
            match rustix::fs::mkdirat(&*folder, name, Mode::from_raw_mode(0o700)) {
                // A file that is not part of a tree, such as a socket.
                Err(Errno::EXIST) => {
                    self.remove_path(path)?;
                    rustix::fs::mkdirat(&*folder, name, Mode::from_raw_mode(0o700))
                        .io_context("create", &shown)?;
                }
                done => done.io_context("create", &shown)?,
            }
            self.dir_access.set_owner(&folder, name).io_context("set the owner of", &shown)?;
        }
        self.dir_access.defer_mode(path, mode);
        match self.attributes {
            Some(attributes) if stands.unwrap_or(OverlayMark::Merge) != mark => {
                let made = self.dir_access.writable_directory(path)?;
                set_mark(&made, attributes, mark).io_context("mark", &shown)
            }
            _ => Ok(()),
        }
    }
}

fn set_mark(folder: &OwnedFd, attributes: OverlayXattrs, mark: OverlayMark) -> std::io::Result<()> {
    let path = format!("/proc/self/fd/{}", folder.as_raw_fd());
    for attribute in ["redirect", "opaque"] {
        match rustix::fs::removexattr(path.as_str(), attributes.xattr_name(attribute)) {
            Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
            Err(error) => return Err(error.into()),
        }
    }
    if mark == OverlayMark::Opaque {
        // Such a directory has no lower one; the mark hides one that may be created later.
        let flags = rustix::fs::XattrFlags::empty();
        let _ = rustix::fs::setxattr(path.as_str(), attributes.xattr_name("opaque"), b"y", flags);
    }
    Ok(())
}
