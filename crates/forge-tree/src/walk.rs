//! Traversal of a tree by descriptors, multi-threaded where useful, with few open descriptors.

use crate::bounds::BoundedTally;
use crate::host::{self, DIR_OPEN_FLAGS, FileStamp, NodeKind};
use crate::node::RelPath;
use parking_lot::{Condvar, Mutex, MutexGuard};
use rustix::fs::{Mode, OFlags, RawDir};
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Maximum number of queued directories that keep their parent open; the others are reopened by path.
const MAX_OPEN_DIRS: usize = 256;
/// Bytes of directory entries per system call.
const DIRENT_BUFFER_BYTES: usize = 32 * 1024;

/// The handling of unreadable directories.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum OnDenied {
    /// Reports the directory and continues, for trees of other users.
    Skip,
    /// Grants the owner, who is the current user, access during the visit, for trees of this process.
    Force,
}

/// The number of threads of a walk.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum WalkThreads {
    /// The caller's thread.
    One,
    /// The caller's thread and another one.
    Two,
}

/// An entry of a directory.
#[derive(Clone)]
pub struct ListedEntry {
    name: Range<u32>,
    /// The entry's stamp.
    pub stamp: FileStamp,
}

/// The entries of a directory, sorted by name.
#[derive(Default)]
pub struct DirListing {
    names: Vec<u8>,
    /// The entries, sorted by name.
    pub items: Vec<ListedEntry>,
}

impl DirListing {
    /// Returns the name of an entry.
    pub fn entry_name(&self, item: &ListedEntry) -> &[u8] {
        &self.names[item.name.start as usize..item.name.end as usize]
    }

    /// Returns the names and stamps of the entries.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &FileStamp)> {
        self.items.iter().map(|item| (self.entry_name(item), &item.stamp))
    }

    /// Returns the stamp of the entry with this name.
    pub fn find(&self, name: &[u8]) -> Option<&FileStamp> {
        let at = self.items.binary_search_by(|item| self.entry_name(item).cmp(name)).ok()?;
        Some(&self.items[at].stamp)
    }

    /// Reads a directory and counts its entries. Omits an entry that disappears during the read.
    pub fn read(folder: impl AsFd, tally: &BoundedTally<'_>) -> io::Result<Self> {
        let folder = folder.as_fd();
        let mut listing = Self::default();
        let mut buffer = Vec::with_capacity(DIRENT_BUFFER_BYTES);
        let mut entries = RawDir::new(folder, buffer.spare_capacity_mut());
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            tally.count_path(name.to_bytes().len())?;
            let stamp = match FileStamp::stat_at(folder, name) {
                Ok(stamp) => stamp,
                Err(error) if host::is_absent(&error) => continue,
                Err(error) => return Err(error),
            };
            let start = u32::try_from(listing.names.len()).map_err(|_| io::ErrorKind::FileTooLarge)?;
            listing.names.extend_from_slice(name.to_bytes());
            let end = u32::try_from(listing.names.len()).map_err(|_| io::ErrorKind::FileTooLarge)?;
            listing.items.push(ListedEntry { name: start..end, stamp });
        }
        let names = &listing.names;
        let name = |item: &ListedEntry| &names[item.name.start as usize..item.name.end as usize];
        listing.items.sort_unstable_by(|a, b| name(a).cmp(name(b)));
        Ok(listing)
    }
}

/// An open directory; restores its mode if the walk changed it.
pub struct OpenDir {
    fd: OwnedFd,
    restore_mode: Option<u32>,
    /// The parent, kept open so that its forced access persists.
    above: Option<Arc<OpenDir>>,
    open: Arc<AtomicUsize>,
}

impl OpenDir {
    fn is_forced(&self) -> bool {
        self.restore_mode.is_some() || self.above.is_some()
    }
}

impl AsFd for OpenDir {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for OpenDir {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
        if let Some(mode) = self.restore_mode {
            let _ = rustix::fs::fchmod(&self.fd, Mode::from_raw_mode(mode));
        }
    }
}

/// The directory that the walk visits.
pub struct VisitedDir<'a, T> {
    /// The path below the root.
    pub path: &'a RelPath,
    /// The open directory.
    pub fd: &'a OpenDir,
    /// The entries; `None` if unreadable.
    pub listing: Option<DirListing>,
    /// The data that the parent's visit passed for this directory.
    pub about: T,
}

/// A directory's name with a reference to its parent, so that queued directories hold no full paths; `None`: the
/// root.
struct DirPathNode {
    name: Box<[u8]>,
    above: Option<Arc<DirPathNode>>,
}

impl DirPathNode {
    fn full_path(&self) -> RelPath {
        let mut parts = vec![&*self.name];
        let mut at = &self.above;
        while let Some(place) = at {
            parts.push(&place.name);
            at = &place.above;
        }
        parts.reverse();
        RelPath::new(parts.join(&b'/')).unwrap_or_default()
    }
}

struct WalkJob<T> {
    position: Option<Arc<DirPathNode>>,
    depth: u64,
    parent: Option<Arc<OpenDir>>,
    about: T,
}

struct WalkQueue<T> {
    jobs: Vec<WalkJob<T>>,
    /// Jobs that are queued or in progress.
    left: usize,
    failed: bool,
}

/// Names of the subdirectories to visit, with the data for their visits.
pub type SubdirVisits<T> = Vec<(Box<[u8]>, T)>;

/// The callback for each directory.
pub type VisitFn<'a, T, E> = dyn Fn(VisitedDir<'_, T>) -> Result<SubdirVisits<T>, E> + Sync + 'a;

/// Visits `root` and every subdirectory that a visit returns, and counts all listed entries. The first error ends
/// the walk.
pub fn walk_tree<T, E>(
    root: &OwnedFd,
    about: T,
    denied: OnDenied,
    threads: WalkThreads,
    tally: &BoundedTally<'_>,
    visit: &VisitFn<'_, T, E>,
) -> Result<(), E>
where
    T: Send,
    E: From<io::Error> + Send,
{
    let first = WalkJob { position: None, depth: 0, parent: None, about };
    let walk = TreeWalk {
        root,
        denied,
        tally,
        open: Arc::default(),
        queue: Mutex::new(WalkQueue { jobs: vec![first], left: 1, failed: false }),
        more: Condvar::new(),
    };
    if threads == WalkThreads::One {
        return walk.run_worker(visit);
    }
    std::thread::scope(|scope| {
        let other = scope.spawn(|| walk.run_worker(visit));
        let own = walk.run_worker(visit);
        let other = other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        own.and(other)
    })
}

struct TreeWalk<'a, T> {
    root: &'a OwnedFd,
    denied: OnDenied,
    tally: &'a BoundedTally<'a>,
    open: Arc<AtomicUsize>,
    queue: Mutex<WalkQueue<T>>,
    more: Condvar,
}

impl<T: Send> TreeWalk<'_, T> {
    fn lock_queue(&self) -> MutexGuard<'_, WalkQueue<T>> {
        self.queue.lock()
    }

    fn next(&self) -> Option<WalkJob<T>> {
        let mut queue = self.lock_queue();
        loop {
            if queue.failed || queue.left == 0 {
                return None;
            }
            if let Some(job) = queue.jobs.pop() {
                return Some(job);
            }
            self.more.wait(&mut queue);
        }
    }

    fn run_worker<E: From<io::Error>>(&self, visit: &VisitFn<'_, T, E>) -> Result<(), E> {
        // Wakes the other thread on exit, including a panic.
        struct WorkerGuard<'a, 'b, T: Send>(&'a TreeWalk<'b, T>, bool);
        impl<T: Send> Drop for WorkerGuard<'_, '_, T> {
            fn drop(&mut self) {
                if !self.1 {
                    self.0.lock_queue().failed = true;
                }
                self.0.more.notify_all();
            }
        }
        let mut leave = WorkerGuard(self, false);
        while let Some(job) = self.next() {
            let found = self.visit_dir(job, visit)?;
            let mut queue = self.lock_queue();
            queue.left = queue.left + found.len() - 1;
            let wake = queue.left == 0 || found.len() > 1;
            queue.jobs.extend(found);
            drop(queue);
            if wake {
                self.more.notify_all();
            }
        }
        leave.1 = true;
        Ok(())
    }

    fn visit_dir<E: From<io::Error>>(
        &self,
        job: WalkJob<T>,
        visit: &VisitFn<'_, T, E>,
    ) -> Result<Vec<WalkJob<T>>, E> {
        self.tally.bounds().check_stopped().map_err(io::Error::from)?;
        let path = job.position.as_ref().map(|place| place.full_path()).unwrap_or_default();
        let held = match self.open_dir(&job, &path) {
            Ok(Some(held)) => Arc::new(held),
            // The directory was removed or replaced after it was listed.
            Ok(None) => return Ok(Vec::new()),
            Err(error) if host::is_denied(&error) && self.denied == OnDenied::Skip => {
                let held = self.track_open_dir(self.root.try_clone()?, None, None);
                visit(VisitedDir { path: &path, fd: &held, listing: None, about: job.about })?;
                return Ok(Vec::new());
            }
            Err(error) => return Err(error.into()),
        };
        let listing = match DirListing::read(&*held, self.tally) {
            Ok(listing) => Some(listing),
            // The directory is readable but not searchable.
            Err(error) if host::is_denied(&error) && self.denied == OnDenied::Skip => None,
            Err(error) => return Err(error.into()),
        };
        let below = visit(VisitedDir { path: &path, fd: &held, listing, about: job.about })?;
        if !below.is_empty() {
            self.tally.check_depth(job.depth + 1).map_err(io::Error::from)?;
        }
        let keep = held.is_forced() || self.open.load(Ordering::Relaxed) < MAX_OPEN_DIRS;
        let parent = keep.then_some(held);
        let depth = job.depth + 1;
        let below = below.into_iter().map(|(name, about)| WalkJob {
            position: Some(Arc::new(DirPathNode { name, above: job.position.clone() })),
            depth,
            parent: parent.clone(),
            about,
        });
        Ok(below.collect())
    }

    fn track_open_dir(&self, fd: OwnedFd, put_back: Option<u32>, above: Option<Arc<OpenDir>>) -> OpenDir {
        self.open.fetch_add(1, Ordering::Relaxed);
        OpenDir { fd, restore_mode: put_back, above, open: self.open.clone() }
    }

    /// Opens the directory of a job; `None` if it is no longer a directory.
    fn open_dir(&self, job: &WalkJob<T>, path: &RelPath) -> io::Result<Option<OpenDir>> {
        let open = |flags: OFlags| match (&job.parent, &job.position) {
            (Some(parent), Some(place)) => {
                Ok(rustix::fs::openat(&**parent, &*place.name, flags, Mode::empty())?)
            }
            _ => host::open_below(self.root.as_fd(), path.as_bytes(), flags),
        };
        let above = job.parent.clone().filter(|parent| parent.is_forced());
        let force = self.denied == OnDenied::Force;
        match open(DIR_OPEN_FLAGS) {
            Ok(fd) => {
                // Root has all rights; other users also need search permission.
                let mode = if force { FileStamp::stat_open(&fd)?.mode } else { 0o700 };
                let closed = mode & 0o500 != 0o500 && !rustix::process::geteuid().is_root();
                if closed {
                    rustix::fs::fchmod(&fd, Mode::from_raw_mode(mode | 0o700))?;
                }
                Ok(Some(self.track_open_dir(fd, closed.then_some(mode), above)))
            }
            Err(error) if host::is_absent(&error) => Ok(None),
            Err(error) if force && host::is_denied(&error) => {
                let place = open(OFlags::PATH | DIR_OPEN_FLAGS)?;
                let stamp = FileStamp::stat_open(&place)?;
                if stamp.kind != NodeKind::Dir {
                    return Ok(None);
                }
                host::set_mode(&place, stamp.mode | 0o700)?;
                Ok(Some(self.track_open_dir(open(DIR_OPEN_FLAGS)?, Some(stamp.mode), above)))
            }
            Err(error) => Err(error),
        }
    }
}
