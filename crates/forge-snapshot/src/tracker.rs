//! Snapshots of one workspace: taking them, and putting the workspace back to one.
//!
//! A workspace is a folder that began as a repository. A snapshot says how it differs from that beginning. It is
//! stored as a tree of folder objects (`tree`), so that what did not change since the last one costs nothing. Two
//! layouts are known: the upper layer of an overlay (`overlay` reads it), and a whole copy or the repository itself
//! (`whole` reads it). `want` says what must stand on disk for a snapshot, `rebuild` makes it stand there.
//!
//! A file whose only difference is its time, or a hard link to another name, is kept in a snapshot, so that putting
//! back is exact; a [`Delta`] for people does not show it, because [`Node::same`](crate::Node::same) holds.

mod digest_cache;
mod full_scan;
mod overlay;
mod rebuild;
mod replica;
mod restore_plan;
mod scan;
mod tree;

use crate::base::BaseManifest;
use crate::bounds::WorkBounds;
use crate::error::{Error, IoContext};
use crate::host;
use crate::node::{RelPath, TreeDelta};
use crate::objects::ObjectStore;
use digest_cache::DigestCache;
use forge_types::Digest;
use scan::{ContentPolicy, FullDelta, WorkspaceScan};
use std::collections::{HashMap, HashSet};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};

pub use replica::{CopyKind, CopyStats, copy_tree};

/// The name space of the overlay's own attributes: which of the two depends on how it was mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OverlayXattrs {
    /// `user.overlay.*`: mounted with `userxattr`, in a user namespace.
    User,
    /// `trusted.overlay.*`: mounted by root.
    Trusted,
}

/// How a workspace lies on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Only what differs from the repository, as the upper layer of an overlay over it.
    Overlay {
        /// The upper layer's folder. Not mounted while [`Tracker::restore`] runs.
        upper: PathBuf,
        /// Where the overlay keeps its marks.
        attributes: OverlayXattrs,
    },
    /// Everything: a private copy made by [`copy_tree`], or the repository itself.
    Directory {
        /// The folder.
        root: PathBuf,
    },
}

/// What a [`Tracker`] works on.
#[derive(Clone, Debug)]
pub struct TrackerOptions {
    /// What stood in the repository when the run began.
    pub base: Arc<BaseManifest>,
    /// The repository.
    pub lower: PathBuf,
    /// The workspace.
    pub layout: Layout,
    /// Where snapshots and contents go.
    pub objects: Arc<ObjectStore>,
    /// Paths that are never read, changed or part of a snapshot, each with everything below it: masked credentials.
    pub ignored: Vec<RelPath>,
    /// Owner and group of what is made by root; `None`: the process's own.
    pub owner: Option<(u32, u32)>,
}

/// Takes snapshots of a workspace and puts it back to one.
#[derive(Debug)]
pub struct Tracker {
    options: TrackerOptions,
    ignored: HashSet<RelPath>,
    /// What stood in the workspace when it was whole and untouched: for a copy the stamps of the copied files.
    seen: Arc<BaseManifest>,
    lower: OwnedFd,
    root: OwnedFd,
    digest_cache: Arc<Mutex<DigestCache>>,
    /// Hard links of the beginning by their file's number, found when they are first asked for.
    links: OnceLock<HashMap<u64, Vec<usize>>>,
    seen_links: OnceLock<HashMap<u64, Vec<usize>>>,
    /// What the work at hand may take.
    bounds: WorkBounds,
}

impl Tracker {
    /// A tracker of a workspace that exists.
    ///
    /// # Errors
    /// The host's: a folder is missing or may not be read.
    pub fn open(options: TrackerOptions) -> Result<Self, Error> {
        let root = match &options.layout {
            Layout::Overlay { upper, .. } => upper,
            Layout::Directory { root } => root,
        };
        let lower = host::open_root(&options.lower).io_context("open", &options.lower)?;
        let copy = matches!(&options.layout, Layout::Directory { root } if *root != options.lower);
        let stamps = options.objects.directory().join(replica::COPY_STAMPS_FILE);
        let seen = match BaseManifest::load(&stamps) {
            Ok(stamps) if copy => Arc::new(stamps),
            // Without the stamps every file of a copy is compared by its content.
            _ => options.base.clone(),
        };
        let mut known = DigestCache::default();
        known.load_base_digests(options.objects.directory(), &options.base);
        Ok(Self {
            root: host::open_root(root).io_context("open", root)?,
            lower,
            seen,
            ignored: options.ignored.iter().cloned().collect(),
            digest_cache: Arc::new(Mutex::new(known)),
            links: OnceLock::new(),
            seen_links: OnceLock::new(),
            bounds: WorkBounds::unbounded().clone(),
            options,
        })
    }

    /// What everything from now on may take; at first there are no bounds.
    pub fn set_bounds(&mut self, bounds: &WorkBounds) {
        self.bounds = bounds.clone();
    }

    /// The snapshot of a workspace that does not differ from its beginning: the same for every one.
    pub fn baseline_digest() -> Digest {
        tree::empty_tree_digest()
    }

    /// Tells the tracker that [`copy_tree`] has just made this workspace, so that untouched files need not be read.
    /// Remembered beside the objects.
    ///
    /// # Errors
    /// The host's.
    pub fn adopt_copy(&mut self, copy: CopyStats) -> Result<(), Error> {
        self.adopt_stamps(copy.stamps)
    }

    /// Tells the tracker that its copy, in which nothing was changed yet, was given to another owner: that leaves new
    /// times on all of it. Else what is untouched could be told by its content only, and not at all once the repository
    /// has changed. Does nothing where there is no copy.
    ///
    /// # Errors
    /// The host's.
    pub fn adopt_owner(&mut self) -> Result<(), Error> {
        match &self.options.layout {
            Layout::Directory { root } if *root != self.options.lower => {
                replica::wait_clock_tick();
                let stamps = BaseManifest::scan_owned_tree(root, &self.bounds).io_context("look at", root)?;
                self.adopt_stamps(stamps)
            }
            _ => Ok(()),
        }
    }

    fn adopt_stamps(&mut self, stamps: BaseManifest) -> Result<(), Error> {
        let path = self.options.objects.directory().join(replica::COPY_STAMPS_FILE);
        stamps.save(&path).io_context("write", &path)?;
        self.seen = Arc::new(stamps);
        self.links = OnceLock::new();
        self.seen_links = OnceLock::new();
        Ok(())
    }

    /// Stores the contents of all files as they are at the beginning, durably. Needed before anything may be changed
    /// where the workspace is the repository itself.
    ///
    /// # Errors
    /// [`Error::Full`]; the host's.
    pub fn save_base(&self) -> Result<(), Error> {
        self.base_saver().save()
    }

    /// [`Tracker::save_base`] as a piece of work for another thread.
    pub fn base_saver(&self) -> BaseSaver {
        let bounds = self.bounds.clone();
        BaseSaver { options: self.options.clone(), digest_cache: self.digest_cache.clone(), bounds }
    }

    /// Takes a snapshot and makes it durable. The same state has the same digest. Works while the workspace is in
    /// use; a file that is written to all the time is stored as some reader could have seen it.
    ///
    /// # Errors
    /// [`Error::Full`], [`Error::Ceiling`], [`Error::Stopped`], after which earlier snapshots are all there; the host's.
    pub fn snapshot(&mut self) -> Result<Digest, Error> {
        let id = self.snapshot_unflushed()?;
        self.options.objects.flush()?;
        Ok(id)
    }

    /// As [`Tracker::snapshot`], without making it durable: [`Objects::flush`] does that.
    ///
    /// # Errors
    /// As [`Tracker::snapshot`].
    pub fn snapshot_unflushed(&mut self) -> Result<Digest, Error> {
        self.scan_and_store().map_err(|error| error.in_repository(self.workspace_path(), &self.options.lower))
    }

    fn scan_and_store(&mut self) -> Result<Digest, Error> {
        self.lock_digest_cache().begin_scan();
        let scan = self.scan_workspace(ContentPolicy::Store)?;
        let found = scan.into_entries()?;
        let id = tree::store_delta(&self.options.objects, found)?;
        self.lock_digest_cache().end_scan();
        Ok(id)
    }

    /// Where the contents of its snapshots are kept.
    #[must_use]
    pub fn objects(&self) -> Arc<ObjectStore> {
        Arc::clone(&self.options.objects)
    }

    /// How a snapshot differs from the beginning.
    ///
    /// # Errors
    /// [`Error::Missing`], [`Error::Damaged`]; the host's.
    pub fn snapshot_delta(&self, id: Digest) -> Result<TreeDelta, Error> {
        load_delta(&self.options.objects, id, &self.bounds)
    }

    /// Puts the workspace to exactly the state of a snapshot, touching only what differs. No box may be open on it,
    /// no overlay mounted. If it is interrupted, the next call finishes the work.
    ///
    /// # Errors
    /// [`Error::Missing`], [`Error::Damaged`] before anything is touched; [`Error::Lost`], [`Error::Full`]; the host's.
    pub fn restore(&mut self, id: Digest) -> Result<(), Error> {
        let full = tree::load_full_delta(&self.options.objects, id, &self.bounds)?;
        self.lock_digest_cache().learn_from_snapshot(&full, &self.options.base);
        let plan = restore_plan::plan_restore(self, full)?;
        rebuild::rebuild_workspace(self, plan)
    }

    fn lock_digest_cache(&self) -> std::sync::MutexGuard<'_, DigestCache> {
        self.digest_cache.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Where the workspace lies, for messages.
    fn workspace_path(&self) -> &Path {
        match &self.options.layout {
            Layout::Overlay { upper, .. } => upper,
            Layout::Directory { root } => root,
        }
    }

    /// Whether a path is masked.
    fn is_ignored(&self, path: &RelPath) -> bool {
        is_ignored(&self.ignored, path)
    }

    fn scan_workspace(&self, contents: ContentPolicy) -> Result<WorkspaceScan<'_>, Error> {
        let scan = WorkspaceScan::new(self, contents);
        match &self.options.layout {
            Layout::Overlay { attributes, .. } => overlay::scan_overlay(&scan, *attributes)?,
            Layout::Directory { .. } => full_scan::scan_directory(&scan)?,
        }
        Ok(scan)
    }
}

fn is_ignored(ignored: &HashSet<RelPath>, path: &RelPath) -> bool {
    !ignored.is_empty() && ignored.iter().any(|masked| path.is_below(masked))
}

/// See [`Tracker::base_saver`].
#[derive(Debug)]
pub struct BaseSaver {
    options: TrackerOptions,
    digest_cache: Arc<Mutex<DigestCache>>,
    bounds: WorkBounds,
}

impl BaseSaver {
    /// Leaves out more paths, each with everything below it.
    pub fn ignore_paths(&mut self, paths: Vec<RelPath>) {
        self.options.ignored.extend(paths);
    }

    /// The same work within other bounds.
    #[must_use]
    pub fn with_bounds(self, bounds: &WorkBounds) -> Self {
        Self { bounds: bounds.clone(), ..self }
    }

    /// Does it; see [`Tracker::save_base`].
    ///
    /// # Errors
    /// [`Error::Full`]; the host's.
    pub fn save(&self) -> Result<(), Error> {
        digest_cache::save_base_contents(&self.options, &self.digest_cache, &self.bounds)
    }
}

/// How a snapshot differs from the beginning. Differences in time alone are left out.
///
/// # Errors
/// [`Error::Missing`], [`Error::Damaged`], [`Error::Ceiling`], [`Error::Stopped`]; the host's.
pub fn load_delta(objects: &ObjectStore, id: Digest, bounds: &WorkBounds) -> Result<TreeDelta, Error> {
    let mut full: FullDelta = tree::load_full_delta(objects, id, bounds)?;
    full.retain(|_, entry| match (&entry.before, &entry.after) {
        (Some(was), Some(now)) => !was.is_equivalent(now),
        _ => true,
    });
    Ok(full)
}
