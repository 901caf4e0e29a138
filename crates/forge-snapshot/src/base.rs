//! The baseline of a repository: a scan at the beginning of a run that reads no contents.

mod format;
mod scan;

use crate::TreeRoot;
use crate::bounds::WorkBounds;
use crate::error::{Error, IoContext};
use crate::host::{self, FileStamp, NodeKind};
use crate::node::{RelPath, TreeNode};
use crate::walk::OnDenied;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::OnceLock;

/// The baseline state of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BaseItem {
    /// The file type.
    pub kind: NodeKind,
    /// Permission bits (`0o7777`).
    pub mode: u32,
    /// Size in bytes; 0 if not a file.
    pub size: u64,
    /// Time of the last content change, in nanoseconds since the epoch.
    pub mtime_ns: i64,
    /// Time of the last inode change, in nanoseconds since the epoch.
    pub ctime_ns: i64,
    /// Inode number.
    pub ino: u64,
    /// Owner.
    pub uid: u32,
    /// Whether the file had further hard links.
    pub linked: bool,
    /// For a directory: whether it was readable. The contents of an unreadable directory are unknown.
    pub readable: bool,
}

/// The manifest of a directory: type, mode, size, times and inode number of every entry, targets of symbolic links,
/// and no contents. Uses about 65 bytes of memory per entry with a short name.
///
/// Entries are stored in layers: those of the root, then those of each directory in the order of the directories,
/// each block sorted by name.
#[derive(Clone, Debug)]
pub struct BaseManifest {
    scanned_at_ns: i64,
    /// Entry 0 is the root.
    records: Vec<BaseRecord>,
    names: Vec<u8>,
    owners: Vec<u32>,
    /// Indices of the directories with entries, computed on demand.
    directory_indices: OnceLock<Vec<u32>>,
}

impl PartialEq for BaseManifest {
    fn eq(&self, other: &Self) -> bool {
        (self.scanned_at_ns, &self.records, &self.names, &self.owners)
            == (other.scanned_at_ns, &other.records, &other.names, &other.owners)
    }
}

impl Eq for BaseManifest {}

#[derive(Clone, Debug, PartialEq, Eq)]
struct BaseRecord {
    mtime_ns: i64,
    ctime_ns: i64,
    ino: u64,
    /// Size of a file; first entry of a directory; offset of a symbolic link's target in `names`.
    extent: u64,
    /// Offset of the name in `names`.
    name: u32,
    /// Number of entries of a directory; length of a target.
    count: u32,
    owner: u32,
    mode: u16,
    name_len: u16,
    kind: NodeKind,
    linked: bool,
    readable: bool,
}

impl BaseManifest {
    /// Scans everything below `root`. Follows no link below it, reads no contents, needs no write permission.
    /// Records unreadable directories as such.
    ///
    /// # Errors
    /// Fails if `root` is not a readable directory or the host fails.
    pub fn scan_tree(root: &Path) -> io::Result<Self> {
        scan::scan_tree(&TreeRoot::open(root)?, OnDenied::Skip, WorkBounds::unbounded())
    }

    /// Scans a tree like [`BaseManifest::scan_tree`], within bounds.
    ///
    /// # Errors
    /// Also returns [`Error::Ceiling`] and [`Error::Stopped`].
    pub fn scan_tree_within(root: &Path, bounds: &WorkBounds) -> Result<Self, Error> {
        Self::scan_root(&TreeRoot::open(root).io_context("read", root)?, bounds)
    }

    /// Scans an open directory like [`BaseManifest::scan_tree_within`].
    ///
    /// # Errors
    /// Returns the errors of [`BaseManifest::scan_tree_within`].
    pub fn scan_root(root: &TreeRoot, bounds: &WorkBounds) -> Result<Self, Error> {
        scan::scan_tree(root, OnDenied::Skip, bounds).io_context("read", root.path())
    }

    /// Scans a directory of the current user, including directories with modes that deny access.
    pub(crate) fn scan_owned_tree(root: &TreeRoot, bounds: &WorkBounds) -> io::Result<Self> {
        scan::scan_tree(root, OnDenied::Force, bounds)
    }

    /// Checks that every file is small enough to be read, so that a full read can be refused before it starts.
    ///
    /// # Errors
    /// Returns [`Error::Ceiling`] with the first file that is too large, or [`Error::Stopped`].
    pub fn check_readable(&self, root: &Path, bounds: &WorkBounds) -> Result<(), Error> {
        for (at, record) in
            self.records.iter().enumerate().filter(|(_, record)| record.kind == NodeKind::File)
        {
            bounds.check_file_size(record.extent, || root.join(self.path_of(at).as_path()))?;
        }
        Ok(())
    }

    /// Returns the number of entries, excluding the root.
    pub fn len(&self) -> usize {
        self.records.len() - 1
    }

    /// Returns whether the directory was empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the time of the scan, in nanoseconds since the epoch.
    pub fn scanned_at_ns(&self) -> i64 {
        self.scanned_at_ns
    }

    /// Returns the number of entries with an owner other than `uid`.
    pub fn count_foreign(&self, uid: u32) -> usize {
        self.records
            .iter()
            .skip(1)
            .filter(|record| self.owners.get(record.owner as usize) != Some(&uid))
            .count()
    }

    /// Returns the first entry that belongs to a user other than `uid` and that only its owner or group may read.
    pub fn find_private_foreign(&self, uid: u32) -> Option<RelPath> {
        let is_private = |record: &BaseRecord| {
            record.kind != NodeKind::Symlink
                && self.owners.get(record.owner as usize) != Some(&uid)
                && self.record_item(record).mode & 0o004 == 0
        };
        let at = self.records.iter().skip(1).position(is_private)?;
        Some(self.path_of(at + 1))
    }

    /// Returns the baseline state of a path.
    pub fn get(&self, path: &RelPath) -> Option<BaseItem> {
        Some(self.record_item(&self.records[self.find_index(path)?]))
    }

    /// Returns the baseline target of the symbolic link at a path.
    pub fn link_target(&self, path: &RelPath) -> Option<&[u8]> {
        self.record_target(&self.records[self.find_index(path)?])
    }

    /// Returns the baseline state of a path as a node without known contents. `None` also for sockets and devices.
    pub fn node_at(&self, path: &RelPath) -> Option<TreeNode> {
        self.record_node(&self.records[self.find_index(path)?])
    }

    /// Returns the names and items of a directory, sorted by name; empty if not a directory.
    pub fn children(&self, folder: &RelPath) -> impl Iterator<Item = (&[u8], BaseItem)> {
        let range = self.find_index(folder).map_or(0..0, |at| self.child_range(at));
        self.records[range].iter().map(|record| (self.record_name(record), self.record_item(record)))
    }

    /// Returns the baseline state of a path and everything below it, each directory before its contents.
    pub fn entries_below(&self, path: &RelPath) -> EntriesBelow<'_> {
        EntriesBelow(self.indexed_entries_below(path))
    }

    /// Returns the entries of [`BaseManifest::entries_below`] with their indices.
    pub(crate) fn indexed_entries_below(&self, path: &RelPath) -> IndexedEntriesBelow<'_> {
        let top = path.parent().unwrap_or_default();
        IndexedEntriesBelow {
            base: self,
            next: self.find_index(path).map(|at| (at, top)).into_iter().collect(),
        }
    }

    /// Returns the path of the entry at an index.
    pub(crate) fn path_of(&self, at: usize) -> RelPath {
        let mut parts = Vec::new();
        let mut at = at;
        while at != 0 {
            parts.push(self.record_name(&self.records[at]));
            at = self.parent_index(at);
        }
        parts.reverse();
        RelPath::new(parts.join(&b'/')).unwrap_or_default()
    }

    /// Returns the index of an entry's directory: the last directory with entries that begin at or before it. The
    /// entry must not be the root.
    fn parent_index(&self, at: usize) -> usize {
        let folders = self.directory_indices.get_or_init(|| {
            let full = |(_, record): &(usize, &BaseRecord)| record.kind == NodeKind::Dir && record.count > 0;
            let number = |(at, _)| u32::try_from(at).unwrap_or(u32::MAX);
            self.records.iter().enumerate().filter(full).map(number).collect()
        });
        let begins = |folder: &u32| self.records[*folder as usize].extent <= at as u64;
        folders.partition_point(begins).checked_sub(1).map_or(0, |last| folders[last] as usize)
    }

    /// Returns whether the current stamp of a path matches the baseline: the same, unmodified file. For directories,
    /// only the mode is compared.
    pub fn stamp_matches(&self, path: &RelPath, now: Option<&FileStamp>) -> bool {
        match (self.get(path), now) {
            (None, None) => true,
            (Some(item), Some(now)) => item.matches_stamp(now),
            _ => false,
        }
    }

    /// Returns the baseline state of the entry at an index.
    pub(crate) fn item_at(&self, at: usize) -> BaseItem {
        self.record_item(&self.records[at])
    }

    /// Returns the index of the entry at a path.
    pub(crate) fn find_index(&self, path: &RelPath) -> Option<usize> {
        let mut at = 0;
        for part in path.components() {
            let range = self.child_range(at);
            let first = range.start;
            at = first
                + self.records[range].binary_search_by(|record| self.record_name(record).cmp(part)).ok()?;
        }
        Some(at)
    }

    /// Returns the indices of a directory's entries.
    fn child_range(&self, at: usize) -> Range<usize> {
        let record = &self.records[at];
        match record.kind {
            NodeKind::Dir => {
                let first = usize::try_from(record.extent).unwrap_or(usize::MAX);
                first..first + record.count as usize
            }
            _ => 0..0,
        }
    }

    fn record_name(&self, record: &BaseRecord) -> &[u8] {
        let start = record.name as usize;
        &self.names[start..start + usize::from(record.name_len)]
    }

    fn record_target(&self, record: &BaseRecord) -> Option<&[u8]> {
        let start = usize::try_from(record.extent).ok()?;
        (record.kind == NodeKind::Symlink).then(|| &self.names[start..start + record.count as usize])
    }

    fn record_item(&self, record: &BaseRecord) -> BaseItem {
        BaseItem {
            kind: record.kind,
            mode: u32::from(record.mode),
            size: if record.kind == NodeKind::File { record.extent } else { 0 },
            mtime_ns: record.mtime_ns,
            ctime_ns: record.ctime_ns,
            ino: record.ino,
            uid: self.owners.get(record.owner as usize).copied().unwrap_or(u32::MAX),
            linked: record.linked,
            readable: record.readable,
        }
    }

    fn record_node(&self, record: &BaseRecord) -> Option<TreeNode> {
        let item = self.record_item(record);
        match item.kind {
            NodeKind::File => Some(TreeNode::File {
                mode: item.mode,
                size: item.size,
                mtime_ns: item.mtime_ns,
                content: None,
                links: item.linked.then_some(item.ino),
            }),
            NodeKind::Symlink => {
                self.record_target(record).map(|target| TreeNode::Symlink { target: target.to_vec() })
            }
            NodeKind::Dir => Some(TreeNode::Dir { mode: item.mode }),
            NodeKind::Fifo => Some(TreeNode::Fifo { mode: item.mode }),
            NodeKind::Whiteout | NodeKind::Other => None,
        }
    }

    /// Writes the manifest atomically and durably.
    ///
    /// # Errors
    /// Returns the host's errors, including a full disk.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        host::write_durably(path, &format::encode_manifest(self))
    }

    /// Reads a manifest written by [`BaseManifest::save`].
    ///
    /// # Errors
    /// Returns `InvalidData` if the file is damaged or has an unknown version, or the host's error.
    pub fn load(path: &Path) -> io::Result<Self> {
        Self::from_bytes(&std::fs::read(path)?)
    }

    /// Decodes a manifest in the format of [`BaseManifest::save`].
    ///
    /// # Errors
    /// Returns `InvalidData` if the bytes are damaged or have an unknown version.
    pub fn from_bytes(bytes: &[u8]) -> io::Result<Self> {
        let damaged =
            || io::Error::new(io::ErrorKind::InvalidData, "the manifest of the repository is damaged");
        format::decode_manifest(bytes).ok_or_else(damaged)
    }
}

impl BaseItem {
    /// Returns whether a stamp is of the same, unmodified file. For directories, only the mode is compared.
    pub fn matches_stamp(&self, now: &FileStamp) -> bool {
        match self.kind {
            NodeKind::Dir => now.kind == NodeKind::Dir && now.mode == self.mode,
            NodeKind::File => (self.size, self.stamp_key()) == (now.size, stamp_key_of(now)),
            _ => self.stamp_key() == stamp_key_of(now),
        }
    }

    fn stamp_key(&self) -> (NodeKind, u32, i64, i64, u64) {
        (self.kind, self.mode, self.mtime_ns, self.ctime_ns, self.ino)
    }
}

fn stamp_key_of(now: &FileStamp) -> (NodeKind, u32, i64, i64, u64) {
    (now.kind, now.mode, now.mtime_ns, now.ctime_ns, now.ino)
}

/// An iterator of [`BaseManifest::entries_below`].
pub struct EntriesBelow<'a>(IndexedEntriesBelow<'a>);

impl Iterator for EntriesBelow<'_> {
    type Item = (RelPath, BaseItem);

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(|(_, path, item)| (path, item))
    }
}

/// An iterator of [`BaseManifest::indexed_entries_below`].
pub(crate) struct IndexedEntriesBelow<'a> {
    base: &'a BaseManifest,
    /// Remaining entries, each with its directory instead of its full path.
    next: Vec<(usize, RelPath)>,
}

impl Iterator for IndexedEntriesBelow<'_> {
    type Item = (usize, RelPath, BaseItem);

    fn next(&mut self) -> Option<Self::Item> {
        let (at, folder) = self.next.pop()?;
        let record = &self.base.records[at];
        let path = if at == 0 { folder } else { folder.join(self.base.record_name(record)) };
        self.next.extend(self.base.child_range(at).rev().map(|below| (below, path.clone())));
        Some((at, path, self.base.record_item(record)))
    }
}

fn to_u32(n: usize) -> io::Result<u32> {
    u32::try_from(n)
        .map_err(|_| io::Error::new(io::ErrorKind::FileTooLarge, "the directory has too many entries"))
}

/// The system clock, for comparison with file timestamps.
#[allow(
    clippy::disallowed_methods,
    reason = "compared with the times that the kernel gives files, no clock of a run"
)]
pub(crate) fn now_ns() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// Opens a file of the manifest's tree if it is unchanged since the scan.
pub(crate) fn open_unchanged(
    root: std::os::fd::BorrowedFd<'_>,
    path: &RelPath,
    item: &BaseItem,
) -> io::Result<Option<std::fs::File>> {
    let Some((parent, name)) = host::split_path(path) else {
        return Ok(None);
    };
    let opened = host::open_below(root, parent, rustix::fs::OFlags::PATH | host::DIR_OPEN_FLAGS)
        .and_then(|parent| host::open_file(&parent, name));
    match opened {
        Ok(file) => Ok(item.matches_stamp(&FileStamp::stat_open(&file)?).then_some(file)),
        Err(error) if host::is_absent(&error) || host::is_denied(&error) => Ok(None),
        Err(error) if rustix::io::Errno::from_io_error(&error) == Some(rustix::io::Errno::INVAL) => Ok(None),
        Err(error) => Err(error),
    }
}
