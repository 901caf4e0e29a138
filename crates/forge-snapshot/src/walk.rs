//! Walking a tree by descriptors, with more than one thread where that pays, holding few descriptors open.

use crate::bounds::Tally;
use crate::host::{self, FOLDER, Kind, Stamp};
use crate::node::RelPath;
use rustix::fs::{Mode, OFlags, RawDir};
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Folders waiting to be read hold their parent open up to this number; the rest are opened again by their path.
const OPEN_AT_MOST: usize = 256;
/// Bytes of names asked for at once.
const BUFFER: usize = 32 * 1024;

/// What to do with a folder that may not be read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Denied {
    /// Say so and go on: the tree is somebody else's.
    Skip,
    /// Give its owner, who we are, the right for as long as the walk is in it: the tree is ours.
    Force,
}

/// How many threads walk.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Threads {
    /// The caller's.
    One,
    /// The caller's and another one.
    Two,
}

/// An entry of a folder.
#[derive(Clone)]
pub(crate) struct Item {
    name: Range<u32>,
    /// What stands there.
    pub(crate) stamp: Stamp,
}

/// The entries of a folder, sorted by name.
#[derive(Default)]
pub(crate) struct Listing {
    names: Vec<u8>,
    pub(crate) items: Vec<Item>,
}

impl Listing {
    /// The name of an entry.
    pub(crate) fn name(&self, item: &Item) -> &[u8] {
        &self.names[item.name.start as usize..item.name.end as usize]
    }

    /// Entries with their names.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&[u8], &Stamp)> {
        self.items.iter().map(|item| (self.name(item), &item.stamp))
    }

    /// The entry of this name.
    pub(crate) fn find(&self, name: &[u8]) -> Option<&Stamp> {
        let at = self.items.binary_search_by(|item| self.name(item).cmp(name)).ok()?;
        Some(&self.items[at].stamp)
    }

    /// Reads a folder, and counts what is in it. An entry that vanishes meanwhile is left out.
    pub(crate) fn read(folder: impl AsFd, tally: &Tally<'_>) -> io::Result<Self> {
        let folder = folder.as_fd();
        let mut listing = Self::default();
        let mut buffer = Vec::with_capacity(BUFFER);
        let mut entries = RawDir::new(folder, buffer.spare_capacity_mut());
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            tally.path(name.to_bytes().len())?;
            let stamp = match Stamp::of(folder, name) {
                Ok(stamp) => stamp,
                Err(error) if host::is_absent(&error) => continue,
                Err(error) => return Err(error),
            };
            let start = u32::try_from(listing.names.len()).map_err(|_| io::ErrorKind::FileTooLarge)?;
            listing.names.extend_from_slice(name.to_bytes());
            let end = u32::try_from(listing.names.len()).map_err(|_| io::ErrorKind::FileTooLarge)?;
            listing.items.push(Item { name: start..end, stamp });
        }
        let names = &listing.names;
        let name = |item: &Item| &names[item.name.start as usize..item.name.end as usize];
        listing.items.sort_unstable_by(|a, b| name(a).cmp(name(b)));
        Ok(listing)
    }
}

/// An open folder; puts a mode back that the walk had to change.
pub(crate) struct Held {
    fd: OwnedFd,
    put_back: Option<u32>,
    /// Kept so that a forced folder above stays passable.
    above: Option<Arc<Held>>,
    open: Arc<AtomicUsize>,
}

impl Held {
    fn forced(&self) -> bool {
        self.put_back.is_some() || self.above.is_some()
    }
}

impl AsFd for Held {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
        if let Some(mode) = self.put_back {
            let _ = rustix::fs::fchmod(&self.fd, Mode::from_raw_mode(mode));
        }
    }
}

/// A folder that the walk stands in.
pub(crate) struct Folder<'a, T> {
    /// Its path below the root.
    pub(crate) path: &'a RelPath,
    /// The folder itself.
    pub(crate) fd: &'a Held,
    /// What is in it; `None`: it may not be read.
    pub(crate) listing: Option<Listing>,
    /// What was said of it when it was named as worth a visit.
    pub(crate) about: T,
}

/// A folder by its name in the one above it, so that what waits holds no whole paths; `None`: the root.
struct Place {
    name: Box<[u8]>,
    above: Option<Arc<Place>>,
}

impl Place {
    fn path(&self) -> RelPath {
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

struct Job<T> {
    place: Option<Arc<Place>>,
    depth: u64,
    parent: Option<Arc<Held>>,
    about: T,
}

struct Queue<T> {
    jobs: Vec<Job<T>>,
    /// Jobs in the queue and in work.
    left: usize,
    failed: bool,
}

/// The folders of a folder that are to be visited, by their names, and what to tell those visits.
pub(crate) type Below<T> = Vec<(Box<[u8]>, T)>;

/// What is done in each folder.
pub(crate) type Visit<'a, T, E> = dyn Fn(Folder<'_, T>) -> Result<Below<T>, E> + Sync + 'a;

/// Visits `root` and every folder that a visit names, and counts everything that is listed on the way. The first error
/// ends the walk.
pub(crate) fn walk<T, E>(
    root: &OwnedFd,
    about: T,
    denied: Denied,
    threads: Threads,
    tally: &Tally<'_>,
    visit: &Visit<'_, T, E>,
) -> Result<(), E>
where
    T: Send,
    E: From<io::Error> + Send,
{
    let first = Job { place: None, depth: 0, parent: None, about };
    let walk = Walk {
        root,
        denied,
        tally,
        open: Arc::default(),
        queue: Mutex::new(Queue { jobs: vec![first], left: 1, failed: false }),
        more: Condvar::new(),
    };
    if threads == Threads::One {
        return walk.run(visit);
    }
    std::thread::scope(|scope| {
        let other = scope.spawn(|| walk.run(visit));
        let own = walk.run(visit);
        let other = other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        own.and(other)
    })
}

struct Walk<'a, T> {
    root: &'a OwnedFd,
    denied: Denied,
    tally: &'a Tally<'a>,
    open: Arc<AtomicUsize>,
    queue: Mutex<Queue<T>>,
    more: Condvar,
}

impl<T: Send> Walk<'_, T> {
    fn queue(&self) -> MutexGuard<'_, Queue<T>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next(&self) -> Option<Job<T>> {
        let mut queue = self.queue();
        loop {
            if queue.failed || queue.left == 0 {
                return None;
            }
            if let Some(job) = queue.jobs.pop() {
                return Some(job);
            }
            queue = self.more.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn run<E: From<io::Error>>(&self, visit: &Visit<'_, T, E>) -> Result<(), E> {
        // Whoever leaves, also by a panic, must not leave the other thread waiting.
        struct Leave<'a, 'b, T: Send>(&'a Walk<'b, T>, bool);
        impl<T: Send> Drop for Leave<'_, '_, T> {
            fn drop(&mut self) {
                if !self.1 {
                    self.0.queue().failed = true;
                }
                self.0.more.notify_all();
            }
        }
        let mut leave = Leave(self, false);
        while let Some(job) = self.next() {
            let found = self.step(job, visit)?;
            let mut queue = self.queue();
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

    fn step<E: From<io::Error>>(&self, job: Job<T>, visit: &Visit<'_, T, E>) -> Result<Vec<Job<T>>, E> {
        self.tally.bounds().check().map_err(io::Error::from)?;
        let path = job.place.as_ref().map(|place| place.path()).unwrap_or_default();
        let held = match self.enter(&job, &path) {
            Ok(Some(held)) => Arc::new(held),
            // It vanished, or became something else, after it was listed.
            Ok(None) => return Ok(Vec::new()),
            Err(error) if host::is_denied(&error) && self.denied == Denied::Skip => {
                let held = self.hold(self.root.try_clone()?, None, None);
                visit(Folder { path: &path, fd: &held, listing: None, about: job.about })?;
                return Ok(Vec::new());
            }
            Err(error) => return Err(error.into()),
        };
        let listing = match Listing::read(&*held, self.tally) {
            Ok(listing) => Some(listing),
            // Readable but not passable.
            Err(error) if host::is_denied(&error) && self.denied == Denied::Skip => None,
            Err(error) => return Err(error.into()),
        };
        let below = visit(Folder { path: &path, fd: &held, listing, about: job.about })?;
        if !below.is_empty() {
            self.tally.depth(job.depth + 1).map_err(io::Error::from)?;
        }
        let keep = held.forced() || self.open.load(Ordering::Relaxed) < OPEN_AT_MOST;
        let parent = keep.then_some(held);
        let depth = job.depth + 1;
        let below = below.into_iter().map(|(name, about)| Job {
            place: Some(Arc::new(Place { name, above: job.place.clone() })),
            depth,
            parent: parent.clone(),
            about,
        });
        Ok(below.collect())
    }

    fn hold(&self, fd: OwnedFd, put_back: Option<u32>, above: Option<Arc<Held>>) -> Held {
        self.open.fetch_add(1, Ordering::Relaxed);
        Held { fd, put_back, above, open: self.open.clone() }
    }

    /// Opens the folder of a job; `None` if it is no folder any more.
    fn enter(&self, job: &Job<T>, path: &RelPath) -> io::Result<Option<Held>> {
        let open = |flags: OFlags| match (&job.parent, &job.place) {
            (Some(parent), Some(place)) => {
                Ok(rustix::fs::openat(&**parent, &*place.name, flags, Mode::empty())?)
            }
            _ => host::open_below(self.root.as_fd(), path.as_bytes(), flags),
        };
        let above = job.parent.clone().filter(|parent| parent.forced());
        let force = self.denied == Denied::Force;
        match open(FOLDER) {
            Ok(fd) => {
                // Root may do anything; others need the right to pass as well.
                let mode = if force { Stamp::of_open(&fd)?.mode } else { 0o700 };
                let closed = mode & 0o500 != 0o500 && !rustix::process::geteuid().is_root();
                if closed {
                    rustix::fs::fchmod(&fd, Mode::from_raw_mode(mode | 0o700))?;
                }
                Ok(Some(self.hold(fd, closed.then_some(mode), above)))
            }
            Err(error) if host::is_absent(&error) => Ok(None),
            Err(error) if force && host::is_denied(&error) => {
                let place = open(OFlags::PATH | FOLDER)?;
                let stamp = Stamp::of_open(&place)?;
                if stamp.kind != Kind::Dir {
                    return Ok(None);
                }
                host::set_mode(&place, stamp.mode | 0o700)?;
                Ok(Some(self.hold(open(FOLDER)?, Some(stamp.mode), above)))
            }
            Err(error) => Err(error),
        }
    }
}
