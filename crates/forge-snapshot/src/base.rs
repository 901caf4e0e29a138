//! What stood in a repository when a run began: a walk that looks and reads no content.

mod format;
mod take;

use crate::bounds::Bounds;
use crate::error::{During, Error};
use crate::host::{self, Kind, Stamp};
use crate::node::{Node, RelPath};
use crate::walk::Denied;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::OnceLock;

/// What stood at one path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item {
    /// What it was.
    pub kind: Kind,
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
pub struct Base {
    taken_ns: i64,
    /// Entry 0 is the root.
    records: Vec<Record>,
    names: Vec<u8>,
    owners: Vec<u32>,
    /// The numbers of the folders that hold something, once they were asked for.
    folders: OnceLock<Vec<u32>>,
}

impl PartialEq for Base {
    fn eq(&self, other: &Self) -> bool {
        (self.taken_ns, &self.records, &self.names, &self.owners)
            == (other.taken_ns, &other.records, &other.names, &other.owners)
    }
}

impl Eq for Base {}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Record {
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
    kind: Kind,
    linked: bool,
    readable: bool,
}

impl Base {
    /// Looks at everything below `root`. Follows no link below it, reads no content, needs no right to write.
    /// A folder that may not be read is recorded as such.
    ///
    /// # Errors
    /// `root` is no readable folder, or the host fails.
    pub fn take(root: &Path) -> io::Result<Self> {
        take::look(root, Denied::Skip, Bounds::none())
    }

    /// [`Base::take`] within bounds.
    ///
    /// # Errors
    /// Also [`Error::Ceiling`] and [`Error::Stopped`].
    pub fn take_within(root: &Path, bounds: &Bounds) -> Result<Self, Error> {
        take::look(root, Denied::Skip, bounds).during("read", root)
    }

    /// The manifest of a folder that is ours: folders whose modes forbid it are looked into all the same.
    pub(crate) fn take_own(root: &Path, bounds: &Bounds) -> io::Result<Self> {
        take::look(root, Denied::Force, bounds)
    }

    /// Whether each of its files may be read whole: where that is done, it is said before anything begins.
    ///
    /// # Errors
    /// [`Error::Ceiling`] with the first file that is too large; [`Error::Stopped`].
    pub fn check_files(&self, root: &Path, bounds: &Bounds) -> Result<(), Error> {
        for (at, record) in self.records.iter().enumerate().filter(|(_, record)| record.kind == Kind::File) {
            bounds.file(record.extent, || root.join(self.path(at).as_path()))?;
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
    pub fn taken_ns(&self) -> i64 {
        self.taken_ns
    }

    /// How many entries belong to somebody else than `uid`.
    pub fn foreign(&self, uid: u32) -> usize {
        self.records
            .iter()
            .skip(1)
            .filter(|record| self.owners.get(record.owner as usize) != Some(&uid))
            .count()
    }

    /// What stood at a path.
    pub fn get(&self, path: &RelPath) -> Option<Item> {
        Some(self.item(&self.records[self.find(path)?]))
    }

    /// Where the symbolic link at a path pointed.
    pub fn target(&self, path: &RelPath) -> Option<&[u8]> {
        self.target_of(&self.records[self.find(path)?])
    }

    /// What stood at a path, in the words of a snapshot; contents are not known. `None` also for sockets and devices.
    pub fn node(&self, path: &RelPath) -> Option<Node> {
        self.node_of(&self.records[self.find(path)?])
    }

    /// Names and items of a folder, sorted by name. Nothing if it was no folder.
    pub fn children(&self, folder: &RelPath) -> impl Iterator<Item = (&[u8], Item)> {
        let range = self.find(folder).map_or(0..0, |at| self.block(at));
        self.records[range].iter().map(|record| (self.name(record), self.item(record)))
    }

    /// What stood at a path and everything below it, each folder before what is in it.
    pub fn below(&self, path: &RelPath) -> Below<'_> {
        Below(self.indexed_below(path))
    }

    /// [`Base::below`] with the number of each entry.
    pub(crate) fn indexed_below(&self, path: &RelPath) -> IndexedBelow<'_> {
        let top = path.parent().unwrap_or_default();
        IndexedBelow { base: self, next: self.find(path).map(|at| (at, top)).into_iter().collect() }
    }

    /// The path of an entry by its number.
    pub(crate) fn path(&self, at: usize) -> RelPath {
        let mut parts = Vec::new();
        let mut at = at;
        while at != 0 {
            parts.push(self.name(&self.records[at]));
            at = self.parent(at);
        }
        parts.reverse();
        RelPath::new(parts.join(&b'/')).unwrap_or_default()
    }

    /// The folder that an entry other than the root lies in: the last one whose entries begin at or before it.
    fn parent(&self, at: usize) -> usize {
        let folders = self.folders.get_or_init(|| {
            let full = |(_, record): &(usize, &Record)| record.kind == Kind::Dir && record.count > 0;
            let number = |(at, _)| u32::try_from(at).unwrap_or(u32::MAX);
            self.records.iter().enumerate().filter(full).map(number).collect()
        });
        let begins = |folder: &u32| self.records[*folder as usize].extent <= at as u64;
        folders.partition_point(begins).checked_sub(1).map_or(0, |last| folders[last] as usize)
    }

    /// Whether what stands at a path now, by its stamp, is what stood there: the same file, not touched. Of folders
    /// only the mode is compared.
    pub fn stamp_matches(&self, path: &RelPath, now: Option<&Stamp>) -> bool {
        match (self.get(path), now) {
            (None, None) => true,
            (Some(item), Some(now)) => item.matches(now),
            _ => false,
        }
    }

    /// What stood at an entry by its number.
    pub(crate) fn item_at(&self, at: usize) -> Item {
        self.item(&self.records[at])
    }

    /// The number of the entry at a path.
    pub(crate) fn find(&self, path: &RelPath) -> Option<usize> {
        let mut at = 0;
        for part in path.parts() {
            let range = self.block(at);
            let first = range.start;
            at = first + self.records[range].binary_search_by(|record| self.name(record).cmp(part)).ok()?;
        }
        Some(at)
    }

    /// The entries of a folder.
    fn block(&self, at: usize) -> Range<usize> {
        let record = &self.records[at];
        match record.kind {
            Kind::Dir => {
                let first = usize::try_from(record.extent).unwrap_or(usize::MAX);
                first..first + record.count as usize
            }
            _ => 0..0,
        }
    }

    fn name(&self, record: &Record) -> &[u8] {
        let start = record.name as usize;
        &self.names[start..start + usize::from(record.name_len)]
    }

    fn target_of(&self, record: &Record) -> Option<&[u8]> {
        let start = usize::try_from(record.extent).ok()?;
        (record.kind == Kind::Symlink).then(|| &self.names[start..start + record.count as usize])
    }

    fn item(&self, record: &Record) -> Item {
        Item {
            kind: record.kind,
            mode: u32::from(record.mode),
            size: if record.kind == Kind::File { record.extent } else { 0 },
            mtime_ns: record.mtime_ns,
            ctime_ns: record.ctime_ns,
            ino: record.ino,
            uid: self.owners.get(record.owner as usize).copied().unwrap_or(u32::MAX),
            linked: record.linked,
            readable: record.readable,
        }
    }

    fn node_of(&self, record: &Record) -> Option<Node> {
        let item = self.item(record);
        match item.kind {
            Kind::File => Some(Node::File {
                mode: item.mode,
                size: item.size,
                mtime_ns: item.mtime_ns,
                content: None,
                links: item.linked.then_some(item.ino),
            }),
            Kind::Symlink => self.target_of(record).map(|target| Node::Symlink { target: target.to_vec() }),
            Kind::Dir => Some(Node::Dir { mode: item.mode }),
            Kind::Fifo => Some(Node::Fifo { mode: item.mode }),
            Kind::Whiteout | Kind::Other => None,
        }
    }

    /// Writes the manifest so that it survives a crash whole or not at all.
    ///
    /// # Errors
    /// The host's, a full disk among them.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        host::write_durably(path, &format::encode(self))
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
        format::decode(bytes).ok_or_else(damaged)
    }
}

impl Item {
    /// Whether a stamp is of the same file, not touched since. Of folders only the mode is compared.
    pub fn matches(&self, now: &Stamp) -> bool {
        match self.kind {
            Kind::Dir => now.kind == Kind::Dir && now.mode == self.mode,
            Kind::File => (self.size, self.full()) == (now.size, full(now)),
            _ => self.full() == full(now),
        }
    }

    fn full(&self) -> (Kind, u32, i64, i64, u64) {
        (self.kind, self.mode, self.mtime_ns, self.ctime_ns, self.ino)
    }
}

fn full(now: &Stamp) -> (Kind, u32, i64, i64, u64) {
    (now.kind, now.mode, now.mtime_ns, now.ctime_ns, now.ino)
}

/// See [`Base::below`].
pub struct Below<'a>(IndexedBelow<'a>);

impl Iterator for Below<'_> {
    type Item = (RelPath, Item);

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(|(_, path, item)| (path, item))
    }
}

/// See [`Base::indexed_below`].
pub(crate) struct IndexedBelow<'a> {
    base: &'a Base,
    /// Entries that are still to come, each with the folder that it lies in: no whole paths.
    next: Vec<(usize, RelPath)>,
}

impl Iterator for IndexedBelow<'_> {
    type Item = (usize, RelPath, Item);

    fn next(&mut self) -> Option<Self::Item> {
        let (at, folder) = self.next.pop()?;
        let record = &self.base.records[at];
        let path = if at == 0 { folder } else { folder.join(self.base.name(record)) };
        self.next.extend(self.base.block(at).rev().map(|below| (below, path.clone())));
        Some((at, path, self.base.item(record)))
    }
}

fn small(n: usize) -> io::Result<u32> {
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
    item: &Item,
) -> io::Result<Option<std::fs::File>> {
    let Some((parent, name)) = host::split(path) else {
        return Ok(None);
    };
    let opened = host::open_below(root, parent, rustix::fs::OFlags::PATH | host::FOLDER)
        .and_then(|parent| host::open_file(&parent, name));
    match opened {
        Ok(file) => Ok(item.matches(&Stamp::of_open(&file)?).then_some(file)),
        Err(error) if host::is_absent(&error) || host::is_denied(&error) => Ok(None),
        Err(error) if rustix::io::Errno::from_io_error(&error) == Some(rustix::io::Errno::INVAL) => Ok(None),
        Err(error) => Err(error),
    }
}
