//! What stood in a repository when a run began: a walk that looks and reads no content.

mod format;
mod scan;

use crate::bounds::WorkBounds;
use crate::error::{Error, IoContext};
use crate::host::{self, FileStamp, NodeKind};
use crate::node::{RelPath, TreeNode};
use crate::walk::OnDenied;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::OnceLock;

/// What stood at one path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BaseItem {
    /// What it was.
    pub kind: NodeKind,
    /// Permission bits (`0o7777`).
    pub mode: u32,
    /// Bytes; 0 for everything that is no file.
    pub size: u64,
    /// Last change of content, nanoseconds since the epoch.
    pub mtime_ns: i64,
    /// Last change of anything, nanoseconds since the epoch.
    pub ctime_ns: i64,
    /// Number within its file system.
    pub ino: u64,
    /// Owner.
    pub uid: u32,
    /// Whether it had further names.
    pub linked: bool,
    /// For a folder: whether it could be looked into. What is below an unreadable one is not known.
    pub readable: bool,
}

/// The manifest of a folder: kind, mode, size, times and number of everything in it, targets of symbolic links, and
/// no content. About 65 bytes of memory for an entry with a short name.
///
/// Entries lie in layers: those of the root, then those of each folder in the order of the folders, each block sorted
/// by name.
#[derive(Clone, Debug)]
pub struct BaseManifest {
    scanned_at_ns: i64,
    /// Entry 0 is the root.
    records: Vec<BaseRecord>,
    names: Vec<u8>,
    owners: Vec<u32>,
    /// The numbers of the folders that hold something, once they were asked for.
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
    /// Bytes of a file; the first entry of a folder; where the target of a symbolic link begins in `names`.
    extent: u64,
    /// Where the name begins in `names`.
    name: u32,
    /// How many entries a folder has; how long a target is.
    count: u32,
    owner: u32,
    mode: u16,
    name_len: u16,
    kind: NodeKind,
    linked: bool,
    readable: bool,
}

impl BaseManifest {
    /// Looks at everything below `root`. Follows no link below it, reads no content, needs no right to write.
    /// A folder that may not be read is recorded as such.
    ///
    /// # Errors
    /// `root` is no readable folder, or the host fails.
    pub fn scan_tree(root: &Path) -> io::Result<Self> {
        scan::scan_tree(root, OnDenied::Skip, WorkBounds::unbounded())
    }

    /// [`Base::take`] within bounds.
    ///
    /// # Errors
    /// Also [`Error::Ceiling`] and [`Error::Stopped`].
    pub fn scan_tree_within(root: &Path, bounds: &WorkBounds) -> Result<Self, Error> {
        scan::scan_tree(root, OnDenied::Skip, bounds).io_context("read", root)
    }

    /// The manifest of a folder that is ours: folders whose modes forbid it are looked into all the same.
    pub(crate) fn scan_owned_tree(root: &Path, bounds: &WorkBounds) -> io::Result<Self> {
        scan::scan_tree(root, OnDenied::Force, bounds)
    }

    /// Whether each of its files may be read whole: where that is done, it is said before anything begins.
    ///
    /// # Errors
    /// [`Error::Ceiling`] with the first file that is too large; [`Error::Stopped`].
    pub fn check_readable(&self, root: &Path, bounds: &WorkBounds) -> Result<(), Error> {
        for (at, record) in
            self.records.iter().enumerate().filter(|(_, record)| record.kind == NodeKind::File)
        {
            bounds.check_file_size(record.extent, || root.join(self.path_of(at).as_path()))?;
        }
        Ok(())
    }

    /// How many entries there are, the root not counted.
    pub fn len(&self) -> usize {
        self.records.len() - 1
    }

    /// Whether the folder was empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// When it was taken, nanoseconds since the epoch.
    pub fn scanned_at_ns(&self) -> i64 {
        self.scanned_at_ns
    }

    /// How many entries belong to somebody else than `uid`.
    pub fn count_foreign(&self, uid: u32) -> usize {
        self.records
            .iter()
            .skip(1)
            .filter(|record| self.owners.get(record.owner as usize) != Some(&uid))
            .count()
    }

    /// What stood at a path.
    pub fn get(&self, path: &RelPath) -> Option<BaseItem> {
        Some(self.record_item(&self.records[self.find_index(path)?]))
    }

    /// Where the symbolic link at a path pointed.
    pub fn link_target(&self, path: &RelPath) -> Option<&[u8]> {
        self.record_target(&self.records[self.find_index(path)?])
    }

    /// What stood at a path, in the words of a snapshot; contents are not known. `None` also for sockets and devices.
    pub fn node_at(&self, path: &RelPath) -> Option<TreeNode> {
        self.record_node(&self.records[self.find_index(path)?])
    }

    /// Names and items of a folder, sorted by name. Nothing if it was no folder.
    pub fn children(&self, folder: &RelPath) -> impl Iterator<Item = (&[u8], BaseItem)> {
        let range = self.find_index(folder).map_or(0..0, |at| self.child_range(at));
        self.records[range].iter().map(|record| (self.record_name(record), self.record_item(record)))
    }

    /// What stood at a path and everything below it, each folder before what is in it.
    pub fn entries_below(&self, path: &RelPath) -> EntriesBelow<'_> {
        EntriesBelow(self.indexed_entries_below(path))
    }

    /// [`Base::below`] with the number of each entry.
    pub(crate) fn indexed_entries_below(&self, path: &RelPath) -> IndexedEntriesBelow<'_> {
        let top = path.parent().unwrap_or_default();
        IndexedEntriesBelow {
            base: self,
            next: self.find_index(path).map(|at| (at, top)).into_iter().collect(),
        }
    }

    /// The path of an entry by its number.
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

    /// The folder that an entry other than the root lies in: the last one whose entries begin at or before it.
    fn parent_index(&self, at: usize) -> usize {
        let folders = self.directory_indices.get_or_init(|| {
            let full = |(_, record): &(usize, &BaseRecord)| record.kind == NodeKind::Dir && record.count > 0;
            let number = |(at, _)| u32::try_from(at).unwrap_or(u32::MAX);
            self.records.iter().enumerate().filter(full).map(number).collect()
        });
        let begins = |folder: &u32| self.records[*folder as usize].extent <= at as u64;
        folders.partition_point(begins).checked_sub(1).map_or(0, |last| folders[last] as usize)
    }

    /// Whether what stands at a path now, by its stamp, is what stood there: the same file, not touched. Of folders
    /// only the mode is compared.
    pub fn stamp_matches(&self, path: &RelPath, now: Option<&FileStamp>) -> bool {
        match (self.get(path), now) {
            (None, None) => true,
            (Some(item), Some(now)) => item.matches_stamp(now),
            _ => false,
        }
    }

    /// What stood at an entry by its number.
    pub(crate) fn item_at(&self, at: usize) -> BaseItem {
        self.record_item(&self.records[at])
    }

    /// The number of the entry at a path.
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

    /// The entries of a folder.
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

    /// Writes the manifest so that it survives a crash whole or not at all.
    ///
    /// # Errors
    /// The host's, a full disk among them.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        host::write_durably(path, &format::encode_manifest(self))
    }

    /// Reads a manifest that [`Base::save`] wrote.
    ///
    /// # Errors
    /// `InvalidData` if the file is damaged or of a version this program does not know; else the host's.
    pub fn load(path: &Path) -> io::Result<Self> {
        Self::from_bytes(&std::fs::read(path)?)
    }

    /// The manifest in `bytes`, as [`Base::save`] writes them.
    ///
    /// # Errors
    /// `InvalidData` for bytes that are damaged, or of a version this program does not know.
    pub fn from_bytes(bytes: &[u8]) -> io::Result<Self> {
        let damaged =
            || io::Error::new(io::ErrorKind::InvalidData, "the manifest of the repository is damaged");
        format::decode_manifest(bytes).ok_or_else(damaged)
    }
}

impl BaseItem {
    /// Whether a stamp is of the same file, not touched since. Of folders only the mode is compared.
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

/// See [`Base::below`].
pub struct EntriesBelow<'a>(IndexedEntriesBelow<'a>);

impl Iterator for EntriesBelow<'_> {
    type Item = (RelPath, BaseItem);

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(|(_, path, item)| (path, item))
    }
}

/// See [`Base::indexed_below`].
pub(crate) struct IndexedEntriesBelow<'a> {
    base: &'a BaseManifest,
    /// Entries that are still to come, each with the folder that it lies in: no whole paths.
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
        .map_err(|_| io::Error::new(io::ErrorKind::FileTooLarge, "the folder has too many entries"))
}

/// The wall clock, to be compared with the times of the file system.
#[allow(
    clippy::disallowed_methods,
    reason = "compared with the times that the kernel gives files, no clock of a run"
)]
pub(crate) fn now_ns() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// Opens a file of the tree that a manifest describes, if it still is what stood there.
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
