//! Results of earlier scans: digests of unchanged files, and baseline contents.

use super::FullDelta;
use super::TrackerOptions;
use crate::base::{self, BaseItem, BaseManifest};
use crate::bounds::WorkBounds;
use crate::error::{Error, IoContext};
use crate::host::{self, FileStamp, NodeKind};
use crate::node::{RelPath, TreeNode};
use crate::objects::{ObjectStore, RaceCheck};
use crate::{copy, encoding::ByteReader, encoding::ByteWriter};
use forge_types::Digest;
use parking_lot::Mutex;
use std::collections::{HashMap, HashSet};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

/// Time before a scan in which a file's change could be followed by another one with the same timestamps.
const RACY_WINDOW_NS: i64 = 20_000_000;
/// The file with the digests of baseline contents, in the directory of the objects.
const BASE_CONTENTS_FILE: &str = "base-contents";
/// Maximum number of cached files that the last scan did not encounter.
const MAX_UNSEEN_FILES: usize = 1024;

/// Results of earlier scans. Files are identified by inode numbers, not by paths.
#[derive(Debug, Default)]
pub(super) struct DigestCache {
    /// Digests of files by file system and inode number, valid while their stamps match.
    files: HashMap<(u64, u64), CachedDigest>,
    /// Content of a baseline file by its index in the manifest; `None`: it could not be determined.
    was: HashMap<usize, Option<Digest>>,
    /// Whether all baseline contents were stored.
    pub(super) saved: bool,
    /// Number of scans.
    scan_number: u32,
}

#[derive(Debug)]
struct CachedDigest {
    size: u64,
    mtime_ns: i64,
    ctime_ns: i64,
    digest: Digest,
    /// The last scan that encountered the file.
    last_scan: u32,
}

impl DigestCache {
    /// Returns the digest of a file with this stamp, if known for certain.
    pub(super) fn cached_digest(&mut self, stamp: &FileStamp) -> Option<Digest> {
        let looked = self.files.get_mut(&(stamp.dev, stamp.ino))?;
        let same =
            (looked.size, looked.mtime_ns, looked.ctime_ns) == (stamp.size, stamp.mtime_ns, stamp.ctime_ns);
        looked.last_scan = self.scan_number;
        same.then_some(looked.digest)
    }

    /// Caches the digest of a file that was read at `at_ns`, unless a later change could leave the same stamp.
    pub(super) fn remember_digest(&mut self, stamp: &FileStamp, digest: Digest, at_ns: i64) {
        let FileStamp { size, mtime_ns, ctime_ns, .. } = *stamp;
        let file = (stamp.dev, stamp.ino);
        if is_racy(ctime_ns, at_ns) {
            self.files.remove(&file);
        } else {
            self.files
                .insert(file, CachedDigest { size, mtime_ns, ctime_ns, digest, last_scan: self.scan_number });
        }
    }

    /// Begins a scan.
    pub(super) fn begin_scan(&mut self) {
        self.scan_number = self.scan_number.wrapping_add(1);
    }

    /// Ends a scan and evicts files that it did not encounter, so that the cache does not grow with each step.
    pub(super) fn end_scan(&mut self) {
        if self.files.len() > MAX_UNSEEN_FILES {
            let look = self.scan_number;
            self.files.retain(|_, looked| looked.last_scan == look);
        }
    }

    /// Returns the content of a baseline file, if known.
    pub(super) fn base_digest(&self, number: Option<usize>) -> Option<Digest> {
        self.was.get(&number?).copied().flatten()
    }

    /// Returns the result of an earlier attempt to determine the content, if there was one.
    pub(super) fn base_attempt(&self, number: usize) -> Option<Option<Digest>> {
        self.was.get(&number).copied()
    }

    /// Caches the content of a baseline file; `None`: it could not be determined.
    pub(super) fn remember_base_digest(&mut self, number: usize, digest: Option<Digest>) {
        self.was.insert(number, digest);
    }

    /// Adds the baseline contents that a snapshot contains.
    pub(super) fn learn_from_snapshot(&mut self, full: &FullDelta, base: &BaseManifest) {
        for (path, entry) in full {
            if let Some(TreeNode::File { content: Some(content), .. }) = &entry.before
                && let Some(number) = base.find_index(path)
            {
                self.was.entry(number).or_insert(Some(*content));
            }
        }
    }

    /// Adds the baseline contents that [`save_base_contents`] stored in an earlier process.
    pub(super) fn load_base_digests(&mut self, folder: &Path, base: &BaseManifest) {
        let Some(digests) =
            std::fs::read(folder.join(BASE_CONTENTS_FILE)).ok().and_then(|bytes| decode_digests(&bytes))
        else {
            return;
        };
        self.saved = true;
        let files = base
            .indexed_entries_below(&RelPath::default())
            .filter(|(_, _, item)| item.kind == NodeKind::File);
        let known = files.zip(digests).filter(|(_, digest)| digest.is_some());
        self.was.extend(known.map(|((number, ..), digest)| (number, digest)));
    }
}

pub(super) fn is_racy(ctime_ns: i64, looked_ns: i64) -> bool {
    ctime_ns.saturating_add(RACY_WINDOW_NS) >= looked_ns
}

/// Hashes a baseline file if unchanged; also stores its content if not longer than `keep`.
pub(super) fn learn_base_file(
    objects: &ObjectStore,
    lower: BorrowedFd<'_>,
    shown: &Path,
    path: &RelPath,
    item: &BaseItem,
    keep: u64,
    bounds: &WorkBounds,
) -> Result<Option<Digest>, Error> {
    let Some(file) = base::open_unchanged(lower, path, item).io_context("open", shown)? else {
        return Ok(None);
    };
    let stamp = FileStamp::stat_open(&file).io_context("inspect", shown)?;
    let digest = if item.size <= keep {
        match objects.store_checked(&file, &stamp, RaceCheck::Required, bounds) {
            Ok((digest, _)) => digest,
            Err(Error::Changed { .. }) => return Ok(None),
            Err(error) => return Err(error),
        }
    } else {
        bounds.check_file_size(item.size, || shown.to_owned())?;
        copy::hash_file(&file, bounds).io_context("read", shown)?.0
    };
    let after = FileStamp::stat_open(&file).io_context("inspect", shown)?;
    Ok(item.matches_stamp(&after).then_some(digest))
}

/// Stores every baseline file and records the digests in the cache and next to the objects.
pub(super) fn save_base_contents(
    options: &TrackerOptions,
    known: &Mutex<DigestCache>,
    bounds: &WorkBounds,
) -> Result<(), Error> {
    let known = || known.lock();
    let ignored: HashSet<RelPath> = options.ignored.iter().cloned().collect();
    let mut digests = Vec::new();
    let files = options.base.indexed_entries_below(&RelPath::default());
    for (number, path, item) in files.filter(|(_, _, item)| item.kind == NodeKind::File) {
        bounds.check_stopped()?;
        let shown = options.lower.join(path.as_path());
        let digest = if super::is_ignored(&ignored, &path) {
            None
        } else {
            learn_base_file(&options.objects, options.lower.as_fd(), &shown, &path, &item, u64::MAX, bounds)?
        };
        if digest.is_some() {
            known().remember_base_digest(number, digest);
        }
        digests.push(digest);
    }
    options.objects.flush()?;
    let path = options.objects.directory().join(BASE_CONTENTS_FILE);
    host::write_durably(&path, &encode_digests(&digests)).io_context("write", &path)?;
    known().saved = true;
    Ok(())
}

fn encode_digests(digests: &[Option<Digest>]) -> Vec<u8> {
    let mut out = ByteWriter(Vec::with_capacity(33 * digests.len() + 40));
    out.write_varint(digests.len() as u64);
    for digest in digests {
        out.write_byte(u8::from(digest.is_some()));
        out.0.extend_from_slice(digest.as_ref().map_or(&[][..], |digest| digest.as_bytes()));
    }
    let check = Digest::of_bytes(&out.0);
    out.0.extend_from_slice(check.as_bytes());
    out.0
}

fn decode_digests(bytes: &[u8]) -> Option<Vec<Option<Digest>>> {
    let (body, check) = bytes.split_at_checked(bytes.len().checked_sub(32)?)?;
    if Digest::of_bytes(body).as_bytes() != check {
        return None;
    }
    let mut input = ByteReader(body);
    let count = input.read_count(1)?;
    let digest = |input: &mut ByteReader<'_>| match input.read_byte()? {
        0 => Some(None),
        _ => Some(Some(Digest::from_bytes(input.read_bytes(32)?.try_into().ok()?))),
    };
    (0..count).map(|_| digest(&mut input)).collect()
}
