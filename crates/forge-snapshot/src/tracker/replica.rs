//! A private copy of a repository, for hosts without overlay support.

use crate::TreeRoot;
use crate::base::{self, BaseItem, BaseManifest};
use crate::bounds::WorkBounds;
use crate::copy::{self, CopyMethod};
use crate::error::{Error, IoContext};
use crate::host::{self, DIR_OPEN_FLAGS, FileStamp, NodeKind};
use crate::node::RelPath;
use rustix::fs::{AtFlags, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// The file with the stamps of the copied files, in the directory of the objects.
pub(super) const COPY_STAMPS_FILE: &str = "copy-stamps";
/// Maximum number of files that a thread takes at once.
const MAX_BATCH_FILES: usize = 64;

/// The method used to copy the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyKind {
    /// All files share their blocks with the originals.
    Reflink,
    /// The bytes of at least some files were copied.
    Copy,
}

/// The result of [`copy_tree`].
#[derive(Debug)]
pub struct CopyStats {
    /// The method.
    pub kind: CopyKind,
    /// Files copied.
    pub files: usize,
    /// Files and directories that were skipped because they are unreadable or gone.
    pub skipped: usize,
    /// The stamps of the copied files.
    pub(super) stamps: BaseManifest,
}

struct TreeCopier<'a> {
    from: &'a TreeRoot,
    to: &'a TreeRoot,
    base: &'a BaseManifest,
    bounds: &'a WorkBounds,
    owner: Option<(u32, u32)>,
    skipped: AtomicUsize,
    bytes_copied: AtomicBool,
}

/// Copies the files of a manifest from `from` into the empty directory `to`: files with modes, times and hard links
/// among them, symbolic links, empty directories, named pipes; no sockets, no devices, nothing in `ignored`. Skips
/// and counts unreadable files.
///
/// # Errors
/// Returns [`Error::Full`] or the host's error.
pub fn copy_tree(
    from: &TreeRoot,
    to: &Path,
    base: &BaseManifest,
    owner: Option<(u32, u32)>,
    ignored: &[RelPath],
    bounds: &WorkBounds,
) -> Result<CopyStats, Error> {
    std::fs::create_dir_all(to).io_context("create", to)?;
    let top = TreeRoot::open(to).io_context("open", to)?;
    let ignored: HashSet<RelPath> = ignored.iter().cloned().collect();
    let copier = TreeCopier {
        from,
        to: &top,
        base,
        bounds,
        owner: owner.filter(|_| rustix::process::geteuid().is_root()),
        skipped: AtomicUsize::new(0),
        bytes_copied: AtomicBool::new(false),
    };
    let mut folders = Vec::new();
    let mut files = Vec::new();
    let mut linked = Vec::new();
    let mut place = OpenDirCache::new(copier.to.as_fd());
    // Indices in the manifest, because full paths of all files would take too much memory.
    for (number, path, item) in base.indexed_entries_below(&RelPath::default()) {
        bounds.check_stopped()?;
        if path.as_bytes().is_empty() || super::is_ignored(&ignored, &path) {
            continue;
        }
        match item.kind {
            NodeKind::File if item.linked => linked.push(number),
            NodeKind::File => files.push(number),
            NodeKind::Dir => {
                copier.make_contentless(&mut place, &path, &item)?;
                copier.skipped.fetch_add(usize::from(!item.readable), Ordering::Relaxed);
                folders.push(number);
            }
            NodeKind::Symlink | NodeKind::Fifo => copier.make_contentless(&mut place, &path, &item)?,
            NodeKind::Whiteout | NodeKind::Other => {}
        }
    }
    copier.copy_files(&files)?;
    copier.copy_linked_files(&linked)?;
    for number in folders.iter().rev() {
        bounds.check_stopped()?;
        let (path, item) = (&base.path_of(*number), base.item_at(*number));
        let (folder, name) = place.open_parent(path).io_context("open", to)?;
        host::set_mode_at(&*folder, name, item.mode)
            .io_context("set the mode of", &to.join(path.as_path()))?;
    }
    wait_clock_tick();
    let kind = if copier.bytes_copied.into_inner() { CopyKind::Copy } else { CopyKind::Reflink };
    let stamps = BaseManifest::scan_owned_tree(&top, bounds).io_context("inspect", to)?;
    let skipped = copier.skipped.into_inner();
    Ok(CopyStats { kind, files: files.len() + linked.len(), skipped, stamps })
}

/// Waits until the clock has advanced so far that no later change can leave a copied file with the same timestamps.
pub(super) fn wait_clock_tick() {
    let until = base::now_ns().saturating_add(25_000_000);
    while base::now_ns() < until {
        std::thread::park_timeout(std::time::Duration::from_millis(5));
    }
}

/// A cache of a tree's directories that keeps the last one open.
struct OpenDirCache<'a> {
    root: std::os::fd::BorrowedFd<'a>,
    last: Option<(Vec<u8>, std::sync::Arc<OwnedFd>)>,
}

impl<'a> OpenDirCache<'a> {
    fn new(root: std::os::fd::BorrowedFd<'a>) -> Self {
        Self { root, last: None }
    }

    fn open_parent<'p>(&mut self, path: &'p RelPath) -> std::io::Result<(std::sync::Arc<OwnedFd>, &'p [u8])> {
        let (parent, name) = host::split_path(path).ok_or(std::io::ErrorKind::InvalidInput)?;
        match &self.last {
            Some((last, fd)) if last == parent => Ok((fd.clone(), name)),
            _ => {
                let fd =
                    std::sync::Arc::new(host::open_below(self.root, parent, OFlags::PATH | DIR_OPEN_FLAGS)?);
                self.last = Some((parent.to_vec(), fd.clone()));
                Ok((fd, name))
            }
        }
    }
}

impl TreeCopier<'_> {
    fn set_owner(&self, folder: &OwnedFd, name: &[u8]) -> std::io::Result<()> {
        let Some((user, group)) = self.owner else { return Ok(()) };
        let (user, group) = (Uid::from_raw(user), Gid::from_raw(group));
        Ok(rustix::fs::chownat(folder, name, Some(user), Some(group), AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// Creates a file without content.
    fn make_contentless(
        &self,
        place: &mut OpenDirCache<'_>,
        path: &RelPath,
        item: &BaseItem,
    ) -> Result<(), Error> {
        let shown = self.to.join(path.as_path());
        let made = (|| {
            let (folder, name) = place.open_parent(path)?;
            match item.kind {
                NodeKind::Dir => rustix::fs::mkdirat(&*folder, name, Mode::from_raw_mode(0o700))?,
                NodeKind::Symlink => {
                    rustix::fs::symlinkat(self.base.link_target(path).unwrap_or(b"."), &*folder, name)?;
                }
                _ => {
                    rustix::fs::mkfifoat(&*folder, name, Mode::from_raw_mode(0o600))?;
                    host::set_mode_at(&*folder, name, item.mode)?;
                }
            }
            self.set_owner(&folder, name)
        })();
        made.io_context("create", &shown)
    }

    fn copy_files(&self, files: &[usize]) -> Result<(), Error> {
        let next = AtomicUsize::new(0);
        let work = || -> Result<(), Error> {
            let (mut from, mut to) =
                (OpenDirCache::new(self.from.as_fd()), OpenDirCache::new(self.to.as_fd()));
            loop {
                let at = next.fetch_add(MAX_BATCH_FILES, Ordering::Relaxed);
                if at >= files.len() {
                    return Ok(());
                }
                for number in &files[at..files.len().min(at + MAX_BATCH_FILES)] {
                    let (path, item) = (self.base.path_of(*number), self.base.item_at(*number));
                    self.copy_file(&mut from, &mut to, &path, &item)?;
                }
            }
        };
        std::thread::scope(|scope| {
            let other = scope.spawn(work);
            let own = work();
            let other = other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            own.and(other)
        })
    }

    /// Copies a file; returns whether it was readable.
    fn copy_file(
        &self,
        from: &mut OpenDirCache<'_>,
        to: &mut OpenDirCache<'_>,
        path: &RelPath,
        item: &BaseItem,
    ) -> Result<bool, Error> {
        self.bounds.check_stopped()?;
        let source = from.open_parent(path).and_then(|(folder, name)| host::open_file(&*folder, name));
        let source = match source {
            Ok(source) => source,
            Err(error)
                if host::is_absent(&error)
                    || host::is_denied(&error)
                    || Errno::from_io_error(&error) == Some(Errno::INVAL) =>
            {
                self.skipped.fetch_add(1, Ordering::Relaxed);
                return Ok(false);
            }
            Err(error) => return Err(Error::from_io("read", &self.from.join(path.as_path()), error)),
        };
        let shown = self.to.join(path.as_path());
        let made = (|| {
            let now = FileStamp::stat_open(&source)?;
            self.bounds.check_file_size(now.size, || self.from.join(path.as_path()))?;
            let (folder, name) = to.open_parent(path)?;
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let copy = rustix::fs::openat(&*folder, name, flags, Mode::from_raw_mode(0o600))?;
            let copy = File::from(copy);
            if copy::copy_content(&source, &copy, now.size, self.bounds)? == CopyMethod::Bytes && now.size > 0
            {
                self.bytes_copied.store(true, Ordering::Relaxed);
            }
            self.set_owner(&folder, name)?;
            rustix::fs::fchmod(&copy, Mode::from_raw_mode(item.mode))?;
            host::set_time(&copy, now.mtime_ns)
        })();
        made.io_context("write", &shown)?;
        Ok(true)
    }

    /// Copies each file with several names only once.
    fn copy_linked_files(&self, files: &[usize]) -> Result<(), Error> {
        let (mut from, mut to) = (OpenDirCache::new(self.from.as_fd()), OpenDirCache::new(self.to.as_fd()));
        let mut made: HashMap<u64, usize> = HashMap::new();
        for number in files {
            let (path, item) = (&self.base.path_of(*number), &self.base.item_at(*number));
            let Some(first) = made.get(&item.ino).map(|first| self.base.path_of(*first)) else {
                if self.copy_file(&mut from, &mut to, path, item)? {
                    made.insert(item.ino, *number);
                }
                continue;
            };
            let shown = self.to.join(path.as_path());
            let linked = (|| {
                let (other, other_name) = to.open_parent(&first)?;
                let (folder, name) = to.open_parent(path)?;
                Ok::<_, std::io::Error>(rustix::fs::linkat(
                    &*other,
                    other_name,
                    &*folder,
                    name,
                    AtFlags::empty(),
                )?)
            })();
            linked.io_context("link", &shown)?;
        }
        Ok(())
    }
}
