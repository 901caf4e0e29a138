//! Looking at the upper layer of an overlay: what was made or copied up, whiteouts, opaque and renamed folders.
//!
//! The marks are those of the kernel's documentation of overlayfs: a character device 0:0, or an empty file with the
//! attribute `whiteout`, hides a name; the attribute `opaque` of a folder, if it is `y`, hides all of the folder
//! below; `redirect` names the folder below that a renamed folder continues: a name beside it, or a path from the root
//! of the layer if it begins with a slash.

use super::scan::{Contents, Scan};
use super::want::{Mark, Thing};
use super::whole::Fault;
use super::{Attributes, Tracker};
use crate::error::{During, Error};
use crate::host::{self, Kind, Stamp};
use crate::node::RelPath;
use crate::walk::{Below, Denied, Folder, Listing, Threads, walk};
use rustix::fs::OFlags;
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::{Mutex, PoisonError};

impl Attributes {
    /// The full name of one of the overlay's attributes.
    pub(super) fn name(self, attribute: &str) -> String {
        match self {
            Self::User => format!("user.overlay.{attribute}"),
            Self::Trusted => format!("trusted.overlay.{attribute}"),
        }
    }

    /// The value of one of an open folder's attributes.
    pub(super) fn get(self, folder: impl AsFd, attribute: &str) -> io::Result<Option<Vec<u8>>> {
        let mut value = vec![0; 256];
        loop {
            match rustix::fs::fgetxattr(folder.as_fd(), self.name(attribute), &mut value[..]) {
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

    /// Whether an entry of the upper layer says that nothing stands there.
    pub(super) fn is_whiteout(self, folder: impl AsFd, name: &[u8], stamp: &Stamp) -> bool {
        match stamp.kind {
            Kind::Whiteout => true,
            Kind::File if stamp.size == 0 => {
                let mut path = format!("/proc/self/fd/{}/", folder.as_fd().as_raw_fd()).into_bytes();
                path.extend_from_slice(name);
                rustix::fs::lgetxattr(path, self.name("whiteout"), &mut [0_u8; 8][..]).is_ok()
            }
            _ => false,
        }
    }
}

/// What a folder of the upper layer continues: the folder of the repository that its parent continues, and its own
/// one if nothing else is said.
#[derive(Clone, Default)]
struct Beneath {
    parent: Option<RelPath>,
}

/// Finds what the upper layer changes.
pub(super) fn look(scan: &Scan<'_>, attributes: Attributes) -> Result<(), Error> {
    walk(&scan.tracker.root, Beneath::default(), Denied::Force, Threads::One, &scan.walked, &|folder| {
        visit(scan, attributes, folder)
    })
    .map_err(|fault: Fault| fault.placed(scan))
}

fn visit(
    scan: &Scan<'_>,
    attributes: Attributes,
    folder: Folder<'_, Beneath>,
) -> Result<Below<Beneath>, Fault> {
    let path = folder.path;
    let base = &scan.tracker.seen;
    let beneath = continues(scan.tracker, attributes, &folder)?;
    let own = beneath.as_ref() == Some(path);
    if !own {
        for (name, _) in base.children(path) {
            scan.gone(&path.join(name))?;
        }
    }
    let listing = folder.listing.unwrap_or_default();
    let mut below = Vec::new();
    for (name, stamp) in listing.iter() {
        let child = path.join(name);
        if scan.skips(&child, name) {
            continue;
        }
        if attributes.is_whiteout(folder.fd, name, stamp) {
            scan.gone(&child)?;
            continue;
        }
        if base.get(&child).is_some_and(|was| (was.kind == Kind::Dir) != (stamp.kind == Kind::Dir)) {
            scan.gone(&child)?;
        }
        let node = scan.node(folder.fd.as_fd(), name, &child, stamp)?;
        scan.put(child, node)?;
        if stamp.kind == Kind::Dir {
            below.push((name.into(), Beneath { parent: beneath.clone() }));
        }
    }
    if let (Some(from), false) = (&beneath, own) {
        shine_through(scan, path, from, &listing)?;
    }
    Ok(below)
}

/// The folder of the repository that a folder of the upper layer continues.
fn continues(
    tracker: &Tracker,
    attributes: Attributes,
    folder: &Folder<'_, Beneath>,
) -> Result<Option<RelPath>, Fault> {
    let Some((_, name)) = host::split(folder.path) else {
        return Ok(Some(RelPath::default()));
    };
    if attributes.get(folder.fd, "opaque")?.as_deref() == Some(b"y") {
        return Ok(None);
    }
    let odd = || Error::Damaged { what: format!("the renamed folder {} of the workspace", folder.path) };
    let beneath = match attributes.get(folder.fd, "redirect")? {
        None => folder.about.parent.as_ref().map(|parent| parent.join(name)),
        Some(to) => match to.strip_prefix(b"/") {
            Some(absolute) => Some(RelPath::new(absolute).ok_or_else(odd)?),
            None if to.contains(&b'/') || RelPath::new(to.as_slice()).is_none() => return Err(odd().into()),
            None => folder.about.parent.as_ref().map(|parent| parent.join(&to)),
        },
    };
    let is_folder = |path: &RelPath| tracker.seen.get(path).is_some_and(|item| item.kind == Kind::Dir);
    Ok(beneath.filter(is_folder))
}

/// What a renamed folder shows of the folder that it continues: everything that the upper layer does not cover.
fn shine_through(scan: &Scan<'_>, path: &RelPath, from: &RelPath, covered: &Listing) -> Result<(), Error> {
    let lower = &scan.tracker.lower;
    let base = &scan.tracker.seen;
    for (name, _) in base.children(from).filter(|(name, _)| covered.find(name).is_none()) {
        for (source, _) in base.below(&from.join(name)) {
            let Some((parent, name)) = host::split(&source) else {
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
            let found = host::open_below(lower.as_fd(), parent, OFlags::PATH | host::FOLDER)
                .and_then(|parent| Ok((Stamp::of(&parent, name)?, parent)));
            let (stamp, parent) = match found {
                Ok(found) => found,
                Err(error) if host::is_absent(&error) => continue,
                Err(error) => return Err(error).during("read", &shown),
            };
            let node = scan.node(parent.as_fd(), name, &target, &stamp)?;
            scan.put(target, node)?;
        }
    }
    Ok(())
}

/// Everything in the upper layer as it lies on disk, and half-made files of ours. A folder that hides nothing because
/// nothing is below it counts as one that hides.
pub(super) fn layer(
    tracker: &Tracker,
    attributes: Attributes,
) -> Result<(BTreeMap<RelPath, Thing>, Vec<RelPath>), Error> {
    let found: Mutex<BTreeMap<RelPath, Thing>> = Mutex::default();
    let scan = Scan::new(tracker, Contents::Leave);
    let visit = |folder: Folder<'_, Option<u32>>| -> Result<Below<Option<u32>>, Fault> {
        let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(mode) = folder.about {
            let beneath = tracker.seen.get(folder.path).is_some_and(|item| item.kind == Kind::Dir);
            let mark = if attributes.get(folder.fd, "redirect")?.is_some() {
                Mark::Redirect
            } else if !beneath || attributes.get(folder.fd, "opaque")?.as_deref() == Some(b"y") {
                Mark::Opaque
            } else {
                Mark::Merge
            };
            scan.count(folder.path)?;
            found.insert(folder.path.clone(), Thing::Folder { mode, mark });
        }
        let mut below = Vec::new();
        for (name, stamp) in folder.listing.unwrap_or_default().iter() {
            let path = folder.path.join(name);
            if scan.skips(&path, name) {
                continue;
            }
            if stamp.kind != Kind::Dir {
                scan.count(&path)?;
            }
            if attributes.is_whiteout(folder.fd, name, stamp) {
                found.insert(path, Thing::Whiteout);
            } else if stamp.kind == Kind::Dir {
                below.push((name.into(), Some(stamp.mode)));
            } else if let Some(node) = scan.node(folder.fd.as_fd(), name, &path, stamp)? {
                found.insert(path, Thing::Node(node));
            }
        }
        Ok(below)
    };
    walk(&tracker.root, None, Denied::Force, Threads::One, &scan.walked, &visit)
        .map_err(|fault: Fault| fault.placed(&scan))?;
    Ok((found.into_inner().unwrap_or_else(PoisonError::into_inner), scan.into_touched().leftovers))
}
