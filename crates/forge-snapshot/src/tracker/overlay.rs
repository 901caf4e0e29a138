//! Scan of the upper layer of an overlay: created and copied-up files, whiteouts, opaque and renamed directories.
//!
//! The marks are those of the kernel's overlayfs documentation: a character device 0:0, or an empty file with the
//! attribute `whiteout`, hides a name; the attribute `opaque` of a directory, if `y`, hides the whole lower
//! directory; `redirect` names the lower directory of a renamed directory: a sibling's name, or a path from the root
//! of the layer if it begins with a slash.

use super::disk_entry::{DiskEntry, OverlayMark};
use super::full_scan::ScanError;
use super::scan::{ContentPolicy, WorkspaceScan};
use super::{OverlayXattrs, Tracker};
use crate::error::{Error, IoContext};
use crate::host::{self, FileStamp, NodeKind};
use crate::node::RelPath;
use crate::walk::{DirListing, OnDenied, SubdirVisits, VisitedDir, WalkThreads, walk_tree};
use parking_lot::Mutex;
use rustix::fs::OFlags;
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd};

impl OverlayXattrs {
    /// Returns the full name of an overlay attribute.
    pub(super) fn xattr_name(self, attribute: &str) -> String {
        match self {
            Self::User => format!("user.overlay.{attribute}"),
            Self::Trusted => format!("trusted.overlay.{attribute}"),
        }
    }

    /// Returns the value of an attribute of an open directory.
    pub(super) fn get_xattr(self, folder: impl AsFd, attribute: &str) -> io::Result<Option<Vec<u8>>> {
        let mut value = vec![0; 256];
        loop {
            match rustix::fs::fgetxattr(folder.as_fd(), self.xattr_name(attribute), &mut value[..]) {
                Ok(n) => {
                    value.truncate(n);
                    return Ok(Some(value));
                }
                Err(Errno::RANGE) if value.len() < 1 << 16 => value.resize(1 << 16, 0),
                Err(Errno::NODATA | Errno::OPNOTSUPP) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Returns whether an entry of the upper layer is a whiteout.
    pub(super) fn is_whiteout(self, folder: impl AsFd, name: &[u8], stamp: &FileStamp) -> bool {
        match stamp.kind {
            NodeKind::Whiteout => true,
            NodeKind::File if stamp.size == 0 => {
                let mut path = format!("/proc/self/fd/{}/", folder.as_fd().as_raw_fd()).into_bytes();
                path.extend_from_slice(name);
                rustix::fs::lgetxattr(path, self.xattr_name("whiteout"), &mut [0_u8; 8][..]).is_ok()
            }
            _ => false,
        }
    }
}

/// The lower directories of an upper directory: its parent's, and its own unless a mark overrides it.
#[derive(Clone, Default)]
struct LowerParent {
    parent: Option<RelPath>,
}

/// Finds the changes in the upper layer.
pub(super) fn scan_overlay(scan: &WorkspaceScan<'_>, attributes: OverlayXattrs) -> Result<(), Error> {
    walk_tree(
        scan.tracker.root.fd(),
        LowerParent::default(),
        OnDenied::Force,
        WalkThreads::One,
        &scan.walked,
        &|folder| visit_directory(scan, attributes, folder),
    )
    .map_err(|fault: ScanError| fault.into_error(scan))
}

fn visit_directory(
    scan: &WorkspaceScan<'_>,
    attributes: OverlayXattrs,
    folder: VisitedDir<'_, LowerParent>,
) -> Result<SubdirVisits<LowerParent>, ScanError> {
    let path = folder.path;
    let base = &scan.tracker.seen;
    let beneath = lower_directory(scan.tracker, attributes, &folder)?;
    let own = beneath.as_ref() == Some(path);
    if !own {
        for (name, _) in base.children(path) {
            scan.record_removal(&path.join(name))?;
        }
    }
    let listing = folder.listing.unwrap_or_default();
    let mut below = Vec::new();
    for (name, stamp) in listing.iter() {
        let child = path.join(name);
        if scan.tracker.is_ignored(&child) {
            continue;
        }
        if attributes.is_whiteout(folder.fd, name, stamp) {
            scan.record_removal(&child)?;
            continue;
        }
        if base.get(&child).is_some_and(|was| (was.kind == NodeKind::Dir) != (stamp.kind == NodeKind::Dir)) {
            scan.record_removal(&child)?;
        }
        let node = scan.read_node(folder.fd.as_fd(), name, &child, stamp)?;
        scan.record_node(child, node)?;
        if stamp.kind == NodeKind::Dir {
            below.push((name.into(), LowerParent { parent: beneath.clone() }));
        }
    }
    if let (Some(from), false) = (&beneath, own) {
        add_lower_entries(scan, path, from, &listing)?;
    }
    Ok(below)
}

/// Returns the lower directory of an upper directory.
fn lower_directory(
    tracker: &Tracker,
    attributes: OverlayXattrs,
    folder: &VisitedDir<'_, LowerParent>,
) -> Result<Option<RelPath>, ScanError> {
    let Some((_, name)) = host::split_path(folder.path) else {
        return Ok(Some(RelPath::default()));
    };
    if attributes.get_xattr(folder.fd, "opaque")?.as_deref() == Some(b"y") {
        return Ok(None);
    }
    let odd = || Error::Damaged { what: format!("the renamed directory {} of the workspace", folder.path) };
    let beneath = match attributes.get_xattr(folder.fd, "redirect")? {
        None => folder.about.parent.as_ref().map(|parent| parent.join(name)),
        Some(to) => match to.strip_prefix(b"/") {
            Some(absolute) => Some(RelPath::new(absolute).ok_or_else(odd)?),
            None if to.contains(&b'/') || RelPath::new(to.as_slice()).is_none() => return Err(odd().into()),
            None => folder.about.parent.as_ref().map(|parent| parent.join(&to)),
        },
    };
    let is_folder = |path: &RelPath| tracker.seen.get(path).is_some_and(|item| item.kind == NodeKind::Dir);
    Ok(beneath.filter(is_folder))
}

/// Adds the entries that a renamed directory shows of its lower directory: those that the upper layer does not
/// cover.
fn add_lower_entries(
    scan: &WorkspaceScan<'_>,
    path: &RelPath,
    from: &RelPath,
    covered: &DirListing,
) -> Result<(), Error> {
    let lower = &scan.tracker.options.lower;
    let base = &scan.tracker.seen;
    for (name, _) in base.children(from).filter(|(name, _)| covered.find(name).is_none()) {
        for (source, _) in base.entries_below(&from.join(name)) {
            let Some((parent, name)) = host::split_path(&source) else {
                continue;
            };
            if scan.tracker.is_ignored(&source) {
                continue;
            }
            let rest = &source.as_bytes()[from.as_bytes().len()..];
            let rest = rest.strip_prefix(b"/").unwrap_or(rest);
            let target = RelPath::new([path.as_bytes(), b"/", rest].concat());
            let Some(target) = target.filter(|target| !scan.tracker.is_ignored(target)) else {
                continue;
            };
            let shown = scan.tracker.options.lower.join(source.as_path());
            let found = host::open_below(lower.as_fd(), parent, OFlags::PATH | host::DIR_OPEN_FLAGS)
                .and_then(|parent| Ok((FileStamp::stat_at(&parent, name)?, parent)));
            let (stamp, parent) = match found {
                Ok(found) => found,
                Err(error) if host::is_absent(&error) => continue,
                Err(error) => return Err(error).io_context("read", &shown),
            };
            let node = scan.read_node(parent.as_fd(), name, &target, &stamp)?;
            scan.record_node(target, node)?;
        }
    }
    Ok(())
}

/// Returns all files of the upper layer as they are on disk. A directory with no lower
/// directory counts as opaque.
pub(super) fn read_upper_layer(
    tracker: &Tracker,
    attributes: OverlayXattrs,
) -> Result<BTreeMap<RelPath, DiskEntry>, Error> {
    let found: Mutex<BTreeMap<RelPath, DiskEntry>> = Mutex::default();
    let scan = WorkspaceScan::new(tracker, ContentPolicy::Leave);
    let visit = |folder: VisitedDir<'_, Option<u32>>| -> Result<SubdirVisits<Option<u32>>, ScanError> {
        let mut found = found.lock();
        if let Some(mode) = folder.about {
            let beneath = tracker.seen.get(folder.path).is_some_and(|item| item.kind == NodeKind::Dir);
            let mark = if attributes.get_xattr(folder.fd, "redirect")?.is_some() {
                OverlayMark::Redirect
            } else if !beneath || attributes.get_xattr(folder.fd, "opaque")?.as_deref() == Some(b"y") {
                OverlayMark::Opaque
            } else {
                OverlayMark::Merge
            };
            scan.count_path(folder.path)?;
            found.insert(folder.path.clone(), DiskEntry::Directory { mode, mark });
        }
        let mut below = Vec::new();
        for (name, stamp) in folder.listing.unwrap_or_default().iter() {
            let path = folder.path.join(name);
            if tracker.is_ignored(&path) {
                continue;
            }
            if stamp.kind != NodeKind::Dir {
                scan.count_path(&path)?;
            }
            if attributes.is_whiteout(folder.fd, name, stamp) {
                found.insert(path, DiskEntry::Whiteout);
            } else if stamp.kind == NodeKind::Dir {
                below.push((name.into(), Some(stamp.mode)));
            } else if let Some(node) = scan.read_node(folder.fd.as_fd(), name, &path, stamp)? {
                found.insert(path, DiskEntry::Node(node));
            }
        }
        Ok(below)
    };
    walk_tree(tracker.root.fd(), None, OnDenied::Force, WalkThreads::One, &scan.walked, &visit)
        .map_err(|fault: ScanError| fault.into_error(&scan))?;
    Ok(found.into_inner())
}
