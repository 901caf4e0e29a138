//! What stood in a repository when a run began: a walk that looks and reads no content.

mod format;

use crate::host::{self, Kind, Stamp};
use crate::node::{Node, RelPath};
use crate::walk::{Denied, Folder, Listing, Threads, walk};
use std::collections::HashMap;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Base {
    taken_ns: i64,
    /// Entry 0 is the root.
    records: Vec<Record>,
    names: Vec<u8>,
    owners: Vec<u32>,
}

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

/// The entries of a folder, and the targets of the symbolic links among them in their order.
type Found = (Listing, Vec<Vec<u8>>);

impl Base {
    /// Looks at everything below `root`. Follows no link below it, reads no content, needs no right to write.
    /// A folder that may not be read is recorded as such.
    ///
    /// # Errors
    /// `root` is no readable folder, or the host fails.
    pub fn take(root: &Path) -> io::Result<Self> {
        Self::look(root, Denied::Skip)
    }

    /// The manifest of a folder that is ours: folders whose modes forbid it are looked into all the same.
    pub(crate) fn take_own(root: &Path) -> io::Result<Self> {
        Self::look(root, Denied::Force)
    }

    fn look(root: &Path, denied: Denied) -> io::Result<Self> {
        let root = host::open_root(root)?;
        let taken_ns = now_ns();
        let found: Mutex<HashMap<RelPath, Found>> = Mutex::default();
        let look = |folder: Folder<'_, ()>| -> io::Result<Vec<(RelPath, ())>> {
            let Some(listing) = folder.listing else {
                return Ok(Vec::new());
            };
            let mut below = Vec::new();
            let mut targets = Vec::new();
            for (name, stamp) in listing.iter().filter(|(name, _)| !name.starts_with(host::TEMP_PREFIX)) {
                match stamp.kind {
                    Kind::Dir => below.push((folder.path.join(name), ())),
                    // One that was replaced since it was listed has no target: its stamp will not match.
                    Kind::Symlink => targets.push(host::read_link(folder.fd, name).unwrap_or_default()),
                    _ => {}
                }
            }
            let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
            found.insert(folder.path.clone(), (listing, targets));
            Ok(below)
        };
        walk(&root, (), denied, Threads::Two, &look)?;
        let found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
        Self::assemble(&Stamp::of_open(&root)?, taken_ns, found)
    }

    fn assemble(root: &Stamp, taken_ns: i64, mut found: HashMap<RelPath, Found>) -> io::Result<Self> {
        let total: usize = found.values().map(|(listing, _)| listing.items.len()).sum();
        let mut base =
            Self { taken_ns, records: Vec::with_capacity(total + 1), names: Vec::new(), owners: Vec::new() };
        let mut owners = HashMap::new();
        base.add(b"", root, &mut owners)?;
        // The paths of folders whose entries are still to come, in the order of their records.
        let mut waiting = std::collections::VecDeque::from([(0_usize, RelPath::default())]);
        while let Some((at, path)) = waiting.pop_front() {
            let first = base.records.len();
            base.records[at].extent = first as u64;
            let Some((listing, targets)) = found.remove(&path) else {
                base.records[at].readable = false;
                continue;
            };
            let mut targets = targets.into_iter();
            for (name, stamp) in listing.iter().filter(|(name, _)| !name.starts_with(host::TEMP_PREFIX)) {
                let record = base.add(name, stamp, &mut owners)?;
                match stamp.kind {
                    Kind::Dir => waiting.push_back((record, path.join(name))),
                    Kind::Symlink => {
                        let target = targets.next().unwrap_or_default();
                        base.records[record].extent = base.names.len() as u64;
                        base.records[record].count = small(target.len())?;
                        base.names.extend_from_slice(&target);
                    }
                    _ => {}
                }
            }
            base.records[at].count = small(base.records.len() - first)?;
        }
        base.records.shrink_to_fit();
        base.names.shrink_to_fit();
        Ok(base)
    }

    fn add(&mut self, name: &[u8], stamp: &Stamp, owners: &mut HashMap<u32, u32>) -> io::Result<usize> {
        let next = small(self.owners.len())?;
        let owner = *owners.entry(stamp.uid).or_insert(next);
        if owner == next {
            self.owners.push(stamp.uid);
        }
        self.records.push(Record {
            mtime_ns: stamp.mtime_ns,
            ctime_ns: stamp.ctime_ns,
            ino: stamp.ino,
            extent: if stamp.kind == Kind::File { stamp.size } else { 0 },
            name: small(self.names.len())?,
            count: 0,
            owner,
            mode: u16::try_from(stamp.mode).unwrap_or(0),
            name_len: u16::try_from(name.len()).map_err(|_| io::ErrorKind::InvalidFilename)?,
            kind: stamp.kind,
            linked: stamp.linked && stamp.kind == Kind::File,
            readable: true,
        });
        self.names.extend_from_slice(name);
        Ok(self.records.len() - 1)
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
        Below { base: self, next: self.find(path).map(|at| (at, path.clone())).into_iter().collect() }
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

    fn find(&self, path: &RelPath) -> Option<usize> {
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
pub struct Below<'a> {
    base: &'a Base,
    next: Vec<(usize, RelPath)>,
}

impl Iterator for Below<'_> {
    type Item = (RelPath, Item);

    fn next(&mut self) -> Option<Self::Item> {
        let (at, path) = self.next.pop()?;
        for below in self.base.block(at).rev() {
            self.next.push((below, path.join(self.base.name(&self.base.records[below]))));
        }
        Some((path, self.base.item(&self.base.records[at])))
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
