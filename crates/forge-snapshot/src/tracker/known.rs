//! What looks before learned: digests of files that did not change, and contents of the beginning.

use super::Options;
use super::scan::Full;
use crate::base::{self, Base, Item};
use crate::bounds::Bounds;
use crate::error::{During, Error};
use crate::host::{self, Kind, Stamp};
use crate::node::{Node, RelPath};
use crate::objects::{Objects, Stillness};
use crate::{bytes::Reader, bytes::Writer, copy};
use forge_types::Digest;
use std::collections::{HashMap, HashSet};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// A file changed so shortly before it was looked at that the next change could leave it the same times.
const RACY_NS: i64 = 20_000_000;
/// Where the digests of the beginning's contents are remembered, in the folder of the objects.
const BASE_CONTENTS: &str = "base-contents";
/// So many files may be remembered that the last look did not meet.
const FORGOTTEN_AT_MOST: usize = 1024;

/// What earlier looks learned. Files are told by their numbers, not by their paths.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// Digests of files by file system and number, as long as their stamps are these.
    files: HashMap<(u64, u64), Looked>,
    /// Content of a file of the beginning by its number in the manifest; `None`: it could not be learned.
    was: HashMap<usize, Option<Digest>>,
    /// All contents of the beginning were stored.
    pub(super) saved: bool,
    /// How many looks there were.
    look: u32,
}

#[derive(Debug)]
struct Looked {
    size: u64,
    mtime_ns: i64,
    ctime_ns: i64,
    digest: Digest,
    /// The last look that met it.
    look: u32,
}

impl Known {
    /// The digest of a file with this stamp, if it is known for sure.
    pub(super) fn digest(&mut self, stamp: &Stamp) -> Option<Digest> {
        let looked = self.files.get_mut(&(stamp.dev, stamp.ino))?;
        let same =
            (looked.size, looked.mtime_ns, looked.ctime_ns) == (stamp.size, stamp.mtime_ns, stamp.ctime_ns);
        looked.look = self.look;
        same.then_some(looked.digest)
    }

    /// Remembers the digest of a file that was looked at at `at_ns`, unless a later change could leave the same stamp.
    pub(super) fn remember(&mut self, stamp: &Stamp, digest: Digest, at_ns: i64) {
        let Stamp { size, mtime_ns, ctime_ns, .. } = *stamp;
        let file = (stamp.dev, stamp.ino);
        if is_racy(ctime_ns, at_ns) {
            self.files.remove(&file);
        } else {
            self.files.insert(file, Looked { size, mtime_ns, ctime_ns, digest, look: self.look });
        }
    }

    /// A look begins.
    pub(super) fn begin_look(&mut self) {
        self.look = self.look.wrapping_add(1);
    }

    /// It has ended: files that it did not meet are forgotten, so that what is known does not grow with each step.
    pub(super) fn end_look(&mut self) {
        if self.files.len() > FORGOTTEN_AT_MOST {
            let look = self.look;
            self.files.retain(|_, looked| looked.look == look);
        }
    }

    /// The content that a file of the beginning had, if it was learned.
    pub(super) fn was(&self, number: Option<usize>) -> Option<Digest> {
        self.was.get(&number?).copied().flatten()
    }

    /// Whether it was tried to learn it, and with what success.
    pub(super) fn tried(&self, number: usize) -> Option<Option<Digest>> {
        self.was.get(&number).copied()
    }

    /// Remembers the content that a file of the beginning had; `None`: it could not be learned.
    pub(super) fn remember_was(&mut self, number: usize, digest: Option<Digest>) {
        self.was.insert(number, digest);
    }

    /// Takes over what a snapshot knows of the beginning.
    pub(super) fn learn(&mut self, full: &Full, base: &Base) {
        for (path, entry) in full {
            if let Some(Node::File { content: Some(content), .. }) = &entry.was
                && let Some(number) = base.find(path)
            {
                self.was.entry(number).or_insert(Some(*content));
            }
        }
    }

    /// Takes over what [`save_base`] stored in an earlier process.
    pub(super) fn load_base(&mut self, folder: &Path, base: &Base) {
        let Some(digests) = std::fs::read(folder.join(BASE_CONTENTS)).ok().and_then(|bytes| decode(&bytes))
        else {
            return;
        };
        self.saved = true;
        let files = base.indexed_below(&RelPath::default()).filter(|(_, _, item)| item.kind == Kind::File);
        let known = files.zip(digests).filter(|(_, digest)| digest.is_some());
        self.was.extend(known.map(|((number, ..), digest)| (number, digest)));
    }
}

pub(super) fn is_racy(ctime_ns: i64, looked_ns: i64) -> bool {
    ctime_ns.saturating_add(RACY_NS) >= looked_ns
}

/// Hashes a file of the beginning if it is still what stood there; stores it too if it is not longer than `keep`.
pub(super) fn learn(
    objects: &Objects,
    lower: BorrowedFd<'_>,
    shown: &Path,
    path: &RelPath,
    item: &Item,
    keep: u64,
    bounds: &Bounds,
) -> Result<Option<Digest>, Error> {
    let Some(file) = base::open_unchanged(lower, path, item).during("open", shown)? else {
        return Ok(None);
    };
    let stamp = Stamp::of_open(&file).during("look at", shown)?;
    let digest = if item.size <= keep {
        match objects.store(&file, &stamp, Stillness::Required, bounds) {
            Ok((digest, _)) => digest,
            Err(Error::Changed { .. }) => return Ok(None),
            Err(error) => return Err(error),
        }
    } else {
        bounds.file(item.size, || shown.to_owned())?;
        copy::digest(&file, bounds).during("read", shown)?.0
    };
    let after = Stamp::of_open(&file).during("look at", shown)?;
    Ok(item.matches(&after).then_some(digest))
}

/// Stores every file of the beginning and remembers the digests, here and beside the objects.
pub(super) fn save_base(options: &Options, known: &Mutex<Known>, bounds: &Bounds) -> Result<(), Error> {
    let known = || known.lock().unwrap_or_else(PoisonError::into_inner);
    let lower = host::open_root(&options.lower).during("open", &options.lower)?;
    let ignored: HashSet<RelPath> = options.ignored.iter().cloned().collect();
    let mut digests = Vec::new();
    let files = options.base.indexed_below(&RelPath::default());
    for (number, path, item) in files.filter(|(_, _, item)| item.kind == Kind::File) {
        bounds.check()?;
        let shown = options.lower.join(path.as_path());
        let digest = if super::is_ignored(&ignored, &path) {
            None
        } else {
            learn(&options.objects, lower.as_fd(), &shown, &path, &item, u64::MAX, bounds)?
        };
        if digest.is_some() {
            known().remember_was(number, digest);
        }
        digests.push(digest);
    }
    options.objects.flush()?;
    let path = options.objects.folder().join(BASE_CONTENTS);
    host::write_durably(&path, &encode(&digests)).during("write", &path)?;
    known().saved = true;
    Ok(())
}

fn encode(digests: &[Option<Digest>]) -> Vec<u8> {
    let mut out = Writer(Vec::with_capacity(33 * digests.len() + 40));
    out.number(digests.len() as u64);
    for digest in digests {
        out.byte(u8::from(digest.is_some()));
        out.0.extend_from_slice(digest.as_ref().map_or(&[][..], |digest| digest.as_bytes()));
    }
    let check = Digest::of(&out.0);
    out.0.extend_from_slice(check.as_bytes());
    out.0
}

fn decode(bytes: &[u8]) -> Option<Vec<Option<Digest>>> {
    let (body, check) = bytes.split_at_checked(bytes.len().checked_sub(32)?)?;
    if Digest::of(body).as_bytes() != check {
        return None;
    }
    let mut input = Reader(body);
    let count = input.count(1)?;
    let digest = |input: &mut Reader<'_>| match input.byte()? {
        0 => Some(None),
        _ => Some(Some(Digest::from_bytes(input.take(32)?.try_into().ok()?))),
    };
    (0..count).map(|_| digest(&mut input)).collect()
}
